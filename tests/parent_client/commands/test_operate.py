"""`teactl push`, `call`, `status` and `attest fetch` against a real enclave: the main path, and every bad input."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tea.parent_client.keys import write_key
from tea.trust.keys import PrivateKey

COUNTER = """from tea.sdk import Actor, operation

class Counter(Actor):
    @operation
    def increment(self, by: int = 1) -> int:
        return self.kvp.incr("n", by)

    @operation
    def value(self) -> int:
        return self.kvp.get("n") or 0

    @operation
    def rows(self) -> list[dict[str, object]]:
        return [{"check": "one", "ok": True}, {"check": "two", "note": "\\x1b[31m"}]

    @operation
    def raw(self, data: bytes) -> bytes:
        return data[::-1]
"""
BUNDLE = """tea: bundle/1
name: counter
version: VERSION
entry: counter:Counter
capabilities: CAPABILITIES
"""
MANIFEST = """tea: manifest/1
deployment: test
revision: REVISION
sandbox: prefer
issuers:
  author: {key: pin, actors: [counter], capabilities: [kvp]}
environment:
  REGION: {from: parent, pattern: "[a-z]+"}
providers:
  kvp: {}
actors:
  counter: {version: VERSION, bundle: pin, issuer: author}
links:
  - {from: parent, to: counter, operations: [increment, rows, raw]}
  - {from: counter, to: kvp, operations: [get, incr]}
"""


class Shop:
    """An author, an approver and an operator, with `teactl` in their hands."""

    def __init__(self, teactl: Any, enclave: Any) -> None:
        self.teactl = teactl
        self.folder: Path = teactl.folder
        keys = self.folder / ".tea/keys"
        write_key("approver", enclave.key, keys)
        write_key("author", PrivateKey.generate(), keys)
        write_key("stranger", PrivateKey.generate(), keys)
        (self.folder / "counter").mkdir()
        (self.folder / "counter/counter.py").write_text(COUNTER)
        teactl.register(enclave.client)

    def build(self, version: str = "0.1.0", key: str = "author", capabilities: str = "{kvp: [get, incr]}") -> Path:
        text = BUNDLE.replace("VERSION", version).replace("CAPABILITIES", capabilities)
        (self.folder / "counter/bundle.yaml").write_text(text)
        ran = self.teactl("bundle", "build", "--key", key, "counter/bundle.yaml", "--json")
        assert ran.status == 0, ran
        return self.folder / str(ran.json["bundles"][0]["path"])

    def approve(self, revision: int = 1, version: str = "0.1.0", key: str = "approver", text: str | None = None) -> str:
        chosen = (text or MANIFEST).replace("REVISION", str(revision)).replace("VERSION", version)
        (self.folder / "manifest.yaml").write_text(chosen)
        pinned, approved = f"m{revision}.yaml", f"m{revision}.approved"
        ran = self.teactl("manifest", "pin", "manifest.yaml", "--issuer", "author", "--out", pinned)
        assert ran.status == 0, ran
        ran = self.teactl("manifest", "approve", pinned, "--key", key, "--out", approved)
        assert ran.status == 0, ran
        return approved

    async def push(self, approved: str, *more: str) -> Any:
        return await self.teactl.beside("push", approved, "--env", "REGION=eu", *more)

    async def refused(self, approved: str, code: str, reason: str | None, *words: str) -> None:
        """The push is refused in words and in JSON, and what ran before serves on."""
        ran = await self.push(approved)
        assert (ran.status, ran.out) == (1, "")
        for word in words:
            assert word in ran.err
        ran = await self.push(approved, "--json")
        assert ran.status == 1
        assert ran.json["code"] == code
        if reason is not None:
            assert ran.json["details"]["reason"] == reason
        assert ran.json["details"]["step"]

    async def counts(self) -> int:
        ran = await self.teactl.beside("call", "counter", "increment", "--json")
        assert ran.status == 0, ran
        return int(ran.json["result"])


@pytest.fixture
def shop(teactl: Any, enclave: Any) -> Shop:
    return Shop(teactl, enclave)


@pytest.fixture
async def running(shop: Shop) -> Shop:
    shop.build()
    assert (await shop.push(shop.approve(5))).status == 0
    return shop


async def test_the_whole_path_from_keys_to_calls_and_an_upgrade(shop: Shop) -> None:
    teactl = shop.teactl
    assert (await teactl.beside("status")).status == 1
    shop.build()
    ran = await shop.push(shop.approve())
    assert (ran.status, ran.out, ran.err) == (0, "e1: revision 1 serves; started counter\n", "")
    ran = await teactl.beside("call", "counter", "increment", '{"by": 2}')
    assert (ran.status, ran.out) == (0, "2\n")
    ran = await teactl.beside("call", "counter", "increment", "[3]", "--json")
    assert ran.json == {"ok": True, "result": 5}
    ran = await teactl.beside("call", "counter", "raw", '{"data": {"$hex": "0102"}}')
    assert json.loads(ran.out) == {"$hex": "0201"}
    ran = await teactl.beside("call", "counter", "rows")
    assert [line.split() for line in ran.out.splitlines()] == [
        ["check", "ok", "note"],
        ["one", "true"],
        ["two", r"\x1b[31m"],
    ]
    ran = await teactl.beside("status", "--json")
    assert ran.status == 0
    assert ran.json["enclaves"]["e1"]["enclave"]["actors"][0]["name"] == "counter"
    ran = await teactl.beside("status")
    assert ran.status == 0
    assert ran.out.splitlines()[1].split()[:6] == ["e1", "ready", "1", "counter", "0.1.0", "1/1"]
    ran = await teactl.beside("status", "--usage")
    rows = [line.split() for line in ran.out.splitlines()]
    assert ["e1", "kvp", "running", "quota:counter", str(1 << 20)] in rows
    [used] = [int(row[4]) for row in rows if row[3:4] == ["bytes:counter"]]
    assert 0 < used < 1000
    shop.build("0.2.0")
    ran = await shop.push(shop.approve(2, "0.2.0"), "--json")
    assert ran.json["enclaves"]["e1"]["revision"] == 2
    assert await shop.counts() == 6


async def test_an_attestation_is_fetched_over_the_nonce_and_verified_offline(running: Shop, enclave: Any) -> None:
    teactl = running.teactl
    ran = await teactl.beside("attest", "fetch", "--out", "a/doc.cbor", "--nonce", "abcd", "--json")
    assert ran.status == 0
    root = f"sha256:{enclave.root.hex()}"
    ran = teactl("attest", "verify", "a/doc.cbor", "--root", root, "--nonce", "abcd", "--json")
    assert ran.status == 0, ran
    assert ran.json["authentic"] is True
    assert ran.json["policy"] is None
    assert ran.json["statement"]["revision"] == 5
    assert ran.json["nonce"] == "abcd"
    image = f"pcrs: {{0: '{ran.json['pcrs']['0']}'}}\n"
    policy = f"tea: policy/1\nsimulated: {{root: '{root}'}}\n{image}deployment: test\nmin_revision: REVISION\n"
    (running.folder / "policy.yaml").write_text(policy.replace("REVISION", "5"))
    ran = teactl("attest", "verify", "a/doc.cbor", "--policy", "policy.yaml", "--json")
    assert ran.status == 0, ran
    assert ran.json["accepted"] is True
    assert ran.json["policy"] == "policy.yaml"
    (running.folder / "policy.yaml").write_text(policy.replace("REVISION", "6"))
    ran = teactl("attest", "verify", "a/doc.cbor", "--policy", "policy.yaml", "--json")
    assert (ran.status, ran.json["authentic"], ran.json["accepted"]) == (1, True, False)
    assert "the policy refuses it" in ran.json["error"]
    for arguments, why in [
        (("--nonce", "abce", "--root", root), "nonce"),
        ((), "root"),
        (("--root", "sha256:" + "00" * 32), "root"),
    ]:
        ran = teactl("attest", "verify", "a/doc.cbor", *arguments, "--json")
        assert (ran.status, ran.json["authentic"]) == (1, False)
        assert why in ran.json["error"]
    (running.folder / "a/doc.statement").write_bytes(b"other")
    ran = teactl("attest", "verify", "a/doc.cbor", "--root", root)
    assert ran.status == 1
    assert "do not belong together" in ran.err
    for out in ("x.statement", ".", "a"):
        assert (await teactl.beside("attest", "fetch", "--out", out)).status in (1, 2)


async def test_an_unapproved_manifest_is_refused_and_the_running_one_serves_on(running: Shop) -> None:
    approved = running.approve(6, key="stranger")
    await running.refused(approved, "UNTRUSTED", "not-approved", "UNTRUSTED", "the manifest is not approved")
    assert await running.counts() == 1


async def test_a_lower_revision_is_refused_by_the_enclave(running: Shop) -> None:
    approved = running.approve(4)
    await running.refused(approved, "UNTRUSTED", "lower-revision", "found revision 4, expected 5 or higher")
    assert await running.counts() == 1


async def test_a_lower_revision_is_not_even_signed_when_the_running_one_is_given(running: Shop) -> None:
    running.approve(4)
    (running.folder / "m4.approved").unlink()
    line = ("manifest", "approve", "m4.yaml", "--key", "approver", "--out", "m4.approved", "--running", "m5.approved")
    ran = running.teactl(*line, "--json")
    assert (ran.status, ran.json["code"]) == (1, "lower-revision")
    assert not (running.folder / "m4.approved").exists()


async def test_a_bundle_with_a_changed_byte_is_refused_here_and_there(running: Shop) -> None:
    path = running.build("0.2.0")
    approved = running.approve(6, "0.2.0")
    good = path.read_bytes()
    data = bytearray(good)
    data[-30] ^= 1
    path.write_bytes(data)
    ran = await running.push(approved)
    assert ran.status == 1
    assert "actors.counter: found no file in build/bundles with the digest" in ran.err
    ran = running.teactl("manifest", "pin", "manifest.yaml", "--issuer", "author", "--out", "x.yaml")
    assert ran.status == 1
    assert "found another archive than its claims name" in ran.err
    ran = running.teactl("bundle", "verify", path, "--issuer", "author", "--json")
    assert (ran.status, ran.json["code"]) == (1, "digest-mismatch")
    # Even approved with the digest of the changed file, the enclave refuses it.
    text = (running.folder / "m6.yaml").read_text()
    changed = text.replace(hashlib.sha256(good).hexdigest(), hashlib.sha256(data).hexdigest())
    assert changed != text
    (running.folder / "m6.yaml").write_text(changed)
    assert running.teactl("manifest", "approve", "m6.yaml", "--key", "approver", "--out", approved).status == 0
    await running.refused(approved, "UNTRUSTED", "digest-mismatch", "is not the one that was signed")
    assert await running.counts() == 1


async def test_a_bundle_of_an_unknown_issuer_is_refused(running: Shop) -> None:
    running.build("0.2.0", key="stranger")
    await running.refused(running.approve(6, "0.2.0"), "UNTRUSTED", "unknown-issuer", "claims are not believed")
    assert await running.counts() == 1


async def test_a_capability_that_the_manifest_does_not_grant_is_refused(running: Shop) -> None:
    running.build("0.2.0", capabilities="{kvp: [get, incr, delete]}")
    await running.refused(
        running.approve(6, "0.2.0"), "UNTRUSTED", "not-granted", "counter asks for kvp: delete", "under `links`"
    )
    assert await running.counts() == 1


async def test_a_call_on_a_link_that_is_not_granted_is_denied(running: Shop) -> None:
    ran = await running.teactl.beside("call", "counter", "value")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("teactl: DENIED: ")
    ran = await running.teactl.beside("call", "counter", "value", "--json")
    assert (ran.status, ran.json["code"]) == (1, "DENIED")
    ran = await running.teactl.beside("call", "nobody", "value", "--json")
    assert (ran.status, ran.json["code"]) == (1, "NOT_FOUND")
    ran = await running.teactl.beside("call", "counter", "increment", '{"steps": 1}', "--json")
    assert (ran.status, ran.json["code"]) == (1, "INVALID")
    assert "steps" in ran.json["error"]
    assert await running.counts() == 1


async def test_a_variable_that_the_manifest_does_not_allow_is_refused_without_its_value(running: Shop) -> None:
    approved = running.approve(6)
    ran = await running.teactl.beside("push", approved, "--env", "REGION=SECRET1", "--json")
    assert ran.status == 1
    assert "REGION" in ran.json["error"]
    assert "SECRET1" not in ran.out
    ran = await running.teactl.beside("push", approved, "--env", "REGION=eu", "--env", "OTHER=SECRET2")
    assert ran.status == 1
    assert "SECRET2" not in ran.out + ran.err
    for wrong in ("REGION", "=x", ""):
        assert running.teactl("push", approved, "--env", wrong).status == 2
    assert running.teactl("push", approved, "--env", "A=1", "--env", "A=2").status == 2
    assert await running.counts() == 1


async def test_a_manifest_with_an_unknown_key_is_refused_with_file_line_and_mend(shop: Shop) -> None:
    shop.build()
    text = MANIFEST.replace("REVISION", "1").replace("VERSION", "0.1.0").replace("links:", "link:")
    (shop.folder / "manifest.yaml").write_text(text)
    for line in (("check", "manifest.yaml"), ("pin", "manifest.yaml", "--issuer", "author", "--out", "m.yaml")):
        ran = shop.teactl("manifest", *line)
        assert ran.status == 1
        assert "yaml:13: found the key 'link'" in ran.err
        assert "did you mean 'links'?" in ran.err
        ran = shop.teactl("manifest", *line, "--json")
        assert (ran.status, ran.json["code"]) == (1, "unknown-key")
    assert not (shop.folder / "m.yaml").exists()


async def test_files_that_are_no_manifest_no_bundle_or_not_there_are_refused(running: Shop) -> None:
    (running.folder / "garbage").write_bytes(b"\xff\x00" * 50)
    (running.folder / "large").write_bytes(bytes(3 << 20))
    for path in ("garbage", "large", "nowhere", ".", "m5.yaml"):
        ran = await running.push(path)
        assert ran.status == 1
        assert ran.err.startswith("teactl: ")
    ran = await running.push("m5.approved", "--change", "garbage")
    assert ran.status == 1
    assert "approvers" in ran.err
    ran = await running.push("m5.approved", "--bundles", "nowhere")
    assert "name its folder with --bundles" in ran.err
    assert await running.counts() == 1


async def test_a_dead_parent_is_unavailable(running: Shop, enclave: Any) -> None:
    await enclave.client.close()
    for line in (("call", "counter", "increment"), ("push", "m5.approved"), ("attest", "fetch", "--out", "x.cbor")):
        ran = await running.teactl.beside(*line, "--json")
        assert (ran.status, ran.json["code"]) == (1, "UNAVAILABLE")
        assert "no runtime client answers at" in ran.json["error"]
    ran = await running.teactl.beside("status", "--json")
    assert (ran.status, ran.json["ok"]) == (1, False)
    assert "no runtime client answers" in ran.json["enclaves"]["e1"]["problem"]
    ran = await running.teactl.beside("status")
    assert "no client" in ran.out
    ran = await running.teactl.beside("logs")
    assert ran.status == 1


async def test_a_dead_enclave_is_unavailable(
    teactl: Any,
    make_client: Callable[..., Awaitable[Any]],
    make_host: Callable[..., Awaitable[Any]],
    until: Any,
) -> None:
    client = await make_client()
    teactl.register(client)
    host = await make_host(client)
    await until(lambda: client._enclave is not None)
    await host.connected.close()
    await until(lambda: client._enclave is None)
    ran = await teactl.beside("call", "counter", "value", "--json")
    assert (ran.status, ran.json["code"]) == (1, "UNAVAILABLE")
    assert ran.json["error"] == ("UNAVAILABLE: the enclave of e1 is not connected: start it, or look at its console")
    ran = await teactl.beside("status")
    assert ran.status == 1
    assert "no enclave" in ran.out


async def test_all_enclaves_are_pushed_to_and_each_answer_is_shown(
    shop: Shop, enclave: Any, make_client: Callable[..., Awaitable[Any]]
) -> None:
    dead = await make_client("e2")
    shop.teactl.register(enclave.client, dead)
    shop.build()
    approved = shop.approve()
    ran = await shop.push(approved)
    assert ran.status == 1
    assert "has 2 enclaves, expected one: name it with --enclave: e1, e2" in ran.err
    ran = await shop.push(approved, "--all")
    assert ran.status == 1
    lines = ran.out.splitlines()
    assert lines[0] == "e1: revision 1 serves; started counter"
    assert lines[1].startswith("e2: refused: UNAVAILABLE: ")
    ran = await shop.push(approved, "--all", "--json")
    assert ran.status == 1
    assert ran.json["enclaves"]["e1"]["revision"] == 1
    assert ran.json["enclaves"]["e2"]["code"] == "UNAVAILABLE"
    ran = await shop.push(approved, "--enclave", "e1")
    assert ran.status == 0
    assert (await shop.push(approved, "--enclave", "e1", "--all")).status == 2
    ran = await shop.push(approved, "--enclave", "e9")
    assert ran.status == 1
    ran = await shop.teactl.beside("status", "--enclave", "e1", "--json")
    assert list(ran.json["enclaves"]) == ["e1"]


async def test_what_a_lying_enclave_answers_is_refused_not_obeyed(
    teactl: Any,
    make_client: Callable[..., Awaitable[Any]],
    make_host: Callable[..., Awaitable[Any]],
    until: Any,
) -> None:
    client = await make_client()
    teactl.register(client)
    answers: list[bytes] = []

    async def call(actor: str, operation: str, arguments: bytes) -> bytes:
        return answers[-1]

    await make_host(client, call=call)
    await until(lambda: client._enclave is not None)
    for answer in (b"", b"\xc1", b"\x91" * 5000, b"\xa1\xff"):
        answers.append(answer)
        ran = await teactl.beside("call", "counter", "value")
        assert ran.status == 1
        assert "the actor" in ran.err
    answers.append(msgspec.msgpack.encode(["\x1b[2J", float("nan")]))
    ran = await teactl.beside("call", "counter", "value")
    assert (ran.status, ran.out) == (0, '["\\u001b[2J", null]\n')


def test_an_unknown_network_is_named(teactl: Any) -> None:
    for line in (("status",), ("call", "a", "b"), ("logs",), ("push", "--all", "x")):
        (teactl.folder / "x").write_bytes(b"")
        ran = teactl(*line, "--network", "nowhere")
        assert ran.status == 1
    assert "no network nowhere below" in teactl("status", "--network", "nowhere").err
    assert "found the network's name '../x'" in teactl("status", "--network", "../x").err
