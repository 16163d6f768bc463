"""The base class of every actor: a Thespian actor whose operations, hooks and messages cannot be retried by mistake.

May not: talk to anything but its links. Hooks have Pykka's names and meaning; messages are Thespian's.
Rule: docs/architecture.md, "Processes".
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import thespian.actors
from thespian.actors import (
    ActorAddress,
    ActorExitRequest,
    ChildActorExited,
    DeadEnvelope,
    PoisonMessage,
    WakeupMessage,
)

from tea.protocol.errors import CallError

from . import binding as _binding
from .link import Link


class Actor(thespian.actors.Actor):  # type: ignore[misc]
    """Subclass it, mark methods with `@operation`, use links as attributes.

    Everything runs on one thread, one thing at a time: operations, hooks and messages never overlap, and a call over a
    link blocks this actor and nobody else.
    """

    caller: str = ""
    """Who called the operation that runs: an actor's name, `parent`, or `provider:NAME`; empty outside operations."""
    chain: tuple[str, ...] = ()
    """Who stands behind the caller, nearest first."""
    deadline: float | None = None
    """Seconds that remained of the caller's patience when the call was delivered; None: it waits for ever."""

    binding: _binding.Binding | None = None
    """Where it runs; None when the class was instantiated by hand."""
    hooks: _binding.Hooks = _binding.Hooks.CREATED
    """How far its life has come; `sdk.binding` moves it."""

    def __new__(cls, *args: object, **kwargs: object) -> typing.Self:
        actor = typing.cast(typing.Self, super().__new__(cls))
        actor.binding = bound = _binding.active()
        if bound is not None:
            for name in bound.links:
                if hasattr(cls, name):
                    raise TypeError(
                        f"the link {name!r} has the name of an attribute of {cls.__name__}: "
                        f"give the manifest's link another with `as:`"
                    )
        return actor

    # -- hooks ---------------------------------------------------------------------------------------------------

    def on_start(self) -> None:
        """Called once, after links are bound and before the first operation or message; may call links.

        What it raises means that the actor could not start: no operation is called, the supervisor starts it anew.
        Of a child actor it is called before its first message.
        """

    def on_stop(self) -> None:
        """Called once when the actor is drained or asked to exit; may call links.

        Not called when the worker crashes, is killed, runs out of its limits, or when `on_start` failed.
        """

    def on_failure(self, exception: Exception) -> None:
        """Called with what an operation, a hook or a message handler raised.

        Not called for a `CallError` that an operation raises: that is its answer. The caller has INTERNAL and the log
        has the traceback already; the actor lives on. To end it, raise `SystemExit` here. Not called when the worker
        is killed.
        """

    # -- Thespian's messages ---------------------------------------------------------------------------------------

    def on_message(self, message: Any, sender: ActorAddress) -> None:
        """A message that a child, a parent or the actor itself sent with `self.send`."""
        raise NotImplementedError(f"{type(self).__name__} got a {type(message).__name__} and has no on_message")

    def on_wakeup(self, payload: Any) -> None:
        """A time asked for with `self.wakeupAfter(period, payload)` has come."""
        raise NotImplementedError(f"{type(self).__name__} asked to be woken and has no on_wakeup")

    def on_child_exited(self, child: ActorAddress) -> None:
        """A child actor ended, or could not be created."""

    def on_dead_letter(self, message: Any, addressee: str) -> None:
        """A message could not be delivered; only after `self.handleDeadLetters()`."""
        raise NotImplementedError(f"{type(self).__name__} handles dead letters and has no on_dead_letter")

    def on_poison(self, message: Any, sender: ActorAddress) -> None:
        """A message that this actor sent made `sender` fail three times. (An `Actor` of this kit never retries: this
        comes from actors that override `receiveMessage`.)
        """
        raise RuntimeError(f"a {type(message).__name__} sent by {type(self).__name__} made its addressee fail")

    def receiveMessage(self, message: Any, sender: ActorAddress) -> None:
        """Thespian's entry. Sorts messages to the methods above; what these raise ends in `on_failure`.

        An override takes Thespian's own rule back: what it raises makes Thespian deliver the message again, three
        times in all, and then send a PoisonMessage to the sender.
        """
        try:
            self._receive_once(message, sender)
        except Exception as error:  # noqa: BLE001 - the boundary: Thespian would deliver the message again
            _binding.failed(self, error, f"the {type(message).__name__}")

    def _receive_once(self, message: Any, sender: ActorAddress) -> None:
        if isinstance(message, ActorExitRequest):
            _binding.stop(self)
            return
        if self.hooks is _binding.Hooks.CREATED:  # a child: the entry actor was started by the worker
            try:
                _binding.start(self)
            except CallError:  # logged and told to on_failure already; its parent learns of it by ChildActorExited
                self.send(self.myAddress, ActorExitRequest())
                return
        if isinstance(message, WakeupMessage):
            self.on_wakeup(message.payload)
        elif isinstance(message, ChildActorExited):
            self.on_child_exited(message.childAddress)
        elif isinstance(message, PoisonMessage):
            self.on_poison(message.poisonMessage, sender)
        elif isinstance(message, DeadEnvelope):
            self.on_dead_letter(message.deadMessage, str(message.deadAddress))
        else:
            self.on_message(message, sender)

    def createActor(
        self,
        actorClass: type[thespian.actors.Actor] | str,
        targetActorRequirements: dict[str, object] | None = None,
        globalName: str | None = None,
        sourceHash: str | None = None,
    ) -> ActorAddress:
        """Create a child actor in this worker. It has the same links, if it is an `Actor` of this kit."""
        with _binding.activated(self.binding):
            return super().createActor(actorClass, targetActorRequirements, globalName, sourceHash)

    # -- who and where ---------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The actor's name in the manifest (the class's name when it is not bound)."""
        return self.binding.identity.name if self.binding is not None else type(self).__name__

    @property
    def replica(self) -> int:
        """Which replica this is, from 0."""
        return self.binding.identity.replica if self.binding is not None else 0

    @property
    def version(self) -> str:
        """The bundle's version."""
        return self.binding.identity.version if self.binding is not None else ""

    @property
    def deployment(self) -> str:
        """The deployment's name in the manifest."""
        return self.binding.identity.deployment if self.binding is not None else ""

    @property
    def environment(self) -> Mapping[str, str]:
        """The approved environment variables that the manifest lets this actor read."""
        return self.binding.environment if self.binding is not None else MappingProxyType({})

    @property
    def links(self) -> Mapping[str, Link]:
        """The granted links, by name. `self.NAME` is the same as `self.links["NAME"]`."""
        return self.binding.links if self.binding is not None else MappingProxyType({})

    if not typing.TYPE_CHECKING:  # a type checker would believe that every attribute exists, and is a link

        def __getattr__(self, name: str) -> Link:
            if name.startswith("_"):
                raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
            link = self.links.get(name)
            if link is not None:
                self.__dict__[name] = link
                return link
            if self.binding is None:
                raise AttributeError(
                    f"{type(self).__name__} has no attribute {name!r}; if that is a link: links exist only in a "
                    f"worker or under tea.sdk.testing.run_actor({type(self).__name__}, links={{{name!r}: True}})"
                )
            raise AttributeError(
                f"{type(self).__name__} has no attribute {name!r}; if that is a link, add to the manifest's links "
                f"`- {{from: {self.name}, to: {name}, operations: [...]}}` and to the bundle's capabilities "
                f"`{name}: [...]`"
            )
