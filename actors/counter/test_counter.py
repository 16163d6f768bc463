"""The tutorial's test: the actor in a plain pytest, no enclave. Run `pytest actors/counter`.

May not: need a host. Rule: README.md, "Test it".
"""

from collections.abc import Iterator

import pytest
from counter import Counter

from tea.sdk import CallError, Code
from tea.sdk.testing import Harness, run_actor


@pytest.fixture
def counter() -> Iterator[Harness]:
    with run_actor(Counter, links={"kvp": ["get", "incr"]}) as harness:
        yield harness


def test_it_starts_at_zero(counter: Harness) -> None:
    assert counter.call("value") == 0


def test_it_counts(counter: Harness) -> None:
    assert counter.call("increment") == 1
    assert counter.call("increment", by=2) == 3
    assert counter.call("value") == 3


def test_it_does_not_count_backwards(counter: Harness) -> None:
    with pytest.raises(CallError) as refusal:
        counter.call("increment", by=-1)
    assert refusal.value.code is Code.INVALID
    assert counter.call("value") == 0


def test_the_count_survives_a_crash(counter: Harness) -> None:
    counter.call("increment", by=5)
    counter.restart(crash=True)
    assert counter.call("value") == 5
