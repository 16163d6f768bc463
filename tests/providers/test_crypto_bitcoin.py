"""Bitcoin addresses, multi-signature scripts and witnesses: as in the BIPs, and as another implementation makes them.

The vectors and where they are from are in crypto_vectors/. Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tea.protocol.errors import CallError, Code
from tea.providers.crypto import bech32, bitcoin
from tea.providers.crypto.curves import Secp256k1Key

VECTORS = Path(__file__).parent / "crypto_vectors"
BIPS: dict[str, Any] = json.loads((VECTORS / "bips.json").read_text())
MADE: dict[str, Any] = json.loads((VECTORS / "bitcoin.json").read_text())
KEYS = [bytes.fromhex(one) for one in MADE["public_keys"]]
NETWORKS = tuple(bitcoin.NETWORKS)


def refused(code: Code, function: Any, *args: object) -> CallError:
    with pytest.raises(CallError) as caught:
        function(*args)
    assert caught.value.code is code
    return caught.value


@pytest.mark.parametrize(("key", "address"), BIPS["bip84"])
def test_an_address_of_a_key_is_bip_84_s(key: str, address: str) -> None:
    assert bitcoin.address_of(bytes.fromhex(key), "mainnet", "p2wpkh") == address


@pytest.mark.parametrize(("address", "script"), BIPS["bip350"])
def test_an_address_pays_to_the_script_of_bip_350(address: str, script: str) -> None:
    found = bitcoin.parse_address(address)
    assert found.script.hex() == script
    assert found.network == ("testnet" if address.lower().startswith("tb1") else "mainnet")
    prefix, version, program = bech32.decode(address)
    assert bech32.encode(prefix, version, program) == address.lower()


@pytest.mark.parametrize("address", BIPS["invalid"])
def test_an_address_that_the_bips_refuse_is_refused(address: str) -> None:
    refused(Code.INVALID, bitcoin.parse_address, address)


@pytest.mark.parametrize(("keys", "script", "address"), BIPS["bip67"])
def test_keys_that_sign_together_stand_in_bip_67_s_order(keys: list[str], script: str, address: str) -> None:
    for order in permutations([bytes.fromhex(key) for key in keys]):
        made = bitcoin.multisig(order, 2, "mainnet", "p2sh")
        assert (made.script.hex(), made.address) == (script, address)


@pytest.mark.parametrize("network", NETWORKS)
def test_addresses_are_another_implementation_s(network: str) -> None:
    assert bitcoin.address_of(KEYS[0], network, "p2pkh") == MADE["p2pkh"][network]
    assert (
        bitcoin.address_of(bytes.fromhex(MADE["uncompressed"]), network, "p2pkh")
        == (MADE["p2pkh_uncompressed"][network])
    )
    made = bitcoin.multisig(KEYS, MADE["threshold"], network, "p2wsh")
    assert (made.address, made.script.hex()) == (MADE["addresses"][network], MADE["script"])
    assert bitcoin.multisig(KEYS, MADE["threshold"], network, "p2sh").address == MADE["p2sh"][network]
    for kind, address in (("p2pkh", MADE["p2pkh"]), ("p2sh", MADE["p2sh"]), ("p2wsh", MADE["addresses"])):
        found = bitcoin.parse_address(address[network])
        assert (found.network, found.kind) == (network, kind)
    assert bitcoin.address_of(KEYS[0], "testnet", "p2wpkh") == MADE["p2wpkh_testnet"]


@pytest.mark.parametrize("spent", MADE["spent"])
def test_a_witness_is_another_implementation_s_whatever_the_order(spent: dict[str, Any]) -> None:
    digest = bytes.fromhex(spent["digest"])
    signatures = [bytes.fromhex(one) for one in spent["signatures"]]
    for keys in permutations(KEYS):
        for signed in permutations(signatures):
            items = bitcoin.witness(keys, MADE["threshold"], digest, signed, spent["sighash"])
            assert [item.hex() for item in items] == spent["witness"]


def test_a_witness_wants_enough_keys_and_true_signatures() -> None:
    spent = MADE["spent"][0]
    digest = bytes.fromhex(spent["digest"])
    one, two = (bytes.fromhex(signature) for signature in spent["signatures"])
    stranger = Secp256k1Key(lambda size: b"\5" * size).sign(digest, True)
    refused(Code.UNTRUSTED, bitcoin.witness, KEYS, 2, digest, [one], 1)
    refused(Code.UNTRUSTED, bitcoin.witness, KEYS, 2, digest, [one, one], 1)  # a key counts once
    refused(Code.UNTRUSTED, bitcoin.witness, KEYS, 2, digest, [one, two, stranger], 1)
    refused(Code.UNTRUSTED, bitcoin.witness, KEYS, 2, bytes(32), [one, two], 1)
    refused(Code.INVALID, bitcoin.witness, KEYS, 2, digest, [one[:-1], two], 1)
    refused(Code.INVALID, bitcoin.witness, KEYS, 2, digest, [one] * (bitcoin.MAX_SIGNATURES + 1), 1)
    refused(Code.INVALID, bitcoin.witness, KEYS, 2, digest[1:], [one, two], 1)
    refused(Code.INVALID, bitcoin.witness, KEYS, 2, digest, [one, two], 0)
    refused(Code.INVALID, bitcoin.witness, KEYS[:1], 2, digest, [one, two], 1)


def test_more_signatures_than_the_threshold_make_the_shortest_witness() -> None:
    digest = bytes(range(32))
    keys = [Secp256k1Key(lambda size, n=number: bytes([n]) * size) for number in range(1, 16)]  # type: ignore[misc]
    public = [key.public("native") for key in keys]
    signatures = [key.sign(digest, True) for key in keys]
    items = bitcoin.witness(public, 3, digest, signatures, 1)
    assert len(items) == 5
    assert items[-1] == bitcoin.multisig(public, 3, "mainnet", "p2wsh").script
    assert len(items[-1]) <= 520


def test_keys_that_make_no_address_are_invalid() -> None:
    key, whole = KEYS[0], bytes.fromhex(MADE["uncompressed"])
    for public in (b"", key[1:], bytes(33), b"\5" + key[1:], b"\6" + whole[1:]):
        refused(Code.INVALID, bitcoin.address_of, public, "mainnet", "p2pkh")
    refused(Code.INVALID, bitcoin.address_of, whole, "mainnet", "p2wpkh")
    refused(Code.INVALID, bitcoin.address_of, key, "regtest", "p2wpkh")
    refused(Code.INVALID, bitcoin.address_of, key, "mainnet", "p2wsh")
    refused(Code.INVALID, bitcoin.multisig, KEYS, 2, "mainnet", "p2wpkh")
    refused(Code.INVALID, bitcoin.multisig, KEYS, 2, "liquid", "p2wsh")
    refused(Code.INVALID, bitcoin.multisig, [], 1, "mainnet", "p2wsh")
    refused(Code.INVALID, bitcoin.multisig, KEYS, 0, "mainnet", "p2wsh")
    refused(Code.INVALID, bitcoin.multisig, KEYS, 4, "mainnet", "p2wsh")
    refused(Code.INVALID, bitcoin.multisig, [*KEYS, KEYS[0]], 2, "mainnet", "p2wsh")
    refused(Code.INVALID, bitcoin.multisig, [*KEYS, whole], 2, "mainnet", "p2wsh")
    refused(Code.INVALID, bitcoin.multisig, KEYS * 6, 2, "mainnet", "p2wsh")


def test_what_is_no_address_is_invalid() -> None:
    for text in (
        "",
        "1",
        "bc1",
        "tb1q",
        "0OIl",
        "1" * 91,
        "bc1q" + "q" * 5000,
        MADE["p2pkh"]["mainnet"][:-1],
        MADE["p2pkh"]["mainnet"] + "1",
        "LM2WMpR1Rp6j3Sa59cMXMs1SPzj9eXpGc1",  # another chain's version
        "5Ju",
        "\u212a" * 40,
        "bc1\u017fq",
    ):
        refused(Code.INVALID, bitcoin.parse_address, text)


@pytest.mark.parametrize("prefix", ["bc1", "bc1q", "bc1zz", "tb1tb"])
def test_an_address_of_a_longer_prefix_is_not_bitcoin_s_whatever_its_checksum(prefix: str) -> None:
    for version, program in ((0, bytes(20)), (1, bytes(32))):
        address = bech32.encode(prefix, version, program)
        assert bech32.decode(address) == (prefix, version, program)
        for text in (address, address.upper()):
            refused(Code.INVALID, bitcoin.parse_address, text)


@given(st.sampled_from(NETWORKS), st.integers(0, 16), st.binary(min_size=2, max_size=40))
def test_a_witness_program_comes_back_out_of_its_address(network: str, version: int, program: bytes) -> None:
    if version == 0:
        program = (program * 16)[: 32 if len(program) % 2 else 20]
    address = bech32.encode(bitcoin.NETWORKS[network].prefix, version, program)
    for text in (address, address.upper()):
        found = bitcoin.parse_address(text)
        assert (found.network, found.version, found.program) == (network, version, program)


@given(st.integers(0, 61), st.integers(0, 31), st.integers(0, 2))
def test_one_mistyped_character_is_always_found_out(place: int, word: int, which: int) -> None:
    address = [MADE["addresses"]["mainnet"], MADE["addresses"]["testnet"], MADE["p2pkh"]["mainnet"]][which]
    place %= len(address)
    character = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"[word]
    wrong = address[:place] + character + address[place + 1 :]
    if wrong != address:
        refused(Code.INVALID, bitcoin.parse_address, wrong)


@given(st.text(max_size=100))
def test_any_other_text_is_refused_as_an_address(text: str) -> None:
    for candidate in (text, f"bc1{text}", f"tb1{text}", f"1{text}"):
        refused(Code.INVALID, bitcoin.parse_address, candidate)
