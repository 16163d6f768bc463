"""The enclave's end of the tunnel: a byte stream through the parent, and TLS that ends here.

May not: send a byte of a request before the target's certificate was verified, or wait beyond its deadline.
Rule: docs/nitro-sdk.md, "The tunnel"; `tea.protocol.tunnel` is the opening; RFC 8446 (TLS) is Python's `ssl`.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator

from tea.protocol.transport.address import Address
from tea.protocol.tunnel import MAX_HEAD, Opening, Target, TunnelError, request_to, require_opened

Dial = Callable[[Target, float], socket.socket]
"""(target, seconds) -> a connected blocking stream to it. Raises `OSError` (`TimeoutError` too) or `TunnelError`."""


def through(parent: Address) -> Dial:
    """Dial through the tunnel that the parent serves at an address: `vsock:3:PORT`, or `unix:PATH`."""

    def dial(target: Target, seconds: float) -> socket.socket:
        deadline = time.monotonic() + seconds
        sock = connected(parent, seconds)
        try:
            sock.sendall(request_to(target))
            _read_answer(sock, deadline)
        except BaseException:
            sock.close()
            raise
        return sock

    return dial


def connected(parent: Address, seconds: float) -> socket.socket:
    """A blocking stream to what the parent serves at an address, with `seconds` as its timeout. Raises `OSError`."""
    deadline = time.monotonic() + seconds
    sock = parent.make_socket()
    try:
        _connect(sock, parent, deadline)
        sock.settimeout(_left(deadline))
    except BaseException:
        sock.close()
        raise
    return sock


def direct(target: Target, seconds: float) -> socket.socket:
    """Dial without a tunnel: outside an enclave, for tests and tools."""
    return socket.create_connection((target.host, target.port), timeout=seconds)


def default_tls() -> ssl.SSLContext:
    """TLS 1.2 and up, host name checked, against the image's certificate store: measured, so approved."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


@contextlib.contextmanager
def tls_stream(dial: Dial, target: Target, context: ssl.SSLContext, seconds: float) -> Iterator[ssl.SSLSocket]:
    """A TLS stream to the target for at most `seconds` in all, handshake included. Raises as `Dial`, `ssl.SSLError`.

    A peer that sends a byte now and then resets no clock: at the deadline the stream is shut under whoever reads it,
    and `TimeoutError` is raised.
    """
    deadline = time.monotonic() + seconds
    if context.verify_mode is not ssl.CERT_REQUIRED or not context.check_hostname:
        raise ValueError("the parent carries this stream: without certificate and host name checked it is the parent's")
    sock = dial(target, seconds)
    with contextlib.ExitStack() as stack:
        stack.callback(sock.close)
        guard = sock.dup()
        stack.callback(guard.close)
        expired = threading.Event()

        def cut() -> None:
            expired.set()
            with contextlib.suppress(OSError):
                guard.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(_left(deadline), cut)
        timer.daemon = True
        timer.start()
        stack.callback(timer.join)
        stack.callback(timer.cancel)
        try:
            sock.settimeout(_left(deadline))
            # An end without TLS's own goodbye is an error: the parent can cut a stream anywhere.
            wrapped = context.wrap_socket(sock, server_hostname=target.host, suppress_ragged_eofs=False)
            yield stack.enter_context(wrapped)
        except Exception:
            if expired.is_set():
                raise TimeoutError(errno.ETIMEDOUT, f"{target} took longer than {seconds:g} seconds") from None
            raise


def _connect(sock: socket.socket, parent: Address, deadline: float) -> None:
    try:
        parent.start_connect(sock)
    except BlockingIOError:
        poll = select.poll()  # select() knows no descriptor above 1023
        poll.register(sock, select.POLLOUT)
        if not poll.poll(_left(deadline) * 1000):
            raise TimeoutError(errno.ETIMEDOUT, f"the tunnel at {parent} does not answer") from None
        status = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if status:
            raise OSError(status, f"the tunnel at {parent} cannot be reached") from None


def _read_answer(sock: socket.socket, deadline: float) -> None:
    opening = Opening()
    for _ in range(MAX_HEAD + 1):
        sock.settimeout(_left(deadline))
        # Byte by byte: what comes behind the answer is TLS's, and a head is short.
        data = sock.recv(1)
        if not data:
            raise TunnelError(502, "the parent closed the tunnel before it was open")
        if (head := opening.feed(data)) is not None:
            require_opened(head[0])
            return


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError(errno.ETIMEDOUT, "the time for the tunnel is over")
    return left
