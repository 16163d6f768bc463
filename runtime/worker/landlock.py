"""Landlock: deny this process every use of the file system, TCP, and signals to others, without any right to mount.

May not: allow anything; there are no rules, so all that is handled is denied. Rule: landlock(7),
include/uapi/linux/landlock.h (versions 1 to 6 of the interface).
"""

from __future__ import annotations

import os
from typing import Final

from .kernel import system_call

_VERSION: Final = 1  # LANDLOCK_CREATE_RULESET_VERSION
# How many rights on files each version of the interface knows: execute .. make_sym, then refer, truncate, ioctl_dev.
_FILE_RIGHTS: Final = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_LATEST_FILE_RIGHTS: Final = 16
_NETWORK_RIGHTS: Final = 0b11  # bind and connect TCP, from version 4
_SCOPES: Final = 0b11  # abstract Unix sockets and signals, from version 6


def version() -> int:
    """The kernel's Landlock interface version. Raises `OSError` when it has none, or was booted without it."""
    return system_call("landlock_create_ruleset", None, 0, _VERSION)


def deny_all(known: int) -> None:
    """Deny all that version `known` of the interface can. Needs no_new_privs, and one free descriptor for a moment.

    Raises `OSError`.
    """
    fields = [(1 << _FILE_RIGHTS.get(known, _LATEST_FILE_RIGHTS)) - 1]
    if known >= 4:
        fields.append(_NETWORK_RIGHTS)
    if known >= 6:
        fields.append(_SCOPES)
    attributes = b"".join(field.to_bytes(8, "little") for field in fields)
    ruleset = system_call("landlock_create_ruleset", attributes, len(attributes), 0)
    try:
        system_call("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)
