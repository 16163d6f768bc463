"""The hub: what one enclave sends reaches another through two parents; the dead, the slow and the unknown."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tea.parent_client import hub
from tea.parent_client.client import RuntimeClient
from tea.parent_client.hub import MAX_REQUEST_SECONDS, MIN_REQUEST_SECONDS, Hub, _bounded
from tea.protocol.channels import Channel, Peers
from tea.protocol.errors import CallError, Code
from tea.protocol.transport.address import Address

MakeClient = Callable[..., Awaitable[RuntimeClient]]
MakeHost = Callable[..., Awaitable[Any]]
Until = Callable[..., Awaitable[None]]


async def two(make_client: MakeClient, make_host: MakeHost, until: Until) -> tuple[Any, Any, RuntimeClient]:
    """Two enclaves whose clients know each other, connected; the first one's client."""
    first, second = await make_client("e1", "e2"), await make_client("e2", "e1")
    hosts = [await make_host(client) for client in (first, second)]
    await until(lambda: all(client._enclave is not None for client in (first, second)))
    await until(lambda: all(client._hub.status()[0].connected for client in (first, second)))
    return *hosts, first


async def request(host: Any, to: str, topic: str = "ask", timeout: float = 5.0) -> bytes:
    answer: bytes = await host.connected.call(Channel.PEERS, Peers, "request", to, "ra", topic, b"hello", timeout)
    return answer


async def test_a_message_and_a_request_cross_two_parents(
    make_client: MakeClient, make_host: MakeHost, until: Until
) -> None:
    one, other, client = await two(make_client, make_host, until)
    assert one.connected.tell(Channel.PEERS, Peers, "send", "e2", "ra", "round", b"news")
    await asyncio.wait_for(other.news.wait(), 5)
    assert other.delivered == [("e1", "ra", "round", b"news")]
    assert await request(one, "e2") == b"hello to e1"
    assert await request(other, "e1") == b"hello to e2"
    status = client._hub.status()[0]
    assert (status.name, status.connected, status.sent, status.lost) == ("e2", True, 2, 0)


async def test_messages_arrive_in_the_order_in_which_they_were_sent(
    make_client: MakeClient, make_host: MakeHost, until: Until
) -> None:
    one, other, _ = await two(make_client, make_host, until)
    for number in range(200):
        assert one.connected.tell(Channel.PEERS, Peers, "send", "e2", "ra", "round", str(number).encode())
    await until(lambda: len(other.delivered) == 200)
    assert [int(body) for *_, body in other.delivered] == list(range(200))


async def test_a_refusal_of_the_other_enclave_comes_back_as_it_was(
    make_client: MakeClient, make_host: MakeHost, until: Until
) -> None:
    one, _, _ = await two(make_client, make_host, until)
    with pytest.raises(CallError, match="not for you") as refused:
        await request(one, "e2", "refuse")
    assert refused.value.code is Code.DENIED


async def test_an_unknown_peer_is_named_with_those_that_are_known(
    make_client: MakeClient, make_host: MakeHost, until: Until
) -> None:
    one, _, client = await two(make_client, make_host, until)
    with pytest.raises(CallError, match="no peer 'e9': this client knows e2") as refused:
        await request(one, "e9")
    assert refused.value.code is Code.NOT_FOUND
    await client._hub.send("e9", "ra", "round", b"")
    assert (await client.status()).unknown_peer == 2


async def test_messages_to_a_dead_peer_are_counted_and_requests_say_that_it_is_dead(
    make_client: MakeClient, make_host: MakeHost, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "REACH_SECONDS", 0.05)
    client = await make_client("e1", "e2")
    host = await make_host(client)
    await until(lambda: client._enclave is not None)
    with pytest.raises(CallError, match="runtime client of e2 does not answer") as refused:
        await request(host, "e2")
    assert refused.value.code is Code.UNAVAILABLE
    assert host.connected.tell(Channel.PEERS, Peers, "send", "e2", "ra", "round", b"")
    await until(lambda: client._hub.status()[0].lost == 2)
    assert client._hub.status()[0].sent == 0


async def test_a_dead_peer_holds_up_nobody_else(make_client: MakeClient, make_host: MakeHost, until: Until) -> None:
    first, second = await make_client("e1", "e2", "dead"), await make_client("e2", "e1")
    one, other = await make_host(first), await make_host(second)
    await until(lambda: first._hub.status()[0].connected and second._enclave is not None)
    waiting = [asyncio.ensure_future(request(one, "dead", timeout=30)) for _ in range(300)]
    for number in range(50):
        one.connected.tell(Channel.PEERS, Peers, "send", "dead", "ra", "round", b"x" * 1000)
        one.connected.tell(Channel.PEERS, Peers, "send", "e2", "ra", "round", str(number).encode())
    assert await asyncio.wait_for(request(one, "e2"), 5) == b"hello to e1"
    await until(lambda: len(other.delivered) == 50)
    for result in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(result, CallError)
        assert result.code is Code.UNAVAILABLE


async def test_a_peer_that_comes_back_is_reached_again(
    make_client: MakeClient, make_host: MakeHost, until: Until
) -> None:
    first, second = await make_client("e1", "e2"), await make_client("e2", "e1")
    one = await make_host(first)
    await make_host(second)
    await until(lambda: first._hub.status()[0].connected and second._enclave is not None)
    assert await request(one, "e2") == b"hello to e1"
    await second.close()
    await until(lambda: not first._hub.status()[0].connected)
    again = await make_client("e2", "e1")
    await make_host(again)
    await until(lambda: first._hub.status()[0].connected and again._enclave is not None)
    assert await request(one, "e2") == b"hello to e1"


async def test_a_client_without_an_enclave_says_so_and_counts_what_it_could_not_deliver(
    make_client: MakeClient, make_host: MakeHost, until: Until
) -> None:
    first, second = await make_client("e1", "e2"), await make_client("e2")
    one = await make_host(first)
    await until(lambda: first._hub.status()[0].connected)
    with pytest.raises(CallError, match="the enclave of e2 is not connected") as refused:
        await request(one, "e2")
    assert refused.value.code is Code.UNAVAILABLE
    one.connected.tell(Channel.PEERS, Peers, "send", "e2", "ra", "round", b"")
    await until(lambda: second._hub.undelivered == 1)
    assert (await second.status()).undelivered == 1


async def test_a_peers_own_name_is_no_peer(until: Until) -> None:
    made = Hub("e1", {"e1": Address.parse("unix:/nowhere")})
    assert made.status() == ()
    await made.close()


async def test_a_request_before_the_hub_began_to_dial_is_unavailable() -> None:
    made = Hub("e1", {"e2": Address.parse("unix:/nowhere")})
    with pytest.raises(CallError, match="does not answer"):
        await made.request("e2", "ra", "ask", b"", 1.0)
    await made.send("e2", "ra", "ask", b"")
    assert made.status()[0].lost == 2


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_whatever_timeout_a_stranger_gives_it_is_bounded(seconds: float) -> None:
    assert MIN_REQUEST_SECONDS <= _bounded(seconds) <= MAX_REQUEST_SECONDS
    assert math.isfinite(_bounded(seconds))
