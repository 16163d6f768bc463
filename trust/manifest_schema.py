"""The one schema of manifests: a tree of plain values in, a complete `Manifest` out, or the first thing that is wrong.

May not: read YAML or CBOR itself (both arrive as the same tree and meet the same rules), or know providers' configs.
Rule: docs/architecture.md, "Bundle, manifest, measured boot".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final, TypeVar

from . import names
from .claims import Issuer
from .manifest_error import ManifestCode
from .manifest_links import read_links
from .manifest_model import (
    DIGEST_BYTES,
    MANIFEST_YAML_TAG,
    TIME_FORMAT,
    ActorEntry,
    Backups,
    Limits,
    Manifest,
    Member,
    Restart,
    Rounds,
    Variable,
)
from .manifest_yaml import Plain
from .recovery import MAX_KEEPERS, is_recovery_key, parse_recovery_key
from .schema import Field

MAX_ACTORS: Final = 256
MAX_MEMBERS: Final = 64
MAX_REPLICAS: Final = 64
MAX_VARIABLE: Final = 4096
"""Characters of an environment variable's value."""
MAX_PATTERN: Final = 256

_LIMITS: Final = {
    "memory_mib": (8, 1 << 20),
    "cpu_seconds": (1, 10**9),
    "in_flight": (1, 1 << 16),
    "kvp_bytes": (0, 1 << 40),
    "mailbox": (1, 1 << 16),
    "fuel": (1, 1 << 48),
}
_RESTART: Final = {
    "intensity": (0, 1000),
    "period_s": (1, 86_400),
    "backoff_ms": (0, 3_600_000),
    "backoff_max_ms": (0, 3_600_000),
}
_STRATEGIES: Final = (
    "one-for-one",
    "rest-for-one",
    "escalate",
)  # what the supervisor does; `intensity: 0` is never to restart
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_EGRESS: Final = re.compile(
    r"(?=.{1,253}(?::|$))[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*(?::[1-9][0-9]{0,4})?"
)
_PCR: Final = re.compile(rf"[0-9a-f]{{{2 * DIGEST_BYTES}}}")

T = TypeVar("T")


def read_manifest(root: Field) -> Manifest:
    """The manifest of a tree. Raises `ManifestError` with the first thing that is wrong."""
    fields = root.mapping(
        ("tea", "deployment", "revision"),
        ("not_after", "sandbox", "issuers", "environment", "providers", "actors", "links", "ra", "egress", "backup"),
    )
    fields["tea"].text(MANIFEST_YAML_TAG.__eq__, MANIFEST_YAML_TAG, mend=f"write `tea: {MANIFEST_YAML_TAG}`")
    section = _Sections(root, fields)
    issuers = _issuers(section("issuers"))
    environment = _environment(section("environment"))
    providers = _providers(section("providers"))
    actors = _actors(section("actors"), issuers, environment, providers)
    return Manifest(
        deployment=read_deployment(fields["deployment"]),
        revision=fields["revision"].integer(1, 2**53),
        not_after=_time(fields["not_after"]) if "not_after" in fields else None,
        sandbox=fields["sandbox"].choice(("require", "prefer")) if "sandbox" in fields else "require",
        issuers=_frozen(issuers),
        environment=_frozen(environment),
        providers=_frozen(providers),
        actors=_frozen(actors),
        links=read_links(section("links"), issuers, providers, actors),
        ra=_rounds(fields["ra"]) if "ra" in fields else None,
        egress=section("egress").set_of(_egress, least=0, most=256),
        backup=_backup(fields["backup"]) if "backup" in fields else None,
    )


def read_deployment(field: Field) -> str:
    """A deployment's name."""
    return field.text(names.DEPLOYMENT.fullmatch, "1 to 63 small letters, digits and dashes")


class _Sections:
    """Sections that may be left out: an absent one reads as an empty one."""

    def __init__(self, root: Field, fields: Mapping[str, Field]) -> None:
        self._root = root
        self._fields = fields

    def __call__(self, name: str) -> Field:
        absent = type(self._root.node)(None, self._root.node.line, {})
        return self._fields.get(name) or self._root.child(name, absent)


def _frozen(entries: Mapping[str, T]) -> Mapping[str, T]:
    return MappingProxyType({name: entries[name] for name in sorted(entries)})


def _named(field: Field, name: str, kind: str) -> None:
    if not names.is_name(name):
        raise field.refuse(ManifestCode.BAD_VALUE, f"the name {name[:80]!r}", names.NAME_MEND, f"rename the {kind}")


def _name(field: Field) -> str:
    return field.text(names.is_name, f"a name: {names.NAME_MEND}")


def _time(field: Field) -> int:
    expected = "a time in UTC such as 2027-12-31T00:00:00Z"
    text = field.text(_TIME.fullmatch, expected)
    try:
        seconds = int(datetime.strptime(text, TIME_FORMAT).replace(tzinfo=UTC).timestamp())
    except ValueError:
        raise field.refuse(ManifestCode.BAD_VALUE, field.found(), expected, "name a day that exists") from None
    if seconds < 0:
        raise field.refuse(ManifestCode.OUT_OF_RANGE, field.found(), "1970 or later", "correct it")
    return seconds


def _egress(field: Field) -> str:
    return field.text(_EGRESS.fullmatch, "a host name in small letters, perhaps with :PORT")


def _issuers(section: Field) -> dict[str, Issuer]:
    issuers: dict[str, Issuer] = {}
    for name, field in section.entries(most=MAX_ACTORS).items():
        _named(field, name, "issuer")
        given = field.mapping(("key", "actors", "capabilities"))
        issuer = Issuer(
            given["key"].key(),
            given["actors"].set_of(_name, least=1, most=MAX_ACTORS),
            given["capabilities"].set_of(_name, least=0, most=MAX_ACTORS),
        )
        for other, present in issuers.items():
            if present.key == issuer.key:
                raise given["key"].refuse(
                    ManifestCode.DUPLICATE, f"the key of {other!r}", "a key of its own", "put both under one issuer"
                )
        issuers[name] = issuer
    return issuers


def _environment(section: Field) -> dict[str, Variable]:
    variables: dict[str, Variable] = {}
    for name, field in section.entries(most=256).items():
        if names.VARIABLE.fullmatch(name) is None:
            raise field.refuse(
                ManifestCode.BAD_VALUE, f"the variable {name[:80]!r}", names.VARIABLE_MEND, "rename the variable"
            )
        given = field.mapping((), ("value", "from", "pattern", "default"))
        if ("value" in given) == ("from" in given):
            raise field.refuse(
                ManifestCode.BAD_VALUE,
                "both `value` and `from`" if "value" in given else "neither `value` nor `from`",
                "one of them",
                "write {value: TEXT} or {from: parent, pattern: REGULAR EXPRESSION}",
            )
        variables[name] = _fixed(name, field) if "value" in given else _from_parent(name, field)
    return variables


def _variable_text(field: Field) -> str:
    return field.text(lambda text: len(text) <= MAX_VARIABLE and "\0" not in text, f"at most {MAX_VARIABLE} characters")


def _fixed(name: str, field: Field) -> Variable:
    return Variable(name, value=_variable_text(field.mapping(("value",))["value"]))


def _from_parent(name: str, field: Field) -> Variable:
    given = field.mapping(("from", "pattern"), ("default",))
    given["from"].choice((names.PARENT,))
    expected = f"a regular expression of 1 to {MAX_PATTERN} characters"
    pattern = given["pattern"].text(lambda text: 1 <= len(text) <= MAX_PATTERN, expected)
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise given["pattern"].refuse(ManifestCode.BAD_VALUE, f"{error}", expected, "correct it") from None
    default = _variable_text(given["default"]) if "default" in given else None
    if default is not None and compiled.fullmatch(default) is None:
        raise given["default"].refuse(
            ManifestCode.BAD_VALUE,
            "a default that the pattern refuses",
            "one that it matches as a whole",
            "mend either",
        )
    return Variable(name, pattern=pattern, default=default)


def _providers(section: Field) -> dict[str, Mapping[str, Plain]]:
    providers: dict[str, Mapping[str, Plain]] = {}
    for name, field in section.entries(most=64).items():
        _named(field, name, "provider")
        if name in names.RESERVED_NAMES - names.PROVIDER_NAMES:
            raise field.refuse(ManifestCode.RESERVED_NAME, f"{name!r}", "a provider", "take another name")
        providers[name] = MappingProxyType({key: one.plain() for key, one in field.entries(most=1024).items()})
    return providers


def _actors(
    section: Field,
    issuers: Mapping[str, Issuer],
    environment: Mapping[str, Variable],
    providers: Mapping[str, object],
) -> dict[str, ActorEntry]:
    actors: dict[str, ActorEntry] = {}
    for name, field in section.entries(most=MAX_ACTORS).items():
        _named(field, name, "actor")
        if name in names.RESERVED_NAMES or name in providers:
            raise field.refuse(
                ManifestCode.RESERVED_NAME, f"an actor named {name!r}", "a name of its own", "rename the actor"
            )
        given = field.mapping(("version", "bundle", "issuer"), ("replicas", "limits", "restart", "environment"))
        issuer = given["issuer"].one_of_names(issuers, "an issuer", "issuers")
        if name not in issuers[issuer].actors:
            raise given["issuer"].refuse(
                ManifestCode.UNKNOWN_NAME,
                f"the issuer {issuer!r}, who may sign {', '.join(issuers[issuer].actors)}",
                f"one who may sign {name}",
                f"add {name} to issuers.{issuer}.actors",
            )
        actors[name] = ActorEntry(
            name=name,
            version=given["version"].text(names.is_version, names.SEMVER_MEND),
            bundle=given["bundle"].digest("sha256", 32),
            issuer=issuer,
            replicas=given["replicas"].integer(1, MAX_REPLICAS) if "replicas" in given else 1,
            limits=_limits(given["limits"]) if "limits" in given else Limits(),
            restart=_restart(given["restart"]) if "restart" in given else Restart(),
            environment=given["environment"].set_of(
                lambda one: one.one_of_names(environment, "a variable", "environment"), least=0, most=256
            )
            if "environment" in given
            else (),
        )
    return actors


def _limits(field: Field) -> Limits:
    given = field.mapping((), _LIMITS)
    return Limits(**{name: one.integer(*_LIMITS[name]) for name, one in given.items()})


def _restart(field: Field) -> Restart:
    given = field.mapping((), ("strategy", *_RESTART))
    strategy = given.pop("strategy").choice(_STRATEGIES) if "strategy" in given else _STRATEGIES[0]
    restart = Restart(strategy, **{name: one.integer(*_RESTART[name]) for name, one in given.items()})
    if restart.backoff_max_ms < restart.backoff_ms:
        raise field.refuse(
            ManifestCode.OUT_OF_RANGE,
            f"backoff_max_ms of {restart.backoff_max_ms}",
            f"at least backoff_ms, {restart.backoff_ms}",
            "raise it",
        )
    return restart


def _rounds(field: Field) -> Rounds:
    given = field.mapping(("members",), ("quorum",))
    members: dict[str, Member] = {}
    for slot, one in given["members"].entries(most=MAX_MEMBERS).items():
        _named(one, slot, "slot")
        value = one.mapping((), ("pcr3", "pcr4"))
        if len(value) != 1:
            raise one.refuse(
                ManifestCode.BAD_VALUE, f"{len(value)} PCRs", "either pcr4 (instance) or pcr3 (role)", "give one"
            )
        name, pcr = next(iter(value.items()))
        text = pcr.text(_PCR.fullmatch, f"{2 * DIGEST_BYTES} hex digits in small letters, in quotes")
        member = Member(slot, int(name[-1]), bytes.fromhex(text))
        for other in members.values():
            if (other.pcr, other.value) == (member.pcr, member.value):
                raise pcr.refuse(
                    ManifestCode.DUPLICATE,
                    f"the value of {other.slot!r}",
                    "another enclave's",
                    "give each slot its own",
                )
        members[slot] = member
    if not members:
        raise given["members"].refuse(ManifestCode.BAD_VALUE, "no members", "at least one", "name them, or drop `ra`")
    quorum = given["quorum"].choice(("two-thirds",)) if "quorum" in given else "two-thirds"
    return Rounds(_frozen(members), quorum)


def _backup(field: Field) -> Backups:
    given = field.mapping(("threshold", "keepers"))
    keepers: dict[str, bytes] = {}
    for name, one in given["keepers"].entries(most=MAX_KEEPERS).items():
        _named(one, name, "keeper")
        text = one.text(is_recovery_key, "x25519:BASE64, the recovery key that `teactl backup key` makes")
        key = parse_recovery_key(text)
        for other, present in keepers.items():
            if present == key:
                raise one.refuse(
                    ManifestCode.DUPLICATE, f"the key of {other!r}", "a key of its own", "a keeper keeps one share"
                )
        keepers[name] = key
    if len(keepers) < 2:
        raise given["keepers"].refuse(
            ManifestCode.BAD_VALUE, f"{len(keepers)} keepers", "two at least", "nobody restores a backup alone"
        )
    return Backups(given["threshold"].integer(2, len(keepers)), _frozen(keepers))
