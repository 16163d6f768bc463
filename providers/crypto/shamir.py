"""Shamir's secret sharing over GF(2**8) (polynomial 0x11b, as AES; shares as in draft-mcgrew-tss-03).

May not: keep a secret, or say anything about one to who holds fewer shares than the threshold. What is shared is
`R || HMAC-SHA256(R, secret)[:16] || secret` with 16 random bytes R, so that a wrong share is found out when joined
(SLIP-39 does the same): the check lies under the threshold too. Arithmetic is on whole byte strings.
Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

from tea.protocol.errors import CallError, Code

from .keys import Random
from .limits import MAX_SECRET

_VERSION: Final = 1
_NONCE: Final = 16
_CHECK: Final = 16
_HEADER: Final = 3
"""version, threshold, x."""
SHARE_OVERHEAD: Final = _HEADER + _NONCE + _CHECK
MAX_SHARES: Final = 255


def _tables() -> tuple[tuple[int, ...], tuple[int, ...]]:
    exp, log = [0] * 510, [0] * 256
    value = 1
    for power in range(255):
        exp[power] = exp[power + 255] = value
        log[value] = power
        doubled = value << 1
        value ^= doubled ^ (0x11B if doubled & 0x100 else 0)  # times 3, which generates the field
    return tuple(exp), tuple(log)


_EXP, _LOG = _tables()


def multiply(a: int, b: int) -> int:
    """The product of two field elements."""
    return _EXP[_LOG[a] + _LOG[b]] if a and b else 0


def inverse(a: int) -> int:
    """The element that gives 1 with `a`, which is not 0."""
    return _EXP[255 - _LOG[a]]


_TIMES: Final = tuple(bytes(multiply(factor, value) for value in range(256)) for factor in range(256))
"""For each factor, the table that multiplies a byte string by it: `data.translate(_TIMES[factor])`."""


def evaluate(coefficients: Sequence[bytes], x: int) -> bytes:
    """The polynomial at x, byte by byte; coefficients from the constant up, all of one size (Horner)."""
    size = len(coefficients[0])
    value = bytes(size)
    for coefficient in reversed(coefficients):
        value = _xor(value.translate(_TIMES[x]), coefficient)
    return value


def interpolate(points: Sequence[tuple[int, bytes]]) -> bytes:
    """The constant of the polynomial through these points (Lagrange at 0); all x differ and none is 0."""
    total = bytes(len(points[0][1]))
    for x, value in points:
        factor = 1
        for other, _ in points:
            if other != x:
                factor = multiply(factor, multiply(other, inverse(other ^ x)))
        total = _xor(total, value.translate(_TIMES[factor]))
    return total


def split(secret: bytes, threshold: int, shares: int, random: Random) -> list[bytes]:
    """`shares` shares, any `threshold` of which give the secret (1 to 2,048 bytes) back. Each is 35 bytes longer.

    `random` gives (threshold - 1) * (32 + size) + 16 bytes.
    """
    if not 1 <= len(secret) <= MAX_SECRET:
        raise CallError(Code.INVALID, f"a secret to split has 1 to {MAX_SECRET} bytes, not {len(secret)}")
    if not 2 <= threshold <= shares <= MAX_SHARES:
        raise CallError(
            Code.INVALID,
            f"the threshold is 2 to the number of shares, and that at most {MAX_SHARES}: not {threshold} of {shares}",
        )
    nonce = random(_NONCE)
    payload = nonce + _check(nonce, secret) + secret
    coefficients = [payload, *(random(len(payload)) for _ in range(threshold - 1))]
    return [bytes([_VERSION, threshold, x]) + evaluate(coefficients, x) for x in range(1, shares + 1)]


def join(shares: Sequence[bytes]) -> bytes:
    """The secret, from as many of the first shares as the threshold says.

    Raises INVALID on shares that do not fit together, UNTRUSTED when one of those used is not genuine.
    """
    if not 1 <= len(shares) <= MAX_SHARES:
        raise CallError(Code.INVALID, f"2 to {MAX_SHARES} shares are joined, not {len(shares)}")
    points: dict[int, bytes] = {}
    first = shares[0]
    for share in shares:
        if not SHARE_OVERHEAD < len(share) <= SHARE_OVERHEAD + MAX_SECRET or share[0] != _VERSION:
            raise CallError(Code.INVALID, "this is no share: version 1, threshold, number, and over 32 bytes")
        if len(share) != len(first) or share[1] != first[1]:
            raise CallError(Code.INVALID, "the shares are of different secrets: their sizes or thresholds differ")
        if share[2] == 0 or share[2] in points:
            raise CallError(Code.INVALID, f"share number {share[2]} is there twice, or is 0, which is none")
        points[share[2]] = share[_HEADER:]
    threshold = first[1]
    if threshold < 2 or len(points) < threshold:
        raise CallError(Code.INVALID, f"{threshold} shares are needed, {len(points)} are there", needed=threshold)
    payload = interpolate(list(points.items())[:threshold])
    nonce, check, secret = payload[:_NONCE], payload[_NONCE : _NONCE + _CHECK], payload[_NONCE + _CHECK :]
    if not hmac.compare_digest(check, _check(nonce, secret)):
        raise CallError(Code.UNTRUSTED, "the shares do not give a secret that was split: one is changed, or of another")
    return secret


def _check(nonce: bytes, secret: bytes) -> bytes:
    return hmac.digest(nonce, secret, hashlib.sha256)[:_CHECK]


def _xor(a: bytes, b: bytes) -> bytes:
    return (int.from_bytes(a) ^ int.from_bytes(b)).to_bytes(len(a))
