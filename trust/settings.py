"""The settings that are not secret: which environment results from what the parent offers, and the digest for PCR17.

May not: let a variable in that the manifest does not name, or quote a value in an error (it could be a secret).
Rule: docs/architecture.md, "Bundle, manifest, measured boot".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from . import canonical
from .manifest_error import ManifestCode, ManifestError
from .manifest_model import Manifest, Variable
from .manifest_schema import MAX_VARIABLE

SETTINGS_TAG: Final = "tea.settings.v1"


def resolve_environment(manifest: Manifest, offered: Mapping[str, str]) -> dict[str, str]:
    """The environment of the manifest: what is fixed, and what the parent offers where it may, sorted by name.

    Raises `ManifestError(BAD_ENVIRONMENT)` on a variable that the manifest does not take from the parent, one that is
    missing without a default, and a value that its pattern does not match as a whole.
    """
    for name in offered:
        variable = manifest.environment.get(name)
        if variable is None or variable.pattern is None:
            known = "fixes it" if variable is not None else "does not name it"
            raise ManifestError(
                ManifestCode.BAD_ENVIRONMENT,
                f"found the variable {name[:80]!r} offered, and the manifest {known}: "
                "offer only what has `from: parent` under `environment`",
            )
    return {name: _resolve(variable, offered) for name, variable in manifest.environment.items()}


def _resolve(variable: Variable, offered: Mapping[str, str]) -> str:
    if variable.value is not None:
        return variable.value
    value = offered.get(variable.name, variable.default)
    if value is None:
        raise ManifestError(
            ManifestCode.BAD_ENVIRONMENT,
            f"found no {variable.name}, expected the parent to offer it: set it, or give a default",
        )
    # The length first: the pattern is approved, the value is the untrusted parent's.
    if len(value) > MAX_VARIABLE or "\0" in value or re.fullmatch(variable.pattern or "", value) is None:
        raise ManifestError(
            ManifestCode.BAD_ENVIRONMENT,
            f"found a {variable.name} of {len(value)} characters, expected one that {variable.pattern!r} matches as a "
            f"whole (at most {MAX_VARIABLE}): correct it",
        )
    return value


def settings_digest(
    environment: Mapping[str, str], approver_changes: Sequence[bytes], bundles: Iterable[bytes]
) -> bytes:
    """The SHA-384 (48 bytes) that PCR17 is extended with: resolved environment, changes in order, digests of bundles.

    `approver_changes` are the COSE_Sign messages; `bundles` the SHA-256s (32 bytes) of the bundle files, in any order.
    """
    digests = sorted(set(bundles))
    if any(len(digest) != 32 for digest in digests):
        raise ValueError("a bundle's digest is a SHA-256 of 32 bytes")
    return hashlib.sha384(
        canonical.encode(
            {
                "tea": SETTINGS_TAG,
                "environment": dict(environment),
                "approver_changes": [hashlib.sha384(change).digest() for change in approver_changes],
                "bundles": digests,
            }
        )
    ).digest()
