"""The filter of system calls: the assembler against a machine that runs it, and the policy on both architectures."""

from __future__ import annotations

import platform

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tea.runtime.worker.bpf import (
    ALLOW,
    AUDIT_ARCH,
    ERRNO,
    KILL_PROCESS,
    USER_NOTIF,
    NoneOfBits,
    OneOf,
    Rule,
    When,
    assemble,
)
from tea.runtime.worker.seccomp_policy import (
    ALLOWED,
    FATAL,
    QUIET,
    REFUSE,
    Profile,
    code_lock,
    first_filter,
    last_lock,
)
from tea.runtime.worker.syscall_table import NUMBERS, name_of, number_of

from .bpf_machine import run

MACHINES = ("x86_64", "aarch64")
VERDICTS = st.sampled_from([ALLOW, REFUSE, KILL_PROCESS, USER_NOTIF, ERRNO | 38])
WORDS = st.integers(0, (1 << 64) - 1)
TESTS = st.one_of(
    st.builds(OneOf, st.integers(0, 5), st.lists(st.integers(0, 0xFFFFFFFF), max_size=5).map(tuple), st.booleans()),
    st.builds(NoneOfBits, st.integers(0, 5), st.integers(0, 0xFFFFFFFF)),
)
RULES: st.SearchStrategy[Rule] = st.one_of(
    VERDICTS, st.builds(When, st.lists(TESTS, max_size=3).map(tuple), VERDICTS, VERDICTS)
)


def verdict(rule: Rule, arguments: tuple[int, ...]) -> int:
    """What a rule says, read off its definition."""
    if isinstance(rule, int):
        return rule
    for test in rule.tests:
        argument = arguments[test.argument]
        low = argument & 0xFFFFFFFF
        if isinstance(test, NoneOfBits):
            holds = not low & test.mask
        else:
            holds = low in test.values and (not test.high or argument >> 32 == 0)
        if not holds:
            return rule.otherwise
    return rule.then


@given(
    st.sampled_from(MACHINES),
    st.dictionaries(st.integers(0, 500), RULES, max_size=120),
    VERDICTS,
    st.lists(st.integers(0, 520), max_size=20),
    st.tuples(*[WORDS] * 6),
)
def test_a_filter_decides_as_its_rules_say(
    machine: str, rules: dict[int, Rule], default: int, numbers: list[int], arguments: tuple[int, ...]
) -> None:
    program = assemble(machine, rules, default)
    for number in [*numbers, *rules]:
        expected = verdict(rules.get(number, default), arguments)
        assert run(program, number, AUDIT_ARCH[machine], arguments) == expected


def python_filter(machine: str, *, named: bool = True, empty_root: bool = True, pid: int = 1) -> bytes:
    return first_filter(machine, Profile.PYTHON, pid, empty_root, named)


@pytest.mark.parametrize("machine", MACHINES)
def test_every_call_has_the_verdict_of_its_list(machine: str) -> None:
    program = python_filter(machine)
    tested = {"mmap", "mprotect", "madvise", "fcntl", "ioctl", "kill", "tgkill", "prlimit64", "newfstatat"}
    listed = ALLOWED | QUIET | FATAL | tested | {"seccomp", "sendmsg"}
    for name, number in NUMBERS[machine].items():
        decided = run(program, number, AUDIT_ARCH[machine])
        if name in tested:
            continue
        if name in FATAL:
            assert decided == KILL_PROCESS, name
        elif name in QUIET:
            assert decided == REFUSE, name
        elif name in listed:
            assert decided == ALLOW, name
        else:
            assert decided == USER_NOTIF, name
    assert not ALLOWED & (QUIET | FATAL) and not QUIET & FATAL


@pytest.mark.parametrize("machine", MACHINES)
def test_a_call_newer_than_the_table_is_refused(machine: str) -> None:
    for number in (450, 451, 462, 999, 0x3FFFFFFF):
        assert run(python_filter(machine), number, AUDIT_ARCH[machine]) == USER_NOTIF
        assert run(python_filter(machine, named=False), number, AUDIT_ARCH[machine]) == REFUSE


@pytest.mark.parametrize("machine", MACHINES)
def test_another_architectures_calls_end_the_process(machine: str) -> None:
    for arch in (0x40000003, 0x40000028, 0):  # i386, 32-bit ARM, nothing
        for number in (0, 1, 11, 63):
            assert run(python_filter(machine), number, arch) == KILL_PROCESS
            assert run(last_lock(machine), number, arch) == KILL_PROCESS


def test_x32_calls_end_the_process() -> None:
    for number in (0x40000000, 0x40000000 | 41, 0xFFFFFFFF):
        assert run(python_filter("x86_64"), number, AUDIT_ARCH["x86_64"]) == KILL_PROCESS


CALLS = [
    ("mmap", (0, 4096, 3, 0x22), ALLOW),
    ("mmap", (0, 4096, 7, 0x22), USER_NOTIF),
    ("mmap", (0, 4096, (1 << 40) | 4, 0x22), USER_NOTIF),
    ("mprotect", (0, 4096, 1), ALLOW),
    ("mprotect", (0, 4096, 5), USER_NOTIF),
    ("pkey_mprotect", (0, 4096, 1), USER_NOTIF),
    ("madvise", (0, 4096, 4), ALLOW),
    ("madvise", (0, 4096, 12), USER_NOTIF),  # MADV_MERGEABLE
    ("madvise", (0, 4096, 14), USER_NOTIF),  # MADV_HUGEPAGE
    ("fcntl", (0, 3), ALLOW),
    ("fcntl", (0, 8), USER_NOTIF),  # F_SETOWN
    ("fcntl", (0, 10), USER_NOTIF),  # F_SETSIG
    ("fcntl", (0, 1024), USER_NOTIF),  # F_SETLEASE
    ("ioctl", (0, 0x5421), ALLOW),
    ("ioctl", (0, 0x8901), USER_NOTIF),  # FIOSETOWN
    ("ioctl", (0, 0xC0200A00), USER_NOTIF),  # the NSM
    ("ioctl", (0, 0x5412), USER_NOTIF),  # TIOCSTI
    ("kill", (1, 6), ALLOW),
    ("kill", (0, 9), USER_NOTIF),
    ("kill", (0xFFFFFFFF, 9), USER_NOTIF),
    ("tgkill", (1, 1, 6), ALLOW),
    ("tgkill", (2, 2, 6), USER_NOTIF),
    ("prlimit64", (0, 7, 0, 1), ALLOW),
    ("prlimit64", (2, 7, 0, 1), USER_NOTIF),
    ("newfstatat", (0, 0, 0, 0x1000), ALLOW),
    ("newfstatat", (0, 0, 0, 0), REFUSE),
    ("clone", (17,), USER_NOTIF),
    ("clone3", (), USER_NOTIF),
    ("execve", (), USER_NOTIF),
    ("socket", (40, 1), USER_NOTIF),
    ("socketpair", (1, 1), USER_NOTIF),
    ("memfd_create", (), USER_NOTIF),
    ("recvmsg", (), USER_NOTIF),
    ("prctl", (4, 1), USER_NOTIF),
]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("name", "arguments", "expected"), CALLS)
def test_arguments_are_looked_at_where_a_call_can_do_more(
    machine: str, name: str, arguments: tuple[int, ...], expected: int
) -> None:
    assert run(python_filter(machine), number_of(name, machine), AUDIT_ARCH[machine], arguments) == expected


@pytest.mark.parametrize("machine", MACHINES)
def test_compiled_code_may_be_mapped_executable_and_gains_nothing_else(machine: str) -> None:
    python, wasm = python_filter(machine), first_filter(machine, Profile.WASM, 1, True, True)
    executable = (0, 4096, 7)
    for name, number in NUMBERS[machine].items():
        mine, theirs = (run(one, number, AUDIT_ARCH[machine], executable) for one in (python, wasm))
        assert (mine == theirs) == (name not in ("mmap", "mprotect")), name
    assert run(wasm, number_of("mmap", machine), AUDIT_ARCH[machine], executable) == ALLOW


def test_a_stat_by_path_is_refused_where_the_root_is_not_empty() -> None:
    program = python_filter("x86_64", empty_root=False)
    assert run(program, number_of("newfstatat", "x86_64"), AUDIT_ARCH["x86_64"], (0, 0, 0, 0x1000)) == REFUSE


@pytest.mark.parametrize("machine", MACHINES)
def test_the_last_lock_takes_away_what_closing_in_needed(machine: str) -> None:
    program, arch = last_lock(machine), AUDIT_ARCH[machine]
    for name in ("seccomp", "sendmsg"):
        assert run(program, number_of(name, machine), arch) == KILL_PROCESS
    assert run(program, number_of("prlimit64", machine), arch, (0, 7, 0, 4096)) == ALLOW
    assert run(program, number_of("prlimit64", machine), arch, (0, 7, 4096, 0)) == KILL_PROCESS
    assert run(program, number_of("prlimit64", machine), arch, (0, 7, 1 << 32, 0)) == KILL_PROCESS
    assert run(program, number_of("read", machine), arch) == ALLOW


@pytest.mark.parametrize("machine", MACHINES)
def test_a_worker_for_compiled_code_may_lock_itself_once_more_and_no_more(machine: str) -> None:
    program, arch = last_lock(machine, Profile.WASM), AUDIT_ARCH[machine]
    seccomp = number_of("seccomp", machine)
    assert run(program, seccomp, arch, (1, 0, 4096)) == ALLOW
    assert run(program, seccomp, arch, (1, 8, 4096)) == KILL_PROCESS  # a listener
    assert run(program, seccomp, arch, (0, 0, 0)) == KILL_PROCESS
    assert run(program, number_of("sendmsg", machine), arch) == KILL_PROCESS


@pytest.mark.parametrize("machine", MACHINES)
def test_the_lock_on_code_takes_away_what_compiling_needed(machine: str) -> None:
    program, arch = code_lock(machine), AUDIT_ARCH[machine]
    for name in ("mmap", "mprotect"):
        assert run(program, number_of(name, machine), arch, (0, 4096, 3)) == ALLOW
        assert run(program, number_of(name, machine), arch, (0, 4096, 5)) == REFUSE
        assert run(program, number_of(name, machine), arch, (0, 4096, 7)) == REFUSE
    assert run(program, number_of("seccomp", machine), arch, (1, 0, 4096)) == KILL_PROCESS
    assert run(program, number_of("read", machine), arch) == ALLOW


def test_numbers_and_names_are_the_kernels() -> None:
    assert (number_of("openat", "x86_64"), number_of("openat", "aarch64")) == (257, 56)
    assert (number_of("seccomp", "x86_64"), number_of("seccomp", "aarch64")) == (317, 277)
    assert (number_of("clone", "x86_64"), number_of("clone", "aarch64")) == (56, 220)
    assert (number_of("rseq", "x86_64"), number_of("rseq", "aarch64")) == (334, 293)
    for machine in MACHINES:
        assert number_of("landlock_restrict_self", machine) == 446
        assert name_of(448, machine) == "process_mrelease"
    assert name_of(4711, platform.machine()) == "system call 4711"
