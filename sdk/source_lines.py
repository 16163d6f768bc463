"""Tracebacks of a bundle's code as its author reads them: the right line numbers, with the lines themselves.

May not: open a file: a worker has none, and each try would count against the actor.
Rule: docs/actors.md, "A new project"; Thespian 4.0.1, `sourceLoader.py` (it adds a line before a module's first).
"""

from __future__ import annotations

import ast
import io
import linecache
import traceback
import types
import zipfile
from collections.abc import Iterator, Sequence
from typing import Final

import thespian.system.sourceLoader as loader

_PREFIX: Final = b"import builtins;"
_archives: list[bytes] = []


def install(archive: bytes) -> None:
    """From now on modules of this archive have their own line numbers, and tracebacks show their lines."""
    _archives[:] = [archive]
    loader.fix_imports = _compile


def forget() -> None:
    """Keep no archive."""
    _archives.clear()


def shown(error: BaseException) -> str:
    """The error's traceback. Nothing is looked up in the file system."""
    remember(error)
    return "".join(traceback.format_exception(error))


def remember(error: BaseException) -> None:
    """Give `linecache` the lines of every frame of the error, so that whoever formats it opens no file."""
    for frame in _frames(error):
        name = frame.f_code.co_filename
        if name not in linecache.cache:
            lines = _lines_of(name)
            # Without a time (None) an entry is never compared with a file.
            linecache.cache[name] = (sum(map(len, lines)), None, lines, name)


def _frames(error: BaseException | None, seen: frozenset[int] = frozenset()) -> Iterator[types.FrameType]:
    if error is None or id(error) in seen:
        return
    for frame, _ in traceback.walk_tb(error.__traceback__):
        yield frame
    seen = seen | {id(error)}
    yield from _frames(error.__cause__, seen)
    yield from _frames(error.__context__, seen)
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _frames(one, seen)


def _lines_of(name: str) -> list[str]:
    for archive in _archives:
        try:
            with zipfile.ZipFile(io.BytesIO(archive)) as files:
                return files.read(name).decode(errors="replace").splitlines(keepends=True)
        except (KeyError, zipfile.BadZipFile):
            pass
    return []


def _compile(source: bytes, filename: str, root: str, top: Sequence[str]) -> types.CodeType:
    """Thespian's `fix_imports`, which also takes back the line that Thespian put before the first one."""
    shift = 1 if source.startswith(_PREFIX) else 0
    try:
        if _imports_own(source, top):
            tree = loader.ImportRePackage(root, top).visit(ast.parse(source, filename))
            code: types.CodeType = compile(tree, filename, "exec")
        else:
            code = compile(source, filename, "exec")
    except SyntaxError as error:
        error.lineno = (error.lineno or 0) - shift or None
        error.end_lineno = (error.end_lineno or 0) - shift or None
        raise
    return _moved_up(code) if shift else code


def _imports_own(source: bytes, top: Sequence[str]) -> bool:
    """Whether an import may name a module of the bundle; when in doubt it does. Most bundles are one module."""
    own = [name.split(".")[0].encode() for name in top]
    lines = source.replace(b"\\\r\n", b" ").replace(b"\\\n", b" ").splitlines()
    return any(b"import" in line and any(name in line for name in own) for line in lines)


def _moved_up(code: types.CodeType) -> types.CodeType:
    """The same code, one line further up: the lines of a code object count from its first."""
    constants = tuple(_moved_up(one) if isinstance(one, types.CodeType) else one for one in code.co_consts)
    return code.replace(co_firstlineno=code.co_firstlineno - 1, co_consts=constants)
