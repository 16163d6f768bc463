"""Calls into a guest and out of it, over wasmtime's C interface: a tenth of the time that its Python classes take.

May not: be given a function whose type was not checked: nothing is checked here (`Guest` checks every export, the
linker every import). Rule: wasmtime's C API, `func.h`, `wasmtime_func_call_unchecked`. All parameters are i32.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Final

import wasmtime
from wasmtime import _ffi as ffi

_Raw: Final[Any] = ffi.wasmtime_val_raw_t
_offered: Final[list[tuple[Callable[..., int | None], int, str | None]]] = []
_raised: BaseException | None = None
"""What an import raised; it travels through the guest as a trap, and is raised again on the other side."""


@ffi.wasmtime_func_unchecked_callback_t  # type: ignore[untyped-decorator]
def _leave(number: int | None, caller: Any, values: Any, count: int) -> int:
    # One callback for all imports, made when this module is imported: closures need memory that is executable.
    global _raised
    try:
        function, arity, result = _offered[number or 0]
        answer = function(*[values[place].i32 for place in range(arity)])
        if result is not None:
            setattr(values[0], result, answer)
    except BaseException as error:  # noqa: BLE001 (nothing may unwind through compiled code)
        _raised = error
        trap = wasmtime.Trap("an import failed")._consume()
        return ctypes.cast(trap, ctypes.c_void_p).value or 0
    return 0


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)  # type: ignore[untyped-decorator]
def _forget(number: int | None) -> None:
    """Imports live as long as the worker."""


def define(linker: wasmtime.Linker, name: str, parameters: int, result: str | None, function: Any) -> None:
    """Offer `tea.NAME`, with `parameters` i32s and a result of type `result` ("i32", "i64" or None)."""
    i32, i64 = wasmtime.ValType.i32, wasmtime.ValType.i64
    results = [] if result is None else [i32() if result == "i32" else i64()]
    kind = wasmtime.FuncType([i32() for _ in range(parameters)], results)
    _offered.append((function, parameters, result))
    raw = name.encode()
    error = ffi.wasmtime_linker_define_func_unchecked(
        linker.ptr(),
        ctypes.create_string_buffer(b"tea"),
        3,
        ctypes.create_string_buffer(raw),
        len(raw),
        kind.ptr(),
        _leave,
        len(_offered) - 1,
        _forget,
    )
    if error:
        raise wasmtime.WasmtimeError._from_ptr(error)


def prepare(store: wasmtime.Store, function: wasmtime.Func, result: str | None) -> Callable[..., int]:
    """A function of the guest, ready to be called with i32s; 0 when it has no result. Raises `wasmtime.Trap`."""
    context, target = store._context(), ctypes.byref(function._func)
    count = max(1, len(function.type(store).params))
    values = (_Raw * count)()
    call, new_trap = ffi.wasmtime_func_call_unchecked, ctypes.POINTER(ffi.wasm_trap_t)

    def run(*arguments: int) -> int:
        global _raised
        for place, argument in enumerate(arguments):
            values[place].i32 = argument
        trap = new_trap()
        error = call(context, target, values, count, ctypes.byref(trap))
        if error or trap:
            cause, _raised = _raised, None
            failure = wasmtime.WasmtimeError._from_ptr(error) if error else wasmtime.Trap._from_ptr(trap)
            raise failure if cause is None else cause
        return int(getattr(values[0], result)) if result is not None else 0

    return run
