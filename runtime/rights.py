"""Rights: what a frame of a worker may do, by the number of its link, its operation and the call that it is made for.

May not: know names that a worker gives, or look into a body. Rule: docs/architecture.md, "Rights".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Final

from tea.protocol.context import MAX_CHAIN
from tea.protocol.errors import CallError, Code
from tea.protocol.frame import MAX_BODY, Frame, Kind
from tea.protocol.sticky import KEY_BYTES

from .in_flight import nobody_waits
from .links import Grant

if TYPE_CHECKING:
    from .worker_port import WorkerPort

CONTEXT_ROOM: Final = 4096
"""Bytes of a frame that are left for the context: an argument body may have `MAX_BODY` less this."""
MAX_ARGUMENTS: Final = MAX_BODY - CONTEXT_ROOM
_CALL: Final = Kind.CALL


def granted(port: WorkerPort, frame: Frame) -> tuple[Grant, tuple[str, ...]]:
    """The grant that a CALL or TELL names, and who stands behind it. Raises `CallError`."""
    grant = port.links.get(frame.link)
    if grant is None:
        port.refused("a link that it was not given")
        raise CallError(Code.DENIED, f"{port.name} has no link {frame.link}", link=frame.link)
    if frame.operation >= len(grant.operations):
        port.refused(f"an operation that its link to {grant.target} does not have")
        raise CallError(
            Code.DENIED,
            f"{port.name} has no operation {frame.operation} on its link to {grant.target}",
            link=frame.link,
            operation=frame.operation,
        )
    if grant.revoked and frame.operation in grant.revoked:
        port.refused(f"an operation of its link to {grant.target} that a newer revision took away")
        raise CallError(
            Code.DENIED,
            f"the running manifest does not grant {grant.operations[frame.operation]} on the link from {port.name} to "
            f"{grant.target} any more",
            link=frame.link,
        )
    chain: tuple[str, ...] = ()
    if frame.cause:
        cause = port.delivered.get(frame.cause)
        if cause is None:
            port.refused("a cause that it was not given")
            raise CallError(Code.DENIED, f"{port.name} names a cause that it was not given", cause=frame.cause)
        chain = (cause.caller, *cause.chain)
        if cause.origin is None and cause.kind is _CALL:
            # A message is waited for by nobody in any case; but nobody stands behind it any more.
            if frame.kind is _CALL:
                raise nobody_waits()
            if grant.behind:
                raise CallError(Code.DENIED, f"the call that {port.name} names has ended: nobody is behind it any more")
        if len(chain) > MAX_CHAIN:
            raise CallError(Code.EXHAUSTED, f"the chain of callers is longer than {MAX_CHAIN}")
    if grant.behind and not grant.behind.issubset(chain):
        raise CallError(
            Code.DENIED,
            f"the link from {port.name} to {grant.target} demands {' and '.join(sorted(grant.behind))} behind the "
            f"call; behind this one stands {', '.join(chain) or 'nobody'}",
        )
    if len(frame.body) > MAX_ARGUMENTS:
        raise CallError(Code.INVALID, f"arguments of {len(frame.body)} bytes, at most {MAX_ARGUMENTS} fit a call")
    return grant, chain


def split_key(body: bytes) -> tuple[bytes, bytes]:
    """The key that a worker puts in front of the arguments on a sticky link, and the arguments. Raises `CallError`."""
    if len(body) < KEY_BYTES:
        raise CallError(Code.INVALID, f"a call on a sticky link begins with a key of {KEY_BYTES} bytes")
    return body[:KEY_BYTES], body[KEY_BYTES:]


def require_parent_link(
    grants: Mapping[str, frozenset[str]], actors: Collection[str], actor: str, operation: str
) -> None:
    """Raise `CallError` unless the manifest has a link `from: parent` for this operation."""
    allowed = grants.get(actor)
    if allowed is None:
        if actor not in actors:
            there = ", ".join(sorted(actors)) or "none"
            raise CallError(Code.NOT_FOUND, f"no actor {actor} in the manifest: there are {there}")
        raise CallError(Code.DENIED, f"the manifest has no link from parent to {actor}")
    if operation not in allowed:
        raise CallError(
            Code.DENIED,
            f"the link from parent to {actor} does not grant {operation}: it grants {', '.join(sorted(allowed))}",
        )
