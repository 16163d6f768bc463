"""Thespian's way from a source archive to an actor, in fewer steps: the same modules, the same instance.

A worker forks with its zygote's memory, and every Python function that runs writes to some of it, which is then its own
(docs/performance.md, "Memory of a worker"). Thespian opens the archive with `zipfile` a dozen times, asks `inspect` for
the arguments of `__init__`, and looks for every import of a bundle in the bundle first.

May not: load what Thespian would not. Rule: Thespian 4.0.1, `system/sourceLoader.py` and `system/utilis.py`.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib.machinery
import io
import sys
import types
import zipfile
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import thespian.system.sourceLoader as loader
from thespian.system.utilis import withPossibleInitArgs

from tea.protocol.declaration import is_plain, parameters_of
from tea.trust.archive import locate
from tea.trust.claims import BundleError

_create: Final = withPossibleInitArgs.create
_import: Final = builtins.__import__
_load_by_import: Final = loader._loadModuleFromVerifiedHashSource


class _Entry(NamedTuple):
    filename: str


class _Archive:
    """What Thespian asks of a `zipfile.ZipFile`, for an archive in a bundle's one form."""

    def __init__(self, archive: bytes, places: dict[str, slice]) -> None:
        self._archive = archive
        self._places = places

    def namelist(self) -> list[str]:
        return list(self._places)

    def infolist(self) -> list[_Entry]:
        return [_Entry(name) for name in self._places]

    def read(self, name: str) -> bytes:
        return self._archive[self._places[name]]

    def close(self) -> None:
        return


def _open(file: io.BytesIO) -> _Archive | zipfile.ZipFile:
    archive = file.getvalue()
    try:
        places = locate(archive)
    except BundleError:
        places = {}
    return _Archive(archive, places) if places else zipfile.ZipFile(file)


def _importer(root: str) -> Callable[..., types.ModuleType]:
    """An `__import__` that finds a bundle's own modules under `root`, and others where they are."""
    own: set[str] = set()

    def find(name: str, *rest: Any, **named: Any) -> types.ModuleType:
        if not own:
            own.update(*map(_top_level, sys.meta_path))
        if not name.startswith(root) and name.partition(".")[0] in own:
            with contextlib.suppress(ImportError):
                return _import(root + name, *rest, **named)
        return _import(name, *rest, **named)

    def _top_level(finder: Any) -> set[str]:
        if not isinstance(finder, loader.SourceHashFinder) or finder.hashRoot() != root:
            return set()
        return {name.removesuffix(".py") for name in finder.getZipTopLevelNames()}

    return find


def _finder(self: Any, digest: str, decryptor: Callable[[bytes], bytes], archive: bytes) -> None:
    """`SourceHashFinder.__init__`, which copies all of `builtins` to say that there is one."""
    self.decryptor, self.enczfsrc, self.srcHash = decryptor, archive, digest
    self.src_hashimporter = _importer(self.hashRoot())
    self.src_builtins = {"__import__": self.src_hashimporter}


def _load(finder: Any, name: str, actor_class: str) -> Any:
    """`_loadModuleFromVerifiedHashSource`: the two modules that `importlib` makes, for an actor in a plain file."""
    root = finder.hashRoot()
    own = root + name.removeprefix(root)
    if own in sys.modules or f"{own.removeprefix(root)}.py" not in finder.getZipNames():
        return _load_by_import(finder, name, actor_class)
    if root not in sys.modules:
        loader.HashRootLoader(finder).load_module(root)
    spec = loader.ModLoader(own, finder, root, False)
    module = sys.modules[own] = _new_module(spec.loader, own)
    module.__spec__, module.__package__ = spec, spec.parent
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        sys.modules.pop(own, None)
        if isinstance(error, SyntaxError):
            raise ImportError(f"Source hash {root}: {error}") from error
        raise
    return getattr(module, actor_class)


def _new_module(of: Any, name: str) -> types.ModuleType:
    """`newmodule`, without its spec's detour."""
    module = types.ModuleType(name)
    module.__loader__, module.__spec__ = of, importlib.machinery.ModuleSpec(name, of)
    return module


def _with_arguments(self: Any, actor_class: Any) -> object:
    """`withPossibleInitArgs.create`: gives the class's `__init__` what it names of capabilities and requirements."""
    if not is_plain(actor_class.__init__):
        return _create(self, actor_class)
    names = [one.name for one in parameters_of(actor_class.__init__)]
    return actor_class(**{name: self.kwargs[name] for name in names if name in self.kwargs})


def install() -> None:
    """From now on Thespian loads in this way, in this process."""
    loader.ZipFile = _open
    loader.newmodule = _new_module
    loader._loadModuleFromVerifiedHashSource = _load
    loader.SourceHashFinder.__init__ = _finder
    withPossibleInitArgs.create = _with_arguments
