"""crypto: keys that never leave the host, as operations on handles; and the public functions that go with them.

May not: answer with a secret, or take a key in that an actor could read. The operations stand in the modules that end
in `_operations`. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

from typing import ClassVar

from .address_operations import AddressOperations
from .cipher_operations import CipherOperations
from .derivation_operations import DerivationOperations
from .key_operations import KeyOperations
from .signature_operations import SignatureOperations


class Crypto(KeyOperations, SignatureOperations, CipherOperations, DerivationOperations, AddressOperations):
    """Keys that are made in the host or come in sealed, and never leave it; an actor holds handles (24 characters).

    A handle works for the actor that made it (all its replicas) and ends with the host; another actor's is NOT_FOUND.
    An actor has at most `max_handles` (256 unless the manifest says otherwise), then EXHAUSTED. Algorithms: ed25519,
    sr25519, p-256, p-384, secp256k1, rsa-pss-2048, rsa-pss-3072 (sign); x25519 (agree, HPKE); rsa-oaep-2048,
    rsa-oaep-3072 (decrypt); aes-256-gcm, chacha20-poly1305 (encrypt); hkdf-hmac (derive, authenticate). A key does
    what its algorithm is for and nothing else. One way out: a key that was made exportable, by an actor that the
    manifest lets export, sealed to another attested enclave of the deployment (`export_sealed`).

    Keys are made of random bytes from the NSM, but RSA's, whose primes OpenSSL draws from its own generator. Data are
    at most 768 KiB, info, salt and associated data 4 KiB, public keys 1 KiB: else INVALID. What does not open, join
    or recover is UNTRUSTED, without a reason.

    Left out on purpose: encryption and signatures of PKCS#1 v1.5, and AES without authentication. A decryptor of
    either tells an attacker who sends it forged ciphertexts whether their padding was right, and so, in the end, the
    plaintext (Bleichenbacher's attack, and padding oracles of CBC); RSA-OAEP, RSA-PSS and AES-256-GCM do their work.
    """

    name: ClassVar[str] = "crypto"
