"""Finding and starting providers: by name in the measured folder, only those that the approved manifest names.

May not: import a string out of a manifest; a name is looked up among the folders that the image has.
Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

import tea.providers
from tea.providers.base import Provider, Services

AnyProvider = Provider[Any]


class ProviderError(Exception):
    """A provider that cannot be had or started: the sentence names it and the mend."""


def available() -> tuple[str, ...]:
    """Names of the providers in the image."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(tea.providers.__path__) if module.ispkg))


def provider_class(name: str) -> type[AnyProvider]:
    """The class of a provider in the image. Raises `ProviderError`."""
    names = available()
    if name not in names:
        raise ProviderError(f"there is no provider {name} in this image: it has {', '.join(names)}")
    module = importlib.import_module(f"tea.providers.{name}")
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, Provider) and value.__dict__.get("name") == name:
            return value
    raise ProviderError(f"the folder of provider {name} exports no class of that name: a defect of the image")


def start_order(classes: Mapping[str, type[AnyProvider]]) -> list[str]:
    """Names in dependency order. Raises `ProviderError` on one that is required and not in the manifest, or a cycle."""
    order: list[str] = []
    visiting: list[str] = []

    def visit(name: str) -> None:
        if name in order:
            return
        if name in visiting:
            raise ProviderError(f"providers require each other: {' -> '.join([*visiting, name])}")
        visiting.append(name)
        for required in classes[name].requires:
            if required not in classes:
                raise ProviderError(f"provider {name} requires {required}: add it to the manifest's providers")
            visit(required)
        visiting.pop()
        order.append(name)

    for name in sorted(classes):
        visit(name)
    return order


class Lent(Services, Protocol):
    """What the host lends one provider, until it stops."""

    def end(self) -> None:
        """The provider stopped: its background tasks end."""
        ...


@dataclass
class Running:
    """A started provider and the configuration it was started with."""

    provider: AnyProvider
    config: Mapping[str, object]
    lent: Lent
    state: str = "running"


def make_provider(name: str, config: Mapping[str, object]) -> AnyProvider:
    """A provider with its validated configuration. Raises `ProviderError` that names the key."""
    cls = provider_class(name)
    try:
        converted = msgspec.convert(dict(config), cls.config_type)
    except msgspec.ValidationError as error:
        raise ProviderError(f"the config of provider {name} does not fit: {error}") from None
    try:
        return cls(converted)
    except ValueError as error:
        raise ProviderError(f"the config of provider {name} does not fit: {error}") from None


class ProviderSet:
    """The providers of one host."""

    def __init__(self, lend: Callable[[str], Lent]) -> None:
        self._lend = lend
        self.running: dict[str, Running] = {}
        self._prepared: dict[str, tuple[Mapping[str, object], Any]] = {}
        """Running providers whose configuration the revision that is being started changes: as written, and typed."""

    def check(self, wanted: Mapping[str, Mapping[str, object]]) -> list[str]:
        """Whether `wanted` could run, with nothing started or changed yet: the start order. Raises `ProviderError`."""
        self._changed(wanted)
        return start_order({name: provider_class(name) for name in wanted})

    def _changed(self, wanted: Mapping[str, Mapping[str, object]]) -> dict[str, tuple[Mapping[str, object], Any]]:
        """The running providers that are to go on under another configuration, and may. Raises `ProviderError`."""
        changed: dict[str, tuple[Mapping[str, object], Any]] = {}
        for name, config in wanted.items():
            running = self.running.get(name)
            if running is not None and dict(running.config) == dict(config):
                continue
            typed = make_provider(name, config).config
            if running is None or running.provider.config == typed:
                continue
            try:
                running.provider.require_in_place(typed)
            except ValueError as error:
                raise ProviderError(f"the config of provider {name} cannot become this one in place: {error}") from None
            changed[name] = (config, typed)
        return changed

    async def start(self, wanted: Mapping[str, Mapping[str, object]]) -> tuple[str, ...]:
        """Start those that do not run yet, in dependency order; their names. Prepare those that are to change.

        On a failure the new ones are stopped, and nothing has changed. `switch` or `abandon` must follow.
        """
        started: list[str] = []
        order, changed = self.check(wanted), self._changed(wanted)
        try:
            for name, (_, typed) in changed.items():
                self.running[name].provider.prepare(typed)
                self._prepared[name] = changed[name]
            for name in order:
                if name in self.running:
                    continue
                provider, lent = make_provider(name, wanted[name]), self._lend(name)
                try:
                    await provider.start(lent)
                except BaseException as error:
                    lent.end()
                    if not isinstance(error, Exception):
                        raise
                    raise ProviderError(f"provider {name} did not start: {type(error).__name__}: {error}") from error
                self.running[name] = Running(provider, wanted[name], lent)
                started.append(name)
        except BaseException:
            await self.stop(tuple(started))
            self.abandon()
            raise
        return tuple(started)

    def switch(self) -> dict[str, Exception | None]:
        """Have what was prepared go on under its next configuration, at once: names, and what failed in them."""
        prepared, self._prepared = self._prepared, {}
        outcome: dict[str, Exception | None] = {}
        for name, (config, typed) in prepared.items():
            running = self.running[name]
            try:
                running.provider.reconfigure(typed)
                outcome[name] = None
            except Exception as defect:  # noqa: BLE001 (the revision serves already: it is logged and shown in status)
                outcome[name] = defect
            running.config = config
        return outcome

    def abandon(self) -> None:
        """Leave what was prepared under the configuration that it has."""
        prepared, self._prepared = self._prepared, {}
        for name in prepared:
            self.running[name].provider.abandon()

    async def stop(self, names: tuple[str, ...]) -> None:
        """Stop these, the last first, and end what was lent to them."""
        for name in reversed(names):
            running = self.running.pop(name)
            await running.provider.stop()
            running.lent.end()

    async def stop_except(self, keep: Mapping[str, object]) -> tuple[str, ...]:
        """Stop providers that are not in `keep`, dependants first; their names."""
        going = [name for name in self.running if name not in keep]
        order = start_order({name: type(running.provider) for name, running in self.running.items()})
        await self.stop(tuple(sorted(going, key=order.index)))
        return tuple(going)

    def get(self, name: str) -> AnyProvider:
        """A running provider. Raises `LookupError`."""
        return self.running[name].provider

    def replica_serves(self, actor: str, replica: int) -> None:
        """Tell all that a replica takes calls from now on."""
        for running in list(self.running.values()):
            running.provider.replica_serves(actor, replica)

    async def replica_gone(self, actor: str, replica: int) -> None:
        """Tell all that a replica has ended."""
        for running in list(self.running.values()):
            await running.provider.replica_gone(actor, replica)
