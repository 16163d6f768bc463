"""What `declaration` reads of plain functions is what `inspect` and `typing` say of them."""

from __future__ import annotations

import argparse
import functools
import inspect
import json
import logging
import pathlib
import statistics
import textwrap
import types
import typing
import zipfile
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import pytest

from tea.protocol.declaration import EMPTY, doc_of, hints_of, is_async, is_plain, parameters_of
from tea.providers import crypto, kvp

MODULES = (argparse, functools, inspect, json, logging, pathlib, statistics, textwrap, zipfile, crypto, kvp)


def functions() -> list[Callable[..., object]]:
    found: list[Callable[..., object]] = []
    for module in MODULES:
        for value in vars(module).values():
            members = vars(value).values() if isinstance(value, type) else (value,)
            found += [one for one in members if isinstance(one, types.FunctionType)]
    return found


def test_parameters_are_those_of_the_signature() -> None:
    plain = 0
    for function in functions():
        expected = [
            (one.name, one.default, one.kind is one.POSITIONAL_OR_KEYWORD)
            for one in inspect.signature(function).parameters.values()
        ]
        assert [tuple(one) for one in parameters_of(function)] == expected
        plain += is_plain(function)
    assert plain > 200  # the short way was taken


def wrapped(function: Callable[..., object]) -> Callable[..., object]:
    @functools.wraps(function)
    def around(*args: object) -> object:
        return function(*args)

    return around


@wrapped
def decorated(self: object, value: int, other: str = "x") -> None:
    """Has another signature than its code."""


def keyword_only(self: object, *, value: int) -> None: ...


def position_only(self: object, value: int, /) -> None: ...


def variable(self: object, *values: int) -> None: ...


def signed(self: object) -> None: ...


signed.__signature__ = inspect.Signature([inspect.Parameter("told", inspect.Parameter.POSITIONAL_OR_KEYWORD)])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (decorated, [("self", EMPTY, True), ("value", EMPTY, True), ("other", "x", True)]),
        (keyword_only, [("self", EMPTY, True), ("value", EMPTY, False)]),
        (position_only, [("self", EMPTY, False), ("value", EMPTY, False)]),
        (variable, [("self", EMPTY, True), ("values", EMPTY, False)]),
        (signed, [("told", EMPTY, True)]),
    ],
)
def test_what_code_does_not_say_is_asked_of_inspect(function: Callable[..., object], expected: list[Any]) -> None:
    assert not is_plain(function)
    assert [tuple(one) for one in parameters_of(function)] == expected


class Point(msgspec.Struct):
    x: int


def typed(
    plain: int,
    struct: Point,
    listed: list[int],
    either: int | None,
    extra: Annotated[bytes, msgspec.Meta(max_length=3)],
) -> None: ...


PLAIN: dict[str, Any] = {}
exec(  # without this file's `from __future__ import annotations`: the annotations are objects
    "def classes(self, a: int, b: Point) -> None: ...\n"
    "def generic(self, a: list[int]) -> dict[str, int]: ...\n"
    "def late(self, a: 'Point') -> 'None': ...\n"
    "def within(self, a: list['Point']) -> None: ...\n"
    "def unknown(self, a: 'Nowhere') -> None: ...\n",
    {"Point": Point},
    PLAIN,
)


@pytest.mark.parametrize("function", [typed, PLAIN["classes"], PLAIN["generic"], PLAIN["late"], PLAIN["within"]])
def test_hints_are_those_of_typing(function: Callable[..., object]) -> None:
    assert hints_of(function) == typing.get_type_hints(function, include_extras=True)


def test_an_unknown_name_is_a_name_error() -> None:
    with pytest.raises(NameError, match="Nowhere"):
        hints_of(PLAIN["unknown"])


class Base:
    def told(self) -> None:
        """What it does.

        And how.
        """

    def one_line(self) -> None:
        """Leading space."""

    def silent(self) -> None: ...


class Child(Base):
    def told(self) -> None: ...

    def silent(self) -> None: ...


@pytest.mark.parametrize("name", ["told", "one_line", "silent"])
@pytest.mark.parametrize("cls", [Base, Child])
def test_documentation_is_that_of_inspect(cls: type, name: str) -> None:
    assert doc_of(cls, name) == (inspect.getdoc(getattr(cls, name)) or "")


async def coroutine() -> None: ...


@pytest.mark.parametrize("function", [coroutine, functools.partial(coroutine), signed, len, functools.partial(signed)])
def test_async_is_what_inspect_says(function: object) -> None:
    assert is_async(function) == inspect.iscoroutinefunction(function)
