"""The keys that the host holds for actors: what every group of crypto's operations stands on.

May not: answer a call: it has no operations. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, TypeVar

from ..base import Call, Config, Provider
from .keyring import MAX_HANDLE, KeyRing
from .keys import Key
from .state import export_rings, import_rings

_T = TypeVar("_T")
_K = TypeVar("_K", bound=Key)


class CryptoConfig(Config, frozen=True):
    """`max_handles`: keys that one actor may have at once, 1 to 65,536.

    `export`: which actor may move exportable keys to which slots of `ra.members`, as {ACTOR: [SLOT, ...]}; nobody,
    unless it says so.
    """

    max_handles: int = 256
    export: dict[str, tuple[str, ...]] = {}

    def __post_init__(self) -> None:
        if not 1 <= self.max_handles <= 65536:
            raise ValueError(f"max_handles is 1 to 65536, not {self.max_handles}")
        for actor, slots in self.export.items():
            if not slots:
                raise ValueError(f"export.{actor[:80]} names no slot: leave it out, or say where its keys may go")


class KeyStore(Provider[CryptoConfig]):
    """A ring of keys for each actor."""

    config_type: ClassVar[type[Config]] = CryptoConfig
    in_place: ClassVar[frozenset[str]] = frozenset(CryptoConfig.__struct_fields__)

    def __init__(self, config: CryptoConfig) -> None:
        super().__init__(config)
        self._rings: dict[str, KeyRing] = {}
        self._exported = 0

    async def stop(self) -> None:
        self._rings.clear()

    async def export_state(self) -> bytes:
        return export_rings(self._rings)

    async def import_state(self, state: bytes) -> None:
        self._rings = import_rings(state, self.config.max_handles)

    async def forget(self, actor: str) -> None:
        self._rings.pop(actor, None)

    def usage(self) -> dict[str, int]:
        """Handles, actors that have any, and keys that were exported since the start."""
        sizes = [len(ring) for ring in self._rings.values()]
        return {
            "handles": sum(sizes),
            "actors": sum(1 for size in sizes if size),
            "exported": self._exported,
        }

    def _ring(self, call: Call) -> KeyRing:
        limit = self.config_for(call).max_handles
        ring = self._rings.get(call.caller)
        if ring is None:
            ring = self._rings[call.caller] = KeyRing(limit)
        ring.limit = limit  # an upgrade may have changed it
        return ring

    def _key(self, call: Call, handle: str, kind: type[_K], use: str) -> _K:
        return self._ring(call).get(handle if len(handle) <= MAX_HANDLE else "", kind, use)

    async def _run(self, heavy: bool, function: Callable[..., _T], *args: object) -> _T:
        if not heavy:
            return function(*args)
        result: _T = await self.services.run_in_thread(function, *args)
        return result
