"""The verification that docs/verify.md shows runs as it stands, on real documents and on simulated ones.

May not: give it more than `cbor2` and `cryptography`. Rule: docs/verify.md.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import pytest

from tea.providers.nitro.client import Nsm
from tea.providers.nitro.simulated import SimulatedCa, SimulatedNsm
from tea.trust import pcr
from tea.trust.statement import Statement

from .documents import ROOT, blocks

SHARED = ROOT.parent / "shared" / "data" / "attestation"
IMAGE = {index: pcr.image_pcr(hashlib.sha384(b"image %d" % index).digest()) for index in range(3)}
NONCE = b"nonce"
SAID = Statement(
    kind="attest", deployment="tutorial", manifest=bytes(48), revision=1, epoch=1, log_head=bytes(48)
).encode()
Verify = Callable[..., tuple[dict[str, Any], Any]]

BLOCKER = """
    import sys
    ALLOWED = {allowed!r}
    class Blocker:
        def find_spec(self, name, path=None, target=None):
            top = name.partition(".")[0]
            if top not in sys.stdlib_module_names and top not in ALLOWED:
                raise ModuleNotFoundError(f"{{name}} is not installed here", name=name)
    sys.meta_path.insert(0, Blocker())
"""


def alone(code: str, *allowed: str, folder: Path | None = None) -> str:
    """Run code in a process in which only the standard library and `allowed` can be imported."""
    whole = textwrap.dedent(BLOCKER.format(allowed=set(allowed))) + textwrap.dedent(code)
    ended = subprocess.run([sys.executable, "-c", whole], cwd=folder, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def script(file: str) -> str:
    return next(block.text for block in blocks((ROOT / "docs" / "verify.md").read_text()) if block.file == file)


@pytest.fixture(scope="module")
def verify() -> Verify:
    """The page's function."""
    namespace: dict[str, Any] = {}
    exec(compile(script("verify.py"), "docs/verify.md", "exec"), namespace)
    function: Verify = namespace["verify"]
    return function


class Simulated:
    """A simulated enclave's document over NONCE and SAID, and the root of its network."""

    def __init__(self, **options: Any) -> None:
        ca = SimulatedCa.create(intermediates=True)
        instance = "i-0123456789abcdef0"
        nsm = Nsm(SimulatedNsm(ca.issue_instance(instance), f"{instance}-enc0", IMAGE, time.time, **options))
        self.root = ca.root_digest.hex()
        self.raw = nsm.attestation(hashlib.sha384(SAID).digest(), NONCE, bytes(32))


@pytest.fixture(scope="module")
def simulated() -> Simulated:
    return Simulated()


def test_the_verification_has_about_thirty_lines() -> None:
    body = script("verify.py").split("def verify(")[1]
    assert len([line for line in body.splitlines() if line.strip()]) <= 30


def test_it_accepts_a_simulated_document_and_reads_its_statement(verify: Verify, simulated: Simulated) -> None:
    fields, said = verify(simulated.raw, IMAGE, NONCE, SAID, root=simulated.root)
    assert fields["public_key"] == bytes(32)
    assert said["deployment"] == "tutorial"


def test_it_refuses_whatever_differs(verify: Verify, simulated: Simulated) -> None:
    good: dict[str, Any] = {
        "document": simulated.raw,
        "pcrs": IMAGE,
        "nonce": NONCE,
        "statement": SAID,
        "root": simulated.root,
    }
    protected, _, payload, signature = cbor2.loads(simulated.raw)
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=4)
    changes: dict[str, dict[str, Any]] = {
        "root": {"root": "00" * 32},
        "aws": {"root": script("verify.py").split('AWS_ROOT = "')[1][:64]},
        "time": {"at": later},
        "pcr": {"pcrs": {0: bytes(48)}},
        "no pcrs": {"pcrs": {}},
        "a pcr that is not locked": {"pcrs": {16: bytes(48)}},
        "nonce": {"nonce": b"another"},
        "no nonce": {"nonce": None},
        "statement": {"statement": SAID + b"\0"},
        "payload": {"document": cbor2.dumps([protected, {}, payload.replace(NONCE, b"NONCE"), signature])},
        "signature": {"document": cbor2.dumps([protected, {}, payload, signature[::-1]])},
        "algorithm": {"document": cbor2.dumps([b"\xa1\x01\x26", {}, payload, signature])},
    }
    verify(**good)
    for what, change in changes.items():
        with pytest.raises(Exception) as caught:
            verify(**{**good, **change})
        assert not isinstance(caught.value, TypeError), what


def test_it_refuses_a_chain_that_a_leaf_made_longer(verify: Verify) -> None:
    """Whoever holds a leaf's key cannot use it to vouch for another."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    from tea.providers.nitro.authority import certify, name

    now = time.time()
    root_key, leaf_key, forged_key = (ec.generate_private_key(ec.SECP384R1()) for _ in range(3))
    root = certify(name("root"), root_key, None, now, 1000, path_length=None, crl_sign=True)
    leaf = certify(name("leaf"), leaf_key, (root, root_key), now, 1000)
    forged = certify(name("forged"), forged_key, (leaf, leaf_key), now, 1000)
    pcrs = dict(IMAGE)
    fields = {"digest": "SHA384", "pcrs": pcrs, "cabundle": [root, leaf], "certificate": forged, "nonce": NONCE}
    payload, protected = cbor2.dumps(fields), b"\xa1\x01\x38\x22"
    signed = cbor2.dumps(["Signature1", protected, b"", payload])
    r, s = decode_dss_signature(forged_key.sign(signed, ec.ECDSA(hashes.SHA384())))
    document = cbor2.dumps([protected, {}, payload, r.to_bytes(48, "big") + s.to_bytes(48, "big")])
    with pytest.raises(ValueError, match="may not sign others"):
        verify(document, pcrs, NONCE, root=hashlib.sha256(root).hexdigest())


def _real(verdict: str) -> list[dict[str, Any]]:
    if not SHARED.is_dir():
        return []
    entries: list[dict[str, Any]] = json.loads((SHARED / "index.json").read_text())
    return [entry for entry in entries if (entry["verdict"] == "OK") == (verdict == "OK")]


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real documents are not at hand")
def test_it_accepts_every_authentic_document_of_aws_and_refuses_the_others(verify: Verify) -> None:
    accepted, refused = _real("OK"), _real("refused")
    assert accepted and refused
    for entry in [*accepted, *refused]:
        raw = (SHARED / entry["file"]).read_bytes()
        unverified = cbor2.loads(cbor2.loads(raw)[2])
        at = datetime.datetime.fromtimestamp(unverified["timestamp"] / 1000, datetime.UTC)
        arguments = (raw, {0: unverified["pcrs"][0]}, unverified.get("nonce"))
        if entry in accepted:
            fields, _ = verify(*arguments, at=at)
            assert fields["module_id"].startswith("i-")
            with pytest.raises(ValueError, match="time"):
                verify(*arguments)
        else:
            with pytest.raises(Exception):  # noqa: B017
                verify(*arguments, at=at)


def test_it_needs_cbor2_and_cryptography_alone(tmp_path: Path, simulated: Simulated) -> None:
    (tmp_path / "verify.py").write_text(script("verify.py"))
    (tmp_path / "document").write_bytes(simulated.raw)
    code = f"""
        sys.path.insert(0, "")
        from pathlib import Path
        from verify import verify
        pcrs = {IMAGE!r}
        fields, _ = verify(Path("document").read_bytes(), pcrs, {NONCE!r}, {SAID!r}, root="{simulated.root}")
        print(fields["module_id"])
    """
    assert alone(code, "cbor2", "_cbor2", "cryptography", "_cffi_backend", "verify", folder=tmp_path).startswith("i-")


def test_the_use_that_the_page_shows_runs(tmp_path: Path, simulated: Simulated) -> None:
    (tmp_path / "verify.py").write_text(script("verify.py").replace(script("verify.py").split('"')[1], simulated.root))
    (tmp_path / "document.cbor").write_bytes(simulated.raw)
    (tmp_path / "document.statement").write_bytes(SAID)
    values = "".join(f"pcr{index} = {value.hex()!r}\n" for index, value in IMAGE.items())
    code = f"import sys\nsys.path.insert(0, '')\n{values}" + script("use.py")
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ended.stdout.startswith("tutorial 1 0000"), ended.stderr


def test_the_librarys_verification_needs_cbor2_pycose_and_cryptography_alone(
    tmp_path: Path, simulated: Simulated
) -> None:
    (tmp_path / "document").write_bytes(simulated.raw)
    code = f"""
        import time
        from pathlib import Path
        from tea.trust.attestation import Roots, verify_document
        roots = Roots.from_digests([bytes.fromhex("{simulated.root}")])
        document = verify_document(
            Path("document").read_bytes(), roots=roots, at=int(time.time() * 1000), nonce={NONCE!r}
        )
        print(document.module_id)
        forbidden = {{"msgspec", "yaml", "msgpack", "thespian", "uvloop", "cffi"}} & set(sys.modules)
        assert not forbidden, forbidden
    """
    allowed = ("tea", "cbor2", "_cbor2", "pycose", "cryptography", "_cffi_backend")
    assert alone(code, *allowed, folder=tmp_path).startswith("i-")
