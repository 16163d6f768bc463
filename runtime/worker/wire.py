"""What host and worker say to each other on link 0 of a worker's socket, before and beside calls.

May not: hold logic. The worker's words are an actor's words: the host bounds and distrusts them.
Rule: docs/architecture.md, "Processes".

    host -> worker   HELLO  Welcome, then the bundle as HELLO frames with MORE set on all but the last
    worker -> host   HELLO  Ready (its operations), or ERROR when the bundle cannot be loaded, then exit
    host -> worker   HELLO on a link: what its target, which is another now or came up later, declares of its operations
    either           CALL / TELL / REPLY / ERROR on numbered links; a delivered CALL or TELL carries a context
    host -> worker   HELLO with the descriptor of a lane: it may be used from now on, its peer serves too
    worker -> host   TELL on link 0: one LogLine (what the actor printed)
    worker -> host   CREDIT with a message's correlation: it is done with
    host -> worker   CREDIT with a link and, as correlation, units: so much of its window for messages has room again
    host -> worker   BYE with a call's correlation: nobody waits for it; it is skipped, or answered to nobody
    host -> worker   PING, answered with PING; BYE: finish what is queued, run on_stop, answer BYE, exit
"""

from __future__ import annotations

from typing import Final

import msgspec

from tea.protocol.operations import OperationDescription
from tea.sdk.binding import Identity, LinkDescription

from .layers import SandboxReport
from .seccomp_policy import Profile

CONTROL_LINK: Final = 0
WINDOW: Final = 64
"""Units of a worker's windows (`window.py`) when it was told nothing else."""
MAX_LANES: Final = 64
"""Lanes of one worker, as the manifest's schema bounds them (`trust/manifest_links.py`)."""
CHUNK: Final = 256 * 1024
"""Bytes of a bundle in one frame."""
MAX_LOG_LINE: Final = 8192
"""Characters of one printed line that are kept."""


class LaneEnd(msgspec.Struct, frozen=True, array_like=True):
    """A worker's end of one lane: a socket to one replica of another actor (`direct.py`)."""

    descriptor: int
    link: int
    """Of the caller."""
    peer: str
    replica: int
    operations: tuple[str, ...] = ()
    """What the link grants, by number, where calls come in; empty where they go out."""


class Welcome(msgspec.Struct, frozen=True, array_like=True):
    """All that a worker is told at its start."""

    identity: Identity
    links: tuple[LinkDescription, ...]
    entry: str
    bundle_digest: bytes
    bundle_size: int
    issuer: str
    """Text of the public key that must have signed the bundle: the Source Authority checks it again."""
    traceback_to_log: bool
    """Whether a failing operation's traceback goes to the log (simulated mode only)."""
    kind: str = "python"
    """The bundle's kind: python or wasm."""
    memory_bytes: int = 0
    """Memory that the worker may take (for a wasm bundle, whose own memory is bounded within it)."""
    fuel: int = 0
    """Instructions that one call of a wasm bundle may take; 0: as many as it takes when nothing is said."""
    in_flight: int = WINDOW
    """Units of its windows: of calls that have no answer, and on each link of messages that were not credited."""
    lanes: tuple[LaneEnd, ...] = ()
    looks: bool = False
    """Whether it may look before it sleeps (`busy_poll.py`): there are cores enough, and no limit counts it."""
    prompt: bool = False
    """Whether each answer is sent before the next call is begun: what it ends with in hand is then known."""


class Ready(msgspec.Struct, frozen=True, array_like=True):
    """The actor started: its operations in the order of their numbers."""

    operations: tuple[OperationDescription, ...]


class LogLine(msgspec.Struct, frozen=True, array_like=True):
    """One line that the actor printed, or that the worker says of it."""

    level: str
    text: str


class Spawn(msgspec.Struct, frozen=True, array_like=True):
    """Host to zygote, with the worker's end of its socketpair attached: fork one worker.

    Behind it the ends of its lanes are attached, then perhaps the cgroup's directory that the worker is born in.
    """

    token: int
    name: str
    uid: int | None
    memory_bytes: int
    cpu_seconds: int
    profile: Profile = Profile.PYTHON
    lanes: int = 0


class Spawned(msgspec.Struct, frozen=True, array_like=True):
    """Zygote to host: the worker's process id, or why there is none."""

    token: int
    pid: int
    error: str | None


class Awake(msgspec.Struct, frozen=True, array_like=True):
    """Zygote to host, once: it is ready to fork, and this is how workers will be closed in."""

    report: SandboxReport
