"""The links of a manifest: every granted path, checked end by end.

May not: grant a path that its source's issuer cannot ask for, or one from the untrusted parent to a provider.
Rule: docs/architecture.md, "Bundle, manifest, measured boot".
"""

from __future__ import annotations

import collections
from collections.abc import Collection, Mapping
from typing import Final

from . import names
from .claims import MAX_OPERATIONS, Issuer
from .manifest_error import ManifestCode
from .manifest_model import ActorEntry, Link
from .schema import Field

MAX_LINKS: Final = 4096
MAX_PARAMETER: Final = 64
"""Characters of a parameter's name."""
MAX_LANES: Final = 256
"""Pairs of replicas that the direct links of a manifest join: each is a socket that the host holds."""
MAX_LANES_OF_REPLICA: Final = 64
"""Lanes that end at one replica: each is a descriptor of its worker."""


def read_links(
    section: Field,
    issuers: Mapping[str, Issuer],
    providers: Mapping[str, object],
    actors: Mapping[str, ActorEntry],
) -> tuple[Link, ...]:
    """The links of a manifest, sorted by source and name. Raises `ManifestError`."""
    links: dict[tuple[str, str], Link] = {}
    for field in section.items(most=MAX_LINKS):
        given = field.mapping(("from", "to", "operations"), ("as", "behind", "sticky", "direct"))
        source = given["from"].one_of_names((names.PARENT, *actors), "`parent`, or an actor", "actors")
        target = _target(given["to"], source, providers, actors)
        if source != names.PARENT and target not in issuers[actors[source].issuer].capabilities:
            issuer = actors[source].issuer
            raise given["to"].refuse(
                ManifestCode.BAD_LINK,
                f"a link to {target}",
                f"one that a bundle of the issuer {issuer} may ask for",
                f"add {target} to issuers.{issuer}.capabilities, or drop the link",
            )
        link = Link(
            source,
            target,
            given["operations"].set_of(_operation, least=1, most=MAX_OPERATIONS),
            _link_name(given.get("as"), field, source, target),
            _behind(given["behind"], source, target, actors) if "behind" in given else (),
            _sticky(given["sticky"], target, actors) if "sticky" in given else "",
            _direct(given, source, target, actors) if "direct" in given else False,
        )
        if (source, link.name) in links:
            raise field.refuse(
                ManifestCode.DUPLICATE,
                f"a second link of {source} named {link.name!r}",
                "one of each name",
                "put the operations into one link" if source == names.PARENT else "join them, or name one with `as`",
            )
        links[source, link.name] = link
    _require_few_lanes(section, links.values(), actors)
    return tuple(links[key] for key in sorted(links))


def _operation(field: Field) -> str:
    return field.text(names.OPERATION.fullmatch, f"an operation: {names.OPERATION_MEND}")


def _target(field: Field, source: str, providers: Mapping[str, object], actors: Mapping[str, ActorEntry]) -> str:
    target = field.text(lambda _: True, "the name of a provider or an actor")
    if target in names.PROVIDER_NAMES and target not in providers:
        raise field.refuse(
            ManifestCode.BAD_LINK,
            f"the provider {target!r}, which is not started",
            "one that is",
            f"add `{target}: {{}}` under `providers`",
        )
    field.one_of_names((*providers, *actors), "a provider or an actor", "providers` or `actors")
    if source == target:
        raise field.refuse(ManifestCode.BAD_LINK, f"a link of {source} to itself", "another target", "remove it")
    if source == names.PARENT and target in providers:
        raise field.refuse(
            ManifestCode.BAD_LINK,
            f"a link of the parent to the provider {target!r}",
            "an actor: the parent is untrusted",
            "let an actor offer what is needed",
        )
    return target


def _link_name(field: Field | None, link: Field, source: str, target: str) -> str:
    default = target.replace("-", "_")
    expected = "a Python name in small letters that is none of an actor's own attributes"
    if field is None:
        if source != names.PARENT and not names.is_attribute(default):
            raise link.refuse(ManifestCode.BAD_LINK, f"the name {default!r}", expected, "name the link with `as`")
        return default
    # The parent has no attributes: its links carry the default, which the canonical form writes out.
    name = field.text(names.is_attribute if source != names.PARENT else bool, expected)
    if source == names.PARENT and name != default:
        raise field.refuse(
            ManifestCode.BAD_LINK,
            f"a name for a link of the parent, {name!r}",
            "none: it calls by the actor's name",
            "remove `as`",
        )
    return name


def _sticky(field: Field, target: str, actors: Mapping[str, ActorEntry]) -> str:
    parameter = field.text(
        lambda text: text.isidentifier() and len(text) <= MAX_PARAMETER, "the name of a parameter of its operations"
    )
    if target not in actors:
        raise field.refuse(
            ManifestCode.BAD_LINK,
            f"`sticky` on a link to {target}",
            "a link to an actor",
            "remove it: one has no replicas",
        )
    return parameter


def _direct(given: Mapping[str, Field], source: str, target: str, actors: Mapping[str, ActorEntry]) -> bool:
    field = given["direct"]
    if not field.boolean():
        return False
    if source == names.PARENT or target not in actors:
        raise field.refuse(
            ManifestCode.BAD_LINK,
            f"`direct` on a link from {source} to {target}",
            "a link from an actor to an actor",
            "remove it: this one goes by the host",
        )
    for other, why in (
        ("behind", "the host sees no direct call, and cannot say who stands behind it"),
        ("sticky", "the caller's worker chooses the replica of a direct call by its load"),
    ):
        if other in given:
            raise field.refuse(ManifestCode.BAD_LINK, f"`direct` beside `{other}`", "one of them", why)
    return True


def _require_few_lanes(section: Field, links: Collection[Link], actors: Mapping[str, ActorEntry]) -> None:
    total, ends = 0, collections.Counter[str]()
    for link in links:
        if link.direct:
            sources, targets = actors[link.source].replicas, actors[link.target].replicas
            total += sources * targets
            ends.update({link.source: targets, link.target: sources})
    for actor, count in ends.items():
        if count > MAX_LANES_OF_REPLICA:
            raise section.refuse(
                ManifestCode.TOO_LARGE,
                f"direct links that join each replica of {actor} to {count} others",
                f"at most {MAX_LANES_OF_REPLICA}",
                "have fewer replicas, or fewer links `direct`",
            )
    if total > MAX_LANES:
        raise section.refuse(
            ManifestCode.TOO_LARGE,
            f"direct links that join {total} pairs of replicas",
            f"at most {MAX_LANES}",
            "have fewer replicas, or fewer links `direct`",
        )


def _behind(field: Field, source: str, target: str, actors: Mapping[str, ActorEntry]) -> tuple[str, ...]:
    def one(item: Field) -> str:
        name = item.one_of_names((names.PARENT, *actors), "`parent`, or an actor", "actors")
        if name in (source, target):
            raise item.refuse(
                ManifestCode.BAD_LINK, f"{name!r}, an end of the link", "who stands behind the call", "remove it"
            )
        return name

    behind = field.set_of(one, least=1, most=16)
    if source == names.PARENT:
        raise field.refuse(
            ManifestCode.BAD_LINK, "`behind` on a link of the parent", "none: nobody stands behind it", "remove it"
        )
    return behind
