"""Reading a tree of plain values by a schema, with errors that say file, line, place, found, expected and the mend.

May not: know what is read: manifests and approvers' files have their own rules. Rule: docs/architecture.md, "Errors".
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from .keys import PublicKey, SigningError
from .manifest_error import ManifestCode, ManifestError
from .manifest_yaml import Node, Plain


@dataclass(frozen=True, slots=True)
class Field:
    """One value in its place: `actors.counter.replicas` of line 12 of a file."""

    node: Node
    path: str
    filename: str

    def refuse(
        self, code: ManifestCode, found: str, expected: str, mend: str, *, line: int | None = None
    ) -> ManifestError:
        """The error to raise about this value."""
        at = self.node.line if line is None else line
        where = f"{self.filename}:{at}" if at else self.filename
        place = f"{self.path}: " if self.path else ""
        return ManifestError(code, f"{where}: {place}found {found}, expected {expected}: {mend}")

    def found(self) -> str:
        """The value in words, cut to what fits a line."""
        match self.node.value:
            case None:
                return "nothing"
            case bool(value):
                return "true" if value else "false"
            case str(value):
                return f"the text {value[:80]!r}"
            case int(value) | float(value):
                return f"the number {value}"
            case tuple(value):
                return f"a list of {len(value)}"
            case _:
                return "a mapping"

    def wrong_type(self, expected: str, mend: str) -> ManifestError:
        return self.refuse(ManifestCode.WRONG_TYPE, self.found(), expected, mend)

    def child(self, key: str, node: Node) -> Field:
        return Field(node, f"{self.path}.{key}" if self.path else key, self.filename)

    # ---- containers

    def entries(self, *, most: int) -> dict[str, Field]:
        """A mapping with names of the writer's choice as keys; nothing at all counts as an empty one."""
        value = self.node.value
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise self.wrong_type("a mapping", "write `key: value` lines below it, or {}")
        if len(value) > most:
            raise self.refuse(ManifestCode.TOO_LARGE, f"{len(value)} entries", f"at most {most}", "leave some out")
        return {key: self.child(key, node) for key, node in value.items()}

    def mapping(self, required: Collection[str], optional: Collection[str] = ()) -> dict[str, Field]:
        """A mapping with exactly these keys allowed."""
        known = [*required, *optional]
        if not isinstance(self.node.value, Mapping):
            raise self.wrong_type(f"a mapping with {', '.join(known)}", "write `key: value` lines below it")
        for key in self.node.value:
            if key not in known:
                close = difflib.get_close_matches(key, known, 1, 0.5)
                mend = f"did you mean {close[0]!r}?" if close else "remove it"
                line = self.node.key_lines[key]
                expected = "one of " + ", ".join(known)
                raise self.refuse(ManifestCode.UNKNOWN_KEY, f"the key {key[:80]!r}", expected, mend, line=line)
        for key in required:
            if key not in self.node.value:
                raise self.refuse(ManifestCode.MISSING_KEY, f"no key {key!r}", "it", f"add `{key}: ...`")
        return {key: self.child(key, node) for key, node in self.node.value.items()}

    def items(self, *, most: int) -> list[Field]:
        """A list; nothing at all counts as an empty one."""
        value = self.node.value
        if value is None:
            return []
        if not isinstance(value, tuple):
            raise self.wrong_type("a list", "write it in brackets: [a, b]")
        if len(value) > most:
            raise self.refuse(ManifestCode.TOO_LARGE, f"a list of {len(value)}", f"at most {most}", "leave some out")
        return [Field(node, f"{self.path}[{index}]", self.filename) for index, node in enumerate(value)]

    def set_of(self, read: Callable[[Field], str], *, least: int, most: int) -> tuple[str, ...]:
        """A list in which order means nothing and nothing stands twice, sorted."""
        items = self.items(most=most)
        if len(items) < least:
            raise self.refuse(
                ManifestCode.BAD_VALUE, "an empty list", f"at least {least}", "name it, or drop the whole"
            )
        found: set[str] = set()
        for item in items:
            text = read(item)
            if text in found:
                raise item.refuse(ManifestCode.DUPLICATE, f"{text!r} again", "each once", "remove one of them")
            found.add(text)
        return tuple(sorted(found))

    # ---- scalars

    def text(self, is_right: Callable[[str], object], expected: str, *, mend: str = "correct it") -> str:
        value = self.node.value
        if not isinstance(value, str):
            raise self.wrong_type(f"text ({expected})", "put it in quotes if it is meant as text")
        if not is_right(value):
            raise self.refuse(ManifestCode.BAD_VALUE, self.found(), expected, mend)
        return value

    def integer(self, low: int, high: int) -> int:
        value = self.node.value
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong_type(f"a whole number from {low} to {high}", "write digits, without quotes")
        if not low <= value <= high:
            raise self.refuse(ManifestCode.OUT_OF_RANGE, f"{value}", f"{low} to {high}", "choose one in that range")
        return value

    def boolean(self) -> bool:
        value = self.node.value
        if not isinstance(value, bool):
            raise self.wrong_type("true or false", "write it without quotes")
        return value

    def choice(self, options: Collection[str]) -> str:
        def close(value: str) -> str:
            near = difflib.get_close_matches(value, list(options), 1, 0.5)
            return f"did you mean {near[0]!r}?" if near else "choose one of them"

        value = self.node.value
        mend = close(value) if isinstance(value, str) else ""
        return self.text(lambda text: text in options, "one of " + ", ".join(sorted(options)), mend=mend)

    def one_of_names(self, known: Collection[str], kind: str, section: str) -> str:
        """Text that names an entry of another section. Raises UNKNOWN_NAME with the nearest."""
        name = self.text(lambda _: True, f"the name of {kind}")
        if name not in known:
            near = difflib.get_close_matches(name, list(known), 1, 0.5)
            mend = f"did you mean {near[0]!r}?" if near else f"add it under `{section}`"
            raise self.refuse(ManifestCode.UNKNOWN_NAME, f"the name {name[:80]!r}", f"{kind} under `{section}`", mend)
        return name

    def digest(self, algorithm: str, size: int) -> bytes:
        """`sha256:<hex>` or `sha384:<hex>` in small letters, as bytes."""
        pattern = re.compile(rf"{algorithm}:[0-9a-f]{{{2 * size}}}")
        text = self.text(
            pattern.fullmatch, f"{algorithm}: and {2 * size} hex digits", mend="copy it from the tool that printed it"
        )
        return bytes.fromhex(text.partition(":")[2])

    def key(self) -> PublicKey:
        """A public key in its text form."""
        text = self.text(lambda _: True, "a key: ed25519:BASE64 or p384:BASE64")
        try:
            return PublicKey.parse(text)
        except SigningError as error:
            raise self.refuse(
                ManifestCode.BAD_VALUE, f"no key ({error.sentence})", "ed25519:BASE64 or p384:BASE64", "copy it anew"
            ) from None

    def plain(self) -> Plain:
        """Whatever stands here, as plain data (a provider's own configuration)."""
        value = self.node.value
        if isinstance(value, Mapping):
            return {key: self.child(key, node).plain() for key, node in value.items()}
        if isinstance(value, tuple):
            return [self.child(str(index), node).plain() for index, node in enumerate(value)]
        return value
