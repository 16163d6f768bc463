"""The bus between actors: topics by grant, dead letters that are counted, requests to any or all replicas.

May not: deliver what no grant allows. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

from .provider import DeadLetter, DeadLetters, Intercom, IntercomConfig, Topic, TopicConfig
from .requests import Outcome

__all__ = ["DeadLetter", "DeadLetters", "Intercom", "IntercomConfig", "Outcome", "Topic", "TopicConfig"]
