"""The closed set of reasons for which a policy refuses, or is itself refused, and the one error that carries them.

May not: judge anything. The reasons follow the order of the checks in `policy.py`.
Rule: docs/architecture.md, "Policies".
"""

from __future__ import annotations

import enum
from typing import Final

from .errors import TrustError

DEFAULT_SKEW_MS: Final = 5_000
"""How far an NSM's clock and the relying party's may be apart, in milliseconds."""


class PolicyCode(enum.StrEnum):
    """Why. The words are stable: scripts and logs may depend on them."""

    # The policy itself is refused.
    SYNTAX = "syntax"
    """Not YAML of the plain kind, too large, or a key that stands twice."""
    VERSION = "version"
    """Does not begin with `tea: policy/1`."""
    UNKNOWN_KEY = "unknown-key"
    VALUE = "value"
    """A value of the wrong type or form, or two that contradict each other."""
    NOTHING = "nothing"
    """A policy that would accept anybody's code."""
    NO_IMAGE = "no-image"
    """Believes what a host says without pinning the image that the host is in."""

    # The evidence is refused.
    ROOT = "root"
    DEBUG = "debug"
    PCR = "pcr"
    BOOTED = "booted"
    """PCR16: booted with another manifest."""
    SETTINGS = "settings"
    """PCR17: booted with other settings."""
    INSTANCE = "instance"
    TOO_OLD = "too-old"
    FUTURE = "future"
    """The document is from later than now, beyond the allowed skew."""
    STATEMENT_MISSING = "statement-missing"
    KIND = "kind"
    DEPLOYMENT = "deployment"
    MANIFEST = "manifest"
    REVISION = "revision"
    EPOCH = "epoch"
    EVENT_LOG = "event-log"
    MEMBER = "member"
    """No such slot among the members."""
    NO_ALTERNATIVE = "no-alternative"
    """None of the policies of an any-of accepts."""
    EXCLUDED = "excluded"
    """A policy of a none-of accepts."""


class PolicyError(TrustError):
    """A policy refuses, or cannot be used; `code` is a `PolicyCode`."""

    def __init__(self, code: PolicyCode, sentence: str) -> None:
        super().__init__(code, sentence)
