"""AWS credentials of this parent: from the environment of whoever starts it, or those of the instance's role.

May not: write them anywhere, show a secret half, or give them to anyone but what signs here, and the enclave that asks
over its own tunnel. Rule: AWS, "Instance metadata service, version 2"; docs/nitro-sdk.md, "Credentials".
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from .refusal import Refusal

if TYPE_CHECKING:
    import aiohttp

    from .tunnel import Source

METADATA: Final = "http://169.254.169.254"
_ROLE: Final = "/latest/meta-data/iam/security-credentials/"
_SECONDS: Final = 3.0
_MAX: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class Credentials:
    """What signs a request to AWS."""

    key_id: str
    secret: str = field(repr=False)
    session: str | None = field(default=None, repr=False)
    expires: str | None = None
    """As AWS writes it; None: they do not."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Credentials:
        """AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN. Raises `Refusal` when they are not there."""
        key_id, secret = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
        if not key_id or not secret:
            raise Refusal("AWS wants AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment")
        return cls(key_id, secret, environment.get("AWS_SESSION_TOKEN") or None)

    def fields(self) -> dict[str, str]:
        """Under the names that the metadata service gives them; without what there is none of."""
        named = {
            "AccessKeyId": self.key_id,
            "SecretAccessKey": self.secret,
            "Token": self.session,
            "Expiration": self.expires,
        }
        return {name: value for name, value in named.items() if value is not None}


def from_environment(environment: Mapping[str, str] = os.environ) -> Source:
    """Those of the environment: for tests and development."""

    async def source() -> Mapping[str, str]:
        try:
            return Credentials.from_environment(environment).fields()
        except Refusal as error:
            raise LookupError(str(error)) from None

    return source


def from_instance(metadata: str = METADATA) -> Source:
    """Those of the instance's role, by the metadata service's version 2."""
    import aiohttp  # here, since whoever signs with the environment's needs none of it

    async def source() -> Mapping[str, str]:
        timeout = aiohttp.ClientTimeout(total=_SECONDS)
        try:
            async with aiohttp.ClientSession(metadata, timeout=timeout) as session:
                lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
                async with session.put("/latest/api/token", headers=lifetime) as answer:
                    token = {"X-aws-ec2-metadata-token": await _text(answer)}
                async with session.get(_ROLE, headers=token) as answer:
                    role = (await _text(answer)).split("\n")[0]
                async with session.get(_ROLE + role, headers=token) as answer:
                    answer.raise_for_status()
                    found = await answer.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise LookupError(f"the instance's metadata give no role: {type(error).__name__}") from None
        wanted = ("AccessKeyId", "SecretAccessKey", "Token", "Expiration")
        if not isinstance(found, dict) or not all(isinstance(found.get(name), str) for name in wanted):
            raise LookupError("the instance's metadata have no credentials of a role")
        return Credentials(*(found[name] for name in wanted)).fields()

    return source


async def _text(answer: aiohttp.ClientResponse) -> str:
    answer.raise_for_status()
    return (await answer.content.read(_MAX)).decode("ascii").strip()
