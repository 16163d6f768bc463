"""A demo's plan: any size that proves something, decided by the seed alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tea.simulator.demo_plan import DemoPlan

OUT = Path("out")


@st.composite
def plans(draw: st.DrawFn) -> DemoPlan:
    enclaves = draw(st.integers(3, 16))
    return DemoPlan(
        enclaves,
        draw(st.integers(5, 200)),
        draw(st.integers(0, (enclaves - 1) // 3)),
        draw(st.integers(0, 1)),
        draw(st.integers(0, 10**9)),
        OUT,
    )


@given(plans())
def test_who_is_killed_is_never_who_is_lied_to_and_a_quorum_is_left(plan: DemoPlan) -> None:
    assert len(set(plan.tampered)) == plan.tamper
    assert set(plan.tampered) <= set(plan.names)
    assert plan.killed not in plan.tampered
    assert (plan.killed is None) == (plan.kill == 0)
    assert plan.enclaves - plan.tamper >= plan.quorum


@given(plans())
def test_things_happen_in_their_order(plan: DemoPlan) -> None:
    assert 1 < plan.lies_from <= plan.kill_after + 1
    assert plan.kill_after <= plan.restart_after <= plan.back_before <= plan.blocks
    assert plan.kill_after < plan.blocks


@given(plans())
def test_one_seed_is_one_choice(plan: DemoPlan) -> None:
    again = DemoPlan(plan.enclaves, plan.blocks, plan.tamper, plan.kill, plan.seed, OUT)
    assert (again.tampered, again.killed) == (plan.tampered, plan.killed)


def test_another_seed_is_another_choice() -> None:
    assert len({DemoPlan(16, 20, 5, 1, seed, OUT).tampered for seed in range(20)}) > 15


@pytest.mark.parametrize(
    ("enclaves", "blocks", "tamper", "kill", "seed"),
    [
        (2, 20, 0, 0, 1),
        (17, 20, 0, 0, 1),
        (3, 20, 1, 0, 1),
        (5, 20, 2, 0, 1),
        (16, 20, 6, 0, 1),
        (5, 20, -1, 0, 1),
        (5, 4, 0, 0, 1),
        (5, 201, 0, 0, 1),
        (5, 20, 0, 2, 1),
        (5, 20, 0, 0, -1),
    ],
)
def test_a_size_that_proves_nothing_is_refused(enclaves: int, blocks: int, tamper: int, kill: int, seed: int) -> None:
    with pytest.raises(ValueError, match="--"):
        DemoPlan(enclaves, blocks, tamper, kill, seed, OUT)
