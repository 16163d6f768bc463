"""What the adapter answers, checked before it touches the state. The parent is untrusted: any value may come.

May not: do I/O. Raises `CallError(UNTRUSTED)` with what was found and expected. Rule: docs/architecture.md, "The wire".
"""

from __future__ import annotations

from typing import Final

from tea.protocol.channels import BlockChanges, Head
from tea.protocol.errors import CallError, Code

_HASH: Final = 32
_MAX_HEIGHT: Final = 1 << 62
MAX_PARTS: Final = 1024
"""Parts of one block: about as many MiB."""


def require_head(answer: object) -> Head:
    """A head with hashes of 32 bytes and a height and time in range."""
    if not isinstance(answer, Head):
        raise _untrusted(f"{type(answer).__name__} came where a head was expected")
    for name, value in (
        ("block hash", answer.block_hash),
        ("parent hash", answer.parent_hash),
        ("state root", answer.state_root),
    ):
        if not isinstance(value, bytes) or len(value) != _HASH:
            raise _untrusted(f"a head's {name} is not {_HASH} bytes")
    for number in (answer.height, answer.timestamp):
        if not isinstance(number, int) or not 0 <= number < _MAX_HEIGHT:
            raise _untrusted("a head's height or timestamp is out of range")
    return answer


def require_blocks(answer: object, *, start: int, count: int, max_key: int, max_value: int) -> tuple[BlockChanges, ...]:
    """At most `count` blocks of consecutive heights from `start`, linked among themselves, with entries in bounds."""
    if not isinstance(answer, tuple | list):
        raise _untrusted(f"{type(answer).__name__} came where blocks were expected")
    if len(answer) > count:
        raise _untrusted(f"{len(answer)} blocks came, at most {count} were asked for")
    previous: Head | None = None
    for place, block in enumerate(answer):
        if not isinstance(block, BlockChanges) or not isinstance(block.changes, dict):
            raise _untrusted("something came that is no block with changes")
        head = require_head(block.head)
        if head.height != start + place:
            raise _untrusted(f"height {head.height} came where {start + place} was expected")
        if previous is not None and head.parent_hash != previous.block_hash:
            raise _untrusted(f"the block of height {head.height} is not linked to the one before in the same answer")
        if type(block.parts) is not int or not 1 <= block.parts <= MAX_PARTS:
            raise _untrusted(f"the block of height {head.height} has not 1 to {MAX_PARTS} parts")
        require_changes(block.changes, height=head.height, max_key=max_key, max_value=max_value)
        previous = head
    return tuple(answer)


def require_changes(answer: object, *, height: int, max_key: int, max_value: int) -> dict[bytes, bytes | None]:
    """A mapping of keys and values (None: the entry goes) in bounds."""
    if not isinstance(answer, dict):
        raise _untrusted(f"{type(answer).__name__} came where changes of height {height} were expected")
    for key, value in answer.items():
        if not isinstance(key, bytes) or not 0 < len(key) <= max_key:
            raise _untrusted(f"height {height} has a key that is not 1 to {max_key} bytes")
        if value is not None and (not isinstance(value, bytes) or len(value) > max_value):
            raise _untrusted(f"height {height} has a value that is not bytes of at most {max_value}")
    return answer


def require_account(answer: object) -> tuple[int, bytes, int, int]:
    """(nonce, balance in 32 bytes, chain id, gas price)."""
    if isinstance(answer, tuple | list) and len(answer) == 4:
        nonce, balance, chain_id, gas_price = answer
        numbers = (nonce, chain_id, gas_price)
        counted = all(isinstance(n, int) and 0 <= n < 1 << 64 for n in numbers)
        if counted and isinstance(balance, bytes) and len(balance) == _HASH:
            return nonce, balance, chain_id, gas_price
    raise _untrusted("something came that is no account")


def _untrusted(what: str) -> CallError:
    return CallError(Code.UNTRUSTED, f"the parent's layer-1 adapter: {what}")
