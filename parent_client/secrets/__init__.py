"""The release service: keeps secrets and policies, and releases a secret to attested code alone.

May not: import the host. It runs where its owner trusts the machine; enclaves' parents it never has to trust.
Rule: docs/secrets.md.
"""

from __future__ import annotations
