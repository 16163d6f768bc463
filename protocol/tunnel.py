"""The tunnel's opening, sans-IO: an enclave asks its parent for a byte stream to one host and port; then bytes flow.

May not: connect, look at the bytes that flow after the opening (they are TLS, which ends in the enclave), or keep more
than `MAX_HEAD` bytes. Rule: RFC 9110 section 9.3.6 (CONNECT), of which this is the smallest part that any HTTP proxy
understands.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

MAX_HEAD: Final = 1024
"""Bytes of a request's or an answer's head."""
_END: Final = b"\r\n\r\n"
_HOST: Final = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*"
)
_REQUEST: Final = re.compile(r"CONNECT (\S{1,300}) HTTP/1\.1")
_STATUS: Final = re.compile(r"HTTP/1\.[01] ([0-9]{3})(?: [\x20-\x7e]{0,200})?")

CREDENTIALS_PATH: Final = "/credentials"
"""What an enclave GETs instead of opening a tunnel, to learn the parent's AWS credentials."""
OPENED: Final = b"HTTP/1.1 200 Connection Established\r\n\r\n"
"""The answer after which the stream is the target's."""


class TunnelError(Exception):
    """The opening is malformed, or was refused; `status` is the answer's, as HTTP numbers them."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


class Target(NamedTuple):
    """Where a tunnel leads."""

    host: str
    """A DNS name in small letters, or an IPv4 address."""
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Target:
        """`host:port`. Raises `ValueError` that says what was expected; letters become small ones."""
        host, colon, port = text.lower().rpartition(":")
        number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else 0
        if not colon or not _HOST.fullmatch(host) or not 1 <= number <= 65535:
            raise ValueError(
                f"{text[:80]!r} is no target of a tunnel: expected host:port, as kms.REGION.amazonaws.com:443"
            )
        return cls(host, number)


def request_to(target: Target) -> bytes:
    """What the enclave sends first."""
    return f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()


def refusal(status: int, reason: str) -> bytes:
    """What the parent answers instead of `OPENED`, before it closes. `reason` is cut to 200 printable characters."""
    shown = "".join(sign for sign in reason if sign.isascii() and sign.isprintable())[:200]
    return f"HTTP/1.1 {status} {shown}\r\nContent-Length: 0\r\n\r\n".encode()


class Opening:
    """Collects a head byte by byte, whichever side it comes from. Nothing behind the head is looked at."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> tuple[list[str], bytes] | None:
        """(the head's lines, what came behind it), or None while it is incomplete. Raises `TunnelError`."""
        self._buffer += data
        end = self._buffer.find(_END)
        if end < 0 or end + len(_END) > MAX_HEAD:
            if len(self._buffer) >= MAX_HEAD:
                raise TunnelError(431, f"the opening has no end within {MAX_HEAD} bytes")
            return None
        try:
            lines = self._buffer[:end].decode("ascii").split("\r\n")
        except UnicodeDecodeError:
            raise TunnelError(400, "the opening is not ASCII") from None
        return lines, bytes(self._buffer[end + len(_END) :])


def wants_credentials(lines: list[str]) -> bool:
    """Whether the enclave asks for credentials, not for a tunnel."""
    return lines[0] == f"GET {CREDENTIALS_PATH} HTTP/1.1"


def answer_with(body: bytes) -> bytes:
    """A whole answer with a JSON body, after which the parent closes."""
    return f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def parse_request(lines: list[str]) -> Target:
    """Where the enclave wants to go. Raises `TunnelError` (400, or 405 for another method)."""
    match = _REQUEST.fullmatch(lines[0])
    if match is None:
        status = 405 if not lines[0].startswith("CONNECT ") else 400
        raise TunnelError(status, "a tunnel opens with CONNECT host:port HTTP/1.1 and nothing else")
    try:
        return Target.parse(match[1])
    except ValueError as error:
        raise TunnelError(400, str(error)) from None


def require_opened(lines: list[str]) -> None:
    """Raise `TunnelError` with the parent's status and reason unless the tunnel is open."""
    match = _STATUS.fullmatch(lines[0])
    if match is None:
        raise TunnelError(502, "the parent did not answer as a tunnel does")
    status = int(match[1])
    if status != 200:
        raise TunnelError(status, f"the parent opens no tunnel: {lines[0][9:209]}")
