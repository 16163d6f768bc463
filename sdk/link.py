"""A link as an actor sees it: `self.kvp.get("key")`. Attributes are built from what the manifest grants.

May not: offer an operation that is not granted; the router would refuse it, the link says so sooner and clearer.
Rule: docs/architecture.md, "The wire" and "Providers".
"""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable, Iterable
from typing import Any, Final, NoReturn

import msgspec

from tea.protocol.errors import CallError, Code
from tea.protocol.frame import MAX_BODY
from tea.protocol.operations import OperationDescription

from .result_types import result_type

if typing.TYPE_CHECKING:
    from .binding import Caller, LinkDescription

MAX_ARGUMENTS: Final = MAX_BODY - 16 * 1024
"""Bytes that a call's encoded arguments may have: a frame less room for the router's context (caller and chain)."""

_ENCODER: Final = msgspec.msgpack.Encoder()


@functools.lru_cache(maxsize=1024)
def _decoder(described: str) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(result_type(described))


class Pending:
    """The answer to a call that was begun with `link.later`; `result()` waits for it."""

    __slots__ = ("_finish", "_signature", "_stub", "_value")

    def __init__(self, finish: Callable[[], bytes], stub: Stub, signature: Signature) -> None:
        self._finish: Callable[[], bytes] | None = finish
        self._stub = stub
        self._signature = signature
        self._value: Any = None

    def result(self) -> Any:
        """The typed result; the same at every later call. Raises `CallError` as the call itself would."""
        finish, self._finish = self._finish, None
        if finish is not None:
            self._value = self._stub.decode(self._signature, finish())
        return self._value


class Signature:
    """An operation's description as stubs use it. When the target describes itself anew, another takes its place."""

    __slots__ = ("decoder", "description", "least", "most")

    def __init__(self, description: OperationDescription) -> None:
        self.description = description
        self.decoder: msgspec.msgpack.Decoder[Any] | None = None
        """Made with the first answer: most operations of most links are never called."""
        self.least = sum(parameter.required for parameter in description.parameters)
        self.most = len(description.parameters)


class Stub:
    """One operation of a link, callable. Arguments by place or by name; a result of the described type."""

    def __init__(
        self,
        link: LinkDescription,
        signatures: list[Signature],
        number: int,
        caller: Caller,
        *,
        timeout: float | None,
        result: Any,
        oneway: bool,
    ) -> None:
        self._link = link
        self._signatures = signatures
        self._number = number
        self._caller = caller
        self._begin = getattr(caller, "begin", None)
        self._timeout = timeout
        self._oneway = oneway
        self._decoder = None if result is None else msgspec.msgpack.Decoder(result)
        description = signatures[number].description
        self.__name__ = description.name
        self.__doc__ = description.doc

    def __call__(self, *args: object, **kwargs: object) -> Any:
        """Raises `CallError` with the callee's code, or `TypeError` on arguments that do not fit the signature."""
        # Looked up once: while the call waits the target may describe itself anew, and whoever has it in hand has not.
        signature = self._signatures[self._number]
        body = self._encode(signature, args, kwargs)
        if len(body) > MAX_ARGUMENTS:
            raise CallError(
                Code.INVALID,
                f"{self!r}: the arguments take {len(body)} bytes, at most {MAX_ARGUMENTS} fit: send them in parts",
            )
        if self._oneway:
            self._caller.tell(self._link.number, self._number, body)
            return None
        return self.decode(signature, self._caller.call(self._link.number, self._number, body, self._timeout))

    def begin(self, *args: object, **kwargs: object) -> Pending:
        """Send the call without waiting for its answer. A caller that cannot (a test's) answers at once."""
        signature = self._signatures[self._number]
        body = self._encode(signature, args, kwargs)
        begin = self._begin
        if begin is None:
            answer = self._caller.call(self._link.number, self._number, body, self._timeout)
            return Pending(lambda: answer, self, signature)
        return Pending(begin(self._link.number, self._number, body, self._timeout), self, signature)

    def decode(self, signature: Signature, answer: bytes) -> Any:
        """An answer, typed. Raises `CallError(INTERNAL)` when it is something else."""
        decoder = self._decoder or signature.decoder
        if decoder is None:
            decoder = signature.decoder = _decoder(signature.description.result)
        try:
            return decoder.decode(answer)
        except (msgspec.DecodeError, RecursionError, ValueError, TypeError) as error:
            # TypeError: a map with a key that cannot be hashed. The callee may be an actor, its bytes anything.
            raise CallError(Code.INTERNAL, f"{self!r} answered with something else: {error}") from None

    def _encode(self, signature: Signature, args: tuple[object, ...], kwargs: dict[str, object]) -> bytes:
        if not kwargs and signature.least <= len(args) <= signature.most:
            return _ENCODER.encode(args)  # by far the most frequent, and nothing needs to be looked up by name
        described = signature.description
        if described.parameters or described.result != "object":
            return described.encode_arguments(args, kwargs)
        # An actor that has not started yet is known by its operations' names alone: the callee checks the arguments.
        if kwargs:
            raise TypeError(f"{self!r} is not described yet: give {', '.join(kwargs)} by place, not by name")
        return msgspec.msgpack.encode(args)

    def __repr__(self) -> str:
        return f"{self._link.target}.{self.__name__}"


class Link:
    """A numbered, granted path to a provider or an actor; its granted operations are its attributes.

    `link.op(...)` calls and waits; `link.tell.op(...)` sends without an answer; `link.with_timeout(2.5).op(...)` gives
    the callee seconds; `link.later.op(...)` sends the call and gives a `Pending`, so that many can be under way at
    once; `link.returning(MyStruct).op(...)` decodes the result into a type of yours. An operation whose name one of
    these words took is `link["describe"](...)` (but `link.tell(...)` works where the target has a `tell`).
    """

    def __init__(
        self,
        description: LinkDescription,
        caller: Caller,
        *,
        timeout: float | None = None,
        result: Any = None,
        signatures: list[Signature] | None = None,
    ) -> None:
        self._description = description
        # One list for this link, the links that are made of it, and all their stubs, whoever holds them.
        self._signatures = [Signature(one) for one in description.operations] if signatures is None else signatures
        self._caller = caller
        self._timeout = timeout
        self._result = result
        self._numbers = {operation.name: place for place, operation in enumerate(description.operations)}
        self.tell = Tell(self)
        self.later = Later(self)

    def describe(self) -> tuple[OperationDescription, ...]:
        """What the manifest grants on this link: names, parameters, results, documentation."""
        return tuple(signature.description for signature in self._signatures)

    def with_timeout(self, seconds: float) -> Link:
        """The same link, whose calls wait at most this many seconds, then raise `CallError(DEADLINE)`."""
        if not seconds > 0:
            raise ValueError(f"a timeout is a positive number of seconds, got {seconds!r}")
        return Link(self._description, self._caller, timeout=seconds, result=self._result, signatures=self._signatures)

    def returning(self, result: Any) -> Link:
        """The same link, whose results are decoded into the type `result` (a msgspec Struct, `list[int]`, ...)."""
        return Link(self._description, self._caller, timeout=self._timeout, result=result, signatures=self._signatures)

    def __getitem__(self, name: str) -> Stub:
        return self.stub(name)

    def __getattr__(self, name: str) -> Stub:
        if name.startswith("_"):
            raise AttributeError(name)  # copy, pickle and inspect ask for such names; no operation has one
        stub = self.stub(name)
        self.__dict__[name] = stub  # found without this method from now on
        return stub

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._numbers})

    def __repr__(self) -> str:
        return f"<link {self._description.name} to {self._description.target}: {', '.join(self._numbers)}>"

    def stub(self, name: str, *, oneway: bool = False) -> Stub:
        """The callable of one operation. Raises `CallError(DENIED)` when the manifest does not grant it."""
        number = self._numbers.get(name)
        if number is None:
            self._refuse(name)
        return Stub(
            self._description, self._signatures, number, self._caller,
            timeout=self._timeout, result=self._result, oneway=oneway,
        )  # fmt: skip

    def _refuse(self, name: str) -> NoReturn:
        granted = list(self._numbers)
        raise CallError(
            Code.DENIED,
            f"the link {self._description.name} grants {', '.join(granted) or 'nothing'}, not {name!r}: add it to the "
            f"operations of the manifest's link to {self._description.target}, if the target has it",
            link=self._description.name,
            operation=name,
            granted=granted,
        )


def describe_anew(link: Link, operations: Iterable[OperationDescription]) -> None:
    """The link's operations as its target declares them now, for its stubs too that are held; names and places stay.

    For the worker. No method: an actor's operation may have any such name.
    """
    link._signatures[:] = [Signature(one) for one in operations]


class Later:
    """`link.later`: the link's operations, begun now and waited for later."""

    __slots__ = ("_link",)

    def __init__(self, link: Link) -> None:
        self._link = link

    def __getattr__(self, name: str) -> Callable[..., Pending]:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._link.stub(name).begin


class Tell:
    """`link.tell`: the link's operations without an answer."""

    __slots__ = ("_link",)

    def __init__(self, link: Link) -> None:
        self._link = link

    def __getattr__(self, name: str) -> Stub:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._link.stub(name, oneway=True)

    def __getitem__(self, name: str) -> Stub:
        return self._link.stub(name, oneway=True)

    def __call__(self, *args: object, **kwargs: object) -> Any:
        """The target's own operation named `tell` (vmh has one)."""
        return self._link.stub("tell")(*args, **kwargs)
