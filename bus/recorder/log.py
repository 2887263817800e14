"""The audit log: the topic's values become a tree in PostgreSQL, and the tree's checkpoints are signed and published.

Commit points, and what a crash at each leaves behind:

1. bundles, tiles, terms and the topic's offset    one transaction: all or none, the poll is read again;
2. guard moved                                     signed by nobody yet: the next recorder proves that its tree goes on
                                                   from there, and signs that or a larger one;
3. checkpoint written                              published; the next one is due in a second;
4. cosignatures written                            the witnesses know more than we show; the next round shows it.

A log that cannot prove that it goes on from what it signed last signs nothing, says why (`refusal`), and tries again:
a database that was restored reads the topic until it is where it was. Gateways stop releasing keys meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from bus import audit, merkle, metrics, tilestore
from bus.audit import Entry
from bus.db import connect, postgres_errors, queries
from bus.gateway.rulebook import KINDS
from bus.kafka import bounded, kafka_errors
from bus.proof import ProofVerifier
from bus.recorder import growth
from bus.recorder.growth import Growth, Message, State
from bus.recorder.guard import Guard, Signed
from bus.recorder.scrub import Scrub, check_end
from bus.recorder.witnesses import Witnesses
from bus.tlog import checkpoint, note, policy, tiles
from bus.tlog.checkpoint import Checkpoint
from bus.tlog.note import Note, NoteSigner
from bus.tlog.policy import Policy
from bus.tlog.tiles import HASH_BYTES, MAX_ENTRY_BYTES, WIDTH, Edge, Tile
from bus.trustfeed import TrustFeed
from schemas.errors import Code, DeptbusError, Misuse, Refused

PUBLISH_SECONDS = 1.0
COSIGN_SECONDS = 10.0  # witnesses are to see the same checkpoints, and a department's line is not to carry each
NO_WITNESSES = Policy()
# What the departments' agreements on e-licences ask of audit trails at least; longer is a setting, shorter is refused.
MIN_KEEP_YEARS = 3
ALIVE_SECONDS = 5.0  # a poll takes half a second at most: a loop that is silent for longer is stuck
LOOK_SECONDS = 5.0  # a small log is looked at whole before the first signature, a large one while it goes on
SCRUB_SECONDS = 24 * 3600.0
ASK_SECONDS = 20.0
POLL_BUNDLES = 2  # some 50 ms of work, half a MiB of entries
TURN = 32  # entries verified, some 2 ms
KNOWN_WORDS = 100_000  # that need not be written again
ERASURES = frozenset(("ErasureStarted", "ErasureComplete"))
_MOST_REVISIONS = 2**31  # as the column has it
CLOSED = frozenset(("SUSPENDED", "PAUSED", "WITHDRAWN", "TERMINATED", "ENDED", "RETIRED"))  # rules that open nothing
AUDIT = TopicPartition(audit.TOPIC, 0)

SQL = queries(Path(__file__).with_name("log.sql"))
log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogKeys:
    """What makes this log this log: its key, whose name is its origin, and its guard; who witnesses it.

    `keep_years` is how long entries are served, None: for ever. Raises `Misuse` (CONFIG_INVALID) for less than three.
    """

    signer: NoteSigner
    guard: Guard
    policy: Policy = NO_WITNESSES
    keep_years: int | None = None

    def __post_init__(self) -> None:
        years = self.keep_years
        if years is not None and (type(years) is not int or years < MIN_KEEP_YEARS):
            detail = (
                f"log_keep_years is {years}: the log is kept for {MIN_KEEP_YEARS} years at least, or for ever (null)"
            )
            raise Misuse(Code.CONFIG_INVALID, detail)

    @property
    def origin(self) -> str:
        """`<bus origin>/log/<region>`."""
        return self.signer.verifier.name


class Log:
    """One log, from the topic to its checkpoints.

    `published` once a checkpoint was; `refusal` is why nothing is signed, None while all is well.
    """

    def __init__(self, keys: LogKeys, bus: str, trust: TrustFeed, verifier: ProofVerifier, dsn: str) -> None:
        self._keys = keys
        self._bus = bus
        self._trust = trust
        self._verifier = verifier
        self._dsn = dsn
        self._state = State()
        self._months: set[Any] = set()
        self._words: set[Any] = set()
        self._writing: asyncio.Task[None] | None = None
        self._next = 0
        self._alive = -ALIVE_SECONDS
        self._said = ""
        self.refusal: DeptbusError | None = None
        self.published = False

    # Growing

    async def start(self, reader: AIOKafkaConsumer, next_offset: int) -> None:
        """Takes up what the database holds, and makes sure that the topic goes on from there.

        Raises `Refused` or `Malformed` (LOG_TOPIC_TRUNCATED, LOG_TAMPERED).
        """
        connection = await connect(self._dsn)
        try:
            async with postgres_errors("reading the log"):
                self._state = await _state(connection)
                first, last = await _ends(connection, self._state.edge.size)
        finally:
            await connection.close()
        self._months.clear()
        self._words.clear()
        self._next = next_offset
        await self._check_topic(reader, next_offset, first, last)

    async def _check_topic(
        self, reader: AIOKafkaConsumer, next_offset: int, first: bytes | None, last: bytes | None
    ) -> None:
        """The topic still has what was read first and last, and nothing is missing behind it."""
        begins = (await bounded(reader.beginning_offsets([AUDIT]), ASK_SECONDS, "reading the log"))[AUDIT]
        ends = (await bounded(reader.end_offsets([AUDIT]), ASK_SECONDS, "reading the log"))[AUDIT]
        if not begins <= next_offset <= ends:
            raise _truncated(f"it holds offsets {begins} to {ends}, and {next_offset} is to be read next")
        for offset, leaf in ((0, first), (next_offset - 1, last)):
            if leaf is None or not begins <= offset < next_offset:
                continue
            reader.seek(AUDIT, offset)
            value = await _one(reader)
            if value and len(value) <= MAX_ENTRY_BYTES and merkle.leaf_hash(value) != leaf:
                raise _truncated(f"offset {offset} is not the entry that was read there: it was made anew")
        reader.seek(AUDIT, next_offset)

    def polled(self, position: int) -> None:
        """The topic was asked, whether or not there was something new: an idle checkpoint may be published again.

        `position` is where its reader is. Raises `Refused` (LOG_TOPIC_TRUNCATED) if Kafka has put it elsewhere, as it
        does when there is no such offset any more.
        """
        if position != self._next:
            raise _truncated(f"there is no offset {self._next} any more: its reader was put at {position}")
        self._alive = monotonic()

    @property
    def room(self) -> int:
        """How many entries to poll for: a poll of so many ends with a bundle, and no bundle is written twice."""
        return POLL_BUNDLES * WIDTH - self._state.edge.size % WIDTH

    async def integrate(
        self, connection: asyncpg.Connection, records: Sequence[Any], first: int, advance: Callable[[], Awaitable[None]]
    ) -> None:
        """Takes in a poll that begins at offset `first`; it is written while the next one is looked at (`written`).

        `advance` moves the topic's offset, in the same transaction. Raises what stood against the poll before.
        """
        expected = first
        for record in records:
            if record.offset != expected:
                raise _truncated(f"offset {expected} is missing: the next one is {record.offset}")
            expected += 1
        messages = [Message(r.offset, datetime.fromtimestamp(r.timestamp / 1000, UTC), r.value) for r in records]
        entries = await self._verified([m.value for m in messages if m.value])
        grown = growth.grow(self._state, messages, entries.get)
        grown.erasures = [entry for entry in entries.values() if entry.kind in ERASURES]
        grown.ends = [entry for entry in entries.values() if entry.kind == "Revision" and entry.body["state"] in CLOSED]
        await self.written()
        self._writing = asyncio.create_task(self._commit(connection, self._state, grown, advance))
        # Of what is being written: if that fails, the recorder begins again from the database.
        self._state, self._next = grown.state, expected

    async def written(self) -> None:
        """Returns once all that was taken in is committed. Raises what stood against it."""
        writing, self._writing = self._writing, None
        if writing is not None:
            await writing

    async def abandon(self) -> None:
        """Ends what is being written, whatever becomes of it: the database says."""
        if self._writing is not None:
            self._writing.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await self.written()

    async def _commit(
        self, connection: asyncpg.Connection, before: State, grown: Growth, advance: Callable[[], Awaitable[None]]
    ) -> None:
        try:
            async with postgres_errors("writing the log"), connection.transaction():
                # First: a recorder that was deposed waits here for the other, and finds that it has gone on.
                await advance()
                await self._write(connection, before, grown)
        except (asyncpg.UniqueViolationError, asyncpg.RaiseError) as exc:
            detail = f"something is stored already behind the log's end, {before.edge.size} entries: {exc}"
            raise Refused(Code.LOG_TAMPERED, detail) from exc
        if len(self._words) > KNOWN_WORDS:
            self._words.clear()
        self._words |= grown.words
        if grown.skipped:
            metrics.AUDIT_ENTRIES.labels(kind="skipped").inc(grown.skipped)
            log.error("audit_values_skipped", count=grown.skipped, before_size=grown.state.edge.size)

    async def _verified(self, values: Sequence[bytes]) -> dict[bytes, Entry]:
        """The entries whose proofs hold. What fails means nothing: the tree keeps it, nobody finds it, ops are told."""
        found, failed = await self._verify(values)
        if any(error.code is Code.CERTIFICATE_UNKNOWN for _, error in failed):
            # A gateway that started a moment ago: its certificate is on the topic before its first entry.
            await self._trust.catch_up()
            found, failed = await self._verify(values)
        for _, error in failed:
            metrics.AUDIT_ENTRIES.labels(kind="refused").inc()
            log.error("audit_entry_refused", code=error.code, detail=error.detail)
        for kind, count in Counter(entry.kind for entry in found.values()).items():
            metrics.AUDIT_ENTRIES.labels(kind=kind).inc(count)
        return found

    async def _verify(self, values: Sequence[bytes]) -> tuple[dict[bytes, Entry], list[tuple[bytes, DeptbusError]]]:
        found: dict[bytes, Entry] = {}
        failed: list[tuple[bytes, DeptbusError]] = []
        for number, value in enumerate(values):
            if number % TURN == 0:
                await asyncio.sleep(0)  # what the database answers to the poll before is not left waiting
            try:
                found[value] = audit.verify(value, self._bus, self._trust.trust, self._verifier)
            except DeptbusError as exc:
                failed.append((value, exc))
        return found, failed

    async def _write(self, connection: asyncpg.Connection, before: State, grown: Growth) -> None:
        for month in growth.months(grown) - self._months:
            await connection.execute(SQL["partitions"], month)
            self._months.add(month)
        await _take_erasures(connection, grown)
        await _take_ends(connection, grown)
        edge = before.edge
        open_bundle = edge.size // WIDTH if edge.size % WIDTH else -1
        bundles = [(b.number, b.opened, b.starts, b.logged_at, bytes(b.entries)) for b in grown.bundles]
        if bundles and bundles[0][0] == open_bundle:
            going_on = (*bundles.pop(0), edge.size % WIDTH, before.open_bytes)
            if await connection.fetchval(SQL["add_to_bundle"], *going_on) is None:
                raise Refused(Code.LOG_TAMPERED, f"bundle {open_bundle} is not as it was written")
        await connection.executemany(SQL["add_bundle"], bundles)
        await connection.execute(
            SQL["add_tiles"],
            [tile.level for tile in grown.tiles],
            [tile.number for tile in grown.tiles],
            list(grown.tiles.values()),
        )
        old = [
            (term, day, bundle, asyncpg.BitString.frombytes(bits.to_bytes(WIDTH // 8)))
            for (day, bundle), bits_of in grown.terms.items()
            if bundle == open_bundle
            for term, bits in bits_of.items()
        ]
        if old:
            await connection.execute(SQL["add_terms"], *map(list, zip(*old, strict=True)))
        new = growth.copied({where: bits_of for where, bits_of in grown.terms.items() if where[1] != open_bundle})
        await connection.copy_to_table(
            "log_term",
            source=memoryview(new),  # the driver would take bytes for a path
            columns=["term", "day", "bundle", "bits"],
            format="binary",
        )
        fresh = sorted(grown.words - self._words)
        if fresh:
            await connection.execute(SQL["add_words"], [d for d, _ in fresh], [v for _, v in fresh])
        after = grown.state
        await connection.execute(SQL["set_state"], after.edge.size, after.edge.root(), after.logged_at)

    # Publishing

    async def publish(self) -> None:
        """Signs and publishes each second; looks through the whole log at the start and each day. Until cancelled.

        After something was found changed, nothing is signed before the whole log was found good.
        """
        connection = await connect(self._dsn)
        looked = asyncio.Event()
        scrubbing = asyncio.create_task(self._scrub(looked))
        looking = asyncio.create_task(looked.wait())
        try:
            bad = self.refusal is not None and self.refusal.code is Code.LOG_TAMPERED
            wait = None if bad else LOOK_SECONDS
            await asyncio.wait({scrubbing, looking}, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
            while True:
                begun = monotonic()
                if scrubbing.done():
                    scrubbing.result()  # raises what it found
                try:
                    async with postgres_errors("publishing a checkpoint"):
                        await self._publish(connection)
                    self.refuse(None)
                except Refused as exc:
                    self.refuse(exc)
                await asyncio.sleep(max(0.0, begun + PUBLISH_SECONDS - monotonic()))
        finally:
            looking.cancel()
            scrubbing.cancel()
            with suppress(asyncio.CancelledError, DeptbusError):
                await scrubbing
            with suppress(Exception):
                await connection.close(timeout=1)

    async def cosign(self) -> None:
        """Asks the policy's witnesses to sign the newest checkpoint, every ten seconds. Until cancelled.

        Nothing waits for them: a witness that is away shows on its metric, and on the age of what is cosigned.
        """
        connection = await connect(self._dsn)
        try:
            one_at_a_time = asyncio.Lock()

            async def prove(old: int, new: int) -> list[bytes]:
                async with one_at_a_time:  # witnesses are asked all at once, and there is one connection
                    return await _consistency(connection, old, new)

            async with httpx.AsyncClient(trust_env=False) as http:
                witnesses = Witnesses(self._keys.policy, http, prove)
                while self._keys.policy.witnesses:
                    async with postgres_errors("asking for cosignatures"):
                        await self._cosign(connection, witnesses)
                    await asyncio.sleep(COSIGN_SECONDS)
        finally:
            with suppress(Exception):
                await connection.close(timeout=1)

    async def _cosign(self, connection: asyncpg.Connection, witnesses: Witnesses) -> None:
        """What the policy's quorum has signed is kept, and stands in the place of the bare note if it is the newest."""
        row = await connection.fetchrow(SQL["published"])
        if row is None:
            return
        bare = note.parse(row["note"])
        signatures = await witnesses.cosign(bare, checkpoint.parse(bare.text))
        cosigned = bare.signed(*signatures)
        cosigners = note.verified(cosigned, [witness.verifier for witness in self._keys.policy.witnesses])
        if signatures and policy.satisfied(self._keys.policy, cosigners):
            await connection.execute(SQL["cosign"], row["size"], cosigned.encode())
            metrics.LOG_COSIGNED.set(row["size"])

    async def _publish(self, connection: asyncpg.Connection) -> None:
        if monotonic() - self._alive > ALIVE_SECONDS:
            return  # published again by a loop that reads nothing, it would say that all is well
        row = await connection.fetchrow(SQL["state"])
        new = Signed() if row is None else Signed(row["size"], row["root"])
        await self._guarded(connection, new)
        text = Checkpoint(self._keys.origin, new.size, new.root).text
        signed = Note(text, (self._keys.signer.sign(text),))
        if await connection.fetchval(SQL["publish"], new.size, new.root, signed.encode()) is None:
            raise Refused(Code.LOG_GUARD_MOVED, f"more than {new.size} entries are published: stop the other recorder")
        metrics.LOG_SIZE.set(new.size)
        metrics.LOG_PUBLISHED.set_to_current_time()
        self.published = True

    async def _guarded(self, connection: asyncpg.Connection, new: Signed) -> None:
        """Proves that the new tree goes on from the last signed one, then moves the guard. Raises `Refused`."""
        last = await self._keys.guard.read()
        if new == last:
            return
        if new.size < last.size:
            raise Refused(
                Code.LOG_BEHIND_GUARD,
                f"{last.size} entries were signed, and the database holds {new.size}: it was restored or emptied; "
                "the topic is read until it is where it was",
            )
        if last.size:  # whatever comes after nothing goes on from there
            await self._prove(connection, last, new)
        if not await self._keys.guard.swap(last, new):
            raise Refused(Code.LOG_GUARD_MOVED, "another recorder signs this log: stop one of them")

    async def _prove(self, connection: asyncpg.Connection, last: Signed, new: Signed) -> None:
        proof = await _consistency(connection, last.size, new.size)
        try:
            merkle.verify_consistency(last.size, new.size, last.root, new.root, proof)
        except DeptbusError as exc:
            raise Refused(
                Code.LOG_FORK,
                f"the database's first {last.size} entries are not those that were signed: it holds another history",
            ) from exc

    def refuse(self, reason: DeptbusError | None) -> None:
        """Says a refusal once, when it comes and when it goes."""
        said = "" if reason is None else reason.code.value
        if said != self._said:
            if self._said:
                metrics.LOG_REFUSED.labels(reason=self._said).set(0)
            if reason is not None:
                metrics.LOG_REFUSED.labels(reason=said).set(1)
                log.error("log_not_signed", code=reason.code, detail=reason.detail)
            else:
                log.warning("log_refusal_ended", reason=self._said)
        self._said, self.refusal = said, reason

    async def keep(self, connection: asyncpg.Connection, now: datetime) -> None:
        """Moves the minimum index, if entries are not served for ever (C2SP tlog-tiles, 'Pruning').

        Nothing is deleted, as the standard advises: a setting that was wrong is mended, a witness that is far behind
        gets its proof, and a question about an old entry can be answered. Who must give back the disk drops the
        months' partitions below the minimum.
        """
        years, minimum = self._keys.keep_years, 0
        if years is not None:
            oldest = now.replace(year=now.year - years, day=min(now.day, 28))
            row = await connection.fetchrow(SQL["oldest_kept"], growth.day_of(oldest))
            if row is not None:
                minimum = row["number"] * WIDTH + sum(time < oldest for time in row["logged_at"])
        await connection.execute(SQL["set_minimum"], minimum)

    async def _scrub(self, looked: asyncio.Event) -> None:
        """Looks through what is stored, now and each day. Raises `Malformed` (LOG_TAMPERED)."""
        while True:
            connection = await connect(self._dsn)
            try:
                async with postgres_errors("looking through the log"):
                    await self.keep(connection, datetime.now(UTC))
                    await Scrub(self._bus, self._trust.trust, self._verifier).run(connection)
            finally:
                await connection.close()
            looked.set()
            await asyncio.sleep(SCRUB_SECONDS)


async def _take_erasures(connection: asyncpg.Connection, grown: Growth) -> None:
    """Gateways refuse what the log says is being erased; they do so already unless this database is one of before."""
    started = {e.body["record"]: e for e in grown.erasures if e.kind == "ErasureStarted"}
    complete = [e.body["record"] for e in grown.erasures if e.kind == "ErasureComplete"]
    if started:
        rows = [(r, e.body["by"], e.body["basis"], e.time, e.leaf_hash) for r, e in sorted(started.items())]
        await connection.execute(SQL["erasures_started"], *map(list, zip(*rows, strict=True)))
    if complete:
        await connection.execute(SQL["erasures_complete"], complete)


def _rule(entry: Entry) -> UUID | None:
    """Which rule a revision is of. None for people and departments, and for what no sound gateway writes."""
    try:
        known = entry.body["kind"] in KINDS and 0 < entry.body["revision"] < _MOST_REVISIONS
        return UUID(entry.body["id"]) if known else None
    except ValueError:
        return None


async def _take_ends(connection: asyncpg.Connection, grown: Growth) -> None:
    """What was withdrawn, suspended or ended is so in a database of before, too: a restored one opens nothing by it.

    Such an act counts in the database before it is in the log, so there is nothing to do otherwise. What was opened
    since is not opened here: an act that opens is in the log before it counts, and perhaps never did.
    """
    last: dict[UUID, Entry] = {}
    for entry in grown.ends:
        rule = _rule(entry)
        # The clock's own, of a day that came, it finds by itself.
        if rule is None or entry.body["act"] == "EXPIRE":
            continue
        before = last.get(rule)
        if before is None or before.body["revision"] < entry.body["revision"]:
            last[rule] = entry
    if last:
        names = ("revision", "act", "state", "author", "reason")
        rows = [(rule, *(entry.body[name] for name in names), entry.time) for rule, entry in sorted(last.items())]
        await connection.execute(SQL["take_ends"], *map(list, zip(*rows, strict=True)))


async def _state(connection: asyncpg.Connection) -> State:
    row = await connection.fetchrow(SQL["state"])
    size = 0 if row is None else row["size"]
    edge = Edge.of(size, await tilestore.read_tiles(connection, tiles.edge_tiles(size)))
    if row is not None and edge.root() != row["root"]:
        raise Refused(Code.LOG_TAMPERED, "the tiles on the right edge do not give the root that is stored beside them")
    await check_end(connection, edge)
    if row is None:
        return State()
    if size % WIDTH == 0:
        return State(edge=edge, logged_at=row["logged_at"])
    return State(edge=edge, logged_at=row["logged_at"], opened=row["opened"], open_bytes=row["open_bytes"])


async def _consistency(connection: asyncpg.Connection, old: int, new: int) -> list[bytes]:
    return await tilestore.hashes(connection, tiles.consistency(old, new))


async def _ends(connection: asyncpg.Connection, size: int) -> tuple[bytes | None, bytes | None]:
    """The first leaf and the last."""
    if not size:
        return None, None
    number, place = divmod(size - 1, WIDTH)
    found = await tilestore.read_tiles(connection, [Tile(0, 0), Tile(0, number)])
    last = found.get(Tile(0, number), b"")[place * HASH_BYTES : (place + 1) * HASH_BYTES]
    return found.get(Tile(0, 0), b"")[:HASH_BYTES], last


async def _one(reader: AIOKafkaConsumer) -> bytes | None:
    async with kafka_errors("reading the log"), asyncio.timeout(ASK_SECONDS):
        record = await reader.getone(AUDIT)
    value: bytes | None = record.value
    return value


def _truncated(what: str) -> Refused:
    return Refused(
        Code.LOG_TOPIC_TRUNCATED,
        f"topic {audit.TOPIC} is not what the log was made of: {what}. Restore it; until then nothing is signed",
    )
