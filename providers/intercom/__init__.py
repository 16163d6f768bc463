"""The bus between actors: topics by grant, balanced over replicas, with dead letters that are counted.

May not: deliver what no grant allows. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

from .provider import DeadLetter, DeadLetters, Intercom, IntercomConfig, Topic, TopicConfig

__all__ = ["DeadLetter", "DeadLetters", "Intercom", "IntercomConfig", "Topic", "TopicConfig"]
