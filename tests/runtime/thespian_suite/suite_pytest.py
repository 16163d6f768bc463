"""The little of pytest that Thespian's tests use, for a worker, which has no pytest: goes into the suite's bundle."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any


class Skipped(BaseException):
    """`pytest.skip` and `pytest.xfail`: the reason."""


def skip(reason: str, allow_module_level: bool = False) -> None:
    raise Skipped(reason)


xfail = skip


class raises:
    """`with raises(E) as info` and `raises(E, function, *args)`."""

    value: BaseException | None = None

    def __init__(self, expected: Any, function: Callable[..., object] | None = None, *args: Any, **kwargs: Any) -> None:
        self.expected = expected
        if function is not None:
            with self:
                function(*args, **kwargs)

    def __enter__(self) -> raises:
        return self

    def __exit__(self, kind: Any, value: Any, trace: Any) -> bool:
        assert kind is not None, f"{self.expected} was not raised"
        self.value = value
        return issubclass(kind, self.expected)


def fixture(function: Any = None, *, params: Any = None, scope: str = "function") -> Any:
    def register(target: Any) -> Any:
        target.suite_params = params
        return target

    return register if function is None else register(function)


class mark:
    """`mark.parametrize` and `mark.skipif`."""

    @staticmethod
    def parametrize(names: str, values: Any) -> Any:
        def register(function: Any) -> Any:
            function.suite_cases = (names, list(values))
            return function

        return register

    @staticmethod
    def skipif(condition: object, reason: str = "") -> Any:
        def register(function: Any) -> Any:
            function.suite_skip = reason
            return function

        return register


class _Config:
    @staticmethod
    def getoption(name: str, default: object = None) -> object:
        return default


class Request:
    """What a fixture gets as `request`."""

    config = _Config()

    def __init__(self, param: object, finalizers: list[Callable[[], object]]) -> None:
        self.param = param
        self._finalizers = finalizers

    def addfinalizer(self, function: Callable[[], object]) -> None:
        self._finalizers.append(function)


def run(function: Callable[..., object], namespace: dict[str, Any], params: dict[str, Any]) -> None:
    """Run one test with its fixtures. `params`: parameter or fixture -> the value of this case."""
    finalizers: list[Callable[[], object]] = []
    made: dict[str, Any] = {}

    def value(name: str) -> Any:
        if name in made:
            return made[name]
        found = namespace.get(name)
        if found is None or not hasattr(found, "suite_params"):
            return params[name]
        given = {
            one: Request(params.get(name), finalizers) if one == "request" else value(one)
            for one in inspect.signature(found).parameters
        }
        result = found(**given)
        if inspect.isgenerator(result):
            generator: Iterator[Any] = result
            result = next(generator)
            finalizers.append(lambda: next(generator, None))
        made[name] = result
        return result

    try:
        function(**{name: value(name) for name in inspect.signature(function).parameters})
    finally:
        for one in reversed(finalizers):
            one()


def cases(function: Callable[..., object], namespace: dict[str, Any]) -> list[dict[str, Any]]:
    """The parameters of every case of a test, its own and those of its fixtures."""
    found: list[dict[str, Any]] = [{}]
    names, values = getattr(function, "suite_cases", ("", [None]))
    if names:
        found = [{**one, names: value} for one in found for value in values]
    seen: set[str] = set()
    waiting = list(inspect.signature(function).parameters)
    while waiting:
        name = waiting.pop()
        used: Any = namespace.get(name)
        if name in seen or not hasattr(used, "suite_params"):
            continue
        seen.add(name)
        waiting.extend(inspect.signature(used).parameters)
        if used.suite_params:
            values = [value for value in used.suite_params if not str(value).startswith("multiproc")]
            found = [{**one, name: value} for one in found for value in values]
    return found
