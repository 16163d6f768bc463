"""Policies out of policies: all of them, any of them, none of them. Each combination is a rule like those in it.

May not: accept for want of rules (a combination of nothing is refused), or turn "cannot say" into "accepted".
Rule: docs/architecture.md, "Policies"; docs/verify.md, "Combined policies".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from .attestation import AttestationDocument
from .policy_codes import DEFAULT_SKEW_MS, PolicyCode, PolicyError
from .policy_rule import VERSION, dump_yaml
from .roots import Roots
from .statement import Kind, Statement

MAX_LEVELS: Final = 4
"""Combinations within each other: what the reader of YAML has room for."""
MAX_POLICIES: Final = 64
"""Policies in one combination, at all of its levels."""
_UNJUDGED: Final = (PolicyCode.STATEMENT_MISSING, PolicyCode.DEBUG, PolicyCode.TOO_OLD, PolicyCode.FUTURE)
"""Refusals that say nothing about which code it is: no exclusion may count them as "not that one"."""


class Rule(Protocol):
    """What a relying party accepts: a policy, or a combination of rules."""

    def roots(self) -> Roots | None:
        """The roots that it pins; None where it only excludes."""
        ...

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
        """Raise `PolicyError` unless it accepts."""
        ...

    def explain(self) -> list[str]:
        """What is accepted, in sentences."""
        ...

    def to_mapping(self) -> dict[str, object]:
        """It as the plain data that a policy's file holds."""
        ...


class Accepts(Rule, Protocol):
    """A rule that pins roots, so that it can stand by itself: what a policy's file holds."""

    def roots(self) -> Roots:
        """The roots that it pins, for `verify_document`."""
        ...

    def to_yaml(self) -> str:
        """It as a file, which `parse_rule` reads back to an equal one."""
        ...


@dataclass(frozen=True, slots=True)
class AllOf:
    """Accepts what every rule accepts."""

    rules: tuple[Rule, ...]

    def __post_init__(self) -> None:
        _require_some(self.rules, "all_of")
        _require_bounded(self)
        self._require_exclusions(self.roots())

    def roots(self) -> Roots:
        """The roots that all of them pin. Raises `PolicyError` (NOTHING) when there is none in common."""
        pinned = [roots.digests for rule in self.rules if (roots := rule.roots()) is not None]
        if not pinned:
            raise PolicyError(PolicyCode.NOTHING, "all_of excludes only: expected at least one policy that pins a root")
        common = frozenset.intersection(*pinned)
        if not common:
            raise PolicyError(
                PolicyCode.NOTHING, "the policies of all_of have no root in common: nothing can meet them"
            )
        return Roots(common)

    def _require_exclusions(self, common: Roots) -> None:
        for exclusion in self.rules:
            if not isinstance(exclusion, NoneOf):
                continue
            for number, rule in enumerate(exclusion.rules, 1):
                pinned = rule.roots()
                if pinned is not None and not pinned.digests & common.digests:
                    raise PolicyError(
                        PolicyCode.NOTHING,
                        f"number {number} of none_of pins {pinned}, expected a root that the rest accepts ({common}): "
                        "it would exclude nothing",
                    )

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
        """Raise the `PolicyError` of the first rule that refuses."""
        for rule in self.rules:
            rule.require(document, statement, now_ms=now_ms, skew_ms=skew_ms, event_log=event_log, kind=kind)

    def explain(self) -> list[str]:
        """What is accepted, in sentences."""
        return ["All of these hold:", *_indented(self.rules)]

    def to_mapping(self) -> dict[str, object]:
        """It as the plain data that a policy's file holds."""
        return {"tea": VERSION, "all": _nested(self.rules)}

    def to_yaml(self) -> str:
        """It as a file, which `parse_rule` reads back to an equal one."""
        return dump_yaml(self.to_mapping())


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Accepts what at least one rule accepts."""

    rules: tuple[Rule, ...]

    def __post_init__(self) -> None:
        _require_some(self.rules, "any_of")
        _require_bounded(self)
        self.roots()

    def roots(self) -> Roots:
        """The roots that any of them pins. Raises `PolicyError` (NOTHING) when one only excludes."""
        digests: frozenset[bytes] = frozenset()
        for rule in self.rules:
            roots = rule.roots()
            if roots is None:
                raise PolicyError(PolicyCode.NOTHING, "none_of within any_of would accept nearly all: use all_of")
            digests |= roots.digests
        return Roots(digests)

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
        """Raise `PolicyError` with what each rule says when all refuse.

        Its code is NO_ALTERNATIVE, or the first of those that say nothing about which code it is: STATEMENT_MISSING,
        DEBUG, TOO_OLD, FUTURE.
        """
        refusals: list[str] = []
        unjudged: PolicyCode | None = None
        for number, rule in enumerate(self.rules, 1):
            try:
                rule.require(document, statement, now_ms=now_ms, skew_ms=skew_ms, event_log=event_log, kind=kind)
                return
            except PolicyError as error:
                refusals.append(f"({number}) {error}")
                if unjudged is None and error.code in _UNJUDGED:
                    unjudged = PolicyCode(error.code)
        # Said apart, so that a none_of around this one knows that it was not judged.
        raise PolicyError(unjudged or PolicyCode.NO_ALTERNATIVE, f"no alternative accepts: {'; '.join(refusals)}")

    def explain(self) -> list[str]:
        """What is accepted, in sentences."""
        return ["At least one of these holds:", *_indented(self.rules)]

    def to_mapping(self) -> dict[str, object]:
        """It as the plain data that a policy's file holds."""
        return {"tea": VERSION, "any": _nested(self.rules)}

    def to_yaml(self) -> str:
        """It as a file, which `parse_rule` reads back to an equal one."""
        return dump_yaml(self.to_mapping())


@dataclass(frozen=True, slots=True)
class NoneOf:
    """Refuses what any rule accepts. It pins no root, so it means something within `all_of` only."""

    rules: tuple[Rule, ...]

    def __post_init__(self) -> None:
        _require_some(self.rules, "none_of")
        _require_bounded(self)
        if any(isinstance(rule, NoneOf) for rule in self.rules):
            raise PolicyError(
                PolicyCode.VALUE, "none_of within none_of, expected policies: write what it excludes from excluding"
            )

    def roots(self) -> Roots | None:
        """None: it only excludes."""
        return None

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
        """Raise `PolicyError`: EXCLUDED when a rule accepts, and what a rule raises that could not judge.

        A rule could not judge what comes without its statement, in debug mode, or at another time than it wants.
        """
        for number, rule in enumerate(self.rules, 1):
            try:
                rule.require(document, statement, now_ms=now_ms, skew_ms=skew_ms, event_log=event_log, kind=kind)
            except PolicyError as error:
                if error.code in _UNJUDGED:
                    # To leave the statement out, to wait, or to start in debug mode must not be the way around it.
                    raise PolicyError(
                        PolicyCode(error.code), f"exclusion number {number} cannot be judged: {error}"
                    ) from None
                continue
            raise PolicyError(PolicyCode.EXCLUDED, f"excluded by number {number}: {' '.join(rule.explain())}")

    def explain(self) -> list[str]:
        """What is accepted, in sentences."""
        return ["None of these holds:", *_indented(self.rules)]

    def to_mapping(self) -> dict[str, object]:
        """It as the plain data that stands within the `all` of a policy's file; by itself it makes none."""
        written = _nested(self.rules)
        return {"tea": VERSION, "not": written[0] if len(written) == 1 else written}


def all_of(*rules: Rule) -> AllOf:
    """What every rule accepts. Raises `PolicyError` (NOTHING) on none, or when they have no root in common."""
    return AllOf(rules)


def any_of(*rules: Rule) -> AnyOf:
    """What at least one rule accepts. Raises `PolicyError` (NOTHING) on none, or on a `none_of` among them."""
    return AnyOf(rules)


def none_of(*rules: Rule) -> NoneOf:
    """What no rule accepts; to be put into an `all_of`. Raises `PolicyError` (NOTHING) on none."""
    return NoneOf(rules)


def _require_some(rules: tuple[Rule, ...], name: str) -> None:
    if not rules:
        raise PolicyError(PolicyCode.NOTHING, f"{name} of nothing, expected at least one policy")


def _indented(rules: tuple[Rule, ...]) -> list[str]:
    return [f"{'- ' if index == 0 else '  '}{line}" for rule in rules for index, line in enumerate(rule.explain())]


def _require_bounded(rule: AllOf | AnyOf | NoneOf) -> None:
    if (levels := _levels(rule)) > MAX_LEVELS:
        raise PolicyError(
            PolicyCode.VALUE, f"{levels} combinations within each other, expected at most {MAX_LEVELS}: make it flatter"
        )
    if (count := _count(rule)) > MAX_POLICIES:
        raise PolicyError(
            PolicyCode.VALUE, f"{count} policies in one combination, expected at most {MAX_POLICIES}: leave some out"
        )


def _levels(rule: Rule) -> int:
    return 1 + max(map(_levels, rule.rules)) if isinstance(rule, (AllOf, AnyOf, NoneOf)) else 0


def _count(rule: Rule) -> int:
    return sum(map(_count, rule.rules)) if isinstance(rule, (AllOf, AnyOf, NoneOf)) else 1


def _nested(rules: tuple[Rule, ...]) -> list[dict[str, object]]:
    """The version stands once, at the head of the file."""
    return [{key: value for key, value in rule.to_mapping().items() if key != "tea"} for rule in rules]
