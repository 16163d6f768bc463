"""The loader: from offered bytes to a plan in which everything was verified. Nothing here starts anything.

May not: parse before it verifies, or grant more than both the manifest and the bundle's claims name.
Rule: docs/architecture.md, "Boot" and "Rights".
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

from tea.protocol.channels import SettingsOffer
from tea.protocol.operations import Operation, OperationDescription
from tea.sdk.binding import Identity as ActorIdentity
from tea.sdk.version import SDK_VERSION
from tea.trust.approval import Approvers, verify_approval, verify_changes
from tea.trust.bundle import Bundle, Issuer, verify_bundle
from tea.trust.manifest import (
    ActorEntry,
    Manifest,
    ManifestCode,
    ManifestError,
    effective_operations,
    require_grants,
    require_not_expired,
    require_revision,
)
from tea.trust.settings import resolve_environment, settings_digest

from .links import Grant, fresh_number, number_links
from .provider_set import AnyProvider, ProviderError, ProviderSet, provider_class
from .supervisor import ActorPlan
from .worker.seccomp_policy import Profile
from .worker.wire import Welcome

if TYPE_CHECKING:
    from .host import Host

PARENT: Final = "parent"
_MIB: Final = 1 << 20


@dataclass
class LoadPlan:
    """A manifest that was approved, with its bundles verified and its links worked out."""

    manifest: Manifest
    manifest_digest: bytes
    settings_digest: bytes
    approvers: Approvers
    environment: Mapping[str, str]
    bundles: Mapping[str, Bundle] = field(repr=False)
    raw_bundles: Mapping[str, bytes] = field(repr=False)
    grants: dict[str, dict[int, Grant]] = field(default_factory=dict)
    approval: bytes = field(default=b"", repr=False)
    """The manifest as it was approved."""
    approver_changes: tuple[bytes, ...] = field(default=(), repr=False)
    standby: bool = False
    """Whether it is to wait for a holder's state, and not to begin as the first of its slot."""
    declared: dict[str, dict[str, OperationDescription]] = field(default_factory=dict)
    """What the actors that are up said of their operations; filled in as they start."""

    @property
    def speakers(self) -> frozenset[tuple[str, bytes]]:
        """The actors with their bundles' digests."""
        return frozenset((name, bundle.digest) for name, bundle in self.bundles.items())

    @property
    def bundle_digests(self) -> dict[str, bytes]:
        """Actor -> SHA-256 of its bundle file."""
        return {name: bundle.digest for name, bundle in self.bundles.items()}

    @property
    def members(self) -> Mapping[str, Mapping[str, str]]:
        """Slots of the rounds: name -> {"pcr3" or "pcr4": hex}."""
        return self.manifest.ra.slots() if self.manifest.ra is not None else {}

    @property
    def parent_grants(self) -> dict[str, frozenset[str]]:
        """Actor -> operations that the parent may call."""
        granted: dict[str, set[str]] = {}
        for link in self.manifest.parent_links():
            granted.setdefault(link.target, set()).update(link.operations)
        return {actor: frozenset(operations) for actor, operations in granted.items()}

    @cached_property
    def parent_sticky(self) -> Mapping[tuple[str, str], str]:
        """Actor and operation -> the parameter by which the parent's calls stick to a replica."""
        links = [link for link in self.manifest.parent_links() if link.sticky]
        return {(link.target, operation): link.sticky for link in links for operation in link.operations}

    def start_layers(self) -> list[list[str]]:
        """The actors in the order of their start: whom an actor calls starts before it, circles together at the end."""
        waits = {
            name: {link.target for link in self.manifest.links_of(name) if link.target in self.bundles}
            for name in self.bundles
        }
        layers: list[list[str]] = []
        while waits:
            layer = [name for name, targets in waits.items() if not targets & waits.keys()] or list(waits)
            layers.append(layer)
            for name in layer:
                del waits[name]
        return layers

    def bind_links(self, providers: ProviderSet) -> None:
        """Tie each actor's links to the running providers. Raises `ProviderError` on an operation that none has."""
        for name, bundle in self.bundles.items():
            grants = []
            for link in self.manifest.links_of(name):
                operations = tuple(effective_operations(link, bundle.claims))
                if not operations:
                    continue
                provider: AnyProvider | None = None
                typed: tuple[Operation, ...] = ()
                if link.target in self.manifest.providers:
                    provider = providers.get(link.target)
                    declared = type(provider).operations()
                    typed = tuple(declared[operation] for operation in operations)
                grants.append(
                    Grant(
                        number=fresh_number(),
                        name=link.name,
                        source=name,
                        target=link.target,
                        operations=operations,
                        provider=provider,
                        typed=typed,
                        methods=tuple(getattr(provider, operation) for operation in operations) if provider else (),
                        behind=frozenset(link.behind),
                        sticky=link.sticky,
                        direct=link.direct,
                    )
                )
            self.grants[name] = number_links(grants)

    def actor_plans(self, host: Host) -> dict[str, ActorPlan]:
        """What the supervisors start."""
        return {name: self._actor_plan(name, spec, host) for name, spec in self.manifest.actors.items()}

    def _actor_plan(self, name: str, spec: ActorEntry, host: Host) -> ActorPlan:
        bundle, issuer, links = self.bundles[name], self.manifest.issuers[spec.issuer], self.grants[name]
        raw = self.raw_bundles[name]
        limits, restart = spec.limits, spec.restart
        environment = {variable: self.environment[variable] for variable in spec.environment}

        def welcome(replica: int) -> Welcome:
            return Welcome(
                identity=ActorIdentity(
                    name=name,
                    replica=replica,
                    version=spec.version,
                    deployment=self.manifest.deployment,
                    environment=environment,
                ),
                links=tuple(grant.describe(self.declared) for grant in links.values()),
                entry=bundle.claims.entry,
                bundle_digest=bundle.digest,
                bundle_size=len(raw),
                issuer=issuer.key.text,
                traceback_to_log=host.mode == "simulated",
                kind=bundle.claims.kind,
                memory_bytes=limits.memory_mib * _MIB,
                fuel=limits.fuel or 0,
                in_flight=limits.in_flight,
            )

        return ActorPlan(
            name=name,
            version=spec.version,
            replicas=spec.replicas,
            bundle=raw,
            bundle_digest=bundle.digest,
            links=links,
            memory_bytes=limits.memory_mib * _MIB,
            cpu_seconds=limits.cpu_seconds or 0,
            in_flight=limits.in_flight,
            mailbox=limits.mailbox,
            kvp_bytes=limits.kvp_bytes,
            intensity=restart.intensity,
            period=float(restart.period_s),
            backoff=restart.backoff_ms / 1000,
            backoff_max=restart.backoff_max_ms / 1000,
            strategy=restart.strategy,
            welcome=welcome,
            profile=Profile(bundle.claims.kind),
            fuel=limits.fuel or 0,
            sticky=tuple(
                (link.source, link.sticky, link.operations)
                for link in self.manifest.links
                if link.target == name and link.sticky
            ),
            declared=self.declared,
        )


async def load(host: Host, offer: SettingsOffer, bundles: Mapping[bytes, bytes]) -> LoadPlan:
    """Verify everything that was offered. Raises `TrustError` or `ProviderError`; the phase says which step failed."""
    now = datetime.datetime.fromtimestamp(host.now(), datetime.UTC)
    # The chain starts at the image's set each time: a push brings the whole of it.
    approvers = verify_changes(host.image_approvers, offer.approver_changes)
    if approvers.epoch < host.approvers.epoch:
        raise ManifestError(
            ManifestCode.WRONG_EPOCH,
            f"found approvers of epoch {approvers.epoch}, expected {host.approvers.epoch} or later: "
            "push all changes of the approvers",
        )
    manifest = verify_approval(offer.manifest, approvers)
    current = host.measurement.identity
    require_revision((current.revision, current.manifest) if current is not None else None, manifest)
    require_not_expired(manifest, now)
    environment = resolve_environment(manifest, offer.environment)
    _require_providers(manifest)
    host.providers.check(manifest.providers)
    await host.zygote.require(manifest.sandbox == "require")
    host.step(f"manifest {manifest.deployment} revision {manifest.revision} is approved")

    issuers = manifest.issuers_by_key()
    verified: dict[str, Bundle] = {}
    raw: dict[str, bytes] = {}
    for name, spec in manifest.actors.items():
        data = bundles.get(spec.bundle)
        if data is None:
            raise ManifestError(
                ManifestCode.OTHER_BUNDLE,
                f"actors.{name}: the bundle sha256:{spec.bundle.hex()} was not pushed: push it with the manifest",
            )
        raw[name] = data
        verified[name] = await _verify_bundle(data, issuers, now)
        require_grants(manifest, name, verified[name].claims, verified[name].digest)
    host.step(f"{len(verified)} bundles are verified")
    digest = settings_digest(environment, offer.approver_changes, tuple(bundle.digest for bundle in verified.values()))
    return LoadPlan(
        manifest,
        manifest.digest,
        digest,
        approvers,
        environment,
        verified,
        raw,
        approval=offer.manifest,
        approver_changes=offer.approver_changes,
        standby=offer.standby,
    )


async def _verify_bundle(data: bytes, issuers: Mapping[bytes, Issuer], now: datetime.datetime) -> Bundle:
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(None, lambda: verify_bundle(data, issuers, now=now, sdk_version=SDK_VERSION))


def _require_providers(manifest: Manifest) -> None:
    """Every linked operation of a provider must exist. Raises `ProviderError` with those that it has."""
    for name in manifest.providers:
        declared = provider_class(name).operations()
        for link in manifest.links:
            if link.target != name:
                continue
            for operation in link.operations:
                if operation not in declared:
                    raise ProviderError(
                        f"the link from {link.source} to {name} grants {operation}, which {name} does not have: "
                        f"it has {', '.join(declared)}"
                    )
