"""`teactl logs`: lines for people that cannot steer a terminal, JSON lines for programs, following and its end."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tea.parent_client import log_book
from tea.protocol.channels import LogRecord

MakeClient = Callable[..., Awaitable[Any]]


def record(number: int, message: str = "") -> LogRecord:
    return LogRecord(float(number), "info", "host", message or f"record {number}", {"n": str(number)})


async def test_records_are_lines(teactl: Any, make_client: MakeClient) -> None:
    client = await make_client()
    teactl.register(client)
    await client._logs.record(tuple(record(number) for number in range(1200)))
    ran = await teactl.beside("logs")
    assert ran.status == 0
    lines = ran.out.splitlines()
    assert len(lines) == 1200
    assert lines[5] == "00:00:05 info    host                   record 5 n=5"
    ran = await teactl.beside("logs", "--last", "3", "--json")
    assert [json.loads(line)["message"] for line in ran.out.splitlines()] == [
        "record 1197",
        "record 1198",
        "record 1199",
    ]
    assert json.loads(ran.out.splitlines()[0])["fields"] == {"n": "1197"}
    assert (await teactl.beside("logs", "--last", "0")).out == ""
    assert len((await teactl.beside("logs", "--last", "100000")).out.splitlines()) == 1200


async def test_a_record_cannot_steer_the_terminal(teactl: Any, make_client: MakeClient) -> None:
    client = await make_client()
    teactl.register(client)
    await client._logs.record((LogRecord(1.0, "in\x1bfo", "ho\nst", "clear \x1b[2J\r\u202e", {"\x07": "\x9b"}),))
    ran = await teactl.beside("logs")
    assert len(ran.out.splitlines()) == 1
    assert ran.out.rstrip("\n").isprintable()
    assert r"clear \x1b[2J\r\u202e \x07=\x9b" in ran.out
    ran = await teactl.beside("logs", "--json")
    assert json.loads(ran.out)["message"] == "clear \x1b[2J\r\u202e"


async def test_records_that_are_gone_are_said_to_be_in_the_file(
    teactl: Any, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_book, "HELD", 10)
    client = await make_client()
    teactl.register(client)
    await client._logs.record(tuple(record(number) for number in range(15)))
    ran = await teactl.beside("logs")
    assert len(ran.out.splitlines()) == 10
    assert "5 records are no longer held: see" in ran.err
    assert str(client.config.folder / "log.jsonl") in ran.err
    assert (await teactl.beside("logs", "--last", "3")).err == ""


async def test_following_goes_on_until_its_time_also_while_records_come(teactl: Any, make_client: MakeClient) -> None:
    client = await make_client()
    teactl.register(client)
    await client._logs.record((record(0),))
    following = asyncio.ensure_future(teactl.beside("logs", "--follow", "--seconds", "0.3"))
    number = 0
    while not following.done():
        number += 1
        await client._logs.record((record(number),))
        await asyncio.sleep(0.01)
    ran = await following
    assert ran.status == 0
    lines = ran.out.splitlines()
    assert 1 < len(lines) <= number + 1
    assert lines[0].endswith("record 0 n=0")


async def test_a_follower_that_is_interrupted_has_not_failed(teactl: Any, make_client: MakeClient) -> None:
    client = await make_client()
    teactl.register(client)
    await client._logs.record((record(0, "first"),))
    line = [sys.executable, "-u", "-m", "tea.parent_client.cli", "logs", "--follow"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = await asyncio.to_thread(process.stdout.readline)
        assert b"first" in first
        process.send_signal(signal.SIGINT)
        status = await asyncio.to_thread(process.wait, 30)
        assert (status, process.stderr.read()) == (0, b"")
