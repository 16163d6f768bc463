"""The host's phases as a table: each names its next on success and on failure.

May not: act. The host asks the table before every step; a test walks all of it and the docs draw it.
Rule: docs/architecture.md, "Boot".
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple


class Phase(enum.Enum):
    """Where the host is. The values are what logs, status and `/healthz` show."""

    STARTING = "starting"
    """The NSM is opened and the host's keys are made."""
    DIALING = "dialing"
    """The connection to the runtime client is being made."""
    AWAITING_SETTINGS = "awaiting-settings"
    """Connected; nothing runs; settings are taken."""
    VERIFYING_MANIFEST = "verifying-manifest"
    """Approval, deployment, revision, expiry, environment."""
    VERIFYING_BUNDLES = "verifying-bundles"
    """Signatures, digests, claims against grants."""
    MEASURING = "measuring"
    """PCR16 and PCR17 are extended, 16 to 18 locked (first boot only), the event log gets its entry."""
    STARTING_PROVIDERS = "starting-providers"
    """In dependency order; one that runs is kept, whatever else it is to be configured to."""
    STARTING_WORKERS = "starting-workers"
    """The zygote, then a worker for each replica; `on_start` runs."""
    READY = "ready"
    """Links are open."""
    DRAINING = "draining"
    """No new calls; those in hand are answered."""
    STOPPED = "stopped"
    """The end; the process ends."""


class Exits(NamedTuple):
    """The two ways out of a phase; None where there is none."""

    success: Phase | None
    failure: Phase | None


TRANSITIONS: Final[dict[Phase, Exits]] = {
    Phase.STARTING: Exits(Phase.DIALING, Phase.STOPPED),
    Phase.DIALING: Exits(Phase.AWAITING_SETTINGS, Phase.DIALING),
    Phase.AWAITING_SETTINGS: Exits(Phase.VERIFYING_MANIFEST, Phase.AWAITING_SETTINGS),
    Phase.VERIFYING_MANIFEST: Exits(Phase.VERIFYING_BUNDLES, Phase.AWAITING_SETTINGS),
    Phase.VERIFYING_BUNDLES: Exits(Phase.MEASURING, Phase.AWAITING_SETTINGS),
    Phase.MEASURING: Exits(Phase.STARTING_PROVIDERS, Phase.AWAITING_SETTINGS),
    Phase.STARTING_PROVIDERS: Exits(Phase.STARTING_WORKERS, Phase.AWAITING_SETTINGS),
    Phase.STARTING_WORKERS: Exits(Phase.READY, Phase.AWAITING_SETTINGS),
    Phase.READY: Exits(Phase.VERIFYING_MANIFEST, Phase.READY),
    Phase.DRAINING: Exits(Phase.STOPPED, Phase.STOPPED),
    Phase.STOPPED: Exits(None, None),
}
"""A failed upgrade goes back to READY, where the running revision never stopped: see `PhaseTracker.fail`."""


class IllegalTransition(RuntimeError):
    """A step out of order: a defect of the host, never reachable from the wire."""


class PhaseTracker:
    """Holds the phase and refuses steps that the table does not have."""

    def __init__(self) -> None:
        self.phase = Phase.STARTING
        self.detail = ""
        self.running = False
        """Whether a revision is serving: then a failing step of an upgrade leads back to READY."""

    def succeed(self, detail: str = "") -> Phase:
        """Take the success exit of the current phase."""
        return self._move(TRANSITIONS[self.phase].success, detail)

    def fail(self, detail: str) -> Phase:
        """Take the failure exit; back to READY when a revision is serving."""
        target = TRANSITIONS[self.phase].failure
        if self.running and target is Phase.AWAITING_SETTINGS:
            target = Phase.READY
        return self._move(target, detail)

    def drain(self, detail: str = "") -> Phase:
        """Start to end: allowed from every phase but the last two."""
        if self.phase in (Phase.DRAINING, Phase.STOPPED):
            raise IllegalTransition(f"{self.phase.value} cannot drain")
        self.phase, self.detail = Phase.DRAINING, detail
        return self.phase

    def _move(self, target: Phase | None, detail: str) -> Phase:
        if target is None:
            raise IllegalTransition(f"{self.phase.value} is the end")
        self.phase, self.detail = target, detail
        if target is Phase.READY:
            self.running = True
        return target
