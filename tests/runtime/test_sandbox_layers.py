"""Each layer of the sandbox alone, and all together: what `teactl doctor` calls held is shown to hold.

Code in the sandbox runs as native code would (ctypes), since that is what a worker must be assumed to run.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tea.runtime.worker import landlock
from tea.runtime.worker.kernel import PR_SET_DUMPABLE, fork, prctl, set_c_environment
from tea.runtime.worker.layers import Layer, SandboxReport
from tea.runtime.worker.namespaces import flags_of
from tea.runtime.worker.probe import probe_apart
from tea.runtime.worker.seccomp_policy import FATAL, Profile
from tea.runtime.worker.syscall_table import NUMBERS

from .confined import LIBC, UID, Outcome, confined, native, native_number, tried

MACHINE = os.uname().machine
pytestmark = pytest.mark.skipif(MACHINE not in NUMBERS, reason="no system call table for this machine")
needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="what an ordinary user's workers have, test_sandbox_user.py shows"
)
SECCOMP = (Layer.NO_NEW_PRIVILEGES, Layer.SECCOMP)

Attempt = Callable[[], Any]


class Alone:
    """Runs code with given layers on; a layer that this kernel lacks skips the test."""

    def __init__(self, report: SandboxReport) -> None:
        self.report = report

    def outcome(self, attempt: Attempt, *layers: Layer, **plan: Any) -> Outcome:
        for layer in layers:
            if layer not in self.report.held:
                pytest.skip(f"{layer.value} lacks here: {self.report.find(layer).why}")
        return confined(attempt, *layers, **plan)

    def __call__(self, attempt: Attempt, *layers: Layer, **plan: Any) -> Any:
        outcome = self.outcome(attempt, *layers, **plan)
        assert outcome.signal is None and outcome.error == "", outcome
        return outcome.result


@pytest.fixture(scope="module")
def alone() -> Alone:
    return Alone(probe_apart())


# -- descriptors, environment ----------------------------------------------------------------------------------


def test_nothing_is_inherited_but_the_socket(alone: Alone) -> None:
    secret = os.open("/etc/hostname", os.O_RDONLY)
    os.set_inheritable(secret, True)
    high = os.dup2(secret, 900)
    try:

        def attempt() -> list[int]:
            return [number for number in range(1024) if tried(os.fstat, number) == "ok"]

        assert alone(attempt, Layer.DESCRIPTORS) == [0]
    finally:
        os.close(secret)
        os.close(high)


def test_no_second_descriptor_can_be_had(alone: Alone) -> None:
    def attempt() -> list[str]:
        return [tried(os.open, "/etc/passwd", os.O_RDONLY), tried(os.dup, 0), tried(socket.socketpair)]

    assert alone(attempt, Layer.DESCRIPTORS) == ["EMFILE"] * 3


def test_lanes_are_the_numbers_from_1_on_in_their_order_and_nothing_is_inherited_beside(alone: Alone) -> None:
    pairs = [socket.socketpair() for _ in range(5)]
    # Reversed, so that the numbers that they have are ones that others of them are to get.
    ends = [pair[1] for pair in reversed(pairs)]
    for number, pair in enumerate(reversed(pairs)):
        pair[0].send(bytes([number]))
    try:

        def attempt() -> list[object]:
            found = [number for number in range(1024) if tried(os.fstat, number) == "ok"]
            more = [tried(os.open, "/etc/passwd", os.O_RDONLY), tried(os.dup, 0), tried(socket.socketpair)]
            return [found, [os.read(number, 1)[0] for number in range(1, 6)], more]

        assert alone(attempt, Layer.DESCRIPTORS, lanes=ends) == [[*range(6)], [*range(5)], ["EMFILE"] * 3]
    finally:
        for one, other in pairs:
            one.close()
            other.close()


def test_no_descriptor_can_be_passed_over_a_lane(alone: Alone) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, Path("/etc/hostname").open("rb") as file:
        socket.send_fds(ours, [b"x"], [file.fileno()])

        def attempt() -> str:
            lane = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, 1)
            return tried(lane.recvmsg, 1, 64)

        assert alone(attempt, *SECCOMP, Layer.DESCRIPTORS, lanes=[theirs]) == "EPERM"

        def send() -> str:
            lane = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, 1)
            return tried(socket.send_fds, lane, [b"x"], [0])

        assert alone.outcome(send, *SECCOMP, Layer.DESCRIPTORS, lanes=[theirs]).signal == "SIGSYS"


def test_a_worker_with_another_number_of_descriptors_than_it_was_given_does_not_run(alone: Alone) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for lanes in (0, 2):
            outcome = alone.outcome(lambda: 1, Layer.DESCRIPTORS, lanes=[theirs], announced=lanes)
            assert outcome.result is None and "descriptors" in outcome.error


def test_the_environment_is_empty_and_time_is_utc(alone: Alone) -> None:
    LIBC.getenv.restype = ctypes.c_char_p
    os.environ["TEA_TEST_SECRET"] = "hidden"
    set_c_environment("TZ", "Asia/Kolkata")
    try:

        def attempt() -> list[object]:
            return [dict(os.environ), LIBC.getenv(b"TEA_TEST_SECRET"), time.localtime(0).tm_hour]

        assert alone(attempt, Layer.DESCRIPTORS) == [{}, None, 0]
    finally:
        del os.environ["TEA_TEST_SECRET"]
        LIBC.unsetenv(b"TZ")


# -- namespaces and the root -----------------------------------------------------------------------------------


@needs_root
def test_the_root_is_empty_and_nothing_can_be_made_in_it(alone: Alone) -> None:
    def attempt() -> list[object]:
        return [
            str(Path.cwd()),
            list(Path("/").iterdir()),
            list(Path("/../..").iterdir()),
            tried(os.open, "/etc/passwd", os.O_RDONLY),
            tried(os.open, "/proc/self/mem", os.O_RDWR),
            tried(os.mkdir, "/x"),
            tried(os.open, "/x", os.O_CREAT | os.O_WRONLY),
        ]

    assert alone(attempt, Layer.EMPTY_ROOT) == ["/", [], [], "ENOENT", "ENOENT", "EROFS", "EROFS"]


@needs_root
def test_a_pid_namespace_has_nobody_else_in_it(alone: Alone) -> None:
    host = os.getpid()

    def attempt() -> list[object]:
        return [os.getpid(), os.getppid(), tried(os.kill, host, 0), tried(os.kill, 2, 0), tried(os.getpgid, host)]

    assert alone(attempt, Layer.PID_NAMESPACE) == [1, 0, "ESRCH", "ESRCH", "ESRCH"]


@needs_root
def test_a_network_namespace_has_no_way_out(alone: Alone) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()

        def attempt() -> list[object]:
            with socket.socket(socket.AF_INET) as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
                return [
                    [name for _index, name in socket.if_nameindex()],
                    tried(tcp.connect, address),
                    tried(udp.sendto, b"x", ("192.0.2.1", 53)),
                ]

        assert alone(attempt, Layer.NETWORK_NAMESPACE) == [["lo"], "ENETUNREACH", "ENETUNREACH"]


@needs_root
def test_shared_memory_of_others_has_no_name_in_an_ipc_namespace(alone: Alone) -> None:
    key = 0x7EA00000 | os.getpid() & 0xFFFF
    made = LIBC.shmget(key, 4096, 0o1666)
    assert made >= 0
    try:
        assert alone(lambda: native("shmget", key, 4096, 0), Layer.IPC_NAMESPACE) == "ENOENT"
    finally:
        LIBC.shmctl(made, 0, None)


@needs_root
@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (Layer.NETWORK_NAMESPACE, "net"),
        (Layer.IPC_NAMESPACE, "ipc"),
        (Layer.UTS_NAMESPACE, "uts"),
        (Layer.PID_NAMESPACE, "pid"),
        (Layer.EMPTY_ROOT, "mnt"),
    ],
)
def test_a_namespace_is_each_workers_own(alone: Alone, layer: Layer, kind: str) -> None:
    if layer not in alone.report.held:
        pytest.skip(alone.report.find(layer).why)
    with sleeping(flags_of([layer])) as one, sleeping(flags_of([layer])) as two:
        namespaces = {Path(f"/proc/{who}/ns/{kind}").stat().st_ino for who in ("self", one, two)}
    assert len(namespaces) == 3


@contextmanager
def sleeping(flags: int) -> Iterator[int]:
    pid = fork(flags)
    if pid == 0:
        signal.pause()
        os._exit(0)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


# -- identity --------------------------------------------------------------------------------------------------


@needs_root
def test_a_worker_has_a_uid_of_its_own_and_no_group(alone: Alone) -> None:
    host = os.getpid()

    def attempt() -> list[object]:
        return [os.getresuid(), os.getresgid(), os.getgroups(), tried(os.kill, host, 0), tried(os.setuid, 0)]

    found = alone(attempt, Layer.OWN_UID)
    assert found == [[UID] * 3, [UID] * 3, [], "EPERM", "EPERM"]


def test_no_capability_is_left_and_none_can_be_had(alone: Alone) -> None:
    def attempt() -> list[object]:
        header, data = struct.pack("<Ii", 0x20080522, 0), ctypes.create_string_buffer(24)
        LIBC.capget(header, data)
        bounding = [number for number in range(64) if LIBC.prctl(23, number, 0, 0, 0) == 1]
        return [data.raw, bounding, native("mount", b"x", b"/tmp", b"tmpfs", 0, None), native("chroot", b"/")]

    found = alone(attempt, Layer.NO_CAPABILITIES)
    assert found[0] == bytes(24)
    assert found[2:] == ["EPERM", "EPERM"]
    if os.geteuid() == 0:
        assert found[1] == []


def test_running_a_program_gains_nothing(alone: Alone) -> None:
    assert alone(lambda: LIBC.prctl(39, 0, 0, 0, 0), Layer.NO_NEW_PRIVILEGES) == 1


def test_memory_is_not_dumpable(alone: Alone) -> None:
    def attempt() -> list[int]:
        return [LIBC.prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE)[1]]

    prctl(PR_SET_DUMPABLE, 1)
    assert alone(attempt, Layer.NOT_DUMPABLE, Layer.LIMITS) == [0, 0]


# -- limits ----------------------------------------------------------------------------------------------------


def test_memory_is_bounded_and_running_out_is_an_error(alone: Alone) -> None:
    def attempt() -> list[object]:
        return [tried(bytearray, 16 << 20), tried(bytearray, 256 << 20), tried(bytearray, 10 << 30)]

    assert alone(attempt, Layer.LIMITS, memory_bytes=64 << 20) == ["ok", "MemoryError", "MemoryError"]


def test_limits_cannot_be_raised(alone: Alone) -> None:
    kinds = (resource.RLIMIT_AS, resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE, resource.RLIMIT_MEMLOCK)

    def attempt() -> list[object]:
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        refused: list[object] = []
        for kind in kinds:
            try:
                resource.setrlimit(kind, unlimited)
            except (ValueError, OSError):
                refused.append(kind)
        return refused

    assert alone(attempt, Layer.LIMITS, Layer.NO_CAPABILITIES) == list(kinds)


@needs_root
def test_a_process_more_is_one_too_many(alone: Alone) -> None:
    assert alone(lambda: native("clone", 17, 0, 0, 0, 0), Layer.OWN_UID, Layer.LIMITS) == "EAGAIN"


@pytest.mark.parametrize("layers", [(Layer.LIMITS,), (Layer.LIMITS, Layer.PID_NAMESPACE)], ids=["plain", "as pid 1"])
def test_cpu_time_runs_out(alone: Alone, layers: tuple[Layer, ...]) -> None:
    if os.geteuid() != 0 and Layer.PID_NAMESPACE in layers:
        pytest.skip("needs a user namespace around it")

    def attempt() -> None:
        while True:
            pass

    assert alone.outcome(attempt, *layers, cpu_seconds=1).signal in ("SIGXCPU", "SIGKILL")


# -- Landlock --------------------------------------------------------------------------------------------------


def test_landlock_denies_every_file(alone: Alone, tmp_path: Any) -> None:
    path = str(tmp_path / "there")
    (tmp_path / "there").write_text("x")
    directory = str(tmp_path)

    def attempt() -> list[object]:
        return [
            tried(os.open, path, os.O_RDONLY),
            tried(os.open, path, os.O_WRONLY),
            tried(os.listdir, directory),
            tried(os.unlink, path),
            tried(os.mkdir, f"{directory}/new"),
            tried(os.open, "/proc/self/environ", os.O_RDONLY),
        ]

    assert alone(attempt, Layer.NO_NEW_PRIVILEGES, Layer.LANDLOCK) == ["EACCES"] * 6


def test_landlock_denies_tcp_where_the_kernel_can(alone: Alone) -> None:
    if Layer.LANDLOCK not in alone.report.held or landlock.version() < 4:
        pytest.skip("Landlock knows the network from its version 4 on")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()

        def attempt() -> list[object]:
            with socket.socket() as one, socket.socket() as two:
                return [tried(one.connect, address), tried(two.bind, ("127.0.0.1", 0))]

        assert alone(attempt, Layer.NO_NEW_PRIVILEGES, Layer.LANDLOCK) == ["EACCES", "EACCES"]


def test_landlock_denies_signals_to_others_where_the_kernel_can(alone: Alone) -> None:
    if Layer.LANDLOCK not in alone.report.held or landlock.version() < 6:
        pytest.skip("Landlock knows signals from its version 6 on")
    host = os.getpid()
    assert alone(lambda: tried(os.kill, host, 0), Layer.NO_NEW_PRIVILEGES, Layer.LANDLOCK) == "EPERM"


# -- seccomp ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "family", [1, 2, 10, 16, 17, 38, 40], ids=["unix", "inet", "inet6", "netlink", "packet", "alg", "vsock"]
)
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW])
def test_seccomp_alone_refuses_every_socket(alone: Alone, family: int, kind: int) -> None:
    assert alone(lambda: native("socket", family, int(kind), 0), *SECCOMP) == "EPERM"


REFUSED: list[tuple[str, tuple[int | bytes | None, ...]]] = [
    ("openat", (-100, b"/etc/passwd", 0)),
    ("openat2", (-100, b"/etc/passwd", bytes(24), 24)),
    ("clone", (17, 0, 0, 0, 0)),
    ("clone", (0x10000000 | 17, 0, 0, 0, 0)),  # a user namespace
    ("clone3", (bytes(88), 88)),
    ("execve", (b"/bin/true", None, None)),
    ("execveat", (0, b"", None, None, 0x1000)),
    ("mmap", (0, 4096, 7, 0x22, -1, 0)),
    ("memfd_create", (b"x", 0)),
    ("pkey_mprotect", (0, 4096, 5, -1)),
    ("shmat", (0, None, 0o100000)),
    ("kill", (-1, 9)),
    ("kill", (0, 9)),
    ("tkill", (1, 9)),
    ("pidfd_send_signal", (0, 9, None, 0)),
    ("fcntl", (0, 8, 1)),  # F_SETOWN: the kernel would send signals for it
    ("ioctl", (0, 0x8901, b"\1\0\0\0")),  # FIOSETOWN: the same by another door
    ("prctl", (4, 1, 0, 0, 0)),
    ("prlimit64", (1, 7, None, None)),
    ("madvise", (0, 4096, 12)),
    ("recvmsg", (0, None, 0)),
    ("setsockopt", (0, 1, 16, b"\1\0\0\0", 4)),
    ("timer_create", (0, None, None)),
    ("sched_setaffinity", (0, 8, bytes(8))),
    ("epoll_create1", (0,)),
    ("inotify_init1", (0,)),
]


@pytest.mark.parametrize(("name", "arguments"), REFUSED, ids=[f"{name}-{at}" for at, (name, _) in enumerate(REFUSED)])
def test_seccomp_alone_refuses(alone: Alone, name: str, arguments: tuple[int | bytes | None, ...]) -> None:
    assert alone(lambda: native(name, *arguments), *SECCOMP) == "EPERM"


@pytest.mark.parametrize("name", sorted(name for name in FATAL if name in NUMBERS.get(MACHINE, {})))
def test_what_no_library_calls_by_mistake_ends_the_worker(alone: Alone, name: str) -> None:
    assert alone.outcome(lambda: native(name, 0, 0, 0, 0, 0), *SECCOMP).signal == "SIGSYS"


@pytest.mark.parametrize("name", ["seccomp", "sendmsg"])
def test_what_closing_in_needed_is_gone(alone: Alone, name: str) -> None:
    assert alone.outcome(lambda: native(name, 0, 0, 0), *SECCOMP).signal == "SIGSYS"


def test_limits_can_be_read_and_not_set_behind_the_last_lock(alone: Alone) -> None:
    assert alone(lambda: resource.getrlimit(resource.RLIMIT_CORE) is not None, *SECCOMP)
    assert alone.outcome(lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)), *SECCOMP).signal == "SIGSYS"


@pytest.mark.skipif(MACHINE != "x86_64", reason="x32 is x86's")
def test_x32_numbers_end_the_worker(alone: Alone) -> None:
    assert alone.outcome(lambda: native_number(0x40000000 | 39), *SECCOMP).signal == "SIGSYS"


def test_writable_memory_never_becomes_executable(alone: Alone) -> None:
    def attempt() -> list[str]:
        LIBC.mmap.restype = ctypes.c_void_p
        LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        address = LIBC.mmap(None, 4096, 3, 0x22, -1, 0)
        return [native("mprotect", address, 4096, 1), native("mprotect", address, 4096, 5)]

    assert alone(attempt, *SECCOMP) == ["ok 0", "EPERM"]


def test_the_wasm_profile_maps_executable_memory_and_opens_nothing(alone: Alone) -> None:
    def attempt() -> list[str]:
        return [
            native("mmap", 0, 4096, 5, 0x22, -1, 0)[:2],
            native("socket", 40, 1, 0),
            native("openat", -100, b"/etc/passwd", 0),
            native("clone", 17, 0, 0, 0, 0),
        ]

    assert alone(attempt, *SECCOMP, profile=Profile.WASM) == ["ok", "EPERM", "EPERM", "EPERM"]


def test_python_goes_on_as_ever_behind_the_filter(alone: Alone) -> None:
    def attempt() -> list[object]:
        import hashlib
        import json
        import random
        import traceback
        import uuid

        big = [bytearray(1 << 20) for _ in range(16)]
        try:
            raise ValueError("x")
        except ValueError:
            shown = traceback.format_exc()
        time.sleep(0.001)
        return [
            len(os.urandom(16)),
            json.loads(json.dumps({"a": [1, 2]})),
            hashlib.sha256(b"".join(big)).hexdigest()[:8],
            random.random() < 1,
            len(str(uuid.uuid4())),
            "ValueError: x" in shown,
            time.time() > 0 and time.monotonic() > 0 and time.process_time() >= 0,
            os.getpid() > 0,
        ]

    found = alone(attempt, *SECCOMP, Layer.LIMITS)
    assert found[1:2] + found[3:] == [{"a": [1, 2]}, True, 36, True, True, True]


# -- the host's end --------------------------------------------------------------------------------------------


def test_a_worker_ends_with_its_host(alone: Alone) -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    host = os.fork()
    if host == 0:
        from tea.runtime.worker.sandbox import Confinement, close_in

        worker = os.fork()
        if worker == 0:
            _ours, theirs = socket.socketpair()
            layers = frozenset({Layer.PARENT_DEATH, *((Layer.OWN_UID,) if os.geteuid() == 0 else ())})
            close_in(theirs, Confinement(layers, UID, 1 << 26, 0, os.getppid(), 0))
            os.write(writer, b"closed in")
            while True:
                signal.pause()
        signal.pause()
        os._exit(0)
    os.close(writer)
    try:
        assert os.read(reader, 64) == b"closed in"
        os.kill(host, signal.SIGKILL)
        os.waitpid(host, 0)
        assert os.read(reader, 1) == b"", "the pipe ends when its last writer, the worker, is gone"
    finally:
        os.close(reader)


def test_all_layers_together_leave_one_socket_and_the_clock(alone: Alone) -> None:
    held = [layer for layer in alone.report.held if layer not in (Layer.CGROUP, Layer.NAMED_REFUSALS)]
    if os.geteuid() != 0:
        held = [layer for layer in held if layer not in flags_layers()]

    def attempt() -> list[object]:
        return [
            native("socket", 40, 1, 0),
            native("openat", -100, b"/etc/passwd", 0),
            native("clone", 17, 0, 0, 0, 0),
            native("mmap", 0, 4096, 7, 0x22, -1, 0),
            native("kill", -1, 9),
            tried(bytearray, 1 << 30),
            time.time() > 0,
        ]

    assert alone(attempt, *held) == [*["EPERM"] * 5, "MemoryError", True]


def flags_layers() -> set[Layer]:
    """What an ordinary user has only inside the zygote's user namespace."""
    from tea.runtime.worker.namespaces import CLONE_FLAGS

    return {*CLONE_FLAGS, Layer.USER_NAMESPACE}
