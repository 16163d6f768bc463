"""What a worker that drains may still do: the links of the running manifest, and never more than its own.

Rule: docs/architecture.md, "Rights".
"""

from __future__ import annotations

import pytest

from tea.runtime.links import Grant
from tea.runtime.revocation import narrowed
from tea.trust.manifest import Link

OLD = Grant(7, "store", "a", "kvp", ("get", "set", "incr"), behind=frozenset({"front"}))


def link(*operations: str, target: str = "kvp", behind: tuple[str, ...] = (), name: str = "kvp") -> Link:
    return Link("a", target, operations, name, behind)


@pytest.mark.parametrize(
    ("links", "left"),
    [
        ([], []),
        ([link("get", "set", "incr")], ["get", "set", "incr"]),
        ([link("get", "scan")], ["get"]),
        ([link("get"), link("set", name="other")], ["get", "set"]),
        ([link("get", target="crypto")], []),
        ([link("get", behind=("front",))], ["get"]),
        ([link("get", behind=("front", "clerk"))], []),
        ([link("get", behind=("clerk",)), link("get", name="free")], ["get"]),
    ],
)
def test_an_operation_stays_where_a_link_grants_it_and_demands_no_more(links: list[Link], left: list[str]) -> None:
    grants = narrowed({7: OLD}, links)
    assert list(grants) == [7]
    revoked = {OLD.operations[place] for place in grants[7].revoked}
    assert [operation for operation in OLD.operations if operation not in revoked] == left
    assert grants[7].operations == OLD.operations
    assert grants[7].behind == OLD.behind


def test_a_right_that_a_later_revision_gives_back_is_back() -> None:
    assert narrowed(narrowed({7: OLD}, []), [link("get", "set", "incr")])[7] == OLD
