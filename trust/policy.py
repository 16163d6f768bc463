"""The door to policies: a relying party's YAML in, a checked `Policy` out; with the combinations of policies.

May not: accept a key that it does not know, or a value that it has to guess.
Rule: docs/architecture.md, "Policies"; the checks themselves stand in `policy_rule.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from . import names, pcr
from .manifest_error import ManifestCode, ManifestError
from .manifest_yaml import read_yaml
from .policy_codes import DEFAULT_SKEW_MS, PolicyCode, PolicyError
from .policy_combination import AllOf, AnyOf, NoneOf, Rule, all_of, any_of, none_of
from .policy_rule import VERSION, Member, Policy, dump_yaml
from .roots import Roots, aws_roots
from .schema import Field

__all__ = [
    "DEFAULT_SKEW_MS",
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


def parse_policy(text: str, filename: str = "policy") -> Policy:
    """The policy in a YAML text. Raises `PolicyError`, whose sentence names file, line, key and the mend."""
    try:
        return _policy(Field(read_yaml(text, filename), "", filename))
    except ManifestError as error:
        code = _CODES.get(ManifestCode(error.code), PolicyCode.VALUE)
        raise PolicyError(code, error.sentence) from None


def policy_from_mapping(mapping: Mapping[str, object], name: str = "policy") -> Policy:
    """The policy in plain data: what the YAML would hold. Raises `PolicyError`, and `TypeError` on other objects."""
    return parse_policy(dump_yaml(mapping), name)


def _policy(root: Field) -> Policy:
    fields = root.mapping(("tea",), _OPTIONAL)
    if fields["tea"].node.value != VERSION:
        found = fields["tea"].found()
        raise _refuse(fields["tea"], PolicyCode.VERSION, found, VERSION, "this program reads no other version")
    try:
        return Policy(
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
        )
    except PolicyError as error:
        # Refused as a whole, by the class itself, which knows no file.
        raise PolicyError(PolicyCode(error.code), f"{root.filename}: {error.sentence}") from None


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
