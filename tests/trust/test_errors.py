"""The base of refusals: a code, a sentence, and nothing that travels by pickle.

May not: depend on a family. Rule: docs/architecture.md, "Errors".
"""

from __future__ import annotations

import copy
import pickle

import pytest

from tea.trust.errors import TrustError
from tea.trust.keys import SigningCode, SigningError


def test_a_refusal_says_its_sentence_and_keeps_its_code() -> None:
    error = SigningError(SigningCode.BAD_KEY, "found this, expected that: do so")
    assert str(error) == error.sentence == "found this, expected that: do so"
    assert error.code is SigningCode.BAD_KEY
    assert error.code.value == "bad-key"
    assert repr(error) == "SigningError(bad-key, 'found this, expected that: do so')"
    assert isinstance(error, TrustError)


def test_a_refusal_is_never_pickled() -> None:
    error = SigningError(SigningCode.BAD_KEY, "x")
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(error)
    with pytest.raises(TypeError):
        copy.copy(error)
