"""Enclave images: build, measure, sign and read EIF files; run them on Nitro or in QEMU.

May not: import the host, or anything else of floors 3 and 4. Rule: docs/architecture.md, "The house".
"""
