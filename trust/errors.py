"""The base of every verdict that `trust` refuses with: a stable code and a sentence that a person can act on.

May not: carry secrets, or be raised for our own misuse (that is RuntimeError, TypeError or ValueError).
Rule: docs/architecture.md, "Errors"; each family and its closed set of codes stand in the module that raises it.
"""

from __future__ import annotations

import enum


class TrustError(Exception):
    """Something that came from outside is not to be believed.

    `code` is a stable word of the family's closed `enum.StrEnum`; `sentence` says what was found, what was expected and
    what to do about it.
    """

    def __init__(self, code: enum.StrEnum, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence

    def __str__(self) -> str:
        return self.sentence

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.code.value}, {self.sentence!r})"

    def __reduce__(self) -> str:
        raise TypeError("a TrustError is never pickled: send its code and its sentence")
