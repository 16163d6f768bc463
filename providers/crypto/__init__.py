"""crypto: keys that never leave the host, as handles; signatures, encryption, hashes, secret sharing, addresses.

May not: give a secret out. Rule: docs/architecture.md, "Providers".
"""

from .address_operations import Ss58Address
from .bitcoin import BitcoinAddress, BitcoinMultisig
from .extrinsic import SignedExtrinsic, SubstrateTransaction
from .keyring import Handle
from .keystore import CryptoConfig
from .provider import Crypto

__all__ = [
    "BitcoinAddress",
    "BitcoinMultisig",
    "Crypto",
    "CryptoConfig",
    "Handle",
    "SignedExtrinsic",
    "Ss58Address",
    "SubstrateTransaction",
]
