"""Pushing: content-addressed chunks, sent once; what breaks off goes on; what was changed is refused."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tea.parent_client import pushing
from tea.parent_client.client import RuntimeClient
from tea.parent_client.operator import Push
from tea.parent_client.pushing import CHUNK, read_bundle, read_bundles
from tea.protocol.channels import Activation, Attestation
from tea.protocol.errors import CallError, Code

MakeClient = Callable[..., Awaitable[RuntimeClient]]
MakeHost = Callable[..., Awaitable[Any]]
Until = Callable[..., Awaitable[None]]


@pytest.fixture
async def pair(make_client: MakeClient, make_host: MakeHost, until: Until) -> tuple[RuntimeClient, Any]:
    client = await make_client()
    host = await make_host(client)
    await until(lambda: client._enclave is not None)
    return client, host


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


async def send(client: RuntimeClient, *paths: Path, manifest: bytes = b"m") -> Activation:
    return await client.push(Push(manifest, (), {"A": "b"}, tuple(map(str, paths))))


async def test_bundles_arrive_whole_and_are_not_sent_again(pair: tuple[RuntimeClient, Any], tmp_path: Path) -> None:
    client, host = pair
    one, other = tmp_path / "one.tea", tmp_path / "other.tea"
    one.write_bytes(noise(3 * CHUNK + 17, 1))
    other.write_bytes(noise(100, 2))
    assert (await send(client, one, other)).started == ("2",)
    assert sorted(host.store._bundles.values(), key=len) == [other.read_bytes(), one.read_bytes()]
    assert sum(host.chunks) == 3 * CHUNK + 117
    assert (await client.status()).pushed_bytes == 3 * CHUNK + 117
    host.chunks.clear()
    await send(client, one, other)
    assert host.chunks == []
    assert (await client.status()).pushed_bytes == 0


async def test_chunks_that_bundles_share_are_sent_once(pair: tuple[RuntimeClient, Any], tmp_path: Path) -> None:
    client, host = pair
    shared = noise(2 * CHUNK)
    one, other = tmp_path / "one.tea", tmp_path / "other.tea"
    one.write_bytes(shared + b"one")
    other.write_bytes(shared + b"other")
    await send(client, one, other, one)
    assert sorted(host.chunks) == [3, 5, CHUNK, CHUNK]
    assert len(host.offers[0].bundles) == 2


async def test_a_push_without_bundles_is_a_push(pair: tuple[RuntimeClient, Any]) -> None:
    client, host = pair
    assert (await send(client)).started == ("0",)
    assert host.offers[0].environment == {"A": "b"}


async def test_a_large_bundle_of_32_mib_arrives(pair: tuple[RuntimeClient, Any], tmp_path: Path) -> None:
    client, host = pair
    path = tmp_path / "large.tea"
    path.write_bytes(noise(32 << 20))
    await send(client, path)
    assert list(host.store._bundles.values()) == [path.read_bytes()]


async def test_a_push_that_broke_off_goes_on_where_it_was(pair: tuple[RuntimeClient, Any], tmp_path: Path) -> None:
    client, host = pair
    path = tmp_path / "one.tea"
    path.write_bytes(noise(24 * CHUNK))

    def refuse(number: int) -> None:
        if number == 10:
            raise CallError(Code.EXHAUSTED, "no room just now")

    host.refuse_chunk = refuse
    with pytest.raises(CallError, match="no room just now") as refused:
        await send(client, path)
    assert refused.value.code is Code.EXHAUSTED
    had = len(host.chunks)
    assert had >= 10
    host.refuse_chunk = lambda number: None
    host.chunks.clear()
    await send(client, path)
    assert len(host.chunks) + had >= 24
    assert len(host.chunks) <= 14
    assert list(host.store._bundles.values()) == [path.read_bytes()]


async def test_a_push_whose_operator_went_away_frees_the_way_for_the_next(
    make_client: MakeClient, make_host: MakeHost, until: Until
) -> None:
    stuck = asyncio.Event()

    async def activate() -> Activation:
        if stuck.is_set():
            return Activation(bytes(48), 7, (), (), Attestation(b"", b""))
        stuck.set()
        await asyncio.Event().wait()
        raise AssertionError

    client = await make_client()
    await make_host(client, activate=activate)
    await until(lambda: client._enclave is not None)
    first = asyncio.ensure_future(send(client))
    await stuck.wait()
    with pytest.raises(CallError, match="another push to this enclave is under way") as refused:
        await send(client)
    assert refused.value.code is Code.CONFLICT
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert (await send(client)).revision == 7


async def test_a_chunk_that_was_changed_on_the_way_is_refused(
    pair: tuple[RuntimeClient, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, host = pair
    path = tmp_path / "one.tea"
    path.write_bytes(noise(2 * CHUNK))
    call = client._enclave.call  # type: ignore[union-attr]

    async def altering(channel: int, interface: type, name: str, *args: Any, **more: Any) -> Any:
        if name == "chunk":
            args = (bytes([args[0][0] ^ 1]) + bytes(args[0][1:]),)
        return await call(channel, interface, name, *args, **more)

    monkeypatch.setattr(client._enclave, "call", altering)
    with pytest.raises(CallError, match="was not asked for: its bytes were changed on the way"):
        await send(client, path)
    assert host.chunks == []
    monkeypatch.undo()
    await send(client, path)
    assert list(host.store._bundles.values()) == [path.read_bytes()]


async def test_an_enclave_that_asks_for_what_is_not_ours_or_for_the_same_again_gets_each_once(
    pair: tuple[RuntimeClient, Any], tmp_path: Path
) -> None:
    client, host = pair
    path = tmp_path / "one.tea"
    path.write_bytes(noise(2 * CHUNK))
    offer = host.store.offer
    host.store.offer = lambda settings: offer(settings) * 1000 + (os.urandom(32), b"", b"x" * 100)
    await send(client, path)
    assert host.chunks == [CHUNK, CHUNK]


async def test_the_enclaves_refusal_comes_back_as_it_was(pair: tuple[RuntimeClient, Any]) -> None:
    client, _ = pair
    with pytest.raises(CallError, match="a manifest has at most") as refused:
        await send(client, manifest=bytes(600 << 10))
    assert refused.value.code is Code.INVALID


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nowhere.tea", "cannot be read: No such file"),
        ("folder", "cannot be read: Is a directory"),
        ("empty.tea", "is empty"),
    ],
)
def test_a_bundle_that_cannot_be_read_is_named(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.tea").touch()
    with pytest.raises(CallError, match=why) as refused:
        read_bundle(tmp_path / name)
    assert name in refused.value.sentence


def test_a_pipe_is_no_bundle_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CallError, match="or no file"):
        read_bundle(tmp_path / "pipe")


def test_bundles_over_the_bounds_are_refused_before_they_are_all_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.tea"
    path.write_bytes(bytes(1001))
    with pytest.raises(CallError, match="has over 1000 bytes"):
        read_bundle(path, 1000)
    monkeypatch.setattr(pushing, "MAX_TOTAL", 1500)
    other = tmp_path / "other.tea"
    other.write_bytes(bytes(1000))
    with pytest.raises(CallError, match=r"other\.tea has over 499 bytes"):
        read_bundles([path, path, other])


def test_a_path_with_a_null_is_refused() -> None:
    with pytest.raises(CallError, match="cannot be read"):
        read_bundle(Path("/tmp/a\0b"))


def test_the_chunks_of_a_bundle_add_up_to_it(tmp_path: Path) -> None:
    path = tmp_path / "one.tea"
    path.write_bytes(noise(2 * CHUNK + 1))
    cut = read_bundle(path)
    assert b"".join(bytes(cut.chunks[digest]) for digest in cut.offer.chunks) == path.read_bytes()
