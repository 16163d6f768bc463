"""Thespian's in-process actor system around one entry actor: load its bundle, create it, pump what it sends.

May not: run in the host (a bundle's code and `builtins.__import__` are this process's); open sockets or files.
Rule: docs/architecture.md, "Processes"; Thespian 4.0.1, `system/simpleSystemBase.py` and `system/sourceLoader.py`.
"""

from __future__ import annotations

import builtins
import io
import logging
import typing
from collections.abc import Callable
from typing import Any, Final

import thespian.actors

# Thespian loads these by name when it needs them; a sandboxed worker could not any more.
import thespian.system.simpleSystemBase
import thespian.system.sourceLoader
from thespian.system.utilis import thesplog_control

from . import binding, source_lines, thespian_loading
from .actor import Actor
from .mailbox import Mailbox

Verify = Callable[[bytes], bytes]
"""Takes a whole bundle file, checks signature and digests anew, returns its archive (a zip); raises to refuse."""

PUMP_LIMIT: Final = 256
"""Messages that one `pump` delivers at most, so that an actor that keeps sending to itself still answers calls."""

_SIMPLE: Final = "simpleSystemBase"


class LoadError(Exception):
    """A bundle did not become an actor: the sentence says what is wrong with it and where to mend it."""


class _Guard(thespian.actors.Actor):  # type: ignore[misc]
    """The Source Authority: nothing is loaded but what `verify` gives back."""

    verify: Verify
    refusal: Exception | None = None

    def receiveMessage(self, message: Any, sender: thespian.actors.ActorAddress) -> None:
        if isinstance(message, thespian.actors.ValidateSource):
            try:
                archive = self.verify(message.sourceData)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a refusal, and Thespian would ask again
                self.refusal = error
                return
            self.send(sender, thespian.actors.ValidatedSource(message.sourceHash, archive))
        elif message is _Guard:
            self.registerSourceAuthority()


class System:
    """One process's actor system. `System.load(...)` in a worker, `System.of(...)` for a class at hand."""

    def __init__(self) -> None:
        thespian_loading.install()
        thesplog_control(logging.CRITICAL, False, 0)  # Thespian's own log is a file in /tmp
        # transientUnique: not the process-wide singleton; logDefs=False: the process's logging stays as it is.
        self._system = thespian.actors.ActorSystem(_SIMPLE, logDefs=False, transientUnique=True)
        self._base: Any = self._system._systemBase
        self._guard = self._authority()
        self._entry: thespian.actors.ActorAddress | None = None
        self._entry_name = ""
        """Its address, as Thespian's registry has it."""
        self._instance: Actor | None = None

    @classmethod
    def load(cls, bundle: bytes, entry: str, verify: Verify) -> System:
        """A new system with a bundle's actor in it: see `open`."""
        system = cls()
        system.open(bundle, entry, verify)
        return system

    def open(self, bundle: bytes, entry: str, verify: Verify) -> None:
        """Load a bundle through Thespian's `loadActorSource` and create its entry actor under the active binding.

        `entry` is `module:Class` from the verified claims. Raises `LoadError`; what `verify` raises passes as it is.
        """
        module, colon, name = entry.partition(":")
        if not (module and colon and name.isidentifier()):
            raise LoadError(f"the entry is {entry!r}, expected module:Class")
        before = builtins.__import__
        try:
            self._create(f"{module}.{name}", self._load_source(bundle, verify))
        finally:
            # The bundle's imports of its own modules are rewritten when they are compiled; the replaced __import__ is
            # for computed names only, and would make every later import of this process look into the bundle first.
            builtins.__import__ = before

    @classmethod
    def of(cls, actor_class: type[thespian.actors.Actor]) -> System:
        """A system around a class that is imported already (tests). Raises `LoadError`."""
        system = cls()
        system._create(actor_class, None)
        return system

    def _authority(self) -> _Guard:
        address = self._system.createActor(_Guard)
        self._system.tell(address, _Guard)
        return typing.cast(_Guard, self._base.actorRegistry[address.actorAddressString].instance)

    def _load_source(self, bundle: bytes, verify: Verify) -> str:
        guard = self._guard
        guard.verify = verify
        label: str = self._system.loadActorSource(io.BytesIO(bundle))
        if guard.refusal is not None:
            raise guard.refusal
        if label not in self._base._sources:
            raise LoadError("the bundle's archive is no zip file")
        source_lines.install(self._base._sources[label])
        return label

    def _create(self, actor_class: type[thespian.actors.Actor] | str, label: str | None) -> None:
        named = actor_class if isinstance(actor_class, str) else actor_class.__qualname__
        try:
            self._entry = self._system.createActor(actor_class, sourceHash=label)
            self._entry_name = self._entry.actorAddressString
            instance = self._base.actorRegistry[self._entry_name].instance
            if not isinstance(instance, thespian.actors.Actor):
                raise TypeError("it is no subclass of tea.sdk.Actor or thespian.actors.Actor")
            if not isinstance(instance, Actor):
                instance = self._mailbox()
            binding.operations(type(instance))
        except Exception as error:
            raise LoadError(f"{named} cannot be created: {type(error).__name__}: {error}") from error
        self._instance = instance
        binding.set_current(instance)

    def _mailbox(self) -> Mailbox:
        """What speaks for an entry actor that was written against plain Thespian."""
        _, instance = self.create(Mailbox)
        mailbox = typing.cast(Mailbox, instance)
        mailbox.open(self)
        return mailbox

    def create(
        self, actor_class: type[thespian.actors.Actor]
    ) -> tuple[thespian.actors.ActorAddress, thespian.actors.Actor]:
        """Create an actor beside the entry actor; its address and instance."""
        address = self._system.createActor(actor_class)
        return address, self._base.actorRegistry[address.actorAddressString].instance

    def send(self, sender: thespian.actors.ActorAddress, message: object) -> None:
        """Queue a message for the entry actor; `pump` delivers it."""
        self._base.actor_send(sender, self._entry, message)

    @property
    def instance(self) -> Actor:
        """What answers operations: the entry actor, or the mailbox of one that was written against plain Thespian."""
        if self._instance is None:
            raise RuntimeError("no actor was created in this system")
        return self._instance

    @property
    def alive(self) -> bool:
        """False once the entry actor exited, by `stop` or by an ActorExitRequest of its own."""
        reference = self._base.actorRegistry.get(self._entry_name)
        return reference is not None and reference.instance is not None

    def start(self) -> None:
        """Run `on_start`. Raises `CallError` when it failed; then no operation may be dispatched."""
        binding.start(self.instance)

    def pump(self, limit: int = PUMP_LIMIT) -> int:
        """Deliver due wake-ups and pending messages, at most `limit`; how many were delivered.

        Call it after every dispatch and when `next_wakeup` says so.
        """
        base = self._base
        if base._wakeUps:
            base._realizeWakeups()
        elif not base._pendingSends:
            return 0
        delivered = 0
        while delivered < limit and base._pendingSends:
            base._runSingleSend(base._pendingSends.pop(0))
            delivered += 1
        if delivered:
            self._drop_unreachable()
        return delivered

    @property
    def idle(self) -> bool:
        """Whether no message is pending and no wake-up asked for."""
        return not self._base._pendingSends and not self._base._wakeUps

    def next_wakeup(self) -> float | None:
        """Seconds until `pump` has something to do: 0.0 for now, None for not before the next call."""
        base = self._base
        if base._pendingSends:
            return 0.0
        return float(base._next_wakeup().view().remainingSeconds()) if base._wakeUps else None

    def hasten(self, seconds: float) -> None:
        """Bring every wake-up nearer by this many seconds: how a test lets time pass."""
        for _, timer, _ in self._base._wakeUps:
            timer._time_to_quit -= seconds

    def stop(self) -> None:
        """Ask the entry actor and its children to exit (`on_stop` runs), deliver what is left, end the system."""
        if self._entry is not None and self.alive:
            self._base.actor_send(self._system.systemAddress, self._entry, thespian.actors.ActorExitRequest())
            self.pump()
        if binding.current() is self._instance:
            binding.set_current(None)
        self._system.shutdown()

    def _drop_unreachable(self) -> None:
        # What is sent to the system itself or to "whoever is outside" piles up there for an ask() that never comes.
        for name in self._base._internalAddresses:
            self._base.actorRegistry[name].instance.__dict__.pop("responses", None)
