"""What every worker goes through, gone through in the zygote first: its traces are then memory that all share.

The interpreter writes wherever it runs: reference counts, specialised instructions, caches of types. What of that is
written before the fork, no worker needs a page of its own for, nor the time.

May not: leave anything of the rehearsed actor behind, know a secret (its key is everybody's), or draw a random number:
the state of a generator would be in every worker.
Rule: docs/performance.md, "Memory of a worker".
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tea.protocol.context import encode_context
from tea.protocol.frame import Flag, Frame, Kind, encode_frame
from tea.protocol.operations import OperationDescription
from tea.sdk import binding, source_lines
from tea.sdk.system import System
from tea.trust.bundle import ClaimsInput, build_archive, build_bundle
from tea.trust.keys import PrivateKey

from .loop import run_worker
from .output import open_logging
from .wire import Welcome

_SOURCE: Final = b"""
from tea.sdk import Actor, operation

class Rehearsed(Actor):
    @operation
    def echo(self, value: bytes) -> bytes:
        return value
"""
_TIMES: Final = 10
"""The first times fill caches; a function writes to its own code until it was called eight times."""
_CALLS: Final = 16


def rehearse() -> System:
    """Run a worker with a trivial actor from its welcome to its end; a system for a worker to open its bundle in."""
    script = _script()
    for _ in range(_TIMES):
        system = System()
        ours, theirs = socket.socketpair()
        with ours, theirs, contextlib.redirect_stdout(None), contextlib.redirect_stderr(None):
            ours.sendall(script)
            with binding.activated(None):
                code = run_worker(theirs, system=system)
        if code != 0:
            raise RuntimeError(f"the rehearsal of a worker ended with {code}: no worker would start")
        source_lines.forget()
    open_logging(None, tracebacks=False)
    return System()


def _script() -> bytes:
    """All that a host would say to it."""
    key = PrivateKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))
    claims = ClaimsInput(name="rehearsed", version="0.1.0", entry="rehearsed:Rehearsed", issued_at=0, capabilities={})
    bundle = build_bundle(build_archive({"rehearsed.py": _SOURCE}), claims, key)
    welcome = Welcome(
        binding.Identity("rehearsed", 0, "0.1.0", "rehearsal", {}),
        (binding.LinkDescription(1, "itself", "rehearsed", (OperationDescription("echo", (), "bytes", ""),)),),
        claims.entry,
        hashlib.sha256(bundle).digest(),
        len(bundle),
        key.public.text,
        traceback_to_log=False,
        looks=True,
    )
    call = encode_context("parent") + msgspec.msgpack.encode([b"x"])
    frames = [
        Frame(Kind.HELLO, Flag.MORE, body=msgspec.msgpack.encode(welcome)),
        Frame(Kind.HELLO, body=bundle),
        *(Frame(Kind.CALL, Flag.CONTEXT, correlation=1 + number, deadline=1000, body=call) for number in range(_CALLS)),
        Frame(Kind.BYE),
    ]
    return b"".join(map(encode_frame, frames))
