"""Runs the console blocks of a document in a folder and compares what they print, `...` standing for anything.

May not: run anything but what the document shows. Rule: CONTRIBUTING.md, "Documents".
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .documents import blocks

SECONDS = 120
"""For one command, on a machine that is busy."""


@dataclass(frozen=True)
class Step:
    """One command and what the document says that it prints."""

    command: str
    expected: str


def steps(console: str) -> Iterator[Step]:
    """The commands of a console block. `$ ` begins one; a line after a `\\` or within `<<'EOF'` goes on with it."""
    command: list[str] = []
    expected: list[str] = []
    open_ended = False
    for line in console.splitlines():
        if line.startswith("$ ") and not open_ended:
            if command:
                yield Step("\n".join(command), "\n".join(expected))
            command, expected = [line[2:]], []
        elif open_ended:
            command.append(line.removeprefix("> "))
        else:
            expected.append(line)
            continue
        text = "\n".join(command)
        heredoc = "<<'EOF'" in text and not text.endswith("\nEOF")
        open_ended = heredoc or text.endswith("\\")
    if command:
        yield Step("\n".join(command), "\n".join(expected))


def matches(expected: str, printed: str) -> bool:
    """Whether a text is what was expected; `...` stands for anything within a line, alone in a line for any lines."""
    parts = []
    for line in expected.strip("\n").split("\n"):
        if line.strip() == "...":
            parts.append(r"(?:[^\n]*\n)*?")
        else:
            parts.append("[^\n]*?".join(re.escape(piece) for piece in line.rstrip().split("...")) + r"[ ]*\n")
    plain = "\n".join(line.rstrip() for line in printed.strip("\n").split("\n")) + "\n"
    if not expected.strip():
        return not printed.strip()
    return re.fullmatch("".join(parts), plain) is not None


class Shell:
    """A folder in which commands run one after the other, as in a terminal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {
            name: value
            for name, value in os.environ.items()
            if name in ("HOME", "LANG", "PYTHONPATH", "TMPDIR", "USER")
        }
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._environment = {**kept, "PATH": path, "COLUMNS": "100", "TEA_HOME": str(folder / ".tea")}

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run one command; what it prints is standard output and standard error, as they came."""
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=SECONDS,
            check=False,
        )


def follow(shell: Shell, text: str) -> int:
    """Write a document's files and run its console blocks, in order; how many commands printed and ended as it says.

    A command whose printed text begins with `teactl: ` is refused, and ends with 1; all others end with 0.
    """
    done = 0
    for block in blocks(text):
        if block.file:
            path = shell.folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        elif block.language == "console":
            for step in steps(block.text):
                ended = shell.run(step.command)
                assert matches(step.expected, ended.stdout), (
                    f"$ {step.command}\n--- the document says\n{step.expected}\n--- it prints\n{ended.stdout}"
                )
                refused = step.expected.startswith("teactl: ")
                assert ended.returncode == (1 if refused else 0), f"$ {step.command}: status {ended.returncode}"
                done += 1
    return done
