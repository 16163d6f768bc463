"""layer1: chain state and its proofs. Without a chain the answers are UNAVAILABLE, which is right too.

May not: quarantine the enclave's state. `reload` runs where it is granted: grant it to a self-test only where a gap in
reads does no harm. Rule: README.md of this folder.
"""

from __future__ import annotations

from rows import Rows, expect, require

from tea.sdk import Code, Link

KEY = b"selftest: no such key"
ABSENT = (Code.UNAVAILABLE, Code.UNTRUSTED)
NODE = (*ABSENT, Code.NOT_FOUND)
TRANSFER = {
    "chain_id": 1,
    "nonce": 0,
    "max_priority_fee_per_gas": 1,
    "max_fee_per_gas": 2,
    "gas": 21_000,
    "to": bytes(20),
}


def check(layer1: Link, rows: Rows) -> None:
    """All operations of layer1."""
    rows.works("status", lambda: layer1.status())
    height = rows.works("height", lambda: layer1.height(), unless=ABSENT)
    at = 0 if height is None else height
    rows.works("head", lambda: require(layer1.head()["height"] >= at, "the head went back"), unless=ABSENT)
    rows.works("state_hash", lambda: expect(layer1.state_hash(at)["height"], at, "the height"), unless=NODE)
    rows.works("get", lambda: expect(layer1.get(KEY), None), unless=ABSENT)
    rows.refuses("get", Code.INVALID, lambda: layer1.get(b""))
    rows.works("proof", lambda: require(len(layer1.proof(KEY, at)) > 0, "an empty proof"), unless=NODE)
    rows.works("node", lambda: require(len(layer1.node(at, b"")) > 0, "an empty node"), unless=NODE)
    rows.refuses("quarantine", Code.CONFLICT, lambda: layer1.quarantine(1 << 60))
    rows.refuses("rejoin", (Code.CONFLICT, *NODE), lambda: layer1.rejoin(at, bytes(32)))
    rows.works("subscribe", lambda: layer1.subscribe("on_head"))
    rows.refuses("subscribe", Code.INVALID, lambda: layer1.subscribe("not a name"))
    rows.works("unsubscribe", lambda: layer1.unsubscribe())
    rows.refuses("unsubscribe", Code.NOT_FOUND, lambda: layer1.unsubscribe())
    rows.works("account", lambda: layer1.account(bytes(20)), unless=ABSENT)
    rows.refuses("account", Code.INVALID, lambda: layer1.account(b"short"))
    rows.works("transaction_digest", lambda: expect(len(layer1.transaction_digest(TRANSFER)), 32, "its size"))
    rows.refuses("encode_signed", Code.INVALID, lambda: layer1.encode_signed(TRANSFER, b"no signature"))
    rows.refuses("send_transaction", (Code.INVALID, *ABSENT), lambda: layer1.send_transaction(b""))
    rows.works("reload", lambda: layer1.reload())
