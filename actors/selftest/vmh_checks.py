"""vmh: messages between enclaves. Where there are peers with a self-test, one of them is asked to echo.

May not: take a silent peer for a fault. Rule: README.md of this folder.
"""

from __future__ import annotations

from rows import Rows, expect

from tea.sdk import Code, Link

TOPIC = "selftest"
ABSENT = (Code.UNAVAILABLE, Code.NOT_FOUND, Code.DEADLINE)


def check(vmh: Link, rows: Rows) -> None:
    """All operations of vmh."""
    members = rows.works("members", lambda: vmh.members()) or []
    own = rows.works("own_slot", lambda: vmh.own_slot())
    peers = [member for member in members if member != own] if own is not None else []
    rows.works("subscribe", lambda: vmh.subscribe(TOPIC, "on_peer"))
    rows.refuses("subscribe", Code.INVALID, lambda: vmh.subscribe("not a topic", "on_peer"))
    rows.works("publish", lambda: expect(vmh.publish(TOPIC, b"hello"), len(peers)), unless=ABSENT)
    for peer in peers[:1]:
        rows.works("tell", lambda: vmh.tell(peer, TOPIC, b"hello"), f"to {peer}")
        rows.works(
            "request",
            lambda: expect(vmh.request(peer, TOPIC, b"echo", timeout=2.0), b"echo"),
            f"to {peer}",
            unless=ABSENT,
        )
    rows.refuses("tell", ABSENT, lambda: vmh.tell("no-such-slot", TOPIC, b""))
    rows.refuses("request", ABSENT, lambda: vmh.request("no-such-slot", TOPIC, b""))
    rows.works("unsubscribe", lambda: vmh.unsubscribe(TOPIC), "peers may still ask in the next run")
