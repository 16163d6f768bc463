"""A small assembler for seccomp's classic BPF: a decision by system call number, with tests of arguments.

May not: know which calls are allowed (`seccomp_policy.py` does). Rule: seccomp(2); Documentation/userspace-api/
seccomp_filter.rst. The numbers are searched as a tree, so a verdict takes some ten steps whichever call it is for.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

AUDIT_ARCH: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32_BIT: Final = 0x4000_0000

KILL_PROCESS: Final = 0x8000_0000
ERRNO: Final = 0x0005_0000
USER_NOTIF: Final = 0x7FC0_0000
ALLOW: Final = 0x7FFF_0000

# struct seccomp_data: int nr; u32 arch; u64 instruction_pointer; u64 args[6]. Both machines are little-endian.
_NUMBER: Final = 0
_ARCH: Final = 4
_ARGUMENTS: Final = 16

_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP: Final = 0x05  # BPF_JMP | BPF_JA
_IF_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_IF_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_IF_ANY_BIT: Final = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K

Instruction = tuple[int, int, int, int]
MAX_INSTRUCTIONS: Final = 4096


@dataclass(frozen=True)
class OneOf:
    """The low 32 bits of argument `argument` are one of `values`; with `high` also the high 32 bits must be 0."""

    argument: int
    values: tuple[int, ...]
    high: bool = False


@dataclass(frozen=True)
class NoneOfBits:
    """No bit of `mask` is set in the low 32 bits of argument `argument`."""

    argument: int
    mask: int


@dataclass(frozen=True)
class When:
    """`then` if every test holds, else `otherwise`."""

    tests: tuple[OneOf | NoneOfBits, ...]
    then: int
    otherwise: int


Rule = int | When


def assemble(machine: str, rules: Mapping[int, Rule], default: int) -> bytes:
    """A filter for `machine`: the verdict of each numbered call, `default` for all others.

    Another architecture's calls (and x32's) end the process: they would be other calls under the same numbers.
    """
    code: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH),
        (_IF_EQUAL, 1, 0, AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if machine == "x86_64":
        code += [(_IF_AT_LEAST, 0, 1, X32_BIT), (_RETURN, 0, 0, KILL_PROCESS)]
    code += _search(_intervals(rules, default))
    if len(code) > MAX_INSTRUCTIONS:
        raise ValueError(f"a filter has at most {MAX_INSTRUCTIONS} instructions, this one {len(code)}")
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)


def _intervals(rules: Mapping[int, Rule], default: int) -> list[tuple[int, Rule]]:
    """Where the verdict changes: [(first number, rule)], beginning with 0."""
    changes: list[tuple[int, Rule]] = [(0, rules.get(0, default))]
    for number in sorted({n for one in rules for n in (one, one + 1)}):
        rule = rules.get(number, default)
        if rule != changes[-1][1]:
            changes.append((number, rule))
    return changes


def _search(intervals: list[tuple[int, Rule]]) -> list[Instruction]:
    if len(intervals) == 1:
        return _leaf(intervals[0][1])
    middle = len(intervals) // 2
    below, above = _search(intervals[:middle]), _search(intervals[middle:])
    first = intervals[middle][0]
    if len(below) <= 255:
        return [(_IF_AT_LEAST, len(below), 0, first), *below, *above]
    return [(_IF_AT_LEAST, 0, 1, first), (_JUMP, 0, 0, len(below)), *below, *above]


def _leaf(rule: Rule) -> list[Instruction]:
    if isinstance(rule, int):
        return [(_RETURN, 0, 0, rule)]
    # Each test falls through when it holds and returns `otherwise` when it does not.
    refuse: Instruction = (_RETURN, 0, 0, rule.otherwise)
    code: list[Instruction] = []
    for test in rule.tests:
        low = _ARGUMENTS + 8 * test.argument
        if isinstance(test, NoneOfBits):
            code += [(_LOAD, 0, 0, low), (_IF_ANY_BIT, 0, 1, test.mask), refuse]
            continue
        if test.high:
            code += [(_LOAD, 0, 0, low + 4), (_IF_EQUAL, 1, 0, 0), refuse]
        code.append((_LOAD, 0, 0, low))
        for left, value in enumerate(test.values):
            remaining = len(test.values) - 1 - left
            code.append((_IF_EQUAL, remaining + 1, 0, value))
        code.append(refuse)
    code.append((_RETURN, 0, 0, rule.then))
    return code
