"""The parent finds its instance role's credentials, or says that there are none.

May not: reach beyond loopback. Rule: AWS, "Instance metadata service, version 2".
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from tea.parent_client.aws_credentials import Credentials, from_environment, from_instance
from tea.parent_client.refusal import Refusal

ROLE = "/latest/meta-data/iam/security-credentials/"
GIVEN = {"AccessKeyId": "A", "SecretAccessKey": "B", "Token": "C", "Expiration": "2027-01-01T00:00:00Z"}


class Metadata:
    """The instance's metadata service. Faults are attribute edits."""

    def __init__(self) -> None:
        self.role = "enclave-parent"
        self.fields: object = {**GIVEN, "Code": "Success"}
        self.url = ""

    async def token(self, request: web.Request) -> web.Response:
        assert request.headers["X-aws-ec2-metadata-token-ttl-seconds"] == "60"
        return web.Response(text="a-token")

    async def get(self, request: web.Request) -> web.Response:
        if request.headers.get("X-aws-ec2-metadata-token") != "a-token":
            raise web.HTTPUnauthorized
        if request.path == ROLE:
            return web.Response(text=self.role) if self.role else web.Response(status=404)
        assert request.path == ROLE + self.role
        return web.json_response(self.fields)


@pytest.fixture
async def metadata() -> AsyncIterator[Metadata]:
    """A metadata service on loopback."""
    service = Metadata()
    app = web.Application()
    app.router.add_put("/latest/api/token", service.token)
    app.router.add_get(ROLE + "{name:.*}", service.get)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    service.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield service
    await runner.cleanup()


async def test_an_instance_has_those_of_its_role(metadata: Metadata) -> None:
    assert await from_instance(metadata.url)() == GIVEN


async def test_an_instance_without_a_role_says_so(metadata: Metadata) -> None:
    metadata.role = ""
    with pytest.raises(LookupError, match="role"):
        await from_instance(metadata.url)()


@pytest.mark.parametrize("fields", [[], {}, {**GIVEN, "Token": None}])
async def test_metadata_without_credentials_are_refused(metadata: Metadata, fields: object) -> None:
    metadata.fields = fields
    with pytest.raises(LookupError, match="credentials"):
        await from_instance(metadata.url)()


async def test_what_is_no_instance_says_so() -> None:
    with pytest.raises(LookupError, match="metadata"):
        await from_instance("http://127.0.0.1:1")()


async def test_the_environment_serves_for_tests() -> None:
    environment = {"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "B"}
    assert await from_environment(environment)() == {"AccessKeyId": "A", "SecretAccessKey": "B"}
    with pytest.raises(LookupError, match="AWS_ACCESS_KEY_ID"):
        await from_environment({"AWS_ACCESS_KEY_ID": "A"})()


def test_credentials_come_from_the_environment_and_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(Refusal, match="AWS_ACCESS_KEY_ID"):
        Credentials.from_environment()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "do-not-show")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "nor-this")
    found = Credentials.from_environment()
    assert "do-not-show" not in repr(found)
    assert "nor-this" not in repr(found)
