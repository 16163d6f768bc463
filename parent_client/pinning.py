"""Pinning: a manifest that ships with `pin` where this machine's keys and bundles go becomes one that can be approved.

May not: change anything else; what is approved is the pinned file. Rule: docs/architecture.md, "teactl".

`key: pin` under an issuer takes the issuer's public key; `bundle: pin` under an actor takes the digest of the bundle of
that name and version; `members: pin` under `ra` takes the slots that are given. Comments and order are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import yaml

from tea.trust.keys import PublicKey
from tea.trust.manifest_yaml import read_yaml

from .building import find_bundles
from .refusal import Refusal

PIN: Final = "pin"


def pin(text: str, filename: str, *, issuer: PublicKey, bundles: Path, members: Mapping[str, str] | None = None) -> str:
    """The manifest's text with every `pin` filled in. Raises `Refusal` or `ManifestError` that names what could not be.

    `members` maps slots to their PCR4 in hex.
    """
    # Refuses what no manifest may hold (aliases, depth, keys twice), with its line, before anything is looked up.
    read_yaml(text, filename)
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    places: list[tuple[yaml.ScalarNode, str]] = []
    for _, entry in _entries(_at(root, "issuers")):
        if key := _pin_at(entry, "key"):
            places.append((key, f'"{issuer.text}"'))
    entries = _entries(_at(root, "actors"))
    actors = [(name, entry, place) for name, entry in entries if (place := _pin_at(entry, "bundle"))]
    found = find_bundles(bundles) if actors else {}
    for name, entry, place in actors:
        version = _at(entry, "version")
        said = version.value if isinstance(version, yaml.ScalarNode) else "without a version"
        if (name, said) not in found:
            raise Refusal(
                f"{filename}:{place.start_mark.line + 1}: actors.{name}: found no bundle {name} {said} in {bundles}, "
                "expected one: build it with `teactl bundle build`"
            )
        path, bundle = found[name, said]
        if not bundle.archive_matches:
            raise Refusal(
                f"{path}: found another archive than its claims name, expected the one that was signed: build it"
            )
        places.append((place, f"sha256:{bundle.digest.hex()}"))
    if slots := _pin_at(_at(root, "ra"), "members"):
        if not members:
            raise Refusal(
                f"{filename}:{slots.start_mark.line + 1}: found `members: pin` and no network with slots: name it with "
                "--network, or write the members out"
            )
        between = ",\n" + " " * (slots.start_mark.column + 1)
        places.append((slots, "{" + between.join(f'{slot}: {{pcr4: "{it}"}}' for slot, it in members.items()) + "}"))
    # From the end on, so that the places before stay where they are.
    for node, value in sorted(places, key=lambda place: -place[0].start_mark.index):
        text = text[: node.start_mark.index] + value + text[node.end_mark.index :]
    return text


def _entries(node: yaml.Node | None) -> Iterator[tuple[str, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield str(key.value), value


def _at(node: yaml.Node | None, name: str) -> yaml.Node | None:
    return next((value for key, value in _entries(node) if key == name), None)


def _pin_at(node: yaml.Node | None, name: str) -> yaml.ScalarNode | None:
    found = _at(node, name)
    return found if isinstance(found, yaml.ScalarNode) and found.value == PIN else None
