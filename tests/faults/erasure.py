"""A record is erased, and then looked for everywhere: what is left of its keys, and of what was in it.

A bus whose KEM keys live for seconds comes to ErasureComplete while one watches: the KEM key of the session's time is
destroyed, and the session's key is out of its day's tree (a day's end does nothing more to it: the tree is for the
other sessions). Then processes are started afresh, asked for the erased record and for its neighbour of the same
session, and looked through, as are the database, its files, every topic, and the backup of before, restored.

No search counts that does not find what is still there: the neighbour's sealed bytes where sealed bytes may be, its
keys where keys are used. What a process that ran before the erasure still holds is said, and is none of the promise:
Python cannot wipe what it has freed.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bus import envelope, session
from bus.envelope import Record
from bus.gateway.keyring import Keyring, open_keyring
from bus.kafka import consumer, everything, stop
from bus.outbox import Sealed
from bus.sealing import LEAF_BITS, open_body, section_root, section_secret
from bus.transport import Cluster
from deploy import backup
from deploy.home import Home
from deploy.stack import postgres
from schemas.errors import Code, DeptbusError, Misuse
from tests.faults.brief import brief
from tests.faults.plant import Plant
from tests.faults.traces import (
    Forms,
    Keys,
    Stored,
    _down,
    look,
    of_files,
    of_key,
    of_process,
    of_text,
    opened_by,
)
from tests.integration.bus import Parties, World, place_of

COMPLETE_SECONDS = 120.0
READY_SECONDS = 60.0
ASK_SECONDS = 0.2
OWN_WORDS = ("name", "uscc", "address")  # of a firm, and of no other
WAYS = ("KEM key", "wrapping key")  # to a session's secret
SESSION = "SELECT record, roots FROM session WHERE session = $1 AND issuer = $2"


class NotReadable(Exception):
    """The memory of processes cannot be looked through here: no /proc, or no right to trace one's own children."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """One place that was looked through."""

    place: str
    bytes: int
    control: tuple[str, ...]  # what was found there of what is still to be there
    secrets: tuple[str, ...]  # of the erased record: nothing
    wrapped: tuple[str, ...] = ()  # under keys that are no more

    @property
    def good(self) -> bool:
        """It finds what is there, and nothing of the erased record is."""
        return bool(self.control) and not self.secrets


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """Every key that there is, on every copy of the sessions. Sections, each opened."""

    place: str
    keys: int
    neighbour: tuple[str, ...]
    other: tuple[str, ...]  # of another session of that day, which nothing was erased of
    erased: tuple[str, ...]

    @property
    def good(self) -> bool:
        """The same keys on the same copies open what was not erased, whole."""
        return bool(self.neighbour) and self.neighbour == self.other and not self.erased


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """What became of one erased record."""

    seconds_to_complete: float
    before: tuple[str, ...]  # of it in the memory of the gateway that had released it: the search's own control
    still_running: tuple[str, ...]  # in that process when the erasure was complete: said, not promised
    fresh: tuple[str, str]  # what a fresh gateway says of the erased record, and of the neighbour
    unread: tuple[str, ...]  # what a restored one says of both while the recorder has not read the log
    restored: tuple[str, ...]  # of the erased one, from then until the neighbour is released again
    copied_keys: tuple[str, ...]  # of a copy of before, those that open it while the master key is as it was
    copied_keys_later: tuple[str, ...]  # and once that was rotated, with everything that there is now
    searches: tuple[Search, ...]
    tried: tuple[Tried, ...]

    @property
    def good(self) -> bool:
        """Refused and gone everywhere, and every way of looking for it would have found it."""
        told = self.fresh == (Code.RECORD_ERASED, Code.PERMIT) and Code.RECORD_ERASED in self.restored
        silent = bool(self.unread) and Code.PERMIT not in (*self.unread, *self.restored)
        controls = bool(self.before) and self.copied_keys == WAYS and not self.copied_keys_later
        opens = all(one.good for one in self.tried)
        return told and silent and controls and opens and all(one.good for one in self.searches)


@dataclass(slots=True)
class _Course:
    """One run's records, and what to look for."""

    plant: Plant
    world: World
    parties: Parties
    erased: Sealed
    neighbour: Sealed
    other: Sealed
    secrets: Forms = field(default_factory=dict)
    keys: Forms = field(default_factory=dict)  # the neighbour's, as a gateway that released them holds them
    sealed: Forms = field(default_factory=dict)  # the neighbour's, as it is on topics and in the index
    wrapped: Forms = field(default_factory=dict)
    searches: list[Search] = field(default_factory=list)
    tried: list[Tried] = field(default_factory=list)

    @property
    def signer(self) -> Any:
        return self.plant.bus.signer("gateway")

    async def know(self, values: dict[str, Any]) -> None:
        """Everything secret about the erased record, while the keys are there."""
        record, beside = envelope.parse(self.erased.value), envelope.parse(self.neighbour.value)
        row = await self.world.db.fetchrow(SESSION, record.claims.session, record.claims.issuer)
        announced = session.parse(row["record"])
        private = self.plant.bus.keyring().kem(announced.recipient)
        assert private is not None, "the KEM key is gone already: its life is too short for this machine"
        secret = private.open(announced.sealed, session._info(session._as_fields(announced)))
        self.secrets |= of_key("session", secret)
        for at, (name, commitment) in enumerate(record.claims.sections):
            root = section_root(secret, name)
            mine, theirs = _way(root, record.claims.leaf), _way(root, beside.claims.leaf)
            released = section_secret(mine[-1], record.prefix)
            self.secrets |= of_key(f"{name}: root", root) | of_key(f"{name}: node", mine[-1])
            self.secrets |= of_key(f"{name}: secret", released)
            self.secrets |= {f"{name}: above": mine[1:-1]}
            self.secrets |= {f"{name}: section": [open_body(released, commitment, record.bodies[at]).rstrip(b"\0")]}
            self.keys |= {f"{name}: node": [node for node in theirs if node not in mine]}
            self.keys |= of_key(f"{name}: secret", section_secret(theirs[-1], beside.prefix))
        for word in OWN_WORDS:
            self.secrets |= of_text(f"value: {word}", values[word])
        self.sealed = {"record": [beside.leaf_hash, beside.leaf_hash.hex().encode(), beside.bodies[0]]}
        self.sealed |= {"trace": [beside.claims.record.hex.encode()]}
        self.wrapped = {"roots": _both(row["roots"]), "session secret": _both(announced.sealed)}

    def search(self, place: str, chunks: Iterable[bytes], control: Forms) -> None:
        """Looks for everything at once."""
        parts = {"control": control, "secrets": self.secrets, "wrapped": self.wrapped}
        seen = look(chunks, {f"{part} {name}": forms for part, all_ in parts.items() for name, forms in all_.items()})
        found = {
            part: tuple(sorted(name.removeprefix(f"{part} ") for name in seen.names if name.startswith(f"{part} ")))
            for part in parts
        }
        self.searches.append(Search(place=place, bytes=seen.bytes, **found))

    def search_memory(self, when: str) -> None:
        """Of the gateway and the recorder. The recorder has no keys: it is to be seen that it is one."""
        for name, control in (("gateway", self.keys), ("recorder", {"CA": [self.plant.bus.authority.signer.der]})):
            self.search(f"memory of a {name}, {when}", of_process(self.plant.children[name].pid), control)

    async def search_dump(self, place: str) -> None:
        """The database in SQL."""
        folder = self.plant.folder / "dumps"
        folder.mkdir(exist_ok=True)
        out = folder / "dump.sql"
        await backup._run("pg_dump", self.plant.dsn, folder, "--format=plain", f"--file={out}")
        self.search(place, of_files([out]), self.sealed)
        out.unlink()

    def attempt(self, place: str, keyring: Keyring, stored: Sequence[Stored]) -> None:
        """Opens all three by the same means."""
        keys = Keys.of(keyring)
        erased, neighbour, other = (
            tuple(sorted(opened_by(keys, stored, envelope.parse(one.value))))
            for one in (self.erased, self.neighbour, self.other)
        )
        self.tried.append(Tried(place=place, keys=keys.count, neighbour=neighbour, other=other, erased=erased))

    async def stored(self) -> list[Stored]:
        """Both sessions as the database has them."""
        ids = {(one.claims.session, one.claims.issuer) for one in map(_parsed, (self.erased, self.other))}
        rows = [await self.world.db.fetchrow(SESSION, *one) for one in sorted(ids)]
        return [Stored(value=row["record"], roots=row["roots"]) for row in rows]

    async def ask(self) -> tuple[str, str]:
        """What is said of the erased record and of the neighbour; a key that comes opens its section."""
        grant, keys = await self.world.keys(self.parties.consumer, [self.erased, self.neighbour])
        codes = [dict(one.sections)["identity"] for one in grant.results]
        for sealed, code in zip((self.erased, self.neighbour), codes, strict=True):
            assert ((sealed.leaf_hash, "identity") in keys) == (code == Code.PERMIT)
            if code == Code.PERMIT:
                assert self.world.open(sealed, keys)["uscc"]
        return codes[0], codes[1]


async def erasure(folder: Path) -> Erasure:
    """On a plant of its own. Raises `NotReadable`."""
    plant = Plant(folder, module="tests.faults.brief")
    try:
        with brief():
            await plant.up()
        _check_readable(plant.children["gateway"].pid)
        async with World(place_of(plant)) as world:
            return await _run(plant, world)
    finally:
        plant.down()


def _check_readable(pid: int) -> None:
    try:
        seen = any(of_process(pid))
    except OSError as exc:
        raise NotReadable from exc
    if not seen:
        raise NotReadable


async def _run(plant: Plant, world: World) -> Erasure:
    parties = Parties(plant.provider, plant.consumer)
    (neighbour, erased, _), (_, values, _) = await world.firms(parties.provider, 3)
    (other,), _ = await world.firms(parties.provider)
    course = _Course(plant, world, parties, erased, neighbour, other)
    await world.keys(parties.consumer, [other])
    assert await course.ask() == (Code.PERMIT, Code.PERMIT)
    await course.know(values)
    before = look(of_process(plant.children["gateway"].pid), course.secrets).names
    copies = plant.folder / "copies"
    await backup.back_up(plant.dsn, copies / "database")
    backup.back_up_keys(Home(plant.folder), copies / "keys", copies / "database")

    seconds = await _erase(course)
    still = look(of_process(plant.children["gateway"].pid), course.secrets).names
    copied, later = await _copied_keys(course, copies / "keys")

    for name in ("recorder", "gateway"):
        await _afresh(plant, name)
    fresh = await _until_released(course)
    course.search_memory("started after the erasure")
    await _search_stores(course)
    unread, restored = await _restore(course, copies / "database")
    return Erasure(
        seconds_to_complete=round(seconds, 1),
        before=tuple(sorted(before)),
        still_running=tuple(sorted(still)),
        fresh=fresh[-1],
        unread=unread,
        restored=restored,
        copied_keys=copied,
        copied_keys_later=later,
        searches=tuple(course.searches),
        tried=tuple(course.tried),
    )


async def _erase(course: _Course) -> float:
    """To its end; how long that took from the answer on."""
    world, provider = course.world, course.parties.provider
    record = course.erased.leaf_hash.hex()
    await world.post(provider, "/v1/erasures", {"records": [record], "basis": "test", "operator": "clerk"})
    begun = time.monotonic()

    async def complete() -> bool:
        await asyncio.sleep(ASK_SECONDS)
        shown = await world.post(provider, "/v1/erasures:show", {"records": [record]})
        return bool(shown["erasures"][0]["state"] == "COMPLETE")

    await world.until(complete, COMPLETE_SECONDS)
    seconds = time.monotonic() - begun
    await world.found(("record", record), ("kind", "ErasureComplete"))
    return seconds


async def _copied_keys(course: _Course, copy: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The ways in which a copy of the keys' folder opens the erased record, before and after the master key is rotated.

    Whoever tries has what unlocks the keys, too, as it is then.
    """
    folder, unlock = course.plant.folder, copy / "unlock"
    stored, record = await course.stored(), envelope.parse(course.erased.value)
    found: list[tuple[str, ...]] = []
    for rotated in (False, True):
        if rotated:
            command = (sys.executable, "-m", "deploy.cli", "keys", "rotate", "master", "--json", "--home", folder)
            await asyncio.to_thread(_run_tool, *command)
            shutil.rmtree(unlock)
        shutil.copytree(folder / "unlock", unlock)
        try:
            keys = Keys.of(open_keyring(copy / "bus" / "gateway", course.signer))
        except DeptbusError:
            found.append(())
            continue
        ways = zip(WAYS, (replace(keys, days=()), replace(keys, kem=())), strict=True)
        found.append(tuple(way for way, some in ways if opened_by(some, stored, record)))
    return found[0], found[1]


async def _search_stores(course: _Course) -> None:
    """Topics, database, files; what is stored is tried with the keys of now."""
    plant = course.plant
    everything_read = [part async for part in _of_topics(plant.administrator)]
    course.search("every topic", everything_read, course.sealed)
    await course.search_dump("database")
    announced = [message.value async for message in everything(plant.administrator, [session.TOPIC])]
    stored = [*await course.stored(), *(Stored(value=value) for value in announced)]
    course.attempt("database and topics", plant.bus.keyring(), stored)
    for name in ("gateway", "recorder", "access"):
        plant.kill(name)
    course.search("files of Kafka", of_files([plant.folder / "kafka"]), course.sealed)
    own = [path for path in plant.folder.iterdir() if path.name not in ("kafka", "postgres", "copies")]
    course.search("files of keys, departments and logs", of_files(own), course.sealed)
    for when, statement in (("with dead rows and the write-ahead log", ""), ("after VACUUM FULL", "VACUUM FULL")):
        if statement:
            await course.world.db.execute(statement, timeout=READY_SECONDS)
        await course.world.db.execute("CHECKPOINT", timeout=READY_SECONDS)
        course.search(f"files of PostgreSQL, {when}", of_files([plant.folder / "postgres"]), course.sealed)


async def _restore(course: _Course, copy: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The backup of before in the place of the database. What is said before the log was read; of the erased one then.

    The gateway is started first, and asked all the time.
    """
    plant, world = course.plant, course.world
    dump = plant.folder / "dumps" / "copy.sql"
    await asyncio.to_thread(_run_tool, postgres.binaries() / "pg_restore", "--file", dump, copy / backup.DUMP)
    course.search("backup of before", of_files([dump]), course.sealed)
    dump.unlink()
    await world.db.close()
    await world.until(lambda: _put_back(plant, copy), READY_SECONDS)
    await world.reconnect()
    course.attempt("backup of before", plant.bus.keyring(), await course.stored())
    await plant.start("access")
    await plant.start("gateway")
    unread = {code for _ in range(3) for code in await course.ask()}
    recorder = asyncio.create_task(plant.start("recorder"))
    said = await _until_released(course)
    await recorder
    said.append(await course.ask())
    course.search_memory("on the restored database")
    await course.search_dump("restored database")
    course.attempt("restored database", plant.bus.keyring(), await course.stored())
    return tuple(sorted(unread)), tuple(sorted({erased for erased, _ in said}))


async def _put_back(plant: Plant, copy: Path) -> bool:
    try:
        await backup.put_back(plant.dsn, copy)
    except Misuse as exc:
        if exc.code is not Code.STACK_RUNNING:  # a connection of who was killed has not ended yet
            raise
        return False
    return True


async def _afresh(plant: Plant, name: str) -> None:
    plant.kill(name)
    await plant.start(name)


async def _until_released(course: _Course) -> list[tuple[str, str]]:
    """Asks until the neighbour is released; what was said."""
    said: list[tuple[str, str]] = []

    async def released() -> bool:
        await asyncio.sleep(ASK_SECONDS)
        said.append(await course.ask())
        return said[-1][1] == Code.PERMIT

    await course.world.until(released, READY_SECONDS)
    return said


async def _of_topics(kafka: Cluster) -> AsyncIterator[bytes]:
    """Keys and values of everything that is on any topic."""
    reader = await consumer(kafka, "erasure")
    try:
        topics = sorted(await reader.topics())
    finally:
        await stop(reader)
    async for message in everything(kafka, topics):
        for part in (message.key, message.value, *(value for _, value in message.headers)):
            yield part or b""
            yield b""


def _run_tool(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _way(root: bytes, leaf: int) -> list[bytes]:
    """The nodes from a root down to a leaf."""
    return [_down(depth, 0, root, leaf >> LEAF_BITS - depth) for depth in range(LEAF_BITS + 1)]


def _both(data: bytes) -> list[bytes]:
    """As it is, and in hex."""
    return [data, data.hex().encode()]


def _parsed(sealed: Sealed) -> Record:
    return envelope.parse(sealed.value)
