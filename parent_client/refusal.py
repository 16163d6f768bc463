"""The answer no, as `teactl` gives it: one sentence with what was found, what was expected and the mend.

May not: import a terminal's libraries; whatever decides may raise it. Rule: docs/architecture.md, "Errors".
"""

from __future__ import annotations


class Refusal(Exception):
    """The answer is no: exit status 1. `details` go into the JSON object beside `error`."""

    def __init__(self, sentence: str, **details: object) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.details = details
