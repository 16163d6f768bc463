"""COSE_Sign1 and COSE_Sign: every way in which a message can be wrong has its refusal.

May not: trust pycose alone: the Sig_structure is written out here by hand, after RFC 9052 section 4.4.
Rule: RFC 9052, RFC 9053; docs/architecture.md, "Trust".
"""

from __future__ import annotations

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given, settings
from hypothesis import strategies as st

from tea.trust.canonical import encode
from tea.trust.cose import (
    add_signature,
    sign,
    sign1,
    unverified_payload,
    unverified_signers,
    verify1,
    verify_quorum,
)
from tea.trust.keys import PrivateKey, PublicKey, SigningCode, SigningError


def fixed(number: int) -> PrivateKey:
    return PrivateKey(ed25519.Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32))


ED, P384 = fixed(1), PrivateKey.generate("p384")
OTHERS = tuple(fixed(number) for number in range(2, 6))
TYPE = "application/x"


def by_id(*keys: PrivateKey) -> dict[bytes, PublicKey]:
    return {key.public.key_id: key.public for key in keys}


def refusal1(data: bytes, *keys: PrivateKey, content_type: str = TYPE, aad: bytes = b"") -> str:
    with pytest.raises(SigningError) as caught:
        verify1(data, by_id(*(keys or (ED, P384))), content_type=content_type, external_aad=aad)
    return caught.value.code


def refusal(data: bytes, *keys: PrivateKey, threshold: int = 1, content_type: str = TYPE) -> str:
    with pytest.raises(SigningError) as caught:
        verify_quorum(data, by_id(*(keys or (ED, *OTHERS))), threshold, content_type=content_type)
    return caught.value.code


both = pytest.mark.parametrize("key", [ED, P384], ids=["ed25519", "p384"])
ALG = {"ed25519": -8, "p384": -35}


def made(header: dict[object, object], payload: bytes = b"pay", key: PrivateKey = ED) -> bytes:
    """A COSE_Sign1 with whatever header, whose signature holds: what an issuer gone bad could make."""
    protected = encode(header)
    return encode([protected, {}, payload, key.sign(encode(["Signature1", protected, b"", payload]))])


def header(key: PrivateKey = ED, **change: object) -> dict[object, object]:
    return {1: ALG[key.public.algorithm], 3: TYPE, 4: key.public.key_id}


# ---- COSE_Sign1


@both
def test_a_signed_payload_comes_back_with_its_signer(key: PrivateKey) -> None:
    data = sign1(b"pay", key, content_type=TYPE)
    verified = verify1(data, by_id(ED, P384), content_type=TYPE)
    assert (verified.payload, verified.kid) == (b"pay", key.public.key_id)
    assert unverified_payload(data) == b"pay"
    assert unverified_signers(data) == (key.public.key_id,)


@both
def test_it_is_the_cose_sign1_of_rfc_9052(key: PrivateKey) -> None:
    data = sign1(b"pay", key, content_type=TYPE, external_aad=b"aad")
    protected, unprotected, payload, signature = cbor2.loads(data)
    assert cbor2.loads(protected) == header(key)
    assert unprotected == {}
    key.public.verify(signature, cbor2.dumps(["Signature1", protected, b"aad", payload]))
    assert made(header(key), key=key) == sign1(b"pay", key, content_type=TYPE)


def test_the_bytes_are_pinned() -> None:
    assert sign1(b"pay", ED, content_type=TYPE).hex() == (
        "845824a30127036d6170706c69636174696f6e2f780450d727ab7581a5dfcad5ad2bc82885f66ea0437061795840"
        + ED.sign(encode(["Signature1", encode(header()), b"", b"pay"])).hex()
    )


@both
@settings(max_examples=200)
@given(data=st.data())
def test_a_flipped_bit_anywhere_is_refused(key: PrivateKey, data: st.DataObject) -> None:
    message = bytearray(sign1(b"pay", key, content_type=TYPE))
    at = data.draw(st.integers(0, 8 * len(message) - 1))
    message[at // 8] ^= 1 << at % 8
    with pytest.raises(SigningError):
        verify1(bytes(message), by_id(ED, P384), content_type=TYPE)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_and_nothing_else_happens(data: bytes) -> None:
    for read in (
        lambda: verify1(data, by_id(ED), content_type=TYPE),
        lambda: verify_quorum(data, by_id(ED), 1, content_type=TYPE),
        lambda: add_signature(data, ED),
        lambda: unverified_signers(data),
    ):
        with pytest.raises(SigningError):
            read()


def test_every_cut_is_refused() -> None:
    message = sign1(b"pay", ED, content_type=TYPE)
    assert {refusal1(message[:end]) for end in range(len(message))} == {SigningCode.MALFORMED}


def test_an_unknown_key_is_refused() -> None:
    assert refusal1(sign1(b"pay", ED, content_type=TYPE), P384) == SigningCode.UNKNOWN_KEY


def test_another_keys_signature_under_a_known_id_is_refused() -> None:
    assert refusal1(made(header(), key=OTHERS[0])) == SigningCode.BAD_SIGNATURE


def test_another_content_type_is_refused() -> None:
    data = sign1(b"pay", ED, content_type="application/y")
    assert refusal1(data) == SigningCode.WRONG_CONTENT_TYPE


def test_another_external_aad_is_refused() -> None:
    data = sign1(b"pay", ED, content_type=TYPE, external_aad=b"this")
    assert refusal1(data, aad=b"that") == SigningCode.BAD_SIGNATURE
    assert refusal1(data) == SigningCode.BAD_SIGNATURE


@pytest.mark.parametrize("alg", [-35, -7, 5, 0, -257, 99999])
def test_the_message_does_not_choose_the_algorithm(alg: int) -> None:
    assert refusal1(made({**header(), 1: alg})) == SigningCode.WRONG_ALGORITHM


@pytest.mark.parametrize("change", [{2: [1]}, {5: b"iv"}, {33: b"cert"}, {"x": 1}, {-1: 1}])
def test_an_unknown_protected_header_is_refused(change: dict[object, object]) -> None:
    assert refusal1(made({**header(), **change})) == SigningCode.UNKNOWN_HEADER


@pytest.mark.parametrize("gone", [1, 3, 4])
def test_a_missing_header_is_refused(gone: int) -> None:
    left = {name: value for name, value in header().items() if name != gone}
    assert refusal1(made(left)) == SigningCode.MALFORMED


@pytest.mark.parametrize("change", [{1: "EdDSA"}, {1: True}, {4: "kid"}, {4: b"short"}])
def test_a_header_of_another_type_is_refused(change: dict[object, object]) -> None:
    assert refusal1(made({**header(), **change})) == SigningCode.MALFORMED


def test_an_unprotected_header_is_refused() -> None:
    protected, _, payload, signature = cbor2.loads(sign1(b"pay", ED, content_type=TYPE))
    assert refusal1(encode([protected, {4: b"x"}, payload, signature])) == SigningCode.UNKNOWN_HEADER


@pytest.mark.parametrize(
    ("place", "value"), [(0, {}), (0, b""), (0, b"\xa0\x00"), (0, b"\x80"), (1, []), (2, None), (2, "pay"), (3, None)]
)
def test_a_part_of_another_type_is_refused(place: int, value: object) -> None:
    parts = cbor2.loads(sign1(b"pay", ED, content_type=TYPE))
    parts[place] = value
    assert refusal1(encode(parts)) == SigningCode.MALFORMED


def test_a_protected_header_that_is_not_canonical_is_refused() -> None:
    protected = b"\xa3\x03" + encode(TYPE) + b"\x01\x27\x04" + encode(ED.public.key_id)
    signature = ED.sign(encode(["Signature1", protected, b"", b"pay"]))
    assert refusal1(encode([protected, {}, b"pay", signature])) == SigningCode.MALFORMED


def test_a_tag_trailing_bytes_and_other_lengths_are_refused() -> None:
    data = sign1(b"pay", ED, content_type=TYPE)
    assert refusal1(b"\xd2" + data) == SigningCode.MALFORMED
    assert refusal1(data + b"\0") == SigningCode.MALFORMED
    assert refusal1(encode([*cbor2.loads(data), b""])) == SigningCode.MALFORMED
    assert refusal1(b"\x9f" + data[1:] + b"\xff") == SigningCode.MALFORMED


def test_more_than_the_limit_is_refused() -> None:
    data = sign1(bytes(1000), ED, content_type=TYPE)
    with pytest.raises(SigningError) as caught:
        verify1(data, by_id(ED), content_type=TYPE, limit=999)
    assert caught.value.code == SigningCode.MALFORMED
    with pytest.raises(SigningError):
        unverified_payload(data, limit=999)


def test_a_key_under_anothers_id_is_our_own_mistake() -> None:
    data = sign1(b"pay", ED, content_type=TYPE)
    with pytest.raises(ValueError, match="not its own"):
        verify1(data, {P384.public.key_id: ED.public}, content_type=TYPE)


# ---- COSE_Sign


def test_a_quorum_of_several_keys_is_counted() -> None:
    data = sign(b"pay", ED, content_type=TYPE)
    for key in OTHERS:
        data = add_signature(data, key)
    data = add_signature(data, P384)
    everyone = (ED, *OTHERS, P384)
    verified = verify_quorum(data, by_id(*everyone), 6, content_type=TYPE)
    assert verified.payload == unverified_payload(data) == b"pay"
    assert verified.kids == unverified_signers(data) == tuple(sorted(key.public.key_id for key in everyone))


def test_it_is_the_cose_sign_of_rfc_9052() -> None:
    data = sign(b"pay", (ED, P384), content_type=TYPE)
    body, unprotected, payload, signatures = cbor2.loads(data)
    assert cbor2.loads(body) == {3: TYPE}
    assert unprotected == {}
    for protected, more, signature in signatures:
        one = cbor2.loads(protected)
        assert more == {}
        by_id(ED, P384)[one[4]].verify(signature, cbor2.dumps(["Signature", body, protected, b"", payload]))


def test_the_order_of_signing_makes_no_difference() -> None:
    one = sign(b"pay", OTHERS, content_type=TYPE)
    other = sign(b"pay", OTHERS[::-1], content_type=TYPE)
    assert one == other


def test_too_few_signatures_are_refused() -> None:
    data = sign(b"pay", (ED, OTHERS[0]), content_type=TYPE)
    assert refusal(data, threshold=3) == SigningCode.QUORUM


def test_a_key_signs_once() -> None:
    with pytest.raises(SigningError) as caught:
        sign(b"pay", (ED, ED), content_type=TYPE)
    assert caught.value.code == SigningCode.DUPLICATE_SIGNER
    with pytest.raises(SigningError) as caught:
        add_signature(sign(b"pay", ED, content_type=TYPE), ED)
    assert caught.value.code == SigningCode.DUPLICATE_SIGNER


def test_a_signature_written_twice_does_not_count_twice() -> None:
    body, _, payload, signatures = cbor2.loads(sign(b"pay", ED, content_type=TYPE))
    assert refusal(encode([body, {}, payload, signatures * 2]), threshold=2) == SigningCode.DUPLICATE_SIGNER


def test_a_p384_key_that_signs_twice_with_other_bytes_does_not_count_twice() -> None:
    # (r, n - s) holds as well as (r, s): counting by signature instead of by key would be fooled.
    order = int("ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16)
    body, _, payload, [[protected, _, signature]] = cbor2.loads(sign(b"pay", P384, content_type=TYPE))
    other = signature[:48] + (order - int.from_bytes(signature[48:], "big")).to_bytes(48, "big")
    assert verify_quorum(encode([body, {}, payload, [[protected, {}, other]]]), by_id(P384), 1, content_type=TYPE)
    twice = encode([body, {}, payload, [[protected, {}, signature], [protected, {}, other]]])
    assert refusal(twice, P384, threshold=2) == SigningCode.DUPLICATE_SIGNER


def test_unsorted_signatures_are_refused() -> None:
    body, _, payload, signatures = cbor2.loads(sign(b"pay", OTHERS, content_type=TYPE))
    assert refusal(encode([body, {}, payload, signatures[::-1]])) == SigningCode.MALFORMED


def test_a_strangers_signature_refuses_the_whole() -> None:
    data = sign(b"pay", (ED, *OTHERS), content_type=TYPE)
    assert refusal(data, *OTHERS, threshold=1) == SigningCode.UNKNOWN_KEY


def test_one_broken_signature_refuses_the_whole() -> None:
    body, _, payload, signatures = cbor2.loads(sign(b"pay", (ED, *OTHERS), content_type=TYPE))
    signatures[2][2] = bytes(64)
    assert refusal(encode([body, {}, payload, signatures]), threshold=1) == SigningCode.BAD_SIGNATURE


def test_signatures_do_not_move_to_another_payload_or_type() -> None:
    body, _, payload, signatures = cbor2.loads(sign(b"pay", ED, content_type=TYPE))
    assert refusal(encode([body, {}, b"other", signatures])) == SigningCode.BAD_SIGNATURE
    assert refusal(encode([encode({3: "b"}), {}, payload, signatures]), content_type="b") == SigningCode.BAD_SIGNATURE
    assert refusal(sign(b"pay", ED, content_type="b")) == SigningCode.WRONG_CONTENT_TYPE


def test_a_sign1_is_no_sign_and_the_other_way_round() -> None:
    assert refusal(sign1(b"pay", ED, content_type=TYPE)) == SigningCode.MALFORMED
    assert refusal1(sign(b"pay", ED, content_type=TYPE)) == SigningCode.MALFORMED
    _, _, payload, [[protected, _, signature]] = cbor2.loads(sign(b"pay", ED, content_type=TYPE))
    assert refusal1(encode([protected, {}, payload, signature])) == SigningCode.MALFORMED


@pytest.mark.parametrize(
    "signatures",
    [
        [],
        [b""],
        [[]],
        [[b"", {}]],
        [[b"", {}, None]],
        [[b"", [], b""]],
        [[{}, {}, b""]],
        [[b"\xa0", {}, b""]],
        b"",
        None,
    ],
)
def test_malformed_signatures_are_refused(signatures: object) -> None:
    body = encode({3: TYPE})
    assert refusal(encode([body, {}, b"pay", signatures])) == SigningCode.MALFORMED


def test_unknown_headers_in_any_place_are_refused() -> None:
    body, _, payload, [[protected, _, signature]] = cbor2.loads(sign(b"pay", ED, content_type=TYPE))
    strange = encode({1: -8, 4: ED.public.key_id, 9: 1})
    assert refusal(encode([body, {}, payload, [[strange, {}, signature]]])) == SigningCode.UNKNOWN_HEADER
    assert refusal(encode([body, {}, payload, [[protected, {1: 1}, signature]]])) == SigningCode.UNKNOWN_HEADER
    assert refusal(encode([encode({3: TYPE, 1: -8}), {}, payload, [[protected, {}, signature]]])) == "unknown-header"


def test_more_than_64_signatures_are_refused() -> None:
    body, _, payload, [one] = cbor2.loads(sign(b"pay", ED, content_type=TYPE))
    assert refusal(encode([body, {}, payload, [one] * 65])) == SigningCode.MALFORMED


@pytest.mark.parametrize("threshold", [0, -1])
def test_a_quorum_of_none_is_our_own_mistake(threshold: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        verify_quorum(sign(b"pay", ED, content_type=TYPE), by_id(ED), threshold, content_type=TYPE)


def test_signing_with_no_key_is_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="at least one key"):
        sign(b"pay", (), content_type=TYPE)
