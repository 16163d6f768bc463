"""`python -m tea.runtime`: start the host of one enclave. The mode comes from here, never from settings.

May not: take secrets as arguments; the simulated instance credential comes on an inherited descriptor.
Rule: docs/architecture.md, "Modes".
"""

from __future__ import annotations

import argparse
import asyncio
import os
import pathlib
import signal
import sys
import time

import uvloop

from tea.protocol.transport.address import Address
from tea.providers.nitro.client import Nsm, NsmError
from tea.providers.nitro.device import Device, NsmDevice
from tea.providers.nitro.entropy import mix_entropy
from tea.trust.approval import parse_approvers
from tea.trust.errors import TrustError

from .host import Host
from .worker.sandbox import PR_SET_DUMPABLE, prctl

FAILED = 3
"""Exit status when an actor's failure escalated to the host."""


def main(argv: list[str] | None = None) -> int:
    """Parse, open the NSM, run. 0: ended by a shutdown; 1: could not start."""
    arguments = _parser().parse_args(argv)
    try:
        approvers = parse_approvers(arguments.approvers.read_text(), str(arguments.approvers))
        address = Address.parse(arguments.parent)
        device = _device(arguments)
        if arguments.mode == "nitro":
            _mix(device)
    except (TrustError, OSError, ValueError) as error:
        print(f"tea.runtime: {error}", file=sys.stderr)  # noqa: T201 (the console is all there is before a connection)
        return 1
    # Its memory holds keys: no core file, and nobody of the same uid reads /proc/PID/mem.
    prctl(PR_SET_DUMPABLE, 0)

    failures: list[str | None] = []

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        host = Host(mode=arguments.mode, nsm=Nsm(device), approvers=approvers, loop=loop)
        stopping: list[asyncio.Task[None]] = []

        def terminate() -> None:
            stopping.append(loop.create_task(host.shutdown(drain=arguments.drain)))

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, terminate)
        await host.run(address)
        failures.append(host.failure)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
    if any(failures):
        print(f"tea.runtime: {failures[0]}", file=sys.stderr)  # noqa: T201 (the connection is closed by now)
        return FAILED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tea.runtime", description="the host of one enclave")
    parser.add_argument("--mode", choices=["nitro", "vm", "simulated"], required=True)
    parser.add_argument("--parent", required=True, help="where the runtime client listens: vsock:CID:PORT or unix:PATH")
    parser.add_argument("--approvers", type=pathlib.Path, required=True, help="the approvers' file of the image")
    parser.add_argument("--credential-fd", type=int, help="descriptor of the simulated instance's credential")
    parser.add_argument("--drain", type=float, default=5.0, help="seconds for calls in hand at SIGTERM")
    return parser


def _device(arguments: argparse.Namespace) -> Device:
    if arguments.mode == "nitro":
        if arguments.credential_fd is not None:
            raise ValueError("mode nitro has a real NSM: --credential-fd is for the simulated one")
        return NsmDevice()
    if arguments.credential_fd is None:
        raise ValueError(f"mode {arguments.mode} has a simulated NSM: give it a credential with --credential-fd")
    from tea.providers.nitro.start import MAX_START, SimulatedStart

    with os.fdopen(arguments.credential_fd, "rb") as file:
        return SimulatedStart.decode(file.read(MAX_START + 1)).nsm(time.time)


def _mix(device: Device) -> None:
    """The NSM's random into the kernel's pool, before the first key is made. Raises `OSError`: then nothing starts."""
    try:
        mix_entropy(Nsm(device))
    except (NsmError, OSError) as error:
        raise OSError(f"the NSM's random could not be mixed into the kernel's pool: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
