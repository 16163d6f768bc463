"""The sockets under the wire: endpoints over Unix sockets and AF_VSOCK, behind one interface.

May not: believe what a peer says, or let one peer's bytes disturb another. Rule: docs/architecture.md, "The wire".
"""

from .address import Address, UnixAddress, VsockAddress
from .client import connect
from .endpoint import Endpoint
from .server import Server, listen
from .settings import Settings

__all__ = ["Address", "Endpoint", "Server", "Settings", "UnixAddress", "VsockAddress", "connect", "listen"]
