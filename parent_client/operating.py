"""Asking a runtime client from `teactl`: find its socket, call, close.

May not: hold state. Rule: docs/architecture.md, "teactl".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import typer

from tea.protocol.channels import Channel
from tea.protocol.errors import CallError
from tea.protocol.transport.address import Address
from tea.protocol.transport.client import connect
from tea.protocol.transport.endpoint import Endpoint

from .console import Refusal
from .operator import Operator
from .registry import EnclaveEntry, default_registry, socket_folder

T = TypeVar("T")

Network = Annotated[str, typer.Option("--network", "-n", help="Name of the network.")]
Enclave = Annotated[str | None, typer.Option("--enclave", "-e", help="Name of the enclave; the only one by default.")]
DEFAULT_NETWORK = "default"


class OperatorClient:
    """One connection to a runtime client."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def ask(self, name: str, *args: object, timeout: float = 60.0) -> Any:
        """Call an operation of `Operator`; typed result. Raises `CallError`."""
        return await self._endpoint.call(Channel.OPERATOR, Operator, name, *args, timeout=timeout)


async def with_client(folder: Path, use: Callable[[OperatorClient], Awaitable[T]]) -> T:
    """Connect to the client whose state is in `folder`, `use` it, close. Raises `CallError`, or `Refusal`."""
    path = socket_folder(folder) / "operator.sock"
    try:
        endpoint = await connect(Address.parse(f"unix:{path}"), timeout=5.0)
    except CallError:
        raise Refusal(f"no runtime client answers at {path}: it is not running, or starts just now") from None
    try:
        return await use(OperatorClient(endpoint))
    finally:
        await endpoint.close()


def ask(network: str, enclave: str | None, use: Callable[[OperatorClient], Awaitable[T]]) -> T:
    """`with_client` for an enclave by name, from a command. Raises `RegistryError` as well."""
    entry: EnclaveEntry = default_registry().enclave(network, enclave)
    return asyncio.run(with_client(Path(entry.folder), use))


def arguments_from_json(text: str) -> bytes:
    """Arguments of a call as msgpack: a JSON object by name, or an array by position.

    `{"$hex": "..."}` stands for bytes, which JSON cannot say. Raises `Refusal`.
    """
    try:
        decoded = msgspec.json.decode(text.encode())
    except msgspec.DecodeError as error:
        raise typer.BadParameter(f"the arguments are not JSON: {error}") from None
    if not isinstance(decoded, dict | list):
        raise typer.BadParameter("give the arguments as a JSON object (by name) or array (by position)")
    return msgspec.msgpack.encode(_with_bytes(decoded))


def _with_bytes(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"$hex"} and isinstance(value["$hex"], str):
            try:
                return bytes.fromhex(value["$hex"])
            except ValueError:
                raise typer.BadParameter(f"{value['$hex'][:40]!r} is not hex") from None
        return {key: _with_bytes(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_bytes(item) for item in value]
    return value


def readable(value: Any) -> Any:
    """A result as JSON can say it; bytes as `{"$hex": "..."}`, so that it can be given back as an argument."""
    if isinstance(value, bytes):
        return {"$hex": value.hex()}
    if isinstance(value, dict):
        return {str(key) if not isinstance(key, bytes) else key.hex(): readable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [readable(item) for item in value]
    return value
