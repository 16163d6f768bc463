"""How fast this machine's time-stamp counter counts: told to an emulated guest, which can't measure it on a busy one.

May not: be needed: without an answer the guest measures for itself, and on a busy machine may then not boot at all.
Rule: Linux, Documentation/admin-guide/kernel-parameters.txt, `tsc_early_khz`. Tried: without it a microvm under TCG
finds no timer whenever its calibration against the PIT is interrupted, and stands still for ever; with it, it boots.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import time
from typing import Final

# rdtsc; shl rdx, 32; or rax, rdx; ret
_READ_COUNTER: Final = bytes.fromhex("0f3148c1e2204809d0c3")
SECONDS: Final = 0.05


def tsc_khz() -> int | None:
    """Thousands of ticks a second, measured over a twentieth of a second; None where that can't be done."""
    if platform.machine() != "x86_64":
        return None
    try:
        code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        return None
    code.write(_READ_COUNTER)
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    read = ctypes.CFUNCTYPE(ctypes.c_uint64)(address)
    read()
    start, ticks = time.monotonic_ns(), int(read())
    time.sleep(SECONDS)
    end, more = time.monotonic_ns(), int(read())
    return round((more - ticks) * 1_000_000 / (end - start))
