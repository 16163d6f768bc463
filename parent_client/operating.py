"""Asking a runtime client from `teactl`: find its socket, call, close.

May not: hold state, or believe what comes back: an enclave and its client are strangers here.
Rule: docs/teactl.md.
"""

from __future__ import annotations

import asyncio
import datetime
import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import msgspec
import typer

from tea.protocol.channels import Channel
from tea.protocol.errors import CallError, Code
from tea.protocol.transport.address import Address
from tea.protocol.transport.client import connect
from tea.protocol.transport.endpoint import Endpoint

from .files import require_private
from .operator import Operator
from .refusal import Refusal
from .registry import OPERATOR_SOCKET, EnclaveEntry, default_registry, socket_folder

T = TypeVar("T")

Network = Annotated[str, typer.Option("--network", "-n", help="Name of the network.")]
Enclave = Annotated[str | None, typer.Option("--enclave", "-e", help="Name of the enclave; the only one by default.")]
DEFAULT_NETWORK: Final = "default"
CONNECT_SECONDS: Final = 5.0
MAX_DEPTH: Final = 100
"""Levels of nesting of arguments and results."""


class OperatorClient:
    """One connection to a runtime client."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def ask(self, name: str, *args: object, timeout: float = 60.0) -> Any:
        """Call an operation of `Operator`; typed result. Raises `CallError`."""
        return await self._endpoint.call(Channel.OPERATOR, Operator, name, *args, timeout=timeout)


async def with_client(folder: Path, use: Callable[[OperatorClient], Awaitable[T]]) -> T:
    """Connect to the client whose state is in `folder`, `use` it, close.

    Raises `CallError`: UNAVAILABLE when none answers; `PermissionError` when others could answer in its place.
    """
    path = socket_folder(folder) / OPERATOR_SOCKET
    try:
        require_private(path.parent)
        endpoint = await connect(Address.parse(f"unix:{path}"), timeout=CONNECT_SECONDS)
    except FileNotFoundError:
        raise CallError(Code.UNAVAILABLE, f"no runtime client has ever run in {folder}: start it") from None
    except CallError as error:
        raise CallError(
            Code.UNAVAILABLE,
            f"no runtime client answers at {path} ({error.sentence}): it is not running, or starts just now",
        ) from None
    try:
        return await use(OperatorClient(endpoint))
    finally:
        await endpoint.close()


def ask(network: str, enclave: str | None, use: Callable[[OperatorClient], Awaitable[T]]) -> T:
    """`with_client` for an enclave by name, from a command. Raises `RegistryError` as well."""
    entry: EnclaveEntry = default_registry().enclave(network, enclave)
    return asyncio.run(with_client(Path(entry.folder), use))


# ---- arguments and results -------------------------------------------------------------------------------------------


def arguments_from_json(text: str) -> bytes:
    """Arguments of a call as msgpack: a JSON object by name, or an array by position.

    `{"$hex": "..."}` stands for bytes, which JSON cannot say. Raises `typer.BadParameter`.
    """
    try:
        decoded = msgspec.json.decode(text.encode())
        if not isinstance(decoded, dict | list):
            raise typer.BadParameter("give the arguments as a JSON object (by name) or array (by position)")
        return msgspec.msgpack.encode(_with_bytes(decoded, MAX_DEPTH))
    except (msgspec.DecodeError, UnicodeError) as error:
        raise typer.BadParameter(f"the arguments are not JSON: {error}") from None
    except OverflowError:
        raise typer.BadParameter("the arguments have a whole number over 64 bits: give it as text or bytes") from None
    except RecursionError:
        raise typer.BadParameter(_too_deep()) from None


def _with_bytes(value: Any, depth: int) -> Any:
    if depth == 0:
        raise typer.BadParameter(_too_deep())
    if isinstance(value, dict):
        if set(value) == {"$hex"} and isinstance(value["$hex"], str):
            try:
                return bytes.fromhex(value["$hex"])
            except ValueError:
                raise typer.BadParameter(f"{value['$hex'][:40]!r} is not hex") from None
        return {key: _with_bytes(item, depth - 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_bytes(item, depth - 1) for item in value]
    return value


def _too_deep() -> str:
    return f"the arguments are nested deeper than {MAX_DEPTH} levels: make them flatter"


def result_from_msgpack(answer: bytes) -> Any:
    """What an actor answered, as JSON can say it. Raises `Refusal` when it is no msgpack, or nested too deep."""
    try:
        return _readable(msgspec.msgpack.decode(answer), MAX_DEPTH)
    except (msgspec.DecodeError, UnicodeError, RecursionError, TypeError, ValueError, OverflowError) as error:
        raise Refusal(f"the actor answered {len(answer)} bytes that are no msgpack: {error}") from None


def _readable(value: Any, depth: int) -> Any:
    """Bytes become `{"$hex": "..."}`, so that a result can be given back as an argument."""
    if depth == 0:
        raise Refusal(f"the actor's answer is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, bytes):
        return {"$hex": value.hex()}
    if isinstance(value, dict):
        return {_key(key): _readable(item, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_readable(item, depth - 1) for item in value]
    if isinstance(value, msgspec.msgpack.Ext):
        return {"$ext": value.code, "$hex": bytes(value.data).hex()}
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _key(key: object) -> str:
    return key.hex() if isinstance(key, bytes) else str(key)
