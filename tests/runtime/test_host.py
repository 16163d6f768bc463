"""The host: boot, refusals that leave everything as it was, calls, upgrade, drain."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tea.protocol.channels import Control
from tea.protocol.errors import CallError, Code
from tea.runtime.control import ControlService
from tea.trust import pcr
from tea.trust.approval import approve
from tea.trust.attestation import Roots, verify_document
from tea.trust.eventlog import verify_log
from tea.trust.keys import PrivateKey
from tea.trust.manifest import parse_manifest
from tea.trust.statement import verify_statement

Enclave = Any

COUNTER = """
from tea.sdk import Actor, operation

class Counter(Actor):
    @operation
    def add(self, by: int = 1) -> int:
        return self.kvp.incr("n", by)

    @operation
    def edition(self) -> str:
        return "VERSION"
"""
LINKS = """
  - {from: parent, to: counter, operations: [add, edition]}
  - {from: counter, to: kvp, operations: [incr]}
"""


def build_counter(enclave: Enclave, version: str = "0.1.0") -> None:
    source = COUNTER.replace("VERSION", version)
    enclave.bundle("counter", source, "Counter", version=version, capabilities={"kvp": ("incr",)})


async def test_an_approved_manifest_runs_and_answers(enclave: Enclave) -> None:
    build_counter(enclave)
    activation = await enclave.push(enclave.manifest(links=LINKS))
    assert activation.started == ("counter",)
    assert [await enclave.call("counter", "add", by=2) for _ in range(3)] == [2, 4, 6]
    status = await enclave.client.status()
    assert status.enclave.phase == "ready"
    assert status.enclave.calls == status.enclave.replies + status.enclave.errors


async def test_the_attestation_after_boot_binds_manifest_settings_and_event_log(enclave: Enclave) -> None:
    build_counter(enclave)
    text = enclave.manifest(links=LINKS)
    await enclave.push(text)
    attestation = await enclave.client.attest(b"my nonce")
    document = verify_document(
        attestation.document,
        roots=Roots.from_digests([enclave.root]),
        at=int(enclave.host.now() * 1000),
        nonce=b"my nonce",
    )
    statement = verify_statement(document, attestation.statement)
    digest = parse_manifest(text).digest
    assert statement.manifest == digest
    assert document.pcrs[16] == pcr.extend(pcr.ZERO, digest)
    assert set(document.pcrs) == {*range(16), 16, 17, 18}
    events = verify_log(await enclave.client.event_log(), statement.log_head)
    assert [event.revision for event in events] == [1]


async def test_pcrs_are_locked_and_take_no_more(enclave: Enclave) -> None:
    build_counter(enclave)
    await enclave.push(enclave.manifest(links=LINKS))
    for index in (16, 17, 18):
        assert enclave.host.measurement.nsm.describe_pcr(index).locked


async def test_an_unapproved_manifest_is_refused_and_the_host_waits_for_another(enclave: Enclave) -> None:
    build_counter(enclave)
    text = enclave.manifest(links=LINKS)
    with pytest.raises(CallError) as refused:
        await enclave.push(text, key=PrivateKey.generate())
    assert refused.value.code is Code.UNTRUSTED
    assert refused.value.details["step"] == "verifying-manifest"
    assert enclave.host.tracker.phase.value == "awaiting-settings"
    await enclave.push(text)
    assert await enclave.call("counter", "add") == 1


async def test_a_lower_revision_is_refused_and_the_running_one_serves_on(enclave: Enclave) -> None:
    build_counter(enclave)
    await enclave.push(enclave.manifest(revision=3, links=LINKS))
    with pytest.raises(CallError, match="revision 2") as refused:
        await enclave.push(enclave.manifest(revision=2, links=LINKS))
    assert refused.value.details["reason"] == "lower-revision"
    assert await enclave.call("counter", "add") == 1
    assert enclave.host.tracker.phase.value == "ready"


async def test_another_manifest_under_the_same_revision_is_refused(enclave: Enclave) -> None:
    build_counter(enclave)
    await enclave.push(enclave.manifest(links=LINKS))
    with pytest.raises(CallError) as refused:
        await enclave.push(enclave.manifest(links=LINKS, actors={"counter": ", replicas: 2"}))
    assert refused.value.details["reason"] == "other-manifest-at-same-revision"


async def test_a_bundle_with_a_changed_byte_is_refused(enclave: Enclave) -> None:
    build_counter(enclave)
    changed = bytearray(enclave.bundles["counter"])
    changed[-30] ^= 1
    enclave.bundles["counter"] = bytes(changed)
    with pytest.raises(CallError) as refused:
        await enclave.push(enclave.manifest(links=LINKS))
    assert refused.value.code is Code.UNTRUSTED
    assert refused.value.details["step"] == "verifying-bundles"


async def test_a_bundle_of_an_unknown_issuer_is_refused(enclave: Enclave) -> None:
    enclave.bundle("counter", COUNTER, "Counter", capabilities={"kvp": ("incr",)}, key=PrivateKey.generate())
    with pytest.raises(CallError) as refused:
        await enclave.push(enclave.manifest(links=LINKS))
    assert refused.value.details["reason"] == "unknown-issuer"


async def test_a_capability_that_the_manifest_does_not_grant_is_refused(enclave: Enclave) -> None:
    enclave.bundle("counter", COUNTER, "Counter", capabilities={"kvp": ("delete", "incr")})
    with pytest.raises(CallError, match="delete") as refused:
        await enclave.push(enclave.manifest(links=LINKS))
    assert refused.value.details["reason"] == "not-granted"


async def test_a_bundle_that_was_not_pushed_is_named(enclave: Enclave) -> None:
    build_counter(enclave)
    text = enclave.manifest(links=LINKS)
    build_counter(enclave, "0.2.0")
    with pytest.raises(CallError, match="was not pushed"):
        await enclave.push(text)


async def test_a_link_to_an_operation_that_no_provider_has_is_refused_with_those_it_has(enclave: Enclave) -> None:
    build_counter(enclave)
    links = LINKS.replace("[incr]", "[incr, teleport]")
    with pytest.raises(CallError, match="teleport, which kvp does not have"):
        await enclave.push(enclave.manifest(links=links))


async def test_a_provider_config_with_an_unknown_key_is_refused(enclave: Enclave) -> None:
    build_counter(enclave)
    with pytest.raises(CallError, match="config of provider kvp"):
        await enclave.push(enclave.manifest(links=LINKS, providers="  kvp: {colour: red}"))


async def test_a_module_body_that_raises_fails_the_start_and_is_named(enclave: Enclave) -> None:
    enclave.bundle("counter", "raise RuntimeError('broken on purpose')", "Counter")
    with pytest.raises(CallError, match="counter") as refused:
        await enclave.push(enclave.manifest(links="  []"))
    assert refused.value.details["step"] == "starting-workers"
    assert "broken on purpose" in await enclave.logged("broken on purpose")
    assert enclave.host.tracker.phase.value == "awaiting-settings"


async def test_a_first_boot_that_failed_after_measuring_takes_only_the_same_settings(enclave: Enclave) -> None:
    enclave.bundle("counter", "raise RuntimeError", "Counter")
    with pytest.raises(CallError):
        await enclave.push(enclave.manifest(links="  []"))
    build_counter(enclave)
    with pytest.raises(CallError, match="PCR16") as refused:
        await enclave.push(enclave.manifest(revision=2, links=LINKS))
    assert refused.value.code is Code.CONFLICT


async def test_a_call_without_a_link_from_parent_is_denied(enclave: Enclave) -> None:
    build_counter(enclave)
    await enclave.push(enclave.manifest(links=LINKS.replace("[add, edition]", "[add]")))
    with pytest.raises(CallError) as refused:
        await enclave.call("counter", "edition")
    assert refused.value.code is Code.DENIED
    with pytest.raises(CallError) as refused:
        await enclave.call("nobody", "version")
    assert refused.value.code is Code.NOT_FOUND


async def test_wrong_arguments_are_refused_by_name(enclave: Enclave) -> None:
    build_counter(enclave)
    await enclave.push(enclave.manifest(links=LINKS))
    with pytest.raises(CallError, match="steps") as refused:
        await enclave.call("counter", "add", steps=2)
    assert refused.value.code is Code.INVALID
    with pytest.raises(CallError) as refused:
        await enclave.call("counter", "add", by="two")
    assert refused.value.code is Code.INVALID


@pytest.mark.parametrize(
    "arguments",
    [
        b"\xc1",
        b"\x91",
        b"\x90\x90",
        b"\x01",
        b"\x81\x01\x01",
        b"\x81\xa1\xff\x01",
        b"\xde\x04\x01" + b"\xa1x\x01" * 1025,
    ],
    ids=["bytes", "cut", "two", "no array", "a number as a name", "a name that is no text", "many names"],
)
async def test_what_are_no_arguments_is_refused(enclave: Enclave, arguments: bytes) -> None:
    build_counter(enclave)
    await enclave.push(enclave.manifest(links=LINKS))
    with pytest.raises(CallError) as refused:
        ControlService(enclave.host)._positional("counter", "add", arguments)
    assert refused.value.code is Code.INVALID


async def test_what_an_argument_is_its_callee_finds_out(enclave: Enclave) -> None:
    build_counter(enclave)
    await enclave.push(enclave.manifest(links=LINKS))
    positional = ControlService(enclave.host)._positional
    assert positional("counter", "add", b"\x91\xa1\xff") == b"\x91\xa1\xff"
    assert positional("counter", "add", b"\x81\xa2by\xcd\x00\x01") == b"\x91\xcd\x00\x01"


async def test_an_upgrade_changes_the_code_keeps_the_state_and_loses_no_call(enclave: Enclave) -> None:
    build_counter(enclave)
    await enclave.push(enclave.manifest(links=LINKS, actors={"counter": ", replicas: 2"}))
    stop = asyncio.Event()
    answered = 0

    async def load() -> None:
        nonlocal answered
        while not stop.is_set():
            await enclave.call("counter", "add")
            answered += 1

    callers = [asyncio.create_task(load()) for _ in range(4)]
    build_counter(enclave, "0.2.0")
    activation = await enclave.push(
        enclave.manifest(revision=2, links=LINKS, versions={"counter": "0.2.0"}, actors={"counter": ", replicas: 2"})
    )
    assert activation.revision == 2
    assert await enclave.call("counter", "edition") == "0.2.0"
    stop.set()
    await asyncio.gather(*callers)
    assert await enclave.call("counter", "add") == answered + 1
    events = verify_log(await enclave.client.event_log(), enclave.host.measurement.log.head)
    assert [event.revision for event in events] == [1, 2]


async def test_an_unchanged_actor_keeps_its_worker_across_an_upgrade(enclave: Enclave) -> None:
    build_counter(enclave)
    await enclave.push(enclave.manifest(links=LINKS))
    before = enclave.host.supervisors["counter"].pids
    links = LINKS.replace("[add, edition]", "[add]")
    activation = await enclave.push(enclave.manifest(revision=2, links=links))
    assert activation.started == ()
    assert enclave.host.supervisors["counter"].pids == before
    with pytest.raises(CallError) as refused:
        await enclave.call("counter", "edition")
    assert refused.value.code is Code.DENIED


async def test_an_upgrade_that_does_not_start_leaves_the_old_revision_serving(enclave: Enclave) -> None:
    build_counter(enclave)
    await enclave.push(enclave.manifest(links=LINKS))
    enclave.bundle("counter", "raise RuntimeError", "Counter", version="0.2.0", capabilities={"kvp": ("incr",)})
    with pytest.raises(CallError):
        await enclave.push(enclave.manifest(revision=2, links=LINKS, versions={"counter": "0.2.0"}))
    assert await enclave.call("counter", "edition") == "0.1.0"
    assert enclave.host.tracker.phase.value == "ready"
    assert enclave.host.status().revision == 1


async def test_an_actor_that_left_the_manifest_is_gone(enclave: Enclave, echo_source: str, until: Any) -> None:
    build_counter(enclave)
    enclave.bundle("echo", echo_source, "Echo")
    links = LINKS + "\n  - {from: parent, to: echo, operations: [echo]}"
    await enclave.push(enclave.manifest(links=links))
    pid = enclave.host.supervisors["echo"].pids[0]
    del enclave.bundles["echo"]
    activation = await enclave.push(enclave.manifest(revision=2, links=LINKS))
    assert activation.stopped == ("echo",)
    with pytest.raises(CallError) as refused:
        await enclave.call("echo", "echo", value=1)
    assert refused.value.code is Code.NOT_FOUND
    await until(lambda: not Path(f"/proc/{pid}").exists())


async def test_a_dead_parent_is_survived_and_a_new_one_is_served(enclave: Enclave, until: Any) -> None:
    from tea.parent_client.client import RuntimeClient, unix_config

    build_counter(enclave)
    await enclave.push(enclave.manifest(links=LINKS))
    assert await enclave.call("counter", "add") == 1
    await enclave.client.close()
    enclave.client = RuntimeClient(unix_config("e1", enclave.folder))
    await enclave.client.start()
    await until(lambda: enclave.client._enclave is not None)
    assert await enclave.call("counter", "add") == 2


async def test_shutdown_leaves_no_process(enclave: Enclave, until: Any) -> None:
    build_counter(enclave)
    await enclave.push(enclave.manifest(links=LINKS))
    pids = [*enclave.host.supervisors["counter"].pids, enclave.host.zygote.pid]
    await enclave.client._enclave.call(1, Control, "shutdown", 1.0)
    await until(lambda: enclave.host.tracker.phase.value == "stopped")
    await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


async def test_the_digest_of_the_bundle_in_the_manifest_is_what_runs(enclave: Enclave) -> None:
    build_counter(enclave)
    await enclave.push(enclave.manifest(links=LINKS))
    assert enclave.host.revisions.bundle_digest("counter") == hashlib.sha256(enclave.bundles["counter"]).digest()


async def test_garbage_instead_of_an_approved_manifest_is_refused(enclave: Enclave) -> None:
    for garbage in (b"x", b"\x84" + bytes(40), os.urandom(200)):
        with pytest.raises(CallError) as refused:
            await enclave.push("", raw=garbage)
        assert refused.value.code is Code.UNTRUSTED


async def test_a_manifest_of_another_deployment_is_refused(enclave: Enclave) -> None:
    build_counter(enclave)
    text = enclave.manifest(links=LINKS).replace("deployment: test", "deployment: other")
    with pytest.raises(CallError) as refused:
        await enclave.push("", raw=approve(parse_manifest(text).canonical(), enclave.key))
    assert refused.value.details["reason"] == "wrong-deployment"


async def test_an_expired_manifest_is_refused(enclave: Enclave) -> None:
    build_counter(enclave)
    with pytest.raises(CallError) as refused:
        await enclave.push(enclave.manifest(links=LINKS, extra="not_after: 2020-01-01T00:00:00Z"))
    assert refused.value.details["reason"] == "expired"


async def test_a_killed_zygote_is_replaced_when_a_worker_is_needed(enclave: Enclave, until: Any) -> None:
    build_counter(enclave)
    await enclave.push(enclave.manifest(links=LINKS))
    os.kill(enclave.host.zygote.pid, signal.SIGKILL)
    assert await enclave.call("counter", "add") == 1  # the workers do not need it
    os.kill(enclave.host.supervisors["counter"].pids[0], signal.SIGKILL)
    await until(lambda: enclave.host.supervisors["counter"].restarts == 1)
    assert await enclave.call("counter", "add") == 2
    assert enclave.host.zygote.starts == 2
