"""The table of phases, walked whole."""

from __future__ import annotations

import pytest

from tea.runtime.phases import TRANSITIONS, IllegalTransition, Phase, PhaseTracker


def at(phase: Phase) -> PhaseTracker:
    tracker = PhaseTracker()
    tracker.phase = phase
    return tracker


def test_every_phase_has_its_exits() -> None:
    assert set(TRANSITIONS) == set(Phase)


@pytest.mark.parametrize("phase", list(Phase))
def test_success_and_failure_lead_where_the_table_says(phase: Phase) -> None:
    exits = TRANSITIONS[phase]
    for target, step in ((exits.success, PhaseTracker.succeed), (exits.failure, PhaseTracker.fail)):
        tracker = at(phase)
        if target is None:
            with pytest.raises(IllegalTransition):
                step(tracker, "why")
        else:
            assert step(tracker, "why") is target
            assert tracker.detail == "why"


def test_ready_is_reached_by_success_alone_and_from_everywhere_before_it() -> None:
    tracker = PhaseTracker()
    seen = [tracker.phase]
    while tracker.phase is not Phase.READY:
        seen.append(tracker.succeed())
    assert seen == list(Phase)[: len(seen)]


@pytest.mark.parametrize(
    "phase",
    [
        Phase.VERIFYING_MANIFEST,
        Phase.VERIFYING_BUNDLES,
        Phase.MEASURING,
        Phase.STARTING_PROVIDERS,
        Phase.STARTING_WORKERS,
    ],
)
def test_a_failing_step_of_an_upgrade_leads_back_to_ready(phase: Phase) -> None:
    tracker = at(phase)
    assert tracker.fail("x") is Phase.AWAITING_SETTINGS
    tracker = at(phase)
    tracker.running = True
    assert tracker.fail("x") is Phase.READY


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase not in (Phase.DRAINING, Phase.STOPPED)])
def test_every_living_phase_can_drain(phase: Phase) -> None:
    tracker = at(phase)
    assert tracker.drain() is Phase.DRAINING
    assert tracker.succeed() is Phase.STOPPED


@pytest.mark.parametrize("phase", [Phase.DRAINING, Phase.STOPPED])
def test_the_end_does_not_drain_again(phase: Phase) -> None:
    with pytest.raises(IllegalTransition):
        at(phase).drain()
