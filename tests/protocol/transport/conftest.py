"""Every transport test runs on asyncio's own loop and on uvloop; the conformance suite also on every transport."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import uvloop

from tea.protocol.transport import Address


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@functools.cache
def why_no_vsock_loopback() -> str | None:
    """None when this kernel carries AF_VSOCK to itself (CID 1); otherwise why not."""
    try:
        with (
            socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as listening,
            socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as dialling,
        ):
            listening.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
            listening.listen()
            dialling.settimeout(0.5)
            dialling.connect((1, listening.getsockname()[1]))
    except OSError as error:
        return f"this kernel has no vsock loopback (modprobe vsock_loopback): {error}"
    return None


@pytest.fixture
def unix_address(tmp_path: Path) -> Address:
    return Address.parse(f"unix:{tmp_path}/peer.sock")


@pytest.fixture(params=["unix", "vsock"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Address:
    """Where to listen; what `listen` answers as its address is where to dial."""
    if request.param == "unix":
        return Address.parse(f"unix:{tmp_path}/peer.sock")
    if reason := why_no_vsock_loopback():
        pytest.skip(reason)
    return Address.parse("vsock:1:any")
