"""`teactl doctor`: what this machine's kernel can do for a host, found by trying.

May not: change anything; the trial is a process that is thrown away. Exit status: 0 when `sandbox: require` would start
here, 1 when it would not. Rule: docs/sandbox.md, "What a kernel lacks".
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .worker.cgroup import find_cgroups
from .worker.layers import PROMISES, SandboxReport
from .worker.probe import probe_apart

if TYPE_CHECKING:
    import typer

NSM_DEVICE: Final = Path("/dev/nsm")


def register(root: typer.Typer) -> None:
    """Add `doctor` to teactl."""
    import typer

    @root.command()
    def doctor(
        as_json: bool = typer.Option(False, "--json", help="Print one JSON object instead of text."),
    ) -> None:
        """What this kernel can do: the sandbox's layers, found by trying; 1 if `sandbox: require` is refused here."""
        report = examine()
        kept = report.refusal() is None
        sys.stdout.write(json.dumps(as_object(report), indent=2) + "\n" if as_json else as_text(report))
        if not kept:
            raise typer.Exit(1)


def examine() -> SandboxReport:
    """Try every layer as the host would, by the user who asks."""
    _cgroups, finding = find_cgroups(prepare=False)
    return probe_apart().with_finding(finding)


def as_object(report: SandboxReport) -> dict[str, object]:
    """The report as JSON has it."""
    broken = {promise for promise, _findings in report.broken()}
    return {
        "ok": not broken,
        "machine": report.machine,
        "kernel": report.kernel,
        "uid": os.geteuid(),
        "layers": [
            {"layer": one.layer.value, "held": one.held, "why": one.why, "mend": one.mend} for one in report.findings
        ],
        "promises": {promise.value: promise not in broken for promise, _layers in PROMISES},
        "require": report.refusal(),
        "nsm": NSM_DEVICE.exists(),
        "vsock": hasattr(socket, "AF_VSOCK") and Path("/dev/vsock").exists(),
    }


def as_text(report: SandboxReport) -> str:
    """The report as a person reads it."""
    user = "root" if os.geteuid() == 0 else f"uid {os.geteuid()}"
    lines = [f"Linux {report.kernel} on {report.machine}, as {user}", "", "The sandbox's layers:"]
    width = max(len(one.layer.value) for one in report.findings)
    for one in report.findings:
        lines.append(f"  {one.layer.value:<{width}}  {'held   ' if one.held else 'LACKING'}  {one.why}")
        if one.mend:
            lines.append(f"  {'':<{width}}           mend: {one.mend}")
    broken = {promise for promise, _findings in report.broken()}
    lines += ["", "What `sandbox: require` asks for:"]
    for promise in dict.fromkeys(promise for promise, _layers in PROMISES):
        lines.append(f"  {'no ' if promise in broken else 'yes'}  {promise.value}")
    refusal = report.refusal()
    lines += ["", refusal or "A manifest with `sandbox: require` starts here."]
    device = "is there" if NSM_DEVICE.exists() else "is not there (not an enclave: mode simulated or vm)"
    lines.append(f"{NSM_DEVICE} {device}.")
    return "\n".join(lines) + "\n"
