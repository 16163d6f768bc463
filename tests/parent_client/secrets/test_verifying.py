"""One HTTP call that verifies: the same verdicts as the library, whatever is posted. Rule: docs/secrets.md."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tea.parent_client.secrets.server import VERIFY_PATH, ReleaseServer
from tea.parent_client.secrets.verifying import verify
from tea.providers.nitro.authority import SimulatedCa
from tea.providers.nitro.client import Nsm
from tea.providers.nitro.start import SimulatedStart
from tea.simulator.identity import instance_id, module_id, simulated_pcrs
from tea.trust.attestation import ChainCache
from tea.trust.pcr import ZERO
from tea.trust.policy import all_of, any_of, none_of, parse_rule
from tea.trust.statement import Statement


class Enclave:
    """A simulated NSM with a statement, and the policy that accepts it."""

    def __init__(self) -> None:
        ca = SimulatedCa.create()
        instance = instance_id(b"net", "e1")
        start = SimulatedStart(ca.issue_instance(instance), module_id(instance), simulated_pcrs(b"approvers"))
        self.nsm = Nsm(start.nsm(time.time))
        self.statement = Statement(
            kind="attest", deployment="demo", manifest=b"m" * 48, revision=3, epoch=1, log_head=ZERO
        )
        pcr0 = self.nsm.describe_pcr(0).data.hex()
        self.policy = (
            f"tea: policy/1\nsimulated: {{root: sha256:{ca.root_digest.hex()}}}\npcrs: {{0: {pcr0}}}\n"
            "deployment: demo\nmin_revision: 2\nmax_age: 300\n"
        )

    def request(self, **changes: object) -> bytes:
        document = self.nsm.attestation(self.statement.digest, b"nonce", None)
        fields = {
            "document": base64.b64encode(document).decode(),
            "statement": base64.b64encode(self.statement.encode()).decode(),
            "policy": self.policy,
            "nonce": b"nonce".hex(),
        }
        return json.dumps({**fields, **changes}).encode()


@pytest.fixture(scope="module")
def enclave() -> Enclave:
    return Enclave()


def judged(data: bytes) -> dict[str, Any]:
    return verify(data, now_ms=int(time.time() * 1000), cache=ChainCache())


def test_what_the_policy_admits_is_accepted(enclave: Enclave) -> None:
    verdict = judged(enclave.request())
    assert verdict["authentic"] is True
    assert verdict["accepted"] is True
    assert "error" not in verdict


def test_a_document_under_another_root_is_not_authentic(enclave: Enclave) -> None:
    verdict = judged(enclave.request(policy=Enclave().policy))
    assert (verdict["authentic"], verdict["accepted"], verdict["code"]) == (False, False, "root")


def test_another_nonce_is_not_authentic(enclave: Enclave) -> None:
    assert judged(enclave.request(nonce="00"))["code"] == "nonce"


def test_a_revision_below_the_policys_is_authentic_and_refused(enclave: Enclave) -> None:
    verdict = judged(enclave.request(policy=enclave.policy.replace("min_revision: 2", "min_revision: 4")))
    assert (verdict["authentic"], verdict["accepted"], verdict["code"]) == (True, False, "revision")


def test_a_statement_of_another_document_is_refused(enclave: Enclave) -> None:
    other = Statement(kind="attest", deployment="other", manifest=b"m" * 48, revision=3, epoch=1, log_head=ZERO)
    verdict = judged(enclave.request(statement=base64.b64encode(other.encode()).decode()))
    assert (verdict["authentic"], verdict["accepted"]) == (True, False)


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b'{"document": "!", "policy": ""}', b'{"document": "", "policy": "", "more": 1}', b"\xff" * 9],
)
def test_what_is_no_request_is_refused_with_a_sentence(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"this is no request to verify|the policy cannot be read"):
        judged(data)


async def test_one_http_call_verifies(enclave: Enclave, setting: Any, tmp_path: Path) -> None:
    server = ReleaseServer(setting.service)
    await server.start(port=0)
    try:
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{server.port}{VERIFY_PATH}"
            async with session.post(url, data=enclave.request()) as response:
                assert response.status == 200
                assert (await response.json())["accepted"] is True
            async with session.post(url, data=b"nonsense") as response:
                assert response.status == 400
                assert (await response.json())["code"] == "malformed"
    finally:
        await server.close()


def test_a_combined_policy_is_a_policy_and_a_not_alone_is_none(enclave: Enclave) -> None:
    rule = parse_rule(enclave.policy)
    assert judged(enclave.request(policy=any_of(rule).to_yaml()))["accepted"]
    refused = judged(enclave.request(policy=all_of(rule, none_of(rule)).to_yaml()))
    assert (refused["authentic"], refused["accepted"], refused["code"]) == (True, False, "excluded")
    with pytest.raises(ValueError, match="put it into an `all`"):
        judged(enclave.request(policy="tea: policy/1\nnot: {roots: [aws]}\n"))
