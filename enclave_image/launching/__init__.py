"""Starts and ends enclaves on this machine: by nitro-cli where it is, in QEMU where it is not.

May not: give an enclave settings; that is the runtime client's. Rule: docs/deploy-nitro.md.
"""
