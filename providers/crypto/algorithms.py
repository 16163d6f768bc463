"""The closed tables of key algorithms: how a key is made, from a seed where it can be; how a signature is checked.

May not: hold keys. One line a table adds an algorithm. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm

from .curves import (
    CURVES,
    EcdsaKey,
    Ed25519Key,
    Secp256k1Key,
    Sr25519Key,
    verify_ecdsa,
    verify_ed25519,
    verify_secp256k1,
    verify_sr25519,
)
from .exchange import X25519Key
from .keys import Key, Random
from .limits import unknown
from .rsa import OAEP_BITS, PSS_BITS, RsaOaepKey, RsaPssKey, verify_rsa_pss
from .symmetric import AEADS, KEY_SIZE, SECRET, AeadKey, SecretKey

SEEDED: Final[Mapping[str, Callable[[bytes], Key]]] = {
    "ed25519": Ed25519Key,
    "sr25519": Sr25519Key,
    "x25519": X25519Key,
    SECRET: SecretKey,
    **{name: partial(AeadKey, name) for name in AEADS},
}
"""Algorithms whose keys are any 32 bytes: these can also be derived."""

DRAWN: Final[Mapping[str, Callable[[Random], Key]]] = {
    "secp256k1": Secp256k1Key,
    **{name: partial(EcdsaKey, name) for name in CURVES},
}
"""Algorithms whose keys are numbers below a group's order."""

SLOW: Final[Mapping[str, Callable[[], Key]]] = {
    **{name: partial(RsaPssKey, name) for name in PSS_BITS},
    **{name: partial(RsaOaepKey, name) for name in OAEP_BITS},
}
"""Algorithms whose keys take from a tenth of a second to seconds to make; from OpenSSL's generator, see `rsa`."""

ALGORITHMS: Final = (*SEEDED, *DRAWN, *SLOW)

Verify = Callable[[bytes, bytes, bytes, bool], bool]
"""(public key, data, signature, hashed) -> whether it is a signature."""

VERIFIERS: Final[Mapping[str, Verify]] = {
    "ed25519": verify_ed25519,
    "sr25519": verify_sr25519,
    "secp256k1": verify_secp256k1,
    **{name: partial(verify_ecdsa, name) for name in CURVES},
    **{name: partial(verify_rsa_pss, name) for name in PSS_BITS},
}

OFF_LOOP: Final = frozenset({"p-384", *PSS_BITS, *OAEP_BITS})
"""Algorithms whose every use takes long enough, 0.4 ms and more, to leave the host's loop."""


def derive(algorithm: str, secret: Callable[[bytes], bytes], *context: bytes) -> Key:
    """A key from 32 derived bytes: `secret(info)` with info `tea.crypto.v1 0 algorithm 0 context...`.

    The algorithm is in the info, so that one secret never becomes the same bytes under two algorithms.
    """
    make = SEEDED.get(algorithm)
    if make is None:
        raise unknown("algorithm that can be derived,", algorithm, tuple(SEEDED))
    return make(secret(b"\0".join([b"tea.crypto.v1", algorithm.encode(), b"".join(context)])))


def key_from_secret(algorithm: str, secret: bytes) -> Key:
    """The key that `Key.export_secret` gave, or that its owner has. Raises `ValueError`, which says nothing of it."""
    try:
        if algorithm in AEADS:
            return AeadKey.from_secret(algorithm, secret)
        if algorithm == "sr25519" and len(secret) != KEY_SIZE:
            return Sr25519Key.from_secret(secret)
        if algorithm in SEEDED and len(secret) == KEY_SIZE:
            return SEEDED[algorithm](secret)
        if algorithm == "secp256k1" and len(secret) == KEY_SIZE:
            return Secp256k1Key.from_secret(secret)
        if algorithm in CURVES and len(secret) == CURVES[algorithm].size:
            return EcdsaKey.from_secret(algorithm, secret)
        if algorithm in PSS_BITS:
            return RsaPssKey.from_secret(algorithm, secret)
        if algorithm in OAEP_BITS:
            return RsaOaepKey.from_secret(algorithm, secret)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        pass
    raise ValueError(f"this is no key of {algorithm[:32]!r}")


def draw(algorithm: str, random: Random) -> Key:
    """A new key from random bytes, for all but the slow algorithms. Raises INVALID on another name."""
    if (seeded := SEEDED.get(algorithm)) is not None:
        return seeded(random(KEY_SIZE))
    if (drawn := DRAWN.get(algorithm)) is not None:
        return drawn(random)
    raise unknown("algorithm", algorithm, ALGORITHMS)
