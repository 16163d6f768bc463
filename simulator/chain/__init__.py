"""The embedded chain: a real EVM in one process, with a token and a seeded stream of transfers, behind JSON-RPC.

May not: be what production follows; it has one block producer and final blocks at once. Rule: docs/architecture.md,
"Modes".
"""

from .embedded import EmbeddedChain
from .server import ChainServer

__all__ = ["ChainServer", "EmbeddedChain"]
