"""Makes counter.wasm from counter.wat: `python actors/wasm-counter/build.py`. The same text gives the same bytes."""

from __future__ import annotations

from pathlib import Path

from wasmtime import wat2wasm

HERE = Path(__file__).resolve().parent


def build() -> bytes:
    """The module's bytes."""
    return bytes(wat2wasm((HERE / "counter.wat").read_text()))


if __name__ == "__main__":
    (HERE / "counter.wasm").write_bytes(build())
