"""Runs an image in QEMU: a microvm with a real AF_VSOCK, on any machine, with or without KVM.

May not: be taken for an enclave: its NSM is simulated, and whoever runs it can read its memory.
Rule: docs/architecture.md, "Modes".
"""
