"""env: the approved variables and where the actor runs.

May not: put a variable's value into a note. Rule: README.md of this folder.
"""

from __future__ import annotations

from rows import Rows, expect, require

from tea.sdk import Code, Link


def check(env: Link, rows: Rows) -> None:
    """All operations of env."""
    names = rows.works("names", lambda: env.names()) or []
    rows.works("all", lambda: expect(sorted(env.all()), names))
    if names:
        rows.works("get", lambda: require(isinstance(env.get(names[0]), str), "no text came"))
    rows.refuses("get", Code.NOT_FOUND, lambda: env.get("SELFTEST_HAS_NO_SUCH_VARIABLE"))
    rows.works("about", lambda: expect(len(env.about()["manifest_digest"]), 48, "bytes of the manifest's digest"))
