"""Writes the tables of the documents from the code, between `<!-- generated: NAME -->` and `<!-- end -->`.

May not: write anything but what the code says. `python docs/generate.py` writes; with `--check` it only says what is
out of date, and `tests/docs` does the same. Rule: CONTRIBUTING.md, "Documents".
"""

from __future__ import annotations

import ast
import enum
import importlib.metadata
import inspect
import itertools
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import typer.main

from tea.parent_client import cli
from tea.protocol import channels as channel_module
from tea.protocol import frame
from tea.protocol.channels import Channel
from tea.protocol.errors import Code
from tea.protocol.operations import operations_of
from tea.providers.base import Provider
from tea.runtime.phases import TRANSITIONS, Phase
from tea.runtime.worker import offered
from tea.trust.manifest_model import Limits, Restart
from tea.trust.statement import ACTOR_KINDS, Kind

ROOT: Final = Path(__file__).resolve().parent.parent
FILES: Final = ("README.md", "docs/architecture.md", "docs/providers.md", "docs/actors.md")
ORDER: Final = ("vmh", "nitro", "kvp", "crypto", "intercom", "layer1", "env", "log", "clock")

LATER: Final = {
    "vmh": "-",
    "nitro": "-",
    "kvp": "-",
    "crypto": "-",
    "intercom": "-",
    "layer1": "Substrate; values proven against headers",
    "env": "-",
    "log": "-",
    "clock": "-",
}
"""What the design asks of a provider and no operation does yet."""

KINDS: Final = {
    "CALL": "a call; it ends in exactly one REPLY or ERROR",
    "REPLY": "its result; `correlation` is the call's",
    "ERROR": "its refusal: msgpack `[code, sentence, details]`",
    "TELL": "a message without an answer",
    "CREDIT": "what was received and consumed: gives room back (vsock: of a session; socketpair: of a link's window)",
    "HELLO": "the first frame: versions and session (vsock), or what a worker is (socketpair)",
    "PING": "asks whether the other end is alive; vsock: for a CREDIT",
    "BYE": "the end: finish what is in hand, then close; with a correlation, of that call alone: nobody waits for it",
}


# -- reading the code ----------------------------------------------------------------------------------------------


def providers() -> dict[str, type[Provider[Any]]]:
    """The provider classes by name, in the design's order; what the design does not name comes last."""
    found = {point.name: point.load() for point in importlib.metadata.entry_points(group="tea.providers")}
    return {name: found[name] for name in sorted(found, key=lambda one: (*ORDER, one).index(one))}


def commands() -> dict[str, Any]:
    """teactl's commands by their full name (`bundle build`), with every option."""
    found: dict[str, Any] = {}

    def walk(prefix: str, command: Any) -> None:
        for name, one in command.commands.items():
            full = f"{prefix} {name}".strip()
            if hasattr(one, "commands"):
                walk(full, one)
            else:
                found[full] = one

    for point in importlib.metadata.entry_points(group=cli.GROUP):
        point.load()  # teactl leaves out what it cannot load, and the documents must not
    walk("", typer.main.get_command(cli.build()))
    return dict(sorted(found.items()))


def member_docs(cls: type[enum.Enum]) -> dict[str, str]:
    """The docstrings under the members of an enum, by member name, on one line."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    docs: dict[str, str] = {}
    for before, after in itertools.pairwise(body):
        if isinstance(before, ast.Assign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            target = before.targets[0]
            if isinstance(target, ast.Name) and isinstance(after.value.value, str):
                docs[target.id] = " ".join(after.value.value.split())
    return docs


def first_sentence(doc: str) -> str:
    """The first sentence of a docstring: up to a full stop before a capital, or the first paragraph."""
    paragraph = " ".join(doc.split("\n\n")[0].split())
    match = re.match(r"(.*?[.:!?)])\s+(?=[A-Z][a-z]|[A-Z]{4,}\b)", paragraph)
    return (match[1] if match else paragraph).rstrip(":")


# -- writing Markdown ----------------------------------------------------------------------------------------------


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table; a `|` in a cell is escaped."""
    titles = list(head)
    lines = ["| " + " | ".join(titles) + " |", "| " + " | ".join("---" for _ in titles) + " |"]
    lines += ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def code(text: str) -> str:
    """Text as inline code; names of modules before a type's name go."""
    return "`" + re.sub(r"\btea\.[a-z0-9_.]+\.(?=[A-Z])", "", text) + "`"


def wrapped(names: Iterable[str]) -> str:
    """Names as inline code, separated by commas, over lines of at most 118 characters."""
    return textwrap.fill(", ".join(f"`{name}`" for name in names), 118, break_on_hyphens=False, break_long_words=False)


# -- the sections --------------------------------------------------------------------------------------------------


def provider_summary() -> str:
    """README and architecture: what each provider can do today, and what not yet."""
    return table(
        ("provider", "operations today", "left for later"),
        ((name, ", ".join(cls.operations()), LATER.get(name, "-")) for name, cls in providers().items()),
    )


def provider_reference() -> str:
    """Every operation of every provider, with its signature and what it does."""
    return "\n\n".join(_one_provider(name, cls) for name, cls in providers().items())


def _one_provider(name: str, cls: type[Provider[Any]]) -> str:
    module = sys.modules[f"tea.providers.{name}"]
    parts = [f"## {name}", first_sentence(inspect.getdoc(cls) or inspect.getdoc(module) or "")]
    if cls.requires:
        parts.append(f"Requires: {', '.join(cls.requires)}.")
    parts.append(
        table(
            ("operation", "what it does"),
            ((code(one.signature()), first_sentence(one.description.doc)) for one in cls.operations().values()),
        )
    )
    fields = msgspec.structs.fields(cls.config_type)
    if fields:
        rows = (
            (f"`{one.encode_name}`", _type(one.type), _default(one), "yes" if one.name in cls.in_place else "no")
            for one in fields
        )
        header = ("key", "type", "default", "an upgrade may change it")
        parts += ["Configuration, in the manifest under `providers`:", table(header, rows)]
    else:
        parts.append("No configuration: `{}`.")
    return "\n\n".join(parts)


def _type(hint: Any) -> str:
    info = msgspec.inspect.type_info(hint)
    text = {"IntType": "integer", "FloatType": "number", "StrType": "text"}.get(type(info).__name__)
    if text is not None:
        bounds = [f"{word} {getattr(info, name):,}" for name, word in _BOUNDS if getattr(info, name, None) is not None]
        return ", ".join([text, *bounds])
    if isinstance(info, msgspec.inspect.EnumType):
        return " or ".join(f"`{one.value}`" for one in info.cls)
    return code(str(hint) if not isinstance(hint, type) or hasattr(hint, "__args__") else hint.__name__)


_BOUNDS: Final = (("gt", "over"), ("ge", "at least"), ("lt", "under"), ("le", "at most"))


def _default(one: msgspec.structs.FieldInfo) -> str:
    if one.default is not msgspec.NODEFAULT:
        value = one.default.value if isinstance(one.default, enum.Enum) else one.default
        return f"`{list(value) if isinstance(value, tuple) else value}`"
    if one.default_factory is not msgspec.NODEFAULT:
        return f"`{one.default_factory()}`"
    return "required"


def phases() -> str:
    """The boot as a table, from the host's own."""
    docs = member_docs(Phase)
    rows = []
    for phase, exits in TRANSITIONS.items():
        success, failure = (f"`{one.value}`" if one else "-" for one in exits)
        rows.append((f"`{phase.value}`", docs.get(phase.name, ""), success, failure))
    return table(("phase", "what happens", "on success", "on failure"), rows)


def frame_header() -> str:
    """The frame's header, from the codec's own description."""
    lines = inspect.getdoc(frame) or ""
    rows = re.findall(r"^ {4}(\d+)\s+(\d+|\.\.\.)\s+(\w+)(?: {2,}(.*))?$", lines, re.MULTILINE)
    return table(("offset", "bytes", "field", "meaning"), ((a, b, f"`{c}`", d) for a, b, c, d in rows))


def frame_kinds() -> str:
    """The kinds of frames."""
    rows = ((int(kind), f"`{kind.name}`", KINDS[kind.name]) for kind in frame.Kind)
    return table(("number", "kind", "meaning"), rows)


def error_codes() -> str:
    """The closed set of error codes."""
    docs = member_docs(Code)
    return table(("number", "code", "meaning"), ((int(one), f"`{one.name}`", docs[one.name]) for one in Code))


def channels() -> str:
    """The channels between an enclave and its parent: each interface says in its docstring whose it is."""
    rows: list[tuple[int, str, str, str]] = []
    for interface in vars(channel_module).values():
        said = re.match(r"([A-Z]+), answered by the (enclave|parent)", inspect.getdoc(interface) or "")
        if isinstance(interface, type) and said is not None:
            rows.append((int(Channel[said[1]]), f"`{said[1]}`", said[2], ", ".join(operations_of(interface))))
    rows.sort(key=lambda row: row[0])
    return table(("number", "channel", "answered by", "operations"), rows)


def statement_kinds() -> str:
    """What a statement may be for."""
    docs = member_docs(Kind)
    rows = (
        (f"`{kind.value}`", "an actor" if kind in ACTOR_KINDS else "the host", docs[kind.name].partition(": ")[2])
        for kind in Kind
    )
    return table(("kind", "who speaks", "what it says"), rows)


def modules() -> str:
    """What a worker offers its actor."""
    return (
        "Of the standard library:\n\n"
        + wrapped(offered.STANDARD_LIBRARY)
        + ".\n\nLibraries:\n\n"
        + wrapped(offered.LIBRARIES)
        + "."
    )


def limits() -> str:
    """Defaults of an actor's limits and restarts in the manifest."""
    rows = []
    for key, what, defaults in (("limits", _LIMITS, Limits()), ("restart", _RESTART, Restart())):
        for name, meaning in what.items():
            value = getattr(defaults, name)
            rows.append((f"`{key}.{name}`", "none" if value is None else f"`{value}`", meaning))
    return table(("key", "default", "meaning"), rows)


_LIMITS: Final = {
    "memory_mib": "memory that one replica may take beyond what a worker has at its start, in MiB",
    "cpu_seconds": "CPU time of one replica's whole life, in seconds",
    "in_flight": "calls that one replica may have made and not yet been answered",
    "kvp_bytes": "key-value memory, all replicas together, in bytes",
    "mailbox": "calls and messages that may wait for one replica",
    "fuel": "instructions that one call of a wasm bundle may take ([wasm.md](wasm.md))",
}
_RESTART: Final = {
    "strategy": "what is restarted when a replica ends unasked: that replica",
    "intensity": "restarts within `period_s` before the actor stays down",
    "period_s": "seconds",
    "backoff_ms": "delay before the first restart, with jitter; it doubles",
    "backoff_max_ms": "longest delay",
}


def teactl() -> str:
    """Every command of teactl."""
    return table(
        ("command", "what it does"),
        ((f"`teactl {name}{_arguments(one)}`", one.get_short_help_str(200)) for name, one in commands().items()),
    )


def _arguments(command: Any) -> str:
    words = []
    for one in command.params:
        if one.param_type_name == "argument":
            word = one.name.upper() + ("..." if one.nargs == -1 else "")
            words.append(word if one.required else f"[{word}]")
    return "".join(f" {word}" for word in words)


SECTIONS: Final[dict[str, Callable[[], str]]] = {
    "provider summary": provider_summary,
    "provider reference": provider_reference,
    "phases": phases,
    "frame header": frame_header,
    "frame kinds": frame_kinds,
    "error codes": error_codes,
    "channels": channels,
    "statement kinds": statement_kinds,
    "modules": modules,
    "limits": limits,
    "teactl": teactl,
}

_SECTION: Final = re.compile(r"<!-- generated: ([a-z0-9 ]+) -->\n((?:(?!<!-- ).*\n)*)<!-- end -->")


def generated(text: str) -> str:
    """A document's text with every generated section written anew. Raises `KeyError` on an unknown section."""
    opened = text.count("<!-- generated: ")
    if not opened == text.count("<!-- end -->") == len(_SECTION.findall(text)):
        raise ValueError("a generated section has no end, or another begins within it: see CONTRIBUTING.md, Documents")
    return _SECTION.sub(lambda one: f"<!-- generated: {one[1]} -->\n\n{SECTIONS[one[1]]()}\n\n<!-- end -->", text)


def outdated() -> Iterator[tuple[Path, str]]:
    """The documents that are not what the code says, with the text that they should have."""
    for name in FILES:
        path = ROOT / name
        before = path.read_text()
        after = generated(before)
        if after != before:
            yield path, after


def main(arguments: list[str]) -> int:
    """Write, or with `--check` only look. 0: all was up to date or is now; 1: `--check` found something."""
    found = list(outdated())
    for path, text in found:
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")
        if "--check" not in arguments:
            path.write_text(text)
    return 1 if found and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
