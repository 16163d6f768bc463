"""Reading a console: a panic, a missing module, a failed host and a slow boot are told apart."""

from __future__ import annotations

import pytest

from tea.enclave_image.vm.boot_log import Stage, read_boot_log

KERNEL = "[    0.000000] Linux version 6.1.0\r\n"
INIT = KERNEL + "init: [2.81] up, mode vm, parent vsock:2:5005\r\n"
HOST = INIT + "init: [2.89] modules are loaded\r\ninit: [2.92] the host is process 87\r\n"


@pytest.mark.parametrize(
    ("console", "stage", "detail"),
    [
        ("", Stage.FIRMWARE, "nothing was said"),
        (KERNEL, Stage.KERNEL, "the kernel runs"),
        (INIT, Stage.INIT, "up, mode vm, parent vsock:2:5005"),
        (HOST, Stage.HOST, "the host is process 87"),
        (
            KERNEL + "[ 1.0] Kernel panic - not syncing: No init found.",
            Stage.PANIC,
            "No init found.",
        ),
        (
            HOST + "[ 9.0] Kernel panic - not syncing: Attempted to kill init!",
            Stage.PANIC,
            "Attempted to kill init!",
        ),
        (INIT + "init: [3.26] missing module vsock.ko\n", Stage.MODULE, "missing module vsock.ko"),
        (INIT + "init: [3.26] module virtio.ko does not load\n", Stage.MODULE, "module virtio.ko does not load"),
        (
            INIT + "init: [4.00] FAILED: heartbeat: timed out\ninit: [4.01] end: it could not boot (status 1)\n",
            Stage.FAILED,
            "heartbeat: timed out",
        ),
        (HOST + "init: [9.0] end: the host has FAILED (status 137)\n", Stage.FAILED, "the host has FAILED, status 137"),
        (HOST + "init: [9.0] end: the host has ended (status 0)\n", Stage.ENDED, "the host has ended"),
    ],
)
def test_every_way_a_boot_can_go_is_told_apart(console: str, stage: Stage, detail: str) -> None:
    log = read_boot_log(console)
    assert (log.stage, log.detail) == (stage, detail)
    assert log.stage.is_final is (stage in (Stage.PANIC, Stage.MODULE, Stage.FAILED, Stage.ENDED))


def test_times_and_memory_are_the_guest_s_own() -> None:
    log = read_boot_log(HOST + "init: [9.00] memory used: 150 MiB\ninit: [19.00] memory used: 120 MiB\n")
    assert (log.init_seconds, log.memory_mib) == (2.81, 150)
