"""The harness: what an actor's author may rely on when a test is green."""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import Any, ClassVar

import msgspec
import pytest

from tea.protocol.channels import Channel
from tea.providers import base
from tea.providers.base import Call, Config, Provider
from tea.sdk import Actor, CallError, Code, operation
from tea.sdk.testing import EPOCH, Harness, MemoryParent, Told, run_actor
from tea.sdk.testing import services as memory


class Keeper(Actor):
    """Uses whatever links a test gives it."""

    def __init__(self) -> None:
        super().__init__()
        self.rung: list[tuple[str, str]] = []

    @operation
    def put(self, key: str, value: bytes, ttl: float | None = None) -> None:
        self.kvp.set(key, value, ttl)

    @operation
    def get(self, key: str) -> bytes | None:
        found: bytes | None = self.kvp.get(key)
        return found

    @operation
    def remind(self, seconds: float, token: str) -> None:
        self.clock.after(seconds, "ring", token)

    @operation(only_from=("provider:clock", "provider:intercom"))
    def ring(self, token: str) -> str:
        self.rung.append((token, self.caller))
        return token.upper()

    @operation
    def hear(self, topic: str) -> None:
        self.intercom.subscribe(topic, "heard")

    @operation
    def say(self, topic: str, body: bytes) -> int:
        reached: int = self.intercom.publish(topic, body)
        return reached

    @operation
    def heard(self, topic: str, body: bytes) -> None:
        self.rung.append((topic, body.decode()))

    @operation
    def relay(self, body: bytes) -> object:
        return self.other.take(body)

    @operation
    def shout(self, body: bytes) -> None:
        self.other.tell.take(body)

    @operation
    def fail(self) -> None:
        raise ValueError("here")

    @operation
    def never_rest(self) -> None:
        self.send(self.myAddress, "again")

    def on_message(self, message: Any, sender: Any) -> None:
        self.send(self.myAddress, message)


class Other(Actor):
    @operation(only_from=("keeper",))
    def take(self, body: bytes) -> list[str]:
        return [self.caller, *self.chain, body.decode()]


class Double:
    """Stands for a provider: plain and async methods, no `Call`."""

    def __init__(self) -> None:
        self.threads: set[str] = set()

    @operation
    def take(self, body: bytes) -> list[str]:
        self.threads.add(threading.current_thread().name)
        if not body:
            raise CallError(Code.INVALID, "an empty body")
        return [body.decode()]

    @operation
    async def hang(self) -> None:
        await asyncio.get_running_loop().create_future()

    @operation
    def crash(self) -> None:
        raise KeyError("inside")


class Spoken(msgspec.Struct):
    caller: str
    replica: int
    chain: tuple[str, ...]
    kvp_bytes: int
    digest: bytes


class SpyConfig(Config, frozen=True):
    word: str = "none"


class Spy(Provider[SpyConfig]):
    """A provider that shows what it is lent and told."""

    name: ClassVar[str] = "spy"
    requires: ClassVar[tuple[str, ...]] = ("kvp",)
    config_type: ClassVar[type[Config]] = SpyConfig
    gone: ClassVar[list[tuple[str, int]]] = []
    stopped: ClassVar[list[str]] = []

    @operation
    async def who(self, call: Call) -> Spoken:
        return Spoken(call.caller, call.replica, call.chain, call.kvp_bytes, self.services.digest_of(call.caller))

    @operation
    async def word(self, call: Call) -> str:
        return self.config.word

    async def ask(self, actor: str, name: str, *args: object) -> bytes:
        return await self.services.call_actor(actor, name, *args)

    async def replica_gone(self, actor: str, replica: int) -> None:
        self.gone.append((actor, replica))

    async def stop(self) -> None:
        self.stopped.append(self.name)


class Watched(Actor):
    @operation
    def who(self) -> object:
        return self.spy.who()

    @operation
    def word(self) -> object:
        return self.spy.word()

    @operation
    def double(self, text: str) -> str:
        return text * 2


def code_of(harness: Harness, name: str, *args: object) -> Code:
    with pytest.raises(CallError) as caught:
        harness.call(name, *args)
    return caught.value.code


def test_a_real_provider_answers_over_the_link() -> None:
    with run_actor(Keeper, links={"kvp": True}) as harness:
        harness.call("put", "a", b"1")
        assert harness.call("get", key="a") == b"1"
        assert harness.call("get", "b") is None


def test_an_operation_that_is_not_granted_is_refused_as_in_a_worker() -> None:
    with run_actor(Keeper, links={"kvp": ["get"]}) as harness:
        assert code_of(harness, "put", "a", b"1") is Code.DENIED
        assert harness.failures == []


def test_a_link_that_is_not_there_fails_with_the_line_to_add() -> None:
    with run_actor(Keeper) as harness, pytest.raises(CallError) as caught:
        harness.call("get", "a")
    assert caught.value.code is Code.INTERNAL
    assert "- {from: keeper, to: kvp" in str(caught.value.__cause__)


def test_a_grant_that_the_target_lacks_is_a_mistake_of_the_test() -> None:
    with pytest.raises(ValueError, match="no operation 'fetch'"), run_actor(Keeper, links={"kvp": ["fetch"]}):
        pass
    with pytest.raises(TypeError, match="list of names"), run_actor(Keeper, links={"kvp": "get"}):
        pass


def test_a_provider_that_nobody_has_is_named() -> None:
    with pytest.raises(LookupError, match="no provider 'teleport'"), run_actor(Keeper, links={"teleport": True}):
        pass


def test_what_an_actor_raises_is_shown_to_its_test_as_the_cause() -> None:
    with run_actor(Keeper) as harness:
        with pytest.raises(CallError) as caught:
            harness.call("fail")
        assert caught.value.code is Code.INTERNAL
        assert isinstance(caught.value.__cause__, ValueError)
        assert harness.failures == [caught.value.__cause__]


def test_an_unknown_operation_is_not_found() -> None:
    with run_actor(Keeper) as harness:
        assert code_of(harness, "nothing") is Code.NOT_FOUND


def test_only_from_holds_for_a_tests_callers() -> None:
    with run_actor(Keeper) as harness:
        assert code_of(harness, "ring", "x") is Code.DENIED
        assert harness.as_caller("provider:clock").call("ring", "x") == "X"


def test_a_tell_has_no_answer_and_its_refusal_is_kept() -> None:
    with run_actor(Keeper) as harness:
        harness.tell("ring", "x")
        assert [refusal.code for refusal in harness.refused] == [Code.DENIED]
        harness.as_caller("provider:clock").tell("ring", "y")
        assert harness.actor.rung == [("y", "provider:clock")]


def test_time_moves_only_when_the_test_moves_it() -> None:
    with run_actor(Keeper, links={"clock": True, "kvp": True}) as harness:
        harness.call("remind", 30.0, "tea")
        harness.call("remind", 10.0, "egg")
        harness.call("put", "soft", b"1", 15.0)
        harness.advance(9.0)
        assert harness.actor.rung == []
        harness.advance(1.0)
        assert harness.actor.rung == [("egg", "provider:clock")]
        assert harness.call("get", "soft") == b"1"
        harness.advance(20.0)
        assert harness.actor.rung == [("egg", "provider:clock"), ("tea", "provider:clock")]
        assert harness.call("get", "soft") is None
        assert harness.now() == pytest.approx(EPOCH + 30.0)
        with pytest.raises(ValueError, match="forward"):
            harness.advance(-1.0)


def test_what_a_provider_tells_arrives_after_the_operation_that_caused_it() -> None:
    config = {"intercom": {"topics": {"news": {"publish": ["keeper"], "subscribe": ["keeper"]}}}}
    with run_actor(Keeper, links={"intercom": True}, config=config) as harness:
        harness.call("hear", "news")
        harness.call("say", "news", b"hello")
        assert harness.actor.rung == [("news", "hello")]


def test_another_actor_stands_behind_a_link_and_sees_the_chain() -> None:
    with run_actor(Other) as other, run_actor(Keeper, links={"other": True}, providers={"other": other}) as harness:
        assert harness.call("relay", b"x") == ["keeper", "parent", "x"]
        view = harness.as_caller("a", chain=("b", "parent"))
        assert view.call("relay", b"x") == ["keeper", "a", "b", "parent", "x"]
        assert code_of(other, "take", b"x") is Code.DENIED


def test_a_double_stands_for_a_provider() -> None:
    double = Double()
    with run_actor(Keeper, links={"other": ["take"]}, providers={"other": double}) as harness:
        assert harness.call("relay", b"x") == ["x"]
        assert code_of(harness, "relay", b"") is Code.INVALID
        harness.call("shout", b"")
    assert double.threads == {threading.current_thread().name}


def test_a_double_may_be_given_as_a_class() -> None:
    with run_actor(Keeper, links={"other": True}, providers={"other": Double}) as harness:
        assert harness.call("relay", b"x") == ["x"]


class Patient(Actor):
    @operation
    def hang(self) -> None:
        self.other.with_timeout(0.01).hang()

    @operation
    def crash(self) -> None:
        self.other.crash()


def test_a_call_that_is_not_answered_ends_with_its_timeout() -> None:
    with run_actor(Patient, links={"other": True}, providers={"other": Double}) as harness:
        assert code_of(harness, "hang") is Code.DEADLINE


def test_a_provider_that_breaks_answers_internal() -> None:
    with run_actor(Patient, links={"other": True}, providers={"other": Double}) as harness:
        assert code_of(harness, "crash") is Code.INTERNAL


def test_a_provider_sees_who_calls_and_gets_its_config() -> None:
    config = {"spy": {"word": "tea"}}
    with run_actor(
        Watched, links={"spy": True}, providers={"spy": Spy}, config=config, replica=3, kvp_bytes=77
    ) as harness:
        spoken = msgspec.convert(harness.as_caller("a", chain=("b",)).call("who"), Spoken)
        assert spoken == Spoken("watched", 3, ("a", "b"), 77, memory.bundle_digest("watched"))
        assert harness.call("word") == "tea"
        assert harness.provider("kvp") is not None, "what a provider requires is started before it"


def test_a_config_that_does_not_fit_is_refused() -> None:
    with (
        pytest.raises(msgspec.ValidationError),
        run_actor(Watched, links={"spy": True}, providers={"spy": Spy}, config={"spy": {"words": 1}}),
    ):
        pass


def test_a_provider_may_call_the_actor() -> None:
    with run_actor(Watched, links={"spy": True}, providers={"spy": Spy}) as harness:
        spy = harness.provider("spy")
        assert msgspec.msgpack.decode(harness.run(spy.ask("watched", "double", "ab"))) == "abab"
        for actor, name in (("watched", "nothing"), ("somebody", "double")):
            with pytest.raises(CallError) as caught:
                harness.run(spy.ask(actor, name, "ab"))
            assert caught.value.code is Code.NOT_FOUND


def test_providers_learn_that_a_replica_went_and_are_stopped_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Spy, "gone", [])
    monkeypatch.setattr(Spy, "stopped", [])
    with run_actor(Watched, links={"spy": True}, providers={"spy": Spy}) as harness:
        harness.restart(crash=True)
        assert Spy.gone == [("watched", 0)]
        assert Spy.stopped == []
    assert Spy.stopped == ["spy"]


def test_a_subscription_does_not_outlive_its_replica() -> None:
    config = {"intercom": {"topics": {"news": {"publish": ["keeper"], "subscribe": ["keeper"]}}}}
    with run_actor(Keeper, links={"intercom": True}, config=config) as harness:
        harness.call("hear", "news")
        harness.restart()
        assert harness.call("say", "news", b"hello") == 0
        assert harness.actor.rung == []


def test_an_actor_that_never_rests_is_reported() -> None:
    with run_actor(Keeper) as harness, pytest.raises(RuntimeError, match="does not come to rest"):
        harness.call("never_rest")


class Witness(Actor):
    @operation
    def attest(self, body: bytes, nonce: bytes) -> dict[str, bytes]:
        attested: dict[str, bytes] = self.nitro.attest(body, nonce)
        return attested

    @operation
    def judge(self, document: bytes, statement: bytes, policy: str) -> object:
        return self.nitro.verify(document, statement, policy=policy)


def test_attestations_in_a_test_are_real_documents_of_a_simulated_root() -> None:
    with run_actor(Witness, links={"nitro": True}) as harness:
        attested = harness.call("attest", b"said", b"nonce")
        root = harness.attester.root_digest.hex()  # type: ignore[attr-defined]
        image = harness.attester.pcrs()[0][1].hex()
        policy = f"tea: policy/1\nsimulated: {{root: 'sha256:{root}'}}\npcrs: {{0: {image}}}\ndeployment: test\n"
        verdict = harness.call("judge", attested["document"], attested["statement"], policy)
        assert (verdict["actor"], verdict["body"], verdict["nonce"]) == ("witness", b"said", b"nonce")
        other = policy.replace(root, "00" * 32)
        assert code_of(harness, "judge", attested["document"], attested["statement"], other) is Code.UNTRUSTED


def test_a_parent_without_an_answer_is_unavailable() -> None:
    parent = MemoryParent()
    with pytest.raises(CallError) as caught:
        asyncio.run(parent.call(Channel.ADAPTER, "head"))
    assert caught.value.code is Code.UNAVAILABLE
    parent.answers[Channel.ADAPTER, "account"] = lambda address: (len(address), 0, 1, 2)
    assert asyncio.run(parent.call(Channel.ADAPTER, "account", b"abc")) == (3, 0, 1, 2)
    parent.tell(Channel.LOGS, "record", 1)
    assert parent.told == [Told(Channel.LOGS, "record", (1,))]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (memory.MemoryServices, base.Services),
        (memory.MemoryParent, base.ParentLink),
        (memory.MemoryAttester, base.Attester),
    ],
)
def test_what_the_harness_lends_is_what_the_host_lends(ours: type, theirs: type) -> None:
    wanted = {name for name in (*vars(theirs), *theirs.__annotations__) if not name.startswith("_")}
    offered = {name for name in (*dir(ours), *getattr(ours, "__annotations__", {})) if not name.startswith("_")}
    assert wanted <= offered
    for name in wanted:
        declared = getattr(theirs, name, None)
        if inspect.isfunction(declared):
            mine, its = inspect.signature(getattr(ours, name)), inspect.signature(declared)
            assert list(mine.parameters) == list(its.parameters), name


def test_the_harness_stamps_what_the_router_stamps() -> None:
    assert memory.Call.__struct_fields__ == Call.__struct_fields__
    assert memory.Call.__struct_defaults__ == Call.__struct_defaults__


def test_no_thread_is_left_behind() -> None:
    before = threading.active_count()
    with run_actor(Keeper, links={"kvp": True}):
        assert threading.active_count() > before
    assert threading.active_count() == before
    with pytest.raises(ValueError, match="no operation"), run_actor(Keeper, links={"kvp": ["nothing"]}):
        pass
    assert threading.active_count() == before
