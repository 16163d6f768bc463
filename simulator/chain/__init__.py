"""The embedded chain: a real EVM in one process, with a token and a seeded stream of transfers, behind JSON-RPC.

May not: be what production follows; it has one block producer and final blocks at once. Rule: docs/architecture.md,
"Modes".
"""

import sys

_limit = sys.getrecursionlimit()
import eth  # noqa: E402, F401

# py-evm raises the interpreter's limit on import, for EVM calls that are 1,024 deep. Under it deep JSON from outside
# overflows the C stack of whatever parses it in this process, so it goes back; such deep calls fail here instead.
sys.setrecursionlimit(_limit)

from .embedded import EmbeddedChain  # noqa: E402
from .server import ChainServer  # noqa: E402

__all__ = ["ChainServer", "EmbeddedChain"]
