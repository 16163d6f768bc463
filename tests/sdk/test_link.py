"""Links: what is granted can be called by attribute, what is not cannot be named."""

from __future__ import annotations

import copy
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tea.protocol.frame import MAX_BODY
from tea.protocol.operations import OperationDescription, Parameter, operation, operations_of
from tea.sdk import CallError, Code, Link
from tea.sdk.binding import LinkDescription
from tea.sdk.link import MAX_ARGUMENTS, describe_anew


class Entry(msgspec.Struct):
    key: str
    size: int


class Service:
    """Stands for a provider: only its descriptions reach the link."""

    @operation
    def get(self, key: str) -> bytes | None:
        """The value."""
        raise NotImplementedError

    @operation
    def put(self, key: str, value: bytes, ttl: float | None = None) -> None:
        raise NotImplementedError

    @operation
    def members(self, key: str) -> set[bytes]:
        raise NotImplementedError

    @operation
    def entry(self, key: str) -> Entry:
        raise NotImplementedError

    @operation
    def find(self, prefix: str, limit: int = 100, kind: str | None = None, after: str = "") -> None:
        raise NotImplementedError

    @operation
    def tell(self, peer: str) -> int:
        raise NotImplementedError

    @operation
    def describe(self) -> str:
        raise NotImplementedError


class Recorder:
    """A `Caller` that answers with what a test put in."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int, object, float | None]] = []
        self.tells: list[tuple[int, int, object]] = []
        self.answer: object = None

    def call(self, link: int, operation: int, body: bytes, timeout: float | None) -> bytes:
        self.calls.append((link, operation, msgspec.msgpack.decode(body), timeout))
        return self.answer if isinstance(self.answer, bytes) else msgspec.msgpack.encode(self.answer)

    def tell(self, link: int, operation: int, body: bytes) -> None:
        self.tells.append((link, operation, msgspec.msgpack.decode(body)))


DESCRIBED = tuple(one.description for one in operations_of(Service).values())
NUMBER = {description.name: place for place, description in enumerate(DESCRIBED)}


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def link(recorder: Recorder) -> Link:
    return Link(LinkDescription(9, "store", "kvp", DESCRIBED), recorder)


def test_arguments_go_by_place_or_by_name(link: Link, recorder: Recorder) -> None:
    link.put("a", b"1")
    link.put(value=b"1", key="a", ttl=2.5)
    assert recorder.calls == [(9, NUMBER["put"], ["a", b"1"], None), (9, NUMBER["put"], ["a", b"1", 2.5], None)]


def test_what_is_left_out_before_a_given_argument_has_its_default(link: Link, recorder: Recorder) -> None:
    link.find("a", after="b")
    link.find("a", limit=5)
    assert [call[2] for call in recorder.calls] == [["a", 100, None, "b"], ["a", 5]]


@pytest.mark.parametrize(
    ("args", "kwargs"), [((), {}), (("a", b"", 1.0, 2), {}), (("a",), {"key": "a"}), (("a",), {"nothing": 1})]
)
def test_arguments_that_do_not_fit_are_a_type_error_and_nothing_is_sent(
    link: Link, recorder: Recorder, args: tuple[object, ...], kwargs: dict[str, object]
) -> None:
    with pytest.raises(TypeError):
        link.put(*args, **kwargs)
    assert recorder.calls == []


def test_a_result_has_the_described_type(link: Link, recorder: Recorder) -> None:
    recorder.answer = [b"x", b"y"]
    assert link.members("k") == {b"x", b"y"}
    recorder.answer = None
    assert link.get("k") is None


def test_a_result_of_a_type_that_only_the_callee_has_is_plain_data(link: Link, recorder: Recorder) -> None:
    recorder.answer = {"key": "k", "size": 1}
    assert link.entry("k") == {"key": "k", "size": 1}


def test_returning_decodes_into_a_type_of_the_callers(link: Link, recorder: Recorder) -> None:
    recorder.answer = {"key": "k", "size": 1}
    assert link.returning(Entry).entry("k") == Entry("k", 1)


@pytest.mark.parametrize("answer", [5, b"\xc1", {"key": 1}, b"\x81\x80\x01", b"\x81\x91\x80\x01", b"\x91" * 5000])
def test_an_answer_of_another_type_is_the_callees_defect(link: Link, recorder: Recorder, answer: object) -> None:
    recorder.answer = answer
    with pytest.raises(CallError) as caught:
        link.members("k")
    assert caught.value.code is Code.INTERNAL


def test_a_timeout_goes_with_the_call(link: Link, recorder: Recorder) -> None:
    link.with_timeout(0.25).get("k")
    assert recorder.calls[0][3] == 0.25
    link.get("k")
    assert recorder.calls[1][3] is None


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_timeout_that_is_no_time_is_refused(link: Link, seconds: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        link.with_timeout(seconds)


def test_tell_waits_for_no_answer(link: Link, recorder: Recorder) -> None:
    assert link.tell.put("k", b"") is None
    assert recorder.tells == [(9, NUMBER["put"], ["k", b""])]
    assert recorder.calls == []


def test_an_operation_named_tell_can_be_called(link: Link, recorder: Recorder) -> None:
    recorder.answer = 3
    assert link.tell("e2") == 3
    link.tell.tell("e2")
    assert recorder.tells == [(9, NUMBER["tell"], ["e2"])]


def test_an_operation_whose_name_the_link_took_is_called_by_item(link: Link, recorder: Recorder) -> None:
    recorder.answer = "a store"
    assert link["describe"]() == "a store"
    assert link.tell["describe"]() is None
    assert link.describe() == DESCRIBED


def test_what_is_not_granted_cannot_be_called(recorder: Recorder) -> None:
    link = Link(LinkDescription(9, "store", "kvp", DESCRIBED[:2]), recorder)
    granted = [description.name for description in DESCRIBED[:2]]
    attempts: list[Callable[[], object]] = [lambda: link.put, lambda: link.tell.put, lambda: link["put"]]
    for attempt in attempts:
        with pytest.raises(CallError) as caught:
            attempt()
        assert caught.value.code is Code.DENIED
        assert ", ".join(granted) in caught.value.sentence
        assert caught.value.details["granted"] == granted
    assert recorder.calls == []
    assert recorder.tells == []


def test_a_link_that_grants_nothing_says_so(recorder: Recorder) -> None:
    with pytest.raises(CallError, match="grants nothing"):
        _ = Link(LinkDescription(9, "store", "kvp", ()), recorder).get


def test_arguments_that_fit_no_frame_are_refused_before_they_are_sent(link: Link, recorder: Recorder) -> None:
    with pytest.raises(CallError) as caught:
        link.put("k", bytes(MAX_ARGUMENTS))
    assert caught.value.code is Code.INVALID
    assert recorder.calls == []
    assert MAX_ARGUMENTS < MAX_BODY


def test_the_stub_tells_people_what_it_is(link: Link) -> None:
    assert link.get.__doc__ == "The value."
    assert repr(link.get) == "kvp.get"
    assert "put" in dir(link)
    assert repr(link).startswith("<link store to kvp: ")


def test_an_actor_that_is_known_by_name_alone_can_be_called_by_place(recorder: Recorder) -> None:
    link = Link(LinkDescription(9, "peer", "peer", (OperationDescription("run", (), "object", ""),)), recorder)
    recorder.answer = {"a": 1}
    assert link.run(1, "two") == {"a": 1}
    assert recorder.calls == [(9, 0, [1, "two"], None)]
    with pytest.raises(TypeError, match="by place"):
        link.run(a=1)


def test_a_target_that_is_described_anew_is_so_for_every_stub_that_is_held(link: Link, recorder: Recorder) -> None:
    held, told, patient, later = link.get, link.tell.get, link.with_timeout(2.0), link.later.get
    others = {"get": (Parameter("at", "int", True), Parameter("key", "str", False, b"\xa1k"))}
    newer = tuple(
        OperationDescription(one.name, others.get(one.name, one.parameters), "set[int]", "Newer.") for one in DESCRIBED
    )
    recorder.answer = [1]
    describe_anew(link, newer)
    assert held(key="a", at=7) == {1}
    assert link.returning(list[int]).get(3, key="a") == [1]
    assert patient["get"](key="a", at=7) == {1}
    assert later(key="a", at=7).result() == {1}
    told(key="a", at=7)
    assert [call[2] for call in recorder.calls] == [[7, "a"], [3, "a"], [7, "a"], [7, "a"]]
    assert recorder.tells == [(9, NUMBER["get"], [7, "a"])]
    with pytest.raises(TypeError, match="misses the argument 'at'"):
        held(key="a")
    assert link.describe() == patient.describe() == newer


def test_an_answer_is_decoded_by_what_its_call_was_encoded_by(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def described(result: str) -> OperationDescription:
        return OperationDescription("get", (), result, "")

    link = Link(LinkDescription(1, "a", "a", (described("set[int]"),)), recorder)
    recorder.answer = [1]
    begun = link.later.get()
    call = recorder.call

    def replaced(number: int, operation: int, body: bytes, timeout: float | None) -> bytes:
        answer = call(number, operation, body, timeout)
        describe_anew(link, [described("list[int]")])
        return answer

    monkeypatch.setattr(recorder, "call", replaced)
    assert link.get() == {1}
    assert link.get() == [1]
    assert begun.result() == {1}


def test_special_names_are_not_taken_for_operations(link: Link) -> None:
    with pytest.raises(AttributeError):
        _ = link.__wrapped__
    with pytest.raises(AttributeError):
        _ = link.tell.__wrapped__
    assert copy.copy(link).describe() == DESCRIBED


def test_a_description_with_odd_type_names_does_no_harm(recorder: Recorder) -> None:
    odd = OperationDescription("get", (Parameter("key", "__import__('os')", True),), "__import__('os').getcwd()", "")
    recorder.answer = 5
    assert Link(LinkDescription(1, "a", "a", (odd,)), recorder).get("k") == 5


@given(st.binary(max_size=64), st.sampled_from(["object", "dict[str, int]", "set[bytes]", "dict[bytes, object]"]))
def test_any_answer_is_a_value_or_a_call_error(answer: bytes, result: str) -> None:
    recorder = Recorder()
    recorder.answer = answer
    link = Link(LinkDescription(1, "a", "a", (OperationDescription("get", (), result, ""),)), recorder)
    try:
        link.get()
    except CallError as error:
        assert error.code is Code.INTERNAL
