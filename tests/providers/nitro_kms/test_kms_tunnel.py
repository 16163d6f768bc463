"""KMS through the parent's tunnel: TLS ends in the enclave, and the parent that carries it reads nothing.

May not: reach beyond loopback. Rule: docs/nitro-sdk.md, "The tunnel".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from tea.parent_client.tunnel import TunnelServer
from tea.protocol.transport.address import UnixAddress
from tea.protocol.tunnel import Target
from tea.providers.nitro import sdk

from .conftest import KEY_ID

MakeClient = Callable[..., sdk.KmsClient]
SECRET = b"a secret that no parent reads"


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_secret_comes_through_the_parent_unread(
    make_client: MakeClient, endpoint: Target, tmp_path: Path, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def run() -> bytes:
        server = TunnelServer(UnixAddress(tmp_path / "tunnel.sock"), [str(endpoint)])
        address = await server.start()
        client = make_client(tunnel=str(address))
        try:
            ciphertext = await asyncio.to_thread(client.encrypt, KEY_ID, SECRET)
            return await asyncio.to_thread(client.decrypt, ciphertext)
        finally:
            assert server.figures.opened == 2
            await server.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(run()) == SECRET


async def test_an_endpoint_that_the_parent_does_not_allow_is_named(make_client: MakeClient, tmp_path: Path) -> None:
    server = TunnelServer(UnixAddress(tmp_path / "tunnel.sock"), ["kms.eu-west-1.amazonaws.com:443"])
    address = await server.start()
    with pytest.raises(sdk.KmsError) as caught:
        await asyncio.to_thread(make_client(tunnel=str(address)).generate_random, 8)
    assert caught.value.code is sdk.KmsCode.TUNNEL
    assert "403" in caught.value.sentence
    await server.close()


async def test_a_parent_that_answers_in_the_targets_place_is_found_out(
    make_client: MakeClient, endpoint: Target, tmp_path: Path
) -> None:
    """A parent that sends what it likes behind its `200`: no TLS, so no request."""

    async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
        assert b"TrentService" not in await reader.read(65536)
        writer.close()

    listener = await asyncio.start_unix_server(impostor, tmp_path / "impostor.sock")
    with pytest.raises(sdk.KmsError) as caught:
        await asyncio.to_thread(make_client(tunnel=f"unix:{tmp_path}/impostor.sock").generate_random, 8)
    assert caught.value.code is sdk.KmsCode.TLS
    listener.close()
