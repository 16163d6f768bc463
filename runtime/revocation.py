"""Revocation: what an older worker may still do when a newer revision grants less. It drains, it does not keep rights.

May not: grant anything, only take away. Rule: docs/architecture.md, "Rights" and "Boot".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from tea.trust.manifest import Link

from .links import Grant


def narrowed(grants: Mapping[int, Grant], links: Iterable[Link]) -> dict[int, Grant]:
    """The grants of a worker that drains, less what the running manifest's links of its actor do not grant.

    Numbers stay, since the worker knows them. An operation stays where some link to the same target grants it and
    demands nobody behind the call whom the old link did not demand.
    """
    now = list(links)
    return {number: replace(grant, revoked=_revoked(grant, now)) for number, grant in grants.items()}


def _revoked(grant: Grant, links: list[Link]) -> frozenset[int]:
    granted = {
        operation
        for link in links
        if link.target == grant.target and grant.behind.issuperset(link.behind)
        for operation in link.operations
    }
    return frozenset(place for place, operation in enumerate(grant.operations) if operation not in granted)
