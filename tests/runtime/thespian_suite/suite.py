"""Runs Thespian's own tests inside a worker, one a call: the entry of the suite's bundle."""

# mypy: ignore-errors

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
import types
from collections.abc import Callable
from typing import Any

import suite_base
import suite_names
import suite_pytest

from tea.sdk import Actor, operation


class Suite(Actor):
    """Collects on its start; a test is named `module::[Class::]function[case]`."""

    def on_start(self) -> None:
        self.tests: dict[str, Callable[[], None]] = {}
        self.broken: dict[str, str] = {}
        package = types.ModuleType("thespian.test")
        package.__dict__.update({name: value for name, value in vars(suite_base).items() if name[:2] != "__"})
        sys.modules["thespian.test"] = package
        for name in suite_names.PACKAGES:
            sys.modules[f"thespian.test.{name}"] = importlib.import_module(f"{__name__.removesuffix('suite')}{name}")
        for name in suite_names.MODULES:
            try:
                module = importlib.import_module(f"{__name__.removesuffix('suite')}{name}")
            except suite_pytest.Skipped as reason:
                self.broken[name] = str(reason)
                continue
            except ImportError as error:
                self.broken[name] = str(error)
                continue
            # Where Thespian's tests name classes by text, this is the text.
            sys.modules[f"thespian.test.{name}"] = module
            self._collect(name, module)

    def _collect(self, name: str, module: types.ModuleType) -> None:
        namespace = vars(module)
        for label, found in list(namespace.items()):
            if getattr(found, "__module__", None) != module.__name__ or hasattr(found, "suite_params"):
                continue
            if label.lower().startswith("test") and inspect.isfunction(found):
                self._add(f"{name}::{label}", found, namespace)
            elif inspect.isclass(found) and (
                label.startswith("Test") or issubclass(found, suite_base.unittest.TestCase)
            ):
                for method in sorted(dir(found)):
                    if method.startswith("test") and callable(getattr(found, method)):
                        self._add_method(f"{name}::{label}::{method}", found, method, namespace)

    def _add(self, name: str, function: Any, namespace: dict[str, Any]) -> None:
        for params in suite_pytest.cases(function, namespace):
            label = ",".join(str(value) for value in params.values() if value != "simpleSystemBase")

            def run(params: dict[str, Any] = params) -> None:
                if reason := getattr(function, "suite_skip", None):
                    suite_pytest.skip(reason)
                suite_pytest.run(function, namespace, params)

            self.tests[f"{name}[{label}]" if label else name] = run

    def _add_method(self, name: str, cls: Any, method: str, namespace: dict[str, Any]) -> None:
        if not issubclass(cls, suite_base.unittest.TestCase):
            self._add(name, getattr(cls(), method), namespace)
            return

        def run() -> None:
            case = cls(method)
            case.setUp()
            try:
                getattr(case, method)()
            finally:
                case.tearDown()

        self.tests[name] = run

    @operation
    def names(self) -> list[str]:
        """All tests that were collected."""
        return list(self.tests)

    @operation
    def unloadable(self) -> dict[str, str]:
        """Modules that could not be imported, and why."""
        return self.broken

    @operation
    def run(self, name: str) -> tuple[str, str]:
        """Run one: `passed`, `skipped` or `failed`, and the reason or the traceback."""
        try:
            self.tests[name]()
        except suite_pytest.Skipped as reason:
            return "skipped", str(reason)
        except Exception:  # noqa: BLE001 - whatever a test raises is its failure
            return "failed", traceback.format_exc()
        return "passed", ""
