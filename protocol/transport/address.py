"""Where a peer listens: `unix:/path` or `vsock:CID:PORT`. The one place that knows both families.

May not: read or write; it makes sockets, connects them and binds them. Rule: docs/architecture.md, "The wire".
"""

from __future__ import annotations

import os
import socket
import stat
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Final

VSOCK_ANY: Final = 0xFFFFFFFF
"""`vsock:any:PORT` listens on every CID of this machine; `vsock:CID:any` lets the kernel choose a port."""
_SUN_PATH: Final = 107
# Bytes of a path that struct sockaddr_un holds, without the terminating zero (unix(7)).


class Address(ABC):
    """An address that can be dialled and listened on. Its text form is `str(address)`."""

    @staticmethod
    def parse(text: str) -> Address:
        """`unix:/path`, `unix:relative/path` or `vsock:CID:PORT`. Raises `ValueError` that says what was expected."""
        scheme, colon, rest = text.partition(":")
        if scheme == "unix" and colon:
            if not rest or "\0" in rest:
                raise ValueError(f"{text!r}: a path is missing, expected unix:/path/to/socket")
            return UnixAddress(Path(rest))
        if scheme == "vsock" and colon:
            cid, colon, port = rest.partition(":")
            return VsockAddress(_number(cid, text), _number(port, text))
        raise ValueError(f"{text!r} is no address: expected unix:/path/to/socket or vsock:CID:PORT")

    @abstractmethod
    def make_socket(self) -> socket.socket:
        """A new non-blocking stream socket of the family. Raises `OSError` when the kernel has none."""

    @abstractmethod
    def start_connect(self, sock: socket.socket) -> None:
        """Begin to connect. Raises `BlockingIOError` while it is in progress, another `OSError` when refused."""

    @abstractmethod
    def bind(self, sock: socket.socket) -> Address:
        """Bind a socket; answers the address it got. Raises `OSError` when the place is taken."""

    @abstractmethod
    def unbind(self, sock: socket.socket) -> None:
        """Remove what `bind` left behind in the file system, if it is still there. Before the socket is closed."""


def _number(text: str, whole: str) -> int:
    if text == "any":
        return VSOCK_ANY
    if not (text.isascii() and text.isdigit()) or int(text) > VSOCK_ANY:
        raise ValueError(f"{whole!r}: {text!r} is no 32-bit number, expected vsock:CID:PORT")
    return int(text)


@dataclass(frozen=True)
class UnixAddress(Address):
    """A socket in the file system, which only its owner may connect to (mode 0600)."""

    path: Path

    def __str__(self) -> str:
        return f"unix:{self.path}"

    def make_socket(self) -> socket.socket:
        return _stream(socket.AF_UNIX)

    def start_connect(self, sock: socket.socket) -> None:
        with _ShortPath(self.path) as path:
            sock.connect(path)

    def bind(self, sock: socket.socket) -> Address:
        self._remove_stale()
        # Linux takes the mode of the file from the socket: no moment at which others may connect (unix(7)).
        os.fchmod(sock.fileno(), 0o600)
        with _ShortPath(self.path) as path:
            sock.bind(path)
        return self

    def unbind(self, sock: socket.socket) -> None:
        # Another process may have taken the place since; its socket answers, ours does not any more.
        sock.close()
        try:
            self._remove_stale()
        except OSError:
            pass

    def _remove_stale(self) -> None:
        try:
            mode = self.path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise FileExistsError(f"{self.path} is there and is no socket: move it away")
        with self.make_socket() as probe:
            try:
                self.start_connect(probe)
            except ConnectionRefusedError:
                self.path.unlink(missing_ok=True)
                return
            except BlockingIOError:
                pass
        raise FileExistsError(f"{self.path}: somebody listens there already")


@dataclass(frozen=True)
class VsockAddress(Address):
    """A port of a machine: 3 is the parent of a Nitro enclave, 2 the host of a QEMU machine, 1 this machine itself."""

    cid: int
    port: int

    def __str__(self) -> str:
        return ":".join(["vsock", *("any" if n == VSOCK_ANY else str(n) for n in (self.cid, self.port))])

    def make_socket(self) -> socket.socket:
        return _stream(socket.AF_VSOCK)

    def start_connect(self, sock: socket.socket) -> None:
        sock.connect((self.cid, self.port))

    def bind(self, sock: socket.socket) -> Address:
        sock.bind((self.cid, self.port))
        cid, port = sock.getsockname()
        return VsockAddress(cid, port)

    def unbind(self, sock: socket.socket) -> None:
        sock.close()


def _stream(family: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    sock.setblocking(False)
    return sock


class _ShortPath:
    """A name of the path that fits sockaddr_un: a long one is reached through its folder's descriptor."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder = -1

    def __enter__(self) -> str:
        if len(os.fsencode(self._path)) <= _SUN_PATH:
            return str(self._path)
        self._folder = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._folder}/{self._path.name}"

    def __exit__(self, *_: object) -> None:
        if self._folder >= 0:
            os.close(self._folder)
