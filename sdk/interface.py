"""The interface of a WASM actor: its operations, in a JSON file beside the module, since there is no class to read.

May not: know WASM, or run anything. Rule: docs/wasm.md, "The interface".

    {"tea": "interface/1",
     "operations": [{"name": "increment", "parameters": [{"name": "by", "type": "int", "default": 1}],
                     "result": "int", "doc": "Add `by`.", "only_from": ["parent"]}]}
"""

from __future__ import annotations

import keyword
from typing import Any, Final

import msgspec

from tea.protocol.operations import OperationDescription, Parameter
from tea.trust.names import OPERATION

from .result_types import result_type

VERSION: Final = "interface/1"
MAX_INTERFACE: Final = 256 * 1024
"""Bytes of the file."""
MAX_OPERATIONS: Final = 256
MAX_PARAMETERS: Final = 32
_MAX_TYPE: Final = 200
_ANYTHING: Final = ("object", "Any")


class InterfaceError(Exception):
    """The file describes no interface: the sentence says what was found and expected."""


class _Parameter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    type: str
    default: Any = msgspec.UNSET


class _Operation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    result: str
    parameters: tuple[_Parameter, ...] = ()
    doc: str = ""
    only_from: tuple[str, ...] | None = None


class _Interface(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tea: str
    operations: tuple[_Operation, ...]


def read_interface(data: bytes) -> tuple[OperationDescription, ...]:
    """The operations; the place of each is the number that the module's `tea_handle` gets. Raises `InterfaceError`."""
    if len(data) > MAX_INTERFACE:
        raise InterfaceError(f"the interface has {len(data)} bytes, at most {MAX_INTERFACE}")
    try:
        found = msgspec.json.decode(data, type=_Interface)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InterfaceError(f"the interface is not understood: {error}") from None
    if found.tea != VERSION:
        raise InterfaceError(f'the interface says "tea": {found.tea[:40]!r}, expected {VERSION!r}')
    if not 1 <= len(found.operations) <= MAX_OPERATIONS:
        raise InterfaceError(f"the interface has {len(found.operations)} operations, expected 1 to {MAX_OPERATIONS}")
    names = [operation.name for operation in found.operations]
    if len(set(names)) != len(names):
        raise InterfaceError("the interface has two operations of one name")
    return tuple(_described(operation) for operation in found.operations)


def _described(operation: _Operation) -> OperationDescription:
    where = f"operation {operation.name[:80]!r}"
    if OPERATION.fullmatch(operation.name) is None:
        raise InterfaceError(f"{where}: expected a name of small letters, digits and _")
    if len(operation.parameters) > MAX_PARAMETERS:
        raise InterfaceError(f"{where} has {len(operation.parameters)} parameters, at most {MAX_PARAMETERS}")
    _require_type(where, operation.result)
    parameters: list[Parameter] = []
    for one in operation.parameters:
        if not one.name.isidentifier() or keyword.iskeyword(one.name) or one.name.startswith("_"):
            raise InterfaceError(f"{where}: {one.name[:80]!r} is no name of a parameter")
        if any(one.name == before.name for before in parameters):
            raise InterfaceError(f"{where} has two parameters {one.name!r}")
        _require_type(f"{where}, parameter {one.name!r}", one.type)
        required = one.default is msgspec.UNSET
        if required and parameters and not parameters[-1].required:
            raise InterfaceError(f"{where}: {one.name!r} has no default and stands after one that has")
        parameters.append(Parameter(one.name, one.type, required, b"" if required else _default(where, one)))
    return OperationDescription(operation.name, tuple(parameters), operation.result, operation.doc, operation.only_from)


def _require_type(where: str, text: str) -> None:
    if len(text) > _MAX_TYPE or (result_type(text) is Any and text not in _ANYTHING):
        raise InterfaceError(
            f"{where}: {text[:80]!r} is no type: int, str, bytes, bool, float, None, object, list[...], dict[...], "
            "and unions of these with |"
        )


def _default(where: str, parameter: _Parameter) -> bytes:
    try:
        value = msgspec.convert(parameter.default, result_type(parameter.type))
    except msgspec.ValidationError as error:
        raise InterfaceError(f"{where}: the default of {parameter.name!r} is not {parameter.type}: {error}") from None
    return msgspec.msgpack.encode(value)
