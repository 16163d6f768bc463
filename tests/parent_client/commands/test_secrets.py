"""`teactl secret`, `secrets`, `policy` and `approvers`: what they make and refuse, in words and in JSON.

Rule: docs/secrets.md.
"""

from __future__ import annotations

import hashlib
import io
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tea.providers.crypto.algorithms import ALGORITHMS, key_from_secret
from tea.providers.testing import SimulatedAttester
from tea.trust.approval import parse_approvers, verify_changes
from tea.trust.policy import Policy, all_of, any_of, none_of, parse_policy, parse_rule
from tea.trust.roots import Roots

SECRET = "correct horse battery staple"
IMAGE = "07" * 48
MANIFEST = """tea: manifest/1
deployment: test
revision: 3
sandbox: prefer
issuers: {}
providers: {}
actors: {}
links: []
ra:
  members: {e1: {pcr4: "%s"}}
  quorum: two-thirds
""" % ("01" * 48)


@pytest.fixture
def enclave() -> SimulatedAttester:
    return SimulatedAttester(time.time, deployment="test", manifest=hashlib.sha384(b"m").digest())


@pytest.fixture
def policy(teactl: Any, enclave: SimulatedAttester) -> Path:
    image = {index: (found[1],) for index, found in enclave.pcrs().items() if index <= 2}
    made = Policy(pinned=Roots.from_digests([enclave.ca.root_digest]), simulated=True, pcrs=image, deployment="test")
    path: Path = teactl.folder / "policy.yaml"
    path.write_text(made.to_yaml())
    (teactl.folder / "secret").write_text(SECRET)
    return path


def put(teactl: Any, *more: object) -> Any:
    return teactl(*("secrets", "put", "v", "api-key", "--policy", "policy.yaml", "--actor", "payer", *more))


# -- secrets -----------------------------------------------------------------------------------------------------------


def test_a_vault_is_made_filled_shown_and_revoked_from(teactl: Any, policy: Path) -> None:
    made = teactl("secrets", "init", "v", "--json")
    assert made.json["service"].startswith("ed25519:")
    assert teactl("secrets", "init", "v").status == 1
    stored = put(teactl, "--in", "secret", "--lease", "60", "--json")
    assert (stored.json["version"], stored.json["actors"]) == (1, ["payer"])
    assert put(teactl, "--in", "secret").status == 0
    listed = teactl("secrets", "list", "v", "--json").json
    assert [(one["name"], one["version"], one["revoked"]) for one in listed["secrets"]] == [("api-key", 2, False)]
    assert listed["audit"]["lines"] == 3

    revoke = ("secrets", "revoke", "v")
    assert teactl(*revoke, "--secret", "api-key").status == 0
    assert teactl(*revoke, "--image", IMAGE, "--manifest", f"sha384:{IMAGE}", "--enclave", "i-1").status == 0
    assert teactl(*revoke, "--deployment", "test", "--least-revision", 4, "--least-epoch", 2).status == 0
    assert teactl(*revoke, "--deployment", "test", "--least-revision", 3).status == 1
    assert teactl(*revoke, "--secret", "nothing").status == 1
    shown = teactl("secrets", "list", "v")
    for word in ("revoked", IMAGE, "i-1", "below revision 4", "below epoch 2"):
        assert word in shown.out
    for ran in (made, stored, shown):
        assert SECRET not in ran.out + ran.err


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--deployment", "test"),
        ("--least-revision", "1"),
        ("--image", "07"),
        ("--manifest", "sha384:xx"),
        ("--deployment", "test", "--least-revision", "0"),
    ],
)
def test_a_revocation_that_says_too_little_is_wrong_usage(teactl: Any, arguments: tuple[str, ...]) -> None:
    assert teactl("secrets", "init", "v").status == 0
    assert teactl("secrets", "revoke", "v", *arguments).status == 2


def test_a_secret_may_come_from_standard_input(teactl: Any, policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert teactl("secrets", "init", "v").status == 0
    given = io.TextIOWrapper(io.BytesIO(SECRET.encode()))
    monkeypatch.setattr("sys.stdin", given)
    assert put(teactl).status == 0
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert put(teactl).status == 1


def test_a_broken_audit_log_is_named_by_its_line(teactl: Any, policy: Path) -> None:
    assert teactl("secrets", "init", "v").status == 0
    assert put(teactl, "--in", "secret").status == 0
    verify = ("secrets", "audit", "verify")
    whole = teactl(*verify, "v", "--json").json
    assert whole["lines"] == 2
    assert teactl(*verify, "v/audit.log", "--head", whole["head"]).status == 0
    assert "put" in teactl(*verify, "v", "--show").out
    assert teactl(*verify, "v", "--head", "07").status == 2
    log = teactl.folder / "v" / "audit.log"
    text = log.read_text()
    log.write_text(text.replace('"lease":3600', '"lease":1'))
    broken = teactl(*verify, "v", "--json")
    assert (broken.status, broken.json["code"]) == (1, "digest")
    assert "line 2 " in broken.json["error"]
    log.write_text(text.splitlines(keepends=True)[0])
    assert teactl(*verify, "v", "--json").json["code"] == "head"
    assert put(teactl, "--in", "secret").status == 1


def test_no_vault_and_no_log_are_said(teactl: Any) -> None:
    assert "no vault" in teactl("secrets", "list", "nowhere").err
    assert teactl("secrets", "audit", "verify", "nowhere").status == 1


# -- secret seal -------------------------------------------------------------------------------------------------------


async def fetched(teactl: Any, enclave: SimulatedAttester, kind: str = "attest") -> Path:
    speaker = ("payer", b"\1" * 32) if kind == "actor" else None
    document, statement = await enclave.attest(kind, b"", nonce=b"n", speaker=speaker)
    path: Path = teactl.folder / "document"
    path.write_bytes(document)
    path.with_suffix(".statement").write_bytes(statement)
    return path


async def test_a_secret_is_sealed_to_what_the_policy_accepts(
    teactl: Any, policy: Path, enclave: SimulatedAttester
) -> None:
    await fetched(teactl, enclave)
    seal = ("secret", "seal", "--policy", policy, "--actor", "payer", "--in", "secret", "--document", "document")
    ran = teactl(*seal, "--out", "sealed", "--json")
    assert ran.status == 0
    opened = enclave.open_sealed(
        (teactl.folder / "sealed").read_bytes(), purpose="secret", actor="payer", bundle=b"\1" * 32
    )
    assert opened == SECRET.encode()
    assert enclave.module_id in teactl(*seal, "--out", "sealed").out
    assert teactl(*seal, "--out", "key", "--key", "ed25519").status == 1  # not 32 bytes
    enclave.deployment = "another"
    await fetched(teactl, enclave)
    refused = teactl(*seal, "--out", "never", "--json")
    assert (refused.status, refused.json["code"]) == (1, "deployment")
    assert not (teactl.folder / "never").exists()


async def test_a_secret_is_not_sealed_on_an_actors_word_or_to_a_kms_key(
    teactl: Any, policy: Path, enclave: SimulatedAttester
) -> None:
    seal = ("secret", "seal", "--policy", policy, "--actor", "payer", "--in", "secret", "--document", "document")
    for kind in ("actor", "kms"):
        await fetched(teactl, enclave, kind)
        assert "the host's own" in teactl(*seal, "--out", "sealed").err


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_key_that_is_sealed_is_one_that_crypto_takes(
    teactl: Any, policy: Path, enclave: SimulatedAttester, algorithm: str
) -> None:
    await fetched(teactl, enclave)
    file = teactl.folder / "key.raw"
    file.write_bytes(bytes([1]) * (48 if algorithm == "p-384" else 32))
    if algorithm.startswith("rsa"):
        made = rsa.generate_private_key(65537, int(algorithm[-4:]))
        file.write_bytes(made.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    seal = ("secret", "seal", "--policy", policy, "--actor", "payer", "--in", "key.raw", "--document", "document")
    assert teactl(*seal, "--out", "sealed", "--key", algorithm).status == 0
    opened = enclave.open_sealed(
        (teactl.folder / "sealed").read_bytes(), purpose=f"key:{algorithm}", actor="payer", bundle=b"\1" * 32
    )
    assert key_from_secret(algorithm, opened).algorithm == algorithm
    for wrong in (b"x", bytes(31), b"SECRET" * 8 + b"S"):
        file.write_bytes(wrong)
        refused = teactl(*seal, "--out", "never", "--key", algorithm)
        assert refused.status == 1
        assert "SECRET" not in refused.err
    assert teactl(*seal, "--out", "never", "--key", "rot13").status == 1
    assert not (teactl.folder / "never").exists()


# -- policy ------------------------------------------------------------------------------------------------------------


def test_a_policy_is_made_from_a_manifest_and_explained(teactl: Any) -> None:
    (teactl.folder / "manifest.yaml").write_text(MANIFEST)
    (teactl.folder / "image.json").write_text('{"Measurements": {"HashAlgorithm": "Sha384", "PCR0": "%s"}}' % IMAGE)  # noqa: UP031
    make = ("policy", "from-manifest", "manifest.yaml", "--out", "p.yaml")
    assert teactl(*make, "--measurements", "image.json", "--booted", "--max-age", 60, "--epoch", 2).status == 0
    made = parse_policy((teactl.folder / "p.yaml").read_text())
    assert made.pcrs == {0: (bytes.fromhex(IMAGE),)}
    assert made.manifests == made.booted
    assert (made.min_revision, made.min_epoch, made.max_age, made.simulated) == (3, 2, 60, False)
    assert list(made.members) == ["e1"]
    explained = teactl("policy", "explain", "p.yaml")
    assert "PCR0 is 0707" in explained.out
    assert "at most 60 s old" in explained.out
    root = f"sha256:{'02' * 32}"
    assert teactl(*make, "--pcr", f"8={IMAGE}", "--root", root, "--descends", "--json").status == 0
    made = parse_policy((teactl.folder / "p.yaml").read_text())
    assert (made.descends, made.manifests, made.simulated) == (True, (), True)
    assert teactl(*make, "--pcr", f"0={IMAGE}", "--revision").status == 0
    assert parse_policy((teactl.folder / "p.yaml").read_text()).manifests == ()


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ((), 1),
        (("--pcr", "0=07"), 1),
        (("--pcr", "99=07"), 2),
        (("--pcr", "nonsense"), 2),
        (("--root", "sha256:07", "--pcr", f"0={IMAGE}"), 2),
        (("--network", "none", "--pcr", f"0={IMAGE}"), 1),
        (("--network", "none", "--root", "x", "--pcr", f"0={IMAGE}"), 2),
        (("--measurements", "manifest.yaml"), 1),
    ],
)
def test_a_policy_that_would_say_too_little_is_not_made(teactl: Any, arguments: tuple[str, ...], status: int) -> None:
    (teactl.folder / "manifest.yaml").write_text(MANIFEST)
    assert teactl("policy", "from-manifest", "manifest.yaml", "--out", "p.yaml", *arguments).status == status
    assert not (teactl.folder / "p.yaml").exists()


# -- approvers ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def two(teactl: Any) -> Path:
    """Approvers alice and bob, two of two; and the next set, alice and carol."""
    for name in ("alice", "bob", "carol"):
        assert teactl("key", "new", name).status == 0
    make = ("manifest", "approvers", "test", "--threshold", 2)
    assert teactl(*make, "--key", "alice", "--key", "bob", "--out", "first.yaml").status == 0
    assert teactl(*make, "--key", "alice", "--key", "carol", "--out", "next.yaml").status == 0
    following = teactl.folder / "next.yaml"
    following.write_text(following.read_text().replace("epoch: 1", "epoch: 2"))
    folder: Path = teactl.folder
    return folder


def test_approvers_change_by_the_old_quorum_and_the_epoch_rises(teactl: Any, two: Path) -> None:
    change = ("approvers", "change")
    proposed = teactl(*change, "propose", "first.yaml", "--new", "next.yaml", "--key", "alice", "--out", "c1", "--json")
    assert proposed.json["epoch"] == 2
    assert any(line.startswith("+ ed25519:") for line in proposed.json["changes"])
    assert teactl("approvers", "show", "first.yaml", "--change", "c1").status == 1  # one of two
    approve = (*change, "approve", "first.yaml", "c1", "--new", "next.yaml", "--out", "c2", "--key")
    assert teactl(*approve, "alice").status == 1  # twice by one key
    assert "epoch: 1 -> 2" in teactl(*approve, "bob").out
    shown = teactl("approvers", "show", "first.yaml", "--change", "c2", "--json").json
    assert shown["epoch"] == 2
    final = verify_changes(parse_approvers((two / "first.yaml").read_text()), [(two / "c2").read_bytes()])
    assert final == parse_approvers((two / "next.yaml").read_text())
    assert "epoch 2: 2 of 2" in teactl("approvers", "show", "first.yaml", "--change", "c2").out


def test_nobody_adds_an_approval_to_another_change_than_shown(teactl: Any, two: Path) -> None:
    change = ("approvers", "change")
    assert teactl(*change, "propose", "first.yaml", "--new", "next.yaml", "--key", "alice", "--out", "c").status == 0
    other = two / "other.yaml"
    other.write_text((two / "next.yaml").read_text().replace("threshold: 2", "threshold: 1"))
    approve = (*change, "approve", "first.yaml", "c", "--new", "other.yaml", "--out", "d", "--key", "bob")
    assert "other approvers" in teactl(*approve).err
    other.write_text((two / "next.yaml").read_text().replace("epoch: 2", "epoch: 3"))
    assert teactl(*approve).status == 1
    assert not (two / "d").exists()


# -- combined policies -------------------------------------------------------------------------------------------------


def combined(teactl: Any, enclave: SimulatedAttester) -> None:
    """`right.yaml` admits the enclave, `wrong.yaml` another image, `theirs.yaml` both, `none.yaml` what is not it."""
    root = {"pinned": Roots.from_digests([enclave.ca.root_digest]), "simulated": True}
    right = Policy(pcrs={0: (enclave.pcrs()[0][1],)}, **root)  # type: ignore[arg-type]
    wrong = Policy(pcrs={0: (b"\x07" * 48,)}, **root)  # type: ignore[arg-type]
    (teactl.folder / "right.yaml").write_text(right.to_yaml())
    (teactl.folder / "wrong.yaml").write_text(wrong.to_yaml())
    for out, made in (("theirs.yaml", any_of(wrong, right)), ("none.yaml", all_of(right, none_of(any_of(right))))):
        (teactl.folder / out).write_text(made.to_yaml())


async def test_a_combined_policy_holds_wherever_a_policy_does(teactl: Any, enclave: SimulatedAttester) -> None:
    await fetched(teactl, enclave)
    combined(teactl, enclave)
    verify = ("attest", "verify", "document", "--policy")
    assert teactl(*verify, "theirs.yaml").status == 0
    refused = teactl(*verify, "none.yaml", "--json")
    assert (refused.status, refused.json["code"]) == (1, "excluded")
    seal = ("secret", "seal", "--actor", "payer", "--in", "secret", "--document", "document", "--out", "sealed")
    (teactl.folder / "secret").write_text(SECRET)
    assert teactl(*seal, "--policy", "none.yaml").status == 1
    assert not (teactl.folder / "sealed").exists()
    assert teactl(*seal, "--policy", "theirs.yaml").status == 0
    assert teactl("secrets", "init", "v").status == 0
    put = ("secrets", "put", "v", "api-key", "--actor", "payer", "--in", "secret", "--policy")
    assert teactl(*put, "theirs.yaml").status == 0
    (teactl.folder / "open.yaml").write_text("tea: policy/1\nnot: {roots: [aws]}\n")
    assert "put it into an `all`" in teactl(*put, "open.yaml").err


def test_what_needs_members_refuses_a_combined_policy(teactl: Any, enclave: SimulatedAttester) -> None:
    combined(teactl, enclave)
    (teactl.folder / "certificate.cbor").write_bytes(b"")
    refused = teactl("ra", "verify", "certificate.cbor", "--policy", "theirs.yaml")
    assert refused.status == 1
    assert "one policy by itself" in refused.err


def test_policies_are_combined_and_explained(teactl: Any, enclave: SimulatedAttester) -> None:
    combined(teactl, enclave)
    right, wrong = (parse_policy((teactl.folder / f"{name}.yaml").read_text()) for name in ("right", "wrong"))
    combine = ("policy", "combine", "right.yaml")
    for arguments, made in (
        ((), any_of(right)),
        (("wrong.yaml", "--any"), any_of(right, wrong)),
        (("wrong.yaml", "--all"), all_of(right, wrong)),
        (("--except", "wrong.yaml"), all_of(right, none_of(wrong))),
        (("theirs.yaml", "--any", "--except", "wrong.yaml", "--except", "theirs.yaml"), None),
        (("wrong.yaml", "--all", "--except", "wrong.yaml"), all_of(right, wrong, none_of(wrong))),
    ):
        assert teactl(*combine, *arguments, "--out", "c.yaml").status == 0
        read = parse_rule((teactl.folder / "c.yaml").read_text())
        both = any_of(wrong, right)
        assert read == (made or all_of(any_of(right, both), none_of(wrong, both)))
    explained = teactl("policy", "explain", "c.yaml")
    assert "All of these hold:" in explained.out
    assert "- None of these holds:" in explained.out
    shown = teactl("policy", "explain", "c.yaml", "--json").json
    assert list(shown["policy"]) == ["tea", "all"]
    assert teactl(*combine, "wrong.yaml", "--out", "d.yaml").status == 2
    assert teactl(*combine, *["right.yaml"] * 64, "--any", "--out", "d.yaml").status == 1
    assert not (teactl.folder / "d.yaml").exists()
