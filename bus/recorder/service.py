"""The recorder: admits records, keeps the licence index, makes the audit log of its topic.

One is active; others stand by on the lock. Every transaction moves the offsets of what it wrote by compare-and-swap, so
a crash repeats a poll and a deposed recorder cannot write. Order of effects at admission: the log's entry is durable
first, then the index row is committed. A crash between leaves an entry that is logged twice, never a record without
one.
"""

from __future__ import annotations

import asyncio
import secrets
from base64 import b64decode
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from bus import audit, envelope, merkle, metrics, session
from bus.db import check_dsn, postgres_errors, queries
from bus.gateway.rulebook import from_row
from bus.kafka import bounded, consumer, kafka_errors, partitions_of, producer, stop
from bus.pki import Signer
from bus.proof import ProofVerifier
from bus.recorder import admission, impact
from bus.recorder.admission import Arrived, Checked, Index, KnownSession, Plan, Refusal, Rival
from bus.recorder.clock import Clock
from bus.recorder.impact import Impact
from bus.recorder.log import AUDIT, Log, LogKeys
from bus.recorder.oversight import Oversight
from bus.renewal import follow
from bus.supervision import Rules
from bus.transport import Cluster
from bus.trust import Trust
from bus.trustfeed import TrustFeed
from consent import calendar
from consent.issuing import Issuing, Standing, standing
from consent.model import status_after
from schemas.catalogue import Catalogue
from schemas.errors import Code, DeptbusError, Malformed, Refused, Unavailable
from schemas.operations import Operation

POLL_RECORDS = 500  # 500 records of some KiB: under 100 ms of work, a few MiB of memory
POLL_MS = 500
# Of the log: each write writes the bundle on the edge anew, up to some MiB, and a checkpoint covers it once a second.
# So after a poll of few entries the next ones gather for a moment.
FEW, GATHER_SECONDS = 64, 0.1
LOG_SECONDS = 20.0
STANDBY_SECONDS = 1.0
RETRY_SECONDS = 1.0
HEARTBEAT_SECONDS = 1.0
SESSIONS_SECONDS = 5.0  # a KEM key that is over waits so long for the last sessions that were sealed to it
KNOWN_SESSIONS = 10_000

SQL = queries(Path(__file__).with_name("recorder.sql"))
log = structlog.get_logger()


class Deposed(Exception):
    """Another recorder has gone on from where this one stood: give up the lock and start over."""


class Recorder:
    """Runs until cancelled. Without `rules` nobody's use of data is supervised."""

    def __init__(
        self,
        signer: Signer,
        origin: str,
        catalogue: Catalogue,
        trust: Trust,
        cluster: Cluster,
        dsn: str,
        log_keys: LogKeys,
        rules: Rules | None = None,
    ) -> None:
        self._signer = signer
        self._origin = origin
        self._catalogue = catalogue
        self._trust = TrustFeed(trust, cluster, "recorder")
        self._cluster = cluster
        check_dsn(dsn)
        self._dsn = dsn
        self._verifier = ProofVerifier()
        self._audit_log = Log(log_keys, origin, self._trust, self._verifier, dsn)
        self._oversight = None if rules is None else Oversight(signer, origin, rules, dsn)
        self._impact = Impact(signer, origin, dsn)
        self._clock = Clock(signer, origin, catalogue, calendar.NONE if rules is None else rules.years, dsn)
        self._sessions: dict[tuple[bytes, str], KnownSession] = {}
        self._session_reader: AIOKafkaConsumer | None = None
        self._session_partitions: list[TopicPartition] = []
        self._session_reading = asyncio.Lock()
        self._producer: AIOKafkaProducer | None = None
        self._standing = self._active = False

    def check(self) -> None:
        """Raises why it is not ready: it stands by with its engines at hand, or is active and its log is signed."""
        if self._audit_log.refusal is not None:
            raise self._audit_log.refusal
        if not self._standing:
            raise Unavailable(Code.POSTGRES_UNAVAILABLE, "the recorder has not reached its engines")
        if self._active and not self._audit_log.published:
            raise Unavailable(Code.AUDIT_STALLED, "the log is being read: its first checkpoint is not published yet")

    async def run(self) -> None:
        """Takes the lock, records, and starts over when an engine was away.

        Loses nothing: offsets are in PostgreSQL.
        """
        task = asyncio.current_task()
        assert task is not None
        while True:
            try:
                # A task of its own: a group in this one whose part fails leaves this one's `cancelling` raised (Python
                # 3.11, 3.12), and an engine's absence would look like a wish to stop.
                await asyncio.create_task(self._run_once())
            except (Unavailable, Deposed) as exc:
                log.warning("recorder_restarts", reason=str(exc) or "deposed")
            except (Refused, Malformed) as exc:  # the log is not what was signed: a person must look
                self._audit_log.refuse(exc)
            except asyncio.CancelledError:
                if task.cancelling():
                    raise
                log.warning("recorder_restarts", reason="a client's own task was cancelled")
            except (KeyError, asyncpg.PostgresError) as exc:
                log.error("recorder_failed", error=type(exc).__name__, exc_info=True)
            finally:
                self._standing = self._active = False
                metrics.ACTIVE.set(0)
            if task.cancelling():  # a part that failed in the same moment hid the cancellation
                raise asyncio.CancelledError
            await asyncio.sleep(RETRY_SECONDS)

    async def _run_once(self) -> None:
        async with postgres_errors("connecting"):
            lock = await asyncpg.connect(self._dsn, timeout=LOG_SECONDS)
        try:
            self._standing = True
            async with postgres_errors("waiting for the recorder's lock"):
                while not await lock.fetchval(SQL["try_lock"]):
                    self._audit_log.refuse(None)  # it is the other one's log now
                    await asyncio.sleep(STANDBY_SECONDS)
            metrics.ACTIVE.set(1)
            self._active = True
            log.info("recorder_active")
            await self._record(lock)
        finally:
            with suppress(Exception):
                await lock.close(timeout=1)

    async def _record(self, lock: asyncpg.Connection) -> None:
        """Everything the active recorder does; the first part that fails ends the others."""
        async with AsyncExitStack() as clients:
            clients.push_async_callback(self._trust.stop)
            await self._trust.start()
            self._producer = await producer(self._cluster, "recorder", linger_ms=0)
            clients.push_async_callback(stop, self._producer)
            licences = await self._reader(clients, "admission", *(i.topic for i in self._catalogue.items.values()))
            entries = await self._reader(clients, "auditing", audit.TOPIC)
            await self._audit_log.start(entries, await entries.position(AUDIT))
            self._session_reader = await self._reader(clients, "sessions", session.TOPIC)
            self._session_partitions = list(self._session_reader.assignment())
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._trust.follow())
                    tasks.create_task(self._heartbeat(lock))
                    tasks.create_task(self._keep_sessions())
                    tasks.create_task(self._loop(licences, self._admit))
                    tasks.create_task(self._loop(entries, self._integrate))
                    tasks.create_task(self._audit_log.publish())
                    tasks.create_task(self._impact.run(self._producer, lambda: _end(entries)))
                    tasks.create_task(self._clock.run(self._producer))
                    if self._oversight is not None:
                        tasks.create_task(self._oversight.run(self._producer))
                    tasks.create_task(self._audit_log.cosign())
            except* (Unavailable, Deposed, Refused, Malformed) as group:
                raise group.exceptions[0] from None

    async def _heartbeat(self, lock: asyncpg.Connection) -> None:
        """On the lock's own connection: who loses the lock stops saying that the index is fresh, and stops."""
        while True:
            follow(self._signer, "recorder")
            async with postgres_errors("writing the heartbeat"):
                await lock.execute(SQL["heartbeat"])
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def _reader(self, clients: AsyncExitStack, name: str, *topics: str) -> AIOKafkaConsumer:
        """A consumer of whole topics that goes on where the database says. It is one of `clients` to be stopped."""
        reader = await consumer(self._cluster, f"recorder-{name}", max_poll_records=POLL_RECORDS)
        clients.push_async_callback(stop, reader)
        partitions = [tp for topic in topics for tp in await partitions_of(reader, topic)]
        reader.assign(partitions)
        async with postgres_errors("reading positions"):
            connection = await asyncpg.connect(self._dsn, timeout=LOG_SECONDS)
            try:
                await connection.executemany(SQL["first_position"], [(tp.topic, tp.partition) for tp in partitions])
                stored = {
                    (r["topic"], r["partition"]): r["next_offset"] for r in await connection.fetch(SQL["positions"])
                }
            finally:
                await connection.close()
        for tp in partitions:
            reader.seek(tp, stored[tp.topic, tp.partition])
        return reader

    async def _loop(self, reader: AIOKafkaConsumer, handle: Any) -> None:
        """Polls and hands over. `handle` has the rows and the poll's offsets committed in one transaction."""
        async with postgres_errors("connecting"):
            connection = await asyncpg.connect(self._dsn, timeout=LOG_SECONDS, command_timeout=LOG_SECONDS)
        try:
            while True:
                starts = {tp: await reader.position(tp) for tp in reader.assignment()}
                most = self._audit_log.room if AUDIT in starts else POLL_RECORDS
                async with kafka_errors("polling"):
                    polled = await reader.getmany(timeout_ms=POLL_MS, max_records=most)
                if AUDIT in starts:
                    self._audit_log.polled(starts[AUDIT])
                    if not polled:
                        await self._audit_log.written()
                if not polled:
                    continue
                moved = {tp: (starts[tp], records[-1].offset + 1) for tp, records in polled.items()}
                await handle(connection, polled, moved)
                if AUDIT in starts and len(polled[AUDIT]) < FEW:
                    await asyncio.sleep(GATHER_SECONDS)
        finally:
            if handle == self._integrate:
                await self._audit_log.abandon()
            with suppress(Exception):
                await connection.close(timeout=1)

    # Admission

    async def _admit(self, connection: asyncpg.Connection, polled: Mapping[TopicPartition, Any], moved: Any) -> None:
        arrived = [
            Arrived(
                topic=tp.topic,
                partition=tp.partition,
                offset=record.offset,
                time=datetime.fromtimestamp(record.timestamp / 1000, UTC),
                key=record.key,
                value=record.value,
            )
            for tp, records in polled.items()
            for record in records
            if record.value is not None
        ]
        checked, refused = admission.check(arrived, self._origin, self._trust.trust, self._verifier)
        if any(r.code is Code.CERTIFICATE_UNKNOWN for r in refused):
            # A department that joined a moment ago: its certificate is on the topic before its first record.
            await self._trust.catch_up()
            checked, refused = admission.check(arrived, self._origin, self._trust.trust, self._verifier)
        await self._learn_sessions(connection, checked)
        async with postgres_errors("admitting"):
            index = await self._index(connection, checked)
            plan = admission.judge(checked, index, self._catalogue)
            plan.refused.extend(refused)
            now = datetime.now(UTC)
            entries = await self._log_batches(connection, plan.admitted, now)
            conflict_entries = await self._log_conflicts(plan, now)
            async with connection.transaction():
                await self._write_plan(connection, plan, entries, conflict_entries, now)
                await _advance(connection, moved)
        _count(plan)

    async def _learn_sessions(self, connection: asyncpg.Connection, checked: Sequence[Checked]) -> None:
        """Sessions stand before their records on their own topic: what is unknown after catching up is unknown."""
        wanted = {(c.record.claims.session, c.record.claims.issuer) for c in checked}
        if not wanted - self._sessions.keys():
            return
        if len(self._sessions) > KNOWN_SESSIONS:
            self._sessions.clear()
        await self._read_sessions(connection)
        missing = list(wanted - self._sessions.keys())
        async with postgres_errors("reading sessions"):
            rows = await connection.fetch(SQL["sessions"], [s for s, _ in missing], [i for _, i in missing])
        for row in rows:
            self._sessions[row["session"], row["issuer"]] = KnownSession(
                item=row["item"], schema=row["schema"], not_after=row["not_after"]
            )

    async def _keep_sessions(self) -> None:
        """Reads sessions even if no record asks for them: gateways may destroy the keys that they were sealed to."""
        async with postgres_errors("connecting"):
            connection = await asyncpg.connect(self._dsn, timeout=LOG_SECONDS, command_timeout=LOG_SECONDS)
        try:
            while True:
                await self._read_sessions(connection)
                await asyncio.sleep(SESSIONS_SECONDS)
        finally:
            with suppress(Exception):
                await connection.close(timeout=1)

    async def _read_sessions(self, connection: asyncpg.Connection) -> None:
        """Takes in `bus.sessions` up to its present end."""
        assert self._session_reader is not None
        async with self._session_reading:
            at = datetime.now(UTC)
            await self._read_sessions_to_end(connection, self._session_reader)
            async with postgres_errors("storing sessions"):
                await connection.execute(SQL["sessions_read"], at)

    async def _read_sessions_to_end(self, connection: asyncpg.Connection, reader: AIOKafkaConsumer) -> None:
        ends = await bounded(reader.end_offsets(self._session_partitions), LOG_SECONDS, "reading sessions")
        for tp, end in ends.items():
            while (start := await reader.position(tp)) < end:
                async with kafka_errors("reading sessions"):
                    polled = await reader.getmany(tp, timeout_ms=POLL_MS, max_records=POLL_RECORDS)
                records = polled.get(tp, [])
                if not records:
                    continue
                async with postgres_errors("storing sessions"), connection.transaction():
                    for record in records:
                        await self._take_session(connection, tp, record)
                    await _advance(connection, {tp: (start, records[-1].offset + 1)})

    async def _take_session(self, connection: asyncpg.Connection, tp: TopicPartition, record: Any) -> None:
        at = datetime.fromtimestamp(record.timestamp / 1000, UTC)
        try:
            found = session.parse(record.value or b"")
            try:
                recipient = session.verify(found, self._trust.trust, at, record.key)
            except DeptbusError:
                await self._trust.catch_up()
                recipient = session.verify(found, self._trust.trust, at, record.key)
        except Unavailable:
            raise
        except DeptbusError as exc:
            log.warning("session_refused", code=exc.code, detail=exc.detail, offset=record.offset)
            await _refuse(connection, [(tp.topic, tp.partition, record.offset, exc.code.value, exc.detail, at, None)])
            return
        added = await connection.execute(
            SQL["add_session"],
            found.session,
            found.issuer,
            found.item,
            found.schema,
            found.created_at,
            found.not_after,
            found.recipient,
            found.value,
            recipient.owner,
        )
        if added.endswith(" 0"):
            stands = await connection.fetch(SQL["sessions"], [found.session], [found.issuer])
            if stands[0]["record"] != found.value:
                detail = f"a second session of {found.issuer} under the same id"
                log.warning("session_refused", code=Code.SESSION_DUPLICATE, detail=detail, offset=record.offset)
                refusal = (tp.topic, tp.partition, record.offset, Code.SESSION_DUPLICATE.value, detail, at, None)
                await _refuse(connection, [refusal])

    async def _index(self, connection: asyncpg.Connection, checked: Sequence[Checked]) -> Index:
        claims = [c.record.claims for c in checked]
        licences, sequences = [c.licence for c in claims], [c.sequence for c in claims]
        documents = await connection.fetch(SQL["standing"], [*{c.item for c in claims}], [*{c.issuer for c in claims}])
        admitted = await connection.fetch(SQL["admitted_hashes"], [c.record.leaf_hash for c in checked])
        by_sequence = await connection.fetch(SQL["rivals_by_sequence"], licences, sequences)
        by_leaf = await connection.fetch(
            SQL["rivals_by_leaf"], [c.issuer for c in claims], [c.session for c in claims], [c.leaf for c in claims]
        )
        later = [c for c in claims if c.sequence > 1]
        before = (
            await connection.fetch(SQL["versions_before"], [c.licence for c in later], [c.sequence for c in later])
            if later
            else []
        )
        return Index(
            sessions=self._sessions,
            issuing=Issuing(self._signer.uscc, filter(None, map(_standing, documents))),
            admitted=frozenset(r["leaf_hash"] for r in admitted),
            by_sequence={
                (r["licence"], r["sequence"]): Rival(leaf_hash=r["leaf_hash"], value=r["value"]) for r in by_sequence
            },
            by_leaf={
                (r["issuer"], r["session"], r["leaf"]): Rival(leaf_hash=r["leaf_hash"], value=r["value"])
                for r in by_leaf
            },
            before={(r["licence"], r["sequence"]): r["authority"] for r in before if r["authority"] is not None},
        )

    async def _log_batches(
        self, connection: asyncpg.Connection, admitted: Sequence[Checked], now: datetime
    ) -> dict[bytes, bytes]:
        """By checkpoint, the leaf hash of the batch's `Admitted` entry: read, or made durable now."""
        first = {one.checkpoint: one for one in admitted}
        wanted = [_split(checkpoint) for checkpoint in first]
        rows = await connection.fetch(
            SQL["batches"], [w[0] for w in wanted], [w[1] for w in wanted], [w[2] for w in wanted]
        )
        known = {(r["origin"], r["root"], r["size"]): r["entry"] for r in rows}
        entries = {c: known[_split(c)] for c in first if _split(c) in known}
        fresh = [c for c in first if c not in entries]
        bodies = [
            (
                "Admitted",
                {
                    "checkpoint": checkpoint,
                    "signer": first[checkpoint].record.proof.signer,
                    "signature": first[checkpoint].record.proof.signature,
                },
            )
            for checkpoint in fresh
        ]
        return entries | dict(zip(fresh, await self._log(bodies, now), strict=True))

    async def _log_conflicts(self, plan: Plan, now: datetime) -> list[bytes]:
        return await self._log([("Conflict", _conflict_body(*conflict)) for conflict in plan.conflicts], now)

    async def _log(self, bodies: Sequence[tuple[str, dict[str, Any]]], now: datetime) -> list[bytes]:
        """The leaf hashes of these entries once every in-sync replica has them."""
        if not bodies:
            return []
        assert self._producer is not None
        values = audit.log_values(self._signer, self._origin, secrets.token_bytes(16), bodies, now)
        async with kafka_errors("logging admissions"), asyncio.timeout(LOG_SECONDS):
            waiting = [await self._producer.send(audit.TOPIC, value, partition=0) for value in values]
            await asyncio.gather(*waiting)
        metrics.APPENDED.labels(outcome="ok").inc(len(values))
        return [merkle.leaf_hash(value) for value in values]

    async def _write_plan(
        self,
        connection: asyncpg.Connection,
        plan: Plan,
        entries: Mapping[bytes, bytes],
        conflict_entries: Sequence[bytes],
        now: datetime,
    ) -> None:
        batches = {_split(one.checkpoint): entries[one.checkpoint] for one in plan.admitted}
        await connection.executemany(
            SQL["add_batch"],
            [(*key, entry, now) for key, entry in batches.items()],
        )
        await connection.copy_records_to_table(
            "record",
            records=[_record_row(one, entries[one.checkpoint], now) for one in plan.admitted],
            columns=_RECORD_COLUMNS,
        )
        newest: dict[bytes, Checked] = {}
        for one in plan.admitted:
            held = newest.get(one.place[0])
            if held is None or held.place[1] < one.place[1]:
                newest[one.place[0]] = one
        claims = [one.record.claims for one in newest.values()]
        await connection.execute(
            SQL["upsert_licences"],
            [c.licence for c in claims],
            [c.item for c in claims],
            [c.issuer for c in claims],
            [c.sequence for c in claims],
            [status_after(Operation(c.operation)).value for c in claims],
            [c.valid_from for c in claims],
            [c.valid_until for c in claims],
        )
        subjects = {(s.pseudonym, c.record.claims.licence) for c in plan.admitted for s in c.record.claims.subjects}
        await connection.execute(SQL["erase"], [c.licence for c in claims])
        await connection.execute(SQL["add_subjects"], [s for s, _ in subjects], [licence for _, licence in subjects])
        await impact.admit(connection, plan.admitted)
        for (one, rival, _), entry in zip(plan.conflicts, conflict_entries, strict=True):
            await connection.execute(
                SQL["add_conflict"],
                one.record.leaf_hash,
                rival.leaf_hash,
                entry,
                one.arrived.value,
                now,
            )
        await connection.execute(SQL["mark_conflict"], [rival.leaf_hash for _, rival, _ in plan.conflicts])
        await _refuse(connection, [_refusal_row(refusal) for refusal in plan.refused])

    # The log

    async def _integrate(
        self, connection: asyncpg.Connection, polled: Mapping[TopicPartition, Any], moved: Mapping[Any, Any]
    ) -> None:
        await self._audit_log.integrate(connection, polled[AUDIT], moved[AUDIT][0], lambda: _advance(connection, moved))


_RECORD_COLUMNS = [
    "leaf_hash", "licence", "sequence", "item", "issuer", "session", "leaf", "operation", "occurred_at", "valid_from",
    "valid_until", "region", "admitted_at", "entry", "value", "authority",
]  # fmt: skip


def _record_row(one: Checked, entry: bytes, now: datetime) -> tuple[Any, ...]:
    c = one.record.claims
    return (
        one.record.leaf_hash, c.licence, c.sequence, c.item, c.issuer, c.session, c.leaf, c.operation, c.occurred_at,
        c.valid_from, c.valid_until, c.region, now, entry, one.arrived.value, one.authority,
    )  # fmt: skip


def _standing(row: Any) -> Standing | None:
    return standing(from_row(row), row["since"], row["opened"])


def _refusal_row(refusal: Refusal) -> tuple[Any, ...]:
    a = refusal.arrived
    return a.topic, a.partition, a.offset, refusal.code.value, refusal.detail, a.time, refusal.leaf_hash


async def _refuse(connection: asyncpg.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    if rows:
        await connection.execute(SQL["add_refusal"], *map(list, zip(*rows, strict=True)))


async def _advance(connection: asyncpg.Connection, moved: Mapping[TopicPartition, tuple[int, int]]) -> None:
    topics, numbers = [tp.topic for tp in moved], [tp.partition for tp in moved]
    olds, news = [old for old, _ in moved.values()], [new for _, new in moved.values()]
    if len(await connection.fetch(SQL["advance"], topics, numbers, olds, news)) != len(moved):
        raise Deposed


async def _end(reader: AIOKafkaConsumer) -> int:
    """Where the audit topic ends now."""
    return int((await bounded(reader.end_offsets([AUDIT]), LOG_SECONDS, "reading the log's end"))[AUDIT])


def _split(checkpoint: bytes) -> tuple[str, bytes, int]:
    """Origin, root and size of a checkpoint body that this process has verified."""
    origin, size, root = checkpoint.decode().splitlines()
    return origin, b64decode(root), int(size)


def _conflict_body(one: Checked, rival: Rival, place: str) -> dict[str, Any]:
    first = envelope.parse(rival.value)
    return {
        "first": rival.leaf_hash,
        "second": one.record.leaf_hash,
        "place": place,
        "first_claims": first.claims_bytes,
        "second_claims": one.record.claims_bytes,
        "first_proof": envelope.encode_proof(first.proof),
        "second_proof": envelope.encode_proof(one.record.proof),
    }


def _count(plan: Plan) -> None:
    metrics.ADMITTED.labels(outcome="ok").inc(len(plan.admitted))
    if plan.admitted:
        log.info("admitted", traces=[one.record.claims.record.hex for one in plan.admitted])
    metrics.ADMITTED.labels(outcome=Code.CONFLICT.value).inc(len(plan.conflicts))
    for refusal in plan.refused:
        metrics.ADMITTED.labels(outcome=refusal.code.value).inc()
        log.warning(
            "record_refused",
            code=refusal.code,
            detail=refusal.detail,
            topic=refusal.arrived.topic,
            offset=refusal.arrived.offset,
        )
    for _, rival, place in plan.conflicts:
        log.error("record_conflict", place=place, first=rival.leaf_hash.hex())
