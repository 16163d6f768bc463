"""The audit log of a release service: who got what, under which measurement; lines of JSON, each chained to the last.

May not: hold a secret or a file; be believed to its last line without a head that somebody else kept.
Rule: docs/secrets.md, "The audit log". The chain is over canonical CBOR, so that a line's spelling says nothing.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from . import canonical
from .errors import TrustError

TAG: Final = "tea.audit.v1"
ZERO: Final = bytes(48)
"""What the first entry follows."""
MAX_LINE: Final = 16 << 10
_EVENT: Final = re.compile(r"[a-z][a-z0-9-]{0,62}")
_KEYS: Final = frozenset({"index", "time", "event", "fields", "previous", "digest"})


class AuditCode(enum.StrEnum):
    """Why a log is refused; the sentence names the line."""

    LINE = "line"
    """A line that is no entry."""
    DIGEST = "digest"
    """An entry was changed: its digest is another."""
    ORDER = "order"
    """An entry is missing, doubled or out of place."""
    HEAD = "head"
    """The log does not end where it should: entries were cut off or added."""


class AuditError(TrustError):
    """The lines are not the log; `code` is an `AuditCode`."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One entry. `fields` are text and integers: names and digests, never a secret."""

    index: int
    """From 0."""
    time: int
    """Milliseconds since the epoch, by the service's clock."""
    event: str
    fields: Mapping[str, str | int]
    previous: bytes
    """Digest of the entry before; `ZERO` for the first."""

    def __post_init__(self) -> None:
        for value in (self.index, self.time):
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
                raise ValueError("index and time are integers from 0")
        if not isinstance(self.event, str) or not _EVENT.fullmatch(self.event):
            raise ValueError("event is 1 to 63 of a-z, 0-9 and -")
        if not isinstance(self.previous, bytes) or len(self.previous) != len(ZERO):
            raise ValueError("previous is 48 bytes")
        for key, item in self.fields.items():
            if not isinstance(key, str) or isinstance(item, bool) or not isinstance(item, (str, int)):
                raise ValueError("fields are text or integers, by name")

    @property
    def digest(self) -> bytes:
        """SHA-384 over the canonical entry, the one before included: 48 bytes."""
        fields = {"index": self.index, "time": self.time, "event": self.event, "fields": dict(self.fields)}
        return hashlib.sha384(canonical.encode({"tea": TAG, **fields, "previous": self.previous})).digest()

    def line(self) -> str:
        """The line of the file, without its end."""
        entry = {
            "index": self.index,
            "time": self.time,
            "event": self.event,
            "fields": dict(self.fields),
            "previous": self.previous.hex(),
            "digest": self.digest.hex(),
        }
        return json.dumps(entry, separators=(",", ":"))


def parse_line(text: str, number: int = 1) -> AuditEntry:
    """Read one line (`number` from 1, for the sentence). Raises `AuditError`: LINE, or DIGEST when it was changed."""
    try:
        if len(text) > MAX_LINE:
            raise ValueError("too long")
        value = json.loads(text, object_pairs_hook=_no_duplicates)
        if not isinstance(value, dict) or value.keys() != _KEYS or not isinstance(value["fields"], dict):
            raise ValueError("other fields")
        previous, digest = bytes.fromhex(value["previous"]), bytes.fromhex(value["digest"])
        entry = AuditEntry(value["index"], value["time"], value["event"], value["fields"], previous)
        found = entry.digest
    except (ValueError, TypeError, RecursionError):
        raise AuditError(AuditCode.LINE, f"line {number} is no entry of an audit log: it was damaged") from None
    if not hmac.compare_digest(found, digest):
        raise AuditError(
            AuditCode.DIGEST,
            f"line {number} was changed: its digest is {found.hex()}, expected the {digest.hex()} that it was written "
            "with",
        )
    return entry


@dataclass(frozen=True, slots=True)
class AuditVerdict:
    """A log that is whole."""

    entries: tuple[AuditEntry, ...]

    @property
    def head(self) -> bytes:
        """The digest of the last entry: keep it elsewhere, and nobody can cut the log short unseen."""
        return self.entries[-1].digest if self.entries else ZERO


def verify_lines(lines: Iterable[str], *, head: bytes | None = None) -> AuditVerdict:
    """The entries of a log, oldest first. Raises `AuditError`, whose sentence names the line.

    `head` (48 bytes), where it was kept elsewhere, must be the digest of one of the entries: the log may have grown
    since, but not have been cut or written anew.
    """
    entries: list[AuditEntry] = []
    before, seen = ZERO, head is None or hmac.compare_digest(head, ZERO)
    for number, line in enumerate(lines, 1):
        entry = parse_line(line, number)
        if entry.index != number - 1 or not hmac.compare_digest(entry.previous, before):
            raise AuditError(
                AuditCode.ORDER,
                f"line {number} is entry {entry.index} and does not follow the line before it: an entry was taken "
                "out, doubled, moved or written anew",
            )
        entries.append(entry)
        before = entry.digest
        seen = seen or (head is not None and hmac.compare_digest(head, before))
    if not seen:
        raise AuditError(
            AuditCode.HEAD,
            f"none of the {len(entries)} lines is the head that was kept, {(head or b'').hex()}: entries were cut off "
            "or written anew",
        )
    return AuditVerdict(tuple(entries))


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found
