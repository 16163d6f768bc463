"""What the host lends its continuity: its identity, its word, and the providers' state.

May not: hold logic; `continuity_host.py` is a real host's, and the tests have another. Rule: docs/continuity.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from tea.trust.approval import Approvers
from tea.trust.handover import Approved
from tea.trust.manifest import Backups
from tea.trust.policy import Policy
from tea.trust.sealing import SealingKey


class ContinuityHost(Protocol):
    """What the host lends: its identity, its word, and the providers' state."""

    @property
    def approvers(self) -> Approvers:
        """The approvers of the image."""
        ...

    @property
    def quorum(self) -> Approvers:
        """The approvers that count now: those of the image after the changes under which the manifest runs."""
        ...

    @property
    def keepers(self) -> Backups | None:
        """Who keeps backups, by the running manifest."""
        ...

    @property
    def approved(self) -> Approved:
        """The running manifest as it was approved, and the changes of approvers before it."""
        ...

    @property
    def manifest_digest(self) -> bytes: ...

    @property
    def revision(self) -> int: ...

    @property
    def epoch(self) -> int: ...

    @property
    def sealing_key(self) -> SealingKey:
        """The X25519 key of this boot, whose public half a ticket names."""
        ...

    def policy(self) -> Policy:
        """What an enclave of this slot must meet under the running manifest (`Host.policy_for`)."""
        ...

    async def attest(
        self, kind: str, body: bytes, *, nonce: bytes | None = None, public_key: bytes | None = None
    ) -> tuple[bytes, bytes]:
        """See `providers.base.Attester`."""
        ...

    def random(self, size: int) -> bytes: ...

    def now_ms(self) -> int:
        """Milliseconds since the epoch, by the NSM's clock."""
        ...

    async def freeze(self) -> None:
        """Take no more calls, and wait for those in hand: from here to `thaw` no provider's state changes."""
        ...

    async def thaw(self) -> None:
        """Serve again. Not called when the freeze turned out to be for good."""
        ...

    async def export_states(self) -> dict[str, bytes]:
        """`export_state` of every running provider that has one."""
        ...

    async def import_states(self, states: Mapping[str, bytes]) -> None:
        """`import_state` of every provider named. Raises `ValueError` for one that does not run, or refuses."""
        ...

    def log(self, level: str, message: str, **fields: object) -> None: ...
