"""The runtime client: an enclave that comes, goes and comes back; the operator's operations; who may write where."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tea.parent_client.client import RuntimeClient, unix_config
from tea.parent_client.operator import Operator, Push
from tea.protocol.channels import Adapter, AdapterFeed, BlockChanges, Channel, Head, HostStatus, LogRecord
from tea.protocol.errors import CallError, Code
from tea.protocol.transport.client import connect

MakeClient = Callable[..., Awaitable[RuntimeClient]]
MakeHost = Callable[..., Awaitable[Any]]
Until = Callable[..., Awaitable[None]]
HEAD = Head(7, bytes(32), bytes(32), bytes(32), 1)


async def test_without_an_enclave_everything_is_unavailable_and_says_what_to_do(make_client: MakeClient) -> None:
    client = await make_client()
    for asked in (
        client.call("counter", "value", b"\x90"),
        client.attest(b"nonce"),
        client.event_log(),
        client.push(Push(b"", (), {}, ())),
    ):
        with pytest.raises(CallError, match="the enclave of e1 is not connected: start it") as refused:
            await asked
        assert refused.value.code is Code.UNAVAILABLE
    status = await client.status()
    assert not status.connected
    assert status.enclave is None
    assert "not connected" in str(status.problem)


async def test_an_enclave_that_comes_is_served_and_one_that_goes_is_missed(
    make_client: MakeClient, make_host: MakeHost, until: Until
) -> None:
    client = await make_client()
    host = await make_host(client)
    await until(lambda: client._enclave is not None)
    status = await client.status()
    assert (status.connected, status.problem, status.connections) == (True, None, 1)
    assert await client.call("counter", "value", b"\x90") == b"\x90"
    assert (await client.attest(b"nonce")).statement == b"nonce"
    assert await client.event_log() == (b"entry",)
    await host.connected.close()
    await until(lambda: client._enclave is None)
    with pytest.raises(CallError) as refused:
        await client.call("counter", "value", b"\x90")
    assert refused.value.code is Code.UNAVAILABLE


async def test_an_enclave_that_comes_back_is_served_again_and_both_are_in_the_log(
    make_client: MakeClient, make_host: MakeHost, until: Until
) -> None:
    client = await make_client()
    first = await make_host(client)
    await until(lambda: client._enclave is not None)
    await first.connected.close()
    await until(lambda: client._enclave is None)
    await make_host(client)
    await until(lambda: client._enclave is not None)
    assert (await client.status()).connections == 2
    said = [record.message for record in (await client.logs(0, 0)).records]
    assert [one.partition(":")[0] for one in said] == [
        "the enclave has connected",
        "the enclave is gone",
        "the enclave has connected",
    ]


async def test_a_second_enclave_takes_the_place_of_the_first_whose_calls_fail(
    make_client: MakeClient, make_host: MakeHost, until: Until
) -> None:
    client = await make_client()
    await make_host(client)
    await until(lambda: client._enclave is not None)
    in_hand = asyncio.ensure_future(client.call("mute", "value", b"\x90"))
    await asyncio.sleep(0)
    await make_host(client)
    with pytest.raises(CallError) as refused:
        await in_hand
    assert refused.value.code is Code.UNAVAILABLE
    assert await client.call("counter", "value", b"\x01") == b"\x01"


async def test_an_enclave_that_dies_with_calls_in_hand_fails_them(
    make_client: MakeClient, make_host: MakeHost, until: Until
) -> None:
    client = await make_client()
    host = await make_host(client)
    await until(lambda: client._enclave is not None)
    calls = [asyncio.ensure_future(client.call("mute", "value", b"\x90")) for _ in range(20)]
    await asyncio.sleep(0)
    await host.connected.close()
    for call in calls:
        with pytest.raises(CallError) as refused:
            await call
        assert refused.value.code is Code.UNAVAILABLE


async def test_a_status_that_is_garbage_is_a_problem_and_no_crash(
    make_client: MakeClient, make_host: MakeHost, until: Until
) -> None:
    client = await make_client()

    async def garbage() -> Any:
        return {"phase": 3}

    await make_host(client, status=garbage)
    await until(lambda: client._enclave is not None)
    status = await client.status()
    assert status.enclave is None
    assert "something else" in str(status.problem)


async def test_the_operator_socket_answers_all_of_it_and_is_the_owners_alone(
    make_client: MakeClient, make_host: MakeHost, tmp_path: Path, until: Until
) -> None:
    client = await make_client()
    await make_host(client)
    await until(lambda: client._enclave is not None)
    for name in ("operator.sock", "enclave.sock", "peer.sock", "log.jsonl"):
        assert stat.S_IMODE((tmp_path / "e1" / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "e1").stat().st_mode) == 0o700
    operator = await connect(client.config.operator)
    try:
        status = await operator.call(Channel.OPERATOR, Operator, "status")
        assert isinstance(status.enclave, HostStatus)
        assert await operator.call(Channel.OPERATOR, Operator, "call", "a", "b", b"\x05") == b"\x05"
        page = await operator.call(Channel.OPERATOR, Operator, "logs", 0, 0.0)
        assert page.records[0].source == "client"
    finally:
        await operator.close()


def test_a_state_folder_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "e1"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(PermissionError, match=r"others can write.*chmod go-w"):
        unix_config("e1", folder)


async def test_a_second_client_in_the_same_folder_is_refused_and_the_first_serves_on(
    make_client: MakeClient, make_host: MakeHost, until: Until
) -> None:
    client = await make_client()
    await make_host(client)
    await until(lambda: client._enclave is not None)
    with pytest.raises(OSError, match="somebody listens there already"):
        await make_client()
    assert await client.call("counter", "value", b"\x01") == b"\x01"


async def test_a_client_in_a_folder_with_a_very_long_path_is_reached(
    make_client: MakeClient, make_host: MakeHost, tmp_path: Path, until: Until
) -> None:
    folder = tmp_path / ("x" * 120) / ("y" * 120)
    client = await make_client("e1", folder=folder)
    await make_host(client)
    await until(lambda: client._enclave is not None)
    operator = await connect(client.config.operator)
    assert (await operator.call(Channel.OPERATOR, Operator, "status")).connected
    await operator.close()


async def test_a_client_that_could_not_start_leaves_nothing_listening(tmp_path: Path) -> None:
    config = unix_config("e1", tmp_path / "e1")
    (tmp_path / "e1/enclave.sock").write_text("in the way")
    with pytest.raises(OSError, match="is no socket: move it away"):
        await RuntimeClient(config).start()
    assert not (tmp_path / "e1/operator.sock").exists()


class Chain(Adapter):
    async def head(self) -> Head:
        return HEAD

    async def blocks(self, start: int, count: int) -> tuple[BlockChanges, ...]:
        return (BlockChanges(HEAD, {}),)


async def test_an_adapter_is_served_and_new_heads_are_told(
    make_client: MakeClient, make_host: MakeHost, until: Until
) -> None:
    client = await make_client(adapter=Chain())
    client.finalized(HEAD)  # before there is an enclave: nobody to tell
    host = await make_host(client)
    heard: list[Head] = []

    class Feed(AdapterFeed):
        async def finalized(self, head: Head) -> None:
            heard.append(head)

    host.connected.serve(Channel.ADAPTER, AdapterFeed, Feed())
    await until(lambda: client._enclave is not None)
    assert await host.connected.call(Channel.ADAPTER, Adapter, "head") == HEAD
    client.finalized(HEAD)
    await until(lambda: heard == [HEAD])
    assert (await client.status()).height == 7


async def test_stop_drains_the_enclave_first_and_then_ends(tmp_path: Path, make_host: MakeHost, until: Until) -> None:
    client = RuntimeClient(unix_config("e1", tmp_path / "e1"))
    running = asyncio.ensure_future(client.run())
    await until(lambda: len(client._servers) == 3)
    host = await make_host(client)
    await until(lambda: client._enclave is not None)
    await client.stop(3.0)
    assert host.shut_down == [3.0]
    assert client._enclave is None
    await asyncio.wait_for(running, 5)


async def test_stop_without_an_enclave_ends(tmp_path: Path, until: Until) -> None:
    client = RuntimeClient(unix_config("e1", tmp_path / "e1"))
    running = asyncio.ensure_future(client.run())
    await until(lambda: len(client._servers) == 3)
    await client.stop(0)
    await asyncio.wait_for(running, 5)


@pytest.mark.parametrize("drain", [-1.0, 61.0, float("nan"), float("inf")])
async def test_a_drain_out_of_range_is_refused(make_client: MakeClient, drain: float) -> None:
    client = await make_client()
    with pytest.raises(CallError, match="0 to 60 seconds"):
        await client.stop(drain)


async def test_logs_of_the_enclave_are_served_in_pages(
    make_client: MakeClient, make_host: MakeHost, until: Until
) -> None:
    client = await make_client()
    host = await make_host(client)
    await until(lambda: client._enclave is not None)
    await host.log(LogRecord(1.0, "info", "host", "hello", {"a": "b"}))
    page = await client.logs(-1, 0)
    assert [record.message for record in page.records] == ["hello"]


async def test_a_relative_path_of_a_bundle_is_refused(make_client: MakeClient, make_host: MakeHost) -> None:
    client = await make_client()
    with pytest.raises(CallError, match="is relative, expected an absolute one"):
        await client.push(Push(b"", (), {}, ("counter.tea",)))


def test_the_operators_structs_survive_the_wire() -> None:
    push = Push(b"m", (b"c",), {"A": "b"}, ("/x",))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(push), type=Push) == push
