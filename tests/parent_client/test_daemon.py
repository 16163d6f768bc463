"""One runtime client as a process: its command line, how it ends, what it says when it cannot start."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from tea.parent_client.daemon import NoChain, parser, run
from tea.parent_client.operator import ClientStatus, Operator
from tea.protocol.channels import Channel
from tea.protocol.errors import CallError, Code
from tea.protocol.transport.address import Address
from tea.protocol.transport.client import connect
from tea.protocol.tunnel import CREDENTIALS_PATH, OPENED, Target, request_to

HELLO_SECONDS = 20.0


def beside(folder: Path, found: list[ClientStatus], *, stop: bool) -> threading.Thread:
    """Asks the client for its status once it listens, then has it end: by `stop`, or by SIGTERM to this process."""

    async def ask() -> None:
        endpoint = await connect(
            Address.parse(f"unix:{folder / 'operator.sock'}"), reconnect=True, timeout=HELLO_SECONDS
        )
        found.append(await endpoint.call(Channel.OPERATOR, Operator, "status"))
        if stop:
            await endpoint.call(Channel.OPERATOR, Operator, "stop", 0.0)
        else:
            os.kill(os.getpid(), signal.SIGTERM)
        await endpoint.close()

    thread = threading.Thread(target=lambda: asyncio.run(ask()))
    thread.start()
    return thread


@pytest.mark.parametrize("stop", [True, False])
def test_it_serves_until_the_operator_or_a_signal_ends_it(tmp_path: Path, stop: bool) -> None:
    folder = tmp_path / "new" / "e1"
    found: list[ClientStatus] = []
    thread = beside(folder, found, stop=stop)
    arguments = parser("x").parse_args(["--name", "e1", "--folder", str(folder), "--peer", f"e2={tmp_path / 'e2'}"])
    assert run(arguments) == 0
    thread.join()
    assert (found[0].name, found[0].connected, found[0].chain) == ("e1", False, None)
    assert [peer.name for peer in found[0].peers] == ["e2"]
    assert not (folder / "operator.sock").exists()


def test_one_that_cannot_start_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    (tmp_path / "file").touch()
    (tmp_path / "watch.json").write_text("{")
    chain = ["--chain", "http://127.0.0.1:1", "--watch"]
    for folder, more, why in [
        (open_to_all, [], "others can write to the folder"),
        (tmp_path / "file", [], "exists"),
        (tmp_path / "a", [*chain, str(tmp_path / "watch.json")], "malformed|truncated"),
        (tmp_path / "b", [*chain, str(tmp_path / "nowhere.json")], "No such file"),
    ]:
        assert run(parser("x").parse_args(["--name", "e1", "--folder", str(folder), *more])) == 1
        err = capsys.readouterr().err
        assert err.startswith("runtime client e1: ")
        assert any(one in err for one in why.split("|")), err


@pytest.mark.parametrize("peer", ["e2", "=x", "e2=", ""])
def test_a_peer_that_is_none_is_wrong_usage(peer: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser("x").parse_args(["--name", "e1", "--folder", "x", "--peer", peer])
    assert ended.value.code == 2
    assert "is not NAME=FOLDER" in capsys.readouterr().err


async def test_without_a_chain_everything_about_it_is_unavailable() -> None:
    chain = NoChain()
    for asked in (chain.head(), chain.blocks(0, 1), chain.send_transaction(b""), chain.account(b"")):
        with pytest.raises(CallError, match="start it with --chain") as refused:
            await asked
        assert refused.value.code is Code.UNAVAILABLE


def through_the_tunnel(path: Path, request: bytes, found: list[bytes]) -> None:
    """What a tunnel answers to an opening; tried until it listens."""
    for _ in range(2000):
        with socket.socket(socket.AF_UNIX) as sock:
            try:
                sock.connect(str(path))
            except OSError:
                threading.Event().wait(0.01)
                continue
            sock.settimeout(10)
            sock.sendall(request)
            found.append(sock.recv(4096))
            return


def test_a_tunnel_reaches_what_its_flags_allow_and_ends_with_the_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "example")
    folder, tunnel = tmp_path / "e1", tmp_path / "tunnel.sock"
    answers: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as target:
        allowed = f"127.0.0.1:{target.getsockname()[1]}"
        arguments = ["--name", "e1", "--folder", str(folder), "--tunnel", f"unix:{tunnel}", "--egress", allowed]

        def use() -> None:
            through_the_tunnel(tunnel, request_to(Target.parse(allowed)), answers)
            through_the_tunnel(tunnel, request_to(Target.parse("127.0.0.1:1")), answers)
            through_the_tunnel(tunnel, f"GET {CREDENTIALS_PATH} HTTP/1.1\r\n\r\n".encode(), answers)

        using = threading.Thread(target=use)
        using.start()

        def end() -> None:
            using.join()
            beside(folder, [], stop=True).join()

        ending = threading.Thread(target=end)
        ending.start()
        assert run(parser("x").parse_args([*arguments, "--aws-credentials", "environment"])) == 0
        ending.join()
    assert answers[0] == OPENED
    assert b" 403 " in answers[1]
    assert b"AKIDEXAMPLE" in answers[2]
    assert not tunnel.exists()


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--egress", "127.0.0.1:443"], "say with --tunnel where it listens"),
        (["--aws-credentials", "instance"], "say with --tunnel where it listens"),
        (["--tunnel", "unix:{}/tunnel.sock", "--egress", "everywhere"], "is no target of a tunnel"),
    ],
)
def test_a_tunnel_that_cannot_be_is_refused(
    tmp_path: Path, more: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [one.format(tmp_path) for one in more]
    assert run(parser("x").parse_args(["--name", "e1", "--folder", str(tmp_path / "e1"), *given])) == 1
    assert why in capsys.readouterr().err
