"""A bundle's modules as their source says them: what each defines, what it imports, which class stands on which.

May not: import, execute or evaluate anything of a bundle. Rule: docs/decisions/0008-stubs-from-source.md.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from .refusal import Refusal

_MAX_BASES: Final = 32

Place = tuple[str, str]
"""A module and a name in it."""


@dataclass
class BundleModule:
    """What a module's top level defines and imports."""

    name: str
    definitions: dict[str, ast.stmt] = field(default_factory=dict)
    imported: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    """Name here -> module, and the name there (None: the module itself)."""


class BundleModules:
    """The modules of one bundle, parsed when they are asked for."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files
        self._modules: dict[str, BundleModule | None] = {}

    def module(self, name: str) -> BundleModule | None:
        """A module of the bundle by its full name, or None. Raises `Refusal` when it is no Python."""
        if name not in self._modules:
            path = name.replace(".", "/")
            file = next((one for one in (f"{path}.py", f"{path}/__init__.py") if one in self._files), None)
            self._modules[name] = self._parse(name, file) if file is not None else None
        return self._modules[name]

    def _parse(self, name: str, file: str) -> BundleModule:
        try:
            tree = ast.parse(self._files[file], file)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise Refusal(f"{file} is no Python: {error}") from None
        module = BundleModule(name)
        package = name if file.endswith("/__init__.py") else name.rpartition(".")[0]
        for statement in _statements(tree.body):
            match statement:
                case ast.ClassDef():
                    module.definitions[statement.name] = statement
                case ast.Assign(targets=[ast.Name(id=target)]) | ast.AnnAssign(target=ast.Name(id=target)):
                    module.definitions[target] = statement
                case ast.Import():
                    for alias in statement.names:
                        bound = alias.asname or alias.name.partition(".")[0]
                        module.imported[bound] = (alias.name if alias.asname else bound, None)
                case ast.ImportFrom():
                    source = _absolute(package, statement)
                    for alias in statement.names:
                        module.imported[alias.asname or alias.name] = (source, alias.name)
                case _:
                    pass
        return module

    def lineage(self, module: str, name: str, depth: int = 0) -> Iterator[tuple[str, ast.ClassDef]]:
        """The class and its bases within the bundle, nearest first."""
        found = self.module(module)
        node = found.definitions.get(name) if found is not None else None
        if not isinstance(node, ast.ClassDef) or depth > _MAX_BASES:
            raise Refusal(f"found no class {name} in the bundle's module {module}, expected its definition there")
        yield module, node
        for base in node.bases:
            place = self.place(module, base)
            if place is not None and self.module(place[0]) is not None:
                yield from self.lineage(*place, depth + 1)

    def place(self, module: str, node: ast.expr) -> Place | None:
        """Where a class that is named in an expression is defined: a module and a name."""
        found = self.module(module)
        if found is None:
            return None
        if isinstance(node, ast.Subscript):
            return self.place(module, node.value)
        if isinstance(node, ast.Name):
            if node.id in found.definitions:
                return module, node.id
            source, name = found.imported.get(node.id, ("", None))
            return (source, name) if name is not None else None
        if isinstance(node, ast.Attribute):
            dotted = ast.unparse(node.value)
            source, name = found.imported.get(dotted.partition(".")[0], (dotted, None))
            rest = dotted.partition(".")[2]
            return ".".join(part for part in (source, name, rest) if part), node.attr
        return None


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """A module's statements, those under `if TYPE_CHECKING:` and `try:` included."""
    for one in body:
        if isinstance(one, ast.If | ast.Try):
            yield from _statements(one.body)
            yield from _statements(one.orelse)
        else:
            yield one


def _absolute(package: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")[: len(package.split(".")) - node.level + 1] if package else []
    return ".".join([*parts, *([node.module] if node.module else [])])
