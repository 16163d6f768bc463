"""The channels: plain interfaces, whose every operation and message crosses the wire as it is declared."""

from __future__ import annotations

import inspect

import msgspec
import pytest

from tea.protocol import channels
from tea.protocol.channels import Channel
from tea.protocol.operations import numbered

INTERFACES = [
    value
    for value in vars(channels).values()
    if inspect.isclass(value)
    and value.__module__ == channels.__name__
    and not issubclass(value, msgspec.Struct | Channel)
]


def test_the_numbers_of_the_channels_are_the_wires_and_never_change() -> None:
    assert {channel.name: int(channel) for channel in Channel}.items() >= {
        "CONTROL": 1,
        "ADAPTER": 2,
        "PEERS": 3,
        "FACADE": 4,
        "LOGS": 5,
        "OPERATOR": 6,
    }.items()


@pytest.mark.parametrize("interface", INTERFACES)
def test_every_operation_is_typed_and_documented(interface: type) -> None:
    operations = numbered(interface)
    assert operations
    public = {name for name, _ in inspect.getmembers(interface, inspect.isfunction) if not name.startswith("_")}
    assert set(operations) == public
    for _, operation in operations.values():
        assert operation.description.doc, operation.signature()


@pytest.mark.parametrize("interface", INTERFACES)
async def test_an_interface_holds_no_logic(interface: type) -> None:
    service = interface()
    for name, (_, operation) in numbered(interface).items():
        arguments = [None] * len(operation.description.parameters)
        with pytest.raises(NotImplementedError):
            await getattr(service, name)(*arguments)


def test_messages_come_out_as_they_went_in() -> None:
    head = channels.Head(7, b"h" * 32, b"p" * 32, b"s" * 32, 1_700_000_000)
    blocks = (channels.BlockChanges(head, {b"key": b"value", b"gone": None}),)
    (_, operation) = numbered(channels.Adapter)["blocks"]
    assert operation.decode_result(operation.encode_result(blocks)) == blocks
    offer = channels.SettingsOffer(b"m", (b"c",), {"A": "b"}, (channels.BundleOffer(b"d" * 32, (b"c" * 32,), 5),))
    (_, operation) = numbered(channels.Control)["offer"]
    assert operation.decode_arguments(operation.encode_arguments(offer)) == (offer,)
