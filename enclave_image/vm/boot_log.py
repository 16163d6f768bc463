"""What a guest's console says of its boot: how far it came, and whether it panicked, lacks a module, or is only slow.

May not: decide how long is too long; a clock is the caller's. Rule: the lines are those of `boot/init.c` and Linux.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Final

_INIT: Final = re.compile(r"init: \[(?P<seconds>\d+\.\d+)\] (?P<said>[^\r\n]*)")
_PANIC: Final = re.compile(r"Kernel panic - not syncing: (?P<why>[^\r\n]*)")
_MEMORY: Final = re.compile(r"memory used: (\d+) MiB")
_END: Final = re.compile(r"end: (?P<why>.*) \(status (?P<status>\d+)\)")


class Stage(enum.StrEnum):
    """How far a boot came, or how it ended."""

    FIRMWARE = "firmware"
    """Nothing was said yet: the firmware runs, or QEMU did not start."""
    KERNEL = "kernel"
    """The kernel speaks, init does not yet."""
    INIT = "init"
    HOST = "host"
    """Init has handed over to the host."""
    PANIC = "kernel-panic"
    MODULE = "missing-module"
    FAILED = "failed"
    """Init or the host gave up; the last line says why."""
    ENDED = "ended"
    """The host ended with status 0."""

    @property
    def is_final(self) -> bool:
        """Whether nothing more will come."""
        return self in (Stage.PANIC, Stage.MODULE, Stage.FAILED, Stage.ENDED)


@dataclass(frozen=True, slots=True)
class BootLog:
    """A console, read."""

    stage: Stage
    detail: str
    """The reason of a failure, else the last thing that init said."""
    init_seconds: float | None
    """Seconds after power-on at which init began, by the guest's clock."""
    memory_mib: int
    """The most that the guest said it uses."""


def read_boot_log(console: str) -> BootLog:
    """The stage that a console's text shows."""
    said = [(float(match["seconds"]), match["said"]) for match in _INIT.finditer(console)]
    memory = max((int(used) for used in _MEMORY.findall(console)), default=0)
    first = said[0][0] if said else None
    stage, detail = _stage(console, [text for _, text in said])
    return BootLog(stage, detail, first, memory)


def _stage(console: str, said: list[str]) -> tuple[Stage, str]:
    panic = _PANIC.search(console)
    if panic is not None:
        return Stage.PANIC, panic["why"]
    missing = [text for text in said if text.startswith("missing module") or text.endswith("does not load")]
    if missing:
        return Stage.MODULE, missing[0]
    end = next((match for text in said if (match := _END.fullmatch(text))), None)
    if end is not None:
        failed = next((text for text in said if text.startswith("FAILED: ")), None)
        if end["status"] == "0":
            return Stage.ENDED, end["why"]
        return Stage.FAILED, failed.removeprefix("FAILED: ") if failed else f"{end['why']}, status {end['status']}"
    if any(text.startswith("the host is process") for text in said):
        return Stage.HOST, said[-1]
    if said:
        return Stage.INIT, said[-1]
    return (Stage.KERNEL, "the kernel runs") if console.strip() else (Stage.FIRMWARE, "nothing was said")
