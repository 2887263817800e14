"""Session keys in a gateway: every section's root, wrapped in PostgreSQL, unwrapped for as long as it is used.

A session is opened with the KEM key that it was sealed to; its secret is forgotten once the roots are stored. Any
gateway that holds that key may do it, once: the row is filled by whoever comes first.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import structlog

from bus import session
from bus.db import postgres_errors, queries
from bus.gateway.keyring import Keyring
from bus.sealing import LeafKeys
from schemas.catalogue import Catalogue
from schemas.errors import Code, DeptbusError, Unavailable

CACHED_SESSIONS = 2_048  # of the busiest hour's publishers; three sections' ways take about 3 KiB each
SWEEP_SECONDS = 1.0  # sessions must be stored before the day's KEM key is destroyed: hours, not seconds
SWEEP_ROWS = 200

SQL = queries(Path(__file__).with_name("sessions.sql"))
log = structlog.get_logger()

SessionId = tuple[bytes, str]


class SessionKeys:
    """The roots of the sessions that this gateway can open."""

    def __init__(self, keyring: Keyring, catalogue: Catalogue) -> None:
        self._keyring = keyring
        self._catalogue = catalogue
        self._leaves: OrderedDict[SessionId, dict[str, LeafKeys]] = OrderedDict()

    async def load(self, connection: asyncpg.Connection, wanted: Collection[SessionId]) -> dict[SessionId, Code]:
        """Makes the sessions ready for `nodes`; returns those that this gateway cannot open, with the reason."""
        missing = [one for one in wanted if one not in self._leaves]
        rows = (
            await connection.fetch(SQL["sessions"], [s for s, _ in missing], [i for _, i in missing]) if missing else []
        )
        found = {(row["session"], row["issuer"]): row for row in rows}
        unopened: dict[SessionId, Code] = {}
        for one in missing:
            try:
                roots = await self._roots(connection, found[one])
            except KeyError:
                unopened[one] = Code.SESSION_UNKNOWN
            except Unavailable:
                raise
            except DeptbusError as exc:
                unopened[one] = exc.code
            else:
                self._leaves[one] = {name: LeafKeys(root) for name, root in roots.items()}
        for one in wanted:
            if one in self._leaves:
                self._leaves.move_to_end(one)
        while len(self._leaves) > max(CACHED_SESSIONS, len(wanted)):
            self._leaves.popitem(last=False)
        return unopened

    def nodes(self, session_id: bytes, issuer: str, leaf: int, sections: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """The leaf's node of each section. Only after `load`, and only for what was permitted."""
        if sections:
            leaves = self._leaves[session_id, issuer]
            for name in sections:
                yield name, leaves[name].node(leaf)

    async def sweep(self, pool: asyncpg.Pool) -> None:
        """Stores the roots of sessions as they come, until cancelled."""
        while True:
            try:
                async with postgres_errors("storing session keys"), pool.acquire() as connection:
                    rows = await connection.fetch(SQL["unwrapped"], self._keyring.kem_ids, SWEEP_ROWS)
                    for row in rows:
                        await self._take(connection, row)
            except Unavailable as exc:
                log.warning("sessions_unavailable", code=exc.code)
            await asyncio.sleep(SWEEP_SECONDS)

    async def _take(self, connection: asyncpg.Connection, row: Any) -> None:
        try:
            await self._roots(connection, row)
        except DeptbusError as exc:
            # It stays unopened and every read of its records is refused with this code.
            log.error("session_unopenable", code=exc.code, detail=exc.detail, issuer=row["issuer"])

    async def _roots(self, connection: asyncpg.Connection, row: Any) -> dict[str, bytes]:
        session_id, issuer = row["session"], row["issuer"]
        if row["roots"] is not None:
            return self._keyring.unwrap(row["wrap_key"], row["roots"], session_id, issuer)
        opened = session.parse(row["record"])
        private = self._keyring.kem(opened.recipient)
        if private is None:
            raise KeyError(session_id)
        schema = self._catalogue.item(opened.item).schemas[opened.schema]
        roots = dict(session.roots(opened, private, schema.sections))
        day, wrapped = self._keyring.wrap(roots, session_id, issuer, opened.created_at)
        await connection.execute(SQL["store_roots"], session_id, issuer, wrapped, day)
        return roots
