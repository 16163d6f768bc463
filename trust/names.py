"""Which names are well formed, and which are taken: actors, operations, attributes, variables, slots, versions.

May not: know what the names stand for. Rule: docs/architecture.md, "Bundle, manifest, measured boot".
"""

from __future__ import annotations

import keyword
import re
from typing import Final

PARENT: Final = "parent"
PROVIDER_NAMES: Final = frozenset(
    [
        "vmh",
        "nitro",
        "kvp",
        "crypto",
        "intercom",
        "layer1",
        "env",
        "log",
        "clock",
        "ipfs",
        "http",
        "inference",
        "tpm",
        "secrets",
    ]  # today's and the planned
)
RESERVED_NAMES: Final = PROVIDER_NAMES | {PARENT, "host", "provider", "enclave", "manifest"}
"""What no actor may be called: it would pass for something that the host itself speaks for."""

NAME: Final = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
MAX_NAME: Final = 63
OPERATION: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
VARIABLE: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
DEPLOYMENT: Final = re.compile(r"[a-z0-9-]{1,63}")
WASM_ENTRY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\.wasm", re.ASCII)
"""The one module of a bundle of kind wasm."""
ENTRY: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*):([A-Za-z_][A-Za-z0-9_]*)")
SEMVER: Final = re.compile(  # semver.org, its suggested expression
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(?:\+([0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?",
    re.ASCII,
)
MAX_VERSION: Final = 64

_ATTRIBUTES_TAKEN: Final = frozenset(
    # An actor's own attributes in tea.sdk, and Thespian's: a link by such a name would hide them.
    ["caller", "chain", "links", "name", "replica", "environment", "send", "self"]
)

NAME_MEND: Final = f"small letters, digits and single dashes, a letter first, at most {MAX_NAME}"
OPERATION_MEND: Final = "small letters, digits and underscores, a letter first, at most 64"
VARIABLE_MEND: Final = "capital letters, digits and underscores, a letter first, at most 64"
SEMVER_MEND: Final = "MAJOR.MINOR.PATCH as semver.org has it, for instance 0.1.0"


def is_name(text: str) -> bool:
    """Whether it is a well formed name of an actor, provider, issuer or slot."""
    return len(text) <= MAX_NAME and NAME.fullmatch(text) is not None


def is_version(text: str) -> bool:
    """Whether it is a semantic version of at most 64 characters."""
    return len(text) <= MAX_VERSION and SEMVER.fullmatch(text) is not None


def is_attribute(text: str) -> bool:
    """Whether a link may go by this name: an operation-like identifier, no keyword, none of an actor's own."""
    return OPERATION.fullmatch(text) is not None and not keyword.iskeyword(text) and text not in _ATTRIBUTES_TAKEN
