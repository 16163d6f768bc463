"""What a chain is to the adapter: finalized heads and what each block changed in the watched state.

May not: hold state of the enclave's. A chain of another kind (Substrate, ...) is one more class of this shape.
Rule: docs/architecture.md, "Providers" (layer1).
"""

from __future__ import annotations

from typing import Protocol

from tea.protocol.channels import BlockChanges, Head


class ChainSource(Protocol):
    """A chain node, seen by the adapter. All methods raise `CallError`: UNAVAILABLE when the node does not answer."""

    @property
    def start(self) -> int:
        """The first watched height: its changes are the whole watched state."""
        ...

    async def head(self) -> Head:
        """The newest finalized block."""
        ...

    async def changes(self, height: int) -> BlockChanges:
        """What the canonical block of a height changed. NOT_FOUND when there is none, CONFLICT when it was replaced
        while it was read."""
        ...

    async def send_transaction(self, raw: bytes) -> bytes:
        """Broadcast; the hash. INVALID or CONFLICT when the node refuses it."""
        ...

    async def account(self, address: bytes) -> tuple[int, bytes, int, int]:
        """(nonce, balance in wei as 32 bytes, chain id, suggested gas price in wei)."""
        ...

    async def close(self) -> None:
        """Free connections."""
        ...
