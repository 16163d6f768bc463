"""The in-memory services are as strict as the wire: what the host would refuse fails here too.

Rule: `providers/base.py`, which they implement.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar

import msgspec
import pytest

from tea.protocol.channels import Channel, Logs, Peers, PeersInbox
from tea.protocol.errors import CallError, Code
from tea.protocol.operations import operation
from tea.providers.base import Call, Config, Provider
from tea.providers.testing import EPOCH, InMemoryServices, SimulatedAttester, VirtualClock, invoke, start_provider


class EchoConfig(Config, frozen=True):
    loud: bool = False


class Echo(Provider[EchoConfig]):
    """A provider for these tests."""

    name: ClassVar[str] = "echo"
    config_type: ClassVar[type[Config]] = EchoConfig

    @operation
    async def say(self, call: Call, text: str) -> str:
        """Say it."""
        return text.upper() if self.config.loud else f"{call.caller}: {text}"


async def test_arguments_and_results_go_through_their_wire_form() -> None:
    echo = await start_provider(Echo, InMemoryServices("echo"))
    assert await invoke(echo, "say", "hello") == "counter: hello"
    assert await invoke(echo, "say", text="hello", call=Call(caller="ra")) == "ra: hello"
    with pytest.raises(CallError) as caught:
        await invoke(echo, "say", 7)
    assert caught.value.code is Code.INVALID
    with pytest.raises(CallError) as missing:
        await invoke(echo, "shout", "x")
    assert missing.value.code is Code.NOT_FOUND


async def test_a_config_is_converted_as_the_host_does() -> None:
    echo = await start_provider(Echo, InMemoryServices("echo"), {"loud": True})
    assert await invoke(echo, "say", "x") == "X"
    with pytest.raises(msgspec.ValidationError):
        await start_provider(Echo, InMemoryServices("echo"), {"loud": "very"})


async def test_tells_are_recorded_as_the_actor_would_see_them() -> None:
    services = InMemoryServices(actors=["a"])
    assert services.tell_actor("a", "heard", (1, 2), b"x", replica=1)
    assert services.tells == [("a", "heard", ([1, 2], b"x"), 1)]
    assert not services.tell_actor("b", "heard")
    services.full.add("a")
    assert not services.tell_actor("a", "heard")
    with pytest.raises(TypeError):
        services.tell_actor("a", "heard", object())


async def test_actors_are_called_through_handlers() -> None:
    services = InMemoryServices()
    services.handlers["a", "add"] = lambda one, other: one + other
    assert msgspec.msgpack.decode(await services.call_actor("a", "add", 1, 2)) == 3
    services.handlers["a", "wait"] = lambda: asyncio.Future()
    with pytest.raises(TimeoutError):
        await services.call_actor("a", "wait", timeout=0.01)
    with pytest.raises(CallError):
        await services.call_actor("a", "missing")


async def test_time_moves_only_when_it_is_told_to_and_timers_obey() -> None:
    clock = VirtualClock()
    clock.install()
    fired: list[str] = []
    asyncio.get_running_loop().call_later(60, fired.append, "tea")
    await clock.advance(59)
    assert fired == []
    await clock.advance(1.1)
    assert fired == ["tea"]
    assert clock.now() == pytest.approx(EPOCH + 60.1)
    clock.jump -= 100
    assert (clock.now(), clock.monotonic()) == pytest.approx((EPOCH - 39.9, 60.1))


async def test_the_parent_is_checked_in_both_directions() -> None:
    parent = InMemoryServices().parent
    parent.tell(Channel.PEERS, "send", "e2", "ra", "t", b"x")
    with pytest.raises(CallError):
        parent.tell(Channel.PEERS, "send", "e2", "ra", "t", "no bytes")
    with pytest.raises(CallError):
        parent.tell(Channel.PEERS, "shout")
    with pytest.raises(TypeError):
        parent.serve(Channel.PEERS, Peers, Peers())
    with pytest.raises(CallError):
        await parent.send(Channel.PEERS, "deliver", "e2", "ra", "t", b"x")
    parent.serve(Channel.PEERS, PeersInbox, PeersInbox())
    with pytest.raises(NotImplementedError):
        await parent.send(Channel.PEERS, "deliver", "e2", "ra", "t", b"x")
    with pytest.raises(CallError) as caught:
        await parent.call(Channel.LOGS, "record", ())
    assert caught.value.code is Code.UNAVAILABLE
    parent.stand_in(Channel.LOGS, Logs())
    with pytest.raises(NotImplementedError):
        await parent.call(Channel.LOGS, "record", ())
    parent.cut = True
    parent.tell(Channel.PEERS, "send", "e2", "ra", "t", b"x")
    assert len(parent.tells) == 1


async def test_a_failed_task_is_kept_and_the_rest_is_cancelled() -> None:
    services = InMemoryServices()

    async def fail() -> None:
        raise ValueError("a defect")

    async def for_ever() -> None:
        await asyncio.Future()

    services.spawn(fail())
    services.spawn(for_ever())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await services.close()
    assert [str(error) for error in services.failures] == ["a defect"]


def test_what_is_not_there_is_a_lookup_error() -> None:
    services = InMemoryServices(actors=["a"])
    for look in (lambda: services.provider("kvp"), lambda: services.policy_for("e1"), lambda: services.digest_of("b")):
        with pytest.raises(LookupError):
            look()
    assert len(services.digest_of("a")) == 32
    assert services.actors() == ["a"]
    assert services.environment_of("a") == {}


async def test_attesters_of_one_network_share_its_ca() -> None:
    clock = VirtualClock()
    first = SimulatedAttester(clock.now)
    second = SimulatedAttester(clock.now, instance_id="i-2", ca=first.ca)
    services = InMemoryServices(clock=clock)
    services.attester = second
    assert services.attester.module_id.startswith("i-2-enc")
    document, _ = await services.attester.attest("attest", b"", nonce=b"n")
    assert first.ca.root in document
    assert services.attester.pcrs()[0] == first.pcrs()[0]
    assert services.attester.pcrs()[4] != first.pcrs()[4]
