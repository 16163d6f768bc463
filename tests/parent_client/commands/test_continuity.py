"""`teactl takeover` and `push --standby`: what is asked of the enclave, and every answer in words and in JSON.

May not: move state; `tests/simulator/test_continuity.py` does. Rule: docs/teactl.md, "takeover".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tea.protocol.channels import Takeover
from tea.protocol.errors import CallError, Code

Make = Callable[..., Awaitable[Any]]


@pytest.fixture
async def answering(
    teactl: Any, make_client: Make, make_host: Make
) -> Callable[[Takeover | CallError], Awaitable[Any]]:
    """Runs `takeover --from e1` against an enclave that answers so."""
    client = await make_client("e2")
    teactl.register(client)

    async def run(answer: Takeover | CallError, *more: str) -> Any:
        async def take_over(source: str, copy: bool) -> Takeover:
            assert (source, copy) == ("e1", "--copy" in more)
            if isinstance(answer, CallError):
                raise answer
            return answer

        await make_host(client, take_over=take_over)
        return await teactl.beside("takeover", "--from", "e1", *more)

    return run


async def test_it_says_who_holds_the_slot_from_when(answering: Any) -> None:
    ran = await answering(Takeover("main", 7, holder=True))
    assert (ran.status, ran.out) == (0, "slot main is held here from term 7; e1 has retired\n")
    ran = await answering(Takeover("main", 8, holder=True), "-e", "e2", "--json")
    assert ran.json == {"ok": True, "slot": "main", "term": 8}


async def test_a_holder_that_went_on_by_itself_is_no_takeover(answering: Any) -> None:
    ran = await answering(Takeover("main", 6, holder=False))
    assert ran.status == 1
    assert "e1 went on by itself" in ran.err
    ran = await answering(Takeover("main", 6, holder=False), "--json")
    assert (ran.status, ran.json["slot"], ran.json["term"]) == (1, "main", 6)


async def test_a_copy_is_no_failure_and_says_that_the_holder_serves_on(answering: Any) -> None:
    ran = await answering(Takeover("main", 6, holder=False), "--copy")
    assert ran.status == 0
    assert "e1 serves on" in ran.out
    ran = await answering(Takeover("main", 6, holder=False), "--copy", "--json")
    assert ran.json == {"ok": True, "slot": "main", "term": 6, "copy": True}


async def test_a_refusal_comes_as_the_enclave_gave_it(answering: Any) -> None:
    ran = await answering(CallError(Code.UNTRUSTED, "another image", reason="pcr"), "--json")
    assert (ran.status, ran.json["code"], ran.json["details"]["reason"]) == (1, "UNTRUSTED", "pcr")


def test_who_holds_it_must_be_named(teactl: Any) -> None:
    ran = teactl("takeover")
    assert ran.status == 2
    assert "--from" in ran.err


def test_a_standby_is_one_enclave(teactl: Any) -> None:
    ran = teactl("push", "m.approved", "--all", "--standby")
    assert ran.status == 2
    assert "--standby" in ran.err
