"""tea: attested actors for AWS Nitro Enclaves.

This package holds no code of its own: each floor is a folder at the repository's root, linked in here
(`docs/architecture.md`, section "The house").
"""
