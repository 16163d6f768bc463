"""The trust core: COSE, attestation, PCRs, claims, manifest, policy, sealing. Bytes in, verdict out.

May not: open sockets or files, read a clock, or keep global state. Rule: docs/architecture.md, "Trust".
"""
