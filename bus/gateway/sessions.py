"""Session keys in a gateway: every section's root, wrapped in PostgreSQL, unwrapped for as long as it is used.

A session is opened with the KEM key that it was sealed to; its secret is forgotten once the roots are stored. Any
gateway that holds that key may do it, once: the row is filled by whoever comes first. Of a session of which records
were erased, what the keyring has left counts and nothing else (`bus/gateway/erasures.py`).

Where a crash strikes while sessions are wrapped anew, the row holds the former or the new wrapping, and the former key
is destroyed only when no row holds it: nothing is lost.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

import asyncpg
import structlog

from bus import session
from bus.db import postgres_errors, queries
from bus.gateway.keyring import Keyring
from bus.punctured import Tree
from bus.sealing import LEAF_BITS, LeafKeys
from schemas.catalogue import Catalogue
from schemas.errors import Code, DeptbusError, Malformed, Refused, Unavailable

CACHED_SESSIONS = 2_048  # of the busiest hour's publishers; three sections' ways take about 3 KiB each
SWEEP_SECONDS = 1.0  # sessions must be stored before the day's KEM key is destroyed: hours, not seconds
SWEEP_ROWS = 200
IN_KEYRING = "keyring"  # instead of a wrapping key's name: what is left of the session is in the keyring alone

SQL = queries(Path(__file__).with_name("sessions.sql"))
log = structlog.get_logger()

SessionId = tuple[bytes, str]


@dataclass(frozen=True, slots=True)
class _Held:
    """A session's sections as they are used, and the wrapping key that they came from (empty: none)."""

    wrap_key: str
    sections: Mapping[str, LeafKeys | Tree]


class SessionKeys:
    """The roots of the sessions that this gateway can open."""

    def __init__(self, keyring: Keyring, catalogue: Catalogue) -> None:
        self._keyring = keyring
        self._catalogue = catalogue
        self._held: OrderedDict[SessionId, _Held] = OrderedDict()

    async def load(self, connection: asyncpg.Connection, wanted: Collection[SessionId]) -> dict[SessionId, Code]:
        """Makes the sessions ready for `nodes`; returns those that this gateway cannot open, with the reason."""
        missing = [one for one in wanted if one not in self._held]
        rows = (
            await connection.fetch(SQL["sessions"], [s for s, _ in missing], [i for _, i in missing]) if missing else []
        )
        found = {(row["session"], row["issuer"]): row for row in rows}
        unopened: dict[SessionId, Code] = {}
        for one in missing:
            try:
                self._held[one] = await self._open(connection, found[one])
            except KeyError:
                unopened[one] = Code.SESSION_UNKNOWN
            except Unavailable:
                raise
            except DeptbusError as exc:
                unopened[one] = exc.code
        for one in wanted:
            if one in self._held:
                self._held.move_to_end(one)
        while len(self._held) > max(CACHED_SESSIONS, len(wanted)):
            self._held.popitem(last=False)
        return unopened

    def nodes(self, session_id: bytes, issuer: str, leaf: int, sections: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """The leaf's node of each section. Only after `load`, and only for what was permitted."""
        if sections:
            held = self._held[session_id, issuer].sections
            for name in sections:
                yield name, held[name].node(leaf)

    async def trees(self, connection: asyncpg.Connection, row: Any) -> dict[str, Tree] | None:
        """What there is of a session's keys now, section by section; None if nothing opens it any more."""
        left = self._keyring.left(row["session"], row["issuer"])
        if left is not None:
            return left
        try:
            _, roots = await self._roots(connection, row)
        except (Refused, KeyError):
            return None
        return {name: Tree.whole(LEAF_BITS, root) for name, root in roots.items()}

    def forget(self, session_id: bytes, issuer: str) -> None:
        """Of what was destroyed nothing is kept in memory."""
        self._held.pop((session_id, issuer), None)

    def refresh(self) -> None:
        """Follows what other processes did to the keys. Raises `Misuse` if their folder cannot be read."""
        changed = self._keyring.refresh()
        if changed:
            for one in [one for one, held in self._held.items() if held.wrap_key in changed]:
                del self._held[one]

    async def sweep(self, pool: asyncpg.Pool) -> None:
        """Stores the roots of sessions as they come, and wraps anew what is to be, until cancelled."""
        while True:
            try:
                self.refresh()
                if not self._keyring.master.locked:
                    async with postgres_errors("storing session keys"), pool.acquire() as connection:
                        rows = await connection.fetch(SQL["unwrapped"], self._keyring.kem_ids, SWEEP_ROWS)
                        for row in rows:
                            await self._take(connection, row)
                        for name in self._keyring.outdated():
                            await self._wrap_again(connection, name)
            except DeptbusError as exc:
                log.warning("sessions_unavailable", code=exc.code, detail=exc.detail)
            await asyncio.sleep(SWEEP_SECONDS)

    async def _take(self, connection: asyncpg.Connection, row: Any) -> None:
        try:
            if self._keyring.left(row["session"], row["issuer"]) is not None:  # of a database that was restored
                await connection.execute(SQL["store_roots"], row["session"], row["issuer"], b"", IN_KEYRING, None)
                return
            await self._roots(connection, row)
        except KeyError:
            log.warning("session_of_unknown_schema", issuer=row["issuer"])  # until this gateway's catalogue has it
        except (Refused, Malformed) as exc:
            # Every read of its records is refused with this code, and its KEM key need not wait for it.
            await connection.execute(SQL["refuse"], row["session"], row["issuer"], exc.code.value)
            log.error("session_unopenable", code=exc.code, detail=exc.detail, issuer=row["issuer"])

    async def _wrap_again(self, connection: asyncpg.Connection, name: str) -> None:
        """Sessions under a wrapping key that was replaced; when there is none left, it is destroyed."""
        rows = await connection.fetch(SQL["wrapped_under"], name, SWEEP_ROWS)
        for row in rows:
            left = self._keyring.left(row["session"], row["issuer"])
            try:
                roots = {} if left is not None else self._unwrap(row)
            except Refused as exc:  # it could not be opened before either
                log.error("session_unopenable", code=exc.code, detail=exc.detail, issuer=row["issuer"])
                roots = {}
            await self._store(connection, row, roots, name[:10])
        if not rows:
            await asyncio.to_thread(self._keyring.destroy_wrapping, name)
            log.info("wrapping_key_destroyed", name=name)

    async def _open(self, connection: asyncpg.Connection, row: Any) -> _Held:
        if row["refusal"] is not None:
            raise Refused(Code(row["refusal"]), "the session was refused when it came")
        if (row["owner"] or self._keyring.signer.uscc) != self._keyring.signer.uscc:
            raise Refused(Code.SESSION_ELSEWHERE, f"the gateway of {row['owner']} opens this session")
        left = self._keyring.left(row["session"], row["issuer"])
        if left is not None:
            return _Held("", left)
        name, roots = await self._roots(connection, row)
        return _Held(name, {section: LeafKeys(root) for section, root in roots.items()})

    async def _roots(self, connection: asyncpg.Connection, row: Any) -> tuple[str, dict[str, bytes]]:
        """With the wrapping key that they are under. Raises `KeyError` if the session was never stored and no key is
        there that it was sealed to, `Refused` if it does not open."""
        if row["roots"] is not None:
            try:
                return row["wrap_key"], self._unwrap(row)
            except Refused:  # its wrapping key was destroyed while it was stored, or since this copy was made
                if self._keyring.kem(session.parse(row["record"]).recipient) is None:
                    raise
        opened = session.parse(row["record"])
        private = self._keyring.kem(opened.recipient)
        if private is None:
            raise KeyError(row["session"])
        schema = self._catalogue.item(opened.item).schemas[opened.schema]
        roots = dict(session.roots(opened, private, schema.sections))
        return await self._store(connection, row, roots, f"{opened.created_at.astimezone(UTC):%Y-%m-%d}"), roots

    def _unwrap(self, row: Any) -> dict[str, bytes]:
        return self._keyring.unwrap(row["wrap_key"], row["roots"], row["session"], row["issuer"])

    async def _store(self, connection: asyncpg.Connection, row: Any, roots: Mapping[str, bytes], day: str) -> str:
        """Wraps and stores; again if the wrapping key was replaced meanwhile, so that none is stored under a dead one.

        Whoever else stores the same session first wins: the key that it is under is no other's business.
        """
        before = row["wrap_key"]
        while True:
            name, wrapped = self._keyring.wrap(roots, row["session"], row["issuer"], day)
            done = await connection.execute(SQL["store_roots"], row["session"], row["issuer"], wrapped, name, before)
            if done.endswith(" 0") or self._keyring.stands(name):
                return name
            before = name
