"""What a self-test found: one row for each operation that was tried, and for each refusal that was expected.

May not: stop at a failure; a row says it and the next check runs. Rule: README.md of this folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import msgspec

from tea.sdk import CallError, Code, Link

T = TypeVar("T")


class Row(msgspec.Struct, frozen=True):
    """One line of the table."""

    provider: str
    operation: str
    """With `(refused)` behind it where a refusal was the point."""
    ok: bool
    milliseconds: float
    note: str


class Unexpected(Exception):
    """An operation answered with something else than it should."""


def expect(found: object, expected: object, what: str = "the answer") -> None:
    """Raise `Unexpected` unless both are equal. Values appear in the note: never pass a secret."""
    if found != expected:
        raise Unexpected(f"{what} is {_short(found)}, expected {_short(expected)}")


def require(condition: bool, sentence: str) -> None:
    """Raise `Unexpected` with the sentence unless the condition holds."""
    if not condition:
        raise Unexpected(sentence)


class Rows:
    """The rows of one provider. Operations that the link does not grant are left out."""

    def __init__(self, provider: str, link: Link) -> None:
        self.provider = provider
        self.rows: list[Row] = []
        self._granted = {description.name for description in link.describe()}

    def granted(self, *operations: str) -> bool:
        """Whether the link grants all of these."""
        return self._granted.issuperset(operations)

    def works(
        self, operation: str, call: Callable[[], T], note: str = "", *, unless: tuple[Code, ...] = ()
    ) -> T | None:
        """Call it; what it answers, or None when it failed or is not granted.

        An error of one of the codes in `unless` is fine too: the thing is not there to be tried on (no chain, no peer).
        """
        if operation not in self._granted:
            return None
        started = time.perf_counter()
        try:
            answer = call()
        except CallError as error:
            self._add(operation, error.code in unless, started, f"{error.code.name}: {error.sentence}")
            return None
        except Exception as error:  # noqa: BLE001 - a check that breaks is a row, and the next one runs
            self._add(operation, False, started, f"{type(error).__name__}: {error}")
            return None
        self._add(operation, True, started, note)
        return answer

    def refuses(self, operation: str, codes: Code | tuple[Code, ...], call: Callable[[], object]) -> None:
        """Call it with something that it must refuse, with one of these codes."""
        if operation not in self._granted:
            return
        expected = codes if isinstance(codes, tuple) else (codes,)
        names = " or ".join(code.name for code in expected)
        name = f"{operation} (refused)"
        started = time.perf_counter()
        try:
            call()
        except CallError as error:
            ok = error.code in expected
            note = error.code.name if ok else f"expected {names}, got {error.code.name}: {error.sentence}"
            self._add(name, ok, started, note)
        except Exception as error:  # noqa: BLE001 - as above
            self._add(name, False, started, f"expected {names}, got {type(error).__name__}: {error}")
        else:
            self._add(name, False, started, f"expected {names}, but it was done")

    def finish(self) -> list[Row]:
        """The rows, and one more for each granted operation that no check has tried."""
        tried = {row.operation.removesuffix(" (refused)") for row in self.rows}
        for operation in sorted(self._granted - tried):
            self.rows.append(Row(self.provider, operation, False, 0.0, "no check of this self-test knows it"))
        return self.rows

    def _add(self, operation: str, ok: bool, started: float, note: str) -> None:
        milliseconds = round((time.perf_counter() - started) * 1000, 3)
        self.rows.append(Row(self.provider, operation, ok, milliseconds, note[:200]))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
