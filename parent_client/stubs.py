"""Typed clients of an actor, as Python source: a class for actors with a link to it, one for the parent's programs.

May not: run anything of the actor (`stub_source` parses). Rule: docs/decisions/0008-stubs-from-source.md.
"""

from __future__ import annotations

import ast
import hashlib
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tea.trust import canonical
from tea.trust.archive import build_archive, read_archive
from tea.trust.bundle import MAX_BUNDLE, inspect_bundle

from .building import DESCRIPTION, read_bundle_file, read_source, source_files
from .refusal import Refusal
from .stub_source import SourceActor, SourceOperation, read_actor

PARENT: Final = "parent"
_LINK_WORDS: Final = frozenset(["describe", "later", "returning", "stub", "tell", "with_timeout"])
"""Attributes of a link itself: operations of these names are asked for by `link["name"]`."""


def stubs_of(path: Path) -> str:
    """The stubs of a bundle file, or of a project's folder. Raises `Refusal`, `BundleError` or `ManifestError`.

    Nothing is verified: stubs are source for a person to read, and what they call is checked where it runs.
    """
    if path.is_dir():
        source = read_source(path / DESCRIPTION)
        _require_python(path, source.kind)
        files: Mapping[str, bytes] = source_files(path, source)
        return render(read_actor(files, source.entry), source.name, source.version, _digest(build_archive(files)))
    data = read_bundle_file(path)
    bundle = inspect_bundle(data)
    _require_python(path, bundle.claims.kind)
    if not bundle.archive_matches:
        raise Refusal(f"{path}: found another archive than its claims name, expected the one that was signed")
    match canonical.decode(data, limit=MAX_BUNDLE):
        case [_, bytes(archive)]:
            actor = read_actor(read_archive(archive), bundle.claims.entry)
            return render(actor, bundle.claims.name, bundle.claims.version, _digest(archive))
        case _:
            raise RuntimeError("inspect_bundle let something else than a bundle pass")


def _require_python(path: Path, kind: str) -> None:
    if kind != "python":
        raise Refusal(f"{path}: found an actor of the kind {kind}, expected python: of another there is no source")


def _digest(archive: bytes) -> str:
    return f"sha256:{hashlib.sha256(archive).hexdigest()}"


def render(actor: SourceActor, name: str, version: str, digest: str) -> str:
    """The module's text."""
    asked = [one for one in actor.operations if one.only_from is None or not _is_told(one.only_from)]
    outside = [one for one in actor.operations if one.only_from is None or PARENT in one.only_from]
    link, client = f"{actor.class_name}Link", f"{actor.class_name}Client"
    parts = [
        f'"""Typed clients of the actor {name} {version}, written by `teactl bundle stubs`: do not change it.\n\n'
        f"`{link}(self.LINK)` is for actors with a link to it, `{client}(client)` for programs on the parent.\n"
        f"Archive {digest}.\n"
        '"""',
        "# ruff: noqa\nfrom __future__ import annotations",
        "\n".join(
            [
                *actor.imports,
                "from typing import Any as _Any",
                "from typing import Protocol as _Protocol",
                "",
                "import msgspec as _msgspec",
                "",
                "from tea.sdk import Link as _Link",
            ]
        ),
        *(ast.unparse(one) for one in actor.types),
        _link_class(link, actor, asked),
        "class _Operator(_Protocol):\n"
        '    """What asks a runtime client: `tea.parent_client.operating.OperatorClient`."""\n\n'
        "    async def ask(self, name: str, *args: object) -> _Any: ...",
        _client_class(client, actor, name, outside),
    ]
    return "\n\n\n".join(parts) + "\n"


def _is_told(only_from: tuple[str, ...]) -> bool:
    return all(one == PARENT or one.startswith("provider:") for one in only_from)


def _link_class(name: str, actor: SourceActor, operations: list[SourceOperation]) -> str:
    prepared = [f"        self._{one.name} = {_returning(one)}" for one in operations]
    return "\n\n".join(
        [
            f"class {name}:\n{_doc(actor.doc or f'A link to {actor.class_name}.', 1).rstrip()}",
            "    def __init__(self, link: _Link) -> None:\n" + "\n".join(prepared or ["        pass"]),
            *(_link_method(one) for one in operations),
        ]
    )


def _returning(one: SourceOperation) -> str:
    return "link" if _is_none(one) else f"link.returning({ast.unparse(one.result)})"


def _link_method(one: SourceOperation) -> str:
    operation = f'["{one.name}"]' if one.name in _LINK_WORDS else f".{one.name}"
    call = f"self._{one.name}{operation}({', '.join(argument.name for argument in one.arguments)})"
    return f"    {_signature(one)}\n{_doc(one.doc, 2)}{_answer(one, call)}"


def _client_class(name: str, actor: SourceActor, actor_name: str, operations: list[SourceOperation]) -> str:
    return "\n\n".join(
        [
            f"class {name}:\n{_doc(actor.doc or f'{actor.class_name}, from the parent.', 1).rstrip()}",
            f"    def __init__(self, client: _Operator, actor: str = {actor_name!r}) -> None:\n"
            "        self._client = client\n        self._actor = actor",
            "    async def _ask(self, operation: str, result: _Any, *arguments: object) -> _Any:\n"
            "        body = _msgspec.msgpack.encode(arguments)\n"
            '        answer = await self._client.ask("call", self._actor, operation, body)\n'
            "        return _msgspec.msgpack.decode(answer, type=result)",
            *(_client_method(one) for one in operations),
        ]
    )


def _client_method(one: SourceOperation) -> str:
    arguments = "".join(f", {argument.name}" for argument in one.arguments)
    call = f'await self._ask("{one.name}", {ast.unparse(one.result)}{arguments})'
    return f"    async {_signature(one)}\n{_doc(one.doc, 2)}{_answer(one, call)}"


def _answer(one: SourceOperation, call: str) -> str:
    if _is_none(one):
        return f"        {call}"
    return f"        answer_: {ast.unparse(one.result)} = {call}\n        return answer_"


def _is_none(one: SourceOperation) -> bool:
    return isinstance(one.result, ast.Constant) and one.result.value is None


def _signature(one: SourceOperation) -> str:
    parameters = "".join(
        f", {argument.name}: {ast.unparse(argument.type)}"
        + ("" if argument.default is None else f" = {ast.unparse(argument.default)}")
        for argument in one.arguments
    )
    return f"def {one.name}(self{parameters}) -> {ast.unparse(one.result)}:"


def _doc(text: str, depth: int) -> str:
    if not text:
        return ""
    # Whatever the text holds, it stays one.
    safe = text.replace("\\", "\\\\").replace('"""', "'''")
    if safe.endswith('"'):
        safe += " "
    body = safe if "\n" not in safe else safe + "\n"
    return textwrap.indent(f'"""{body}"""', "    " * depth, lambda line: bool(line.strip())) + "\n"
