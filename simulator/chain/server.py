"""The embedded chain behind JSON-RPC over HTTP on loopback, single and batched.

May not: listen anywhere but on loopback: there is no authentication. Rule: JSON-RPC 2.0 specification.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
from typing import Final

from aiohttp import web

from .embedded import EmbeddedChain
from .rpc_methods import INVALID_REQUEST, PARSE_ERROR, Json, Methods, RpcError

MAX_BATCH: Final = 2000
"""Requests in one batch."""
MAX_REQUEST: Final = 4 << 20
"""Bytes of one HTTP request."""


class ChainServer:
    """Serves one chain; `start` answers the URL."""

    def __init__(self, chain: EmbeddedChain) -> None:
        self.chain = chain
        self.methods = Methods(chain)
        self._runner: web.AppRunner | None = None
        self._miner: asyncio.Task[None] | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 0, *, interval: float | None = None) -> str:
        """Listen; port 0 takes a free one. With `interval` a block is mined every so many seconds.

        Raises `ValueError` for an address that is not loopback, `OSError` when the port is taken.
        """
        if not ipaddress.ip_address(host).is_loopback:
            raise ValueError(f"the embedded chain listens on loopback only, not on {host}")
        app = web.Application(client_max_size=MAX_REQUEST)
        app.router.add_post("/", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        if interval is not None:
            self._miner = asyncio.create_task(self._mine_every(interval))
        bound = self._runner.addresses[0][1]
        return f"http://{f'[{host}]' if ':' in host else host}:{bound}"

    async def close(self) -> None:
        """Stop mining and listening."""
        if self._miner is not None:
            self._miner.cancel()
            await asyncio.gather(self._miner, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _mine_every(self, interval: float) -> None:
        while True:
            await asyncio.sleep(interval)
            self.methods.mine()

    async def _handle(self, request: web.Request) -> web.Response:
        try:
            asked = json.loads(await request.read())
        except (ValueError, RecursionError):
            return web.json_response(_error(None, PARSE_ERROR, "the request is not JSON"))
        if isinstance(asked, list):
            if not 0 < len(asked) <= MAX_BATCH:
                message = f"a batch has 1 to {MAX_BATCH} requests, this one {len(asked)}"
                return web.json_response(_error(None, INVALID_REQUEST, message))
            return web.json_response([self._one(one) for one in asked])
        return web.json_response(self._one(asked))

    def _one(self, asked: Json) -> Json:
        if not isinstance(asked, dict) or not isinstance(asked.get("method"), str):
            return _error(None, INVALID_REQUEST, "a request is an object with a method")
        number = asked.get("id")
        params = asked.get("params", [])
        if not isinstance(params, list):
            return _error(number, INVALID_REQUEST, "the params are not a list")
        try:
            return {"jsonrpc": "2.0", "id": number, "result": self.methods.answer(asked["method"], params)}
        except RpcError as error:
            return _error(number, error.code, error.message)


def _error(number: Json, code: int, message: str) -> Json:
    return {"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": message}}
