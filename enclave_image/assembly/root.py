"""The root ramdisk: Python, the enclave's wheels, floors 1 to 4 and the approvers; nothing that is not needed.

May not: hold a shell, pip, a package manager, tests, or anything of the platform: it is the same to the byte on all.
Rule: docs/architecture.md, "The enclave image" and "Bundle, manifest, measured boot".
"""

from __future__ import annotations

import os
import posixpath
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import tea

from ..eif.codes import ImageCode, ImageError
from . import debian, wheels
from .elf import keep_needed_libraries
from .tree import Tree

FLOORS: Final = ("protocol", "trust", "providers", "sdk", "runtime")
SITE: Final = "usr/lib/python3/dist-packages"
LIBRARIES: Final = "usr/lib/x86_64-linux-gnu"
STDLIB: Final = "usr/lib/python3.11"
APPROVERS: Final = "etc/tea/approvers.yaml"
_LOADER: Final = "ld-linux-x86-64.so.2"
_SOURCES: Final = (".py", ".pem", ".yaml", ".json", ".typed")
_WANTED: Final = re.compile(rf"usr/bin/python3\.11$|{STDLIB}/|{LIBRARIES}/[^/]*\.so[^/]*$|usr/lib64/")
# What no enclave runs: tests, tools for people, other alphabets' codecs, databases, terminals.
_UNUSED: Final = re.compile(
    rf"{STDLIB}/(test|idlelib|lib2to3|ensurepip|pydoc_data|tkinter|turtledemo|unittest|distutils|venv|wsgiref|curses"
    r"|dbm|sqlite3|msilib|config-3\.11[^/]*|__phello__|__pycache__)/"
    rf"|{STDLIB}/(turtle|pydoc|doctest|pdb|cgi|cgitb|imaplib|poplib|nntplib|telnetlib|smtpd|smtplib|ftplib|mailbox"
    r"|antigravity|this|webbrowser|crypt|aifc|chunk|sunau|sndhdr|imghdr|ossaudiodev|pty|tty|rlcompleter)\.py$"
    rf"|{STDLIB}/lib-dynload/(_bz2|_lzma|_uuid|_sqlite3|_dbm|_gdbm|_curses|_curses_panel|readline|nis|ossaudiodev|audioop"
    r"|_crypt|_tkinter|_codecs_[a-z0-9]+|_test[a-z]*|_ctypes_test|_xxtestfuzz|xxlimited|xxlimited_35|spwd|termios"
    r"|_multibytecodec|_xxsubinterpreters)\.cpython"
    r"|sitecustomize\.py$|EXTERNALLY-MANAGED$"
)
_COMPILE: Final = """
import py_compile, sys
for line in sys.stdin:
    source, target, shown = line.rstrip("\\n").split("\\t")
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(source, target, shown, doraise=True, quiet=1, invalidation_mode=mode)
"""


def build_root(
    packages: Sequence[tuple[debian.Package, Path]],
    wheel_files: Sequence[wheels.Wheel],
    approvers: bytes,
    staging: Path,
) -> Tree:
    """The tree of the root ramdisk; contents are staged below `staging`. Raises `ImageError`."""
    tree = Tree()
    for folder in ("dev", "proc", "sys", "run", "tmp", "etc/tea"):
        tree.add_folder(folder)
    for link in ("lib", "lib64", "bin"):
        tree.add_link(link, f"usr/{link}")
    for _, path in packages:
        _unpack(path, staging, tree)
    wheels.install(wheel_files, staging, SITE, tree)
    _add_floors(tree)
    tree.add_file(APPROVERS, approvers)
    tree.add_file("etc/passwd", b"root:x:0:0::/:/nonexistent\n")
    tree.add_file("etc/group", b"root:x:0:\n")
    tree.add_file("etc/hosts", b"127.0.0.1 localhost\n")
    keep_needed_libraries(tree, LIBRARIES, always=[_LOADER])
    _compile(tree, staging)
    return tree


def _unpack(package: Path, staging: Path, tree: Tree) -> None:
    for member, content in debian.members(package):
        path = _merged(posixpath.normpath(member.name))
        if not _WANTED.match(path) or _UNUSED.search(path):
            continue
        target = staging / path
        if member.issym():
            tree.add_link(path, _link_target(path, member.linkname))
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.is_symlink():
                target.symlink_to(_link_target(path, member.linkname))
        elif member.isreg() and content is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                while chunk := content.read(1 << 20):
                    file.write(chunk)
            target.chmod(0o755)
            tree.add_file(path, target, executable=path.startswith("usr/bin/") or ".so" in posixpath.basename(path))


def _merged(path: str) -> str:
    """Where a path lies when /lib, /lib64 and /bin are links into /usr."""
    first, _, rest = path.partition("/")
    return f"usr/{path}" if first in ("lib", "lib64", "bin") and rest else path


def _link_target(path: str, target: str) -> str:
    """A link's target, relative, so that it holds below any root."""
    if not target.startswith("/"):
        return target
    return posixpath.relpath(_merged(target.lstrip("/")), posixpath.dirname(path))


def _add_floors(tree: Tree) -> None:
    namespace = Path(next(iter(tea.__path__)))
    tree.add_file(f"{SITE}/tea/__init__.py", namespace / "__init__.py")
    for floor in FLOORS:
        folder = (namespace / floor).resolve()
        found = [path for path in folder.rglob("*") if path.suffix in _SOURCES and path.is_file()]
        if not found:
            raise ImageError(ImageCode.BUILD, f"the sources of {floor} are not at {folder}")
        for path in sorted(found):
            relative = path.relative_to(folder)
            # What tests the sdk's users' actors does not run inside.
            if relative.parts[0] == "testing" or "__pycache__" in relative.parts or relative.name == "testing.py":
                continue
            tree.add_file(f"{SITE}/tea/{floor}/{relative.as_posix()}", path)


def _compile(tree: Tree, staging: Path) -> None:
    """Bytecode for every module, made by the image's own interpreter: it depends on nothing of this machine."""
    jobs = []
    for path, entry in list(tree.items()):
        if not path.endswith(".py") or not isinstance(entry.content, Path):
            continue
        folder, name = posixpath.split(path)
        compiled = f"{folder}/__pycache__/{name.removesuffix('.py')}.cpython-311.pyc"
        target = staging / compiled
        target.parent.mkdir(parents=True, exist_ok=True)
        jobs.append((entry.content, target, path, compiled))
    libraries = staging / LIBRARIES
    command = [str(libraries / _LOADER), "--library-path", str(libraries), str(staging / "usr/bin/python3.11")]
    environment = {"PYTHONHOME": str(staging / "usr"), "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    lines = "".join(f"{source}\t{target}\t/{path}\n" for source, target, path, _ in jobs)
    try:
        done = subprocess.run(
            [*command, "-S", "-s", "-c", _COMPILE],
            input=lines, env={**environment, "LC_ALL": "C.UTF-8", "TMPDIR": os.environ.get("TMPDIR", "/tmp")},  # noqa: S108
            capture_output=True, text=True,
        )  # fmt: skip
    except OSError as error:
        raise ImageError(ImageCode.BUILD, f"the image's interpreter does not run here: {error.strerror}") from None
    if done.returncode != 0:
        last = (done.stderr.strip() or "no reason given").splitlines()[-1]
        raise ImageError(ImageCode.BUILD, f"compiling the image's modules: {last}")
    for _, target, _, compiled in jobs:
        tree.add_file(compiled, target)
