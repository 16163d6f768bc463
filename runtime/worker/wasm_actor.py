"""A WASM bundle as an actor class: one method an operation, made from the interface, each of which calls the guest.

May not: let the guest decide what its operations are called with: arguments are checked before it sees them.
Rule: docs/wasm.md, "The interface". Everything else (dispatch, hooks, links, messages) is the Python actor's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import msgspec

from tea.protocol.errors import CallError, Code
from tea.protocol.operations import OperationDescription, operation
from tea.sdk import Actor
from tea.sdk.interface import InterfaceError, read_interface
from tea.sdk.result_types import result_type
from tea.sdk.system import LoadError, System, Verify
from tea.trust.archive import read_archive
from tea.trust.claims import interface_of

from .guest import Guest, ModuleError, context_bytes
from .wire import Welcome


class WasmActor(Actor):
    """The base of the class that is made for one module."""

    _guest: Guest

    def on_start(self) -> None:
        """Make the instance; `tea_start` may refuse."""
        try:
            self._guest.start()
        except ModuleError as error:
            raise CallError(Code.INVALID, str(error)) from None

    def on_stop(self) -> None:
        """Run `tea_stop`."""
        self._guest.stop()


def load(bundle: bytes, welcome: Welcome, verify: Verify, caller: Any, seal: Callable[[], None]) -> System:
    """Verify a bundle, compile its module, and create its actor under the active binding.

    `seal` is called when everything is compiled, before the guest's first instruction: nothing more becomes executable
    then. Raises `LoadError`; what `verify` raises passes as it is.
    """
    files = read_archive(verify(bundle))
    try:
        descriptions = read_interface(files[interface_of(welcome.entry)])
        guest = Guest(
            files[welcome.entry],
            memory_bytes=welcome.memory_bytes,
            fuel=welcome.fuel,
            links=welcome.links,
            caller=caller,
            log=caller.log,
            identity=msgspec.msgpack.encode(welcome.identity),
        )
    except (InterfaceError, ModuleError) as error:
        raise LoadError(str(error)) from None
    seal()
    return System.of(actor_class(descriptions, guest))


def actor_class(descriptions: tuple[OperationDescription, ...], guest: Guest) -> type[WasmActor]:
    """The class. Its operations' numbers on the wire are by name; the guest gets their places in the interface."""
    methods: dict[str, object] = {one.name: _method(number, one) for number, one in enumerate(descriptions)}
    return type("WasmActor", (WasmActor,), {**methods, "_guest": guest, "__module__": __name__})


def _method(number: int, described: OperationDescription) -> Callable[..., msgspec.Raw]:
    def run(self: WasmActor, *arguments: object) -> msgspec.Raw:
        context = context_bytes(self.caller, self.chain, self.deadline)
        return msgspec.Raw(self._guest.handle(described.name, number, _encode(arguments), context))

    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter("self", positional)]
    hints: dict[str, Any] = {}
    for one in described.parameters:
        hints[one.name] = result_type(one.type)
        default = inspect.Parameter.empty if one.required else msgspec.msgpack.decode(one.default, type=hints[one.name])
        parameters.append(inspect.Parameter(one.name, positional, default=default))
    hints["return"] = result_type(described.result)
    run.__name__ = run.__qualname__ = described.name
    run.__doc__ = described.doc
    run.__annotations__ = hints
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return operation(only_from=described.only_from)(run)


_encode = msgspec.msgpack.Encoder().encode
