"""The keys of all actors as bytes, for another enclave of the same slot: handles stay what they were.

May not: decide who gets them (a handover seals them to an attested enclave), or be read from anyone but the host.
Rule: docs/continuity.md, "What is handed over".
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from .algorithms import key_from_secret
from .curves import Sr25519Key
from .keyring import KeyRing
from .keys import Key
from .symmetric import KEY_SIZE, MAX_MESSAGES, AeadKey


class KeyState(msgspec.Struct, frozen=True, array_like=True):
    """One key under its handle. `left`: messages that an AEAD key may still encrypt."""

    handle: str
    algorithm: str
    secret: bytes
    left: int = 0
    exportable: bool = False

    def __repr__(self) -> str:
        return f"KeyState({self.algorithm})"


class CryptoState(msgspec.Struct, frozen=True, array_like=True, tag="tea.crypto-state.v1"):
    """The keys of each actor, oldest first."""

    rings: dict[str, tuple[KeyState, ...]]


def export_rings(rings: Mapping[str, KeyRing]) -> bytes:
    """Every key. These are the actors' secrets: it is for sealing only."""
    exported = {
        actor: tuple(
            KeyState(
                handle,
                key.algorithm,
                key.export_secret(),
                key.left if isinstance(key, AeadKey) else 0,
                key.exportable,
            )
            for handle, key in ring.items()
        )
        for actor, ring in rings.items()
    }
    return msgspec.msgpack.encode(CryptoState(exported))


def import_rings(data: bytes, max_handles: int) -> dict[str, KeyRing]:
    """The rings of what `export_rings` made. Raises `ValueError`, which says nothing of the keys; `CallError`."""
    try:
        state = msgspec.msgpack.decode(data, type=CryptoState)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("this is not the exported state of a key ring") from None
    rings: dict[str, KeyRing] = {}
    for actor, keys in state.rings.items():
        ring = rings[actor] = KeyRing(max(max_handles, len(keys)))
        for one in keys:
            ring.restore(one.handle, _restored(one))
        ring.limit = max_handles
    return rings


def _restored(state: KeyState) -> Key:
    try:
        if state.algorithm == "sr25519":  # a seed would do for an import, but it is not what was exported
            key: Key = Sr25519Key.from_secret(state.secret)
        else:
            key = key_from_secret(state.algorithm, state.secret)
        if isinstance(key, AeadKey):
            if len(state.secret) != KEY_SIZE or not 0 <= state.left <= MAX_MESSAGES:
                raise ValueError("messages left")
            key.left = state.left
    except ValueError:
        raise ValueError(f"the exported state has a key of {state.algorithm[:32]!r} that is none") from None
    key.exportable = state.exportable
    return key
