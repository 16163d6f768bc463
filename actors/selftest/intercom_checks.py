"""intercom: topics and requests. Needs a topic, without `retain`, that this actor may publish and subscribe to.

May not: publish to a topic that others are subscribed to. Rule: README.md of this folder.
"""

from __future__ import annotations

from rows import Rows, expect, require

from tea.sdk import Code, Link

NONE_GRANTED = "no topic of its own is granted: grant one under providers.intercom.topics"


def check(intercom: Link, rows: Rows) -> None:
    """All operations of intercom."""
    topics = rows.works("topics", lambda: intercom.topics()) or []
    own = [t["name"] for t in topics if t["publish"] and t["subscribe"] and not (t["subscribers"] or t["retain"])]
    rows.refuses("publish", Code.DENIED, lambda: intercom.publish("selftest-not-granted", b""))
    rows.refuses("subscribe", Code.DENIED, lambda: intercom.subscribe("selftest-not-granted", "on_topic"))
    rows.refuses("unpublish", Code.DENIED, lambda: intercom.unpublish("selftest-not-granted"))
    rows.refuses("unsubscribe", Code.INVALID, lambda: intercom.unsubscribe("not a topic"))
    rows.refuses("request", Code.DENIED, lambda: intercom.request("selftest-not-linked", "run"))
    rows.refuses("request_all", Code.DENIED, lambda: intercom.request_all("selftest-not-linked", "run"))
    rows.refuses("request", Code.INVALID, lambda: intercom.request("selftest-not-linked", "run", timeout=0.0))
    if own:
        topic = own[0]
        before = intercom.dead_letters()["count"] if rows.granted("dead_letters") else 0
        rows.works("publish", lambda: expect(intercom.publish(topic, b"nobody listens"), 0), "a dead letter")
        rows.works("dead_letters", lambda: expect(intercom.dead_letters()["count"], before + 1))
        rows.works("unpublish", lambda: expect(intercom.unpublish(topic), False), "the topic keeps nothing")
        rows.works("subscribe", lambda: intercom.subscribe(topic, "on_topic", replay=True))
        rows.works(
            "publish", lambda: expect(intercom.publish(topic, b"hello"), 1), "arrives after the run: see `heard`"
        )
        rows.works("unsubscribe", lambda: expect(intercom.unsubscribe(topic), True))
    else:
        rows.works("dead_letters", lambda: require(intercom.dead_letters()["count"] >= 0, NONE_GRANTED), NONE_GRANTED)
