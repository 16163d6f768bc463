"""Secret sharing and addresses: what was split is joined, what was changed is found out, one form an address.

Published vectors are in test_crypto_vectors.py. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tea.protocol.errors import CallError, Code
from tea.providers.crypto import addresses, base58, limits, shamir

ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"


def split(secret: bytes, threshold: int, shares: int) -> list[bytes]:
    return shamir.split(secret, threshold, shares, os.urandom)


def refused(code: Code, function: object, *args: object) -> CallError:
    assert callable(function)
    with pytest.raises(CallError) as caught:
        function(*args)
    assert caught.value.code is code
    return caught.value


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=100), st.integers(2, 6), st.data())
def test_any_threshold_of_the_shares_gives_the_secret(secret: bytes, threshold: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(threshold, 9))
    shares = data.draw(st.permutations(split(secret, threshold, count)))
    assert shamir.join(shares[:threshold]) == secret
    assert shamir.join(shares) == secret
    assert {len(share) for share in shares} == {len(secret) + shamir.SHARE_OVERHEAD}
    few = shares[: threshold - 1]
    assert refused(Code.INVALID, shamir.join, few).details == ({"needed": threshold})


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=40), st.integers(0, 2), st.data())
def test_a_changed_share_is_found_out(secret: bytes, which: int, data: st.DataObject) -> None:
    shares = split(secret, 3, 3)
    place = data.draw(st.integers(0, len(shares[which]) - 1))
    changed = bytearray(shares[which])
    changed[place] ^= data.draw(st.integers(1, 255))
    shares[which] = bytes(changed)
    with pytest.raises(CallError) as caught:
        shamir.join(shares)
    assert caught.value.code in (Code.INVALID, Code.UNTRUSTED)
    assert place < 3 or caught.value.code is Code.UNTRUSTED


def test_shares_of_two_secrets_do_not_join() -> None:
    one, two = split(b"secret one", 2, 3), split(b"secret two", 2, 3)
    refused(Code.UNTRUSTED, shamir.join, [one[0], two[1]])
    refused(Code.INVALID, shamir.join, [one[0], split(b"longer secret", 2, 3)[1]])
    refused(Code.INVALID, shamir.join, [one[0], split(b"secret one", 3, 3)[1]])


def test_what_is_no_share_is_invalid() -> None:
    one, two = split(b"secret", 2, 2)
    refused(Code.INVALID, shamir.join, [])
    refused(Code.INVALID, shamir.join, [one])
    refused(Code.INVALID, shamir.join, [one, one])
    refused(Code.INVALID, shamir.join, [one] * 256)
    for wrong in (b"", one[:35], b"\2" + one[1:], bytes(5000)):
        refused(Code.INVALID, shamir.join, [wrong, two])
    refused(Code.INVALID, shamir.join, [one[:2] + b"\0" + one[3:], two])
    refused(Code.INVALID, shamir.join, [one[:1] + b"\1" + one[2:], two[:1] + b"\1" + two[2:]])


@pytest.mark.parametrize(
    ("size", "threshold", "shares"), [(0, 2, 3), (2049, 2, 3), (5, 1, 3), (5, 0, 0), (5, 4, 3), (5, 2, 256), (5, -1, 2)]
)
def test_a_split_that_makes_no_sense_is_invalid(size: int, threshold: int, shares: int) -> None:
    refused(Code.INVALID, split, bytes(size), threshold, shares)


def test_the_largest_split_fits_a_frame_and_joins() -> None:
    secret = os.urandom(limits.MAX_SECRET)
    shares = split(secret, 3, 255)
    assert sum(len(share) + 8 for share in shares) < 1 << 20
    assert shamir.join(shares[100:103]) == secret
    assert shamir.join(split(secret, 255, 255)) == secret


def test_shares_below_the_threshold_have_no_trace_of_the_secret() -> None:
    # With a threshold of 2 a share's every byte runs through all 256 values as the random does: it is a one-time pad.
    seen = set()
    for value in range(256):
        shares = shamir.split(b"s", 2, 2, lambda size, value=value: bytes([value]) * size)  # type: ignore[misc]
        seen.add(shares[0][-1])
    assert len(seen) == 256


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(st.binary(min_size=32, max_size=32), st.binary(min_size=33, max_size=33)),
    st.integers(0, 16383).filter(lambda prefix: prefix not in (46, 47)),
)
def test_an_ss58_address_comes_apart_into_what_it_was_made_of(account: bytes, prefix: int) -> None:
    address = addresses.encode_ss58(account, prefix)
    assert len(address) <= 52
    assert addresses.decode_ss58(address) == (prefix, account)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(ALICE) - 1), st.sampled_from("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"))
def test_a_mistyped_ss58_address_is_refused(place: int, character: str) -> None:
    mistyped = ALICE[:place] + character + ALICE[place + 1 :]
    if mistyped != ALICE:
        refused(Code.INVALID, addresses.decode_ss58, mistyped)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=70))
def test_any_other_text_is_refused_as_an_ss58_address(text: str) -> None:
    refused(Code.INVALID, addresses.decode_ss58, text)


def test_addresses_out_of_their_form_are_invalid() -> None:
    for text in ("", "1", "0" + ALICE[1:], "1" + ALICE, ALICE + "1", " " + ALICE, "z" * 64, "z" * 65):
        refused(Code.INVALID, addresses.decode_ss58, text)
    for prefix in (-1, 46, 47, 16384):
        refused(Code.INVALID, addresses.encode_ss58, bytes(32), prefix)
    for account in (b"", bytes(31), bytes(34)):
        refused(Code.INVALID, addresses.encode_ss58, account, 42)
    # The prefix 42 in two bytes, with a right checksum: a second form of one address.
    body = bytes([(42 >> 2) | 0b0100_0000, (42 & 3) << 6]) + bytes(32)
    refused(Code.INVALID, addresses.decode_ss58, base58.encode(body + addresses._ss58_checksum(body)))
    for body in (bytes([46]) + bytes(32), bytes([130]) + bytes(32), bytes([42]) + bytes(31)):
        refused(Code.INVALID, addresses.decode_ss58, base58.encode(body + addresses._ss58_checksum(body)))


def test_multi_signature_accounts_that_make_no_sense_are_invalid() -> None:
    two = [bytes(32), b"\1" * 32]
    for signatories, threshold in (
        ([], 1),
        (two[:1], 1),
        ([two[0], two[0]], 1),
        ([two[0], b"short"], 1),
        (two, 0),
        (two, 3),
        ([bytes(31) + bytes([n]) for n in range(101)], 2),
    ):
        refused(Code.INVALID, addresses.multisig_account, signatories, threshold)
    hundred = [bytes(31) + bytes([n]) for n in range(100)]
    assert len({addresses.multisig_account(hundred[:n], 2) for n in (63, 64, 100)}) == 3
