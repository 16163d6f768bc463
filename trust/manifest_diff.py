"""Manifests for people: what changes between two, and who in effect reaches what through whom.

May not: decide anything: it shows approvers what they are about to sign. Rule: docs/architecture.md, "Bundle, manifest,
measured boot".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from .manifest_model import Link, Manifest
from .manifest_yaml import Plain
from .names import PARENT
from .recovery import recovery_key_text

_NAMED_SECTIONS: Final = {
    "issuers": "issuer",
    "environment": "variable",
    "providers": "provider",
    "actors": "actor",
}


_DIRECT: Final = "true (past the host: who stands behind a call is not stamped)"


def diff(old: Manifest, new: Manifest) -> list[str]:
    """What changes from `old` to `new`, a line each; empty when they are the same."""
    lines: list[str] = []
    before, after = _comparable(old), _comparable(new)
    for key in sorted(before.keys() | after.keys(), key=_order):
        if key not in after:
            lines.append(f"- {key} removed (was {_show(before[key])})")
        elif key not in before:
            lines.append(f"+ {key} added: {_show(after[key])}")
        elif before[key] != after[key]:
            lines.extend(f"~ {line}" for line in _changes(key, before[key], after[key]))
    return lines


_ORDER: Final = (
    "deployment",
    "revision",
    "not_after",
    "sandbox",
    *_NAMED_SECTIONS.values(),
    "link",
    "slot",
    "quorum",
    "backup",
    "keeper",
)


def _order(key: str) -> tuple[int, str]:
    kind = key.partition(" ")[0]
    return (_ORDER.index(kind) if kind in _ORDER else len(_ORDER), key)


def _comparable(manifest: Manifest) -> dict[str, Plain]:
    """The manifest by what a person would call each part: `actor counter`, `link counter -> kvp`."""
    plain = manifest.plain()
    parts: dict[str, Plain] = {
        key: value for key, value in plain.items() if key not in (*_NAMED_SECTIONS, "links", "ra", "backup", "tea")
    }
    for section, kind in _NAMED_SECTIONS.items():
        entries = plain[section]
        if isinstance(entries, dict):
            parts.update({f"{kind} {name}": entry for name, entry in entries.items()})
    for link in manifest.links:
        parts[f"link {link.source} -> {link.name}"] = _link(link)
    if manifest.ra is not None:
        parts["quorum"] = manifest.ra.quorum
        parts.update({f"slot {slot}": one.plain() for slot, one in manifest.ra.members.items()})
    if manifest.backup is not None:
        parts["backup"] = f"{manifest.backup.threshold} of {len(manifest.backup.keepers)} keepers restore it"
        parts.update({f"keeper {name}": recovery_key_text(key) for name, key in manifest.backup.keepers.items()})
    return parts


def _link(link: Link) -> dict[str, Plain]:
    # What is given up is said where it is approved.
    return {**link.plain(), "direct": _DIRECT} if link.direct else link.plain()


def _changes(path: str, old: Plain, new: Plain) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys(), key=str):
            if key not in old:
                yield f"{path}: {key} added: {_show(new[key])}"
            elif key not in new:
                yield f"{path}: {key} removed (was {_show(old[key])})"
            elif old[key] != new[key]:
                yield from _changes(f"{path}: {key}", old[key], new[key])
    elif isinstance(old, list) and isinstance(new, list):
        gone = [_show(one) for one in old if one not in new]
        come = [_show(one) for one in new if one not in old]
        parts = [*(f"-{one}" for one in gone), *(f"+{one}" for one in come)]
        yield f"{path}: {', '.join(parts) or 'another order'}"
    else:
        yield f"{path}: {_show(old)} -> {_show(new)}"


def _show(value: Plain) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_show(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_show(item) for item in value) + "]"
    return value if isinstance(value, str) else repr(value)


def explain_reach(manifest: Manifest) -> list[str]:
    """Who can in effect reach what, a line each: directly, and through whom (the shortest way), for the parent and
    every actor. A link with `behind` counts only where all of these would stand in the chain. Then, which links are
    sticky, and which direct.
    """
    lines: list[str] = []
    for origin in (PARENT, *manifest.actors):
        reached = _reach(manifest, origin)
        for (target, way), operations in sorted(reached.items()):
            through = f" through {' and '.join(way)}" if way else ""
            lines.append(f"{origin} reaches {target}{through}: {', '.join(sorted(operations))}")
    lines.extend(
        f"calls from {link.source} to {link.target} with one value of {link.sticky} go to one replica of "
        f"{manifest.actors[link.target].replicas}"
        for link in manifest.links
        if link.sticky
    )
    lines.extend(
        f"calls from {link.source} to {link.target} go past the host (direct): {link.target} sees {link.source} as "
        "their caller, and not who stands behind them"
        for link in manifest.links
        if link.direct
    )
    return lines


def _reach(manifest: Manifest, origin: str) -> dict[tuple[str, tuple[str, ...]], set[str]]:
    """(target, through whom) to the operations that `origin` can set off there and by no shorter way."""
    # Of a chain only the names that some link asks for matter, which keeps the states few.
    asked_for = frozenset(name for link in manifest.links for name in link.behind)
    start = (origin, frozenset[str]())
    queue: list[tuple[tuple[str, frozenset[str]], tuple[str, ...]]] = [(start, ())]
    seen = {start}
    known: dict[str, set[str]] = {}
    reached: dict[tuple[str, tuple[str, ...]], set[str]] = {}
    for (at, chain), way in queue:  # grows while it is walked: breadth first
        for link in manifest.links_of(at):
            if not chain.issuperset(link.behind):
                continue
            _note(link, way, known, reached)
            state = (link.target, chain | ({at} & asked_for))
            if link.target in manifest.actors and state not in seen:
                seen.add(state)
                queue.append((state, (*way, link.target)))
    return reached


def _note(
    link: Link,
    way: tuple[str, ...],
    known: dict[str, set[str]],
    reached: dict[tuple[str, tuple[str, ...]], set[str]],
) -> None:
    new = set(link.operations) - known.setdefault(link.target, set())
    if new:
        known[link.target] |= new
        reached.setdefault((link.target, way), set()).update(new)
