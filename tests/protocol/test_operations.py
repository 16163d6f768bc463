"""Operations read off a class: the types that are written are the types that are checked."""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tea.protocol.errors import CallError, Code
from tea.protocol.operations import (
    Operation,
    OperationDescription,
    Parameter,
    numbered,
    operation,
    operations_of,
)

if typing.TYPE_CHECKING:
    from decimal import Decimal


class Point(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    x: int
    y: int = 0


class Shapes:
    """An interface of every kind of argument."""

    @operation
    async def draw(
        self, points: list[Point], names: dict[str, tuple[Point, ...]], *, _unused: None = None
    ) -> Point | None:
        """Never resolved: keyword-only parameters are refused."""
        raise NotImplementedError


class Drawing:
    @operation
    async def draw(self, points: list[Point], names: dict[str, tuple[Point, ...]]) -> Point | None:
        """Draw the points.

        And a second paragraph.
        """
        raise NotImplementedError

    @operation
    def add(self, left: int, right: int = 1, label: str = "") -> int:
        return left + right

    @operation(only_from=("parent", "provider:clock"))
    def tick(self, token: Annotated[bytes, msgspec.Meta(max_length=4)]) -> None:
        raise NotImplementedError

    @operation
    def mode(self, mode: Literal["a", "b"]) -> dict[str, list[Point]]:
        raise NotImplementedError

    @operation
    def anything(self, value: Any) -> Any:
        raise NotImplementedError

    def not_an_operation(self) -> None:
        raise NotImplementedError


OPS = operations_of(Drawing)


def wire(*values: object) -> bytes:
    return msgspec.msgpack.encode(values)


# -- reading a class ---------------------------------------------------------------------------------------------------


def test_operations_come_in_alphabetical_order_which_is_their_number() -> None:
    assert list(OPS) == ["add", "anything", "draw", "mode", "tick"]
    assert {name: number for name, (number, _) in numbered(Drawing).items()} == {
        "add": 0,
        "anything": 1,
        "draw": 2,
        "mode": 3,
        "tick": 4,
    }
    assert numbered(Drawing) is numbered(Drawing)


def test_a_description_says_names_types_and_what_is_required() -> None:
    parameters = (
        Parameter("left", "int", True),
        Parameter("right", "int", False, msgspec.msgpack.encode(1)),
        Parameter("label", "str", False, msgspec.msgpack.encode("")),
    )
    assert OPS["add"].description == OperationDescription("add", parameters, "int", "")
    draw = OPS["draw"].description
    assert draw.doc == "Draw the points.\n\nAnd a second paragraph."
    assert OPS["add"].signature() == "add(left: int, right: int = ..., label: str = ...) -> int"
    assert OPS["tick"].signature() == "tick(token: bytes) -> None"
    assert OPS["anything"].signature() == "anything(value: Any) -> Any"
    assert OPS["tick"].description.only_from == ("parent", "provider:clock")


def test_a_description_survives_the_wire() -> None:
    for op in OPS.values():
        encoded = msgspec.msgpack.encode(op.description)
        assert msgspec.msgpack.decode(encoded, type=OperationDescription) == op.description


def test_a_leading_call_is_skipped_for_providers() -> None:
    class Provider:
        @operation
        async def get(self, call: object, key: str) -> bytes:
            raise NotImplementedError

    (op,) = operations_of(Provider, skip=2).values()
    assert op.signature() == "get(key: str) -> bytes"


def test_an_override_keeps_the_mark_of_its_base() -> None:
    class Base:
        @operation(only_from=("parent",))
        def go(self, x: int) -> int:
            raise NotImplementedError

    class Mine(Base):
        def go(self, x: int) -> int:
            return x * 2

    class Mine2(Mine):
        @operation
        def go(self, x: int) -> int:
            return x * 3

    assert operations_of(Mine)["go"].description.only_from == ("parent",)
    assert operations_of(Mine2)["go"].description.only_from is None


def test_a_decorated_method_keeps_its_types() -> None:
    def logged(function: Callable[..., object]) -> Callable[..., object]:
        @functools.wraps(function)
        def wrapper(*args: object, **kwargs: object) -> object:
            return function(*args, **kwargs)

        return wrapper

    class Service:
        @operation
        @logged
        def go(self, x: int) -> int:
            return x

    assert operations_of(Service)["go"].signature() == "go(x: int) -> int"


# -- declarations that are refused -------------------------------------------------------------------------------------


def declare(function: Any, skip: int = 1) -> None:
    operations_of(type("Declared", (), {"go": operation(function)}), skip=skip)


def untyped(self: object, x) -> int:  # type: ignore[no-untyped-def]
    raise NotImplementedError


def no_result(self: object, x: int):  # type: ignore[no-untyped-def]
    raise NotImplementedError


def starred(self: object, *xs: int) -> int:
    raise NotImplementedError


def keywords(self: object, **xs: int) -> int:
    raise NotImplementedError


def only_keyword(self: object, *, x: int) -> int:
    raise NotImplementedError


def only_positional(self: object, x: int, /) -> int:
    raise NotImplementedError


def type_checking_only(self: object, x: Decimal) -> int:
    raise NotImplementedError


def ambiguous(self: object, x: list[int] | tuple[int, ...]) -> int:
    raise NotImplementedError


def ambiguous_result(self: object) -> set[int] | list[int]:
    raise NotImplementedError


def nothing_to_skip() -> int:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (untyped, "parameter 'x' has no type annotation"),
        (no_result, "the result has no type annotation"),
        (starred, "'xs' must be positional-or-keyword"),
        (keywords, "'xs' must be positional-or-keyword"),
        (only_keyword, "'x' must be positional-or-keyword"),
        (only_positional, "'x' must be positional-or-keyword"),
        (type_checking_only, "name 'Decimal' is not defined; import the type"),
        (ambiguous, "operation go: "),
        (ambiguous_result, "operation go: "),
        (nothing_to_skip, "1 leading parameters are expected, there are 0"),
        (staticmethod(nothing_to_skip), "only plain and async methods"),
        (Shapes.draw, "'_unused' must be positional-or-keyword"),
    ],
)
def test_a_declaration_that_cannot_be_checked_is_refused(function: Any, why: str) -> None:
    with pytest.raises(TypeError, match=why):
        declare(function)


def test_one_name_instead_of_several_is_refused() -> None:
    with pytest.raises(TypeError, match=r"only_from=\('parent',\)"):
        operation(only_from="parent")


# -- arguments ---------------------------------------------------------------------------------------------------------


def test_arguments_arrive_as_the_types_that_are_written() -> None:
    body = OPS["draw"].encode_arguments([Point(1, 2)], names={"a": (Point(3),)})
    assert OPS["draw"].decode_arguments(body) == ([Point(1, 2)], {"a": (Point(3, 0),)})


def test_defaults_fill_what_is_left_out() -> None:
    assert OPS["add"].decode_arguments(wire(5)) == (5, 1, "")
    assert OPS["add"].decode_arguments(wire(5, 6)) == (5, 6, "")
    assert OPS["add"].decode_arguments(memoryview(wire(5, 6, "x"))) == (5, 6, "x")


@pytest.mark.parametrize(
    ("name", "body", "why"),
    [
        ("add", b"", "do not fit"),
        ("add", b"\xc1", "do not fit"),
        ("add", wire(), "at least length 1"),
        ("add", wire("5"), r"Expected `int`, got `str` - at `\$\[0\]`"),
        ("add", wire(1, 2, "x", 4), "at most length 3"),
        ("add", wire(1) + b"\x00", "do not fit"),
        ("add", msgspec.msgpack.encode({"left": 1}), "Expected `array`"),
        ("draw", wire([{"x": 1, "z": 2}], {}), "unknown field `z`"),
        ("draw", wire([], {"a": [{"x": 1, "y": 2, "z": 3}]}), "unknown field `z`"),
        ("draw", wire([{"y": 2}], {}), "missing required field `x`"),
        ("tick", wire(b"12345"), "length <= 4"),
        ("mode", wire("c"), "Invalid enum value"),
        ("mode", b"\x91\xa1\xff", "do not fit"),
        ("anything", b"\x91" * 5000 + b"\x00", "do not fit"),
        ("draw", b"\x92\xdd\xff\xff\xff\xff", "do not fit"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_with_the_signature(name: str, body: bytes, why: str) -> None:
    with pytest.raises(CallError, match=why) as caught:
        OPS[name].decode_arguments(body)
    assert caught.value.code is Code.INVALID
    assert caught.value.sentence.startswith(OPS[name].signature())
    assert caught.value.details == {"operation": name}


@given(st.sampled_from(list(OPS.values())), st.binary(max_size=60))
def test_whatever_arrives_only_a_call_error_comes_out(op: Operation, body: bytes) -> None:
    try:
        op.decode_arguments(body)
    except CallError as error:
        assert error.code is Code.INVALID
    try:
        op.decode_result(body)
    except CallError as error:
        assert error.code is Code.INTERNAL


@given(st.integers(-(2**63), 2**64 - 1), st.integers(-(2**63), 2**64 - 1), st.text())
def test_arguments_come_out_as_they_went_in(left: int, right: int, label: str) -> None:
    assert OPS["add"].decode_arguments(OPS["add"].encode_arguments(left, label=label, right=right)) == (
        left,
        right,
        label,
    )


@pytest.mark.parametrize(
    ("args", "kwargs", "why"),
    [
        ((), {}, "misses the argument 'left'"),
        ((1, 2, "x", 4), {}, "takes 3 arguments, got 4"),
        ((1,), {"left": 2}, "got 'left' twice"),
        ((1,), {"wrong": 2}, "has no argument 'wrong'"),
    ],
)
def test_a_callers_mistake_is_a_type_error_as_in_plain_python(
    args: tuple[object, ...], kwargs: dict[str, object], why: str
) -> None:
    with pytest.raises(TypeError, match=why):
        OPS["add"].encode_arguments(*args, **kwargs)


def test_an_argument_that_is_skipped_takes_its_defaults_place() -> None:
    assert OPS["add"].encode_arguments(1, label="x") == wire(1, 1, "x")
    assert OPS["add"].encode_arguments(1) == wire(1)


def test_a_default_that_has_no_wire_form_cannot_be_skipped() -> None:
    class Service:
        @operation
        def go(self, x: Any = object(), y: int = 1) -> None:
            raise NotImplementedError

    op = operations_of(Service)["go"]
    assert op.encode_arguments() == wire()
    with pytest.raises(TypeError, match="needs 'x' when 'y' is given"):
        op.encode_arguments(y=2)


# -- results -----------------------------------------------------------------------------------------------------------


def test_results_arrive_as_the_types_that_are_written() -> None:
    draw, mode = OPS["draw"], OPS["mode"]
    assert draw.decode_result(draw.encode_result(Point(1, 2))) == Point(1, 2)
    assert draw.decode_result(draw.encode_result(None)) is None
    assert mode.decode_result(mode.encode_result({"a": [Point(1)]})) == {"a": [Point(1)]}


@pytest.mark.parametrize("body", [b"", b"\xc1", wire("x"), b"\xa1\xff"])
def test_a_result_of_another_type_is_an_internal_error(body: bytes) -> None:
    with pytest.raises(CallError, match="add answered with something else") as caught:
        OPS["add"].decode_result(body)
    assert caught.value.code is Code.INTERNAL


# -- callers -----------------------------------------------------------------------------------------------------------


def test_only_the_callers_that_are_named_may_call() -> None:
    OPS["tick"].require_caller("parent")
    OPS["tick"].require_caller("provider:clock")
    OPS["add"].require_caller("anybody")
    with pytest.raises(CallError, match="by parent, provider:clock only, not by mallory") as caught:
        OPS["tick"].require_caller("mallory")
    assert caught.value.code is Code.DENIED


def test_types_of_other_modules_are_named_in_short() -> None:
    class Service:
        @operation
        def go(self, x: Sequence[int], y: typing.Optional[str] = None) -> None:  # noqa: UP045 - as people write it
            raise NotImplementedError

    assert operations_of(Service)["go"].signature() == "go(x: Sequence[int], y: Optional[str] = ...) -> None"
