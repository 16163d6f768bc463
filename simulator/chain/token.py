"""The embedded chain's token contract: compiled from `token.vy` by Vyper when the chain starts (0.4 s).

May not: know the chain. Rule: Vyper's ABI is Solidity's (contract ABI specification, "Function Selector and Argument
Encoding").
"""

from __future__ import annotations

import functools
from importlib import resources
from typing import Final, NamedTuple

TRANSFER: Final = bytes.fromhex("a9059cbb")
"""Selector of `transfer(address,uint256)`."""


class Token(NamedTuple):
    """The compiled contract."""

    bytecode: bytes
    balance_slot: int
    """Storage slot of the mapping of balances, as the compiler's layout says."""


@functools.cache
def compile_token() -> Token:
    """Compile `token.vy`. Raises Vyper's own errors: the source ships with this package."""
    from vyper.compiler import compile_code  # 0.4 s to import: only where a chain starts

    source = resources.files(__package__).joinpath("token.vy").read_text(encoding="utf-8")
    compiled = compile_code(source, output_formats=["bytecode", "layout"])
    layout = compiled["layout"]["storage_layout"]
    return Token(bytes.fromhex(str(compiled["bytecode"]).removeprefix("0x")), int(layout["balanceOf"]["slot"]))


def constructor(token: Token, supply: int) -> bytes:
    """The data of the transaction that deploys the token."""
    return token.bytecode + supply.to_bytes(32, "big")


def transfer(receiver: bytes, amount: int) -> bytes:
    """The data of a call of `transfer`."""
    return TRANSFER + receiver.rjust(32, b"\x00") + amount.to_bytes(32, "big")
