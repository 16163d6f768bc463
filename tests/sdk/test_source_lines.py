"""Tracebacks of a bundle's code have the author's line numbers and lines, and no file is opened for them."""

from __future__ import annotations

import builtins
import io
import linecache
import os
from collections.abc import Iterator
from typing import Any

import pytest
from thespian.system import sourceLoader

from tea.sdk import source_lines
from tea.sdk.binding import Identity, bind
from tea.sdk.system import LoadError, System
from tea.trust.bundle import build_archive

PLAIN = '''class Helper:
    """A first line that is no statement of its own."""


from tea.sdk import Actor
import helper


class Wrong(Actor):
    def on_start(self):
        try:
            helper.fail()
        except ValueError as error:
            raise RuntimeError("second") from error
'''
HELPER = """from __future__ import annotations

def fail():
    numbers = [1, 2]
    raise ValueError("first", numbers[0])  # the line that is shown
"""


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    before = sourceLoader.fix_imports
    yield
    sourceLoader.fix_imports = before
    for name in ("wrong.py", "helper.py"):
        linecache.cache.pop(name, None)


def load(files: dict[str, str], entry: str = "wrong:Wrong") -> System:
    bind(Identity("wrong", 0, "0.1.0", "test", {}), (), Nobody())
    return System.load(
        build_archive({name: text.encode() for name, text in files.items()}), entry, lambda archive: archive
    )


class Nobody:
    def call(self, link: int, operation: int, body: bytes, timeout: float | None) -> bytes:
        raise NotImplementedError

    def tell(self, link: int, operation: int, body: bytes) -> None:
        raise NotImplementedError


def test_lines_are_those_of_the_authors_files(monkeypatch: pytest.MonkeyPatch) -> None:
    actor: Any = load({"wrong.py": PLAIN, "helper.py": HELPER}).instance
    with pytest.raises(RuntimeError) as failure:
        actor.on_start()

    def no_file(*args: object, **kwargs: object) -> Any:
        raise AssertionError(f"opened {args}")

    linecache.clearcache()
    for module, name in ((builtins, "open"), (io, "open"), (os, "stat"), (os, "open")):
        monkeypatch.setattr(module, name, no_file)
    text = source_lines.shown(failure.value)
    monkeypatch.undo()
    assert (
        'File "helper.py", line 5, in fail\n    raise ValueError("first", numbers[0])  # the line that is shown' in text
    )
    assert 'File "wrong.py", line 14, in on_start\n    raise RuntimeError("second") from error' in text
    assert "direct cause" in text


def test_a_mistake_in_a_files_syntax_has_its_line() -> None:
    with pytest.raises(LoadError, match=r"expected ':' \(wrong\.py, line 3\)"):
        load({"wrong.py": "from tea.sdk import Actor\n\nclass Wrong(Actor)\n    pass\n"})


def test_an_error_that_causes_itself_is_shown_once() -> None:
    error = ValueError("round")
    error.__cause__ = KeyError("and round")
    error.__cause__.__cause__ = error
    assert source_lines.shown(error).count("ValueError: round") == 1


def test_a_group_of_errors_is_shown() -> None:
    actor: Any = load({"wrong.py": PLAIN, "helper.py": HELPER}).instance
    with pytest.raises(RuntimeError) as failure:
        actor.on_start()
    linecache.cache.pop("helper.py", None)
    assert "the line that is shown" in source_lines.shown(ExceptionGroup("both", [failure.value, ValueError("other")]))
