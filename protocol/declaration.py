"""What a function declares: its parameters, types and documentation, as `inspect` and `typing` tell them.

May not: know what an operation is. Rule: docs/performance.md, "Memory of a worker". Plain functions are read directly:
those two modules take dozens of functions for it, and each function that runs in a worker writes to memory that was
shared.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeGuard

EMPTY: Final = inspect.Parameter.empty
_VARIABLE: Final = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS
_REDIRECTS: Final = frozenset({"__wrapped__", "__signature__"})


class Declared(NamedTuple):
    """One parameter."""

    name: str
    default: object
    """`EMPTY` when there is none."""
    ordinary: bool
    """Whether it may be given by place and by name."""


def parameters_of(function: Callable[..., object]) -> list[Declared]:
    """The parameters of a function, the first (`self`) included, as `inspect.signature` has them."""
    if not is_plain(function):
        parameters = inspect.signature(function).parameters.values()
        return [Declared(one.name, one.default, one.kind is one.POSITIONAL_OR_KEYWORD) for one in parameters]
    code = function.__code__
    names = code.co_varnames[: code.co_argcount]
    defaults = function.__defaults__ or ()
    required = len(names) - len(defaults)
    return [
        Declared(name, EMPTY if place < required else defaults[place - required], True)
        for place, name in enumerate(names)
    ]


def is_plain(function: object) -> TypeGuard[types.FunctionType]:
    """Whether its code says all: no other signature is set, and every parameter is an ordinary one."""
    if type(function) is not types.FunctionType or not _REDIRECTS.isdisjoint(function.__dict__):
        return False
    code = function.__code__
    return not (code.co_flags & _VARIABLE or code.co_kwonlyargcount or code.co_posonlyargcount)


def hints_of(function: Callable[..., object]) -> dict[str, Any]:
    """The types of a function's parameters and result, with extras. Raises `NameError` on one that is not known."""
    annotations = function.__annotations__
    # A class by its metaclass: `list[int]` says of itself that it is one.
    if not all(one is None or issubclass(type(one), type) for one in annotations.values()):
        return typing.get_type_hints(function, include_extras=True)
    return {name: types.NoneType if one is None else one for name, one in annotations.items()}


def doc_of(cls: type, name: str) -> str:
    """The documentation of a class's method, or of the one that it overrides; clean, and empty when there is none."""
    for base in cls.__mro__:
        doc = getattr(base.__dict__[name], "__doc__", None) if name in base.__dict__ else None
        if isinstance(doc, str):
            return inspect.cleandoc(doc)
    return ""


def is_async(function: object) -> bool:
    """Whether calling it gives a coroutine."""
    if type(function) is types.FunctionType:
        return bool(function.__code__.co_flags & inspect.CO_COROUTINE)
    return inspect.iscoroutinefunction(function)
