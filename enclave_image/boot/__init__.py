"""What runs before the host: `init.c`, the first process of an enclave.

May not: hold anything but its source. Rule: docs/architecture.md, "Boot".
"""
