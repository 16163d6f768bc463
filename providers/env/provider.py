"""The env provider: approved variables, and what an actor may know of where it runs.

May not: read `os.environ` (a worker has none and the host's is not approved), or show one actor another's variables.
Rule: docs/architecture.md, "Measured boot": each variable stands in the manifest, fixed or `from: parent` by pattern.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from tea.protocol.errors import CallError, Code
from tea.protocol.operations import operation

from ..base import Call, Config, Provider


class EnvConfig(Config, frozen=True):
    """Nothing to configure: who reads what stands with the actors in the manifest."""


class About(msgspec.Struct, frozen=True):
    """Where an actor runs. The host's word to its own actor, not evidence for anyone else."""

    deployment: str
    mode: str
    """nitro, vm or simulated."""
    manifest_digest: bytes
    """SHA-384 of the running manifest, 48 bytes."""
    slot: str | None
    """The slot of the rounds that this enclave fills, if any."""
    actor: str
    replica: int


class Env(Provider[EnvConfig]):
    """Approved environment variables, by name."""

    name: ClassVar[str] = "env"
    config_type: ClassVar[type[Config]] = EnvConfig

    @operation
    async def get(self, call: Call, name: str) -> str:
        """The value of a variable that the manifest lets this actor read.

        NOT_FOUND for any other name, whether it exists or not.
        """
        value = self.services.environment_of(call.caller, call.replica).get(name)
        if value is None:
            shown = name if len(name) <= 64 else f"{name[:64]}..."
            raise CallError(
                Code.NOT_FOUND,
                f"{call.caller} reads no variable {shown!r}: list it under actors.{call.caller}.environment",
            )
        return value

    @operation
    async def all(self, call: Call) -> dict[str, str]:
        """Every variable that the manifest lets this actor read, by name."""
        return dict(sorted(self.services.environment_of(call.caller, call.replica).items()))

    @operation
    async def names(self, call: Call) -> list[str]:
        """The names of the variables that this actor may read, sorted."""
        return sorted(self.services.environment_of(call.caller, call.replica))

    @operation
    async def about(self, call: Call) -> About:
        """Deployment, mode, manifest digest (SHA-384), slot, and which replica of which actor is asking."""
        services = self.services
        return About(
            services.deployment,
            services.mode,
            services.manifest_digest,
            services.own_slot,
            call.caller,
            call.replica,
        )
