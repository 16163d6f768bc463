"""A topic's last message: kept where the manifest says so, told to late subscribers in order, dropped, bounded.

Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tea.protocol.errors import CallError, Code
from tea.providers.base import Call
from tea.providers.intercom import Intercom, IntercomConfig
from tea.providers.intercom.retained import VALUE_COST, Retained
from tea.providers.testing import InMemoryServices, invoke, start_provider

TOPICS: dict[str, dict[str, object]] = {
    "price": {"publish": ["feed"], "subscribe": ["book", "audit"], "retain": True},
    "trade": {"publish": ["feed"], "subscribe": ["book"]},
}
FEED = Call(caller="feed")


def book(replica: int = 0) -> Call:
    return Call(caller="book", replica=replica)


async def started(**config: object) -> tuple[Intercom, InMemoryServices]:
    services = InMemoryServices("intercom")
    return await start_provider(Intercom, services, {"topics": TOPICS, **config}), services


def configured(**config: object) -> IntercomConfig:
    return msgspec.convert({"topics": TOPICS, **config}, IntercomConfig)


def heard(services: InMemoryServices) -> list[tuple[str, int | None, object]]:
    return [(told.actor, told.replica, told.args[1]) for told in services.tells]


async def publish(intercom: Intercom, *bodies: bytes, topic: str = "price") -> None:
    for body in bodies:
        await invoke(intercom, "publish", topic, body, call=FEED)


async def test_a_late_subscriber_is_told_the_last_message_and_then_the_newer_ones() -> None:
    intercom, services = await started()
    await publish(intercom, b"1", b"2")
    await invoke(intercom, "subscribe", "price", "on_price", replay=True, call=book())
    await publish(intercom, b"3")
    assert heard(services) == [("book", 0, b"2"), ("book", 0, b"3")]


async def test_who_does_not_ask_for_it_is_told_newer_messages_only() -> None:
    intercom, services = await started()
    await publish(intercom, b"1")
    await invoke(intercom, "subscribe", "price", "on_price", call=book())
    await publish(intercom, b"2")
    assert heard(services) == [("book", 0, b"2")]


async def test_a_topic_without_retain_keeps_nothing() -> None:
    intercom, services = await started()
    await publish(intercom, b"1", topic="trade")
    await invoke(intercom, "subscribe", "trade", "on_trade", replay=True, call=book())
    assert services.tells == []
    assert intercom.usage()["retained_bytes"] == 0


async def test_every_replica_that_asks_is_told_also_where_they_share_what_is_new() -> None:
    intercom, services = await started()
    await publish(intercom, b"1")
    for replica in range(3):
        await invoke(intercom, "subscribe", "price", "on_price", replay=True, call=book(replica))
    assert heard(services) == [("book", 0, b"1"), ("book", 1, b"1"), ("book", 2, b"1")]


async def test_a_replica_that_starts_is_told_the_message_that_is_the_last_when_it_serves() -> None:
    intercom, services = await started()
    services.starting.add(("book", 1))
    await publish(intercom, b"1")
    await invoke(intercom, "subscribe", "price", "on_price", replay=True, call=book(1))
    await publish(intercom, b"2")
    assert services.tells == []
    services.starting.clear()
    intercom.replica_serves("book", 1)
    await publish(intercom, b"3")
    intercom.replica_serves("book", 1)
    assert heard(services) == [("book", 1, b"2"), ("book", 1, b"3")]


async def test_one_that_subscribed_before_anything_was_published_is_told_the_first_message_once() -> None:
    intercom, services = await started()
    await invoke(intercom, "subscribe", "price", "on_price", replay=True, call=book())
    await publish(intercom, b"1")
    intercom.replica_serves("book", 0)
    assert heard(services) == [("book", 0, b"1")]


async def test_a_full_replica_is_told_the_last_message_with_the_next_one_that_comes() -> None:
    intercom, services = await started()
    await publish(intercom, b"1")
    services.full.add("book")
    await invoke(intercom, "subscribe", "price", "on_price", replay=True, call=book())
    services.full.clear()
    await publish(intercom, b"2")
    assert heard(services) == [("book", 0, b"2")]


async def test_a_subscription_that_ended_is_not_told_what_it_was_owed() -> None:
    intercom, services = await started()
    await publish(intercom, b"1")
    services.starting.update({("book", 0), ("book", 1), ("audit", 0)})
    await invoke(intercom, "subscribe", "price", "on_price", replay=True, call=book(0))
    await invoke(intercom, "subscribe", "price", "on_price", replay=True, call=book(1))
    await invoke(intercom, "subscribe", "price", "record", replay=True, call=Call(caller="audit"))
    await invoke(intercom, "unsubscribe", "price", call=book(0))
    await intercom.replica_gone("book", 1)
    await intercom.forget("audit")
    services.starting.clear()
    for actor, replica in (("book", 0), ("book", 1), ("audit", 0)):
        intercom.replica_serves(actor, replica)
    assert services.tells == []


async def test_a_kept_message_is_no_dead_letter_and_one_that_is_not_kept_is() -> None:
    intercom, _ = await started()
    await publish(intercom, b"1")
    await publish(intercom, b"2", topic="trade")
    letters = await invoke(intercom, "dead_letters", call=FEED)
    assert [one.topic for one in letters.latest] == ["trade"]


async def test_unpublish_and_an_empty_message_leave_nothing_kept() -> None:
    intercom, services = await started()
    await publish(intercom, b"1")
    assert await invoke(intercom, "unpublish", "price", call=FEED)
    assert not await invoke(intercom, "unpublish", "price", call=FEED)
    await publish(intercom, b"2", b"")
    await invoke(intercom, "subscribe", "price", "on_price", replay=True, call=book())
    assert services.tells == []
    assert intercom.usage()["retained"] == 0
    await publish(intercom, b"")
    assert heard(services) == [("book", 0, b"")]


async def test_unpublish_needs_the_grant_to_publish() -> None:
    intercom, _ = await started()
    await publish(intercom, b"1")
    for topic in ("price", "absent"):
        with pytest.raises(CallError) as refused:
            await invoke(intercom, "unpublish", topic, call=book())
        assert refused.value.code is Code.DENIED
    assert intercom.usage()["retained"] == 1


async def test_what_is_kept_is_bounded_and_a_message_that_does_not_fit_reaches_nobody() -> None:
    intercom, services = await started(retained_bytes=VALUE_COST + len("price") + 10)
    await invoke(intercom, "subscribe", "price", "on_price", call=book())
    await publish(intercom, b"x" * 10)
    with pytest.raises(CallError) as refused:
        await publish(intercom, b"x" * 11)
    assert refused.value.code is Code.EXHAUSTED
    assert heard(services) == [("book", 0, b"x" * 10)]
    usage = intercom.usage()
    assert (usage["retained"], usage["retained_bytes"]) == (1, VALUE_COST + 15)
    await publish(intercom, b"short")
    assert intercom.usage()["retained_bytes"] == VALUE_COST + 10


async def test_topics_say_which_keep_their_last_message() -> None:
    intercom, _ = await started()
    assert [(one.name, one.retain) for one in await invoke(intercom, "topics", call=FEED)] == [
        ("price", True),
        ("trade", False),
    ]


async def test_a_topic_that_leaves_the_manifest_or_is_no_longer_kept_drops_its_message() -> None:
    for topics in ({}, {"price": {**TOPICS["price"], "retain": False}}):
        intercom, services = await started()
        await publish(intercom, b"1")
        intercom.reconfigure(configured(topics=topics))
        assert intercom.usage()["retained_bytes"] == 0
        intercom.reconfigure(configured())
        await invoke(intercom, "subscribe", "price", "on_price", replay=True, call=book())
        assert services.tells == []


async def test_a_right_that_is_taken_away_ends_the_subscription_and_what_it_was_owed() -> None:
    intercom, services = await started()
    await publish(intercom, b"1")
    services.starting.add(("book", 0))
    await invoke(intercom, "subscribe", "price", "on_price", replay=True, call=book())
    await invoke(intercom, "subscribe", "price", "record", call=Call(caller="audit"))
    intercom.reconfigure(configured(topics={"price": {**TOPICS["price"], "subscribe": ["audit"]}}))
    services.starting.clear()
    intercom.replica_serves("book", 0)
    await publish(intercom, b"2")
    assert heard(services) == [("audit", 0, b"2")]


async def test_replicas_of_the_next_revision_subscribe_under_its_topics_while_the_others_do_not() -> None:
    intercom, services = await started(topics={})
    services.starting.add(("book", 1))
    intercom.prepare(configured())
    await invoke(intercom, "subscribe", "price", "on_price", call=book(1))
    with pytest.raises(CallError):
        await invoke(intercom, "subscribe", "price", "on_price", call=book(0))
    assert [one.name for one in await invoke(intercom, "topics", call=book(1))] == ["price", "trade"]
    assert await invoke(intercom, "topics", call=book(0)) == []
    services.starting.clear()
    intercom.reconfigure(configured())
    await publish(intercom, b"1")
    assert heard(services) == [("book", 1, b"1")]


async def test_a_revision_that_does_not_come_leaves_no_message_of_its_topics_behind() -> None:
    intercom, services = await started(topics={})
    services.starting.add(("feed", 7))
    intercom.prepare(configured())
    await invoke(intercom, "publish", "price", b"1", call=Call(caller="feed", replica=7))
    assert intercom.usage()["retained"] == 1
    intercom.abandon()
    assert intercom.usage()["retained_bytes"] == 0
    with pytest.raises(CallError):
        await invoke(intercom, "publish", "price", b"2", call=Call(caller="feed", replica=7))


async def test_letters_of_a_topic_that_is_gone_are_not_counted_for_one_of_its_name() -> None:
    intercom, _ = await started()
    await publish(intercom, b"1", topic="trade")
    intercom.reconfigure(configured(topics={}))
    assert intercom.usage()["dead_letters"] == 0
    intercom.reconfigure(configured())
    assert (await invoke(intercom, "dead_letters", call=FEED)).latest == ()


async def test_a_lower_bound_of_subscriptions_takes_none_away_and_gives_no_further_one() -> None:
    intercom, _ = await started()
    for topic in TOPICS:
        await invoke(intercom, "subscribe", topic, "heard", call=book())
    intercom.reconfigure(configured(subscriptions=1))
    assert intercom.usage()["subscriptions"] == 2
    await invoke(intercom, "unsubscribe", "trade", call=book())
    with pytest.raises(CallError) as refused:
        await invoke(intercom, "subscribe", "trade", "heard", call=book())
    assert refused.value.code is Code.EXHAUSTED


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.binary(max_size=40)), max_size=40), st.integers(0, 900)
)
def test_what_is_kept_follows_a_plain_model_within_its_bound(steps: list[tuple[str, bytes | None]], limit: int) -> None:
    retained, model = Retained(limit), dict[str, bytes]()

    def size(values: dict[str, Any]) -> int:
        return sum(VALUE_COST + len(topic) + len(value) for topic, value in values.items())

    for topic, value in steps:
        if value is None:
            assert retained.drop(topic) is (model.pop(topic, None) is not None)
        elif size({**model, topic: value}) > limit:
            with pytest.raises(CallError):
                retained.put(topic, value)
        else:
            retained.put(topic, value)
            model[topic] = value
        assert (retained.size, len(retained)) == (size(model), len(model))
        assert all(retained.get(name) == model.get(name) for name in "abc")


def test_over_a_bound_that_was_lowered_a_smaller_message_still_takes_the_place_of_a_larger_one() -> None:
    retained = Retained(1000)
    retained.put("a", b"x" * 100)
    retained.limit = 10
    with pytest.raises(CallError):
        retained.put("a", b"x" * 101)
    retained.put("a", b"x" * 99)
    assert retained.get("a") == b"x" * 99
