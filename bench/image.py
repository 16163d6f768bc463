"""Reading, verifying and writing a large image, against a bare SHA-384 of the same bytes; `eif_build` where it is.

Not a benchmark of disks: the file is read once before anything is timed. Describing hashes the root twice (PCR0, PCR2)
on two processors: `processor_over_seconds` near 2 says that both were free, and less that the ratio is the machine's.
`python -m bench.image [--json]`.
Rule: docs/architecture.md, "Performance budget"; figures of one run on one machine, as ratios.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

MIB: Final = 1 << 20
DESCRIBE_BUDGET: Final = 1.25
MEMORY_BUDGET_MIB: Final = 64


def main(argv: list[str] | None = None) -> int:
    """Run and print. 0: within the budget; 1: over it."""
    parser = argparse.ArgumentParser(prog="python -m bench.image", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--size", type=int, default=300, help="MiB of the image")
    parser.add_argument("--rounds", type=int, default=9, help="repetitions; the fastest of each counts")
    parser.add_argument("--step", choices=["describe", "verify"], help=argparse.SUPPRESS)
    parser.add_argument("--image", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.step:
        return _step(arguments.step, arguments.image, arguments.rounds)
    with tempfile.TemporaryDirectory(prefix="bench-image-") as folder:
        result = measure(Path(folder), arguments.size, arguments.rounds)
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        for name, value in result.items():
            print(f"{name:28} {value}")
    return 0 if result["within_budget"] else 1


def measure(folder: Path, size: int, rounds: int) -> dict[str, object]:
    """The figures, seconds and MiB."""
    image = folder / "large.eif"
    writing = _write(folder, image, size)
    bare: list[float] = []
    described: list[float] = []
    verified: list[float] = []
    peaks: list[float] = []
    work: list[float] = []
    for _ in range(rounds):  # turn about, so that a busy machine is busy for all three
        bare.append(_seconds(lambda: _sha384(image)))
        for step, seconds in (("describe", described), ("verify", verified)):
            took, processor, peak = _in_process(step, image)
            seconds.append(took)
            work.append(processor)
            peaks.append(peak)
    ratio = min(described) / min(bare)
    result: dict[str, object] = {
        "image_mib": round(image.stat().st_size / MIB, 1),
        "write_seconds": round(writing, 3),
        "sha384_seconds": round(min(bare), 3),
        "describe_seconds": round(min(described), 3),
        "verify_seconds": round(min(verified), 3),
        "describe_over_sha384": round(ratio, 3),
        "processor_over_seconds": round(min(work) / min(described), 2),
        "peak_memory_mib": round(max(peaks), 1),
        "cpus": len(os.sched_getaffinity(0)),
    }
    result.update(_warm_build(folder))
    result.update(_peer(folder, image))
    result["within_budget"] = ratio <= DESCRIBE_BUDGET and max(peaks) < MEMORY_BUDGET_MIB
    return result


def _write(folder: Path, image: Path, size: int) -> float:
    """An image of random bytes, shaped as ours are: kernel, small init ramdisk, root ramdisk; the seconds it took."""
    from tea.enclave_image.eif.metadata import Metadata
    from tea.enclave_image.eif.writer import compose, write_image

    source = random.Random(5)
    for name, count in (("kernel", 8), ("init", 2), ("root", size - 10)):
        with (folder / name).open("wb") as file:
            for _ in range(count):
                file.write(source.randbytes(MIB))
    metadata = Metadata("bench", "1", "2026-01-01T00:00:00Z", "tea", "0", "Debian", "6.1")
    pieces = compose(folder / "kernel", "console=ttyS0", [folder / "init", folder / "root"], metadata)
    return _seconds(lambda: write_image(image, pieces))


def _sha384(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        hashlib.file_digest(file, "sha384")


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _in_process(step: str, image: Path) -> tuple[float, float, float]:
    """Seconds, processor seconds and peak resident MiB of a step in an interpreter of its own."""
    command = [sys.executable, "-m", "bench.image", "--step", step, "--image", str(image), "--rounds", "1"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    seconds, processor, peak = (float(word) for word in done.stdout.split())
    return seconds, processor, peak


def _step(step: str, image: Path, rounds: int) -> int:
    from tea.enclave_image.eif.describe import describe_image
    from tea.enclave_image.eif.reader import open_image
    from tea.enclave_image.eif.verify import verify_image

    def work() -> None:
        with open_image(image) as opened:
            (describe_image if step == "describe" else verify_image)(opened)

    before = time.process_time()
    seconds = min(_seconds(work) for _ in range(rounds))
    processor = (time.process_time() - before) / rounds
    print(seconds, processor, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return 0


def _warm_build(folder: Path) -> dict[str, object]:
    """Building the real image when everything that it needs is cached; nothing is fetched for a bench."""
    from tea.enclave_image.assembly import debian
    from tea.enclave_image.assembly.builder import BuildPlan, build_image
    from tea.enclave_image.assembly.cache import Cache

    cache = Path(__file__).parents[1] / ".tea" / "cache"
    packages = Cache(cache / "packages")
    there = all(packages.find(one.digest, f"{one.name}.deb") for one in debian.read_lock())
    if not (there and any(cache.glob("wheels/*/wheels.sha256"))):
        return {"build_seconds": "not cached: run teactl image build once"}
    built = build_image(BuildPlan(folder / "built.eif", cache=cache))
    return {
        "build_seconds": round(built.seconds, 2),
        "built_mib": round(built.size / MIB, 1),
        "built_root_mib": round(built.root_size / MIB, 1),
    }


def _peer(folder: Path, image: Path) -> dict[str, object]:
    """AWS's `eif_build` over the same inputs, where it is on PATH: seconds, and whether measurements agree."""
    tool = shutil.which("eif_build")
    if tool is None:
        return {"eif_build": "not on PATH"}
    from tea.enclave_image.eif.compare import compare
    from tea.enclave_image.eif.describe import describe_image
    from tea.enclave_image.eif.reader import open_image

    theirs = folder / "theirs.eif"
    command = [tool, "--kernel", str(folder / "kernel"), "--cmdline", "console=ttyS0", "--output", str(theirs)]
    command += ["--kernel_config", os.devnull, "--name", "bench", "--version", "1"]
    command += ["--ramdisk", str(folder / "init"), "--ramdisk", str(folder / "root")]
    seconds = _seconds(lambda: subprocess.run(command, check=True, capture_output=True))
    with open_image(image) as ours, open_image(theirs) as other:
        found = compare(describe_image(ours), describe_image(other))
    return {
        "eif_build_seconds": round(seconds, 3),
        "eif_build_same_pcrs": not any(one.what.startswith("PCR") for one in found),
        "eif_build_differs_in": [one.what for one in found],
    }


if __name__ == "__main__":
    sys.exit(main())
