"""The door to policies: a relying party's YAML in, a checked `Policy` out, or a checked combination of policies.

May not: accept a key that it does not know, or a value that it has to guess.
Rule: docs/architecture.md, "Policies"; the checks themselves stand in `policy_rule.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from . import names, pcr
from .manifest_error import ManifestCode, ManifestError
from .manifest_yaml import read_yaml
from .policy_codes import DEFAULT_SKEW_MS, PolicyCode, PolicyError
from .policy_combination import MAX_POLICIES, Accepts, AllOf, AnyOf, NoneOf, Rule, all_of, any_of, none_of
from .policy_rule import VERSION, Member, Policy, dump_yaml
from .roots import Roots, aws_roots
from .schema import Field

__all__ = [
    "DEFAULT_SKEW_MS",
    "Accepts",
    "AllOf",
    "AnyOf",
    "Member",
    "NoneOf",
    "Policy",
    "PolicyCode",
    "PolicyError",
    "Rule",
    "all_of",
    "any_of",
    "none_of",
    "parse_policy",
    "parse_rule",
    "policy_from_mapping",
]

_MAX_COUNTER: Final = (1 << 63) - 1
_MAX_LIST: Final = 256
_OPTIONAL: Final = (
    "roots",
    "simulated",
    "pcrs",
    "deployment",
    "manifests",
    "booted",
    "settings",
    "descends",
    "min_revision",
    "min_epoch",
    "max_age",
    "debug",
    "instance_id",
    "members",
)
_COMBINATIONS: Final = ("all", "any", "not")
_INDEX: Final = re.compile(r"[0-9]|[12][0-9]|3[01]")
_PCR: Final = re.compile(r"[0-9a-f]{96}")
_PCR_MEND: Final = "96 hex digits in small letters"
_INSTANCE: Final = re.compile(r"i-[0-9a-zA-Z-]{1,60}")
_CODES: Final = {
    ManifestCode.SYNTAX: PolicyCode.SYNTAX,
    ManifestCode.TOO_LARGE: PolicyCode.SYNTAX,
    ManifestCode.ALIAS: PolicyCode.SYNTAX,
    ManifestCode.TAG: PolicyCode.SYNTAX,
    ManifestCode.DUPLICATE_KEY: PolicyCode.SYNTAX,
    ManifestCode.UNKNOWN_KEY: PolicyCode.UNKNOWN_KEY,
}
"""What the reader of YAML and schemas refuses, in a policy's words; all else is a VALUE."""


def parse_rule(text: str, filename: str = "policy") -> Accepts:
    """What a policy's file accepts: a policy, or `all` or `any` of policies.

    Raises `PolicyError`, whose sentence names file, line, key and the mend.
    """
    return _read(text, filename, _rule)


def parse_policy(text: str, filename: str = "policy") -> Policy:
    """The policy in a YAML text that holds one by itself, for who needs its `members`. Raises as `parse_rule` does."""
    return _read(text, filename, _policy_alone)


def policy_from_mapping(mapping: Mapping[str, object], name: str = "policy") -> Policy:
    """The policy in plain data: what the YAML would hold. Raises `PolicyError`, and `TypeError` on other objects."""
    return parse_policy(dump_yaml(mapping), name)


_T = TypeVar("_T")


def _read(text: str, filename: str, read: Callable[[Field], _T]) -> _T:
    try:
        root = Field(read_yaml(text, filename), "", filename)
        _require_version(root)
        return read(root)
    except ManifestError as error:
        code = _CODES.get(ManifestCode(error.code), PolicyCode.VALUE)
        raise PolicyError(code, error.sentence) from None


def _require_version(root: Field) -> None:
    if not isinstance(root.node.value, Mapping):
        raise root.wrong_type("a mapping that begins with `tea: policy/1`", "write `key: value` lines")
    version = root.node.value.get("tea")
    if version is None:
        raise root.refuse(ManifestCode.MISSING_KEY, "no key 'tea'", "it", f"add `tea: {VERSION}`")
    if version.value != VERSION:
        field = root.child("tea", version)
        raise _refuse(field, PolicyCode.VERSION, field.found(), VERSION, "this program reads no other version")


def _policy_alone(root: Field) -> Policy:
    if (name := _combination(root)) is not None:
        raise root.refuse(
            ManifestCode.BAD_VALUE, f"a combination (`{name}`)", "one policy by itself", "this reads keys of its own"
        )
    return _policy(root)


def _rule(field: Field) -> Accepts:
    """A policy, or `all` or `any`; what a file, a list, or a `not` holds."""
    name = _combination(field)
    if name is None:
        return _policy(field)
    if name == "not":
        raise _refuse(
            field,
            PolicyCode.NOTHING,
            "a `not`",
            "a policy, `all` or `any`",
            "a `not` only excludes: put it into an `all`, beside the policy from which it excludes",
        )
    listed = _sole(field, name)
    if name == "any":
        alternatives = tuple(_rule(item) for item in _alternatives(listed))
        return _made(listed, lambda: AnyOf(alternatives))
    rules = tuple(_none_of(item) or _rule(item) for item in _alternatives(listed))
    return _made(listed, lambda: AllOf(rules))


def _none_of(field: Field) -> NoneOf | None:
    """The exclusion that an item of an `all` is; None where it is something else."""
    if _combination(field) != "not":
        return None
    excluded = _sole(field, "not")
    many = isinstance(excluded.node.value, tuple)
    rules = tuple(_rule(item) for item in (_alternatives(excluded) if many else [excluded]))
    return _made(excluded, lambda: NoneOf(rules))


def _combination(field: Field) -> str | None:
    """Which combination this is; None for a policy, or what is wrong in another way."""
    value = field.node.value
    return next((name for name in _COMBINATIONS if name in value), None) if isinstance(value, Mapping) else None


def _sole(field: Field, name: str) -> Field:
    """What a combination holds. It stands alone: a key beside it would be ignored, or be meant for its policies."""
    assert isinstance(field.node.value, Mapping)
    for key in field.node.value:
        if key != name and not (key == "tea" and not field.path):
            raise field.refuse(
                ManifestCode.BAD_VALUE,
                f"the key {key[:80]!r} beside `{name}`",
                f"`{name}` alone",
                "put it into a policy of the list, or remove it",
                line=field.node.key_lines[key],
            )
    return field.child(name, field.node.value[name])


def _alternatives(field: Field) -> list[Field]:
    items = field.items(most=MAX_POLICIES)
    if not items:
        raise _refuse(
            field, PolicyCode.NOTHING, "a combination of nothing", "a list of policies", "name at least one policy"
        )
    return items


def _made(field: Field, make: Callable[[], _T]) -> _T:
    """What a class makes, which knows no file: its refusals get file, line and place."""
    try:
        return make()
    except PolicyError as error:
        place = f"{field.path}: " if field.path else ""
        where = f"{field.filename}:{field.node.line}: {place}"
        raise PolicyError(PolicyCode(error.code), f"{where}{error.sentence}") from None


def _policy(root: Field) -> Policy:
    nested = bool(root.path)
    if nested and isinstance(root.node.value, Mapping) and "tea" in root.node.value:
        line = root.node.key_lines["tea"]
        raise root.refuse(ManifestCode.UNKNOWN_KEY, "`tea` again", "it at the head alone", "remove it", line=line)
    fields = root.mapping(() if nested else ("tea",), (*_OPTIONAL, *_COMBINATIONS))
    return _made(
        root,
        lambda: Policy(
            pinned=_roots(root, fields),
            simulated="simulated" in fields,
            pcrs=_pcrs(fields.get("pcrs")),
            deployment=_text(fields.get("deployment"), names.DEPLOYMENT, "1 to 63 of a-z, 0-9 and -"),
            manifests=_digests(fields.get("manifests")),
            booted=_digests(fields.get("booted")),
            settings=_digests(fields.get("settings")),
            descends=_flag(fields.get("descends")),
            min_revision=_number(fields.get("min_revision")) or 0,
            min_epoch=_number(fields.get("min_epoch")) or 0,
            max_age=_number(fields.get("max_age")),
            debug=_flag(fields.get("debug")),
            instance_id=_text(fields.get("instance_id"), _INSTANCE, "an EC2 instance id, i-..."),
            members=_members(fields.get("members")),
        ),
    )


def _roots(root: Field, fields: Mapping[str, Field]) -> Roots:
    aws, simulated = fields.get("roots"), fields.get("simulated")
    if aws is not None and simulated is not None:
        raise simulated.refuse(
            ManifestCode.BAD_VALUE, "both `roots` and `simulated`", "one of them", "make two policies of it"
        )
    if aws is not None:
        for name in _some(aws, "[aws]"):
            name.choice(["aws"])
        return aws_roots()
    if simulated is not None:
        digests = _one_or_more(simulated.mapping(("root",))["root"])
        return Roots.from_digests([digest.digest("sha256", 32) for digest in digests])
    raise root.refuse(
        ManifestCode.MISSING_KEY,
        "no root",
        "`roots: [aws]`, or `simulated: {root: sha256:...}` for a simulated network",
        "add one of the two",
    )


def _pcrs(field: Field | None) -> dict[int, tuple[bytes, ...]]:
    pcrs: dict[int, tuple[bytes, ...]] = {}
    for name, rule in _named(field, "{INDEX: HEX}").items():
        if not _INDEX.fullmatch(name):
            raise rule.refuse(
                ManifestCode.BAD_VALUE, f"the PCR {name[:80]!r}", f"0 to {pcr.COUNT - 1}", "write its index"
            )
        pcrs[int(name)] = () if rule.node.value == "any" else tuple(_pcr(item) for item in _one_or_more(rule))
    return pcrs


def _members(field: Field | None) -> dict[str, Member]:
    members: dict[str, Member] = {}
    for slot, binding in _named(field, "{SLOT: {pcr4: HEX}}").items():
        if not names.is_name(slot):
            raise binding.refuse(
                ManifestCode.BAD_VALUE, f"the slot {slot[:80]!r}", f"a name ({names.NAME_MEND})", "rename it"
            )
        pcrs = binding.mapping((), ("pcr3", "pcr4"))
        if len(pcrs) != 1:
            raise binding.refuse(
                ManifestCode.BAD_VALUE, f"{len(pcrs)} bindings", "pcr3 (role) or pcr4 (instance)", "keep one"
            )
        (name,) = pcrs
        members[slot] = Member(pcr.ROLE_PCR if name == "pcr3" else pcr.INSTANCE_PCR, _pcr(pcrs[name]))
    return members


def _named(field: Field | None, example: str) -> dict[str, Field]:
    """Entries with names as keys. None where the key is left out; but one that is written says something."""
    if field is None:
        return {}
    entries = field.entries(most=_MAX_LIST)
    if not entries:
        raise field.refuse(ManifestCode.BAD_VALUE, "nothing", example, "fill it in, or leave the key out")
    return entries


def _some(field: Field, example: str) -> list[Field]:
    items = field.items(most=_MAX_LIST)
    if not items:
        raise field.refuse(ManifestCode.BAD_VALUE, "nothing", example, "fill it in, or leave the key out")
    return items


def _one_or_more(field: Field) -> list[Field]:
    return [field] if isinstance(field.node.value, str) else _some(field, "one value, or a list")


def _pcr(field: Field) -> bytes:
    return bytes.fromhex(field.text(_PCR.fullmatch, _PCR_MEND, mend="copy it from what measured the image"))


def _digests(field: Field | None) -> tuple[bytes, ...]:
    return () if field is None else tuple(item.digest("sha384", pcr.SIZE) for item in _one_or_more(field))


def _text(field: Field | None, pattern: re.Pattern[str], expected: str) -> str | None:
    return None if field is None else field.text(pattern.fullmatch, expected)


def _number(field: Field | None) -> int | None:
    return None if field is None else field.integer(0, _MAX_COUNTER)


def _flag(field: Field | None) -> bool:
    if field is None:
        return False
    value = field.node.value
    if not isinstance(value, bool):
        raise field.wrong_type("true or false", "write one of them")
    return value


def _refuse(field: Field, code: PolicyCode, found: str, expected: str, mend: str) -> PolicyError:
    return PolicyError(code, field.refuse(ManifestCode.BAD_VALUE, found, expected, mend).sentence)
