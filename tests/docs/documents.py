"""Documents as tests see them: where they are, their code blocks, their headings.

May not: hold tests. Rule: CONTRIBUTING.md, "Documents".
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
FLOORS = ("protocol", "trust", "sdk", "providers", "runtime", "parent_client", "enclave_image", "simulator")

_FENCED = re.compile(r"^```(\w*)(?: (\S+))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A fenced block: its language, the file that it is (or empty), its text."""

    language: str
    file: str
    text: str


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a document, in order."""
    return [Block(language, file or "", body) for language, file, body in _FENCED.findall(text)]


def prose(text: str) -> str:
    """A document without its code, fenced or inline."""
    return re.sub(
        r"`[^`\n]+`", lambda match: match[0].strip("`") if "](" not in match[0] else "", _FENCED.sub("", text)
    )


def anchors(text: str) -> set[str]:
    """What a link into a document may name after `#`: its headings, as they are shown on the web."""
    headings = re.findall(r"^#{1,6} +(.+?) *$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def committed(*patterns: str) -> list[Path]:
    """The files of the repository as version control sees them, new ones included; links are left out."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    paths = {ROOT / name for name in found.decode().split("\0") if name}
    return sorted(path for path in paths if path.is_file() and not path.is_symlink())
