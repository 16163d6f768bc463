"""`python -m tea.simulator.chain`: the embedded chain as a process of its own; prints one JSON line with its URL.

May not: outlive its standard input when `--until-eof` is given. Rule: docs/architecture.md, "Modes".
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys

from .embedded import EmbeddedChain
from .server import ChainServer


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tea.simulator.chain", description="An EVM chain on loopback.")
    parser.add_argument("--seed", type=int, default=1, help="one seed gives one chain, hash for hash")
    parser.add_argument("--blocks", type=int, default=0, help="blocks to mine before the URL is printed")
    parser.add_argument("--interval", type=float, default=None, help="seconds a block; without it only sim_mine mines")
    parser.add_argument("--accounts", type=int, default=16)
    parser.add_argument("--transfers", type=int, default=8, help="transfers a block")
    parser.add_argument("--listen", default="127.0.0.1:0", help="HOST:PORT on loopback; port 0 takes a free one")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input ends")
    return parser


async def _serve(options: argparse.Namespace) -> None:
    host, _, port = str(options.listen).rpartition(":")
    chain = EmbeddedChain(options.seed, options.accounts, options.transfers)
    server = ChainServer(chain)
    server.methods.mine(options.blocks)
    url = await server.start(host.strip("[]"), int(port), interval=options.interval)
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, over.set)
    if options.until_eof:
        # Whoever started this may be killed: its end of the pipe then closes.
        stdin = sys.stdin.fileno()
        loop.add_reader(stdin, lambda: None if os.read(stdin, 4096) else over.set())
    ready = {"url": url, **server.methods.answer("sim_info", [])}
    sys.stdout.write(json.dumps(ready) + "\n")
    sys.stdout.flush()
    await over.wait()
    await server.close()


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGINT, SIGTERM or the end of standard input. Exit status 2 for wrong usage."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        asyncio.run(_serve(options))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
