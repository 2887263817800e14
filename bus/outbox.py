"""Sealed records on disk before they are produced: a crash at any point resends exactly the same bytes.

One SQLite file, one owner. `stage` commits the bytes and what is known of each licence in one transaction with
`synchronous=FULL`; only then may they be sent; `done` forgets the bytes once the brokers have them. So the same
(licence, sequence) is never sealed twice, and the same state of a licence is recognised when it comes again.
"""

from __future__ import annotations

import fcntl
import json
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import UUID

from schemas.errors import Code, Malformed, Misuse, Unavailable

_VERSION = 1
_BUSY_SECONDS = 5.0
_SCHEMA = """
CREATE TABLE pending (
    number    INTEGER PRIMARY KEY,
    topic     TEXT NOT NULL,
    key       BLOB NOT NULL,
    value     BLOB NOT NULL,
    headers   TEXT NOT NULL,
    leaf_hash BLOB NOT NULL UNIQUE,
    licence   BLOB NOT NULL,
    sequence  INTEGER NOT NULL,
    record    BLOB NOT NULL
);
CREATE TABLE licence (
    reference BLOB PRIMARY KEY,
    sequence  INTEGER NOT NULL,
    digest    BLOB NOT NULL,
    leaf_hash BLOB NOT NULL,
    record    BLOB NOT NULL,
    note      TEXT NOT NULL
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A record ready for Kafka: retries send exactly these bytes."""

    topic: str
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]
    leaf_hash: bytes
    licence: bytes
    sequence: int
    record: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class LicenceState:
    """The last accepted state of a licence. `digest` is the caller's; `note` its own words, such as a line number."""

    sequence: int
    digest: bytes
    leaf_hash: bytes
    record: UUID
    note: str


class Outbox:
    """Blocking; an async caller uses `asyncio.to_thread`. Calls may come from any thread, one after the other."""

    def __init__(self, path: Path) -> None:
        """Opens or makes the file.

        Raises `Misuse` (STATE_INVALID if another process owns it, DATA_VERSION), `Malformed` (DATA_CORRUPT) or
        `Unavailable` (DISK_FULL).
        """
        self._path = path
        self._turn = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = path.with_suffix(".lock").open("w")
        except OSError as exc:
            raise _not_written(exc) from exc
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            self._lock.close()
            raise Misuse(Code.STATE_INVALID, f"{path} is in use by another process: stop that one first") from exc
        self._db = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
        except sqlite3.OperationalError as exc:
            self.close()
            raise _not_written(exc) from exc
        except sqlite3.DatabaseError as exc:
            self.close()
            raise Malformed(Code.DATA_CORRUPT, f"{path} is no outbox ({exc})") from exc
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={_VERSION}; COMMIT;")
        elif version != _VERSION:
            raise Misuse(Code.DATA_VERSION, f"{self._path} is of version {version}; this software writes {_VERSION}")
        self._path.chmod(0o600)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives the file up for another owner. What is staged stays."""
        self._db.close()
        self._lock.close()

    def stage(
        self,
        sealed: Sequence[Sealed],
        digests: Mapping[bytes, bytes] | None = None,
        notes: Mapping[bytes, str] | None = None,
    ) -> None:
        """Durable when it returns: the bytes, and each licence's new state. `digests` and `notes` are by leaf hash.

        Raises `Unavailable` (DISK_FULL): then nothing of it is staged.
        """
        pending = [
            (
                s.topic,
                s.key,
                s.value,
                json.dumps([[name, value.hex()] for name, value in s.headers]),
                s.leaf_hash,
                s.licence,
                s.sequence,
                s.record.bytes,
            )
            for s in sealed
        ]
        states = [
            (
                s.licence,
                s.sequence,
                (digests or {}).get(s.leaf_hash, b""),
                s.leaf_hash,
                s.record.bytes,
                (notes or {}).get(s.leaf_hash, ""),
            )
            for s in sealed
        ]
        with self._transaction():
            self._db.executemany(
                "INSERT INTO pending (topic, key, value, headers, leaf_hash, licence, sequence, record) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                pending,
            )
            self._db.executemany("INSERT OR REPLACE INTO licence VALUES (?, ?, ?, ?, ?, ?)", states)

    def pending(self) -> list[Sealed]:
        """What was staged and not seen acknowledged, in order."""
        with self._turn:
            rows = self._db.execute(
                "SELECT topic, key, value, headers, leaf_hash, licence, sequence, record FROM pending ORDER BY number"
            ).fetchall()
        return [
            Sealed(
                topic=topic,
                key=key,
                value=value,
                headers=tuple((name, bytes.fromhex(text)) for name, text in json.loads(headers)),
                leaf_hash=leaf_hash,
                licence=licence,
                sequence=sequence,
                record=UUID(bytes=record),
            )
            for topic, key, value, headers, leaf_hash, licence, sequence, record in rows
        ]

    def done(self, leaf_hashes: Sequence[bytes]) -> None:
        """The brokers have these."""
        with self._transaction():
            self._db.executemany("DELETE FROM pending WHERE leaf_hash = ?", [(one,) for one in leaf_hashes])

    def licence(self, reference: bytes) -> LicenceState | None:
        """The last accepted state of a licence, or None."""
        with self._turn:
            row = self._db.execute(
                "SELECT sequence, digest, leaf_hash, record, note FROM licence WHERE reference = ?", (reference,)
            ).fetchone()
        if row is None:
            return None
        return LicenceState(sequence=row[0], digest=row[1], leaf_hash=row[2], record=UUID(bytes=row[3]), note=row[4])

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db, self._turn)


class _Transaction:
    """All or nothing; a full disk is said so and nothing was staged."""

    def __init__(self, db: sqlite3.Connection, turn: threading.Lock) -> None:
        self._db = db
        self._turn = turn

    def __enter__(self) -> None:
        self._turn.acquire()
        try:
            self._db.execute("BEGIN IMMEDIATE")
        except BaseException:
            self._turn.release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._db.execute("COMMIT")
        except sqlite3.OperationalError as exc:
            error = exc
            raise _not_written(exc) from exc
        finally:
            # A full disk may have ended the transaction already.
            if error is not None and self._db.in_transaction:
                self._db.execute("ROLLBACK")
            self._turn.release()
        if isinstance(error, sqlite3.OperationalError):
            raise _not_written(error) from error


def _not_written(error: Exception) -> Unavailable:
    return Unavailable(Code.DISK_FULL, f"the outbox could not be written ({error}): free disk space")
