"""`teactl logs`: what an enclave and its runtime client say, as lines for people or JSON lines for programs.

May not: let a record steer the terminal: an enclave's words are shown, not obeyed. Rule: docs/teactl.md, "logs".
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from tea.protocol.channels import LogRecord

from ..console import Json, plain, visible
from ..operating import DEFAULT_NETWORK, Enclave, Network, OperatorClient, with_client
from ..operator import LogPage
from ..registry import default_registry

LOOK_SECONDS = 1.0
"""How long one question waits for news."""


def register(root: typer.Typer) -> None:
    """Add `logs` to teactl."""
    root.command()(logs)


def logs(
    network: Network = DEFAULT_NETWORK,
    enclave: Enclave = None,
    last: Annotated[int | None, typer.Option(min=0, help="Begin with the newest so many; default: all held.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until interrupted.")] = False,
    seconds: Annotated[float | None, typer.Option(min=0, help="With --follow: end after this many seconds.")] = None,
    as_json: Json = False,
) -> None:
    """Print the enclave's log: a line a record; with --json one JSON object a line."""
    entry = default_registry().enclave(network, enclave)

    async def read(client: OperatorClient) -> None:
        # A negative number counts from the end; nothing at all is what begins after the end.
        start = 0 if last is None else -last if last else 1 << 62
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            page: LogPage = await client.ask("logs", start, LOOK_SECONDS if follow else 0.0)
            if page.dropped and start >= 0 and last != 0:
                typer.echo(f"teactl: {page.dropped} records are no longer held: see {_file(entry.folder)}", err=True)
            for record in page.records:
                typer.echo(_line(record, as_json))
            over = until is not None and time.monotonic() >= until
            if over if follow else not page.records:
                return
            start = page.next

    try:
        asyncio.run(with_client(Path(entry.folder), read))
    except KeyboardInterrupt:
        if not follow:
            raise
        # How a follower is meant to end.


def _file(folder: str) -> str:
    return str(Path(folder) / "log.jsonl")


def _line(record: LogRecord, as_json: bool) -> str:
    if as_json:
        return json.dumps(plain(msgspec.structs.asdict(record)))
    moment = time.strftime("%H:%M:%S", time.gmtime(record.time))
    fields = "".join(f" {key}={value}" for key, value in record.fields.items())
    return visible(f"{moment} {record.level:7} {record.source:22} {record.message}{fields}")
