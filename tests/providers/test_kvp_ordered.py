"""The ordered set behind scans, sets and vectors is an ordered set, whatever is done to it and however large it is.

Held against a sorted list of the standard library. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tea.providers.kvp import ordered
from tea.providers.kvp.ordered import Ordered

_STEP = st.tuples(st.sampled_from(["add", "add", "add", "discard", "above", "cut"]), st.integers(0, 60))


@settings(max_examples=100, deadline=None)
@given(st.lists(_STEP, max_size=120))
def test_it_answers_what_a_sorted_list_would(steps: list[tuple[str, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ordered, "BLOCK", 3)  # so that small examples split blocks
        subject: Ordered[int] = Ordered()
        model: set[int] = set()
        for step, value in steps:
            if step == "add":
                assert subject.add(value) == (value not in model)
                model.add(value)
            elif step == "discard":
                assert subject.discard(value) == (value in model)
                model.discard(value)
            elif step == "above":
                assert list(subject.above(value)) == sorted(v for v in model if v > value)
                assert list(subject.above(value, inclusive=True)) == sorted(v for v in model if v >= value)
            else:
                lowest = sorted(model)[:value]
                assert sorted(subject.cut(value)) == sorted(model - set(lowest))
                model = set(lowest)
            assert list(subject.above()) == sorted(model)
            assert len(subject) == len(model)
            assert all((v in subject) == (v in model) for v in range(61))
            if model:
                assert subject.first() == min(model)


def test_a_hundred_thousand_values_stay_in_order() -> None:
    subject: Ordered[int] = Ordered()
    for value in range(100_000):
        subject.add(value * 7919 % 100_003)
    assert list(islice(subject.above(50_000), 3)) == [50_001, 50_002, 50_003]
    assert list(subject.above()) == sorted(subject.above())
    assert len(subject) == 100_000


def test_nothing_has_no_first() -> None:
    with pytest.raises(IndexError):
        Ordered[str]().first()
