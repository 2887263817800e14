"""Rules in the trail: who made, ended or withdrew which agreement or consent, by hash.

A rule that opens something is logged before it is stored: no decision ever rests on a rule that the trail does not
know. (A crash between leaves an entry of a rule that never was.) A rule that closes something counts first and is
logged as soon as the log is there: its signed entry stands in the same transaction, and whichever gateway finds it
later appends it. (A crash between appends it twice: the same bytes, so the same leaf hash.)
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import structlog

from bus import audit
from bus.db import postgres_errors, queries
from bus.httpsig import Signed
from bus.pki import Signer
from consent.model import Agreement, Consent
from schemas.errors import Unavailable

SWEEP_SECONDS = 2.0
SWEEP_ROWS = 200

SQL = queries(Path(__file__).with_name("revisions.sql"))
log = structlog.get_logger()

Rule = Agreement | Consent
Append = Callable[[Sequence[bytes]], Awaitable[None]]


def rule_hash(rule: Rule) -> bytes:
    """SHA-256 of the rule's JSON, keys sorted, no blanks: what its revision is known by in the log."""
    text = json.dumps(rule.to_json(), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).digest()


class Revisions:
    """Writes rules to the log through a gateway's own append."""

    def __init__(self, signer: Signer, origin: str, append: Append) -> None:
        self._signer = signer
        self._origin = origin
        self._append = append

    def entries(self, signed: Signed, rules: Sequence[Rule]) -> list[bytes]:
        """The signed log values of these revisions, as one call's."""
        bodies = [("Revision", _body(signed, rule)) for rule in rules]
        return audit.log_values(self._signer, self._origin, signed.digest[:16], bodies, datetime.now(UTC))

    async def log(self, signed: Signed, rules: Sequence[Rule]) -> None:
        """Returns when the log holds them: only then they may be stored. Raises `Unavailable`."""
        await self._append(self.entries(signed, rules))

    async def flush(self, connection: asyncpg.Connection) -> int:
        """Appends what closing rules left in the outbox; returns how many. Raises `Unavailable`: all is still there."""
        async with connection.transaction():
            rows = await connection.fetch(SQL["waiting"], SWEEP_ROWS)
            if rows:
                await self._append([row["value"] for row in rows])
                await connection.execute(SQL["forget"], [row["id"] for row in rows])
        return len(rows)

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


def _body(signed: Signed, rule: Rule) -> dict[str, object]:
    consent = isinstance(rule, Consent)
    return {
        "kind": "consent" if consent else "agreement",
        "id": str(rule.id),
        "revision": rule.revision,
        "state": rule.state.value,
        "item": rule.item,
        "subjects": [rule.subject] if isinstance(rule, Consent) else [],
        "recipient": rule.recipient if isinstance(rule, Consent) else rule.consumer,
        "hash": rule_hash(rule),
        "author": signed.caller.uscc,
        "digest": signed.digest,
        "signer": signed.caller.id,
        "signature": signed.signature,
    }
