"""No provider builds, on the host's loop, as many of Python's objects as an actor's frame has bytes.

Rule: docs/architecture.md, "Back-pressure".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import msgspec.inspect as inspected
import pytest

from tea.protocol.errors import CallError, Code
from tea.protocol.operations import Operation
from tea.providers.base import MANY, Provider
from tea.providers.clock import Clock
from tea.providers.crypto import Crypto
from tea.providers.env import Env
from tea.providers.intercom import Intercom
from tea.providers.kvp import Kvp
from tea.providers.layer1 import Layer1
from tea.providers.log import Log
from tea.providers.nitro import Nitro
from tea.providers.secrets import Secrets
from tea.providers.vmh import Vmh

PROVIDERS: tuple[type[Provider[Any]], ...] = (
    Clock, Crypto, Env, Intercom, Kvp, Layer1, Log, Nitro, Secrets, Vmh,
)  # fmt: skip
OPERATIONS = [(cls.name, one) for cls in PROVIDERS for one in cls.operations().values()]


def unbounded(found: Any) -> Iterator[str]:
    """The parts of a type that are built from as many values as the sender likes."""
    if isinstance(found, inspected.AnyType):
        yield "anything"
    elif isinstance(found, inspected.CollectionType | inspected.DictType) and (
        found.max_length is None or found.max_length > (MANY.max_length or 0)
    ):
        yield "a collection of any length"
    for name in ("item_type", "key_type", "value_type"):
        if hasattr(found, name):
            yield from unbounded(getattr(found, name))
    for part in (*getattr(found, "types", ()), *getattr(found, "item_types", ())):
        yield from unbounded(part)
    for field in getattr(found, "fields", ()):
        yield from unbounded(field.type)


@pytest.mark.parametrize(("provider", "operation"), OPERATIONS, ids=[f"{name}.{one.name}" for name, one in OPERATIONS])
def test_what_an_operation_builds_of_its_arguments_is_bounded(provider: str, operation: Operation) -> None:
    found = list(unbounded(msgspec.inspect.type_info(operation._arguments)))
    assert not found, f"{provider}.{operation.name}: use Annotated[list[...], MANY], or Undecoded for what passes on"


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        (Kvp, "set_union"),
        (Crypto, "multisig_address"),
        (Crypto, "shamir_join"),
    ],
)
def test_more_values_than_any_operation_takes_are_refused_unbuilt(cls: type[Provider[Any]], name: str) -> None:
    operation = cls.operations()[name]
    count = (MANY.max_length or 0) + 1
    places = len([one for one in operation.description.parameters if one.required])
    # Behind the head stands nothing: a decoder that looked at the values first would say that they are cut off.
    body = bytes((0x90 + places,)) + b"\xdc" + count.to_bytes(2, "big")
    with pytest.raises(CallError) as caught:
        operation.decode_arguments(body)
    assert caught.value.code is Code.INVALID
    assert name in caught.value.sentence
    assert f"length <= {count - 1}" in caught.value.sentence


def test_a_record_with_more_fields_than_any_is_refused_unbuilt() -> None:
    with pytest.raises(CallError) as caught:
        Log.operations()["info"].decode_arguments(b"\x92\xa1x\xdf\x00\x0f\xff\xff")
    assert "length <= 1024" in caught.value.sentence


def test_bounds_do_not_show_in_what_callers_are_told() -> None:
    assert "fields: dict[str, str] | None = ..." in Log.operations()["info"].signature()
    assert "keys: list[str]," in Kvp.operations()["set_union"].signature()
    assert "arguments: list[object] | None = ..." in Intercom.operations()["request"].signature()
