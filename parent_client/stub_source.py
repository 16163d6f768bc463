"""Reads an actor's operations and their types out of its source: parsed, never run.

May not: import, execute or evaluate anything of a bundle. What cannot be read off the source is refused, not guessed.
Rule: docs/decisions/0008-stubs-from-source.md.
"""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from .bundle_modules import BundleModules, Place
from .refusal import Refusal

_SDK: Final = "tea.sdk"
_DATA_BASES: Final = frozenset(["Struct", "Enum", "IntEnum", "StrEnum", "Flag", "IntFlag", "NamedTuple", "TypedDict"])
_MAX_SHIFT: Final = 64
_LITERAL: Final = ("Literal", "Annotated")
_MODULES: Final = frozenset(
    [
        "collections.abc", "dataclasses", "datetime", "decimal", "enum", "msgspec", "tea.sdk", "typing",
        "typing_extensions", "uuid",
    ]
)  # fmt: skip
"""What stubs may import: they are imported by others, and the bundle may be anybody's."""
_CALLS: Final = frozenset(
    [
        "dataclasses.dataclass", "dataclasses.field", "datetime.timedelta", "decimal.Decimal", "enum.auto",
        "msgspec.Meta", "msgspec.field", "typing.NewType", "typing.TypeVar",
    ]
)  # fmt: skip
_HARMLESS: Final = (
    ast.Name, ast.Attribute, ast.Subscript, ast.Constant, ast.Tuple, ast.List, ast.Dict, ast.Set, ast.UnaryOp,
    ast.BinOp, ast.Call, ast.keyword, ast.Slice, ast.expr_context, ast.unaryop, ast.operator,
)  # fmt: skip


@dataclass(frozen=True)
class Argument:
    """One parameter."""

    name: str
    type: ast.expr
    default: ast.expr | None


@dataclass(frozen=True)
class SourceOperation:
    """One operation, as its source says it."""

    name: str
    arguments: tuple[Argument, ...]
    result: ast.expr
    doc: str
    only_from: tuple[str, ...] | None


@dataclass(frozen=True)
class SourceActor:
    """What stubs are made of."""

    class_name: str
    doc: str
    operations: tuple[SourceOperation, ...]
    imports: tuple[str, ...]
    """Import statements that the types need."""
    types: tuple[ast.stmt, ...]
    """Definitions that the types need, each after those that it needs itself."""


def read_actor(files: Mapping[str, bytes], entry: str) -> SourceActor:
    """The entry class's operations. Raises `Refusal` that says what could not be read, and where."""
    if entry.endswith(".wasm"):
        raise Refusal(f"found a wasm bundle ({entry}), expected one in Python: its interface is {entry[:-5]}.json")
    module, _, class_name = entry.partition(":")
    return _Reader(files).actor(module, class_name)


class _Reader:
    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._bundle = BundleModules(files)
        self._emitted: dict[str, Place] = {}
        self._types: list[ast.stmt] = []
        self._imports: set[str] = set()

    def actor(self, module: str, class_name: str) -> SourceActor:
        lineage = list(self._bundle.lineage(module, class_name))
        functions: dict[str, tuple[str, ast.FunctionDef, ast.expr]] = {}
        # From the farthest base on: an override keeps its base's mark.
        for where, node in reversed(lineage):
            for statement in node.body:
                if not isinstance(statement, ast.FunctionDef):
                    continue
                mark = self._mark(where, statement)
                if mark is None and statement.name in functions:
                    mark = functions[statement.name][2]
                if mark is not None:
                    functions[statement.name] = (where, statement, mark)
        operations = [self._operation(where, node, mark) for _, (where, node, mark) in sorted(functions.items())]
        if not self._is_of_the_sdk(lineage):
            operations = [_MESSAGE]
        entry = lineage[0][1]
        return SourceActor(
            class_name,
            ast.get_docstring(entry) or "",
            tuple(operations),
            tuple(sorted(self._imports)),
            tuple(self._types),
        )

    # -- classes ---------------------------------------------------------------------------------------------------

    def _is_of_the_sdk(self, lineage: list[tuple[str, ast.ClassDef]]) -> bool:
        """Whether a base is the sdk's Actor; else it was written against plain Thespian."""
        ends = [self._bundle.place(where, base) for where, node in lineage for base in node.bases]
        outside = [place for place in ends if place is not None and self._bundle.module(place[0]) is None]
        if any(place[0] == _SDK or place[0].startswith(f"{_SDK}.") for place in outside):
            return True
        if any(place[0].partition(".")[0] == "thespian" for place in outside):
            return False
        raise Refusal(f"{lineage[0][1].name}: found no base that is an Actor, expected tea.sdk.Actor or Thespian's")

    # -- operations ------------------------------------------------------------------------------------------------

    def _mark(self, module: str, node: ast.FunctionDef) -> ast.expr | None:
        for one in node.decorator_list:
            target = one.func if isinstance(one, ast.Call) else one
            if self._bundle.place(module, target) in ((_SDK, "operation"), ("tea.protocol.operations", "operation")):
                return one
        return None

    def _operation(self, module: str, node: ast.FunctionDef, mark: ast.expr) -> SourceOperation:
        arguments = node.args
        plain = not (arguments.posonlyargs or arguments.kwonlyargs or arguments.vararg or arguments.kwarg)
        if not plain or not arguments.args or node.returns is None:
            raise Refusal(
                f"{module}.{node.name}, line {node.lineno}: found parameters or a result that no operation has, "
                "expected `self`, plain parameters, and a type for each and for the result"
            )
        named = arguments.args[1:]
        defaults: list[ast.expr | None] = [None] * (len(arguments.args) - len(arguments.defaults))
        defaults += arguments.defaults
        made = []
        for argument, default in zip(named, defaults[1:], strict=True):
            if argument.annotation is None:
                raise Refusal(f"{module}.{node.name}, line {node.lineno}: the parameter {argument.arg} has no type")
            if default is not None:
                self._require(module, default)
            made.append(Argument(argument.arg, self._type(module, argument.annotation), default))
        return SourceOperation(
            node.name,
            tuple(made),
            self._type(module, node.returns),
            ast.get_docstring(node) or "",
            _only_from(mark),
        )

    # -- types -----------------------------------------------------------------------------------------------------

    def _type(self, module: str, node: ast.expr) -> ast.expr:
        """An annotation with its texts read as types; whatever it names goes along."""
        plain: ast.expr = _Unquote().visit(node)
        self._require(module, plain)
        return ast.fix_missing_locations(plain)

    def _require(self, module: str, node: ast.AST, own: str | None = None) -> None:
        """Take along what an expression names. Raises `Refusal` on one that does more than to name and to hold."""
        for one in ast.walk(node):
            if not isinstance(one, _HARMLESS) or not self._is_harmless(module, one):
                line = getattr(one, "lineno", getattr(node, "lineno", 0))
                raise Refusal(
                    f"{module}, line {line}: {ast.unparse(one)!r} cannot be read without running it: write a type, a "
                    "literal, or a name of one"
                )
            if isinstance(one, ast.Name) and one.id != own:
                self._name(module, one.id, one.lineno)

    def _is_harmless(self, module: str, node: ast.AST) -> bool:
        match node:
            case ast.Call(func=ast.Name() | ast.Attribute() as function):
                place = self._bundle.place(module, function)
                return place is not None and ".".join(place) in _CALLS
            case ast.keyword(arg="default_factory", value=value):
                return isinstance(value, ast.Name) and self._is_type(module, value.id)
            case ast.Call():
                return False
            case ast.Attribute(attr=name):
                return not name.startswith("__")
            case ast.BinOp(op=ast.LShift(), right=ast.Constant(value=int(places))):
                return 0 <= places <= _MAX_SHIFT
            case ast.BinOp(op=ast.Mult()):
                inner = [one.value for one in ast.walk(node) if isinstance(one, ast.Constant)]
                return all(isinstance(one, int | float) for one in inner)
            case ast.BinOp(op=operator):
                return isinstance(operator, ast.BitOr | ast.Add | ast.Sub | ast.Div)
            case _:
                return True

    def _is_type(self, module: str, name: str) -> bool:
        found = self._bundle.module(module)
        own = found.definitions.get(name) if found is not None else None
        return isinstance(own, ast.ClassDef) or (own is None and isinstance(getattr(builtins, name, None), type))

    def _name(self, module: str, name: str, line: int) -> None:
        found = self._bundle.module(module)
        if found is None:
            return
        if name in found.definitions:
            self._emit(module, name, found.definitions[name])
        elif name in found.imported:
            source, original = found.imported[name]
            if original is not None and self._bundle.module(source) is not None:
                if original != name:
                    raise Refusal(f"{module}: {original} is imported as {name}, expected under its own name")
                self._name(source, original, line)
            elif self._bundle.module(source.partition(".")[0]) is not None:
                raise Refusal(f"{module}, line {line}: import {name} by `from {source} import ...`")
            else:
                # Modules that these have imported themselves (`enum.sys`) are not theirs to give.
                foreign = original in sys.stdlib_module_names and original != source
                if source not in _MODULES or foreign:
                    raise Refusal(
                        f"{module}, line {line}: {name} is of the module {source}, expected one of "
                        f"{', '.join(sorted(_MODULES))}"
                    )
                self._claim(name, (source, original or ""))
                renamed = f" as {name}" if (original or source) != name else ""
                self._imports.add(
                    f"import {source}{renamed}" if original is None else f"from {source} import {original}{renamed}"
                )
        elif not isinstance(getattr(builtins, name, None), type) and name != "Ellipsis":
            raise Refusal(f"{module}, line {line}: found no definition of {name} in the bundle")

    def _claim(self, name: str, place: Place) -> bool:
        """Whether a name is new. Raises `Refusal` when it means two things."""
        before = self._emitted.setdefault(name, place)
        if before != place:
            raise Refusal(f"{name} is both {'.'.join(before)} and {'.'.join(place)}: give one of them another name")
        return before is place

    def _emit(self, module: str, name: str, definition: ast.stmt) -> None:
        if not self._claim(name, (module, name)):
            return
        made: ast.stmt = definition
        if isinstance(definition, ast.ClassDef):
            made = self._data_class(module, definition)
        elif isinstance(definition, ast.Assign | ast.AnnAssign) and definition.value is not None:
            self._require(module, definition.value, name)
            if isinstance(definition, ast.AnnAssign):
                self._require(module, definition.annotation, name)
        else:
            raise Refusal(f"{module}.{name}, line {definition.lineno}: what it is cannot be read off the source")
        self._types.append(made)

    def _data_class(self, module: str, node: ast.ClassDef) -> ast.ClassDef:
        """A class of data without its methods. Raises `Refusal` for one that is something else."""
        own = [self._bundle.place(module, base) for base in node.bases]
        known = [place for place in own if place is not None and self._bundle.module(place[0]) is not None]
        names = {place[1] for place in own if place is not None and self._bundle.module(place[0]) is None}
        decorators = [one.func if isinstance(one, ast.Call) else one for one in node.decorator_list]
        # A decorator is a call, whether or not it looks like one.
        known_decorators = all(self._bundle.place(module, one) == ("dataclasses", "dataclass") for one in decorators)
        is_data = known_decorators and bool(known or names & _DATA_BASES or decorators)
        if not is_data or any(keyword.arg in (None, "metaclass") for keyword in node.keywords):
            raise Refusal(
                f"{module}.{node.name}, line {node.lineno}: found a class with other bases, expected a msgspec.Struct, "
                "an enum, a dataclass, a NamedTuple or a TypedDict"
            )
        kept = [one for one in node.body if isinstance(one, ast.AnnAssign | ast.Assign) or _is_doc(one)]
        made = ast.ClassDef(node.name, node.bases, node.keywords, kept or [ast.Pass()], node.decorator_list)
        made = ast.fix_missing_locations(ast.copy_location(made, node))
        _Unquote().visit(made)
        parts: list[ast.AST | None] = [*made.bases, *made.keywords, *made.decorator_list]
        local = {name for one in kept for name in _targets(one)}
        for one in made.body:
            if isinstance(one, ast.AnnAssign):
                parts += [one.annotation, one.value]
            elif isinstance(one, ast.Assign):
                parts += [one.value]
        for part in parts:
            if part is not None and not (isinstance(part, ast.Name) and part.id in local):
                self._require(module, part, node.name)
        return made


def _targets(node: ast.stmt) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [one.id for one in targets if isinstance(one, ast.Name)]


class _Unquote(ast.NodeTransformer):
    """Types that are written as text become types; texts that are values stay."""

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        if ast.unparse(node.value).rpartition(".")[2] in _LITERAL:
            return node
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = self.visit(node.annotation)
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.body = [self.visit(one) if isinstance(one, ast.AnnAssign) else one for one in node.body]
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if not isinstance(node.value, str):
            return node
        try:
            return ast.copy_location(ast.parse(node.value, mode="eval").body, node)
        except (SyntaxError, ValueError):
            return node


def _only_from(mark: ast.expr) -> tuple[str, ...] | None:
    for keyword in mark.keywords if isinstance(mark, ast.Call) else ():
        if keyword.arg == "only_from":
            try:
                value = ast.literal_eval(keyword.value)
            except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
                return None  # computed: whoever it is for, the actor refuses the others itself
            return tuple(str(one) for one in value) if isinstance(value, tuple | list | set) else None
    return None


def _is_doc(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _expression(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


_MESSAGE: Final = SourceOperation(
    "message",
    (
        Argument("body", _expression("object"), None),
        Argument("wait", _expression("float"), _expression("0.0")),
    ),
    _expression("list[object]"),
    "Send `body` to the actor's `receiveMessage`; what it sent back, oldest first. Waits `wait` seconds for it.",
    None,
)
