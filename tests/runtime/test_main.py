"""The host's start as a process: what must hold before there is a host, and how a start that fails ends.

May not: open a real NSM, or mix anything into this machine's pool. Rule: docs/architecture.md, "Boot".
"""

from __future__ import annotations

import errno
import hashlib
import time
from pathlib import Path

import pytest

from tea.providers.nitro.client import Nsm
from tea.providers.nitro.simulated import SimulatedCa, SimulatedNsm
from tea.runtime import __main__ as start
from tea.trust import pcr
from tea.trust.approval import Approvers
from tea.trust.keys import PrivateKey

INSTANCE = "i-0123456789abcdef0"


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> SimulatedNsm:
    """What stands for `/dev/nsm`."""
    image = {index: pcr.image_pcr(hashlib.sha384(b"%d" % index).digest()) for index in range(3)}
    made = SimulatedNsm(SimulatedCa.create().issue_instance(INSTANCE), f"{INSTANCE}-enc0", image, time.time)
    monkeypatch.setattr(start, "NsmDevice", lambda: made)
    return made


def arguments(folder: Path) -> list[str]:
    approvers = folder / "approvers.yaml"
    approvers.write_text(Approvers("d", 1, 1, (PrivateKey.generate().public,)).to_yaml())
    return ["--mode", "nitro", "--parent", f"unix:{folder / 'enclave.sock'}", "--approvers", str(approvers)]


def test_an_enclave_whose_nsm_gives_no_random_does_not_start(
    tmp_path: Path, device: SimulatedNsm, capsys: pytest.CaptureFixture[str]
) -> None:
    device.failing = errno.EIO
    assert start.main(arguments(tmp_path)) == 1
    assert "tea.runtime: the NSM's random could not be mixed into the kernel's pool: " in capsys.readouterr().err


def test_the_nsms_random_is_mixed_in_before_there_is_a_host(
    tmp_path: Path, device: SimulatedNsm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed: list[bytes] = []

    def mix(nsm: Nsm) -> None:
        mixed.append(nsm.random(16))
        raise PermissionError(errno.EACCES, "the pool is closed")

    def no_host(**arguments: object) -> None:
        raise AssertionError("a host was made before its random")

    monkeypatch.setattr(start, "mix_entropy", mix)
    monkeypatch.setattr(start, "Host", no_host)
    assert start.main(arguments(tmp_path)) == 1
    assert len(mixed) == 1
    assert "the pool is closed" in capsys.readouterr().err
