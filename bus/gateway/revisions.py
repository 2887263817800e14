"""Rules in the trail: who did what to which agreement, consent, power or entry of the catalogue, by hash.

A rule that opens something is logged before it is stored: no decision ever rests on a rule that the trail does not
know. (A crash between leaves an entry of a rule that never was.) A rule that closes something counts first and is
logged as soon as the log is there: its signed entry stands in the same transaction, and whichever gateway finds it
later appends it. (A crash between appends it twice: the same bytes, so the same leaf hash.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import structlog

from bus import audit
from bus.db import postgres_errors, queries
from bus.httpsig import Signed
from bus.pki import Signer
from consent.documents import Document
from consent.lifecycle import Act
from consent.model import Consent, Dispute, Mandate, Power, parties
from schemas.errors import Unavailable

SWEEP_SECONDS = 2.0
SWEEP_ROWS = 200

SQL = queries(Path(__file__).with_name("revisions.sql"))
log = structlog.get_logger()

Done = tuple[Document, Act, str]  # a document's new revision, what was done to it, and the reason
Append = Callable[[Sequence[bytes]], Awaitable[None]]


class Revisions:
    """Writes rules to the log through a gateway's own append."""

    def __init__(self, signer: Signer, origin: str, append: Append) -> None:
        self._signer = signer
        self._origin = origin
        self._append = append

    def entries(self, signed: Signed, done: Sequence[Done]) -> list[bytes]:
        """The signed log values of these revisions, as one call's."""
        bodies = [("Revision", _body(signed, *one)) for one in done]
        return audit.log_values(self._signer, self._origin, signed.digest[:16], bodies, datetime.now(UTC))

    async def log(self, signed: Signed, done: Sequence[Done]) -> None:
        """Returns when the log holds them: only then they may be stored. Raises `Unavailable`."""
        await self._append(self.entries(signed, done))

    async def flush(self, connection: asyncpg.Connection) -> int:
        """Appends what closing rules left in the outbox; returns how many. Raises `Unavailable`: all is still there."""
        async with connection.transaction():
            rows = await connection.fetch(SQL["waiting"], SWEEP_ROWS)
            if rows:
                await self._append([row["value"] for row in rows])
                await connection.execute(SQL["forget"], [row["id"] for row in rows])
        return len(rows)

    async def flush_soon(self, connection: asyncpg.Connection) -> None:
        """Now if the log is there; else the sweep does it: what was withdrawn stays withdrawn."""
        try:
            await self.flush(connection)
        except Unavailable as exc:
            log.warning("revisions_delayed", code=exc.code)

    async def sweep(self, pool: asyncpg.Pool) -> None:
        """Flushes again and again, until cancelled: a Kafka that was away gets its entries when it is back."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                async with postgres_errors("logging revisions"), pool.acquire() as connection:
                    await self.flush(connection)
            except Unavailable as exc:
                log.warning("revisions_delayed", code=exc.code)


async def keep(connection: asyncpg.Connection, values: Sequence[bytes]) -> None:
    """Puts entries into the outbox, inside the caller's transaction."""
    await connection.executemany(SQL["keep"], [(value,) for value in values])


def body_of(document: Document, act: Act, reason: str) -> dict[str, object]:
    """A `Revision` entry's fields, but for who did it."""
    grantor, grantee = parties(document)
    return {
        "kind": document.kind,
        "id": str(document.id),
        "revision": document.revision,
        "act": act.value,
        "reason": reason,
        "state": document.state.value,
        "items": _items(document),
        "subjects": _subjects(document),
        "grantor": grantor,
        "recipient": "" if isinstance(document, Mandate) else grantee,  # an agent is no department
        "hash": document.hash,
    }


def _body(signed: Signed, document: Document, act: Act, reason: str) -> dict[str, object]:
    return body_of(document, act, reason) | {
        "author": signed.caller.uscc,
        **signed.kept,
    }


def _items(document: Document) -> list[str]:
    match document:
        case Consent():
            return sorted({scope.item for scope in document.scopes})
        case Mandate():
            return sorted({holder.item for holder in document.subjects})
        case Power():
            return sorted(document.items)
        case Dispute():
            return []
    return [document.item]  # type: ignore[attr-defined]  # every other kind speaks of one item


def _subjects(document: Document) -> list[bytes]:
    match document:
        case Consent():
            return [scope.subject for scope in document.scopes]
        case Mandate():
            return [holder.subject for holder in document.subjects]
    return []
