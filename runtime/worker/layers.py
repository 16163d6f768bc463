"""The layers of the sandbox, what each needs, and the report on which of them a kernel grants.

May not: try anything (`probe.py` does). Rule: docs/sandbox.md. `sandbox: require` asks for the promises below, not for
every layer: a promise is kept when one of the layers that can keep it holds.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec


class Layer(enum.StrEnum):
    """What closes a worker in; in the order in which they are put on."""

    CGROUP = "cgroup"
    USER_NAMESPACE = "user-namespace"
    PID_NAMESPACE = "pid-namespace"
    NETWORK_NAMESPACE = "network-namespace"
    IPC_NAMESPACE = "ipc-namespace"
    UTS_NAMESPACE = "uts-namespace"
    DESCRIPTORS = "descriptors"
    EMPTY_ROOT = "empty-root"
    OWN_UID = "own-uid"
    NO_CAPABILITIES = "no-capabilities"
    NO_NEW_PRIVILEGES = "no-new-privileges"
    NOT_DUMPABLE = "not-dumpable"
    LIMITS = "limits"
    LANDLOCK = "landlock"
    PARENT_DEATH = "parent-death"
    SECCOMP = "seccomp"
    NAMED_REFUSALS = "named-refusals"


MENDS: Final = {
    Layer.CGROUP: "mount cgroup2 with memory, pids and cpu, and start the host alone in a cgroup that it may write to "
    "(systemd-run --user --scope -p Delegate=yes ...)",
    Layer.USER_NAMESPACE: "start the host as root, or allow user namespaces (sysctl user.max_user_namespaces; on "
    "Ubuntu kernel.apparmor_restrict_unprivileged_userns=0)",
    Layer.PID_NAMESPACE: "start the host as root with CAP_SYS_ADMIN, or allow user namespaces",
    Layer.NETWORK_NAMESPACE: "start the host as root with CAP_SYS_ADMIN, or allow user namespaces",
    Layer.IPC_NAMESPACE: "start the host as root with CAP_SYS_ADMIN, or allow user namespaces",
    Layer.UTS_NAMESPACE: "start the host as root with CAP_SYS_ADMIN, or allow user namespaces",
    Layer.EMPTY_ROOT: "start the host as root with CAP_SYS_ADMIN, or allow user namespaces",
    Layer.OWN_UID: "start the host as root",
    Layer.LANDLOCK: "use a kernel from 5.13 with CONFIG_SECURITY_LANDLOCK and landlock in its lsm= list",
    Layer.SECCOMP: "use a kernel with CONFIG_SECCOMP_FILTER, on x86_64 or aarch64",
    Layer.NAMED_REFUSALS: "use a kernel from 5.0, and no seccomp listener around the host",
}
"""What gives a layer that lacks; the others are in every kernel that runs Python 3.11."""


class Promise(enum.StrEnum):
    """What `sandbox: require` asks for."""

    FILES = "no file can be reached"
    KERNEL = "only the allowed system calls can be made"
    PRIVILEGES = "nothing is gained by running anything"
    OTHERS = "no other process can be signalled or looked into"
    SECRETS = "nothing of the host's is inherited or dumped"
    RESOURCES = "memory, files and processes are bounded"
    END = "no worker outlives the host"


PROMISES: Final[tuple[tuple[Promise, frozenset[Layer]], ...]] = (
    (Promise.FILES, frozenset({Layer.EMPTY_ROOT, Layer.LANDLOCK})),
    (Promise.KERNEL, frozenset({Layer.SECCOMP})),
    (Promise.PRIVILEGES, frozenset({Layer.NO_NEW_PRIVILEGES})),
    (Promise.PRIVILEGES, frozenset({Layer.NO_CAPABILITIES})),
    (Promise.OTHERS, frozenset({Layer.OWN_UID, Layer.PID_NAMESPACE})),
    (Promise.SECRETS, frozenset({Layer.DESCRIPTORS})),
    (Promise.SECRETS, frozenset({Layer.NOT_DUMPABLE})),
    (Promise.RESOURCES, frozenset({Layer.LIMITS, Layer.CGROUP})),
    (Promise.END, frozenset({Layer.PARENT_DEATH})),
)
"""Each row: the promise, and the layers of which one must hold. A promise with two rows needs both."""


class Finding(msgspec.Struct, frozen=True, array_like=True):
    """Whether one layer holds on this machine."""

    layer: Layer
    held: bool
    why: str
    """What was found: how it holds, or what the kernel answered."""

    @property
    def mend(self) -> str | None:
        """What to do for a layer that lacks, where something can be done."""
        return None if self.held else MENDS.get(self.layer)


class SandboxReport(msgspec.Struct, frozen=True, array_like=True):
    """What this kernel grants, found by trying."""

    machine: str
    kernel: str
    findings: tuple[Finding, ...]

    @property
    def held(self) -> frozenset[Layer]:
        """The layers that every worker gets."""
        return frozenset(finding.layer for finding in self.findings if finding.held)

    @property
    def lacking(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if not finding.held)

    def find(self, layer: Layer) -> Finding:
        """One layer's finding; a layer that was not tried lacks."""
        return next((one for one in self.findings if one.layer is layer), Finding(layer, False, "was not tried"))

    def with_finding(self, finding: Finding) -> SandboxReport:
        """The report with this finding in its place."""
        others = {one.layer: one for one in self.findings} | {finding.layer: finding}
        return SandboxReport(self.machine, self.kernel, tuple(others[layer] for layer in Layer if layer in others))

    def broken(self) -> tuple[tuple[Promise, tuple[Finding, ...]], ...]:
        """The promises that cannot be kept, each with the layers of which one would keep it."""
        held = self.held
        return tuple(
            (promise, tuple(self.find(layer) for layer in Layer if layer in layers))
            for promise, layers in PROMISES
            if not layers & held
        )

    def refusal(self) -> str | None:
        """Why `sandbox: require` is refused here, naming layers and mends; None when every promise can be kept."""
        broken = self.broken()
        if not broken:
            return None
        reasons = []
        for promise, findings in broken:
            tried = "; ".join(f"{one.layer.value} lacks: {one.why}" for one in findings)
            mends = " or ".join(dict.fromkeys(one.mend for one in findings if one.mend))
            reasons.append(f'"{promise.value}" cannot be promised ({tried})' + (f": {mends}" if mends else ""))
        return (
            f"the manifest says sandbox: require, and on this kernel ({self.kernel}) {'; and '.join(reasons)}; "
            "or say sandbox: prefer"
        )

    def lines(self) -> tuple[str, ...]:
        """One line a layer, for logs, status and people."""
        return tuple(f"{one.layer.value}: {'held' if one.held else 'LACKING'}, {one.why}" for one in self.findings)
