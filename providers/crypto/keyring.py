"""The keys of one actor, under handles: opaque, unguessable, worth nothing to any other actor.

May not: give a key to any but the operation that needs it. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Final, TypeVar

import msgspec

from tea.protocol.errors import CallError, Code

from .keys import Key

_K = TypeVar("_K", bound=Key)
_HANDLE: Final = 18
"""Random bytes of a handle; in text it has 24 characters."""
MAX_HANDLE: Final = 64


class Handle(msgspec.Struct, frozen=True):
    """A key as its actor sees it."""

    handle: str
    algorithm: str
    exportable: bool = False


class KeyRing:
    """The keys of one actor, at most `limit`."""

    __slots__ = ("_keys", "limit", "making")

    def __init__(self, limit: int) -> None:
        self._keys: dict[str, Key] = {}
        self.limit = limit
        self.making = asyncio.Lock()
        """Held while a slow key is made: one at a time for each actor, so that none takes all threads."""

    def __len__(self) -> int:
        return len(self._keys)

    def require_room(self) -> None:
        """Raise EXHAUSTED when there are as many handles as may be."""
        if len(self._keys) >= self.limit:
            raise CallError(
                Code.EXHAUSTED,
                f"an actor has at most {self.limit} handles: forget some, or raise max_handles in the manifest",
                limit=self.limit,
            )

    def add(self, key: Key) -> str:
        """Keep a key; its handle."""
        self.require_room()
        handle = secrets.token_urlsafe(_HANDLE)
        self._keys[handle] = key
        return handle

    def items(self) -> list[tuple[str, Key]]:
        """Handles and keys, oldest first."""
        return list(self._keys.items())

    def restore(self, handle: str, key: Key) -> None:
        """Keep a key of an earlier enclave under the handle that its actor knows. Raises EXHAUSTED; `ValueError`."""
        self.require_room()
        if handle in self._keys or not 1 <= len(handle) <= MAX_HANDLE:
            raise ValueError("a handle stands twice in the exported state, or is none")
        self._keys[handle] = key

    def get(self, handle: str, kind: type[_K], use: str) -> _K:
        """The key for a use. Raises NOT_FOUND on an unknown handle, INVALID on a key of another kind."""
        key = self._keys.get(handle)
        if key is None:
            # Not the handle itself: what was handed in by mistake may be a secret.
            raise CallError(Code.NOT_FOUND, "this actor has no key under this handle (handles end with the host)")
        if not isinstance(key, kind):
            raise CallError(Code.INVALID, f"a key of {key.algorithm} does not {use}", algorithm=key.algorithm)
        return key

    def forget(self, handle: str) -> bool:
        """Drop a key; False when there was none."""
        return self._keys.pop(handle, None) is not None

    def handles(self) -> list[Handle]:
        """All handles, oldest first."""
        return [Handle(handle, key.algorithm, key.exportable) for handle, key in self._keys.items()]
