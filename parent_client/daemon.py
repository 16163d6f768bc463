"""One runtime client as a process: its command line, its loop, its end.

May not: alter what it carries; `wrap` is where the simulator puts a fault, and production passes none. Imports stay
light: a client is started often. Rule: docs/architecture.md, "Processes".
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import uvloop

from tea.protocol.channels import Adapter, BlockChanges, Head
from tea.protocol.errors import CallError, Code
from tea.protocol.transport.address import Address

from .client import RuntimeClient, unix_config
from .release_relay import ReleaseRelay

Wrap = Callable[[Adapter], Adapter]


class NoChain(Adapter):
    """The adapter of a client that follows no chain: everything is UNAVAILABLE."""

    async def head(self) -> Head:
        raise _no_chain()

    async def blocks(self, start: int, count: int) -> tuple[BlockChanges, ...]:
        raise _no_chain()

    async def part(self, height: int, block_hash: bytes, number: int) -> dict[bytes, bytes | None]:
        raise _no_chain()

    async def send_transaction(self, raw: bytes) -> bytes:
        raise _no_chain()

    async def account(self, address: bytes) -> tuple[int, bytes, int, int]:
        raise _no_chain()


def _no_chain() -> CallError:
    return CallError(Code.UNAVAILABLE, "this runtime client follows no chain: start it with --chain")


def parser(prog: str) -> argparse.ArgumentParser:
    """The command line of a runtime client."""
    made = argparse.ArgumentParser(prog=prog, description="the runtime client of one enclave")
    made.add_argument("--name", required=True, help="the enclave's name: its slot, where it has one")
    made.add_argument("--folder", type=Path, required=True, help="state and sockets")
    made.add_argument("--enclave", type=_address, help="where the enclave dials: vsock:any:5005 on a parent instance")
    made.add_argument("--peer", action="append", default=[], type=_peer, metavar="NAME=FOLDER", help="repeat for each")
    made.add_argument("--chain", help="URL of an EVM node's JSON-RPC")
    made.add_argument("--watch", type=Path, help="JSON file: what of the chain is watched; touched accounts by default")
    made.add_argument("--finality", choices=["finalized", "latest"], default="finalized", help="which head to follow")
    made.add_argument("--release", help="release service for secrets: http://HOST:PORT, https://... or unix:/PATH")
    made.add_argument(
        "--tunnel", type=_address, help="where the enclave dials out: vsock:any:8443 on a parent instance"
    )
    made.add_argument("--egress", action="append", default=[], metavar="HOST:PORT", help="what the tunnel may reach")
    made.add_argument("--aws-credentials", choices=["instance", "environment"], help="what the tunnel offers to KMS")
    made.add_argument("--poll", type=float, default=0.5, help="seconds between looks at the chain's head")
    return made


def run(arguments: argparse.Namespace, wrap: Wrap | None = None) -> int:
    """Serve until SIGTERM, SIGINT or the operator's `stop`. 0: ended; 1: could not start."""
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(arguments, wrap))
    except (CallError, OSError, ValueError, msgspec.DecodeError) as error:
        print(f"runtime client {arguments.name}: {error}", file=sys.stderr)  # noqa: T201 (its console)
        return 1
    return 0


async def _serve(arguments: argparse.Namespace, wrap: Wrap | None) -> None:
    async with _tunnel(arguments):
        await _serve_client(arguments, wrap)


@contextlib.asynccontextmanager
async def _tunnel(arguments: argparse.Namespace) -> AsyncIterator[None]:
    """The enclave's way out, for as long as the block lasts; nothing without --tunnel."""
    if arguments.tunnel is None:
        if arguments.egress or arguments.aws_credentials is not None:
            raise ValueError("--egress and --aws-credentials are of a tunnel: say with --tunnel where it listens")
        yield
        return
    # Only a client with a tunnel pays for these imports.
    from .tunnel import TunnelServer

    credentials = None
    if arguments.aws_credentials is not None:
        from .aws_credentials import from_environment, from_instance

        credentials = from_instance() if arguments.aws_credentials == "instance" else from_environment()
    server = TunnelServer(arguments.tunnel, arguments.egress, credentials=credentials)
    await server.start()
    try:
        yield
    finally:
        await server.close()


async def _serve_client(arguments: argparse.Namespace, wrap: Wrap | None) -> None:
    config = unix_config(arguments.name, arguments.folder, dict(arguments.peer), arguments.chain)
    if arguments.enclave is not None:
        config = dataclasses.replace(config, enclave=arguments.enclave)
    release = ReleaseRelay(arguments.release) if arguments.release is not None else None
    loop = asyncio.get_running_loop()
    if arguments.chain is None:
        client = RuntimeClient(config, NoChain(), release)
        _end_on_signals(loop, client)
        await client.run()
        return
    # Only a client with a chain pays for an HTTP client's import.
    from .chain import ChainAdapter, EvmSource, Watch

    watch = Watch() if arguments.watch is None else msgspec.json.decode(arguments.watch.read_bytes(), type=Watch)
    source = EvmSource(arguments.chain, watch, finality=arguments.finality)
    chain = ChainAdapter(source, log=_say, poll=arguments.poll)
    client = RuntimeClient(config, chain if wrap is None else wrap(chain), release)
    chain.on_finalized = client.finalized
    _end_on_signals(loop, client)
    following = loop.create_task(chain.run())
    try:
        await client.run()
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await source.close()


def _end_on_signals(loop: asyncio.AbstractEventLoop, client: RuntimeClient) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, client.request_stop)


def _say(level: str, sentence: str) -> None:
    print(f"{level}: {sentence}", file=sys.stderr, flush=True)  # noqa: T201 (its console)


def _address(text: str) -> Address:
    try:
        return Address.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _peer(text: str) -> tuple[str, Path]:
    name, separator, folder = text.partition("=")
    if not (name and separator and folder):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FOLDER")
    return name, Path(folder)
