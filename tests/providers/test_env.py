"""The env provider shows an actor its own part of the approved environment, and nothing else.

Rule: docs/architecture.md, "Measured boot".
"""

from __future__ import annotations

import os

import msgspec
import pytest

from tea.protocol.errors import CallError, Code
from tea.providers.base import Call
from tea.providers.env import Env
from tea.providers.testing import InMemoryServices, invoke, start_provider


async def started() -> Env:
    services = InMemoryServices("env")
    services.environment = {"LOG_LEVEL": "info", "REGION": "eu-west-1"}
    services.environments = {"counter": {"LOG_LEVEL": "info"}, "ra": {"REGION": "eu-west-1", "LOG_LEVEL": "info"}}
    services.own_slot = "e1"
    return await start_provider(Env, services)


async def test_an_actor_reads_what_the_manifest_lists_for_it() -> None:
    env = await started()
    assert await invoke(env, "get", "LOG_LEVEL") == "info"
    assert await invoke(env, "names") == ["LOG_LEVEL"]
    assert await invoke(env, "all", call=Call(caller="ra")) == {"LOG_LEVEL": "info", "REGION": "eu-west-1"}


@pytest.mark.parametrize("name", ["REGION", "NEVER", "", "x" * 100_000])
async def test_anothers_variable_and_no_variable_are_not_found_alike(name: str) -> None:
    with pytest.raises(CallError) as caught:
        await invoke(await started(), "get", name)
    assert caught.value.code is Code.NOT_FOUND
    assert "eu-west-1" not in str(caught.value)
    assert len(caught.value.sentence) < 300


async def test_the_processs_own_environment_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "SECRET", "x")
    with pytest.raises(CallError):
        await invoke(await started(), "get", "SECRET")


async def test_an_actor_without_variables_has_none() -> None:
    assert await invoke(await started(), "all", call=Call(caller="stranger")) == {}


async def test_about_says_where_the_actor_runs() -> None:
    about = await invoke(await started(), "about", call=Call(caller="ra", replica=2))
    assert (about.deployment, about.mode, about.slot) == ("test", "simulated", "e1")
    assert (about.actor, about.replica, len(about.manifest_digest)) == ("ra", 2, 48)


async def test_there_is_nothing_to_configure() -> None:
    with pytest.raises(msgspec.ValidationError):
        await start_provider(Env, InMemoryServices("env"), {"all": True})
