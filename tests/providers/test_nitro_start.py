"""What a simulated enclave is started with survives its pipe, hides its key, and is refused when malformed.

Rule: docs/architecture.md, "Modes".
"""

from __future__ import annotations

import cbor2
import pytest

from tea.providers.nitro.client import Nsm
from tea.providers.nitro.simulated import SimulatedCa
from tea.providers.nitro.start import MAX_START, SimulatedStart
from tea.trust import pcr

NOW = 1_800_000_000.0
START = SimulatedStart(
    SimulatedCa.create(now=NOW).issue_instance("i-01", now=NOW), "i-01-enc02", {0: b"\1" * 48}, "arn:aws:iam::1:role/x"
)
FIELDS: dict[str, object] = cbor2.loads(START.encode())

CHANGES: tuple[dict[str, object], ...] = (
    {"tea": "other"},
    {"more": 1},
    {"credential": "text"},
    {"credential": b"no credential"},
    {"module": 1},
    {"pcrs": []},
    {"pcrs": {"0": bytes(48)}},
    {"pcrs": {0: "text"}},
    {"role": 1},
    {"debug": 1},
)


def test_a_start_comes_back_from_its_bytes_and_hides_its_key() -> None:
    assert SimulatedStart.decode(START.encode()) == START
    assert "key" not in repr(START)


def test_a_start_makes_the_nsm_that_it_describes() -> None:
    nsm = Nsm(START.nsm(lambda: NOW))
    assert nsm.describe().module_id == "i-01-enc02"
    assert nsm.describe_pcr(0).data == b"\1" * 48
    assert nsm.describe_pcr(3).data == pcr.pcr3("arn:aws:iam::1:role/x")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        cbor2.dumps([]),
        cbor2.dumps({}),
        bytes(MAX_START + 1),
        *(cbor2.dumps({**FIELDS, **change}) for change in CHANGES),
    ],
)
def test_bytes_that_are_no_start_are_refused_without_being_quoted(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"start|credential") as caught:
        SimulatedStart.decode(data)
    assert START.credential.key.hex()[:32] not in str(caught.value)
