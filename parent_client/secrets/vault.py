"""The vault: secrets with their policies, revocations and leases in SQLite, encrypted at rest, and the audit log.

May not: hand out a value that it has not written down first; judge who may have it (`service.py` does).
Rule: docs/secrets.md, "At rest". Several processes may use one vault: SQLite's write lock orders them.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from cryptography.exceptions import InvalidTag

from tea.trust import canonical
from tea.trust.audit_log import ZERO
from tea.trust.keys import PrivateKey
from tea.trust.policy import Accepts, parse_rule
from tea.trust.release import LEASE_BYTES, MAX_LEASE, MAX_SECRET, require_secret_name
from tea.trust.revocation import Revocations

from ..refusal import Refusal
from .audit_file import AuditFile
from .master import KEY_BYTES, FileWrap, Wrap, decrypt, encrypt, open_wrap

DATABASE: Final = "vault.sqlite"
AUDIT: Final = "audit.log"
_VERSION: Final = b"1"
_CONTEXT: Final = b"tea.vault.v1"
_SCHEMA: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
CREATE TABLE secrets (
    name TEXT PRIMARY KEY, version INTEGER NOT NULL, value BLOB NOT NULL, policy TEXT NOT NULL, actors TEXT NOT NULL,
    lease INTEGER NOT NULL, put INTEGER NOT NULL, revoked INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE revoked (kind TEXT NOT NULL, subject TEXT NOT NULL, least INTEGER NOT NULL, PRIMARY KEY (kind, subject))
STRICT;
CREATE TABLE leases (
    id BLOB PRIMARY KEY, secret TEXT NOT NULL, version INTEGER NOT NULL, actor TEXT NOT NULL, enclave TEXT NOT NULL,
    ends INTEGER NOT NULL
) STRICT;
"""

RevocationKind = Literal["image", "manifest", "enclave", "revision", "epoch"]


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a secret without opening it."""

    name: str
    version: int
    policy_text: str
    actors: tuple[str, ...]
    lease: int
    """Seconds."""
    put: int
    """Milliseconds since the epoch."""
    revoked: bool

    @property
    def policy(self) -> Accepts:
        """What an enclave must meet."""
        return parse_rule(self.policy_text, f"the policy of {self.name}")

    def context(self) -> bytes:
        """What the ciphertext is bound to: nobody who can write to the file swaps a value, a policy or an actor."""
        fields = {"name": self.name, "version": self.version, "policy": self.policy_text, "lease": self.lease}
        return canonical.encode({"tea": "tea.vault.secret.v1", **fields, "actors": list(self.actors)})


class Vault:
    """One open vault. Safe between threads; `close` it."""

    def __init__(self, folder: Path, database: sqlite3.Connection, key: bytes, service: PrivateKey) -> None:
        self.folder = folder
        self.service = service
        """The service's own key: enclaves' manifests name its public half."""
        self.audit = AuditFile(folder / AUDIT)
        self._database = database
        self._key = key
        self._lock = threading.RLock()

    # -- life ------------------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, folder: Path, wrap_spec: str = "file:master.key") -> Vault:
        """A new vault in a folder that has none. Raises `Refusal`."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / DATABASE
        if path.exists():
            raise Refusal(f"{path} is there already: a vault is made once")
        wrap: Wrap
        if wrap_spec.startswith("file:") and not (folder / wrap_spec.removeprefix("file:")).exists():
            wrap = FileWrap.create(folder / wrap_spec.removeprefix("file:"))
        else:
            wrap = open_wrap(wrap_spec, folder)
        key, service = secrets.token_bytes(KEY_BYTES), PrivateKey.generate()
        wrapped = wrap.wrap(key, _CONTEXT)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        database = _connect(path)
        _prepare(database)
        database.executescript(_SCHEMA)
        vault = cls(folder, database, key, service)
        with vault._writing():
            vault._set_meta("version", _VERSION)
            vault._set_meta("wrap", wrap_spec.encode())
            vault._set_meta("key", wrapped)
            vault._set_meta("service", encrypt(key, service.to_pem(), b"tea.vault.service.v1"))
            vault._log("created", {"service": service.public.text})
        return vault

    @classmethod
    def open(cls, folder: Path) -> Vault:
        """Open a vault; what wraps its key is asked for it. Raises `Refusal`."""
        path = folder / DATABASE
        if not path.is_file():
            raise Refusal(f"{folder} holds no vault: `teactl secrets init {folder}` makes one")
        database = _connect(path)
        try:
            _prepare(database)
            meta = {name: bytes(value) for name, value in database.execute("SELECT name, value FROM meta")}
            if meta["version"] != _VERSION:
                raise Refusal(f"{path} is of another version ({meta['version']!r}), expected {_VERSION!r}")
            key = open_wrap(meta["wrap"].decode(), folder).unwrap(meta["key"], _CONTEXT)
            service = PrivateKey.from_pem(decrypt(key, meta["service"], b"tea.vault.service.v1"))
        except (sqlite3.Error, KeyError, UnicodeDecodeError, InvalidTag):
            database.close()
            raise Refusal(f"{path} is no vault, or was damaged: take it from a backup") from None
        except Refusal:
            database.close()
            raise
        return cls(folder, database, key, service)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def __repr__(self) -> str:
        return f"Vault({self.folder})"

    # -- secrets ---------------------------------------------------------------------------------------------------

    def put(self, name: str, value: bytes, *, policy: str, actors: tuple[str, ...], lease: int) -> Record:
        """Store a secret, or a new version of it. Raises `PolicyError` on its policy, `ReleaseError`, `Refusal`."""
        require_secret_name(name)
        parse_rule(policy, "policy")
        if not actors or not 1 <= lease <= MAX_LEASE or not 1 <= len(value) <= MAX_SECRET:
            raise Refusal(
                f"a secret has 1 to {MAX_SECRET} bytes, at least one actor and a lease of 1 to {MAX_LEASE} seconds"
            )
        for actor in actors:
            require_secret_name(actor)
        with self._writing():
            row = self._database.execute("SELECT version FROM secrets WHERE name = ?", (name,)).fetchone()
            version = 1 if row is None else row[0] + 1
            record = Record(name, version, policy, tuple(sorted(set(actors))), lease, _now_ms(), False)
            self._database.execute(
                "INSERT OR REPLACE INTO secrets VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
                (
                    name,
                    version,
                    encrypt(self._key, value, record.context()),
                    policy,
                    " ".join(record.actors),
                    lease,
                    record.put,
                ),
            )
            self._log("put", {"secret": name, "version": version, "actors": " ".join(record.actors), "lease": lease})
        return record

    def records(self) -> list[Record]:
        """Every secret, by name."""
        with self._lock:
            rows = self._database.execute(
                "SELECT name, version, policy, actors, lease, put, revoked FROM secrets ORDER BY name"
            ).fetchall()
        return [
            Record(name, version, policy, tuple(actors.split()), lease, put, bool(revoked))
            for name, version, policy, actors, lease, put, revoked in rows
        ]

    def record(self, name: str) -> Record | None:
        """One secret."""
        return next((one for one in self.records() if one.name == name), None)

    def value(self, record: Record) -> bytes:
        """The value of a record. Raises `Refusal` when the file was changed under it."""
        with self._lock:
            row = self._database.execute(
                "SELECT value FROM secrets WHERE name = ? AND version = ?", (record.name, record.version)
            ).fetchone()
        try:
            return decrypt(self._key, row[0] if row is not None else b"", record.context())
        except InvalidTag:
            raise Refusal(f"the vault's record of {record.name!r} was changed: put the secret anew") from None

    # -- revocation ------------------------------------------------------------------------------------------------

    def revoke_secret(self, name: str) -> None:
        """This version and all before: only a new value is released again. Raises `Refusal`."""
        with self._writing():
            changed = self._database.execute("UPDATE secrets SET revoked = 1 WHERE name = ?", (name,)).rowcount
            if not changed:
                raise Refusal(f"there is no secret {name!r}: `teactl secrets list` shows them")
            self._log("revoked", {"kind": "secret", "subject": name})

    def revoke(self, kind: RevocationKind, subject: str, least: int = 0) -> None:
        """An image or manifest (hex), an enclave (module or instance id), or a least revision or epoch of a deployment.

        A minimum only rises. Raises `Refusal` on a lower one.
        """
        with self._writing():
            row = self._database.execute(
                "SELECT least FROM revoked WHERE kind = ? AND subject = ?", (kind, subject)
            ).fetchone()
            if row is not None and least < row[0]:
                raise Refusal(f"the least {kind} of {subject} is {row[0]} already: a minimum only rises")
            self._database.execute("INSERT OR REPLACE INTO revoked VALUES (?, ?, ?)", (kind, subject, least))
            more: dict[str, str | int] = {"least": least} if kind in ("revision", "epoch") else {}
            self._log("revoked", {"kind": kind, "subject": subject, **more})

    def revocations(self) -> Revocations:
        """All that is revoked now, whichever process revoked it."""
        with self._lock:
            rows = self._database.execute("SELECT kind, subject, least FROM revoked").fetchall()
        by_kind: dict[str, dict[str, int]] = {}
        for kind, subject, least in rows:
            by_kind.setdefault(kind, {})[subject] = least
        return Revocations(
            images=tuple(bytes.fromhex(one) for one in by_kind.get("image", ())),
            manifests=tuple(bytes.fromhex(one) for one in by_kind.get("manifest", ())),
            enclaves=frozenset(by_kind.get("enclave", ())),
            least_revision=by_kind.get("revision", {}),
            least_epoch=by_kind.get("epoch", {}),
        )

    # -- releases --------------------------------------------------------------------------------------------------

    def lease(
        self,
        record: Record,
        actor: str,
        enclave: str,
        measured: Mapping[str, str | int],
        check: Callable[[Revocations], None],
    ) -> bytes:
        """Write down that a secret is released; the lease's id. Only then may it be.

        `check` judges the revocations within the same transaction: what was revoked before is not released after.
        Raises what it raises, `Refusal` when the secret was put or revoked anew since `record` was read, `AuditError`,
        `OSError`.
        """
        identity, now = secrets.token_bytes(LEASE_BYTES), _now_ms()
        with self._writing():
            row = self._database.execute(
                "SELECT version, revoked FROM secrets WHERE name = ?", (record.name,)
            ).fetchone()
            if row is None or tuple(row) != (record.version, 0):
                raise Refusal(f"the secret {record.name!r} changed while it was asked for: ask again")
            check(self.revocations())
            self._database.execute("DELETE FROM leases WHERE ends < ?", (now,))
            self._database.execute(
                "INSERT INTO leases VALUES (?, ?, ?, ?, ?, ?)",
                (identity, record.name, record.version, actor, enclave, now + record.lease * 1000),
            )
            released: dict[str, str | int] = {"secret": record.name, "version": record.version, "actor": actor}
            more: dict[str, str | int] = {"enclave": enclave, "lease": identity.hex(), "seconds": record.lease}
            self._log("released", {**released, **more, **measured})
        return identity

    def leases(self) -> list[tuple[str, int, str, str, int]]:
        """(secret, version, actor, enclave, end in milliseconds) of leases that have not ended."""
        with self._lock:
            return self._database.execute(
                "SELECT secret, version, actor, enclave, ends FROM leases WHERE ends >= ? ORDER BY ends", (_now_ms(),)
            ).fetchall()

    def log(self, event: str, fields: Mapping[str, str | int]) -> None:
        """One entry of the audit log. Raises `AuditError`, `OSError`."""
        with self._writing():
            self._log(event, fields)

    @property
    def head(self) -> tuple[int, bytes]:
        """(lines, digest of the last) of the audit log, as the vault remembers it."""
        with self._lock:
            row = self._database.execute("SELECT value FROM meta WHERE name = 'head'").fetchone()
        return (int.from_bytes(row[0][:8], "big"), bytes(row[0][8:])) if row is not None else (0, ZERO)

    # -- inside ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def _set_meta(self, name: str, value: bytes) -> None:
        self._database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def _log(self, event: str, fields: Mapping[str, str | int]) -> None:
        # Last in its transaction: what is rolled back was not logged, and what was logged is committed or taken over.
        count, head = self.audit.append(self.head, _now_ms(), event, fields)
        self._set_meta("head", count.to_bytes(8, "big") + head)


def remembered_head(folder: Path) -> bytes:
    """The digest of the audit log's last line as the vault remembers it: needs no key. Raises `Refusal`."""
    try:
        database = sqlite3.connect(f"file:{folder / DATABASE}?mode=ro", uri=True)
        row = database.execute("SELECT value FROM meta WHERE name = 'head'").fetchone()
        database.close()
    except sqlite3.Error:
        raise Refusal(f"{folder} holds no vault that can be read") from None
    return bytes(row[0][8:]) if row is not None else ZERO


def _connect(path: Path) -> sqlite3.Connection:
    # Autocommit, so that BEGIN and COMMIT stand where they are written; one connection between threads, under a lock.
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)


def _prepare(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA secure_delete = ON")
    database.execute("PRAGMA synchronous = FULL")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
