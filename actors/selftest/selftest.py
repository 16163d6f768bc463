"""Tries every operation of every linked provider from inside a worker: `teactl call selftest run` prints the table.

May not: leave anything behind (keys, timers, subscriptions), or fail as a whole because one thing does.
Rule: README.md of this folder; docs/architecture.md, "Providers".
"""

from __future__ import annotations

from collections.abc import Callable

import clock_checks
import crypto_checks
import env_checks
import intercom_checks
import kvp_checks
import layer1_checks
import log_checks
import nitro_checks
import secrets_checks
import vmh_checks
from rows import Row, Rows

from tea.sdk import Actor, Link, operation

CHECKS: dict[str, Callable[[Link, Rows], None]] = {
    "kvp": kvp_checks.check,
    "crypto": crypto_checks.check,
    "nitro": nitro_checks.check,
    "layer1": layer1_checks.check,
    "intercom": intercom_checks.check,
    "vmh": vmh_checks.check,
    "env": env_checks.check,
    "log": log_checks.check,
    "clock": clock_checks.check,
    "secrets": secrets_checks.check,
}


class Selftest(Actor):
    """Runs the checks; counts what clocks and topics tell it afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self._heard: dict[str, int] = {}

    def on_start(self) -> None:
        vmh = self.links.get("vmh")
        if vmh is not None and any(description.name == "subscribe" for description in vmh.describe()):
            vmh.subscribe(vmh_checks.TOPIC, "on_peer")

    @operation
    def run(self) -> list[Row]:
        """Every linked provider, in the order of the links; a row each for operations and expected refusals."""
        rows: list[Row] = []
        for name, link in self.links.items():
            rows += self._check(name, link)
        return rows

    @operation
    def run_one(self, provider: str) -> list[Row]:
        """One linked provider. Answers no rows when there is no such link."""
        link = self.links.get(provider)
        return [] if link is None else self._check(provider, link)

    @operation
    def heard(self) -> dict[str, int]:
        """How often what has told this replica something since its start, by `clock:TOKEN` and `intercom:TOPIC`.

        A check that asks to be told is told after `run` has answered: look here then.
        """
        return dict(self._heard)

    @operation(only_from=("provider:clock",))
    def on_tick(self, token: str) -> None:
        """A timer of the clock checks."""
        self._count(f"clock:{token}")

    @operation(only_from=("provider:intercom",))
    def on_topic(self, topic: str, body: bytes) -> None:
        """A message that the intercom checks published."""
        self._count(f"intercom:{topic}")

    @operation(only_from=("provider:vmh",))
    def on_peer(self, sender: str, topic: str, body: bytes) -> bytes:
        """A message or request of a self-test in another enclave; answers what came."""
        self._count(f"vmh:{topic}")
        return body

    @operation(only_from=("provider:layer1",))
    def on_head(self, height: int, block_hash: bytes, state_root: bytes) -> None:
        """A finalized block, told between subscribing and unsubscribing."""
        self._count("layer1")

    def _check(self, name: str, link: Link) -> list[Row]:
        check = CHECKS.get(name)
        if check is None:
            return []  # another actor: what it does with calls is not ours to try
        rows = Rows(name, link)
        check(link, rows)
        return rows.finish()

    def _count(self, what: str) -> None:
        if len(self._heard) < 100 or what in self._heard:
            self._heard[what] = self._heard.get(what, 0) + 1
