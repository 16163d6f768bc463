"""The NSM's device seam: CBOR bytes in, CBOR bytes out; and the real device, one ioctl on `/dev/nsm`.

May not: read the CBOR, retry what the NSM refused, or hand its file descriptor to anyone.
Rule: Linux `drivers/misc/nsm.c` and `include/uapi/linux/nsm.h`; docs/architecture.md, "Providers".
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from typing import Any, Final, Protocol

import cffi

MAX_REQUEST: Final = 0x1000
"""Bytes of a request; the driver answers EMSGSIZE to a longer one."""
MAX_RESPONSE: Final = 0x3000
"""Bytes of a response."""
DEVICE_PATH: Final = "/dev/nsm"
NSM_IOCTL_RAW: Final = 0xC0200A00
"""`_IOWR(0x0A, 0, struct nsm_message)`: 32 bytes on 64-bit."""

Ioctl = Callable[[int, int, int], int]
"""(file descriptor, command, address of the message) -> 0 or an errno. The seam that a test replaces."""


class Device(Protocol):
    """One NSM, real or simulated."""

    def exchange(self, request: bytes) -> bytes:
        """One request and its response, both CBOR. Raises `OSError` as the driver does (EMSGSIZE: over 0x1000 bytes).

        Safe to call from several threads; requests are served one by one.
        """
        ...

    def close(self) -> None:
        """Let the device go; a later `exchange` raises `OSError(EBADF)`."""
        ...


_ffi: Any = cffi.FFI()
_ffi.cdef(
    """
    struct nsm_iovec { void *base; size_t len; };
    struct nsm_message { struct nsm_iovec request; struct nsm_iovec response; };
    int ioctl(int fd, unsigned long request, ...);
    """
)
_libc: Any = _ffi.dlopen(None)


def system_ioctl(fd: int, command: int, address: int) -> int:
    """The C library's ioctl. Answers 0, or the errno. The GIL is released while it runs."""
    status = _libc.ioctl(fd, command, _ffi.cast("void *", address))
    return 0 if status == 0 else int(_ffi.errno)


class NsmDevice:
    """The real device. Opened once, close-on-exec, so that no worker inherits it.

    Raises `FileNotFoundError` with what to do when the device is missing, `PermissionError` when it may not be opened.
    """

    def __init__(self, path: str = DEVICE_PATH, ioctl: Ioctl = system_ioctl) -> None:
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise FileNotFoundError(
                errno.ENOENT,
                "there is no Nitro Secure Module here: mode nitro runs inside an enclave whose init has loaded nsm.ko; "
                "elsewhere start the host in mode simulated",
                path,
            ) from None
        self._ioctl = ioctl
        self._path = path
        self._lock = threading.Lock()

    def exchange(self, request: bytes) -> bytes:
        if len(request) > MAX_REQUEST:
            raise OSError(errno.EMSGSIZE, f"an NSM request may have {MAX_REQUEST} bytes, this one has {len(request)}")
        with self._lock:
            if self._fd < 0:
                raise OSError(errno.EBADF, "the NSM device is closed")
            # Fresh buffers each time: a response must never show what an earlier one left behind.
            sent = _ffi.new("uint8_t[]", request) if request else _ffi.new("uint8_t[1]")
            received = _ffi.new("uint8_t[]", MAX_RESPONSE)
            message = _ffi.new("struct nsm_message *")
            message.request.base, message.request.len = sent, len(request)
            message.response.base, message.response.len = received, MAX_RESPONSE
            address = int(_ffi.cast("uintptr_t", message))
            while True:
                status = self._ioctl(self._fd, NSM_IOCTL_RAW, address)
                # A signal can only interrupt the wait for the driver's lock: nothing was sent yet.
                if status != errno.EINTR:
                    break
            if status != 0:
                raise OSError(status, os.strerror(status), self._path)
            size = int(message.response.len)
            if size > MAX_RESPONSE:
                raise OSError(errno.EIO, f"the NSM driver claims {size} bytes in a buffer of {MAX_RESPONSE}")
            return bytes(_ffi.buffer(received, size))

    def close(self) -> None:
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
