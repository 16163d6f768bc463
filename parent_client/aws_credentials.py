"""Where a parent's AWS credentials come from: its instance role, or the environment of whoever starts it.

May not: write them anywhere, or give them to anyone but the enclave that asks over its own tunnel.
Rule: AWS, "Instance metadata service, version 2"; docs/nitro-sdk.md, "Credentials".
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

import aiohttp

from .tunnel import Source

METADATA: Final = "http://169.254.169.254"
_ROLE: Final = "/latest/meta-data/iam/security-credentials/"
_SECONDS: Final = 3.0
_MAX: Final = 16 * 1024


def from_environment(environment: Mapping[str, str] = os.environ) -> Source:
    """`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`: for tests and development."""

    async def source() -> Mapping[str, str]:
        names = {
            "AccessKeyId": "AWS_ACCESS_KEY_ID",
            "SecretAccessKey": "AWS_SECRET_ACCESS_KEY",
            "Token": "AWS_SESSION_TOKEN",
        }
        found = {field: environment[name] for field, name in names.items() if environment.get(name)}
        if not {"AccessKeyId", "SecretAccessKey"} <= found.keys():
            raise LookupError("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set")
        return found

    return source


def from_instance(metadata: str = METADATA) -> Source:
    """Those of the instance's role, by the metadata service's version 2."""

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
                    fields = await answer.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise LookupError(f"the instance's metadata give no role: {type(error).__name__}") from None
        wanted = ("AccessKeyId", "SecretAccessKey", "Token", "Expiration")
        if not isinstance(fields, dict) or not all(isinstance(fields.get(name), str) for name in wanted):
            raise LookupError("the instance's metadata have no credentials of a role")
        return {name: fields[name] for name in wanted}

    return source


async def _text(answer: aiohttp.ClientResponse) -> str:
    answer.raise_for_status()
    return (await answer.content.read(_MAX)).decode("ascii").strip()
