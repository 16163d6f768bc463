"""An actor's secret comes out of KMS through the parent, for that actor, secret and manifest alone.

May not: reach AWS, or mock: KMS is the double, the parent its real tunnel. Rule: docs/nitro-sdk.md, "Secrets".
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from tea.parent_client.tunnel import TunnelServer
from tea.protocol.errors import CallError, Code
from tea.protocol.transport.address import UnixAddress
from tea.protocol.tunnel import Target
from tea.providers.base import Call
from tea.providers.nitro import Nitro, sdk
from tea.providers.testing import InMemoryServices, SimulatedAttester, VirtualClock, invoke, start_provider
from tea.trust.kms_context import encryption_context
from tea.trust.policy import policy_from_mapping

from .conftest import CREDENTIALS, KEY_ID, REGION, KmsDouble, TlsFiles

SECRET = b"the exchange's API key"
COUNTER, OTHER = Call(caller="counter", bundle=bytes(32)), Call(caller="other", bundle=bytes(32))


async def role() -> Mapping[str, str]:
    """The parent's credentials, as AWS gives them."""
    return {
        "AccessKeyId": CREDENTIALS.access_key_id,
        "SecretAccessKey": CREDENTIALS.secret_access_key,
        "Token": CREDENTIALS.session_token or "",
        "Expiration": "2099-01-01T00:00:00Z",
    }


class World:
    """An enclave's nitro provider, its parent's tunnel, and KMS."""

    def __init__(self, nitro: Nitro, services: InMemoryServices, double: KmsDouble, tunnel: TunnelServer) -> None:
        self.nitro, self.services, self.double, self.tunnel = nitro, services, double, tunnel

    def encrypted(self, secret: str = "api", actor: str = "counter", manifest: bytes | None = None) -> bytes:
        """What whoever owns the secret made of it, under the context."""
        digest = manifest or self.services.attester.manifest_for(actor, bytes(32)) or b""
        context = encryption_context(secret=secret, actor=actor, manifest_digest=digest)
        return self.double._encrypt(SECRET, {"EncryptionContext": context})

    async def refused(self, secret: str, ciphertext: bytes, call: Call = COUNTER) -> CallError:
        with pytest.raises(CallError) as caught:
            await invoke(self.nitro, "kms_decrypt", secret, ciphertext, call=call)
        assert SECRET.decode() not in repr(caught.value) + repr(self.services.logs)
        return caught.value


@pytest.fixture
async def world(double: KmsDouble, endpoint: Target, tls_files: TlsFiles, tmp_path: Path) -> AsyncIterator[World]:
    tunnel = TunnelServer(UnixAddress(tmp_path / "tunnel.sock"), [str(endpoint)], credentials=role)
    await tunnel.start()
    services = InMemoryServices("nitro", clock=VirtualClock(time.time()))
    attester = SimulatedAttester(time.time, manifest=services.manifest_digest)
    services.attester = attester
    double.policy = policy_from_mapping(
        {
            "tea": "policy/1",
            "simulated": {"root": f"sha256:{attester.ca.root_digest.hex()}"},
            "pcrs": {index: attester.pcrs()[index][1].hex() for index in range(3)},
        }
    )
    config = {
        "kms": {
            "region": REGION,
            "key_id": KEY_ID,
            "tunnel": f"unix:{tmp_path}/tunnel.sock",
            "endpoint": str(endpoint),
            "certificates": tls_files.authority.read_text(),
        }
    }
    nitro = await start_provider(Nitro, services, config)
    yield World(nitro, services, double, tunnel)
    await nitro.stop()
    await tunnel.close()


async def test_an_actor_gets_its_secret(world: World) -> None:
    assert await invoke(world.nitro, "kms_decrypt", "api", world.encrypted(), call=COUNTER) == SECRET
    assert world.nitro.usage()["kms"] == 1
    _, request = world.double.requests[-1]
    assert request["KeyId"] == KEY_ID


async def test_several_at_a_time_are_all_answered(world: World) -> None:
    calls = [invoke(world.nitro, "kms_decrypt", "api", world.encrypted(), call=COUNTER) for _ in range(6)]
    assert await asyncio.gather(*calls) == [SECRET] * 6
    assert world.tunnel.figures.opened == 6


async def test_another_actors_secret_name_or_manifest_opens_nothing(world: World) -> None:
    for secret, ciphertext, call in (
        ("api", world.encrypted(), OTHER),
        ("another", world.encrypted(), COUNTER),
        ("api", world.encrypted(manifest=b"\1" * 48), COUNTER),
    ):
        error = await world.refused(secret, ciphertext, call)
        assert (error.code, error.details["reason"]) == (Code.DENIED, "InvalidCiphertextException")


async def test_another_image_is_refused_by_kms(world: World) -> None:
    world.double.policy = policy_from_mapping({**world.double.policy.to_mapping(), "pcrs": {0: "00" * 47 + "01"}})
    error = await world.refused("api", world.encrypted())
    assert (error.code, error.details["reason"]) == (Code.DENIED, "AccessDeniedException")


async def test_an_answer_in_the_clear_is_untrusted(world: World) -> None:
    world.double.ignores_recipient = True
    assert (await world.refused("api", world.encrypted())).code is Code.UNTRUSTED


async def test_a_parent_without_tunnel_or_credentials_is_unavailable(world: World) -> None:
    world.tunnel._credentials = None
    assert (await world.refused("api", world.encrypted())).code is Code.UNAVAILABLE

    async def none() -> Mapping[str, str]:
        raise LookupError("no role")

    world.tunnel._credentials = none
    assert (await world.refused("api", world.encrypted())).code is Code.UNAVAILABLE
    await world.tunnel.close()
    assert (await world.refused("api", world.encrypted())).code is Code.UNAVAILABLE


async def test_a_failing_nsm_is_unavailable(world: World) -> None:
    attester = world.services.attester
    assert isinstance(attester, SimulatedAttester)
    attester.device.failing = 5
    error = await world.refused("api", world.encrypted())
    assert (error.code, error.details["reason"]) == (Code.UNAVAILABLE, "attestation")


async def test_arguments_that_cannot_be_are_invalid(world: World) -> None:
    assert (await world.refused("", b"c")).code is Code.INVALID
    assert (await world.refused("api", b"")).code is Code.INVALID
    assert (await world.refused("api", bytes(6145))).code is Code.INVALID


async def test_without_a_key_in_the_manifest_there_is_none() -> None:
    nitro = await start_provider(Nitro, InMemoryServices("nitro"))
    with pytest.raises(CallError) as caught:
        await invoke(nitro, "kms_decrypt", "api", b"c")
    assert caught.value.code is Code.UNAVAILABLE
    await nitro.stop()


# -- credentials -----------------------------------------------------------------------------------------------------


async def test_credentials_are_kept_until_they_age(tmp_path: Path) -> None:
    asked = 0

    async def source() -> Mapping[str, str]:
        nonlocal asked
        asked += 1
        return {"AccessKeyId": f"A{asked}", "SecretAccessKey": "B", "Expiration": "2027-01-01T00:00:00Z"}

    tunnel = TunnelServer(UnixAddress(tmp_path / "tunnel.sock"), [], credentials=source)
    address = await tunnel.start()
    end = 1798761600.0  # 2027-01-01
    now = end - 3600
    credentials = sdk.ParentCredentials(address, clock=lambda: now)
    assert (await asyncio.to_thread(credentials)).access_key_id == "A1"
    now = end - 301
    assert (await asyncio.to_thread(credentials)).access_key_id == "A1"
    now = end - 299
    assert (await asyncio.to_thread(credentials)).access_key_id == "A2"
    now += 59  # about to end: asked for again, but not at every request
    assert (await asyncio.to_thread(credentials)).access_key_id == "A2"
    now += 2
    assert (await asyncio.to_thread(credentials)).access_key_id == "A3"
    await tunnel.close()


@pytest.mark.parametrize(
    "offered",
    [
        {},
        {"AccessKeyId": "A"},
        {"AccessKeyId": "", "SecretAccessKey": "B"},
        {"AccessKeyId": "A\r\nX: y", "SecretAccessKey": "B"},
        {"AccessKeyId": "A", "SecretAccessKey": "B", "Expiration": "soon"},
    ],
)
async def test_credentials_in_another_form_are_refused_unquoted(offered: Mapping[str, str], tmp_path: Path) -> None:
    async def source() -> Mapping[str, str]:
        return offered

    tunnel = TunnelServer(UnixAddress(tmp_path / "tunnel.sock"), [], credentials=source)
    address = await tunnel.start()
    with pytest.raises(sdk.KmsError) as caught:
        await asyncio.to_thread(sdk.ParentCredentials(address))
    assert caught.value.code is sdk.KmsCode.RESPONSE
    assert "X: y" not in str(caught.value)
    await tunnel.close()
