"""What a relying party accepts: roots, PCRs, manifests, debug or not, age. One check a line, in one order.

May not: verify signatures (`attestation.py` and `statement.py` did), read a clock, or accept for want of a rule.
Rule: docs/architecture.md, "Policies" and "Measured boot".
"""

from __future__ import annotations

import dataclasses
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import yaml

from . import pcr
from .attestation import AttestationDocument
from .eventlog import EventLogError, verify_log
from .policy_codes import DEFAULT_SKEW_MS, PolicyCode, PolicyError
from .roots import AWS_ROOT_G1, Roots
from .statement import Kind, Statement

VERSION: Final = "policy/1"
_MEASURES_CODE: Final = frozenset({*pcr.IMAGE_PCRS, pcr.SIGNER_PCR})


@dataclass(frozen=True, slots=True)
class Member:
    """What binds a slot of the rounds: PCR3 (role) or PCR4 (instance) has this value (48 bytes)."""

    index: int
    value: bytes

    def __post_init__(self) -> None:
        if self.index not in (pcr.ROLE_PCR, pcr.INSTANCE_PCR) or len(self.value) != pcr.SIZE:
            raise PolicyError(PolicyCode.VALUE, "a member is bound by pcr3 or pcr4, a value of 48 bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A policy. Raises `PolicyError` when it would accept anybody's code, or contradicts itself."""

    pinned: Roots
    """The roots; AWS's or simulated networks', never both in one policy (`simulated` says which)."""
    simulated: bool = False
    pcrs: Mapping[int, tuple[bytes, ...]] = field(default_factory=dict)
    """Index to the values that are accepted; none: the PCR must be in the document, with any value."""
    deployment: str | None = None
    manifests: tuple[bytes, ...] = ()
    """Digests of manifests, one of which must be active."""
    booted: tuple[bytes, ...] = ()
    """Digests of manifests, with one of which the enclave must have booted (PCR16)."""
    settings: tuple[bytes, ...] = ()
    """Digests of settings, with one of which the enclave must have booted (PCR17)."""
    descends: bool = False
    """Whether the active manifest may be another than the booted one, by approved revisions."""
    min_revision: int = 0
    min_epoch: int = 0
    max_age: int | None = None
    """Seconds."""
    debug: bool = False
    """Whether an enclave in debug mode is accepted: only ever for tests."""
    instance_id: str | None = None
    """The EC2 instance, by module id and PCR4."""
    members: Mapping[str, Member] = field(default_factory=dict)
    """Slots of the rounds."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "pcrs", MappingProxyType(dict(self.pcrs)))
        object.__setattr__(self, "members", MappingProxyType(dict(self.members)))
        of_one_kind = AWS_ROOT_G1 not in self.pinned if self.simulated else self.pinned.digests == {AWS_ROOT_G1}
        if not of_one_kind:
            raise PolicyError(
                PolicyCode.VALUE,
                f"the roots are {self.pinned}, expected that of AWS alone, or with `simulated` others than that of AWS",
            )
        pins = {index for index, values in self.pcrs.items() if values}
        if not pins and not self._needs_image():
            raise PolicyError(
                PolicyCode.NOTHING,
                "the policy pins no PCR to a value, so it would accept anybody's code: pin PCR0 (the image), or PCR8 "
                "(who signed it)",
            )
        if self._needs_image() and not pins & _MEASURES_CODE:
            raise PolicyError(
                PolicyCode.NO_IMAGE,
                "the policy speaks of manifests, settings or members, which only the right image says truly, and pins "
                "none: pin PCR0, 1, 2 or 8",
            )
        if self.descends and not self.booted:
            raise PolicyError(PolicyCode.VALUE, "`descends` says nothing without `booted`: name what it descends from")
        self._require_members()

    def _needs_image(self) -> bool:
        return self._needs_statement() or bool(self.booted or self.settings or self.members)

    def _needs_statement(self) -> bool:
        return bool(self.deployment or self.manifests or self.min_revision or self.min_epoch)

    def _require_members(self) -> None:
        slots: dict[Member, str] = {}
        for slot, member in self.members.items():
            if member in slots:
                raise PolicyError(
                    PolicyCode.VALUE,
                    f"members {slots[member]!r} and {slot!r} are bound to the same pcr{member.index}: one parent could "
                    "play both",
                )
            slots[member] = slot
            if self.pcrs.get(member.index) and member.value not in self.pcrs[member.index]:
                raise PolicyError(
                    PolicyCode.VALUE, f"member {slot!r} has a pcr{member.index} that `pcrs` does not accept"
                )

    def roots(self) -> Roots:
        """The roots that this policy pins, for `verify_document`."""
        return self.pinned

    def for_member(self, slot: str) -> Policy:
        """The policy for one slot: this one, and the PCR that binds the slot. Raises `PolicyError` (MEMBER)."""
        member = self.members.get(slot)
        if member is None:
            raise PolicyError(
                PolicyCode.MEMBER,
                f"there is no member {slot!r:.80}, expected one of {', '.join(self.members) or 'none'}",
            )
        return dataclasses.replace(self, pcrs={**self.pcrs, member.index: (member.value,)}, members={})

    def require(
        self,
        document: AttestationDocument,
        statement: Statement | None = None,
        *,
        now_ms: int,
        skew_ms: int = DEFAULT_SKEW_MS,
        event_log: Sequence[bytes] | None = None,
        kind: Kind | None = None,
    ) -> None:
        """Raise `PolicyError` unless the policy accepts what was verified.

        `statement` is what `verify_statement` answered; `now_ms` the moment at which age is judged, in milliseconds
        since the epoch; `event_log` the entries that lead to the statement's log head; `kind` what the statement must
        be for.
        """
        self._require_platform(document)
        self._require_booted(document)
        self._require_age(document, now_ms, skew_ms)
        if statement is None:
            if self._needs_statement() or event_log is not None or kind is not None:
                raise PolicyError(
                    PolicyCode.STATEMENT_MISSING,
                    "there is no statement, expected the one that travels beside the document: only it says "
                    "deployment, manifest, revision, epoch and kind, which are asked for",
                )
            return
        self._require_statement(statement, kind)
        if self.booted and not self.descends:
            self._require_not_upgraded(document, statement)
        if event_log is not None:
            _require_log(document, statement, event_log)

    def _require_platform(self, document: AttestationDocument) -> None:
        if document.root not in self.pinned:
            raise PolicyError(
                PolicyCode.ROOT,
                f"the root is sha256:{document.root.hex()}, expected {self._platform()} ({self.pinned})",
            )
        if document.debug and not self.debug:
            raise PolicyError(
                PolicyCode.DEBUG,
                "the enclave runs in debug mode (PCR0 to 2 are zero), where anyone reads its console: expected one "
                "that does not, or for tests a policy with `debug: true`",
            )
        for index, values in sorted(self.pcrs.items()):
            found = document.pcrs.get(index)
            if found is None or (values and not _among(found, values)):
                expected = _listed(values) if values else "any value"
                raise PolicyError(PolicyCode.PCR, f"PCR{index} is {_shown(found)}, expected {expected}")
        if self.instance_id is not None and (
            document.instance_id != self.instance_id or not document.instance_confirmed
        ):
            raise PolicyError(
                PolicyCode.INSTANCE,
                f"the instance is {document.instance_id!r:.80} and PCR4 is {_shown(document.pcrs.get(4))}, expected "
                f"{self.instance_id!r} and {pcr.pcr4(self.instance_id).hex()}",
            )

    def _require_booted(self, document: AttestationDocument) -> None:
        if self.booted:
            self._require_extended(document, pcr.MANIFEST_PCR, self.booted, PolicyCode.BOOTED)
        if self.settings:
            self._require_extended(document, pcr.SETTINGS_PCR, self.settings, PolicyCode.SETTINGS)

    @staticmethod
    def _require_extended(
        document: AttestationDocument, index: int, digests: tuple[bytes, ...], code: PolicyCode
    ) -> None:
        found = document.pcrs.get(index)
        if found is None or not _among(found, [pcr.extend(pcr.ZERO, digest) for digest in digests]):
            what = "settings" if index == pcr.SETTINGS_PCR else "manifest"
            raise PolicyError(
                code,
                f"PCR{index} is {_shown(found)}, expected what it is after booting with {what} "
                f"{_listed(digests, 'sha384:')}",
            )

    @staticmethod
    def _require_not_upgraded(document: AttestationDocument, statement: Statement) -> None:
        manifest = statement.manifest
        if manifest is None or document.pcrs.get(pcr.MANIFEST_PCR) != pcr.extend(pcr.ZERO, manifest):
            raise PolicyError(
                PolicyCode.MANIFEST,
                f"the active manifest is {_shown(manifest, 'sha384:')}, expected the one that it booted with: to "
                "accept approved revisions after it, say `descends: true`",
            )

    def _require_age(self, document: AttestationDocument, now_ms: int, skew_ms: int) -> None:
        if self.max_age is None:
            return
        age = now_ms - document.timestamp
        if age < -skew_ms:
            raise PolicyError(
                PolicyCode.FUTURE,
                f"the document is from {-age} ms after now, expected at most {skew_ms}: look at this machine's clock",
            )
        if age > self.max_age * 1000 + skew_ms:
            raise PolicyError(
                PolicyCode.TOO_OLD,
                f"the document is {age // 1000} s old, expected at most {self.max_age} s: ask for a fresh one",
            )

    def _require_statement(self, statement: Statement, kind: Kind | None) -> None:
        if kind is not None and statement.kind != kind:
            raise PolicyError(PolicyCode.KIND, f"the statement is of kind {statement.kind!r}, expected {kind.value!r}")
        if self.deployment is not None and statement.deployment != self.deployment:
            raise PolicyError(
                PolicyCode.DEPLOYMENT, f"the deployment is {statement.deployment!r}, expected {self.deployment!r}"
            )
        if self.manifests and (statement.manifest is None or not _among(statement.manifest, self.manifests)):
            raise PolicyError(
                PolicyCode.MANIFEST,
                f"the active manifest is {_shown(statement.manifest, 'sha384:')}, expected "
                f"{_listed(self.manifests, 'sha384:')}",
            )
        if statement.revision < self.min_revision:
            raise PolicyError(
                PolicyCode.REVISION,
                f"the manifest's revision is {statement.revision}, expected at least {self.min_revision}: it was rolled"
                " back, or not upgraded yet",
            )
        if statement.epoch < self.min_epoch:
            raise PolicyError(
                PolicyCode.EPOCH,
                f"the approvers' epoch is {statement.epoch}, expected at least {self.min_epoch}: it does not know that "
                "the approvers changed",
            )

    def to_mapping(self) -> dict[str, object]:
        """The policy as the plain data that `policy_from_mapping` and YAML files hold."""
        roots = [f"sha256:{digest.hex()}" for digest in sorted(self.pinned.digests)]
        mapping: dict[str, object] = {"tea": VERSION}
        mapping |= {"simulated": {"root": _one_or_list(roots)}} if self.simulated else {"roots": ["aws"]}
        mapping["pcrs"] = {
            index: _one_or_list([value.hex() for value in values]) if values else "any"
            for index, values in sorted(self.pcrs.items())
        }
        for key in ("manifests", "booted", "settings"):
            digests: tuple[bytes, ...] = getattr(self, key)
            if digests:
                mapping[key] = [f"sha384:{digest.hex()}" for digest in digests]
        for key in ("deployment", "instance_id", "descends", "min_revision", "min_epoch", "max_age", "debug"):
            value: object = getattr(self, key)
            if value is not None and value is not False and (key == "max_age" or value != 0):
                mapping[key] = value
        if self.members:
            mapping["members"] = {
                slot: {f"pcr{member.index}": member.value.hex()} for slot, member in self.members.items()
            }
        return mapping

    def to_yaml(self) -> str:
        """The policy as a file, which `parse_policy` reads back to an equal one."""
        return dump_yaml(self.to_mapping())

    def _platform(self) -> str:
        return "a simulated network's" if self.simulated else "that of AWS"

    def explain(self) -> list[str]:
        """What is accepted, a sentence each, for people."""
        lines = [f"The root is {self._platform()}: {self.pinned}."]
        if self.debug:
            lines.append("Debug mode is accepted: what such an enclave holds is not secret.")
        for index, values in sorted(self.pcrs.items()):
            lines.append(f"PCR{index} is {_listed(values) if values else 'in the document, with any value'}.")
        if self.instance_id is not None:
            lines.append(f"The instance is {self.instance_id}.")
        if self.booted:
            then = "approved revisions may have followed" if self.descends else "and that is the active one"
            lines.append(f"It booted with manifest {_listed(self.booted, 'sha384:')}; {then}.")
        if self.settings:
            lines.append(f"It booted with settings {_listed(self.settings, 'sha384:')}.")
        if self.max_age is not None:
            lines.append(f"The document is at most {self.max_age} s old.")
        if self.deployment is not None:
            lines.append(f"The deployment is {self.deployment}.")
        if self.manifests:
            lines.append(f"The active manifest is {_listed(self.manifests, 'sha384:')}.")
        if self.min_revision:
            lines.append(f"The manifest's revision is at least {self.min_revision}.")
        if self.min_epoch:
            lines.append(f"The approvers' epoch is at least {self.min_epoch}.")
        for slot, member in self.members.items():
            lines.append(f"Member {slot} has PCR{member.index} {member.value.hex()}.")
        return lines


def _require_log(document: AttestationDocument, statement: Statement, entries: Sequence[bytes]) -> None:
    try:
        events = verify_log(entries, statement.log_head)
    except EventLogError as error:
        raise PolicyError(PolicyCode.EVENT_LOG, f"the event log is not that of the statement: {error}") from None
    if not events:
        if statement.manifest is not None:
            raise PolicyError(PolicyCode.EVENT_LOG, "the event log is empty, expected the activation of the manifest")
        return
    first, last = events[0], events[-1]
    if (last.manifest, last.revision, last.epoch) != (statement.manifest, statement.revision, statement.epoch):
        raise PolicyError(
            PolicyCode.EVENT_LOG,
            f"the event log ends in revision {last.revision}, epoch {last.epoch} of manifest {last.manifest.hex()}, "
            f"expected what the statement says: revision {statement.revision}, epoch {statement.epoch}, "
            f"{_shown(statement.manifest)}",
        )
    if document.pcrs.get(pcr.MANIFEST_PCR) != pcr.extend(pcr.ZERO, first.manifest):
        raise PolicyError(
            PolicyCode.EVENT_LOG,
            f"the event log begins with manifest {first.manifest.hex()}, expected the one that PCR16 holds: "
            f"{_shown(document.pcrs.get(pcr.MANIFEST_PCR))}",
        )


def _among(found: bytes, accepted: Sequence[bytes]) -> bool:
    return any(hmac.compare_digest(found, value) for value in accepted)


def _shown(value: bytes | None, prefix: str = "") -> str:
    return "not there" if value is None else prefix + value.hex()


def _listed(values: Sequence[bytes], prefix: str = "") -> str:
    return " or ".join(prefix + value.hex() for value in values)


class _Dumper(yaml.SafeDumper):
    """Writes out what stands twice: the reader refuses aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def dump_yaml(mapping: Mapping[str, object]) -> str:
    """Plain data as YAML, in the order given. Raises `TypeError` on other objects."""
    try:
        return yaml.dump(dict(mapping), Dumper=_Dumper, sort_keys=False, width=1000)
    except yaml.YAMLError as error:
        raise TypeError(f"only text, integers, booleans, lists and maps: {error}") from None


def _one_or_list(texts: list[str]) -> str | list[str]:
    return texts[0] if len(texts) == 1 else texts
