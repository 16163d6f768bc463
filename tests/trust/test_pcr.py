"""PCR arithmetic, held to AWS's rules by plain hashlib."""

from __future__ import annotations

import hashlib

import pytest

from tea.trust import pcr


def test_extending_hashes_old_and_new_together() -> None:
    assert pcr.extend(pcr.ZERO, b"data") == hashlib.sha384(bytes(48) + b"data").digest()


def test_the_order_of_extensions_matters() -> None:
    one, other = b"\x01" * 48, b"\x02" * 48
    assert pcr.extend(pcr.extend(pcr.ZERO, one), other) != pcr.extend(pcr.extend(pcr.ZERO, other), one)


def test_an_image_pcr_is_one_extension_of_the_contents_digest() -> None:
    digest = hashlib.sha384(b"kernel").digest()
    assert pcr.image_pcr(digest) == hashlib.sha384(bytes(48) + digest).digest()


def test_role_and_instance_are_extended_as_ascii_without_an_inner_hash() -> None:
    assert pcr.pcr3("arn:aws:iam::1:role/r") == hashlib.sha384(bytes(48) + b"arn:aws:iam::1:role/r").digest()
    assert pcr.pcr4("i-0123") == hashlib.sha384(bytes(48) + b"i-0123").digest()


def test_a_pcr_of_another_length_is_our_mistake() -> None:
    with pytest.raises(ValueError, match="48 bytes"):
        pcr.extend(b"short", b"")
    with pytest.raises(ValueError, match="SHA-384"):
        pcr.image_pcr(b"short")


def test_names_that_are_not_ascii_are_refused() -> None:
    with pytest.raises(ValueError, match="ascii"):
        pcr.pcr4("i-é")


def test_the_instance_is_what_stands_before_enc() -> None:
    assert pcr.instance_of("i-0123-enc4567") == "i-0123"
    assert pcr.instance_of("simulated") == "simulated"
