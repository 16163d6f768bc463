"""The family of refusals for what an operator writes and approves: manifests, approvals, approvers, settings.

May not: quote an environment variable's value (it could be a secret put there by mistake).
Rule: docs/architecture.md, "Errors".
"""

from __future__ import annotations

import enum

from .errors import TrustError


class ManifestCode(enum.StrEnum):
    """Why a manifest, an approval of it, or the settings around it are refused."""

    SYNTAX = "syntax"
    TOO_LARGE = "too-large"
    ALIAS = "yaml-alias"
    TAG = "yaml-tag"
    DUPLICATE_KEY = "duplicate-key"
    UNKNOWN_KEY = "unknown-key"
    MISSING_KEY = "missing-key"
    WRONG_TYPE = "wrong-type"
    BAD_VALUE = "bad-value"
    OUT_OF_RANGE = "out-of-range"
    RESERVED_NAME = "reserved-name"
    UNKNOWN_NAME = "unknown-name"
    DUPLICATE = "duplicate"
    BAD_LINK = "bad-link"
    NOT_CANONICAL = "not-canonical"
    NOT_APPROVED = "not-approved"
    WRONG_DEPLOYMENT = "wrong-deployment"
    WRONG_EPOCH = "wrong-epoch"
    LOWER_REVISION = "lower-revision"
    OTHER_AT_SAME_REVISION = "other-manifest-at-same-revision"
    EXPIRED = "expired"
    NOT_GRANTED = "not-granted"
    OTHER_BUNDLE = "other-bundle"
    BAD_ENVIRONMENT = "bad-environment"


class ManifestError(TrustError):
    """The manifest, its approval or its settings are refused."""
