"""`teactl key`, `bundle` and `manifest`: what they make, what they refuse, in words and in JSON."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

BUNDLE = "tea: bundle/1\nname: echo\nversion: 0.1.0\nentry: echo:Echo\ncapabilities: {kvp: [get]}\n"
MANIFEST = """tea: manifest/1
deployment: test
revision: 1
sandbox: prefer
issuers: {author: {key: pin, actors: [echo], capabilities: [kvp]}}
providers: {kvp: {}}
actors:
  echo: {version: 0.1.0, bundle: pin, issuer: author}
links:
  - {from: parent, to: echo, operations: [echo]}
  - {from: echo, to: kvp, operations: [get]}
"""


@pytest.fixture
def work(teactl: Any) -> Path:
    """A folder with an actor, a manifest and a key `author`."""
    folder: Path = teactl.folder
    (folder / "echo").mkdir()
    (folder / "echo/echo.py").write_text("class Echo: ...\n")
    (folder / "echo/bundle.yaml").write_text(BUNDLE)
    (folder / "manifest.yaml").write_text(MANIFEST)
    assert teactl("key", "new", "author").status == 0
    return folder


def built(teactl: Any) -> Any:
    ran = teactl("bundle", "build", "--key", "author", "echo/bundle.yaml", "--json")
    assert ran.status == 0, ran
    return ran.json["bundles"][0]


# -- key ---------------------------------------------------------------------------------------------------------------


def test_a_new_key_shows_its_public_half_alone(teactl: Any) -> None:
    ran = teactl("key", "new", "alice", "--json")
    assert ran.status == 0
    private = Path(ran.json["private"])
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert Path(ran.json["public"]).read_text().strip() == ran.json["public_key"]
    secret = private.read_text().splitlines()[1]
    for again in (ran, teactl("key", "new", "bob", "--algorithm", "p384")):
        assert secret not in again.out + again.err
    assert again.out.startswith("p384:")


def test_a_key_is_not_made_twice(teactl: Any) -> None:
    assert teactl("key", "new", "alice").status == 0
    ran = teactl("key", "new", "alice", "--json")
    assert ran.status == 1
    assert "is there already: choose another name" in ran.json["error"]


@pytest.mark.parametrize("name", ["../alice", "a/b", "", "ä", "a.b", "x" * 65, "-a"])
def test_a_name_that_is_none_is_wrong_usage(teactl: Any, name: str) -> None:
    assert teactl("key", "new", "--json", "--", name).status == 2
    assert not (teactl.folder / "alice.pem").exists()


def test_an_algorithm_that_is_none_is_wrong_usage(teactl: Any) -> None:
    ran = teactl("key", "new", "alice", "--algorithm", "rsa", "--json")
    assert ran.status == 2
    assert "--algorithm" in ran.json["error"]


def test_a_password_comes_from_a_file_and_is_never_shown(teactl: Any, work: Path) -> None:
    password = work / "password"
    password.write_text("hunter2\n")
    password.chmod(0o600)
    assert teactl("key", "new", "safe", "--password-file", password).status == 0
    line = ("bundle", "build", "--key", "safe", "echo/bundle.yaml")
    assert teactl(*line, "--password-file", password).status == 0
    for more in ((), ("--password-file", work / "manifest.yaml"), ("--password-file", "nowhere")):
        ran = teactl(*line, *more)
        assert ran.status == 1
        assert "hunter2" not in ran.out + ran.err
    password.write_text("")
    assert teactl("key", "new", "other", "--password-file", password).status == 1
    assert not (work / ".tea/keys/other.pem").exists()


# -- bundle ------------------------------------------------------------------------------------------------------------


def test_a_bundle_is_built_verified_and_inspected(teactl: Any, work: Path) -> None:
    made = built(teactl)
    again = teactl("bundle", "build", "--key", "author", "echo/bundle.yaml")
    assert again.out == f"build/bundles/echo-0.1.0.tea  {made['digest']}  {made['size']} bytes\n"
    ran = teactl("bundle", "verify", made["path"], "--issuer", "author", "--json")
    assert ran.status == 0
    assert (ran.json["verified"], ran.json["digest"]) == (True, made["digest"])
    assert ran.json["capabilities"] == {"kvp": ["get"]}
    assert "asks for kvp: get" in teactl("bundle", "verify", made["path"], "--issuer", "author").out
    ran = teactl("bundle", "inspect", made["path"], "--json")
    assert (ran.status, ran.json["verified"], ran.json["archive_matches"]) == (0, False, True)
    assert teactl("bundle", "inspect", made["path"]).out.startswith("NOT verified\n")


def test_a_bundle_of_another_issuer_is_refused(teactl: Any, work: Path) -> None:
    made = built(teactl)
    teactl("key", "new", "other")
    ran = teactl("bundle", "verify", made["path"], "--issuer", "other", "--json")
    assert (ran.status, ran.json["code"]) == (1, "unknown-issuer")


def test_every_changed_byte_of_a_bundle_is_refused(teactl: Any, work: Path) -> None:
    path = work / built(teactl)["path"]
    good = path.read_bytes()
    for place in range(0, len(good), 23):
        data = bytearray(good)
        data[place] ^= 0x10
        path.write_bytes(data)
        assert teactl("bundle", "verify", path, "--issuer", "author", "--json").status == 1
        assert teactl("bundle", "inspect", path, "--json").status in (0, 1)
    for other in (b"", good[:-1], good + b"\x00", b"\xff" * 100):
        path.write_bytes(other)
        assert teactl("bundle", "verify", path, "--issuer", "author").status == 1


def test_a_key_has_to_be_chosen(teactl: Any, work: Path) -> None:
    for line in (("bundle", "build", "echo/bundle.yaml"), ("manifest", "approve", "manifest.yaml", "--out", "x")):
        for more in ((), ("--key", "author", "--development")):
            ran = teactl(*line, *more, "--json")
            assert ran.status == 2
            assert "--development" in ran.json["error"]


def test_a_development_key_is_made_on_first_use(teactl: Any, work: Path) -> None:
    assert teactl("bundle", "build", "--development", "echo/bundle.yaml").status == 0
    assert stat.S_IMODE((work / ".tea/keys/dev.pem").stat().st_mode) == 0o600


def test_a_bundle_yaml_that_is_wrong_is_refused_with_its_line(teactl: Any, work: Path) -> None:
    (work / "echo/bundle.yaml").write_text(BUNDLE.replace("entry:", "entri:"))
    ran = teactl("bundle", "build", "--key", "author", "echo/bundle.yaml", "--json")
    assert (ran.status, ran.json["code"]) == (1, "unknown-key")
    assert "echo/bundle.yaml:4: found the key 'entri'" in ran.json["error"]


# -- manifest ----------------------------------------------------------------------------------------------------------


def test_a_manifest_is_pinned_checked_approved_and_verified(teactl: Any, work: Path) -> None:
    built(teactl)
    assert teactl("manifest", "check", "manifest.yaml").status == 1  # `pin` is no key
    ran = teactl("manifest", "pin", "manifest.yaml", "--issuer", "author", "--out", "out/m.yaml", "--json")
    assert ran.status == 0, ran
    digest = ran.json["digest"]
    ran = teactl("manifest", "check", "out/m.yaml", "--explain", "--json")
    assert (ran.status, ran.json["digest"]) == (0, digest)
    assert "parent reaches kvp through echo: get" in ran.json["reach"]
    for name in ("alice", "bob"):
        teactl("key", "new", name)
    line = ("manifest", "approvers", "test", "--key", "alice", "--key", "bob", "--key", "alice", "--out", "a.yaml")
    ran = teactl(*line, "--threshold", "2", "--json")
    assert (ran.status, len(ran.json["keys"])) == (0, 2)
    ran = teactl("manifest", "approve", "out/m.yaml", "--key", "alice", "--out", "m.1")
    assert ran.status == 0
    assert ran.out.splitlines()[-1].endswith(": m.1")
    ran = teactl("manifest", "verify", "m.1", "--approvers", "a.yaml", "--json")
    assert (ran.status, ran.json["code"]) == (1, "not-approved")
    ran = teactl("manifest", "approve", "m.1", "--key", "alice", "--out", "m.2", "--json")
    assert ran.status == 1
    ran = teactl("manifest", "approve", "m.1", "--key", "bob", "--out", "m.2", "--json")
    assert ran.status == 0
    ran = teactl("manifest", "verify", "m.2", "--approvers", "a.yaml", "--json")
    assert (ran.status, ran.json["digest"], ran.json["threshold"]) == (0, digest, 2)
    assert "approved by 2 of 2 or more" in teactl("manifest", "verify", "m.2", "--approvers", "a.yaml").out
    (work / "n.yaml").write_text((work / "out/m.yaml").read_text().replace("revision: 1", "revision: 2"))
    ran = teactl("manifest", "approve", "n.yaml", "--key", "alice", "--out", "n.1", "--running", "m.2")
    assert ran.status == 0
    assert "revision" in ran.out.splitlines()[2]


def test_the_networks_slots_are_pinned(teactl: Any, work: Path) -> None:
    from tea.parent_client.registry import EnclaveEntry, NetworkEntry, Registry
    from tea.trust import pcr

    built(teactl)
    (work / "manifest.yaml").write_text(MANIFEST + "ra:\n  members: pin\n  quorum: two-thirds\n")
    line = ("manifest", "pin", "manifest.yaml", "--issuer", "author", "--out", "m.yaml")
    ran = teactl(*line)
    assert ran.status == 1
    assert "name it with --network" in ran.err
    entries = tuple(EnclaveEntry(name, f"/{name}", 1, None, f"i-{name}") for name in ("e1", "e2", "e3"))
    Registry(work / ".tea").write(NetworkEntry("default", "test", None, entries))
    assert teactl(*line, "--network", "default").status == 0
    assert pcr.pcr4("i-e2").hex() in (work / "m.yaml").read_text()


@pytest.mark.parametrize("threshold", ["0", "3", "-1"])
def test_a_threshold_that_does_not_fit_is_wrong_usage(teactl: Any, threshold: str) -> None:
    for name in ("alice", "bob"):
        teactl("key", "new", name)
    line = ("manifest", "approvers", "test", "--key", "alice", "--key", "bob", "--out", "a.yaml")
    ran = teactl(*line, "--threshold", threshold, "--json")
    assert ran.status == 2
    assert not (teactl.folder / "a.yaml").exists()


@pytest.mark.parametrize("deployment", ["A", "", 'x"\nepoch: 7', "a_b", "x" * 64])
def test_a_deployment_that_is_no_name_is_refused(teactl: Any, deployment: str) -> None:
    teactl("key", "new", "alice")
    ran = teactl("manifest", "approvers", deployment, "--key", "alice", "--out", "a.yaml", "--json")
    assert ran.status == 1
    assert not (teactl.folder / "a.yaml").exists()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"a: &a [*a]", b"[" * 3000, b"\x00", bytes(3 << 20), b"tea: x"])
def test_files_that_are_no_manifest_are_refused(teactl: Any, work: Path, content: bytes) -> None:
    for name in ("x.yaml", "x.approved"):
        (work / name).write_bytes(content)
        for line in (
            ("check", name),
            ("pin", name, "--issuer", "author", "--out", "y"),
            ("approve", name, "--key", "author", "--out", "y"),
            ("verify", name, "--approvers", name),
        ):
            ran = teactl("manifest", *line, "--json")
            assert ran.status == 1
            assert ran.json["error"]
    assert not (work / "y").exists()


def test_an_approvers_file_that_is_none_is_named(teactl: Any, work: Path) -> None:
    (work / "a.yaml").write_text("tea: approvers/1\ndeployment: test\nepoch: 1\nthreshold: 0\nkeys: []\n")
    ran = teactl("manifest", "verify", "manifest.yaml", "--approvers", "a.yaml", "--json")
    assert ran.status == 1
    assert "a.yaml:" in ran.json["error"]
