"""Simulated documents hold before the real verifier, and only under their own root.

May not: use a lenient verifier. Rule: AWS attestation process; docs/architecture.md, "Modes".
"""

from __future__ import annotations

import datetime
import errno
from collections.abc import Callable

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from tea.providers.nitro.authority import NETWORK_LIFE
from tea.providers.nitro.client import Nsm
from tea.providers.nitro.simulated import InstanceCredential, SimulatedCa, SimulatedNsm
from tea.trust import pcr
from tea.trust.attestation import AttestationCode, AttestationError, ChainCache, Roots, aws_roots, verify_document

NOW = 1_800_000_000.0
INSTANCE = "i-0fd3fdaad4e904e69"
MODULE = f"{INSTANCE}-enc019b54988b2d89ba"
IMAGE = {0: b"\1" * 48, 1: b"\2" * 48, 2: b"\3" * 48}
CA = SimulatedCa.create(now=NOW)
CREDENTIAL = CA.issue_instance(INSTANCE, now=NOW)


class Moment:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def nsm(clock: Callable[[], float] = lambda: NOW, credential: InstanceCredential = CREDENTIAL) -> SimulatedNsm:
    return SimulatedNsm(credential, MODULE, IMAGE, clock)


def leaf_of(document: bytes) -> bytes:
    leaf: bytes = cbor2.loads(cbor2.loads(document)[2])["certificate"]
    return leaf


@pytest.mark.parametrize("intermediates", [False, True])
@pytest.mark.parametrize("indefinite", [False, True])
def test_a_document_holds_before_the_strict_verifier(intermediates: bool, indefinite: bool) -> None:
    ca = SimulatedCa.create(now=NOW, intermediates=intermediates)
    device = nsm(credential=ca.issue_instance(INSTANCE, now=NOW))
    device.indefinite = indefinite
    raw = Nsm(device).attestation(b"user data", b"nonce", b"public key")
    document = verify_document(
        raw,
        roots=Roots.from_digests([ca.root_digest]),
        at=int(NOW * 1000),
        nonce=b"nonce",
        user_data=b"user data",
        public_key=b"public key",
        cache=ChainCache(),
    )
    assert document.module_id == MODULE
    assert document.timestamp == int(NOW * 1000)
    assert document.root == ca.root_digest
    assert len(document.cabundle) == (4 if intermediates else 2)
    assert {index: document.pcrs[index] for index in range(3)} == IMAGE
    assert document.instance_confirmed
    assert not document.debug


def test_a_simulated_document_never_holds_under_awss_root() -> None:
    with pytest.raises(AttestationError, match="simulated network"):
        verify_document(Nsm(nsm()).attestation(), roots=aws_roots(), at=int(NOW * 1000))


def test_a_document_of_another_network_does_not_hold_under_this_ones_root() -> None:
    other = SimulatedCa.create(now=NOW)
    with pytest.raises(AttestationError):
        verify_document(Nsm(nsm()).attestation(), roots=Roots.from_digests([other.root_digest]), at=int(NOW * 1000))


def test_any_flipped_byte_of_a_document_is_refused() -> None:
    raw = Nsm(nsm()).attestation(b"u")
    roots = Roots.from_digests([CA.root_digest])
    for place in range(0, len(raw), 37):
        changed = raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
        with pytest.raises(AttestationError):
            verify_document(changed, roots=roots, at=int(NOW * 1000))


def test_debug_mode_zeroes_the_images_pcrs() -> None:
    device = SimulatedNsm(CREDENTIAL, MODULE, IMAGE, lambda: NOW, debug=True)
    document = verify_document(
        Nsm(device).attestation(), roots=Roots.from_digests([CA.root_digest]), at=int(NOW * 1000)
    )
    assert document.debug


def test_the_role_is_in_pcr3_and_the_instance_in_pcr4() -> None:
    arn = "arn:aws:iam::123456789012:role/enclave"
    client = Nsm(SimulatedNsm(CREDENTIAL, MODULE, IMAGE, lambda: NOW, role_arn=arn))
    assert client.describe_pcr(3) == (True, pcr.pcr3(arn))
    assert client.describe_pcr(4) == (True, pcr.pcr4(INSTANCE))


def test_a_leaf_lives_three_hours_and_is_renewed_before_it_ends() -> None:
    clock = Moment()
    client = Nsm(nsm(clock))
    first = leaf_of(client.attestation())
    certificate = x509.load_der_x509_certificate(first)
    starts, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    assert starts == datetime.datetime.fromtimestamp(NOW - 3, datetime.UTC)
    assert ends == datetime.datetime.fromtimestamp(NOW + 3 * 3600, datetime.UTC)
    clock.now += 3600
    assert leaf_of(client.attestation()) == first
    clock.now += 2 * 3600 - 1
    renewed = client.attestation()
    assert leaf_of(renewed) != first
    verify_document(renewed, roots=Roots.from_digests([CA.root_digest]), at=int(clock.now * 1000))


def test_a_clock_set_back_makes_a_new_leaf_that_is_valid_then() -> None:
    clock = Moment()
    client = Nsm(nsm(clock))
    first = leaf_of(client.attestation())
    clock.now -= 60
    raw = client.attestation()
    assert leaf_of(raw) != first
    verify_document(raw, roots=Roots.from_digests([CA.root_digest]), at=int(clock.now * 1000))


def test_a_network_attests_for_longer_than_a_day_and_a_credential_of_a_day_does_not() -> None:
    clock = Moment()
    root = Roots.from_digests([CA.root_digest])
    clients = [Nsm(nsm(clock, CA.issue_instance(INSTANCE, now=NOW, life=life))) for life in (NETWORK_LIFE, 86400)]
    first = leaf_of(clients[0].attestation())
    clock.now += 30 * 86400
    long, short = (client.attestation() for client in clients)
    assert verify_document(long, roots=root, at=int(clock.now * 1000)).module_id == MODULE
    assert leaf_of(long) != first
    leaf = x509.load_der_x509_certificate(leaf_of(long))
    assert leaf.not_valid_after_utc.timestamp() == int(clock.now) + 3 * 3600
    with pytest.raises(AttestationError) as refused:
        verify_document(short, roots=root, at=int(clock.now * 1000))
    assert refused.value.code is AttestationCode.EXPIRED
    clock.now += 336 * 86400
    with pytest.raises(AttestationError) as refused:
        verify_document(clients[0].attestation(), roots=root, at=int(clock.now * 1000))
    assert refused.value.code is AttestationCode.EXPIRED


@pytest.mark.parametrize("life", [0, -1, 7 * 86400])
def test_no_instance_outlives_its_issuer(life: int) -> None:
    ca = SimulatedCa.create(now=NOW, intermediates=True)
    with pytest.raises(ValueError, match="does not live so long"):
        ca.issue_instance(INSTANCE, now=NOW, life=life)


def test_certificates_have_awss_profile() -> None:
    ca = SimulatedCa.create(now=NOW, intermediates=True)
    chain = [x509.load_der_x509_certificate(der) for der in ca.issue_instance(INSTANCE, now=NOW).cabundle]
    lengths = [c.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length for c in chain]
    days = [(c.not_valid_after_utc.timestamp() - NOW) / 86400 for c in chain]
    assert lengths == [None, 2, 1, 0]
    assert days == [30 * 365, 20, 6, 1]
    for certificate in chain:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
        assert usage.critical
        assert usage.value.key_cert_sign
        key = certificate.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert key.curve.name == "secp384r1"
        assert certificate.not_valid_before_utc.timestamp() < NOW
    assert "Amazon" not in chain[0].subject.rfc4514_string()


def test_a_credential_comes_back_from_its_bytes_and_hides_its_key() -> None:
    assert InstanceCredential.decode(CREDENTIAL.encode()) == CREDENTIAL
    assert CREDENTIAL.root_digest == CA.root_digest
    assert repr(CREDENTIAL.key) not in repr(CREDENTIAL)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        cbor2.dumps([]),
        cbor2.dumps({"tea": "tea.simulated-instance.v1"}),
        cbor2.dumps({"tea": "other", "instance": "i", "cabundle": [b"x"], "key": b"k"}),
        cbor2.dumps({"tea": "tea.simulated-instance.v1", "instance": "i", "cabundle": [], "key": b"k"}),
        cbor2.dumps({"tea": "tea.simulated-instance.v1", "instance": "i", "cabundle": ["x"], "key": b"k"}),
        cbor2.dumps({"tea": "tea.simulated-instance.v1", "instance": 1, "cabundle": [b"x"], "key": b"k"}),
        bytes(20000),
    ],
)
def test_bytes_that_are_no_credential_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="credential"):
        InstanceCredential.decode(data)


def test_a_credential_with_anothers_key_is_refused() -> None:
    other = CA.issue_instance(INSTANCE, now=NOW)
    mixed = InstanceCredential(INSTANCE, CREDENTIAL.cabundle, other.key)
    with pytest.raises(ValueError, match="not that of its last certificate"):
        nsm(credential=mixed)
    with pytest.raises(ValueError, match="cannot be read"):
        nsm(credential=InstanceCredential(INSTANCE, CREDENTIAL.cabundle, b"no key"))


@pytest.mark.parametrize("instance_id", ["", "i 1", "i-1-enc2", "ü", "i" * 41, "../x"])
def test_an_instance_id_that_no_module_could_carry_is_refused(instance_id: str) -> None:
    with pytest.raises(ValueError, match="instance id"):
        CA.issue_instance(instance_id, now=NOW)


@pytest.mark.parametrize("module_id", ["i-other-enc01", INSTANCE, f"{INSTANCE}-enc", f"{INSTANCE}-encü"])
def test_a_module_id_of_another_instance_is_refused(module_id: str) -> None:
    with pytest.raises(ValueError, match="module id"):
        SimulatedNsm(CREDENTIAL, module_id, IMAGE, lambda: NOW)


@pytest.mark.parametrize("pcrs", [{3: bytes(48)}, {4: bytes(48)}, {16: bytes(48)}, {0: bytes(32)}])
def test_pcrs_that_no_image_could_set_are_refused(pcrs: dict[int, bytes]) -> None:
    with pytest.raises(ValueError, match="PCR"):
        SimulatedNsm(CREDENTIAL, MODULE, pcrs, lambda: NOW)


def test_a_fault_on_demand_fails_every_exchange_until_it_is_taken_away() -> None:
    device = nsm()
    device.failing = errno.EIO
    with pytest.raises(OSError, match="Input/output"):
        device.exchange(cbor2.dumps("DescribeNSM"))
    device.failing = None
    assert Nsm(device).describe().module_id == MODULE


REQUESTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.binary(max_size=600) | st.text(max_size=20) | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["DescribePCR", "ExtendPCR", "LockPCR", "LockPCRs", "Attestation", "index", "data", "range"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)


@given(raw=st.binary(max_size=300) | REQUESTS.map(cbor2.dumps).filter(lambda raw: len(raw) <= 4096))
def test_any_request_is_answered_in_cbor_and_pcrs_0_to_15_never_change(raw: bytes) -> None:
    device = nsm()
    before = [Nsm(device).describe_pcr(index) for index in range(16)]
    cbor2.loads(device.exchange(raw))
    assert [Nsm(device).describe_pcr(index) for index in range(16)] == before
