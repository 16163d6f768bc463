"""vmh: messages between enclaves. Where there are peers with a self-test, one of them is asked to echo.

May not: take a silent peer for a fault. Rule: README.md of this folder.
"""

from __future__ import annotations

from rows import Rows, expect

from tea.sdk import Code, Link

TOPIC = "selftest"
"""Where every self-test listens from its start on, so that its peers can ask it."""
OWN_TOPIC = "selftest/own"
ABSENT = (Code.UNAVAILABLE, Code.NOT_FOUND, Code.DEADLINE)


def check(vmh: Link, rows: Rows) -> None:
    """All operations of vmh."""
    members = rows.works("members", lambda: vmh.members()) or []
    own = rows.works("own_slot", lambda: vmh.own_slot())
    peers = [member for member in members if member != own] if own is not None else []
    rows.works("subscribe", lambda: vmh.subscribe(OWN_TOPIC, "on_peer"))
    rows.refuses("subscribe", Code.INVALID, lambda: vmh.subscribe("not a topic", "on_peer"))
    rows.works("publish", lambda: expect(vmh.publish(TOPIC, b"hello"), len(peers)), unless=ABSENT)
    if peers:
        peer = peers[0]
        rows.works("tell", lambda: vmh.tell(peer, TOPIC, b"hello"), f"to {peer}")
        rows.works("request", lambda: _echo(vmh, peer), f"to {peer}", unless=ABSENT)
    rows.refuses("tell", ABSENT, lambda: vmh.tell("no-such-slot", TOPIC, b""))
    rows.refuses("request", ABSENT, lambda: vmh.request("no-such-slot", TOPIC, b""))
    rows.works("unsubscribe", lambda: expect((vmh.unsubscribe(OWN_TOPIC), vmh.unsubscribe(OWN_TOPIC)), (True, False)))


def _echo(vmh: Link, peer: str) -> None:
    expect(vmh.request(peer, TOPIC, b"echo", timeout=2.0), b"echo")
