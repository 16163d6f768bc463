"""The modules that a worker offers its actor: imported in the zygote, since a closed-in worker can open no file.

May not: import anything that opens sockets, reads files at import, or holds secrets.
Rule: docs/architecture.md, "The sandbox"; docs/actors.md lists them for authors.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import os
import random
import sys
from typing import Final

from .kernel import system_call

_READ_AND_RUN: Final = 1 | 4

STANDARD_LIBRARY: Final = (
    "__future__", "abc", "array", "ast", "base64", "binascii", "bisect", "calendar", "cmath", "codecs", "collections",
    "collections.abc", "colorsys", "contextlib", "contextvars", "copy", "csv", "dataclasses", "datetime", "decimal",
    "difflib", "encodings.ascii", "encodings.idna", "encodings.latin_1", "encodings.utf_8", "enum", "fnmatch",
    "fractions", "functools", "gc", "graphlib", "hashlib", "heapq", "hmac", "html", "inspect", "io", "ipaddress",
    "itertools", "json", "keyword", "logging", "math", "numbers", "operator", "pprint", "random", "re", "reprlib",
    "secrets", "stat", "statistics", "string", "struct", "textwrap", "time", "traceback", "types", "typing",
    "unicodedata", "urllib.parse", "uuid", "warnings", "weakref", "zlib",
)  # fmt: skip
"""Standard modules beyond those that the interpreter itself has loaded."""

LIBRARIES: Final = (
    "msgspec", "msgspec.msgpack", "msgpack", "tea.sdk", "tea.sdk.system", "tea.sdk.rounds", "thespian.actors",
    "thespian.initmsgs", "thespian.transient", "thespian.troupe",
)  # fmt: skip
"""What the enclave's own dependencies add."""


def preload() -> None:
    """Import all that is offered. Raises `ImportError` when one is missing: a defect of the image."""
    for name in (*STANDARD_LIBRARY, *LIBRARIES):
        importlib.import_module(name)
    # The codecs that text handling asks for by name are looked up in files on first use.
    for codec in ("utf-8", "ascii", "latin-1", "idna", "cp437"):
        "x".encode(codec)


def preload_wasm() -> None:
    """Import what runs WASM bundles. Raises `ImportError`, or `OSError` without /proc: a defect of the image."""
    importlib.import_module("tea.runtime.worker.wasm_actor")
    # ctypes keeps the callback that imports go through on a page that can be written and run. It was written.
    with open("/proc/self/maps") as maps:  # noqa: PTH123
        for line in maps:
            addresses, rights = line.split(" ", 2)[:2]
            if "w" in rights and "x" in rights:
                start, end = (int(address, 16) for address in addresses.split("-"))
                system_call("mprotect", start, end - start, _READ_AND_RUN)


class NotOffered:
    """The last finder: says what a worker has no file for, instead of a puzzling "too many open files"."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        """Raises `ModuleNotFoundError`."""
        raise ModuleNotFoundError(
            f"{name} is not among the modules that a worker offers (docs/actors.md lists them); put it into the bundle",
            name=name,
        )


def close() -> None:
    """From now on nothing is looked up in the file system."""
    sys.meta_path[:] = [importlib.machinery.BuiltinImporter, importlib.machinery.FrozenImporter, NotOffered]


def reseed() -> None:
    """Give a fork randomness of its own: forks share the zygote's generator state."""
    random.seed(os.urandom(32))
    if "numpy" in sys.modules:
        raise RuntimeError("numpy is loaded in the zygote: its generator state would be shared by all workers")
