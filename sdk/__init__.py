"""All that an actor author imports. Tests of actors also import `tea.sdk.testing`.

May not: import providers or the host. Rule: docs/architecture.md, "The house".
"""

from thespian.actors import ActorAddress, ActorExitRequest

from tea.protocol.errors import CallError, Code
from tea.protocol.operations import OperationDescription, operation

from .actor import Actor
from .binding import together
from .link import Link
from .version import SDK_VERSION

__all__ = [
    "SDK_VERSION",
    "Actor",
    "ActorAddress",
    "ActorExitRequest",
    "CallError",
    "Code",
    "Link",
    "OperationDescription",
    "operation",
    "together",
]
