"""The layer-1 provider: a cache of chosen chain state by block height, fed by the parent's adapter.

May not: be imported by another provider. Rule: docs/architecture.md, "Providers".
"""

from .evm import EvmTransaction
from .provider import Account, Layer1, Layer1Config, Layer1Status, StateAt

__all__ = ["Account", "EvmTransaction", "Layer1", "Layer1Config", "Layer1Status", "StateAt"]
