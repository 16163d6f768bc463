"""Typed operations, read off a class: the one source of routers' checks, stubs, descriptions and docs.

May not: do I/O. A class marks methods with `@operation`; annotations give the argument and result types, which
msgspec checks. Arguments travel as a msgpack array in the order of the parameters; a result as one msgpack value.
Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

import functools
import types
import typing
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from .declaration import EMPTY, doc_of, hints_of, parameters_of
from .errors import CallError, Code

_MARK: Final = "__tea_operation__"
_ARRAYS: Final = frozenset(bytes((head,)) for head in (*range(0x90, 0xA0), 0xDC, 0xDD))
_F = TypeVar("_F", bound=Callable[..., object])


_Field = tuple[str, Any] | tuple[str, Any, Any]
"""A parameter: its name, its type and, if it has one, its default."""


class _Mark(msgspec.Struct, frozen=True):
    only_from: tuple[str, ...] | None


class Parameter(msgspec.Struct, frozen=True, array_like=True):
    """One parameter of an operation, as it is described to callers."""

    name: str
    type: str
    required: bool
    default: bytes = b""
    """msgpack of the value that it has when it is left out; empty when it is required, or cannot be told."""


class Undecoded(msgspec.Struct, frozen=True):
    """What callers give for a parameter that is passed on as it came: `Annotated[msgspec.Raw, Undecoded("object")]`.

    One well-formed value is all that is checked. For values that an actor chooses freely: built as Python's objects
    they cost whoever decodes them up to a hundred times what their bytes do.
    """

    type: str


class OperationDescription(msgspec.Struct, frozen=True, array_like=True):
    """What a caller needs to know of an operation; plain data, safe to send and to print."""

    name: str
    parameters: tuple[Parameter, ...]
    result: str
    doc: str
    only_from: tuple[str, ...] | None = None

    def encode_arguments(self, args: tuple[object, ...], kwargs: dict[str, object]) -> bytes:
        """Bind positional and keyword arguments by name and encode them as the wire's array.

        Raises `TypeError` on arguments that do not fit, as a plain Python call would: a mistake of the caller's code.
        """
        if len(args) > len(self.parameters):
            raise TypeError(f"{self.name}() takes {len(self.parameters)} arguments, got {len(args)}")
        values: list[object] = list(args)
        left = dict(kwargs)
        given = {p.name for p in self.parameters[: len(args)]}
        if twice := given & left.keys():
            raise TypeError(f"{self.name}() got {sorted(twice)[0]!r} twice")
        skipped: list[Parameter] = []
        for parameter in self.parameters[len(args) :]:
            if parameter.name in left:
                # The wire has places, not names: what is left out before a given one takes its default's place.
                for before in skipped:
                    if not before.default:
                        raise TypeError(f"{self.name}() needs {before.name!r} when {parameter.name!r} is given")
                    values.append(msgspec.Raw(before.default))
                skipped.clear()
                values.append(left.pop(parameter.name))
            elif parameter.required:
                raise TypeError(f"{self.name}() misses the argument {parameter.name!r}")
            else:
                skipped.append(parameter)
        if left:
            raise TypeError(f"{self.name}() has no argument {sorted(left)[0]!r}")
        return msgspec.msgpack.encode(values)


class Operation:
    """One typed operation of a class: decodes arguments, calls, encodes results."""

    __slots__ = (
        "_all_required", "_arguments", "_decoder", "_result_decoder", "description", "encode_result", "function_name",
        "guarded", "result_type",
    )  # fmt: skip

    def __init__(self, name: str, function: Callable[..., object], mark: _Mark, skip: int, doc: str) -> None:
        if not isinstance(function, types.FunctionType):
            raise TypeError(f"operation {name}: only plain and async methods can be operations")
        try:
            # With extras, so that Annotated[bytes, msgspec.Meta(max_length=...)] is checked too.
            hints = hints_of(function)
        except NameError as error:
            raise TypeError(f"operation {name}: {error}; import the type where the class is defined") from None
        parameters = parameters_of(function)
        if len(parameters) < skip:
            raise TypeError(f"operation {name}: {skip} leading parameters are expected, there are {len(parameters)}")
        fields: list[_Field] = []
        described = []
        for parameter in parameters[skip:]:
            if not parameter.ordinary:
                raise TypeError(f"operation {name}: parameter {parameter.name!r} must be positional-or-keyword")
            if parameter.name not in hints:
                raise TypeError(f"operation {name}: parameter {parameter.name!r} has no type annotation")
            hint = hints[parameter.name]
            required = parameter.default is EMPTY
            fields.append((parameter.name, hint) if required else (parameter.name, hint, parameter.default))
            default = b"" if required else _encoded_default(parameter.default)
            described.append(Parameter(parameter.name, _type_name(hint), required, default))
        if "return" not in hints:
            raise TypeError(f"operation {name}: the result has no type annotation")
        self.function_name = name
        self.result_type: Any = hints["return"]
        self.description = OperationDescription(
            name, tuple(described), _type_name(hints["return"]), doc, mark.only_from
        )
        try:
            self._all_required = all(parameter.required for parameter in described)
            self._arguments = _arguments_type(name, fields)
            self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(self._arguments)
            self._result_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(self.result_type)
        except TypeError as error:
            raise TypeError(f"operation {name}: {error}") from None
        self.guarded = mark.only_from is not None
        """Whether `require_caller` has anything to say."""
        self.encode_result: Callable[[object], bytes] = msgspec.msgpack.Encoder().encode

    @property
    def name(self) -> str:
        return self.description.name

    def decode_arguments(self, body: bytes | memoryview) -> tuple[Any, ...]:
        """The arguments of a call, typed. Raises `CallError(INVALID)` that names the operation and what is wrong."""
        try:
            arguments = self._decoder.decode(body)
            return arguments if self._all_required else msgspec.structs.astuple(arguments)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise CallError(
                Code.INVALID, f"{self.signature()}: the arguments do not fit: {error}", operation=self.name
            ) from None

    def encode_arguments(self, *args: object, **kwargs: object) -> bytes:
        """The wire form of a call's arguments (caller's side)."""
        return self.description.encode_arguments(args, kwargs)

    def decode_result(self, body: bytes | memoryview) -> Any:
        """A result, typed. Raises `CallError(INTERNAL)` when the callee answered with something else."""
        try:
            return self._result_decoder.decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise CallError(Code.INTERNAL, f"{self.name} answered with something else: {error}") from None

    def require_caller(self, caller: str) -> None:
        """Raise `CallError(DENIED)` unless the operation accepts this caller."""
        allowed = self.description.only_from
        if allowed is not None and caller not in allowed:
            raise CallError(
                Code.DENIED,
                f"{self.name} may be called by {', '.join(allowed)} only, not by {caller}",
                operation=self.name,
                caller=caller,
            )

    def signature(self) -> str:
        """`name(parameter: type, ...) -> type`, for people."""
        parameters = ", ".join(
            f"{p.name}: {p.type}" + ("" if p.required else " = ...") for p in self.description.parameters
        )
        return f"{self.name}({parameters}) -> {self.description.result}"


@typing.overload
def operation(function: _F) -> _F: ...
@typing.overload
def operation(*, only_from: Iterable[str] | None = None) -> Callable[[_F], _F]: ...


def operation(function: Callable[..., object] | None = None, *, only_from: Iterable[str] | None = None) -> Any:
    """Mark a method as an operation.

    `only_from` names the only callers (actors, `parent`, or `provider:NAME`) that it accepts; None accepts whoever
    holds a link. Raises `TypeError` when it is one name instead of several.
    """
    if isinstance(only_from, str):
        raise TypeError(f"only_from={only_from!r}: give names, as in only_from=({only_from!r},)")

    def mark(target: Callable[..., object]) -> Callable[..., object]:
        setattr(target, _MARK, _Mark(tuple(only_from) if only_from is not None else None))
        return target

    return mark if function is None else mark(function)


def operations_of(cls: type, *, skip: int = 1) -> dict[str, Operation]:
    """The operations of a class, by name in alphabetical order (an operation's place is its number on the wire).

    `skip` is how many leading parameters are not arguments: 1 (`self`) for actors and channels, 2 (`self, call`) for
    providers. Raises `TypeError` on a declaration without types: a defect of the class.
    """
    found: dict[str, Operation] = {}
    for name in sorted(set().union(*map(_marked_names, cls.__mro__))):
        mark = _mark_of(cls, name)
        if mark is not None:
            function = next(base.__dict__[name] for base in cls.__mro__ if name in base.__dict__)
            found[name] = Operation(name, function, mark, skip, doc_of(cls, name))
    return found


_known_marks: Final[weakref.WeakKeyDictionary[type, frozenset[str]]] = weakref.WeakKeyDictionary()


def _marked_names(base: type) -> frozenset[str]:
    # Kept by class: whoever starts an actor has looked at Thespian's seventy methods before.
    names = _known_marks.get(base)
    if names is None:
        marked = (name for name, value in vars(base).items() if isinstance(getattr(value, _MARK, None), _Mark))
        names = _known_marks[base] = frozenset(marked)
    return names


@functools.cache
def numbered(interface: type) -> Mapping[str, tuple[int, Operation]]:
    """The operations of a channel's interface: name -> (number on the wire, operation)."""
    operations = operations_of(interface)
    return types.MappingProxyType({name: (number, op) for number, (name, op) in enumerate(operations.items())})


def _mark_of(cls: type, name: str) -> _Mark | None:
    # An override keeps its base's mark: an interface declares the operation once.
    for base in cls.__mro__:
        mark = getattr(base.__dict__.get(name), _MARK, None)
        if isinstance(mark, _Mark):
            return mark
    return None


def is_array(body: bytes) -> bool:
    """Whether a msgpack value is an array, as arguments by place are; not whether it is a whole one."""
    return body[:1] in _ARRAYS


def _arguments_type(name: str, fields: list[_Field]) -> Any:
    """What msgspec decodes arguments as: a tuple where none may be left out, which makes no class in every worker."""
    if all(len(field) == 2 for field in fields):
        return types.GenericAlias(tuple, tuple(field[1] for field in fields))
    return msgspec.defstruct(f"{name}_arguments", fields, array_like=True, forbid_unknown_fields=True, frozen=True)


def _encoded_default(value: object) -> bytes:
    try:
        return msgspec.msgpack.encode(value)
    except (TypeError, ValueError, OverflowError):
        return b""


def _type_name(hint: Any) -> str:
    if issubclass(type(hint), type):
        return "None" if hint is types.NoneType else str(hint.__name__)
    if typing.get_origin(hint) is typing.Annotated:
        inner, *notes = typing.get_args(hint)
        return next((note.type for note in notes if isinstance(note, Undecoded)), None) or _type_name(inner)
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Union and any(typing.get_origin(one) is typing.Annotated for one in parts):
        return " | ".join(map(_type_name, parts))  # what `Annotated[...] | None` is
    return str(hint).replace("typing.", "").replace("collections.abc.", "")
