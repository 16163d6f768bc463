"""The host's own word on itself, for `teactl status` and `/healthz`: figures, and no secret.

May not: change anything. Rule: docs/architecture.md, "Boot".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tea.protocol.channels import ActorStatus, HostStatus, ProviderStatus

from .router import Router
from .supervisor import ActorSupervisor

if TYPE_CHECKING:
    from .host import Host


def host_status(host: Host) -> HostStatus:
    """What the host is and does now."""
    figures, identity = host.router.figures, host.measurement.identity
    return HostStatus(
        phase=host.tracker.phase.value,
        detail=host.continuity.detail or host.tracker.detail,
        mode=host.mode,
        module_id=host.measurement.description.module_id,
        deployment=host.approvers.deployment,
        manifest_digest=identity.manifest if identity else None,
        revision=identity.revision if identity else None,
        slot=host.slots.own,
        uptime=host.uptime,
        calls=figures.calls,
        replies=figures.replies,
        errors=figures.errors,
        in_flight=host.router.in_flight,
        dead_letters=figures.dead_letters,
        actors=tuple(_actor_status(supervisor, host.router) for supervisor in host.supervisors.values()),
        providers=tuple(
            ProviderStatus(name, host.provider_failures.get(name, one.state), one.provider.usage())
            for name, one in host.providers.running.items()
        ),
        sandbox=host.zygote.report.lines() if host.zygote.report is not None else (),
        parked=figures.parked,
        cancelled=figures.cancelled,
        late_answers=figures.late_answers,
    )


def _actor_status(supervisor: ActorSupervisor, router: Router) -> ActorStatus:
    figures, ports = router.figures_of(supervisor.plan.name), supervisor.group.ports
    return ActorStatus(
        name=supervisor.plan.name,
        version=supervisor.plan.version,
        replicas=supervisor.plan.replicas,
        running=supervisor.running,
        restarts=supervisor.restarts,
        calls=figures.calls,
        errors=figures.errors,
        in_flight=sum(len(port.delivered) for port in ports),
        operations=tuple(ports[0].operation_numbers) if ports else (),
        last_error=supervisor.last_error,
        refused=dict(supervisor.group.refusals.counts),
        parked=figures.parked,
        waited=figures.waited,
        cancelled=figures.cancelled,
        dead_letters=figures.dead_letters,
        lanes=sum(lane.live and lane.alive and not lane.retiring for port in ports for lane in port.lanes),
    )
