"""The manifest as the host uses it: immutable, complete (every default filled in), with one canonical form and digest.

May not: be made but by `manifest.parse_manifest` and `manifest.manifest_from_canonical`, which hold the schema.
Rule: docs/architecture.md, "Bundle, manifest, measured boot".
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Final

from . import canonical, names
from .claims import Issuer
from .manifest_yaml import Plain
from .recovery import recovery_key_text

MANIFEST_TAG: Final = "tea.manifest.v1"
MANIFEST_YAML_TAG: Final = "manifest/1"
DIGEST_BYTES: Final = 48
TIME_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Variable:
    """An environment variable: fixed (`value`), or from the parent when it matches `pattern` as a whole."""

    name: str
    value: str | None = None
    pattern: str | None = None
    default: str | None = None
    """What it is when the parent offers none; None: the parent must."""

    def plain(self) -> dict[str, Plain]:
        if self.pattern is None:
            return {"value": self.value}
        return _without_none({"from": names.PARENT, "pattern": self.pattern, "default": self.default})


@dataclass(frozen=True)
class Limits:
    """What one replica of an actor may use."""

    memory_mib: int = 128
    cpu_seconds: int | None = None
    """Of CPU over the replica's life; None: no limit."""
    in_flight: int = 64
    """Calls that it may have made and not yet been answered."""
    kvp_bytes: int = 1 << 20
    """Bytes of key-value memory, all replicas together."""
    mailbox: int = 256
    """Calls and messages that may wait for it."""
    fuel: int | None = None
    """Instructions that one call may take, of a wasm bundle; None: as many as the host's default."""

    def plain(self) -> dict[str, Plain]:
        return _without_none(
            {
                "memory_mib": self.memory_mib,
                "cpu_seconds": self.cpu_seconds,
                "in_flight": self.in_flight,
                "kvp_bytes": self.kvp_bytes,
                "mailbox": self.mailbox,
                "fuel": self.fuel,
            }
        )


@dataclass(frozen=True)
class Restart:
    """What the supervisor does when a replica ends unasked."""

    strategy: str = "one-for-one"
    intensity: int = 5
    """Restarts within `period_s` before the actor is given up."""
    period_s: int = 30
    backoff_ms: int = 100
    backoff_max_ms: int = 5000

    def plain(self) -> dict[str, Plain]:
        return {
            "strategy": self.strategy,
            "intensity": self.intensity,
            "period_s": self.period_s,
            "backoff_ms": self.backoff_ms,
            "backoff_max_ms": self.backoff_max_ms,
        }


@dataclass(frozen=True)
class ActorEntry:
    """One actor that may run, exactly this bundle."""

    name: str
    version: str
    bundle: bytes
    """SHA-256 of the bundle file."""
    issuer: str
    """Name of an entry of `issuers`."""
    replicas: int
    limits: Limits
    restart: Restart
    environment: tuple[str, ...]
    """Variables that it may read, sorted."""

    def plain(self) -> dict[str, Plain]:
        return {
            "version": self.version,
            "bundle": f"sha256:{self.bundle.hex()}",
            "issuer": self.issuer,
            "replicas": self.replicas,
            "limits": self.limits.plain(),
            "restart": self.restart.plain(),
            "environment": list(self.environment),
        }


@dataclass(frozen=True)
class Link:
    """A granted path: `source` may call these operations of `target`. What has no link cannot be named."""

    source: str
    """An actor's name, or `parent`."""
    target: str
    """A provider's or an actor's name."""
    operations: tuple[str, ...]
    """Sorted, at least one."""
    name: str
    """The attribute by which the source's code calls it; unique among the source's links."""
    behind: tuple[str, ...] = ()
    """All of these must stand in the chain behind the source's call; empty: whoever."""
    sticky: str = ""
    """The parameter by whose value calls go to the same replica of the target; empty: to the least loaded."""
    direct: bool = False
    """Whether calls go from worker to worker, past the host: it stamps the caller, and nobody behind the call."""

    def plain(self) -> dict[str, Plain]:
        plain: dict[str, Plain] = {
            "from": self.source,
            "to": self.target,
            "operations": list(self.operations),
            "as": self.name,
        }
        if self.behind:
            plain["behind"] = list(self.behind)
        if self.sticky:
            plain["sticky"] = self.sticky
        if self.direct:
            plain["direct"] = True
        return plain


@dataclass(frozen=True)
class Member:
    """A slot of the rounds, bound to what its parent cannot choose."""

    slot: str
    pcr: int
    """4 (instance) or 3 (role)."""
    value: bytes
    """48 bytes."""

    def plain(self) -> dict[str, Plain]:
        return {f"pcr{self.pcr}": self.value.hex()}


@dataclass(frozen=True)
class Rounds:
    """Who takes part in the rounds of remote attestation, silent slots included."""

    members: Mapping[str, Member]
    quorum: str = "two-thirds"
    """More than two thirds of the slots."""

    def plain(self) -> dict[str, Plain]:
        return {"members": {slot: one.plain() for slot, one in self.members.items()}, "quorum": self.quorum}

    def slots(self) -> dict[str, dict[str, str]]:
        """Slot to `{"pcr3"|"pcr4": hex}`."""
        return {slot: {f"pcr{one.pcr}": one.value.hex()} for slot, one in self.members.items()}


@dataclass(frozen=True)
class Backups:
    """Who keeps the shares of a backup of a slot's state, and how many of them restore it."""

    threshold: int
    """2 to the number of keepers."""
    keepers: Mapping[str, bytes]
    """Name to recovery key (X25519, 32 bytes)."""

    def plain(self) -> dict[str, Plain]:
        keepers: dict[str, Plain] = {name: recovery_key_text(key) for name, key in self.keepers.items()}
        return {"threshold": self.threshold, "keepers": keepers}


@dataclass(frozen=True)
class Manifest:
    """What was approved. Equal when the canonical forms are; mappings are sorted by name and never change."""

    deployment: str
    revision: int
    not_after: int | None
    """Seconds since the epoch."""
    sandbox: str
    """require or prefer."""
    issuers: Mapping[str, Issuer]
    environment: Mapping[str, Variable]
    providers: Mapping[str, Mapping[str, Plain]]
    """Name to configuration, which the provider's own `Config` checks."""
    actors: Mapping[str, ActorEntry]
    links: tuple[Link, ...]
    """Sorted by source and name: a link's place among its source's links is its number there."""
    ra: Rounds | None
    egress: tuple[str, ...]
    backup: Backups | None = None
    """None: no backup is ever made."""

    def plain(self) -> dict[str, Plain]:
        """The manifest as plain data, in the words of the YAML schema, with every default written out."""
        return _without_none(
            {
                "tea": MANIFEST_YAML_TAG,
                "deployment": self.deployment,
                "revision": self.revision,
                "not_after": None if self.not_after is None else time_text(self.not_after),
                "sandbox": self.sandbox,
                "issuers": {
                    name: {
                        "key": issuer.key.text,
                        "actors": list(issuer.actors),
                        "capabilities": list(issuer.capabilities),
                    }
                    for name, issuer in self.issuers.items()
                },
                "environment": {name: one.plain() for name, one in self.environment.items()},
                "providers": {name: dict(config) for name, config in self.providers.items()},
                "actors": {name: one.plain() for name, one in self.actors.items()},
                "links": [one.plain() for one in self.links],
                "ra": None if self.ra is None else self.ra.plain(),
                "egress": list(self.egress),
                "backup": None if self.backup is None else self.backup.plain(),
            }
        )

    def canonical(self) -> bytes:
        """The canonical CBOR: what is approved, pushed and measured."""
        return self._canonical

    @cached_property
    def _canonical(self) -> bytes:
        return canonical.encode({**self.plain(), "tea": MANIFEST_TAG})

    @cached_property
    def digest(self) -> bytes:
        """SHA-384 of the canonical form, 48 bytes."""
        return hashlib.sha384(self._canonical).digest()

    def links_of(self, actor: str) -> tuple[Link, ...]:
        """The links that start at this actor, sorted by name."""
        return tuple(link for link in self.links if link.source == actor)

    def parent_links(self) -> tuple[Link, ...]:
        """What the parent (the untrusted outside) may call."""
        return self.links_of(names.PARENT)

    def issuers_by_key(self) -> dict[bytes, Issuer]:
        """Issuers by key id, as `bundle.verify_bundle` wants them."""
        return {issuer.key.key_id: issuer for issuer in self.issuers.values()}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Manifest) and other._canonical == self._canonical

    def __hash__(self) -> int:
        return hash(self._canonical)

    def __repr__(self) -> str:
        return f"Manifest({self.deployment} revision {self.revision}, sha384:{self.digest.hex()[:16]}...)"


def time_text(seconds: int) -> str:
    """`2027-12-31T00:00:00Z` of seconds since the epoch."""
    return datetime.fromtimestamp(seconds, UTC).strftime(TIME_FORMAT)


def _without_none(plain: dict[str, Plain]) -> dict[str, Plain]:
    return {key: value for key, value in plain.items() if value is not None}
