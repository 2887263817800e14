"""A signed request counts once, at whichever of the gateways that share the database.

Every request, also one that reads: its answer is for who signed it, and whoever comes by a request (a TLS terminator, a
log) must not have it answered again. What is remembered is signer and nonce, in PostgreSQL, because all gateways have
that and each request goes there anyway; with SHA-256, 32 bytes a request for a minute and a half.

The row is committed without waiting for the disk. A crash of PostgreSQL forgets what was taken in during its last 0.6
seconds (three times `wal_writer_delay`): such a request, if it was caught, can be replayed once within its minute. A
key request is then decided and logged again, its answer sealed to the same recipient; an act fails at its state; a
reading is answered and logged again. A commit that waits would cost every request a write to disk.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import structlog

from bus import httpsig
from bus.db import postgres_errors, queries
from bus.httpsig import Signed
from schemas.errors import Code, Refused, Unavailable

# Longer than any clock that the gateways have finds it valid: each may be off by the skew, so may who signed.
KEEP = httpsig.VALID_FOR + 4 * httpsig.CLOCK_SKEW
SWEEP_SECONDS = 30.0

SQL = queries(Path(__file__).with_name("replays.sql"))
log = structlog.get_logger()


async def take(connection: asyncpg.Connection, signed: Signed) -> None:
    """Takes the request in. Raises `Refused` (REQUEST_REPLAYED) if a gateway has before."""
    if signed.once and await connection.fetchval(SQL["take"], signed.once, KEEP) is None:
        raise Refused(Code.REQUEST_REPLAYED, "this very request was sent before: sign it anew, with another nonce")


async def sweep(pool: asyncpg.Pool) -> None:
    """Forgets what nobody can replay any more, until cancelled."""
    while True:
        try:
            async with postgres_errors("forgetting requests"), pool.acquire() as connection:
                await connection.execute(SQL["sweep"])
        except Unavailable as exc:
            log.warning("requests_not_swept", code=exc.code)
        await asyncio.sleep(SWEEP_SECONDS)
