"""crypto: keys that never leave the host, as handles; signatures, encryption, hashes, secret sharing, addresses.

May not: give a secret out. Rule: docs/architecture.md, "Providers".
"""

from .keyring import Handle
from .provider import Crypto, CryptoConfig, Ss58Address

__all__ = ["Crypto", "CryptoConfig", "Handle", "Ss58Address"]
