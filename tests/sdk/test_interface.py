"""The interface of a WASM actor: what is read, and what is refused with its reason."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tea.sdk.interface import MAX_INTERFACE, InterfaceError, read_interface


def interface(**operation: Any) -> bytes:
    described = {"name": "add", "result": "int", **operation}
    return json.dumps({"tea": "interface/1", "operations": [described]}).encode()


def test_an_operation_is_described_as_a_python_actors_is() -> None:
    (found,) = read_interface(
        interface(
            parameters=[{"name": "name", "type": "str"}, {"name": "by", "type": "int | None", "default": None}],
            doc="Add.",
            only_from=["parent"],
        )
    )
    assert (found.name, found.result, found.doc, found.only_from) == ("add", "int", "Add.", ("parent",))
    name, by = found.parameters
    assert (name.name, name.type, name.required, name.default) == ("name", "str", True, b"")
    assert (by.name, by.required, by.default) == ("by", False, msgspec.msgpack.encode(None))


def test_a_default_of_bytes_is_base64() -> None:
    (found,) = read_interface(interface(parameters=[{"name": "data", "type": "bytes", "default": "aGk="}]))
    assert found.parameters[0].default == msgspec.msgpack.encode(b"hi")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not understood"),
        (b"[]", "not understood"),
        (b'{"tea": "interface/1", "operations": [], "more": 1}', "not understood"),
        (b'{"tea": "interface/1", "operations": []}', "0 operations"),
        (b'{"tea": "bundle/1", "operations": []}', "expected 'interface/1'"),
        (b" " * (MAX_INTERFACE + 1), "at most"),
        (interface(name="Add"), "expected a name"),
        (interface(name="_add"), "expected a name"),
        (interface(result="Struct"), "is no type"),
        (interface(result="list[" * 100), "is no type"),
        (interface(parameters=[{"name": "x", "type": "datetime"}]), "is no type"),
        (interface(parameters=[{"name": "class", "type": "int"}]), "is no name"),
        (interface(parameters=[{"name": "a b", "type": "int"}]), "is no name"),
        (interface(parameters=[{"name": "x", "type": "int"}] * 2), "two parameters"),
        (interface(parameters=[{"name": "x", "type": "int", "default": "one"}]), "the default of 'x' is not int"),
        (
            interface(parameters=[{"name": "x", "type": "int", "default": 1}, {"name": "y", "type": "int"}]),
            "stands after one that has",
        ),
        (interface(parameters=[{"name": f"p{n}", "type": "int"} for n in range(33)]), "33 parameters"),
        (
            b'{"tea": "interface/1", "operations": [' + b",".join([b'{"name": "x", "result": "int"}'] * 2) + b"]}",
            "one name",
        ),
    ],
)
def test_what_is_no_interface_is_refused_with_its_reason(data: bytes, why: str) -> None:
    with pytest.raises(InterfaceError, match=why):
        read_interface(data)


@given(st.binary(max_size=200))
def test_any_other_exception_is_a_defect(data: bytes) -> None:
    with pytest.raises(InterfaceError):
        read_interface(data)
