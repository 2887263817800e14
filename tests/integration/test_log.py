"""The log under suspicion: what was changed behind its back is found and named, and nothing is signed meanwhile.

On a Kafka of its own, because topics are cut off and made anew; each case has its own copy of the database and the
guard.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from prometheus_client import REGISTRY

from bus import audit, db
from bus.kafka import consumer, producer
from bus.recorder.guard import Guard, Signed
from bus.recorder.log import AUDIT
from bus.recorder.service import Recorder
from bus.tlog.tiles import encode_bundle, split_bundle, starts
from bus.topics import apply_catalogue
from bus.transport import Cluster
from bus.trust import Trust
from bus.trustfeed import stop_task
from deploy import bootstrap
from deploy.bootstrap import Bus
from deploy.home import Stack
from deploy.stack import kafka
from deploy.stack.child import Child, free_ports
from deploy.stack.tls import TransportAuthority, administrator
from schemas.catalogue import Catalogue
from schemas.errors import Code, DeptbusError
from tests.faults.firms import credit_code
from tests.faults.plant import _until, kill
from tests.faults.tree import Tree, difference, size_of
from tests.integration.bus import fresh_number

ENTRIES = 700  # two whole bundles and one that is open, a hash tile of each kind
SOON_SECONDS = 15.0
pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True, slots=True)
class Site:
    """A Kafka of the test's own, a bus's keys, and databases beside each other in the session's PostgreSQL."""

    folder: Path
    kafka: Cluster
    postgres: str
    bus: Bus

    def dsn(self, database: str) -> str:
        return f"{self.postgres.rsplit('/', 1)[0]}/{database}"

    async def run(self, statement: str, database: str = "postgres") -> None:
        connection = await db.connect(self.dsn(database))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def append(self, count: int) -> None:
        """Readings of nobody, as a gateway logs them, forty in a call."""
        signer = self.bus.signer("gateway")
        client = await producer(self.kafka, "test")
        try:
            for first in range(0, count, 40):
                bodies = [("Reading", _reading()) for _ in range(min(40, count - first))]
                for value in audit.log_values(signer, self.bus.origin, secrets.token_bytes(16), bodies, _now()):
                    await client.send(audit.TOPIC, value, partition=0)
            await client.flush()
        finally:
            await client.stop()

    async def values(self) -> list[bytes | None]:
        """What is on the topic now."""
        reader = await consumer(self.kafka, "test")
        found: list[bytes | None] = []
        try:
            reader.assign([AUDIT])
            await reader.seek_to_beginning(AUDIT)
            end = (await reader.end_offsets([AUDIT]))[AUDIT]
            while await reader.position(AUDIT) < end:
                found += [m.value for m in (await reader.getmany(AUDIT, timeout_ms=200)).get(AUDIT, [])]
        finally:
            await reader.stop()
        return found


@dataclass(slots=True)
class Copy:
    """A database and a guard of one case, and the recorder over them."""

    site: Site
    database: str
    guard: Path
    db: asyncpg.Connection
    recorder: Recorder

    async def change(self, statement: str, *arguments: Any) -> None:
        """As a superuser who means harm: no trigger hinders."""
        await self.db.execute("SET session_replication_role = replica")
        done = await self.db.execute(statement, *arguments)
        await self.db.execute("SET session_replication_role = origin")
        assert done.split()[-1] == "1", done

    def over(self, guard: Guard) -> None:
        self.recorder = _recorder(self.site, self.database, guard)

    def code(self) -> str:
        """Why nothing is signed, as readiness says it."""
        reason = self.recorder._audit_log.refusal
        if reason is None:
            return ""
        with pytest.raises(type(reason)) as caught:
            self.recorder.check()
        return caught.value.code.value

    async def refuses(self, code: Code, *words: str) -> None:
        """For this reason, in these words; and no checkpoint is published while it does."""

        def said() -> bool:
            return self.code() == code and all(word in str(self.recorder._audit_log.refusal) for word in words)

        try:
            await _soon(said)
        except TimeoutError:
            raise AssertionError(f"not {code} {words}, but {self.recorder._audit_log.refusal}") from None
        before = await self.note()
        await asyncio.sleep(1.2)
        assert said()
        assert await self.note() == before

    async def signs(self, size: int) -> None:
        """A checkpoint of so many entries or more, now."""

        async def there() -> bool:
            row = await self.db.fetchrow("SELECT size, now() - published_at < '2 s' AS new FROM log_checkpoint")
            return row is not None and row["size"] >= size and row["new"] and self.code() == ""

        await _soon(there)

    async def note(self) -> tuple[bytes, datetime] | None:
        row = await self.db.fetchrow("SELECT note, published_at FROM log_checkpoint")
        return None if row is None else tuple(row)


def _recorder(site: Site, database: str, guard: Guard) -> Recorder:
    return Recorder(
        site.bus.signer("recorder"),
        site.bus.origin,
        Catalogue.load(),
        Trust(site.bus.authority.signer.der),
        site.kafka,
        site.dsn(database),
        replace(site.bus.log_keys(), guard=guard),
    )


@asynccontextmanager
async def running(*copies: Copy) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(copy.recorder.run()) for copy in copies]
    try:
        yield
    finally:
        for task in tasks:
            await stop_task(task)


@asynccontextmanager
async def copy_of(site: Site, database: str, guard: Path, folder: Path) -> AsyncIterator[Copy]:
    """A database that goes on where another stands, with a guard that does."""
    name = f"log_{secrets.token_hex(6)}"
    await site.run(f'CREATE DATABASE "{name}" TEMPLATE "{database}" STRATEGY FILE_COPY')
    own = folder / f"{name}.sqlite"
    shutil.copy(guard, own)
    connection = await db.connect(site.dsn(name))
    try:
        yield Copy(site, name, own, connection, _recorder(site, name, Guard(own, site.bus.log_origin)))
    finally:
        await connection.close()
        await site.run(f'DROP DATABASE "{name}" WITH (FORCE)')


@dataclass(frozen=True, slots=True)
class Log:
    """What every case begins with: a log of some size, its database at rest, its guard. `older` is of before."""

    site: Site
    database: str
    guard: Path
    older: str
    older_guard: Path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    folder = tmp_path_factory.mktemp("log")
    node, tls = kafka.Node(1, *free_ports(3)), TransportAuthority(folder / "bus" / "tls")
    files = await asyncio.to_thread(kafka.resolve)
    properties = await asyncio.to_thread(kafka.prepare, files, folder / "kafka", node, tls)
    child: Child = kafka.run(files, properties, folder)
    name = f"log_{secrets.token_hex(6)}"
    where = administrator(tls, f"127.0.0.1:{node.internal}")
    try:
        await _until(lambda: _kafka_answers(where))
        made = Site(folder, where, stack.postgres, await _prepare(folder, where, stack.postgres, name))
        yield made
        await made.run(f'DROP DATABASE "{name}" WITH (FORCE)')
        await made.run(f'DROP DATABASE IF EXISTS "{name}_older" WITH (FORCE)')
    finally:
        kill(child)


async def _kafka_answers(where: Cluster) -> None:
    await (await producer(where, "test")).stop()


async def _prepare(folder: Path, kafka_: Cluster, postgres: str, name: str) -> Bus:
    connection = await db.connect(postgres)
    try:
        await connection.execute(f'CREATE DATABASE "{name}"')
    finally:
        await connection.close()
    (folder / "database").write_text(name, "ascii")
    return await bootstrap.prepare(folder / "bus", kafka_, f"{postgres.rsplit('/', 1)[0]}/{name}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def log(site: Site) -> Log:
    """Grown by a recorder, in two steps."""
    database = (site.folder / "database").read_text("ascii")
    older = f"{database}_older"
    older_guard = site.folder / "older.sqlite"
    connection = await db.connect(site.dsn(database))
    for count in (ENTRIES - 300, 300):
        await site.append(count)
        copy = Copy(site, database, site.bus.guard_file, connection, None)  # type: ignore[arg-type]
        copy.over(Guard(site.bus.guard_file, site.bus.log_origin))
        async with running(copy):
            await copy.signs(len(await site.values()))
        if not older_guard.exists():
            await connection.close()
            await site.run(f'CREATE DATABASE "{older}" TEMPLATE "{database}" STRATEGY FILE_COPY')
            shutil.copy(site.bus.guard_file, older_guard)
            connection = await db.connect(site.dsn(database))
    await connection.close()
    return Log(site, database, site.bus.guard_file, older, older_guard)


@pytest_asyncio.fixture(loop_scope="module")
async def copy(log: Log, tmp_path: Path) -> AsyncIterator[Copy]:
    async with copy_of(log.site, log.database, log.guard, tmp_path) as made:
        yield made


async def test_the_stored_log_is_what_another_implementation_makes_of_the_topic(log: Log, copy: Copy) -> None:
    tree = Tree()
    tree.extend(await log.site.values())
    assert await difference(copy.db, tree) == ""
    note = await copy.note()
    assert note is not None
    key = log.site.bus.log_keys().signer.verifier
    assert size_of(note[0], key, tree) == len(tree.values) == ENTRIES
    # And the comparison can say no.
    other = Tree()
    other.extend([*tree.values[:300], tree.values[299], *tree.values[301:]])
    assert size_of(note[0], key, other) == -1
    assert "root" in await difference(copy.db, other)
    await copy.change("UPDATE log_tile SET hashes = set_byte(hashes, 0, 255 - get_byte(hashes, 0)) WHERE level = 1")
    assert "[(1, 0)]" in await difference(copy.db, tree)


# What a superuser did while no recorder ran, and what the next recorder says of it.


async def _entries(copy: Copy, number: int, change: Callable[[list[bytes], list[datetime]], None]) -> None:
    """Rewrites a bundle: whoever does it keeps its places and times in order."""
    row = await copy.db.fetchrow("SELECT entries, logged_at FROM log_bundle WHERE number = $1", number)
    entries, times = split_bundle(row["entries"]), list(row["logged_at"])
    change(entries, times)
    data = encode_bundle(entries)
    statement = "UPDATE log_bundle SET entries = $2, starts = $3, logged_at = $4 WHERE number = $1"
    await copy.change(statement, number, data, starts(data), times)


def _remove(entries: list[bytes], times: list[datetime]) -> None:
    del entries[7], times[7]


def _add(entries: list[bytes], times: list[datetime]) -> None:
    entries.append(entries[3])
    times.append(times[-1])


def _swap(entries: list[bytes], times: list[datetime]) -> None:
    entries[7], entries[8] = entries[8], entries[7]


def _byte(entries: list[bytes], times: list[datetime]) -> None:
    entries[7] = bytes([entries[7][0] ^ 1]) + entries[7][1:]


def _sql(statement: str) -> Callable[[Copy], Awaitable[None]]:
    return lambda copy: copy.change(statement)


_ONE_TERM = "(term, day, bundle) = (SELECT term, day, bundle FROM log_term WHERE bundle = 1 ORDER BY 1 LIMIT 1)"
_FLIPPED = "SET hashes = set_byte(hashes, 37, 255 - get_byte(hashes, 37))"
DAMAGES: dict[str, tuple[Callable[[Copy], Awaitable[None]], str]] = {
    "a byte of an entry": (lambda c: _entries(c, 1, _byte), "entry 263"),
    "a byte of the open bundle": (lambda c: _entries(c, 2, _byte), "entry 519"),
    "an entry removed": (lambda c: _entries(c, 0, _remove), "tile/entries/000"),
    "an entry added": (lambda c: _entries(c, 2, _add), "tile/entries/002"),
    "two entries swapped": (lambda c: _entries(c, 1, _swap), "entry 263"),
    "a bundle removed": (_sql("DELETE FROM log_bundle WHERE number = 1"), "bundle"),
    "a bundle added": (
        _sql("INSERT INTO log_bundle SELECT 3, opened, starts, logged_at, entries FROM log_bundle WHERE number = 0"),
        "tile/entries/003",
    ),
    "a byte of a tile": (_sql(f"UPDATE log_tile {_FLIPPED} WHERE (level, number) = (0, 0)"), "tile/0/000, entry 1"),
    "a byte of the tile above": (_sql(f"UPDATE log_tile {_FLIPPED} WHERE level = 1"), "edge"),
    "a tile removed": (_sql("DELETE FROM log_tile WHERE (level, number) = (0, 1)"), "tile/0/001"),
    "a longer tile": (_sql("UPDATE log_tile SET hashes = hashes || hashes WHERE level = 1"), "tile/1/000"),
    "the root": (_sql("UPDATE log_state SET root = set_byte(root, 0, 255 - get_byte(root, 0))"), "root"),
    "the state removed": (_sql("DELETE FROM log_state"), "goes on behind"),
    "a row of the index removed": (_sql(f"DELETE FROM log_term WHERE {_ONE_TERM}"), "index of bundle 1"),
    "a bit of the index": (
        _sql(f"UPDATE log_term SET bits = bits # set_bit(repeat('0', 256)::bit(256), 9, 1) WHERE {_ONE_TERM}"),
        "index of bundle 1",
    ),
    "a row of the index added": (
        _sql(f"INSERT INTO log_term SELECT term + 1, day, bundle, bits FROM log_term WHERE {_ONE_TERM}"),
        "index of bundle 1",
    ),
    "a word removed": (_sql("DELETE FROM log_word WHERE dimension = 'kind'"), "kind"),
}


async def test_what_was_changed_is_found_at_the_start_and_named(log: Log, tmp_path: Path) -> None:
    """Each damage in a database of its own, some at a time: nothing is signed, and the reason says where it is."""
    some = asyncio.Semaphore(6)

    async def found(damage: str) -> str:
        change, named = DAMAGES[damage]
        async with some, copy_of(log.site, log.database, log.guard, tmp_path) as copy:
            await change(copy)
            before = await copy.note()
            async with running(copy):
                with suppress(TimeoutError):
                    await _soon(lambda: copy.code() != "")
                said = str(copy.recorder._audit_log.refusal)
            unsigned = await copy.note() == before
        return "" if said.startswith(f"{Code.LOG_TAMPERED}: ") and named in said and unsigned else said

    answers = await asyncio.gather(*map(found, DAMAGES))
    assert {damage: said for damage, said in zip(DAMAGES, answers, strict=True) if said} == {}


async def test_what_was_found_changed_is_not_signed_when_it_is_tried_again(copy: Copy, log: Log) -> None:
    """Also after the seconds that the first signature waits for: only a look through all of it ends the refusal."""
    statement = "UPDATE log_bundle SET entries = set_byte(entries, 30, 255 - get_byte(entries, 30)) WHERE number = 1"
    await copy.change(statement)
    async with running(copy):
        await copy.refuses(Code.LOG_TAMPERED, "entry 256")
        await copy.change(statement)  # put right
        await copy.signs(ENTRIES)


# The guard


async def test_a_database_of_before_signs_nothing_until_it_is_where_it_was(log: Log, tmp_path: Path) -> None:
    async with copy_of(log.site, log.older, log.guard, tmp_path) as copy:
        # The topic's offset is held fast, so that the log cannot read on.
        blocker = await db.connect(log.site.dsn(copy.database))
        holding = blocker.transaction()
        await holding.start()
        await blocker.execute("SELECT FROM position WHERE topic = 'audit.access' FOR UPDATE")
        async with running(copy):
            await copy.refuses(Code.LOG_BEHIND_GUARD, str(ENTRIES - 300))
            await holding.rollback()
            await blocker.close()
            await copy.signs(ENTRIES)
        tree = Tree()
        tree.extend(await log.site.values())
        assert await difference(copy.db, tree) == ""


async def test_what_the_guard_does_not_know_is_not_signed(log: Log, tmp_path: Path) -> None:
    """Another history of the same size, another one before it, another log's guard, more published than is signed."""
    origin, path = log.site.bus.log_origin, tmp_path / "other"
    Guard.create(path / "log", "another.local/log/330000")

    async def refused(code: Code, word: str, guard: Guard | None, change: str = "") -> None:
        async with copy_of(log.site, log.database, log.guard, tmp_path) as copy:
            if guard is not None:
                copy.over(guard)
            if change:
                await copy.change(change)
            async with running(copy):
                await copy.refuses(code, word)

    await asyncio.gather(
        *(
            refused(Code.LOG_FORK, f"first {size}", Guard.create(path / str(size), origin, Signed(size, b"\1" * 32)))
            for size in (ENTRIES, ENTRIES - 300)
        ),
        refused(Code.LOG_GUARD_MISSING, "another.local", Guard(path / "log", origin)),
        refused(Code.LOG_GUARD_MOVED, "published", None, "UPDATE log_checkpoint SET size = size + 1000000"),
    )


async def test_without_its_guard_nothing_is_signed_until_it_is_back(log: Log, copy: Copy, tmp_path: Path) -> None:
    async with running(copy):
        await copy.signs(ENTRIES)
        copy.guard.rename(tmp_path / "away")
        await copy.refuses(Code.LOG_GUARD_MISSING, str(copy.guard), "Bring the file back")
        assert REGISTRY.get_sample_value("bus_log_refused", {"reason": Code.LOG_GUARD_MISSING}) == 1
        (tmp_path / "away").rename(copy.guard)
        await copy.signs(ENTRIES)
        assert REGISTRY.get_sample_value("bus_log_refused", {"reason": Code.LOG_GUARD_MISSING}) == 0


class _Overtaken(Guard):
    """Another recorder signs in the moment between our reading of the guard and our moving it."""

    other: Signed | None = None

    async def read(self) -> Signed:
        last = await super().read()
        if self.other is not None:
            assert await super().swap(last, self.other)
            self.other = None
        return last


async def test_whoever_comes_second_to_the_guard_signs_nothing(log: Log, copy: Copy) -> None:
    guard = _Overtaken(copy.guard, log.site.bus.log_origin)
    copy.over(guard)
    async with running(copy):
        await copy.signs(ENTRIES)
        before = await copy.note()
        guard.other = Signed(ENTRIES + 1_000_000, secrets.token_bytes(32))
        await log.site.append(1)
        said: list[str] = []

        async def refused() -> bool:
            said.append(copy.code())
            return said[-1] == Code.LOG_BEHIND_GUARD

        await _soon(refused)
        assert Code.LOG_GUARD_MOVED in said
        after = await copy.note()
        assert after is not None
        assert before is not None
        assert after[0] == before[0]


async def test_two_recorders_over_two_databases_never_sign_two_histories(log: Log, tmp_path: Path) -> None:
    """A clone with the same guard, both under load: whoever is behind says so, and each size has one root."""
    async with (
        copy_of(log.site, log.database, log.guard, tmp_path) as one,
        copy_of(log.site, log.older, log.guard, tmp_path) as other,
    ):
        other.over(Guard(one.guard, log.site.bus.log_origin))
        notes: set[bytes] = set()
        codes: set[str] = set()
        async with running(one, other):
            appending = asyncio.create_task(_append_slowly(log.site, 400))
            while not appending.done():
                for copy in (one, other):
                    codes.add(copy.code())
                    notes |= {note[0] for note in [await copy.note()] if note is not None}
                await asyncio.sleep(0.05)
            await appending
            values = await log.site.values()
            await one.signs(len(values))
            await other.signs(len(values))
        tree = Tree()
        tree.extend(values)
        assert codes <= {"", Code.LOG_BEHIND_GUARD, Code.LOG_GUARD_MOVED}
        sizes = [size_of(note, log.site.bus.log_keys().signer.verifier, tree) for note in notes]
        assert -1 not in sizes
        assert len(set(sizes)) == len(sizes) > 3
        assert [await difference(copy.db, tree) for copy in (one, other)] == ["", ""]


async def _append_slowly(site: Site, count: int) -> None:
    for _ in range(count // 40):
        await site.append(40)
        await asyncio.sleep(0.3)


# The topic. These come last: they take it away.


async def test_a_topic_that_was_cut_or_made_anew_is_not_signed(log: Log, tmp_path: Path) -> None:
    site = log.site
    async with copy_of(site, log.database, log.guard, tmp_path) as copy, running(copy):
        await copy.signs(ENTRIES)
        await _make_anew(site)  # while it reads
        await copy.refuses(Code.LOG_TOPIC_TRUNCATED, "offset")
    async with copy_of(site, log.database, log.guard, tmp_path) as copy:
        async with running(copy):  # emptied
            await copy.refuses(Code.LOG_TOPIC_TRUNCATED, f"{ENTRIES} is to be read next")
        await site.append(ENTRIES + 40)
        async with running(copy):  # as long again
            await copy.refuses(Code.LOG_TOPIC_TRUNCATED, "made anew")
        await _admin(site, lambda admin: admin.delete_records({AUDIT: RecordsToDelete(before_offset=ENTRIES + 5)}))
        async with running(copy):  # its beginning deleted, past what was read
            await copy.refuses(Code.LOG_TOPIC_TRUNCATED, f"offsets {ENTRIES + 5} to")


async def _make_anew(site: Site) -> None:
    await _admin(site, lambda admin: admin.delete_topics([audit.TOPIC]))
    await _soon(lambda: _created(site))


async def _created(site: Site) -> bool:
    """The broker takes a moment to forget the old one."""
    try:
        return audit.TOPIC in await apply_catalogue(site.kafka, Catalogue.load())
    except DeptbusError:
        return False


async def _admin(site: Site, work: Callable[[AIOKafkaAdminClient], Awaitable[Any]]) -> None:
    admin = AIOKafkaAdminClient(**site.kafka.options())
    await admin.start()
    try:
        await work(admin)
    finally:
        await admin.close()


async def _soon(ask: Callable[[], Any], seconds: float = SOON_SECONDS) -> None:
    async with asyncio.timeout(seconds):
        while True:
            answer = ask()
            if await answer if isinstance(answer, Awaitable) else answer:
                return
            await asyncio.sleep(0.05)


def _now() -> datetime:
    return datetime.now(UTC)


def _reading() -> dict[str, Any]:
    return {
        "reader": credit_code(fresh_number()),
        "operator": "test",
        "what": "entries",
        "subjects": [],
        "returned": 0,
        "digest": secrets.token_bytes(32),
        "signer": secrets.token_bytes(32),
        "signature": b"",
    }
