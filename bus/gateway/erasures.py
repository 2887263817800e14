"""Erasure (删除): a record's keys are destroyed, so that nobody opens it any more, from whatever copy of whatever data.

Commit points, and what a crash at each leaves behind:

1. the row in `erasure`        every gateway refuses the record from its next look on, and voids what it was deciding;
2. ErasureStarted in the log   a database that is restored learns of it there, before anything is released from it;
3. what is left of the session is in the keyring, its key is out of its day's tree: nothing stored yields the leaf. Done
   again it changes nothing;
4. the KEM key that its session was sealed to is destroyed with its time, as every day's;
5. ErasureComplete in the log  said once nothing that exists yields the leaf.

What a consumer opened before can't be called back: the log says who did (`/v1/records:impact`).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import structlog

from bus import audit, envelope, merkle
from bus.db import queries
from bus.gateway import control
from bus.gateway import sessions as stored_sessions
from bus.gateway.consents import SubjectBody
from bus.gateway.embargoes import Connect
from bus.gateway.keyring import Keyring
from bus.gateway.sessions import IN_KEYRING, SessionKeys
from bus.gateway.shapes import CreditCode, Hash, Name, Time, from_hex
from bus.httpsig import Signed
from bus.messages import check_texts
from bus.trust import Trust
from schemas.catalogue import Catalogue
from schemas.errors import Code, DeptbusError, Malformed, Refused

MOST = 1_000  # records a request
SWEEP_SECONDS = 1.0
SWEEP_ROWS = 500
NOT_CALLED_BACK = "What a department opened before can't be called back: the log says who did."

SQL = queries(Path(__file__).with_name("erasures.sql"))
log = structlog.get_logger()

Append = Callable[[Sequence[bytes]], Awaitable[None]]


class EraseBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/erasures`: `records` (leaf hashes), or a `subject`, of one `item` or of all that the caller issued.

    `basis` is why (个人信息保护法 第四十七条 names the cases), `operator` who asks.
    """

    basis: Name
    operator: Name
    records: list[Hash] = []
    subject: SubjectBody | None = None
    item: str | None = None


class ErasureBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/erasures:show`: records by their leaf hashes."""

    records: list[Hash]


class ErasureAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """How far an erasure is: STARTED (refused everywhere), PUNCTURED (nothing stored yields its keys), COMPLETE.

    `entry` is its ErasureStarted in the log; `complete_from` the earliest time at which it can be complete.
    """

    record: Hash
    licence: Hash
    item: str
    state: str
    by: CreditCode
    basis: str
    started_at: Time
    entry: Hash | None
    complete_from: Time | None
    completed_at: Time | None


class KeptAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Records of a subject that were not erased: the law keeps the item's, or another holds them, too."""

    record: Hash
    item: str
    code: str
    reason: str


class ErasuresAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What is being erased, what is not, and what no erasure does."""

    erasures: list[ErasureAnswer]
    kept: list[KeptAnswer]
    note: str


class Erasures:
    """Takes erasures and carries them out, with a gateway's keys."""

    def __init__(
        self,
        *,
        connect: Connect,
        append: Append,
        keyring: Keyring,
        sessions: SessionKeys,
        trust: Trust,
        catalogue: Catalogue,
        pseudonym: Callable[[str, SubjectBody], bytes],
        origin: str,
        operator: str,
    ) -> None:
        self._connect = connect
        self._append = append
        self._keyring = keyring
        self._sessions = sessions
        self._trust = trust
        self._catalogue = catalogue
        self._pseudonym = pseudonym
        self._origin = origin
        self._owner = keyring.signer.uscc
        self._is_operator = self._owner == operator

    async def start(self, signed: Signed, body: EraseBody) -> Any:
        """From its answer on, no gateway releases a key of these records. Repeated, it changes nothing.

        Raises `Malformed`; `Refused`: NOT_FOUND for what the caller did not issue, LAW_KEEPS for records that are
        named and may not be erased.
        """
        check_texts(body.basis, body.operator)
        if not (body.basis and body.operator) or bool(body.records) == (body.subject is not None):
            raise Malformed(Code.REQUEST_MALFORMED, "basis, operator, and either records or a subject are needed")
        kept: list[dict[str, Any]] = []
        caller = signed.caller.uscc
        async with self._connect("starting an erasure") as connection:
            if body.subject is None:
                wanted = [from_hex(one, 32) for one in body.records]
                _check_count(wanted)
                rows = await connection.fetch(SQL["records"], wanted)
                self._check_named(caller, wanted, rows)
            else:
                rows, kept = await self._of_subject(connection, caller, body.subject, body.item)
            records = sorted(row["leaf_hash"] for row in rows)
            await connection.execute(SQL["start"], records, caller, body.basis)
        while await self.log_started():
            pass
        log.info("erasure_started", by=caller, records=len(records))
        async with self._connect("reading erasures") as connection:
            return self._answer(await connection.fetch(SQL["show"], records), kept)

    async def show(self, signed: Signed, body: ErasureBody) -> Any:
        """For who issued them, in whose power they were issued, and auditors; others' are as if they were not."""
        wanted = [from_hex(one, 32) for one in body.records]
        _check_count(wanted)
        caller = signed.caller.uscc
        async with self._connect("reading erasures") as connection:
            rows = await connection.fetch(SQL["show"], wanted)
            if not await control.is_auditor(connection, caller):
                rows = [row for row in rows if caller in (row["issuer"], row["provider"])]
        if not rows:
            raise Refused(Code.NOT_FOUND, "none of these records of your department's is being erased")
        return self._answer(rows, [])

    async def sweep(self) -> None:
        """Carries out what is due, until cancelled: whatever an engine's absence delays is done when it is back."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                while await self.log_started():
                    pass
                if not self._keyring.master.locked:
                    await self.carry_out()
            except DeptbusError as exc:
                log.warning("erasure_delayed", code=exc.code, detail=exc.detail)
            except Exception:  # a defect here must not end the gateway: it refuses what is to be erased
                log.exception("erasure_failed")

    async def log_started(self) -> int:
        """Logs erasures that the log does not have yet; returns how many. Raises `Unavailable`: then they wait."""
        async with self._connect("logging erasures") as connection, connection.transaction():
            rows = await connection.fetch(SQL["unlogged"], SWEEP_ROWS)
            if rows:
                entries = await self._log("ErasureStarted", [dict(row) for row in rows])
                await connection.execute(SQL["logged"], [row["record"] for row in rows], entries)
        return len(rows)

    async def carry_out(self) -> None:
        """One round: takes leaves out, destroys KEM keys whose time is over, says what is complete."""
        async with self._connect("erasing") as connection:
            kem = self._keyring.kem_ids
            rows = await connection.fetch(SQL["to_puncture"], self._owner, self._is_operator, kem, SWEEP_ROWS)
            for _, group in groupby(sorted(rows, key=_session), key=_session):
                await self._puncture(connection, list(group))
            await self._destroy_kem(connection)
            kem = self._keyring.kem_ids
            done = await connection.fetch(SQL["to_complete"], self._owner, self._is_operator, kem, SWEEP_ROWS)
            if done:
                await self._log("ErasureComplete", [{"record": row["record"]} for row in done])
                await connection.execute(SQL["complete"], [row["record"] for row in done])
                log.info("erasure_complete", records=len(done))

    async def _puncture(self, connection: asyncpg.Connection, rows: Sequence[Any]) -> None:
        """Records of one session."""
        session, issuer = rows[0]["session"], rows[0]["issuer"]
        name = rows[0]["wrap_key"] or IN_KEYRING
        if name != IN_KEYRING and "." not in name:  # of before days had trees: its sessions come under one first
            if self._keyring.stands(name):
                await asyncio.to_thread(self._keyring.rotate_wrapping, name)
            return
        trees = await self._sessions.trees(connection, rows[0])
        if trees is not None:
            for row in rows:
                trees = {section: tree.without(row["leaf"]) for section, tree in trees.items()}
            # To the end, even if this gateway is stopped meanwhile: its thread goes on, and the row is looked at again.
            await asyncio.to_thread(self._keyring.puncture, name, session, issuer, trees)
        self._sessions.forget(session, issuer)
        await connection.execute(SQL["punctured"], [row["leaf_hash"] for row in rows])

    async def _destroy_kem(self, connection: asyncpg.Connection) -> None:
        """Keys whose time is over, when nothing that was sealed to them is still to be opened."""
        for key_id in self._keyring.kem_ids:
            key = self._trust.kem_key(key_id)
            if key is None or datetime.now(UTC) < key.not_after + self._keyring.lives.destroy_after:
                continue
            last = key.not_after + self._keyring.lives.destroy_after
            if await connection.fetchval(stored_sessions.SQL["settled"], key_id, last):
                await asyncio.to_thread(self._keyring.destroy_kem, key_id)
                log.info("kem_key_destroyed", id=key_id.hex())

    async def _log(self, kind: str, bodies: Sequence[dict[str, Any]]) -> list[bytes]:
        """The leaf hashes of these entries, which are durable when this returns."""
        signer, now = self._keyring.signer, datetime.now(UTC)
        said = [(kind, body) for body in bodies]
        values = audit.log_values(signer, self._origin, secrets.token_bytes(16), said, now)
        await self._append(values)
        return [merkle.leaf_hash(value) for value in values]

    def _check_named(self, caller: str, wanted: Collection[bytes], rows: Sequence[Any]) -> None:
        mine = {row["leaf_hash"] for row in rows if caller in (row["issuer"], row["provider"])}
        if mine != set(wanted):
            raise Refused(Code.NOT_FOUND, "only who issued a record has it erased: one of these is another's")
        for row in rows:
            reason = self._kept_by_law(row["item"])
            if reason:
                raise Refused(Code.LAW_KEEPS, reason)

    async def _of_subject(
        self, connection: asyncpg.Connection, caller: str, subject: SubjectBody, item: str | None
    ) -> tuple[list[Any], list[dict[str, Any]]]:
        """Records to erase, and those that are kept, each with why."""
        items = list(self._catalogue.items) if item is None else [self._catalogue.item(item).name]
        pseudonyms = {self._pseudonym(one, subject) for one in items}
        rows = await connection.fetch(SQL["of_subject"], list(pseudonyms), caller, MOST + 1)
        _check_count(rows)
        mine, kept = [], []
        for row in rows:
            holders = set(envelope.parse(row["value"]).claims.holders)
            reason = self._kept_by_law(row["item"])
            if reason:
                kept.append(_kept(row, Code.LAW_KEEPS, reason))
            elif not holders <= pseudonyms:
                detail = "another holds it, too, or it is another's that names the subject: name the record itself"
                kept.append(_kept(row, Code.STATE_INVALID, detail))
            else:
                mine.append(row)
        if not rows:
            raise Refused(Code.NOT_FOUND, "your department has issued nothing to this subject")
        return mine, kept

    def _kept_by_law(self, item: str) -> str:
        retention = self._catalogue.item(item).retention
        if retention is None:
            return ""
        verified = "" if retention.verified else " (article not verified)"
        return f"the law keeps records of {item}: {retention.basis}{verified}"

    def _answer(self, rows: Iterable[Any], kept: list[dict[str, Any]]) -> dict[str, Any]:
        return {"erasures": [self._shown(row) for row in rows], "kept": kept, "note": NOT_CALLED_BACK}

    def _shown(self, row: Any) -> dict[str, Any]:
        key = self._trust.kem_key(row["recipient"])
        gone = None if key is None else key.not_after + self._keyring.lives.destroy_after
        done = row["completed_at"]
        return {
            "record": row["record"].hex(),
            "licence": row["licence"].hex(),
            "item": row["item"],
            "state": "COMPLETE" if done else "PUNCTURED" if row["punctured_at"] else "STARTED",
            "by": row["by"],
            "basis": row["basis"],
            "started_at": row["started_at"].isoformat(),
            "entry": None if row["entry"] is None else row["entry"].hex(),
            "complete_from": None if done or gone is None else max(gone, row["not_after"]).isoformat(),
            "completed_at": None if done is None else done.isoformat(),
        }


def _check_count(wanted: Collection[Any]) -> None:
    if not len(wanted) <= MOST:
        raise Malformed(Code.REQUEST_TOO_LARGE, f"at most {MOST} records at once: take an item, or fewer records")


def _session(row: Any) -> tuple[bytes, str]:
    return row["session"], row["issuer"]


def _kept(row: Any, code: Code, reason: str) -> dict[str, Any]:
    return {"record": row["leaf_hash"].hex(), "item": row["item"], "code": code.value, "reason": reason}
