"""Dispatch: a call runs once, its refusals are the caller's, its failures are nobody's but the log's."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tea.protocol.frame import MAX_BODY
from tea.protocol.operations import OperationDescription
from tea.sdk import Actor, CallError, Code, binding, operation
from tea.sdk.system import System

IDENTITY = binding.Identity("worked", 2, "1.2.3", "here", {"LOG_LEVEL": "info"})
PARENT = binding.Invocation("parent")


class Point(msgspec.Struct):
    x: int
    y: int = 0


class Worked(Actor):
    def __init__(self) -> None:
        super().__init__()
        self.runs = 0
        self.seen: list[tuple[str, tuple[str, ...], float | None]] = []
        self.told: list[Exception] = []

    def on_failure(self, exception: Exception) -> None:
        self.told.append(exception)

    @operation
    def mirror(self, point: Point) -> Point:
        """Swap."""
        self.runs += 1
        self.seen.append((self.caller, self.chain, self.deadline))
        return Point(point.y, point.x)

    @operation
    def add(self, a: int, b: int = 1) -> int:
        return a + b

    @operation
    def fail(self) -> None:
        self.runs += 1
        raise ValueError("the password is hunter2")

    @operation
    def refuse(self) -> None:
        self.runs += 1
        raise CallError(Code.CONFLICT, "not now", height=7)

    @operation
    def refuse_strangely(self) -> None:
        raise CallError(Code.CONFLICT, "not now", thing=object())  # type: ignore[arg-type]

    @operation
    def unsayable(self) -> object:
        return object()

    @operation
    def too_much(self) -> bytes:
        return bytes(MAX_BODY)

    @operation(only_from=("provider:layer1",))
    def on_head(self, height: int) -> int:
        return height

    @operation
    def end(self) -> None:
        raise SystemExit(3)


class NoCaller:
    def call(self, link: int, operation: int, body: bytes, timeout: float | None) -> bytes:
        raise AssertionError("nothing is called here")

    def tell(self, link: int, operation: int, body: bytes) -> None:
        raise AssertionError("nothing is told here")


@pytest.fixture
def system() -> Iterator[System]:
    binding.bind(IDENTITY, (), NoCaller())
    system = System.of(Worked)
    system.start()
    yield system
    system.stop()


def call(system: System, name: str, *args: Any, invocation: binding.Invocation = PARENT) -> Any:
    return msgspec.msgpack.decode(binding.dispatch(system.instance, name, msgspec.msgpack.encode(args), invocation))


def refused(system: System, name: str, *args: Any, invocation: binding.Invocation = PARENT) -> CallError:
    with pytest.raises(CallError) as caught:
        call(system, name, *args, invocation=invocation)
    return caught.value


def test_structs_travel_both_ways(system: System) -> None:
    assert call(system, "mirror", {"x": 1, "y": 2}) == {"x": 2, "y": 1}


def test_left_out_arguments_take_their_defaults(system: System) -> None:
    assert call(system, "add", 4) == 5
    assert call(system, "add", 4, 4) == 8


def test_the_instance_is_current_while_its_system_lives(system: System) -> None:
    assert binding.current() is system.instance
    system.stop()
    assert binding.current() is None


def test_an_operation_that_raises_runs_exactly_once(system: System) -> None:
    error = refused(system, "fail")
    system.pump()
    assert system.instance.runs == 1
    assert error.code is Code.INTERNAL


def test_what_an_operation_raises_does_not_reach_the_caller(system: System, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "tea.actor"):
        error = refused(system, "fail")
    assert "hunter2" not in str(error) + str(error.details)
    assert error.__cause__ is None
    assert error.__suppress_context__
    assert any(record.exc_info for record in caplog.records), "the log has the traceback"


def test_on_failure_is_told_what_an_operation_raised(system: System) -> None:
    refused(system, "fail")
    [told] = system.instance.told
    assert isinstance(told, ValueError)
    assert system.instance.binding is not None
    assert system.instance.binding.failures == 1


def test_a_refusal_is_the_callers_answer_and_no_failure(system: System) -> None:
    error = refused(system, "refuse")
    assert (error.code, error.sentence, error.details) == (Code.CONFLICT, "not now", {"height": 7})
    assert system.instance.told == []
    assert system.instance.runs == 1


def test_a_refusal_with_details_that_cannot_travel_loses_them_and_nothing_else(system: System) -> None:
    error = refused(system, "refuse_strangely")
    assert (error.code, error.sentence, error.details) == (Code.CONFLICT, "not now", {})
    assert CallError.decode(error.encode()).sentence == "not now"


def test_a_failing_on_failure_is_counted_and_goes_no_further(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Worked, exception: Exception) -> None:
        raise KeyError("again")

    monkeypatch.setattr(Worked, "on_failure", fail)
    assert refused(system, "fail").code is Code.INTERNAL
    assert system.instance.binding is not None
    assert system.instance.binding.failures == 2


def test_a_result_that_cannot_travel_is_a_defect_of_the_actor(system: System) -> None:
    assert refused(system, "unsayable").code is Code.INTERNAL


def test_a_result_too_large_for_a_frame_says_so(system: System) -> None:
    error = refused(system, "too_much")
    assert error.code is Code.EXHAUSTED
    assert "pages" in error.sentence


@pytest.mark.parametrize("args", [(), ("one",), (1, 2, 3), (1.5,), ({},)])
def test_arguments_that_do_not_fit_are_invalid(system: System, args: tuple[Any, ...]) -> None:
    error = refused(system, "add", *args)
    assert error.code is Code.INVALID
    assert "add(a: int, b: int = ...)" in error.sentence


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x92\x01", b"\x81\xa1a\x01", b"\x91\x01\x91"])
def test_a_body_that_is_no_array_of_arguments_is_invalid(system: System, body: bytes) -> None:
    with pytest.raises(CallError) as caught:
        binding.dispatch(system.instance, "add", body, PARENT)
    assert caught.value.code is Code.INVALID


@pytest.mark.parametrize("name", ["nothing", "on_start", "send", "__init__", "createActor", "told"])
def test_what_is_no_operation_cannot_be_called(system: System, name: str) -> None:
    error = refused(system, name)
    assert error.code is Code.NOT_FOUND
    assert "mirror" in error.sentence


def test_only_from_refuses_other_callers(system: System) -> None:
    assert call(system, "on_head", 5, invocation=binding.Invocation("provider:layer1")) == 5
    for caller in ("parent", "layer1", "provider:vmh", ""):
        assert refused(system, "on_head", 5, invocation=binding.Invocation(caller)).code is Code.DENIED


def test_the_callers_rights_are_checked_before_the_arguments(system: System) -> None:
    assert refused(system, "on_head", "no number").code is Code.DENIED


def test_an_operation_sees_its_caller_and_nobody_sees_it_after(system: System) -> None:
    call(system, "mirror", {"x": 0}, invocation=binding.Invocation("a", ("b", "parent"), 2.5))
    assert system.instance.seen == [("a", ("b", "parent"), 2.5)]
    assert (system.instance.caller, system.instance.chain, system.instance.deadline) == ("", (), None)


def test_the_caller_is_forgotten_after_a_failure_too(system: System) -> None:
    refused(system, "fail", invocation=binding.Invocation("a", ("b",), 1.0))
    assert (system.instance.caller, system.instance.chain, system.instance.deadline) == ("", (), None)


def test_system_exit_ends_the_process_and_is_not_kept_in(system: System) -> None:
    with pytest.raises(SystemExit):
        binding.dispatch(system.instance, "end", b"\x90", PARENT)


def test_an_actor_knows_who_and_where_it_is(system: System) -> None:
    actor = system.instance
    assert (actor.name, actor.replica, actor.version, actor.deployment) == ("worked", 2, "1.2.3", "here")
    assert dict(actor.environment) == {"LOG_LEVEL": "info"}
    with pytest.raises(TypeError):
        actor.environment["LOG_LEVEL"] = "debug"  # type: ignore[index]


def test_two_links_of_one_name_are_refused() -> None:
    link = binding.LinkDescription(1, "kvp", "kvp", ())
    with pytest.raises(ValueError, match="as:"):
        binding.bind(IDENTITY, (link, msgspec.structs.replace(link, number=2)), NoCaller())


def test_an_actor_made_by_hand_has_no_links_and_says_what_to_use() -> None:
    with binding.activated(None):
        actor = Worked()
    assert actor.name == "Worked"
    with pytest.raises(AttributeError, match="run_actor"):
        _ = actor.kvp


def test_a_missing_link_names_the_manifest_line_to_add(system: System) -> None:
    with pytest.raises(AttributeError, match=r"- \{from: worked, to: kvp, operations: \[\.\.\.\]\}"):
        _ = system.instance.kvp


def test_a_private_attribute_that_is_missing_is_not_mistaken_for_a_link(system: System) -> None:
    with pytest.raises(AttributeError, match=r"no attribute '_kvp'$"):
        _ = system.instance._kvp


def test_a_link_may_not_hide_an_attribute_of_the_class() -> None:
    description = OperationDescription("get", (), "int", "")
    binding.bind(IDENTITY, (binding.LinkDescription(1, "mirror", "kvp", (description,)),), NoCaller())
    with pytest.raises(TypeError, match="as:"):
        Worked()


def test_start_runs_once(system: System) -> None:
    with pytest.raises(RuntimeError, match="started already"):
        system.start()


class Async(Actor):
    @operation
    async def later(self) -> int:
        return 1


class Private(Actor):
    @operation
    def _hidden(self) -> int:
        return 1


class Taken(Actor):
    @operation
    def send(self, a: int, b: int) -> None: ...


class Untyped(Actor):
    @operation
    def guess(self, a) -> int:  # type: ignore[no-untyped-def]
        return 1


@pytest.mark.parametrize(
    ("cls", "why"), [(Async, "async"), (Private, "private"), (Taken, "belongs to Actor"), (Untyped, "annotation")]
)
def test_an_operation_that_could_never_be_called_rightly_is_refused_at_once(cls: type[Actor], why: str) -> None:
    with pytest.raises(TypeError, match=why):
        binding.operations(cls)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=64), st.sampled_from(["mirror", "add", "on_head"]))
def test_any_body_is_an_answer_or_a_refusal(system: System, body: bytes, name: str) -> None:
    try:
        binding.dispatch(system.instance, name, body, binding.Invocation("provider:layer1"))
    except CallError as error:
        assert error.code is Code.INVALID
