"""The providers of one harness: found by entry point or given by the test, started as the host starts them.

May not: import a provider by its path. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

import msgspec

from .attester import SimulatedAttester
from .services import MemoryAttester, MemoryServices, World
from .targets import CALL_TIMEOUT, is_provider

GROUP: Final = "tea.providers"


class Providers:
    """Started on first need, stopped in reverse."""

    def __init__(self, world: World, given: Mapping[str, Any], config: Mapping[str, Mapping[str, object]]) -> None:
        self._world = world
        self._given = dict(given)
        self._config = config
        self._services: dict[str, MemoryServices] = {}
        self._entry_points: dict[str, EntryPoint] = {point.name: point for point in entry_points(group=GROUP)}
        world.make_attester = self._make_attester

    def service(self, name: str) -> Any:
        """The started provider, or the double, of that name. Raises `LookupError` when there is none."""
        if name in self._world.providers:
            return self._world.providers[name]
        service = self._given.get(name)
        if service is None:
            service = self._found(name)
        if isinstance(service, type):
            service = service(self._config_of(name, service)) if is_provider(service) else service()
        if is_provider(type(service)):
            for required in service.requires:
                self.service(required)
            services = MemoryServices(self._world, name, tuple(service.requires))
            self._world.loop.run(service.start(services), CALL_TIMEOUT)
            self._services[name] = services
        self._world.providers[name] = service
        return service

    def replica_gone(self, actor: str, replica: int) -> None:
        """Tell them that the actor's instance ended, as the supervisor does."""
        for name in self._services:
            self._world.loop.run(self._world.providers[name].replica_gone(actor, replica), CALL_TIMEOUT)

    def stop(self) -> None:
        """Stop all, the last started first."""
        for name, services in reversed(self._services.items()):
            self._world.loop.run(self._world.providers[name].stop(), CALL_TIMEOUT)
            self._world.loop.run(services.cancel(), CALL_TIMEOUT)
        self._services.clear()

    def _found(self, name: str) -> Any:
        if name not in self._entry_points:
            raise LookupError(
                f"there is no provider {name!r} (installed: {', '.join(sorted(self._entry_points)) or 'none'}): "
                f"pass a double or another actor's harness, providers={{{name!r}: ...}}"
            )
        return self._entry_points[name].load()

    def _config_of(self, name: str, cls: Any) -> Any:
        return msgspec.convert(dict(self._config.get(name, {})), type=cls.config_type)

    def _make_attester(self) -> MemoryAttester:
        if "nitro" not in self._entry_points:
            raise LookupError("the provider nitro is not installed: pass attester=... to run_actor")
        world = self._world
        return SimulatedAttester(self._entry_points["nitro"], world.deployment, world.manifest_digest, world.loop.now)
