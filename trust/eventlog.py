"""The hash-chained event log of an enclave: what it was made to do since boot, oldest first, nothing left out.

May not: hold a clock, or be believed without a head that an attestation vouches for (a statement's `log_head`).
Rule: docs/architecture.md, "Measured boot" (event log): every activation, the first included, is an entry.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from . import canonical, pcr
from .errors import TrustError

TAG: Final = "tea.event.v1"
MAX_ENTRY: Final = 4096
"""Bytes of an entry."""
MAX_ENTRIES: Final = 100_000
"""Entries of a log that is verified at once."""
MAX_COUNTER: Final = 1 << 63

ACTIVATED: Final = "activated"
"""A manifest became the active one."""
APPROVERS_CHANGED: Final = "approvers-changed"
"""The set of approvers changed; the epoch rose."""

_EVENT: Final = re.compile(r"[a-z][a-z0-9-]{0,62}")
_FIELDS: Final = frozenset({"index", "previous", "event", "manifest", "revision", "epoch", "time"})


class EventLogCode(enum.StrEnum):
    """Why a log is refused."""

    ENTRY = "entry"
    """An entry is malformed."""
    ORDER = "order"
    """An entry is missing, doubled or out of place."""
    HEAD = "head"
    """The entries do not end in the head: something was cut off, added or changed."""
    ROLLBACK = "rollback"
    """A revision or an epoch falls."""
    TOO_LONG = "too-long"


class EventLogError(TrustError):
    """The entries are not the log that the head stands for; `code` is an `EventLogCode`."""

    def __init__(self, code: EventLogCode, sentence: str) -> None:
        super().__init__(code, sentence)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One entry."""

    index: int
    """From 0."""
    previous: bytes
    """SHA-384 of the entry before; `pcr.ZERO` for the first."""
    event: str
    """A word: `activated`, `approvers-changed`, ..."""
    manifest: bytes
    """SHA-384 of the manifest that is active from here on."""
    revision: int
    """Its revision, from 1."""
    epoch: int
    """How often the approvers changed."""
    time: int
    """Milliseconds since the epoch, as the host believed: for people, never for a verdict."""

    def __post_init__(self) -> None:
        for name in ("previous", "manifest"):
            value: object = getattr(self, name)
            if not isinstance(value, bytes) or len(value) != pcr.SIZE:
                raise EventLogError(EventLogCode.ENTRY, f"an entry's {name} must be {pcr.SIZE} bytes")
        for name, least in (("index", 0), ("revision", 1), ("epoch", 0), ("time", 0)):
            number: object = getattr(self, name)
            if not isinstance(number, int) or isinstance(number, bool) or not least <= number < MAX_COUNTER:
                raise EventLogError(EventLogCode.ENTRY, f"an entry's {name} must be an integer from {least}")
        if not isinstance(self.event, str) or not _EVENT.fullmatch(self.event):
            raise EventLogError(EventLogCode.ENTRY, "an entry's event must be 1 to 63 of a-z, 0-9 and -")

    def encode(self) -> bytes:
        """The canonical bytes, whose SHA-384 is the head after this entry."""
        fields: dict[str, object] = {name: getattr(self, name) for name in _FIELDS}
        return canonical.encode({"tea": TAG, **fields})


def parse_event(data: bytes) -> Event:
    """Read one entry's canonical bytes. Raises `EventLogError`."""
    try:
        fields = canonical.decode_tagged(data, TAG, limit=MAX_ENTRY)
    except canonical.CanonicalError as error:
        raise EventLogError(EventLogCode.ENTRY, f"this is not an entry of an event log: {error}") from None
    if fields.keys() != _FIELDS:
        wrong = ", ".join(sorted(fields.keys() ^ _FIELDS))
        raise EventLogError(EventLogCode.ENTRY, f"an entry's fields {wrong!r:.200} are missing or unknown")
    return Event(**fields)  # type: ignore[arg-type]  # __post_init__ checks them


def head_after(entry: bytes) -> bytes:
    """The head of a log that ends in this entry: its SHA-384, which covers all before it."""
    return hashlib.sha384(entry).digest()


@dataclass(frozen=True, slots=True)
class EventLog:
    """A log: its entries' canonical bytes, oldest first. `append` gives a new one."""

    entries: tuple[bytes, ...] = ()

    @property
    def head(self) -> bytes:
        """48 bytes that stand for the whole log; `pcr.ZERO` while it is empty."""
        return head_after(self.entries[-1]) if self.entries else pcr.ZERO

    def append(self, event: str, *, manifest: bytes, revision: int, epoch: int, time: int) -> EventLog:
        """The log with one more entry; `time` in milliseconds. Raises `EventLogError` on a field that is malformed."""
        entry = Event(
            index=len(self.entries),
            previous=self.head,
            event=event,
            manifest=manifest,
            revision=revision,
            epoch=epoch,
            time=time,
        )
        return EventLog((*self.entries, entry.encode()))


def verify_log(entries: Sequence[bytes], head: bytes) -> tuple[Event, ...]:
    """The events of a log that ends in `head` (48 bytes, from a statement). Raises `EventLogError`.

    Beside the chain, revisions and epochs never fall, and one revision has one manifest.
    """
    if len(entries) > MAX_ENTRIES:
        raise EventLogError(EventLogCode.TOO_LONG, f"{len(entries)} entries, at most {MAX_ENTRIES} are verified")
    # The head first: it covers every byte of a chain that is whole, and the walk below shows that it is.
    found = head_after(entries[-1]) if entries else pcr.ZERO
    if not hmac.compare_digest(found, head):
        raise EventLogError(
            EventLogCode.HEAD,
            f"the log ends in {found.hex()}, expected {head.hex()}: an entry was cut off, added or changed",
        )
    events: list[Event] = []
    before = pcr.ZERO
    for index, entry in enumerate(entries):
        event = parse_event(entry)
        if event.index != index or not hmac.compare_digest(event.previous, before):
            raise EventLogError(
                EventLogCode.ORDER, f"entry {index} does not follow the one before it: the log is not whole"
            )
        if events:
            _require_forward(events[-1], event)
        events.append(event)
        before = head_after(entry)
    return tuple(events)


def _require_forward(old: Event, new: Event) -> None:
    if new.revision < old.revision or new.epoch < old.epoch:
        raise EventLogError(
            EventLogCode.ROLLBACK,
            f"entry {new.index} falls from revision {old.revision}, epoch {old.epoch} to revision {new.revision}, "
            f"epoch {new.epoch}",
        )
    if new.revision == old.revision and new.manifest != old.manifest:
        raise EventLogError(
            EventLogCode.ROLLBACK, f"entry {new.index} has another manifest under the same revision {new.revision}"
        )
