"""What a kernel lacks is found at the zygote's start, told, and decides under `sandbox: require`.

Lacks are real here: the zygote starts behind a filter that makes the kernel refuse, as an older or locked one would.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tea.protocol.errors import CallError, Code
from tea.runtime import doctor
from tea.runtime.worker.cgroup import CPU_MAX, CgroupError, Cgroups
from tea.runtime.worker.kernel import fork
from tea.runtime.worker.layers import MENDS, PROMISES, Finding, Layer, Promise, SandboxReport
from tea.runtime.worker.probe import probe_apart
from tea.runtime.zygote_client import SandboxLacking, SpawnError, Zygote, describe_exit

Enclave = Any
CLI = [sys.executable, "-m", "tea.parent_client.cli"]
LINKS = "  - {from: parent, to: echo, operations: [echo]}"

# What a kernel without Landlock, in a container without rights to namespaces, answers.
NO_FILES = """
for name in ("unshare", "landlock_create_ruleset"):
    rules[number_of(name)] = ERRNO | 38
rules[number_of("clone")] = When((NoneOfBits(0, 0x7E020000),), ALLOW, ERRNO | 1)
"""
NO_SECCOMP = """
rules[number_of("seccomp")] = ERRNO | 38
"""
NO_SECOND_LISTENER = """
flags = 1 << 3
"""


def report_of(*lacking: Layer) -> SandboxReport:
    findings = tuple(Finding(layer, layer not in lacking, "as the test says") for layer in Layer)
    return SandboxReport("x86_64", "6.1", findings)


@pytest.fixture
def lacking_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """From now on, zygotes are started where these calls are refused."""

    def install(rules: str) -> None:
        script = tmp_path / "python"
        script.write_text(
            f"#!{sys.executable}\n"
            "import os, platform, sys\n"
            "from tea.runtime.worker.bpf import ALLOW, ERRNO, NoneOfBits, When, assemble\n"
            "from tea.runtime.worker.kernel import PR_SET_NO_NEW_PRIVS, install_filter, prctl\n"
            "from tea.runtime.worker.syscall_table import number_of\n"
            f"rules, flags = {{}}, 0\n{rules}\n"
            "prctl(PR_SET_NO_NEW_PRIVS, 1)\n"
            "made = install_filter(assemble(platform.machine(), rules, ALLOW), flags)\n"
            "if flags: os.set_inheritable(made, True)\n"
            f"os.execv({sys.executable!r}, [{sys.executable!r}, *sys.argv[1:]])\n"
        )
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(sys, "executable", str(script))

    return install


# -- the report ------------------------------------------------------------------------------------------------


def test_every_layer_is_in_a_promise_or_beside_them() -> None:
    promised = frozenset().union(*(layers for _promise, layers in PROMISES))
    beside = {
        Layer.USER_NAMESPACE,
        Layer.NETWORK_NAMESPACE,
        Layer.IPC_NAMESPACE,
        Layer.UTS_NAMESPACE,
        Layer.NAMED_REFUSALS,
    }
    assert promised | beside == set(Layer)
    assert {promise for promise, _layers in PROMISES} == set(Promise)


def test_a_promise_is_kept_by_any_of_its_layers() -> None:
    assert report_of().refusal() is None
    assert report_of(Layer.LANDLOCK, Layer.OWN_UID, Layer.CGROUP).refusal() is None
    assert report_of(Layer.EMPTY_ROOT, Layer.PID_NAMESPACE, Layer.LIMITS).refusal() is None


@pytest.mark.parametrize(("promise", "layers"), PROMISES)
def test_a_refusal_names_the_promise_the_layers_and_the_mend(promise: Promise, layers: frozenset[Layer]) -> None:
    refusal = report_of(*layers).refusal()
    assert refusal is not None
    assert promise.value in refusal
    assert "sandbox: prefer" in refusal
    for layer in layers:
        assert f"{layer.value} lacks: as the test says" in refusal
        assert MENDS.get(layer, "") in refusal


def test_a_layer_that_was_not_tried_lacks() -> None:
    report = SandboxReport("x86_64", "6.1", ())
    assert not report.find(Layer.SECCOMP).held
    assert len(report.broken()) == len(PROMISES)
    assert report.with_finding(Finding(Layer.SECCOMP, True, "x")).held == {Layer.SECCOMP}


# -- the host --------------------------------------------------------------------------------------------------


async def test_what_the_kernel_grants_is_in_the_log_and_in_status(enclave: Enclave, echo_source: str) -> None:
    assert enclave.host.status().sandbox == ()
    enclave.bundle("echo", echo_source, "Echo")
    await enclave.push(enclave.manifest(links=LINKS))
    report = enclave.host.zygote.report
    assert enclave.host.status().sandbox == report.lines()
    for finding in report.findings:
        told = await enclave.logged(f"sandbox: {finding.layer.value} ")
        assert told.startswith(f"sandbox: {finding.layer.value} {'held' if finding.held else 'lacking'}")


async def test_require_starts_where_every_promise_can_be_kept(enclave: Enclave, echo_source: str) -> None:
    refusal = probe_apart().refusal()
    enclave.bundle("echo", echo_source, "Echo")
    manifest = enclave.manifest(links=LINKS).replace("sandbox: prefer", "sandbox: require")
    if refusal is None:
        await enclave.push(manifest)
        assert await enclave.call("echo", "echo", value=1) == 1
    else:
        with pytest.raises(CallError):
            await enclave.push(manifest)


async def test_require_is_refused_where_a_promise_cannot_be_kept_and_prefer_goes_on(
    enclave: Enclave, echo_source: str, lacking_kernel: Any
) -> None:
    lacking_kernel(NO_FILES)
    enclave.bundle("echo", echo_source, "Echo")
    manifest = enclave.manifest(links=LINKS)
    with pytest.raises(CallError) as refused:
        await enclave.push(manifest.replace("sandbox: prefer", "sandbox: require"))
    assert refused.value.code is Code.INVALID
    assert refused.value.details["step"] == "verifying-manifest"
    for words in (
        "sandbox: require",
        "landlock lacks: landlock_create_ruleset: Function not implemented",
        "empty-root lacks",
        "kernel from 5.13",
    ):
        assert words in refused.value.sentence
    assert enclave.host.tracker.phase.value == "awaiting-settings"
    assert enclave.host.measurement.identity is None, "nothing was measured: a manifest that does start can follow"
    await enclave.push(manifest)
    assert await enclave.call("echo", "echo", value=1) == 1
    assert await enclave.logged("sandbox: landlock lacking")
    assert any(line.startswith("landlock: LACKING") for line in enclave.host.status().sandbox)


async def test_workers_get_every_layer_that_is_left(enclave: Enclave, echo_source: str, lacking_kernel: Any) -> None:
    lacking_kernel(NO_SECCOMP)
    enclave.bundle("echo", echo_source, "Echo")
    with pytest.raises(CallError) as refused:
        await enclave.push(enclave.manifest(links=LINKS).replace("sandbox: prefer", "sandbox: require"))
    assert "only the allowed system calls can be made" in refused.value.sentence
    await enclave.push(enclave.manifest(links=LINKS))
    held = enclave.host.zygote.report.held
    assert Layer.SECCOMP not in held and Layer.NAMED_REFUSALS not in held
    assert Layer.NO_NEW_PRIVILEGES in held and Layer.LIMITS in held
    assert await enclave.call("echo", "echo", value=1) == 1


async def test_a_listener_around_the_host_takes_the_names_and_not_the_filter(
    enclave: Enclave, echo_source: str, lacking_kernel: Any
) -> None:
    lacking_kernel(NO_SECOND_LISTENER)
    enclave.bundle("echo", echo_source, "Echo")
    await enclave.push(enclave.manifest(links=LINKS).replace("sandbox: prefer", "sandbox: require"))
    held = enclave.host.zygote.report.held
    assert Layer.SECCOMP in held and Layer.NAMED_REFUSALS not in held
    assert await enclave.call("echo", "echo", value=1) == 1


async def test_a_zygote_that_comes_back_with_less_is_not_used_under_require(lacking_kernel: Any) -> None:
    if probe_apart().refusal() is not None:
        pytest.skip("this kernel cannot keep every promise to begin with")
    zygote = Zygote(asyncio.get_running_loop())
    try:
        await zygote.require(True)
        process, connection = await zygote.spawn("one", memory_bytes=64 << 20, cpu_seconds=0)
        connection.close()
        process.kill()
        await process.ended
        lacking_kernel(NO_FILES)
        assert zygote.pid is not None
        os.kill(zygote.pid, signal.SIGKILL)
        with pytest.raises(SandboxLacking):
            await zygote.spawn("two", memory_bytes=64 << 20, cpu_seconds=0)
    finally:
        zygote.stop()


async def test_a_worker_that_cannot_be_closed_in_never_runs_and_the_layer_is_named() -> None:
    zygote = Zygote(asyncio.get_running_loop())
    try:
        with pytest.raises(SpawnError, match="x could not be closed in: limits: "):
            await zygote.spawn("x", memory_bytes=1 << 26, cpu_seconds=-1)
    finally:
        zygote.stop()


async def test_a_worker_whose_lanes_were_closed_meanwhile_is_not_forked_and_the_zygote_lives() -> None:
    zygote = Zygote(asyncio.get_running_loop())
    one, other = socket.socketpair()
    one.close()
    other.close()
    try:
        await zygote.start()
        with pytest.raises(SpawnError, match="not needed any more"):
            await zygote.spawn("x", memory_bytes=1 << 26, cpu_seconds=0, lanes=[other])
        assert zygote.starts == 1
    finally:
        zygote.stop()


def test_the_end_of_a_process_is_told_in_words() -> None:
    assert describe_exit(3 << 8) == "exit status 3"
    assert "SIGSYS" in describe_exit(signal.SIGSYS)
    assert describe_exit(signal.SIGKILL, cpu=9.99, cpu_limit=10) == "ended by SIGKILL (killed from outside)"
    assert describe_exit(signal.SIGKILL, cpu=10.4, cpu_limit=10).endswith("(it used up its 10 s of CPU time)")


# -- teactl doctor ---------------------------------------------------------------------------------------------


def test_the_doctor_prints_what_holds_and_answers_whether_require_would_start() -> None:
    ended = subprocess.run([*CLI, "doctor", "--json"], capture_output=True, check=False)
    shown = json.loads(ended.stdout)
    assert shown["ok"] == (ended.returncode == 0) == (shown["require"] is None)
    report = doctor.examine()
    assert {one["layer"]: one["held"] for one in shown["layers"]} == {
        one.layer.value: one.held for one in report.findings
    }
    assert set(shown["promises"]) == {promise.value for promise in Promise}


def test_the_doctor_says_the_mend_of_what_lacks() -> None:
    text = doctor.as_text(report_of(Layer.LANDLOCK, Layer.EMPTY_ROOT))
    assert "landlock           LACKING  as the test says" in text
    assert f"mend: {MENDS[Layer.LANDLOCK]}" in text
    assert f"no   {Promise.FILES.value}" in text
    assert f"yes  {Promise.KERNEL.value}" in text


def test_the_doctor_leaves_its_caller_as_it_was() -> None:
    before = Path("/proc/self/ns/mnt").readlink(), Path.cwd()
    doctor.examine()
    assert (Path("/proc/self/ns/mnt").readlink(), Path.cwd()) == before


# -- cgroups: the arithmetic on a folder that looks like one; the birth in a real one ---------------------------


class Tree:
    """Files as cgroup2 shows them."""

    def __init__(self, root: Path) -> None:
        self.mounts, self.own, self.folder = root / "mountinfo", root / "cgroup", root / "fs" / "host"
        self.mounts.write_text(f"30 20 0:26 / {root / 'fs'} rw - cgroup2 cgroup2 rw\n")
        self.own.write_text("9:memory:/x\n0::/host\n")
        self.folder.mkdir(parents=True)
        for name, text in (
            ("cgroup.controllers", "cpu memory pids io"),
            ("cgroup.procs", f"{os.getpid()}\n"),
            ("cgroup.subtree_control", ""),
            ("cgroup.events", "populated 1"),
        ):
            (self.folder / name).write_text(text)

    def examine(self) -> Cgroups:
        return Cgroups.examine(self.mounts, self.own)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_a_worker_gets_memory_processes_and_cpu(tree: Tree) -> None:
    cgroups = tree.examine()
    cgroups.prepare()
    assert (tree.folder / "tea-host" / "cgroup.procs").read_text() == str(os.getpid())
    assert (tree.folder / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"
    made = cgroups.make(64 << 20)
    assert (made.path / "memory.max").read_text() == str(96 << 20)
    assert (made.path / "pids.max").read_text() == "1"
    assert (made.path / "cpu.max").read_text() == CPU_MAX
    made.born()
    assert made.descriptor == -1


def test_the_root_of_the_tree_needs_no_leaf(tree: Tree) -> None:
    (tree.folder / "cgroup.events").unlink()
    (tree.folder / "cgroup.procs").write_text("1\n2\n")
    tree.examine().prepare()
    assert not (tree.folder / "tea-host").exists()


def test_a_cgroup_that_others_share_is_left_alone(tree: Tree) -> None:
    (tree.folder / "cgroup.procs").write_text(f"{os.getpid()}\n1\n")
    with pytest.raises(CgroupError, match="1 other processes"):
        tree.examine()


def test_missing_controllers_are_named(tree: Tree) -> None:
    (tree.folder / "cgroup.controllers").write_text("cpu io")
    with pytest.raises(CgroupError, match="memory, pids cannot be had"):
        tree.examine()


def test_a_machine_without_cgroup2_says_so(tree: Tree) -> None:
    tree.mounts.write_text("30 20 0:26 / /sys rw - sysfs sysfs rw\n")
    with pytest.raises(CgroupError, match="not mounted"):
        tree.examine()


def test_a_process_is_born_in_its_cgroup() -> None:
    mount = next(
        (
            Path(line.split()[4])
            for line in Path("/proc/self/mountinfo").read_text().splitlines()
            if line.partition(" - ")[2].startswith("cgroup2 ")
        ),
        None,
    )
    if mount is None or not os.access(mount, os.W_OK):
        pytest.skip("no cgroup2 that this user may write to")
    folder = mount / f"tea-test-{os.getpid()}"
    folder.mkdir()
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        pid = fork(0, descriptor)
        if pid == 0:
            signal.pause()
            os._exit(0)
        os.close(descriptor)
        try:
            assert (folder / "cgroup.procs").read_text().split() == [str(pid)]
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    finally:
        folder.rmdir()
