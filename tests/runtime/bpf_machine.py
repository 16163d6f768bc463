"""A machine for seccomp's BPF: runs a filter on a call, so that another architecture's can be tested here.

May not: know the policy. Rule: Documentation/networking/filter.rst, as far as seccomp_check_filter lets a filter go.
"""

from __future__ import annotations

import struct

_MASK = 0xFFFFFFFF


def run(program: bytes, number: int, arch: int, arguments: tuple[int, ...] = ()) -> int:
    """The filter's verdict on one call. Raises `AssertionError` where the kernel would not have taken the filter."""
    padded = (*arguments, *[0] * (6 - len(arguments)))
    data = struct.pack("<iIQ6Q", number if number < 1 << 31 else number - (1 << 32), arch, 0, *padded)
    code = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    assert 0 < len(code) <= 4096
    accumulator, at = 0, 0
    while True:
        operation, if_true, if_false, value = code[at]
        at += 1
        if operation == 0x20:
            assert value % 4 == 0 and value < len(data)
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif operation == 0x05:
            at += value
        elif operation == 0x15:
            at += if_true if accumulator == value else if_false
        elif operation == 0x35:
            at += if_true if accumulator >= value else if_false
        elif operation == 0x45:
            at += if_true if accumulator & value & _MASK else if_false
        elif operation == 0x06:
            return int(value)
        else:
            raise AssertionError(f"instruction {operation:#x} is none that the assembler writes")
        assert at < len(code), "a filter that runs off its end"
