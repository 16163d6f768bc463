"""YAML as people write manifests, read into a tree in which every value knows its line. Parses; judges no meaning.

May not: resolve aliases, anchors, tags or merge keys, accept a key twice or two documents, or guess types as YAML 1.1
does (`on`, `no`, `1:30`, dates and leading zeros are text here).
Rule: YAML 1.2 section 10.2 (JSON schema); docs/architecture.md, "Bundle, manifest, measured boot".
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import yaml

from .manifest_error import ManifestCode, ManifestError

MAX_TEXT: Final = 1 << 20
"""Characters of a YAML file."""
MAX_DEPTH: Final = 12
"""Levels of nesting; canonical CBOR has room for more."""

Scalar = None | bool | int | float | str
Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]
"""Plain data without bytes: what YAML can say."""

_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)")
_FLOAT: Final = re.compile(r"-?(?:0|[1-9][0-9]*)\.[0-9]+(?:[eE][-+]?[0-9]+)?")
_WORDS: Final[Mapping[str, Scalar]] = {"": None, "~": None, "null": None, "true": True, "false": False}
_MAX_INTEGER: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Node:
    """One value of the tree, with the line (from 1; 0: there is none) on which it starts."""

    value: Scalar | tuple[Node, ...] | Mapping[str, Node]
    line: int
    key_lines: Mapping[str, int]
    """For a mapping: the line of each key."""


def read_yaml(text: str, filename: str) -> Node:
    """The tree of one document. Raises `ManifestError`: SYNTAX, TOO_LARGE, ALIAS, TAG, DUPLICATE_KEY, OUT_OF_RANGE."""
    if len(text) > MAX_TEXT:
        raise ManifestError(
            ManifestCode.TOO_LARGE, f"{filename}: found {len(text)} characters, expected at most {MAX_TEXT}"
        )
    try:
        return _Builder(filename, yaml.parse(text, Loader=yaml.SafeLoader)).document()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ManifestError(
            ManifestCode.SYNTAX,
            f"{filename}:{line}: found {error.problem or 'what is no YAML'}, expected YAML: mend it",
        ) from None
    except (yaml.YAMLError, ValueError, OverflowError):
        # The last two come out of PyYAML for escapes beyond Unicode ("\UFFFFFFFF").
        raise ManifestError(
            ManifestCode.SYNTAX, f"{filename}: found characters that YAML forbids, expected text: remove them"
        ) from None


def node_of(value: object) -> Node:
    """The tree of decoded canonical CBOR, without lines. Raises `ManifestError(WRONG_TYPE)` on bytes or other keys."""
    if isinstance(value, dict):
        entries: dict[str, Node] = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise ManifestError(ManifestCode.WRONG_TYPE, f"found the key {key!r}, expected keys that are text")
            entries[key] = node_of(item)
        return Node(entries, 0, dict.fromkeys(entries, 0))
    if isinstance(value, list):
        return Node(tuple(node_of(item) for item in value), 0, {})
    if value is None or isinstance(value, (bool, int, float, str)):
        return Node(value, 0, {})
    raise ManifestError(
        ManifestCode.WRONG_TYPE, f"found {type(value).__name__}, expected text, numbers, lists and mappings"
    )


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 0


class _Builder:
    """Makes the tree out of PyYAML's events: its own constructors would lose lines and resolve what we refuse."""

    def __init__(self, filename: str, events: Iterator[yaml.Event]) -> None:
        self._filename = filename
        self._events = events

    def document(self) -> Node:
        self._next()  # the stream's start
        if not isinstance(event := self._next(), yaml.DocumentStartEvent):
            raise self._refuse(ManifestCode.SYNTAX, event, "an empty file", "one document", "write it")
        if event.tags:
            raise self._refuse(ManifestCode.TAG, event, "a %TAG directive", "none", "remove it")
        root = self._node(self._next(), 1)
        self._next()  # the document's end
        if not isinstance(event := self._next(), yaml.StreamEndEvent):
            raise self._refuse(ManifestCode.SYNTAX, event, "a second document", "one", "put it into a file of its own")
        return root

    def _next(self) -> yaml.Event:
        return next(self._events)

    def _node(self, event: yaml.Event, depth: int) -> Node:
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise self._refuse(
                ManifestCode.ALIAS, event, "an anchor or alias", "values written out", "write it where it is meant"
            )
        if getattr(event, "tag", None) is not None:
            raise self._refuse(ManifestCode.TAG, event, "a tag", "plain values", "remove it, and quote what is text")
        if depth > MAX_DEPTH:
            raise self._refuse(ManifestCode.TOO_LARGE, event, f"over {MAX_DEPTH} levels", "fewer", "make it flatter")
        line = _line(event)
        if isinstance(event, yaml.ScalarEvent):
            self._require_unicode(event)
            return Node(self._scalar(event), line, {})
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Node] = []
            while not isinstance(event := self._next(), yaml.SequenceEndEvent):
                items.append(self._node(event, depth + 1))
            return Node(tuple(items), line, {})
        entries: dict[str, Node] = {}
        key_lines: dict[str, int] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = self._key(event, depth)
            if key in entries:
                raise self._refuse(
                    ManifestCode.DUPLICATE_KEY,
                    event,
                    f"the key {key[:80]!r} again (first on line {key_lines[key]})",
                    "each key once",
                    "remove one of them",
                )
            key_lines[key] = _line(event)
            entries[key] = self._node(self._next(), depth + 1)
        return Node(entries, line, key_lines)

    def _key(self, event: yaml.Event, depth: int) -> str:
        if isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            raise self._refuse(ManifestCode.WRONG_TYPE, event, "a list or mapping as a key", "text", "use a name")
        self._node(event, depth)  # for the marks that a value is refused for
        return str(getattr(event, "value", ""))

    def _require_unicode(self, event: yaml.ScalarEvent) -> None:
        # An escape such as "\\ud800" gives half a character, which has no encoding to hash.
        try:
            event.value.encode("utf-8")
        except UnicodeEncodeError:
            raise self._refuse(ManifestCode.SYNTAX, event, "half a character", "text", "mend the escape") from None

    def _scalar(self, event: yaml.ScalarEvent) -> Scalar:
        text: str = event.value
        if event.style is not None:  # quoted or block: always text
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _INTEGER.fullmatch(text):
            # The length first: int() takes quadratic time, and refuses over 4,300 digits with an error of its own.
            if len(text) > 20 or abs(number := int(text)) > _MAX_INTEGER:
                raise self._refuse(
                    ManifestCode.OUT_OF_RANGE, event, "a number of over 63 bits", "less", "quote it if it is text"
                )
            return number
        if _FLOAT.fullmatch(text):
            if not math.isfinite(real := float(text)):
                raise self._refuse(
                    ManifestCode.OUT_OF_RANGE, event, "an infinite number", "less", "quote it if it is text"
                )
            return real
        return text

    def _refuse(self, code: ManifestCode, event: yaml.Event, found: str, expected: str, mend: str) -> ManifestError:
        line = _line(event)
        return ManifestError(code, f"{self._filename}:{line}: found {found}, expected {expected}: {mend}")
