"""The release service releases to attested code alone: each of its numbered steps refuses, and says by which code.

Rule: docs/secrets.md, "What is checked".
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tea.parent_client.refusal import Refusal
from tea.parent_client.secrets.nonces import SECONDS
from tea.parent_client.secrets.service import Limits, ReleaseService, code_of
from tea.providers.nitro.authority import SimulatedCa
from tea.providers.testing import SimulatedAttester
from tea.trust.attestation import AttestationCode
from tea.trust.audit_log import AuditError, verify_lines
from tea.trust.errors import TrustError
from tea.trust.policy import PolicyCode, all_of, any_of, none_of
from tea.trust.release import ReleaseCode
from tea.trust.statement import StatementCode

SECRET = b"correct horse battery staple"
# What `setting` is: a `Setting` of this folder's conftest.py, which tests cannot import by name.


def refusal(call: Callable[[], object]) -> TrustError:
    with pytest.raises(TrustError) as caught:
        call()
    assert SECRET.decode() not in str(caught.value)
    return caught.value


def events(setting: Any) -> list[dict[str, object]]:
    lines = setting.vault.audit.path.read_text().splitlines()
    return [{"event": one.event, **one.fields} for one in verify_lines(lines, head=setting.vault.head[1]).entries]


async def test_attested_code_that_the_policy_accepts_gets_the_secret(setting: Any) -> None:
    setting.put()
    assert await setting.released() == SECRET
    last = events(setting)[-1]
    assert last["event"] == "released"
    assert (last["secret"], last["actor"], last["enclave"]) == ("api-key", "payer", setting.enclave.module_id)
    assert last["pcr0"] == setting.enclave.pcrs()[0][1].hex()
    (lease,) = setting.vault.leases()
    assert lease[:4] == ("api-key", 1, "payer", setting.enclave.module_id)


async def test_every_refusal_is_written_down_with_its_code(setting: Any) -> None:
    setting.put()
    data = await setting.request("other-name")
    refusal(lambda: setting.service.release(data))
    last = events(setting)[-1]
    assert (last["event"], last["code"], last["secret"]) == ("refused", "release:unknown-secret", "other-name")


async def test_too_many_requests_are_refused_and_do_not_fill_the_log(setting: Any) -> None:
    setting.put()
    slow = ReleaseService(setting.vault, Limits(strangers=(0.001, 3), enclave=(100.0, 100)))
    setting.service = slow
    data = await setting.request()
    slow.release(data)
    slow.challenge()
    before = len(events(setting))
    assert refusal(lambda: slow.release(data)).code == ReleaseCode.TOO_MANY
    assert refusal(slow.challenge).code == ReleaseCode.TOO_MANY
    assert len(events(setting)) == before


async def test_one_instance_cannot_use_up_what_is_for_all(setting: Any) -> None:
    setting.put()
    setting.service = ReleaseService(setting.vault, Limits(strangers=(1000.0, 1000), enclave=(0.001, 2)))
    for _ in range(2):
        setting.service.release(await setting.request())
    data = await setting.request()
    assert refusal(lambda: setting.service.release(data)).code == ReleaseCode.TOO_MANY
    other = SimulatedAttester(
        time.time, deployment="test", manifest=setting.enclave.manifest, ca=setting.ca, instance_id="i-0other"
    )
    setting.service.release(await setting.request(enclave=other))


def test_what_is_no_request_is_refused(setting: Any) -> None:
    setting.put()
    assert refusal(lambda: setting.service.release(b"\xa0")).code == ReleaseCode.MALFORMED


async def test_a_nonce_is_fresh_and_works_once(setting: Any) -> None:
    setting.put()
    data = await setting.request()
    setting.service.release(data)
    assert refusal(lambda: setting.service.release(data)).code == ReleaseCode.NONCE
    own = await setting.request(nonce=b"\x01" * 40)
    assert refusal(lambda: setting.service.release(own)).code == ReleaseCode.NONCE


async def test_a_nonce_ends_and_is_not_anothers(setting: Any) -> None:
    setting.put()
    now = [time.time_ns() // 1_000_000]
    first = ReleaseService(setting.vault, clock_ms=lambda: now[0])
    setting.service = first
    data = await setting.request()
    another = ReleaseService(setting.vault)
    assert refusal(lambda: another.release(data)).code == ReleaseCode.NONCE
    now[0] += SECONDS * 1000 + 1
    assert refusal(lambda: first.release(data)).code == ReleaseCode.NONCE


async def test_a_document_for_another_nonce_is_refused(setting: Any) -> None:
    setting.put()
    data = await setting.request(attested=b"\x09" * 40)
    assert refusal(lambda: setting.service.release(data)).code == AttestationCode.NONCE


async def test_a_document_under_another_root_is_refused(setting: Any) -> None:
    setting.put()
    stranger = SimulatedAttester(
        time.time, deployment="test", manifest=setting.enclave.manifest, ca=SimulatedCa.create()
    )
    data = await setting.request(enclave=stranger)
    assert refusal(lambda: setting.service.release(data)).code == AttestationCode.ROOT


async def test_another_documents_statement_is_refused(setting: Any) -> None:
    setting.put()
    _, other = await setting.enclave.attest("seal", b"another body", nonce=b"n")
    data = await setting.request(statement=other)
    assert refusal(lambda: setting.service.release(data)).code == StatementCode.USER_DATA


@pytest.mark.parametrize("kind", ["attest", "ready", "kms", "actor"])
async def test_only_the_hosts_own_request_counts(setting: Any, kind: str) -> None:
    setting.put()
    data = await setting.request(kind=kind)
    assert refusal(lambda: setting.service.release(data)).code == ReleaseCode.STATEMENT


async def test_a_statement_that_asks_for_nothing_is_refused(setting: Any) -> None:
    setting.put()
    data = await setting.request(body=b"please")
    assert refusal(lambda: setting.service.release(data)).code == ReleaseCode.MALFORMED


async def test_there_is_no_such_secret(setting: Any) -> None:
    data = await setting.request()
    assert refusal(lambda: setting.service.release(data)).code == ReleaseCode.UNKNOWN_SECRET
    setting.put("another")
    data = await setting.request()
    assert refusal(lambda: setting.service.release(data)).code == ReleaseCode.UNKNOWN_SECRET


async def test_a_secret_is_for_its_actors(setting: Any) -> None:
    setting.put(actors=("banker", "clerk"))
    data = await setting.request()
    assert refusal(lambda: setting.service.release(data)).code == ReleaseCode.ACTOR


async def test_a_revoked_secret_is_released_again_only_with_a_new_value(setting: Any) -> None:
    setting.put()
    setting.vault.revoke_secret("api-key")
    data = await setting.request()
    assert refusal(lambda: setting.service.release(data)).code == ReleaseCode.REVOKED_SECRET
    setting.put()
    assert await setting.released() == SECRET


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("image", ReleaseCode.REVOKED_IMAGE),
        ("manifest", ReleaseCode.REVOKED_MANIFEST),
        ("enclave", ReleaseCode.REVOKED_ENCLAVE),
        ("revision", ReleaseCode.REVOKED_REVISION),
        ("epoch", ReleaseCode.REVOKED_EPOCH),
    ],
)
async def test_what_is_revoked_gets_nothing_from_that_moment(setting: Any, kind: str, code: ReleaseCode) -> None:
    setting.put()
    assert await setting.released() == SECRET
    data = await setting.request()
    subjects = {
        "image": setting.enclave.pcrs()[0][1].hex(),
        "manifest": setting.enclave.manifest.hex(),
        "enclave": setting.enclave.module_id,
    }
    setting.vault.revoke(kind, subjects.get(kind, "test"), 2)
    assert refusal(lambda: setting.service.release(data)).code == code


async def test_a_revocation_while_it_is_judged_still_counts(setting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    setting.put()
    data = await setting.request()
    value = setting.vault.value

    def revoked_meanwhile(record: Any) -> bytes:
        setting.vault.revoke("enclave", setting.enclave.module_id)
        found: bytes = value(record)
        return found

    monkeypatch.setattr(setting.vault, "value", revoked_meanwhile)
    assert refusal(lambda: setting.service.release(data)).code == ReleaseCode.REVOKED_ENCLAVE
    assert not setting.vault.leases()


@pytest.mark.parametrize(
    ("change", "code"),
    [({"manifest": b"\x01" * 48}, PolicyCode.MANIFEST), ({"deployment": "other"}, PolicyCode.DEPLOYMENT)],
)
async def test_what_the_policy_does_not_accept_gets_nothing(
    setting: Any, change: dict[str, object], code: PolicyCode
) -> None:
    setting.put()
    for name, value in change.items():
        setattr(setting.enclave, name, value)
    data = await setting.request()
    error = refusal(lambda: setting.service.release(data))
    assert error.code == code
    assert code_of(error) == f"policy:{code.value}"


async def test_a_combined_policy_releases_to_what_one_alternative_accepts_and_nothing_that_is_excluded(
    setting: Any,
) -> None:
    other = dataclasses.replace(setting.policy, pcrs={0: (b"\x01" * 48,)})
    last = dataclasses.replace(setting.policy, manifests=(), min_revision=setting.enclave.revision + 1)
    accepted = setting.policy
    setting.policy = all_of(any_of(other, accepted), none_of(last))
    setting.put()
    assert await setting.released() == SECRET
    for rule, code in ((any_of(other), PolicyCode.NO_ALTERNATIVE), (all_of(accepted, none_of(accepted)), "excluded")):
        setting.policy = rule
        setting.put()
        data = await setting.request()
        assert code_of(refusal(partial(setting.service.release, data))) == f"policy:{code}"


@pytest.mark.parametrize("key", [b"\x01" * 31, b"\x01" * 294, bytes(32)])
async def test_a_key_that_cannot_be_sealed_to_gets_nothing(setting: Any, key: bytes) -> None:
    setting.put()
    data = await setting.request(public_key=key)
    assert refusal(lambda: setting.service.release(data)).code == ReleaseCode.KEY


async def test_nothing_is_released_that_cannot_be_written_down(setting: Any) -> None:
    setting.put()
    path = setting.vault.audit.path
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    data = await setting.request()
    with pytest.raises(AuditError):
        setting.service.release(data)
    assert not setting.vault.leases()
    path.unlink()
    path.mkdir()
    data = await setting.request()
    with pytest.raises(OSError, match="directory"):
        setting.service.release(data)
    assert not setting.vault.leases()


async def test_a_value_that_was_exchanged_in_the_file_is_not_released(setting: Any) -> None:
    setting.put()
    setting.put("other")
    database = setting.vault._database
    database.execute("UPDATE secrets SET value = (SELECT value FROM secrets WHERE name = 'other')")
    data = await setting.request()
    with pytest.raises(Refusal, match="was changed"):
        setting.service.release(data)


def test_the_log_is_json_that_anyone_reads(setting: Any) -> None:
    setting.put()
    for line in setting.vault.audit.path.read_text().splitlines():
        assert json.loads(line)["digest"]
