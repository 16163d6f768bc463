"""What kvp and crypto export, a fresh one imports: another enclave goes on as if nothing had happened.

May not: look into the providers; what actors see is what counts. Rule: docs/continuity.md, "What is handed over".
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tea.protocol.errors import CallError, Code
from tea.providers.base import Call, Config, Provider
from tea.providers.crypto import Crypto
from tea.providers.crypto.algorithms import ALGORITHMS, SLOW
from tea.providers.kvp import Kvp
from tea.providers.testing import InMemoryServices, VirtualClock, invoke, start_provider

COUNTER = Call(caller="counter", kvp_bytes=1 << 20)
OTHER = Call(caller="other", kvp_bytes=1 << 20)
SHARED = {"shared": {"board": {"read": ["counter"], "write": ["counter"], "bytes": 65536}}}


async def kvp_with(clock: VirtualClock, config: dict[str, object] | None = None) -> Kvp:
    return await start_provider(Kvp, InMemoryServices("kvp", clock=clock), SHARED if config is None else config)


async def crypto(config: dict[str, object] | None = None) -> Crypto:
    return await start_provider(Crypto, InMemoryServices("crypto"), config)


async def moved(provider: Provider[Any], fresh: Provider[Any]) -> None:
    state = await provider.export_state()
    assert state is not None
    await fresh.import_state(state)


# -- kvp


async def test_every_kind_of_entry_and_every_namespace_goes_over() -> None:
    old = await kvp_with(clock := VirtualClock())
    await invoke(old, "set", "value", b"v", call=COUNTER)
    await invoke(old, "set", "value", b"of another", call=OTHER)
    await invoke(old, "set", "posted", b"p", namespace="board", call=COUNTER)
    for item in (b"1", b"2", b"1"):
        await invoke(old, "list_push", "list", item, call=COUNTER)
        await invoke(old, "set_add", "set", item, call=COUNTER)
    for index in (-5, 7, 0):
        await invoke(old, "vec_insert", "vector", index, b"at %d" % index, call=COUNTER)
    token = await invoke(old, "lock", "lock", 60.0, call=COUNTER)
    before = await invoke(old, "memory", call=COUNTER)
    new = await kvp_with(clock)
    await moved(old, new)
    assert await invoke(new, "get", "value", call=COUNTER) == b"v"
    assert await invoke(new, "get", "value", call=OTHER) == b"of another"
    assert await invoke(new, "get", "posted", namespace="board", call=COUNTER) == b"p"
    assert await invoke(new, "list_range", "list", call=COUNTER) == [b"1", b"2", b"1"]
    assert (await invoke(new, "set_members", "set", call=COUNTER)).members == (b"1", b"2")
    assert await invoke(new, "vec_range", "vector", call=COUNTER) == [(-5, b"at -5"), (0, b"at 0"), (7, b"at 7")]
    assert await invoke(new, "lock", "lock", 60.0, call=COUNTER) is None
    assert await invoke(new, "unlock", "lock", token, call=COUNTER)
    after = await invoke(new, "memory", call=COUNTER)
    assert (after.entries, before.locks) == (before.entries, 1)
    assert await invoke(new, "incr", "counter", call=COUNTER) == 1


async def test_memory_is_charged_as_it_was() -> None:
    old = await kvp_with(clock := VirtualClock())
    for number in range(50):
        await invoke(old, "set", f"key {number}", bytes(number), ttl=None if number % 2 else 30.0, call=COUNTER)
        await invoke(old, "set_add", "set", b"%d" % number, call=COUNTER)
    new = await kvp_with(clock)
    await moved(old, new)
    assert await invoke(new, "memory", call=COUNTER) == await invoke(old, "memory", call=COUNTER)


async def test_a_time_to_live_goes_on_and_what_expired_stays_behind() -> None:
    old = await kvp_with(clock := VirtualClock())
    await invoke(old, "set", "short", b"s", ttl=5.0, call=COUNTER)
    await invoke(old, "set", "long", b"l", ttl=50.0, call=COUNTER)
    await invoke(old, "lock", "lock", 5.0, call=COUNTER)
    clock.elapsed += 6
    later = VirtualClock()  # another machine: its clock starts anew
    new = await kvp_with(later)
    await moved(old, new)
    assert await invoke(new, "get", "short", call=COUNTER) is None
    assert await invoke(new, "get", "long", call=COUNTER) == b"l"
    assert await invoke(new, "lock", "lock", 5.0, call=COUNTER) is not None
    later.elapsed += 45
    assert await invoke(new, "get", "long", call=COUNTER) is None


async def test_what_is_over_a_lowered_quota_stays_and_cannot_grow() -> None:
    old = await kvp_with(clock := VirtualClock())
    await invoke(old, "set", "large", bytes(10_000), call=COUNTER)
    new = await kvp_with(clock)
    await moved(old, new)
    poor = Call(caller="counter", kvp_bytes=1000)
    assert await invoke(new, "get", "large", call=poor) == bytes(10_000)
    with pytest.raises(CallError) as caught:
        await invoke(new, "set", "more", b"m", call=poor)
    assert caught.value.code is Code.EXHAUSTED


async def test_a_shared_namespace_that_the_manifest_dropped_is_named_and_nothing_changes() -> None:
    old = await kvp_with(clock := VirtualClock())
    new = await kvp_with(clock, {})
    await invoke(new, "set", "mine", b"m", call=COUNTER)
    with pytest.raises(ValueError, match="board"):
        await moved(old, new)
    assert await invoke(new, "get", "mine", call=COUNTER) == b"m"


_ENTRIES = st.lists(
    st.tuples(st.sampled_from(["set", "list_push", "set_add"]), st.text(min_size=1, max_size=4), st.binary(max_size=8)),
    max_size=30,
)


@settings(deadline=None)
@given(_ENTRIES)
async def test_whatever_was_put_in_is_exported_the_same_by_the_next(entries: list[tuple[str, str, bytes]]) -> None:
    old = await kvp_with(clock := VirtualClock())
    for operation, key, value in entries:
        try:
            await invoke(old, operation, key, value, call=COUNTER)
        except CallError as error:
            assert error.code in (Code.CONFLICT, Code.INVALID)
    new = await kvp_with(clock)
    await moved(old, new)
    assert await new.export_state() == await old.export_state()


# -- crypto


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if "3072" not in name])
async def test_a_key_stays_the_same_under_its_handle(algorithm: str) -> None:
    old, new = await crypto(), await crypto()
    handle = await invoke(old, "generate", algorithm, call=COUNTER)
    public = None
    if algorithm not in ("aes-256-gcm", "chacha20-poly1305", "hkdf-hmac"):
        public = await invoke(old, "public_key", handle, call=COUNTER)
    state = await old.export_state()
    await moved(old, new)
    assert await new.export_state() == state
    assert [one.handle for one in await invoke(new, "handles", call=COUNTER)] == [handle]
    if public is not None:
        assert await invoke(new, "public_key", handle, call=COUNTER) == public
    if algorithm in ("aes-256-gcm", "chacha20-poly1305"):
        sealed = await invoke(old, "aead_encrypt", handle, b"text", call=COUNTER)
        assert await invoke(new, "aead_decrypt", handle, sealed, call=COUNTER) == b"text"
    elif algorithm.startswith("rsa-oaep"):
        sealed = await invoke(old, "rsa_oaep_encrypt", public, b"text", call=COUNTER)
        assert await invoke(new, "rsa_oaep_decrypt", handle, sealed, call=COUNTER) == b"text"
    elif algorithm == "hkdf-hmac":
        with pytest.raises(CallError):
            await invoke(new, "sign", handle, b"text", call=COUNTER)
    elif algorithm != "x25519":
        signature = await invoke(new, "sign", handle, b"text", call=COUNTER)
        assert await invoke(old, "verify", algorithm, public, b"text", signature, call=COUNTER)


async def test_a_handle_still_works_for_its_actor_alone() -> None:
    old, new = await crypto(), await crypto()
    handle = await invoke(old, "generate", "ed25519", call=COUNTER)
    await moved(old, new)
    with pytest.raises(CallError) as caught:
        await invoke(new, "public_key", handle, call=OTHER)
    assert caught.value.code is Code.NOT_FOUND


async def test_the_messages_under_an_aead_key_are_counted_on() -> None:
    from tea.providers.crypto.symmetric import MAX_MESSAGES

    old, new = await crypto(), await crypto()
    handle = await invoke(old, "generate", "aes-256-gcm", call=COUNTER)
    await invoke(old, "aead_encrypt", handle, b"text", call=COUNTER)
    await moved(old, new)
    state = msgspec.msgpack.decode(await new.export_state() or b"")
    assert state[1]["counter"][0][3] == MAX_MESSAGES - 1


async def test_more_keys_than_a_new_limit_stay_and_none_is_added() -> None:
    old, new = await crypto(), await crypto({"max_handles": 1})
    for _ in range(2):
        await invoke(old, "generate", "ed25519", call=COUNTER)
    await moved(old, new)
    assert len(await invoke(new, "handles", call=COUNTER)) == 2
    with pytest.raises(CallError) as caught:
        await invoke(new, "generate", "ed25519", call=COUNTER)
    assert caught.value.code is Code.EXHAUSTED


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, "rot13"])
@pytest.mark.parametrize("secret", [b"", b"x", bytes(32), bytes(96)])
async def test_a_secret_that_is_no_key_is_refused_and_nothing_changes(algorithm: str, secret: bytes) -> None:
    new = await crypto()
    kept = await invoke(new, "generate", "ed25519", call=COUNTER)
    state = msgspec.msgpack.encode(["tea.crypto-state.v1", {"counter": [["handle", algorithm, secret, 1]]}])
    try:
        await new.import_state(state)
    except ValueError as error:
        assert "\\x" not in str(error)
        assert (await invoke(new, "handles", call=COUNTER))[0].handle == kept
    else:
        assert algorithm not in (*SLOW, "rot13", "sr25519", "p-256", "p-384", "secp256k1")
        assert len(secret) == 32


async def test_a_handle_that_stands_twice_or_is_none_is_refused() -> None:
    new = await crypto()
    key = ["ed25519", bytes(32), 0]
    for handles in (["h", "h"], [""], ["x" * 65]):
        rings = {"counter": [[handle, *key] for handle in handles]}
        with pytest.raises(ValueError, match="handle"):
            await new.import_state(msgspec.msgpack.encode(["tea.crypto-state.v1", rings]))


# -- both


@pytest.mark.parametrize(
    "data",
    [b"", b"\xc1", msgspec.msgpack.encode([]), msgspec.msgpack.encode(["tea.other.v1", {}, {}])],
)
async def test_what_is_no_exported_state_is_refused(data: bytes) -> None:
    for provider in (await kvp_with(VirtualClock()), await crypto()):
        with pytest.raises(ValueError, match="exported state"):
            await provider.import_state(data)


@pytest.mark.parametrize(
    "entry", [["k", "value", []], ["k", "vector", [b"a"], []], ["k", "tree", [b"a"]], ["", "value", [b"a"]]]
)
async def test_an_entry_that_cannot_be_is_refused(entry: list[object]) -> None:
    state = msgspec.msgpack.encode(["tea.kvp-state.v1", {"counter": [100, [entry], []]}, {}])
    with pytest.raises((ValueError, CallError)):
        await (await kvp_with(VirtualClock())).import_state(state)


async def test_a_provider_without_state_exports_none_and_imports_none() -> None:
    class Plain(Provider[Config]):
        name = "plain"

    plain = Plain(Config())
    assert await plain.export_state() is None
    with pytest.raises(ValueError, match="plain"):
        await plain.import_state(b"")


def test_exported_structs_show_no_secret() -> None:
    from tea.providers.crypto.state import KeyState
    from tea.providers.kvp.state import EntryState, LockState

    for shown in (
        repr(KeyState("h", "ed25519", b"SECRET")),
        repr(EntryState("k", "value", (b"SECRET",))),
        repr(LockState("l", b"SECRET", 1.0)),
    ):
        assert "SECRET" not in shown
