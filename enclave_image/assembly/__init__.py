"""Assembles images from Debian packages and wheels by hash, without Docker or root; same inputs, same bytes.

May not: run anything of what it puts into an image but the interpreter that compiles its own bytecode.
Rule: docs/architecture.md, "The enclave image"; reproducible-builds.org (SOURCE_DATE_EPOCH).
"""
