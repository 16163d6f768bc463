"""What stands at the other end of a link in a test: a provider, a double of one, or another actor's harness.

May not: skip the wire form: arguments and results are encoded and decoded as between processes.
Rule: docs/architecture.md, "Providers".
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from tea.protocol.errors import CallError, Code
from tea.protocol.operations import Operation, OperationDescription, operations_of

from ..binding import Invocation
from .clock import LoopThread
from .services import Call

CALL_TIMEOUT: Final = 10.0
"""Seconds of real time after which a call without a timeout of its own fails the test with DEADLINE."""

_LOG: Final = logging.getLogger("tea.providers")


class Target(Protocol):
    """One end of a link."""

    def describe(self) -> Mapping[str, OperationDescription]:
        """Its operations, by name."""
        ...

    def call(self, operation: str, body: bytes, context: Call) -> bytes:
        """Arguments in, result out; `context.deadline` is the link's timeout in seconds. Raises `CallError`."""
        ...


class ObjectTarget:
    """A provider (operations take a `Call` first) or any object with `@operation` methods, plain or async."""

    def __init__(self, name: str, service: Any, operations: Mapping[str, Operation], loop: LoopThread) -> None:
        self._name = name
        self._service = service
        self._operations = operations
        self._loop = loop
        self._with_call = is_provider(type(service))

    def describe(self) -> Mapping[str, OperationDescription]:
        return {name: operation.description for name, operation in self._operations.items()}

    def call(self, operation: str, body: bytes, context: Call) -> bytes:
        declared = self._operations[operation]
        declared.require_caller(context.caller)
        arguments = declared.decode_arguments(body)
        method = getattr(self._service, declared.function_name)
        timeout = CALL_TIMEOUT if context.deadline is None else context.deadline
        try:
            result = method(context, *arguments) if self._with_call else method(*arguments)
            if inspect.iscoroutine(result):
                result = self._loop.run(result, timeout)
            return declared.encode_result(result)
        except CallError:
            raise
        except TimeoutError as error:
            raise CallError(Code.DEADLINE, f"{self._name}.{operation}: {error}") from error
        except Exception as error:
            _LOG.exception("%s.%s failed", self._name, operation)
            raise CallError(Code.INTERNAL, f"{self._name}.{operation} failed; its log has the cause") from error


class ActorTarget:
    """Another harness: its actor is called by name, with the chain that stands behind the call."""

    def __init__(
        self,
        describe: Callable[[], Mapping[str, OperationDescription]],
        deliver: Callable[[str, bytes, Invocation], bytes],
    ) -> None:
        self._describe = describe
        self._deliver = deliver

    def describe(self) -> Mapping[str, OperationDescription]:
        return self._describe()

    def call(self, operation: str, body: bytes, context: Call) -> bytes:
        return self._deliver(operation, body, Invocation(context.caller, context.chain, context.deadline))


def is_provider(cls: type) -> bool:
    """Whether a class is a provider by its shape (the sdk does not import their base class)."""
    return callable(getattr(cls, "operations", None)) and hasattr(cls, "config_type")


def operations_of_service(cls: type) -> Mapping[str, Operation]:
    """The operations of a provider's or a double's class. Raises `TypeError` when there are none."""
    found: Mapping[str, Operation] = cls.operations() if is_provider(cls) else operations_of(cls)  # type: ignore[attr-defined]
    if not found:
        raise TypeError(f"{cls.__name__} has no operations: mark its methods with @operation")
    return found
