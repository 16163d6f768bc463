"""Which system calls a worker may make, and what becomes of the others. Names, not numbers: one policy, two machines.

May not: be widened for one actor's sake; a call that is missing here is refused, named in the log, and the actor lives.
Rule: docs/sandbox.md, "The filter". Four verdicts:

    allowed       what Python, msgspec and one connected socket need, with arguments tested where a call can do more
    quiet         refused with EPERM: what the standard library tries unasked and lives without (stat of a source file)
    named         refused with EPERM, and the host is told which call it was: everything that is not listed here
    fatal         ends the worker with SIGSYS: what no library calls by mistake and exploits of kernels begin with
"""

from __future__ import annotations

import enum
import functools
from typing import Final

from .bpf import ALLOW, ERRNO, KILL_PROCESS, USER_NOTIF, NoneOfBits, OneOf, Rule, When, assemble
from .syscall_table import NUMBERS

EPERM: Final = 1
REFUSE: Final = ERRNO | EPERM

_PROT_EXEC: Final = 4
_AT_EMPTY_PATH: Final = 0x1000
# F_DUPFD.. are useless with one descriptor; F_SETOWN and F_SETSIG would have the kernel send signals to others.
_FCNTL: Final = (1, 2, 3, 4)  # F_GETFD, F_SETFD, F_GETFL, F_SETFL
_IOCTL: Final = (0x5421, 0x541B, 0x5450, 0x5451)  # FIONBIO, FIONREAD, FIONCLEX, FIOCLEX; not FIOSETOWN


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# MADV_MERGEABLE is missing: which of one's pages the kernel merges with others' tells what those hold. So is
# MADV_HUGEPAGE: clearing one holds a core for as long as a neighbour's call takes.
_MADVISE: Final = (0, 1, 2, 3, 4, 8, 15)  # NORMAL to DONTNEED, FREE, NOHUGEPAGE

ALLOWED: Final = _names(
    "read write readv writev recvfrom sendto shutdown close lseek fstat "
    "select pselect6 poll ppoll "
    "munmap mremap brk "
    "futex sched_yield sched_getaffinity membarrier rseq set_robust_list "
    "rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack rt_sigpending rt_sigsuspend rt_sigtimedwait pause "
    "alarm setitimer getitimer nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time times getrusage "
    "getpid gettid getppid getpgrp getpgid getsid getuid geteuid getgid getegid getgroups getresuid getresgid "
    "getcwd umask uname getrandom getcpu restart_syscall exit exit_group"
)
"""Whatever their arguments are."""

QUIET: Final = _names(
    "stat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat statfs fstatfs sysinfo "
    "getpriority getsockname getpeername getsockopt"
)

FATAL: Final = _names(
    # others' memory and state
    "ptrace process_vm_readv process_vm_writev process_madvise process_mrelease kcmp pidfd_open pidfd_getfd "
    # parts of the kernel with the longest history of holes
    "bpf userfaultfd io_uring_setup io_uring_enter io_uring_register perf_event_open keyctl add_key request_key "
    "modify_ldt personality vmsplice remap_file_pages move_pages migrate_pages mbind set_mempolicy lookup_dcookie "
    # the machine
    "init_module finit_module delete_module create_module kexec_load kexec_file_load reboot swapon swapoff acct "
    "iopl ioperm syslog settimeofday clock_settime clock_adjtime adjtimex sethostname setdomainname quotactl "
    # other views of it
    "mount umount2 pivot_root chroot unshare setns open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr "
    "open_by_handle_at name_to_handle_at fanotify_init "
    # other identities
    "setuid setgid setreuid setregid setresuid setresgid setgroups setfsuid setfsgid capset"
)

_CLOSING: Final = frozenset({"seccomp", "sendmsg"})
"""What the rest of closing in needs after the filter stands; the last lock takes them away."""


class Profile(enum.StrEnum):
    """What kind of code a worker runs."""

    PYTHON = "python"
    """Interpreted: nothing is ever mapped executable."""
    WASM = "wasm"
    """Compiled by wasmtime inside the worker: may map memory executable until `code_lock`, which it puts on itself
    before the guest's first instruction, and nothing more than PYTHON beside it."""


@functools.lru_cache
def first_filter(machine: str, profile: Profile, own_pid: int, empty_root: bool, named: bool) -> bytes:
    """The allowlist, as it stands while the last steps of closing in are taken.

    `own_pid` is the worker's pid in its own namespace; `empty_root` that there is nothing to stat; `named` that a
    listener hears of refused calls.
    """
    numbers = NUMBERS[machine]
    unknown = USER_NOTIF if named else REFUSE
    rules: dict[int, Rule] = {}

    def rule(names: frozenset[str], verdict: Rule) -> None:
        # The two machines do not have all of each other's calls: what one lacks falls under its default.
        rules.update((numbers[name], verdict) for name in names if name in numbers)

    rule(ALLOWED | _CLOSING, ALLOW)
    rule(QUIET, REFUSE)
    rule(FATAL, KILL_PROCESS)
    executable = () if profile is Profile.WASM else (NoneOfBits(2, _PROT_EXEC),)
    rule(frozenset({"mmap", "mprotect"}), When(executable, ALLOW, unknown))
    rule(frozenset({"fcntl"}), When((OneOf(1, _FCNTL),), ALLOW, unknown))
    rule(frozenset({"ioctl"}), When((OneOf(1, _IOCTL),), ALLOW, unknown))
    rule(frozenset({"madvise"}), When((OneOf(2, _MADVISE),), ALLOW, unknown))
    itself = OneOf(0, (own_pid,))
    rule(frozenset({"kill", "tgkill"}), When((itself,), ALLOW, unknown))
    # Lowering one's own limits (pid 0) is the last step but one; the last lock leaves only reading them.
    rule(frozenset({"prlimit64"}), When((OneOf(0, (0,)),), ALLOW, unknown))
    if empty_root:
        # fstat(2) of C libraries from 2.33 on. A path can be given beside the flag: only where none leads anywhere.
        rule(frozenset({"newfstatat"}), When((OneOf(3, (_AT_EMPTY_PATH,)),), ALLOW, REFUSE))
    return assemble(machine, rules, unknown)


@functools.lru_cache
def last_lock(machine: str, profile: Profile = Profile.PYTHON) -> bytes:
    """Takes away what closing in itself needed, and allows all else (the first filter still decides on that)."""
    numbers = NUMBERS[machine]
    rules: dict[int, Rule] = {numbers[name]: KILL_PROCESS for name in _CLOSING}
    if profile is Profile.WASM:
        # One more filter, `code_lock`: SECCOMP_SET_MODE_FILTER without flags, so without a listener's descriptor.
        rules[numbers["seccomp"]] = When((OneOf(0, (1,), high=True), OneOf(1, (0,), high=True)), ALLOW, KILL_PROCESS)
    rules[numbers["prlimit64"]] = When((OneOf(2, (0,), high=True),), ALLOW, KILL_PROCESS)
    return assemble(machine, rules, ALLOW)


@functools.lru_cache
def code_lock(machine: str) -> bytes:
    """Takes away what compiling needed: executable mappings, and the call that puts a filter on."""
    numbers = NUMBERS[machine]
    rules: dict[int, Rule] = {
        numbers[name]: When((NoneOfBits(2, _PROT_EXEC),), ALLOW, REFUSE) for name in ("mmap", "mprotect")
    }
    rules[numbers["seccomp"]] = KILL_PROCESS
    return assemble(machine, rules, ALLOW)
