"""One WASM module and its running instance: what it may import, how bytes get in and out, what bounds it.

May not: be imported by a worker that runs Python, give a guest WASI, threads or time, or believe a pointer of it.
Rule: docs/wasm.md, "The guest's side"; docs.wasmtime.dev, "Security" and "Deterministic Wasm Execution".
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
import wasmtime
from wasmtime import FuncType, ValType

from tea.protocol.errors import CallError, Code
from tea.protocol.frame import MAX_BODY
from tea.sdk.binding import Caller, LinkDescription
from tea.sdk.link import MAX_ARGUMENTS

from .guest_calls import define, prepare
from .wire import CONTROL_LINK, MAX_LOG_LINE

MAX_MODULE: Final = 4 << 20
"""Bytes of a module: compiling takes seconds for each MiB, and a multiple of it in memory."""
MAX_STACK: Final = 512 * 1024
"""Bytes of stack that a guest's functions may take."""
MAX_TABLE: Final = 100_000
DEFAULT_FUEL: Final = 5_000_000_000
"""Instructions, about, that one call may take when the manifest says nothing: a few seconds."""
MAX_LINEAR: Final = (1 << 31) - (1 << 16)
"""Bytes of linear memory at most: the highest bit of a packed result says that it is an error."""
_CORE_MODULE: Final = b"\0asm\1\0\0\0"
_PAGE: Final = 64 * 1024
_FAILED: Final = 1 << 63
_OFFERED: Final = ("call", "caller", "identity", "link", "log", "operation", "tell")
_LEVELS: Final = ("debug", "info", "warning", "error")

_I32: Final = ValType.i32()
_I64: Final = ValType.i64()
_EXPORTS: Final = {
    "tea_alloc": ((_I32,), (_I32,)),
    "tea_handle": ((_I32, _I32, _I32), (_I64,)),
}
_MAY_EXPORT: Final = {"tea_start": ((), (_I64,)), "tea_stop": ((), ())}


class GuestError(Exception):
    """The guest trapped or broke the rules of the interface: its instance is given up."""


class ModuleError(Exception):
    """The module cannot be run here; the sentence says why. Safe to tell whoever pushed it."""


def linear_bytes(memory_bytes: int) -> int:
    """Linear memory of a guest whose worker may take `memory_bytes`: three quarters, the rest is for its code."""
    return min(memory_bytes * 3 // 4, MAX_LINEAR) // _PAGE * _PAGE


def _engine(memory_bytes: int) -> wasmtime.Engine:
    config = wasmtime.Config()
    # One thread: there is no other to count epochs, so instructions are counted; and none to compile on.
    config.consume_fuel = True
    config.parallel_compilation = False
    # No signal handlers, no guard pages: bounds are checked by code, and memory is one mapping of the largest size.
    config.signals_based_traps = False
    config.memory_reservation = linear_bytes(memory_bytes)
    config.memory_reservation_for_growth = 0
    config.memory_guard_size = 0
    config.memory_may_move = False
    config.memory_init_cow = False  # it would need a file
    config.max_wasm_stack = MAX_STACK
    config.native_unwind_info = False
    # The same results on every machine.
    config.cranelift_nan_canonicalization = True
    config.wasm_relaxed_simd = False
    # What compilers of today emit, and nothing else.
    config.wasm_threads = False
    config.shared_memory = False
    config.wasm_multi_memory = False
    config.wasm_memory64 = False
    config.wasm_exceptions = False
    config.wasm_gc = False
    config.wasm_function_references = False
    config.wasm_tail_call = False
    config.wasm_component_model = False
    return wasmtime.Engine(config)


class Guest:
    """A compiled module, and its instance, which is made anew after a trap."""

    def __init__(
        self,
        module: bytes,
        *,
        memory_bytes: int,
        fuel: int,
        links: tuple[LinkDescription, ...],
        caller: Caller,
        log: Callable[[str, str], None],
        identity: bytes,
    ) -> None:
        """Compile. `fuel` 0: `DEFAULT_FUEL`; `identity` is msgpack for the guest. Raises `ModuleError`."""
        if len(module) > MAX_MODULE:
            raise ModuleError(f"the module has {len(module)} bytes, at most {MAX_MODULE}")
        if not module.startswith(_CORE_MODULE):
            # wasmtime would take text, too: what is signed is what is compiled.
            raise ModuleError("the module is not valid: it does not begin as a core module in binary form does")
        self._memory_limit = linear_bytes(memory_bytes)
        self._engine = _engine(memory_bytes)
        try:
            self._module = wasmtime.Module(self._engine, module)
        except wasmtime.WasmtimeError as error:
            raise ModuleError(f"the module is not valid: {_first_line(error)}") from None
        self.fuel = fuel or DEFAULT_FUEL
        self._links: Mapping[bytes, LinkDescription] = {link.name.encode(): link for link in links}
        self._operations = {
            link.number: {one.name.encode(): place for place, one in enumerate(link.operations)} for link in links
        }
        self._caller = caller
        self._log = log
        self._identity = identity
        self._context = b""
        self._store: wasmtime.Store | None = None
        self._alloc: Callable[..., int] = self._gone
        self._handle: Callable[..., int] = self._gone
        self._stop: Callable[[], int] | None = None
        self._size: Callable[[], int] = lambda: 0
        self._base = 0
        """Where its memory lies; it does not move: the mapping has the largest size from the beginning."""
        self._linker = self._offer()
        self._require_shape()

    # -- from the host's side ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Make an instance and run its `tea_start`, if it has one. Raises `ModuleError`, `GuestError`, `CallError`."""
        self.end()
        store = self._store = wasmtime.Store(self._engine)
        store.set_limits(memory_size=self._memory_limit, table_elements=MAX_TABLE, instances=1, tables=8, memories=1)
        store.set_fuel(self.fuel)
        self._context = b""
        try:
            instance = self._linker.instantiate(store, self._module)
        except (wasmtime.WasmtimeError, wasmtime.Trap) as error:
            self.end()
            raise ModuleError(f"the module cannot be instantiated: {_first_line(error)}") from None
        except BaseException:
            self.end()
            raise
        exports = instance.exports(store)
        memory = exports["memory"]
        assert isinstance(memory, wasmtime.Memory)
        self._size = lambda: memory.data_len(store)
        self._base = ctypes.cast(memory.data_ptr(store), ctypes.c_void_p).value or 0

        def exported(name: str, result: str | None) -> Callable[..., int]:
            function = exports[name]
            assert isinstance(function, wasmtime.Func)
            return prepare(store, function, result)

        self._alloc, self._handle = exported("tea_alloc", "i32"), exported("tea_handle", "i64")
        self._stop = exported("tea_stop", None) if "tea_stop" in self._exported else None
        if "tea_start" in self._exported:
            start = exported("tea_start", "i64")
            try:
                self._run("tea_start", b"", lambda: self._taken("tea_start", start()))
            except CallError:
                self.end()
                raise

    def handle(self, name: str, number: int, arguments: bytes, context: bytes) -> bytes:
        """Run one operation: its result as msgpack. Raises `CallError` as the guest answered, or `GuestError`.

        EXHAUSTED when it took more than its fuel. After a trap the next call meets a fresh instance.
        """
        if self._store is None:
            self.start()

        def run() -> bytes:
            place = self._put(arguments)
            return self._taken(name, self._handle(number, place, len(arguments)))

        return self._run(name, context, run)

    def stop(self) -> None:
        """Run `tea_stop`, if there is one, and end the instance. Raises `GuestError`, `CallError`."""
        stop = self._stop if self._store is not None else None
        if stop is not None:
            self._run("tea_stop", b"", lambda: bytes(stop()))
        self.end()

    def end(self) -> None:
        """Give the instance up, and its memory back."""
        store, self._store = self._store, None
        if store is not None:
            self._alloc = self._handle = self._gone
            self._stop, self._base, self._size = None, 0, lambda: 0
            store.close()

    @staticmethod
    def _gone(*arguments: int) -> int:
        raise GuestError("there is no instance")

    def _run(self, name: str, context: bytes, run: Callable[[], bytes]) -> bytes:
        assert self._store is not None
        self._store.set_fuel(self.fuel)
        self._context = context
        try:
            return run()
        except wasmtime.Trap as trap:
            # Whatever it was in the middle of is half done (a Rust guest's stack pointer, to begin with).
            self.end()
            if trap.trap_code is wasmtime.TrapCode.OUT_OF_FUEL:
                raise CallError(
                    Code.EXHAUSTED,
                    f"{name} took more than the {self.fuel} instructions that one call may take",
                    limit=self.fuel,
                ) from None
            raise GuestError(trap.message) from None
        except CallError:
            raise  # an answer: the guest returned, whole
        except wasmtime.WasmtimeError as error:
            self.end()
            raise GuestError(str(error)) from None
        except BaseException:
            # A broken rule, the socket's end, no memory: what an import raises ends the guest where it stood.
            self.end()
            raise

    # -- memory ------------------------------------------------------------------------------------------------

    def _read(self, pointer: int, length: int) -> bytes:
        pointer &= 0xFFFFFFFF
        length &= 0xFFFFFFFF
        size = self._size()
        if pointer + length > size:
            raise GuestError(f"it named {length} bytes at {pointer}, and has {size} bytes of memory")
        return ctypes.string_at(self._base + pointer, length)

    def _put(self, data: bytes) -> int:
        """Copy bytes into memory that the guest allocates; where they lie."""
        length = len(data)
        pointer = self._alloc(length) & 0xFFFFFFFF
        size = self._size()
        # 0 is how an allocator says that it has nothing left.
        if pointer == 0 or pointer + length > size:
            raise GuestError(f"its tea_alloc({length}) answered {pointer}, and it has {size} bytes of memory")
        ctypes.memmove(self._base + pointer, data, length)
        return pointer

    def _give(self, data: bytes, *, failed: bool = False) -> int:
        packed = self._put(data) << 32 | len(data) | (_FAILED if failed else 0)
        return packed - (1 << 64) if packed & _FAILED else packed

    def _taken(self, name: str, packed: int) -> bytes:
        length = packed & 0xFFFFFFFF
        if length > MAX_BODY:
            raise CallError(
                Code.EXHAUSTED,
                f"the result of {name} has {length} bytes, at most {MAX_BODY} fit: answer in pages",
                limit=MAX_BODY,
            )
        data = self._read(packed >> 32 & 0x7FFFFFFF, length)
        if packed < 0:
            raise CallError.decode(data)
        return data

    # -- what the guest may import -----------------------------------------------------------------------------

    def _offer(self) -> wasmtime.Linker:
        linker = wasmtime.Linker(self._engine)
        define(linker, "call", 5, "i64", self._call)
        define(linker, "tell", 4, "i32", self._tell)
        define(linker, "link", 2, "i32", self._link)
        define(linker, "operation", 3, "i32", self._operation)
        define(linker, "caller", 0, "i64", lambda: self._give(self._context))
        define(linker, "identity", 0, "i64", lambda: self._give(self._identity))
        define(linker, "log", 3, None, self._say)
        return linker

    def _call(self, link: int, operation: int, pointer: int, length: int, timeout_ms: int) -> int:
        try:
            number, body = self._checked(link, operation, pointer, length)
            # The numbers are the guest's word: which links there are, the router knows.
            answer = self._caller.call(number, operation, body, timeout_ms / 1000 if timeout_ms > 0 else None)
        except CallError as error:
            return self._give(error.encode(), failed=True)
        return self._give(answer)

    def _tell(self, link: int, operation: int, pointer: int, length: int) -> int:
        try:
            number, body = self._checked(link, operation, pointer, length)
            self._caller.tell(number, operation, body)
        except CallError as error:
            return int(error.code)
        return 0

    def _checked(self, link: int, operation: int, pointer: int, length: int) -> tuple[int, bytes]:
        number = link & 0xFFFFFFFF
        if number == CONTROL_LINK:
            raise CallError(Code.DENIED, "0 is no link: it is what tea.link answers when none is granted")
        if not 0 <= operation <= 0xFFFF:
            raise CallError(Code.DENIED, f"{operation} is no operation: it is what tea.operation answers for none")
        if length & 0xFFFFFFFF > MAX_ARGUMENTS:
            raise CallError(Code.INVALID, f"the arguments take {length & 0xFFFFFFFF} bytes, at most {MAX_ARGUMENTS}")
        return number, self._read(pointer, length)

    def _link(self, pointer: int, length: int) -> int:
        found = self._links.get(self._read(pointer, length))
        if found is None:
            return 0
        return found.number - (1 << 32) if found.number >> 31 else found.number

    def _operation(self, link: int, pointer: int, length: int) -> int:
        return self._operations.get(link & 0xFFFFFFFF, {}).get(self._read(pointer, length), -1)

    def _say(self, level: int, pointer: int, length: int) -> None:
        text = self._read(pointer, min(length & 0xFFFFFFFF, MAX_LOG_LINE)).decode(errors="replace")
        self._log(_LEVELS[level] if 0 <= level < len(_LEVELS) else "info", text)

    # -- what the module must be -------------------------------------------------------------------------------

    def _require_shape(self) -> None:
        for one in self._module.imports:
            if one.module != "tea" or one.name not in _OFFERED:
                raise ModuleError(
                    f"the module imports {one.module[:40]}.{(one.name or '')[:40]}, which is not offered: "
                    f"there are {', '.join(f'tea.{name}' for name in _OFFERED)} (no WASI)"
                )
        found = {one.name: one.type for one in self._module.exports}
        self._exported = frozenset(found)
        if not isinstance(found.get("memory"), wasmtime.MemoryType):
            raise ModuleError("the module exports no memory named memory")
        for name, (parameters, results) in {**_EXPORTS, **_MAY_EXPORT}.items():
            kind = found.get(name)
            if kind is None and name in _MAY_EXPORT:
                continue
            if (
                not isinstance(kind, FuncType)
                or [str(one) for one in kind.params] != [str(one) for one in parameters]
                or [str(one) for one in kind.results] != [str(one) for one in results]
            ):
                wanted = f"({', '.join(map(str, parameters))}) -> ({', '.join(map(str, results))})"
                raise ModuleError(f"the module exports no function {name}{wanted}")


def context_bytes(caller: str, chain: tuple[str, ...], deadline: float | None) -> bytes:
    """What `tea.caller` gives: msgpack `[caller, [chain], milliseconds that remain or nil]`."""
    return msgspec.msgpack.encode((caller, chain, None if deadline is None else int(deadline * 1000)))


def _first_line(error: Exception) -> str:
    # What wasmtime says of a module is about the module alone; it may quote names of the module's author.
    return " ".join(str(error).split())[:400]
