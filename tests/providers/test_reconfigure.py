"""Providers that go on under another configuration: what changes at once, what stays, what is refused.

Rule: docs/architecture.md, "Changing a provider in place".
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from tea.protocol.channels import Channel, Head
from tea.protocol.errors import CallError, Code
from tea.providers.base import Call, Config, Provider
from tea.providers.clock import Clock
from tea.providers.crypto import Crypto
from tea.providers.env import Env
from tea.providers.intercom import Intercom
from tea.providers.kvp import Kvp
from tea.providers.layer1 import Layer1
from tea.providers.layer1.history import History
from tea.providers.log import Log
from tea.providers.log.bucket import Bucket
from tea.providers.nitro import Nitro
from tea.providers.secrets import Secrets
from tea.providers.testing import InMemoryServices, VirtualClock, invoke, start_provider
from tea.providers.vmh import Vmh
from tea.trust.statetree import StateTree

OLD = Call(caller="a", replica=0, bundle=bytes(32), kvp_bytes=1 << 20)
NEW = Call(caller="a", replica=1, bundle=bytes(32), kvp_bytes=1 << 20)


async def started(cls: Any, config: Mapping[str, object]) -> tuple[Any, InMemoryServices]:
    """A provider, and replica 1 of actor `a` that belongs to a revision which does not serve yet."""
    services = InMemoryServices(cls.name, actors=("a", "b"), clock=VirtualClock())
    services.starting.add(("a", 1))
    return await start_provider(cls, services, config), services


def typed(provider: Provider[Any], config: Mapping[str, object]) -> Any:
    return msgspec.convert(dict(config), provider.config_type)


def switch(provider: Provider[Any], services: InMemoryServices, config: Mapping[str, object]) -> None:
    """As the host does: required, prepared, then all at once."""
    new = typed(provider, config)
    provider.require_in_place(new)
    provider.prepare(new)
    services.starting.clear()
    provider.reconfigure(new)


async def refused(code: Code, provider: Any, *args: Any, call: Call = OLD, **kwargs: Any) -> None:
    with pytest.raises(CallError) as caught:
        await invoke(provider, *args, call=call, **kwargs)
    assert caught.value.code is code


class Plain(Provider[Config]):
    """One that says nothing of changes."""

    class PlainConfig(Config, frozen=True):
        size: int = 1
        colour: str = "red"

    name = "plain"
    config_type = PlainConfig


async def test_a_provider_that_says_nothing_takes_no_change_and_names_the_keys() -> None:
    plain = Plain(Plain.PlainConfig())
    plain.require_in_place(Plain.PlainConfig(size=1))
    with pytest.raises(ValueError, match=r"^size, colour cannot change while it runs \(no key can\): a new boot"):
        plain.require_in_place(Plain.PlainConfig(size=2, colour="blue"))
    assert plain.config == Plain.PlainConfig()


@pytest.mark.parametrize("cls", [Clock, Crypto, Env, Intercom, Kvp, Layer1, Log, Nitro, Secrets, Vmh])
def test_keys_that_may_change_are_keys_that_there_are(cls: type[Provider[Any]]) -> None:
    assert cls.in_place <= set(cls.config_type.__struct_fields__)


async def test_kvp_serves_a_new_shared_namespace_to_the_next_revision_first_and_to_all_with_the_switch() -> None:
    board = {"read": ["a"], "write": ["a"], "bytes": 10_000}
    kvp, services = await started(Kvp, {"shared": {"board": board}})
    await invoke(kvp, "set", "k", b"v", namespace="board", call=OLD)
    new = {"shared": {"board": {**board, "bytes": 700}, "wall": board}}
    kvp.prepare(typed(kvp, new))
    await invoke(kvp, "set", "k", b"w", namespace="wall", call=NEW)
    await refused(Code.DENIED, kvp, "get", "k", namespace="wall")
    await invoke(kvp, "set", "l", b"x" * 1000, namespace="board", call=OLD)  # its quota is the running one's
    services.starting.clear()
    kvp.reconfigure(typed(kvp, new))
    assert await invoke(kvp, "get", "k", namespace="wall", call=OLD) == b"w"
    assert (await invoke(kvp, "memory", namespace="board", call=OLD)).quota == 700
    await refused(Code.EXHAUSTED, kvp, "set", "m", b"y", namespace="board")


async def test_kvp_drops_what_a_revision_made_that_does_not_come_and_what_a_namespace_held_that_goes() -> None:
    board = {"read": ["a"], "write": ["a"]}
    kvp, services = await started(Kvp, {"shared": {"board": board}})
    await invoke(kvp, "set", "k", b"v", namespace="board", call=OLD)
    kvp.prepare(typed(kvp, {"shared": {"wall": board}}))
    await invoke(kvp, "set", "k", b"w", namespace="wall", call=NEW)
    kvp.abandon()
    await refused(Code.DENIED, kvp, "get", "k", namespace="wall", call=NEW)
    assert kvp.usage()["namespaces"] == 1
    assert await invoke(kvp, "get", "k", namespace="board", call=OLD) == b"v"
    switch(kvp, services, {})
    assert kvp.usage()["bytes"] == 0
    switch(kvp, services, {"shared": {"board": board}})
    assert await invoke(kvp, "get", "k", namespace="board", call=OLD) is None


async def test_crypto_takes_another_bound_of_handles_and_drops_no_key() -> None:
    crypto, services = await started(Crypto, {"max_handles": 2})
    handles = [await invoke(crypto, "generate", "ed25519", call=OLD) for _ in range(2)]
    await refused(Code.EXHAUSTED, crypto, "generate", "ed25519")
    switch(crypto, services, {"max_handles": 3})
    handles.append(await invoke(crypto, "generate", "ed25519", call=OLD))
    switch(crypto, services, {"max_handles": 1})
    await refused(Code.EXHAUSTED, crypto, "generate", "ed25519")
    for handle in handles:
        assert len(await invoke(crypto, "public_key", handle, call=OLD)) == 32


async def test_log_changes_level_and_rate_without_a_fresh_burst() -> None:
    log, services = await started(Log, {"level": "warning", "rate": 1.0, "burst": 2})
    assert not await invoke(log, "info", "quiet", call=OLD)
    log.prepare(typed(log, {"level": "info", "rate": 1.0, "burst": 2}))
    assert await invoke(log, "info", "said", call=NEW)
    assert not await invoke(log, "info", "quiet", call=OLD)
    assert await invoke(log, "error", "said", call=OLD)
    switch(log, services, {"level": "info", "rate": 1000.0, "burst": 500})
    assert not await invoke(log, "info", "no token is given by a change", call=OLD)
    services.clock.elapsed += 0.0101
    assert [await invoke(log, "info", "said", call=OLD) for _ in range(11)].count(True) == 10
    await log.stop()


def test_a_bucket_that_is_retuned_keeps_no_more_than_its_new_burst() -> None:
    bucket = Bucket(1.0, 100, 0.0)
    bucket.retune(1.0, 3)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]


async def test_clock_changes_its_bounds_and_keeps_the_timers_that_run() -> None:
    clock, services = await started(Clock, {"timers": 2, "min_interval": 1.0})
    for token in ("one", "two"):
        await invoke(clock, "every", 5.0, "tick", token, call=OLD)
    await refused(Code.EXHAUSTED, clock, "after", 1.0, "tick", "three")
    clock.prepare(typed(clock, {"timers": 9, "min_interval": 0.1}))
    await refused(Code.INVALID, clock, "every", 0.5, "tick", "three")
    await invoke(clock, "every", 0.5, "tick", "three", call=NEW)
    switch(clock, services, {"timers": 1, "min_interval": 0.1})
    assert clock.usage()["timers"] == 3
    await refused(Code.EXHAUSTED, clock, "after", 1.0, "tick", "four")
    await clock.stop()


async def test_nitro_changes_who_makes_contributions_to_rounds_and_never_the_way_to_kms() -> None:
    nitro, services = await started(Nitro, {"ra_actors": ["b"]})
    await refused(Code.DENIED, nitro, "attest", b"", None, "ra")
    nitro.prepare(typed(nitro, {"ra_actors": ["a"]}))
    assert (await invoke(nitro, "attest", b"", None, "ra", call=NEW)).document
    await refused(Code.DENIED, nitro, "attest", b"", None, "ra")
    switch(nitro, services, {"ra_actors": ["a"]})
    assert (await invoke(nitro, "attest", b"", None, "ra", call=OLD)).document
    with pytest.raises(ValueError, match="kms cannot change"):
        nitro.require_in_place(typed(nitro, {"kms": {"region": "eu-west-1", "key_id": "arn"}}))


async def test_secrets_asks_the_service_of_the_callers_revision() -> None:
    key = "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
    secrets, services = await started(Secrets, {})
    secrets.prepare(typed(secrets, {"service": key}))
    with pytest.raises(CallError, match="names no release service"):
        await invoke(secrets, "get", "s", call=OLD)
    with pytest.raises(CallError, match="the parent does not answer"):
        await invoke(secrets, "get", "s", call=NEW)
    switch(secrets, services, {"service": key, "max_held": 1})
    with pytest.raises(CallError, match="the parent does not answer"):
        await invoke(secrets, "get", "s", call=OLD)


async def test_vmh_changes_its_bounds_in_and_out() -> None:
    vmh, services = await started(Vmh, {"max_body": 10})
    services.members, services.own_slot = {"e1": {}, "e2": {}}, "e1"
    await refused(Code.INVALID, vmh, "tell", "e2", "t", b"x" * 11)
    await invoke(vmh, "subscribe", "t", "heard", call=OLD)
    switch(vmh, services, {"max_body": 20, "subscriptions": 1})
    await invoke(vmh, "tell", "e2", "t", b"x" * 11, call=OLD)
    await services.parent.send(Channel.PEERS, "deliver", "e2", "a", "t", b"x" * 20)
    assert len(services.tells) == 1
    with pytest.raises(CallError):
        await services.parent.send(Channel.PEERS, "deliver", "e2", "a", "t", b"x" * 21)
    await refused(Code.EXHAUSTED, vmh, "subscribe", "u", "heard")


async def test_layer1_refuses_another_start_and_bounds_below_what_is_here() -> None:
    layer1, _ = await started(Layer1, {"start": 3, "max_key": 64, "max_value": 64})
    tree = StateTree().apply({b"a": b"1", b"b": b"2"})
    layer1._history.extend(Head(3, b"h" * 32, b"p" * 32, b"s" * 32, 0), tree)
    for change, why in (
        ({"start": 4}, "start cannot change"),
        ({"start": 3, "max_entries": 1}, "less than the 2 entries"),
        ({"start": 3, "max_key": 63}, "max_key cannot become less"),
        ({"start": 3, "max_key": 64, "max_value": 63}, "max_value cannot become less"),
    ):
        with pytest.raises(ValueError, match=why):
            layer1.require_in_place(typed(layer1, {"max_key": 64, "max_value": 64, **change}))
    layer1.require_in_place(typed(layer1, {"start": 3, "max_entries": 2, "keep": 1}))
    await layer1.services.close()


def test_a_history_that_keeps_fewer_heights_drops_the_oldest_and_their_evidence() -> None:
    history = History(0, 10, 1 << 20)
    for height in range(6):
        head = Head(height, bytes([height]) * 32, bytes([max(height - 1, 0)]) * 32, b"s" * 32, 0)
        history.extend(head, StateTree())
    history.quarantine(0)
    history.rebound(2, 1 << 20)
    assert (history.oldest, history.next_height, len(history)) == (4, 6, 4)
    assert history.attested(3) is None
    assert history.attested(4) is not None
    history.rebound(10, 1 << 20)
    history.extend(Head(6, b"\x06" * 32, b"\x05" * 32, b"s" * 32, 0), StateTree())
    assert history.oldest == 4


async def test_layer1_follows_at_the_new_pace_at_once() -> None:
    layer1, services = await started(Layer1, {"poll": 600.0})
    asked = 0

    class Adapter:
        async def head(self) -> Head:
            nonlocal asked
            asked += 1
            raise CallError(Code.UNAVAILABLE, "no chain")

    services.parent.stand_in(Channel.ADAPTER, Adapter())
    switch(layer1, services, {"poll": 0.01})
    async with asyncio.timeout(10):
        while asked < 2:
            await asyncio.sleep(0.01)
    await layer1.services.close()
