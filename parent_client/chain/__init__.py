"""Chains that the parent follows for the enclave's layer-1 cache, and the adapter that serves them.

May not: be believed: what the enclave gets from here is what its rounds compare.
Rule: docs/architecture.md, "Providers" (layer1).
"""

from .adapter import ChainAdapter
from .evm import EvmSource
from .source import ChainSource
from .watch import MappingWatch, Watch

__all__ = ["ChainAdapter", "ChainSource", "EvmSource", "MappingWatch", "Watch"]
