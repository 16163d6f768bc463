"""Fuzz one target for some seconds in this process: with atheris where it is installed, else with hypothesis.

May not: be imported by a test: libFuzzer ends the process. `python fuzz_one.py TARGET SECONDS`, the last line it writes
is `EXECUTIONS n`. Rule: docs/security.md, "Fuzzing".
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def main() -> None:
    """Choose the engine."""
    name, seconds = sys.argv[1], int(sys.argv[2])
    sys.path.insert(0, str(HERE))
    try:
        import atheris
    except ImportError:
        with_hypothesis(name, seconds)
        return
    with atheris.instrument_imports(include=["tea", "targets"]):
        from targets import TARGETS  # type: ignore[import-not-found, unused-ignore]
    found = ROOT / "build" / "fuzz" / name
    found.mkdir(parents=True, exist_ok=True)
    arguments = [
        sys.argv[0],
        str(found),
        str(HERE / "corpus" / name),
        f"-max_total_time={seconds}",
        f"-artifact_prefix={found.parent}/crash-{name}-",
        "-max_len=16384",
        "-timeout=10",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    atheris.Setup(arguments, TARGETS[name])
    atheris.Fuzz()


def with_hypothesis(name: str, seconds: int) -> None:
    """Mutations of the corpus, chosen by hypothesis."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st
    from targets import TARGETS

    seeds = [path.read_bytes() for path in sorted((HERE / "corpus" / name).iterdir())]
    target, count, end = TARGETS[name], 0, time.monotonic() + seconds

    @st.composite
    def mutated(draw: st.DrawFn) -> bytes:
        data = bytearray(draw(st.sampled_from(seeds)))
        for _ in range(draw(st.integers(0, 4))):
            at = draw(st.integers(0, len(data)))
            data[at : at + draw(st.integers(0, 8))] = draw(st.binary(max_size=8))
        return bytes(data)

    @settings(
        max_examples=500,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(mutated() | st.binary(max_size=256))
    def once(data: bytes) -> None:
        nonlocal count
        count += 1
        target(data)

    while time.monotonic() < end:
        once()
    print(f"stat::number_of_executed_units: {count}")


if __name__ == "__main__":
    main()
