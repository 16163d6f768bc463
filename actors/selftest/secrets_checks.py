"""secrets: what the release service gives, and what was sealed by hand; mostly what must be refused.

May not: put a secret into a note. Rule: README.md of this folder.
"""

from __future__ import annotations

from rows import Rows, expect

from tea.sdk import Code, Link

NONE_HERE = (Code.UNAVAILABLE, Code.UNTRUSTED, Code.DEADLINE)
"""No release service, or one that has nothing for a self-test."""


def check(secrets: Link, rows: Rows) -> None:
    """All operations of secrets."""
    rows.works("get", lambda: expect(secrets.get("selftest")["version"] >= 1, True), unless=NONE_HERE)
    rows.refuses("get", Code.INVALID, lambda: secrets.get("No Such Name"))
    rows.works("drop", lambda: expect(secrets.drop("selftest-none"), False), "none of that name")
    rows.refuses("open", Code.UNTRUSTED, lambda: secrets.open(b"sealed by nobody" * 8))
