"""clock: time, and timers. One timer is left to fire once, right after the run; the others are cancelled.

May not: leave a timer that repeats. Rule: README.md of this folder.
"""

from __future__ import annotations

from rows import Rows, expect, require

from tea.sdk import Code, Link

TOKENS = ("selftest-after", "selftest-every", "selftest-random")


def check(clock: Link, rows: Rows) -> None:
    """All operations of clock."""
    if rows.granted("cancel"):
        for token in (*TOKENS, "selftest-once"):
            clock.cancel(token)
    rows.works("now", lambda: require(clock.now() > 1.6e9, "the time is before 2020"))
    rows.works("monotonic", lambda: require(clock.monotonic() <= clock.monotonic(), "time went back"))
    rows.works("drift", lambda: require(abs(clock.drift()) < 3600.0, "the time moved by more than an hour"))
    rows.works("after", lambda: clock.after(3600.0, "on_tick", TOKENS[0]))
    rows.refuses("after", Code.CONFLICT, lambda: clock.after(3600.0, "on_tick", TOKENS[0]))
    rows.refuses("after", Code.INVALID, lambda: clock.after(-1.0, "on_tick", "selftest-past"))
    rows.works("every", lambda: clock.every(3600.0, "on_tick", TOKENS[1]))
    rows.works("random_tick", lambda: clock.random_tick(3600.0, 7200.0, "on_tick", TOKENS[2]))
    rows.works(
        "timers",
        lambda: require({timer["token"] for timer in clock.timers()}.issuperset(TOKENS), "a timer is missing"),
    )
    rows.works("cancel", lambda: expect([clock.cancel(token) for token in TOKENS], [True] * 3))
    rows.works("cancel", lambda: expect(clock.cancel(TOKENS[0]), False), "none any more")
    rows.works("after", lambda: clock.after(0.0, "on_tick", "selftest-once"), "fires after the run: see `heard`")
