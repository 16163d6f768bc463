"""The limits of the crypto provider and the checks at its border.

May not: hold state. Every check raises `CallError(INVALID)` that says what was found and expected, never the bytes.
Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

from typing import Final

from tea.protocol.errors import CallError, Code

MAX_DATA: Final = 768 * 1024
"""Bytes that are signed, hashed, sealed or opened in one call: with its overhead it must fit a frame."""
MAX_CONTEXT: Final = 4096
"""Bytes of associated data, info and salt."""
MAX_RANDOM: Final = 4096
"""Bytes of random in one call: 16 requests to the NSM."""
MAX_SECRET: Final = 2048
"""Bytes of a secret that is split."""
MAX_PUBLIC_KEY: Final = 1024
"""Bytes of any public key in any format."""
MAX_SEALED: Final = 8192
"""Bytes of a key that comes in sealed: an RSA key of 3,072 bits has fewer than 2,000."""
THREAD_FROM: Final = 32 * 1024
"""Bytes of data from which on hashing and the like leave the host's loop."""


def require_size(data: bytes, most: int, what: str) -> None:
    """Refuse data over `most` bytes."""
    if len(data) > most:
        raise CallError(Code.INVALID, f"{what} has at most {most} bytes, not {len(data)}", size=len(data))


def require_exactly(data: bytes, sizes: tuple[int, ...], what: str) -> None:
    """Refuse data that has none of these sizes in bytes."""
    if len(data) not in sizes:
        expected = " or ".join(str(size) for size in sizes)
        raise CallError(Code.INVALID, f"{what} has {expected} bytes, not {len(data)}", size=len(data))


def unknown(what: str, name: str, known: tuple[str, ...]) -> CallError:
    """The refusal of a name that is not in a closed table."""
    return CallError(Code.INVALID, f"there is no {what} {name[:32]!r}; there are {', '.join(known)}")
