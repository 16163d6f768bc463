"""Nonces and rates stay within their bounds, whatever is asked. Rule: docs/secrets.md, "Limits"."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tea.parent_client.secrets import nonces as module
from tea.parent_client.secrets.nonces import SECONDS, Nonces
from tea.parent_client.secrets.rate import MAX_BUCKETS, RateLimit
from tea.trust.release import ReleaseCode, ReleaseError


def test_a_nonce_works_once_and_in_time() -> None:
    nonces = Nonces()
    nonce = nonces.give(1000)
    nonces.spend(nonce, 1000 + SECONDS * 1000)
    late = nonces.give(1000)
    for used, now in ((nonce, 1000), (late, 1001 + SECONDS * 1000), (b"", 0), (bytes(40), 0), (nonce[:-1], 0)):
        with pytest.raises(ReleaseError) as caught:
            nonces.spend(used, now)
        assert caught.value.code == ReleaseCode.NONCE


@given(st.integers(0, 39), st.integers(1, 255))
def test_a_changed_nonce_is_unknown(at: int, change: int) -> None:
    nonces = Nonces()
    nonce = bytearray(nonces.give(1000))
    nonce[at] ^= change
    with pytest.raises(ReleaseError):
        nonces.spend(bytes(nonce), 1000)


def test_spent_nonces_are_forgotten_when_they_end_and_bounded_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SPENT", 10)
    nonces = Nonces()
    for _ in range(10):
        nonces.spend(nonces.give(1000), 1000)
    with pytest.raises(ReleaseError) as caught:
        nonces.spend(nonces.give(1000), 1000)
    assert caught.value.code == ReleaseCode.TOO_MANY
    later = 1001 + SECONDS * 1000
    nonces.spend(nonces.give(later), later)
    assert len(nonces._spent) == 1


def test_a_rate_gives_a_burst_then_its_average() -> None:
    limit = RateLimit(2.0, 3)
    for _ in range(3):
        limit.take("a", 0.0)
    with pytest.raises(ReleaseError, match=r"0\.5 s"):
        limit.take("a", 0.0)
    limit.take("b", 0.0)
    limit.take("a", 0.5)
    with pytest.raises(ReleaseError):
        limit.take("a", 0.5)


def test_a_rate_remembers_so_many_and_no_more() -> None:
    limit = RateLimit(1.0, 1)
    for number in range(MAX_BUCKETS + 10):
        limit.take(str(number), 0.0)
    assert len(limit._buckets) == MAX_BUCKETS


@pytest.mark.parametrize(("rate", "burst"), [(0.0, 1), (-1.0, 1), (1.0, 0)])
def test_a_rate_of_nothing_is_a_mistake(rate: float, burst: int) -> None:
    with pytest.raises(ValueError, match="above 0"):
        RateLimit(rate, burst)
