"""Pinned roots; the shipped certificate is the one that AWS publishes."""

from __future__ import annotations

import hashlib

import pytest

from tea.trust.roots import AWS_ROOT_G1, Roots, aws_root_certificate, aws_roots


def test_the_shipped_certificate_has_the_digest_that_aws_publishes() -> None:
    digest = "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"
    assert hashlib.sha256(aws_root_certificate()).hexdigest() == digest
    assert AWS_ROOT_G1.hex() == digest
    assert aws_roots() == Roots.from_certificates([aws_root_certificate()])


def test_no_roots_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing could be believed"):
        Roots.from_digests([])
    with pytest.raises(ValueError, match="nothing could be believed"):
        Roots.from_certificates([])


def test_a_digest_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Roots.from_digests([bytes(48)])


def test_roots_join_and_say_what_they_are() -> None:
    both = aws_roots() | Roots.from_digests([bytes(32)])
    assert bytes(32) in both
    assert AWS_ROOT_G1 in both
    assert b"another" not in both
    assert str(both).startswith("sha256:0000")
