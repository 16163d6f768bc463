"""The intercom provider: topics by grant, replicas in turn, dead letters counted.

Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from tea.protocol.errors import CallError, Code
from tea.providers.base import Call
from tea.providers.intercom import Intercom
from tea.providers.testing import InMemoryServices, invoke, start_provider

TOPICS = {
    "orders": {"publish": ["desk"], "subscribe": ["book", "audit"]},
    "alarms": {"publish": ["desk", "book"], "subscribe": ["desk"]},
}
DESK = Call(caller="desk")


def book(replica: int = 0) -> Call:
    return Call(caller="book", replica=replica)


async def started(**config: object) -> tuple[Intercom, InMemoryServices]:
    services = InMemoryServices("intercom")
    merged: Mapping[str, object] = {"topics": TOPICS, **config}
    return await start_provider(Intercom, services, merged), services


async def refused(code: Code, provider: Intercom, *args: Any, call: Call) -> CallError:
    with pytest.raises(CallError) as caught:
        await invoke(provider, *args, call=call)
    assert caught.value.code is code
    return caught.value


async def test_a_message_reaches_every_subscribed_actor_once() -> None:
    intercom, services = await started()
    await invoke(intercom, "subscribe", "orders", "on_order", call=book())
    await invoke(intercom, "subscribe", "orders", "record", call=Call(caller="audit"))
    assert await invoke(intercom, "publish", "orders", b"buy", call=DESK) == 2
    assert services.tells == [
        ("book", "on_order", ("orders", b"buy"), 0),
        ("audit", "record", ("orders", b"buy"), 0),
    ]


async def test_replicas_share_messages_in_turn() -> None:
    intercom, services = await started()
    for replica in range(3):
        await invoke(intercom, "subscribe", "orders", "on_order", call=book(replica))
    for _ in range(6):
        assert await invoke(intercom, "publish", "orders", b"x", call=DESK) == 1
    assert [told.replica for told in services.tells] == [0, 1, 2, 0, 1, 2]


async def test_each_replica_that_asks_for_it_gets_every_message() -> None:
    intercom, services = await started()
    await invoke(intercom, "subscribe", "orders", "on_order", call=book(0))
    await invoke(intercom, "subscribe", "orders", "on_order", True, call=book(1))
    await invoke(intercom, "subscribe", "orders", "on_order", True, call=book(2))
    assert await invoke(intercom, "publish", "orders", b"x", call=DESK) == 1
    assert sorted(told.replica or 0 for told in services.tells) == [0, 1, 2]


async def test_a_full_replica_passes_its_turn_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    intercom, services = await started()
    tell = services.tell_actor

    def replica_0_is_full(actor: str, operation: str, *args: object, replica: int | None = None) -> bool:
        return replica != 0 and tell(actor, operation, *args, replica=replica)

    monkeypatch.setattr(services, "tell_actor", replica_0_is_full)
    for replica in range(2):
        await invoke(intercom, "subscribe", "orders", "on_order", call=book(replica))
    for _ in range(4):
        assert await invoke(intercom, "publish", "orders", b"x", call=DESK) == 1
    assert [told.replica for told in services.tells] == [1, 1, 1, 1]


async def test_a_message_that_nobody_takes_is_a_dead_letter_without_its_body() -> None:
    intercom, services = await started()
    assert await invoke(intercom, "publish", "orders", b"early", call=DESK) == 0
    await invoke(intercom, "subscribe", "orders", "on_order", call=book())
    services.full.add("book")
    assert await invoke(intercom, "publish", "orders", b"late!", call=DESK) == 0
    letters = await invoke(intercom, "dead_letters", call=DESK)
    assert letters.count == 2
    assert [(one.topic, one.publisher, one.subscriber, one.size) for one in letters.latest] == [
        ("orders", "desk", None, 5),
        ("orders", "desk", "book", 5),
    ]
    usage = intercom.usage()
    assert (usage["subscriptions"], usage["published"], usage["delivered"], usage["dead_letters"]) == (1, 2, 0, 2)


async def test_dead_letters_are_kept_in_bounded_number_and_counted_without_bound() -> None:
    intercom, _ = await started()
    for _ in range(100):
        await invoke(intercom, "publish", "orders", b"", call=DESK)
    letters = await invoke(intercom, "dead_letters", call=DESK)
    assert (letters.count, len(letters.latest)) == (100, 64)


async def test_nobody_may_publish_or_subscribe_without_a_grant() -> None:
    intercom, services = await started()
    await refused(Code.DENIED, intercom, "publish", "orders", b"x", call=book())
    await refused(Code.DENIED, intercom, "subscribe", "orders", "heard", call=DESK)
    await refused(Code.DENIED, intercom, "subscribe", "alarms", "heard", call=Call(caller="stranger"))
    assert services.tells == []
    assert intercom.usage()["subscriptions"] == 0


async def test_a_topic_that_is_not_there_is_refused_like_one_that_is_not_granted() -> None:
    intercom, _ = await started()
    absent = await refused(Code.DENIED, intercom, "publish", "absent", b"x", call=book())
    denied = await refused(Code.DENIED, intercom, "publish", "orders", b"x", call=book())
    assert absent.sentence.replace("absent", "orders") == denied.sentence


async def test_nothing_is_granted_by_default() -> None:
    intercom = await start_provider(Intercom, InMemoryServices("intercom"))
    await refused(Code.DENIED, intercom, "publish", "orders", b"x", call=DESK)
    assert await invoke(intercom, "topics", call=DESK) == []


async def test_an_actor_sees_only_its_own_topics_and_their_letters() -> None:
    intercom, _ = await started()
    await invoke(intercom, "subscribe", "alarms", "heard", call=DESK)
    topics = await invoke(intercom, "topics", call=book())
    assert [(t.name, t.publish, t.subscribe, t.subscribers) for t in topics] == [
        ("alarms", True, False, 1),
        ("orders", False, True, 0),
    ]
    await invoke(intercom, "publish", "orders", b"x", call=DESK)
    assert (await invoke(intercom, "dead_letters", call=Call(caller="stranger"))).count == 0


async def test_a_body_over_the_limit_is_invalid_and_names_it() -> None:
    intercom, _ = await started(max_body=10)
    assert (await refused(Code.INVALID, intercom, "publish", "orders", b"x" * 11, call=DESK)).details["limit"] == 10
    assert await invoke(intercom, "publish", "orders", b"x" * 10, call=DESK) == 0


@pytest.mark.parametrize("topic", ["", " ", "a" * 129])
async def test_a_bad_topic_is_invalid_everywhere(topic: str) -> None:
    intercom, _ = await started()
    await refused(Code.INVALID, intercom, "publish", topic, b"x", call=DESK)
    await refused(Code.INVALID, intercom, "subscribe", topic, "heard", call=DESK)
    await refused(Code.INVALID, intercom, "unsubscribe", topic, call=DESK)


async def test_a_bad_operation_is_invalid() -> None:
    intercom, _ = await started()
    await refused(Code.INVALID, intercom, "subscribe", "orders", "_private", call=book())


async def test_a_replica_has_a_bound_of_subscriptions() -> None:
    intercom, _ = await started(subscriptions=1, topics={name: {"subscribe": ["book"]} for name in ("one", "two")})
    await invoke(intercom, "subscribe", "one", "heard", call=book())
    await refused(Code.EXHAUSTED, intercom, "subscribe", "two", "heard", call=book())


async def test_a_subscription_ends_by_unsubscribing_with_the_replica_and_with_the_actor() -> None:
    intercom, services = await started()
    for replica in range(3):
        await invoke(intercom, "subscribe", "orders", "on_order", call=book(replica))
    assert await invoke(intercom, "unsubscribe", "orders", call=book(0))
    assert not await invoke(intercom, "unsubscribe", "orders", call=book(0))
    await intercom.replica_gone("book", 1)
    await invoke(intercom, "publish", "orders", b"x", call=DESK)
    await invoke(intercom, "publish", "orders", b"x", call=DESK)
    assert [told.replica for told in services.tells] == [2, 2]
    await intercom.forget("book")
    assert await invoke(intercom, "publish", "orders", b"x", call=DESK) == 0


@pytest.mark.parametrize(
    "config",
    [
        {"topics": {"bad topic": {}}},
        {"topics": {"t": {"publish": "desk"}}},
        {"topics": {"t": {"read": ["desk"]}}},
        {"max_body": 1 << 20},
        {"everyone": True},
    ],
)
async def test_a_bad_configuration_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        await start_provider(Intercom, InMemoryServices("intercom"), config)
