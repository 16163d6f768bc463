"""Policies out of policies: all of them, any of them, none of them. Each combination is a rule like those in it.

May not: accept for want of rules (a combination of nothing is refused), or turn "cannot say" into "accepted".
Rule: docs/architecture.md, "Policies".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from .attestation import AttestationDocument
from .policy_codes import DEFAULT_SKEW_MS, PolicyCode, PolicyError
from .roots import Roots
from .statement import Kind, Statement


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


@dataclass(frozen=True, slots=True)
class AllOf:
    """Accepts what every rule accepts."""

    rules: tuple[Rule, ...]

    def __post_init__(self) -> None:
        _require_some(self.rules, "all_of")
        self.roots()

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


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Accepts what at least one rule accepts."""

    rules: tuple[Rule, ...]

    def __post_init__(self) -> None:
        _require_some(self.rules, "any_of")
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
        """Raise `PolicyError` (NO_ALTERNATIVE, or STATEMENT_MISSING) with what each rule says when all refuse."""
        refusals: list[str] = []
        unjudged = False
        for number, rule in enumerate(self.rules, 1):
            try:
                rule.require(document, statement, now_ms=now_ms, skew_ms=skew_ms, event_log=event_log, kind=kind)
                return
            except PolicyError as error:
                refusals.append(f"({number}) {error}")
                unjudged = unjudged or error.code is PolicyCode.STATEMENT_MISSING
        # Said apart, so that a none_of around this one knows that it was not judged.
        code = PolicyCode.STATEMENT_MISSING if unjudged else PolicyCode.NO_ALTERNATIVE
        raise PolicyError(code, f"no alternative accepts: {'; '.join(refusals)}")

    def explain(self) -> list[str]:
        """What is accepted, in sentences."""
        return ["At least one of these holds:", *_indented(self.rules)]


@dataclass(frozen=True, slots=True)
class NoneOf:
    """Refuses what any rule accepts. It pins no root, so it means something within `all_of` only."""

    rules: tuple[Rule, ...]

    def __post_init__(self) -> None:
        _require_some(self.rules, "none_of")

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
        """Raise `PolicyError` (EXCLUDED) when a rule accepts, or what a rule raises that lacks its statement."""
        for number, rule in enumerate(self.rules, 1):
            try:
                rule.require(document, statement, now_ms=now_ms, skew_ms=skew_ms, event_log=event_log, kind=kind)
            except PolicyError as error:
                if error.code is PolicyCode.STATEMENT_MISSING:
                    # It could not be judged: to leave the statement out must not be the way around an exclusion.
                    raise
                continue
            raise PolicyError(PolicyCode.EXCLUDED, f"excluded by number {number}: {' '.join(rule.explain())}")

    def explain(self) -> list[str]:
        """What is accepted, in sentences."""
        return ["None of these holds:", *_indented(self.rules)]


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
