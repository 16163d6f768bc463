"""Pinning: a manifest that ships with `pin` where this machine's keys and bundles go becomes one that can be approved.

May not: change anything else; what is approved is the pinned file. Rule: docs/architecture.md, "teactl".

`key: pin` under an issuer takes the issuer's public key; `bundle: pin` under an actor takes the digest of the bundle of
that name and version; `members: pin` under `ra` takes the slots that are given. Comments and order are kept.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from tea.trust.keys import PublicKey

from .building import find_bundles
from .console import Refusal

PIN: Final = "pin"


def pin(text: str, filename: str, *, issuer: PublicKey, bundles: Path, members: Mapping[str, str] | None = None) -> str:
    """The manifest's text with every `pin` filled in. Raises `Refusal` that names what could not be.

    `members` maps slots to their PCR4 in hex.
    """
    try:
        tree: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise Refusal(f"{filename}: {error}") from None
    found = find_bundles(bundles)
    digests: dict[str, str] = {}
    actors = tree.get("actors") if isinstance(tree, dict) else None
    for name, actor in (actors or {}).items():
        if isinstance(actor, dict) and actor.get("bundle") == PIN:
            version = str(actor.get("version"))
            path = found.get((name, version))
            if path is None:
                raise Refusal(
                    f"{filename}: actors.{name}: no bundle {name} {version} in {bundles}: build it with "
                    f"`teactl bundle build`"
                )
            digests[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return _fill(text, filename, issuer, digests, members)


def _fill(
    text: str, filename: str, issuer: PublicKey, digests: Mapping[str, str], members: Mapping[str, str] | None
) -> str:
    lines: list[str] = []
    section = actor = ""
    for number, line in enumerate(text.splitlines(), 1):
        if top := re.match(r"([a-z_]+):", line):
            section = top[1]
        elif section == "actors" and (named := re.match(r"  ([a-z0-9-]+):", line)):
            actor = named[1]
        if section == "issuers":
            line = re.sub(r"\bkey: pin\b", f'key: "{issuer.text}"', line)
        elif section == "actors" and re.search(r"\bbundle: pin\b", line):
            line = re.sub(r"\bbundle: pin\b", f"bundle: sha256:{digests[actor]}", line)
        elif section == "ra" and re.search(r"\bmembers: pin\b", line):
            if members is None:
                raise Refusal(f"{filename}:{number}: `members: pin` needs a network's slots: use --network")
            indent = " " * (len(line) - len(line.lstrip()) + 2)
            slots = [f'{indent}{slot}: {{pcr4: "{value}"}}' for slot, value in members.items()]
            line = "\n".join([re.sub(r"\bmembers: pin\b", "members:", line), *slots])
        lines.append(line)
    return "\n".join(lines) + "\n"
