"""kvp: a key-value store in memory, with quotas, times to live, lists, sets, sorted vectors and locks.

May not: touch a disk. Rule: docs/architecture.md, "Providers".
"""

from .provider import Kvp, KvpConfig, Memory, SharedNamespace
from .sets import Members
from .store import Found, Page

__all__ = ["Found", "Kvp", "KvpConfig", "Members", "Memory", "Page", "SharedNamespace"]
