"""Builtin types back from their names: what lets a stub give a `set` where the callee's signature says `set[str]`.

May not: evaluate text; a closed grammar of builtin names is read, whatever else stands there is `Any`.
Rule: protocol/operations.py (a description carries type names only, since a caller does not hold the callee's classes).

    union = type ("|" type)*
    type  = name [ "[" union ("," union)* "]" ] | "..."
"""

from __future__ import annotations

import functools
import re
from typing import Any, Final

import msgspec

_PLAIN: Final[dict[str, Any]] = {
    "int": int, "str": str, "bytes": bytes, "bool": bool, "float": float, "None": type(None), "object": Any, "Any": Any,
}  # fmt: skip
_GENERIC: Final[dict[str, Any]] = {
    "list": list, "Sequence": list, "tuple": tuple, "set": set, "frozenset": frozenset, "dict": dict, "Mapping": dict,
}  # fmt: skip
_TOKEN: Final = re.compile(r"\s*(\.\.\.|[A-Za-z_][\w.]*|[\[\],|])")
_MAX_DEPTH: Final = 8


class _Unreadable(Exception):
    pass


@functools.lru_cache(maxsize=1024)
def result_type(text: str) -> Any:
    """The builtin type that `text` names; what is no builtin (a Struct), or no type at all, becomes `Any`."""
    tokens: list[str] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            return Any
        tokens.append(match.group(1))
        position = match.end()
    try:
        found = _union(tokens, 0)
        if tokens:
            return Any
        msgspec.msgpack.Decoder(found)  # a union of two arrays, an ellipsis: well formed, yet nothing to decode into
    except (_Unreadable, TypeError):
        return Any
    return found


def _union(tokens: list[str], depth: int) -> Any:
    members = [_one(tokens, depth)]
    while tokens and tokens[0] == "|":
        tokens.pop(0)
        members.append(_one(tokens, depth))
    if any(member is Any or member is ... for member in members[1:]) or (len(members) > 1 and members[0] in (Any, ...)):
        return Any
    found = members[0]
    for member in members[1:]:
        found = found | member
    return found


def _one(tokens: list[str], depth: int) -> Any:
    if not tokens or depth > _MAX_DEPTH:
        raise _Unreadable
    name = tokens.pop(0)
    if name == "...":
        return ...
    if not name[0].isidentifier():
        raise _Unreadable
    arguments: list[Any] = []
    if tokens and tokens[0] == "[":
        tokens.pop(0)
        arguments.append(_union(tokens, depth + 1))
        while tokens and tokens[0] == ",":
            tokens.pop(0)
            arguments.append(_union(tokens, depth + 1))
        if not tokens or tokens.pop(0) != "]":
            raise _Unreadable
    if name in _PLAIN and not arguments:
        return _PLAIN[name]
    generic = _GENERIC.get(name)
    if generic is None:
        return Any
    if not arguments:
        return generic
    if ... in arguments and not (generic is tuple and len(arguments) == 2 and arguments[1] is ...):
        raise _Unreadable
    if len(arguments) != {dict: 2, tuple: len(arguments)}.get(generic, 1):
        raise _Unreadable
    return generic[tuple(arguments)] if len(arguments) > 1 or generic is tuple else generic[arguments[0]]
