"""nitro: an attestation of this very run, PCRs, random numbers, and verification that refuses.

May not: accept a simulated document as AWS's. Rule: README.md of this folder.
"""

from __future__ import annotations

from rows import Rows, expect, require

from tea.sdk import CallError, Code, Link

NONCE = b"selftest"


def check(nitro: Link, rows: Rows) -> None:
    """All operations of nitro."""
    module = rows.works("module", lambda: nitro.module()) or {}
    attested = rows.works("attest", lambda: nitro.attest(b"selftest", NONCE)) or {}
    rows.refuses("attest", Code.DENIED, lambda: nitro.attest(b"selftest", NONCE, kind="ready"))
    rows.refuses("attest", Code.INVALID, lambda: nitro.attest(b"selftest", bytes(513)))
    image = rows.works("describe_pcrs", lambda: _image(nitro)) or bytes(48)
    policy = f"tea: policy/1\nroots: [aws]\npcrs: {{0: {image.hex()}}}\n"
    rows.works("random", lambda: require(nitro.random(32) != nitro.random(32), "the same numbers came twice"))
    rows.refuses("random", Code.INVALID, lambda: nitro.random(0))
    rows.refuses("verify", Code.UNTRUSTED, lambda: nitro.verify(b"no document", policy=policy))
    rows.refuses("verify", Code.INVALID, lambda: nitro.verify(b"", policy="tea: policy/1\n"))
    # Whether or not the manifest configures KMS, what nobody encrypted for this actor is not opened.
    no_kms = (Code.UNAVAILABLE, Code.DENIED, Code.INVALID)
    rows.refuses("kms_decrypt", no_kms, lambda: nitro.kms_decrypt("selftest", b"encrypted by nobody"))
    if "document" in attested:
        document, statement = attested["document"], attested["statement"]
        real = module.get("mode") == "nitro"
        rows.works(
            "verify", lambda: _verify(nitro, document, statement, policy, real), "as AWS's" if real else "not AWS's"
        )


def _image(nitro: Link) -> bytes:
    """PCR0, when the PCRs are as they must be."""
    pcrs = nitro.describe_pcrs()
    expect(len(pcrs), 32, "the number of PCRs")
    require(all(len(pcr["data"]) == 48 for pcr in pcrs.values()), "a PCR has not 48 bytes")
    require(pcrs[0]["locked"] and pcrs[16]["locked"], "PCR0 or PCR16 is not locked")
    image: bytes = pcrs[0]["data"]
    return image


def _verify(nitro: Link, document: bytes, statement: bytes, policy: str, real: bool) -> None:
    try:
        verdict = nitro.verify(document, statement, policy=policy, nonce=NONCE)
    except CallError as error:
        if real or error.code is not Code.UNTRUSTED:
            raise
        return
    require(real, "a simulated document was accepted as AWS's")
    expect(verdict["body"], b"selftest", "the body")
