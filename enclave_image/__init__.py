"""Enclave images: build, measure, sign and read EIF files.

May not: import the host. Rule: docs/architecture.md, "The house".
"""
