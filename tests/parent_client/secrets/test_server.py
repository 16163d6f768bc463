"""The release service over HTTP, asked through the relay of a runtime client. Rule: docs/secrets.md, "Over HTTP"."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tea.parent_client.refusal import Refusal
from tea.parent_client.release_relay import NoRelease, ReleaseRelay
from tea.parent_client.secrets.server import RELEASE_PATH, ReleaseServer
from tea.protocol.errors import CallError, Code
from tea.trust.release import MAX_REQUEST, parse_challenge


@pytest.fixture
async def server(setting: Any, tmp_path: Path) -> AsyncIterator[ReleaseServer]:
    made = ReleaseServer(setting.service)
    await made.start(port=0, socket=tmp_path / "r.sock")
    yield made
    await made.close()


@pytest.mark.parametrize("kind", ["http", "unix"])
async def test_a_request_goes_through_the_relay_and_back(
    setting: Any, server: ReleaseServer, tmp_path: Path, kind: str
) -> None:
    setting.put()
    relay = ReleaseRelay(f"http://127.0.0.1:{server.port}" if kind == "http" else f"unix:{tmp_path / 'r.sock'}")
    nonce = parse_challenge(await relay.challenge()).nonce
    assert await relay.release(await setting.request(nonce=nonce))
    assert (tmp_path / "r.sock").stat().st_mode & 0o077 == 0


async def test_a_refusal_crosses_with_its_code_and_sentence(setting: Any, server: ReleaseServer) -> None:
    setting.put()
    relay = ReleaseRelay(f"http://127.0.0.1:{server.port}")
    with pytest.raises(CallError) as caught:
        await relay.release(await setting.request("other"))
    assert caught.value.code is Code.UNTRUSTED
    assert caught.value.details["reason"] == "release:unknown-secret"
    with pytest.raises(CallError) as caught:
        await relay.release(b"nonsense")
    assert caught.value.code is Code.INVALID


async def test_the_owners_trouble_is_not_told_to_strangers(
    setting: Any, server: ReleaseServer, capfd: pytest.CaptureFixture[str]
) -> None:
    setting.put()
    setting.vault.audit.path.write_text("")
    with pytest.raises(CallError) as caught:
        await ReleaseRelay(f"http://127.0.0.1:{server.port}").release(await setting.request())
    assert caught.value.code is Code.UNAVAILABLE
    assert "audit" not in caught.value.sentence
    assert "audit.log" in capfd.readouterr().err


async def test_a_request_too_large_is_cut_off(server: ReleaseServer) -> None:
    async with aiohttp.ClientSession() as session:
        base = f"http://127.0.0.1:{server.port}"
        async with session.post(base + RELEASE_PATH, data=bytes(MAX_REQUEST + 1)) as answer:
            assert answer.status == 413
        async with session.get(base + "/healthz") as answer:
            assert answer.status == 200
        async with session.get(base + "/other") as answer:
            assert answer.status == 404


async def test_it_listens_on_this_machine_alone(setting: Any) -> None:
    server = ReleaseServer(setting.service)
    with pytest.raises(Refusal, match="loopback"):
        await server.start(port=0, host="0.0.0.0")
    with pytest.raises(Refusal, match="port"):
        await server.start()
    await server.close()


async def test_a_service_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    for relay in (ReleaseRelay(f"unix:{tmp_path / 'no.sock'}"), NoRelease()):
        with pytest.raises(CallError) as caught:
            await relay.challenge()
        assert caught.value.code is Code.UNAVAILABLE
        with pytest.raises(CallError):
            await relay.release(b"")


@pytest.mark.parametrize("address", ["", "ftp://x", "http://", "127.0.0.1:80"])
def test_an_address_of_another_kind_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="no release service"):
        ReleaseRelay(address)
