"""The log while its recorder is killed: at each commit point, at random, and after it was away for long.

Entries come all the time. After each death the stored log is compared with a second implementation's over the topic
(`tests.faults.tree`), and so is every checkpoint that was ever served: all of them are of one history.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import asyncpg

from bus import audit
from bus.kafka import consumer, producer, stop
from bus.recorder.log import AUDIT
from bus.trustfeed import stop_task
from bus.witness.service import create_app, open_witness
from deploy import bootstrap
from deploy.probes import Served, serve
from deploy.stack.child import Child, free_ports, log_tail, start
from tests.faults.doomed import POINTS, WHEN
from tests.faults.firms import credit_code
from tests.faults.plant import ROOT, Plant, _ready, _until
from tests.faults.tree import Tree, difference, size_of

RANDOM_KILLS = 100
CALL = 8  # entries that one call logs together
CALL_SECONDS = 0.04  # 200 entries a second
POLL_SECONDS = 0.05
WAIT_SECONDS = 60.0
START_SECONDS = 4.0  # a start takes some two
READY_SECONDS = 2.0  # a checkpoint a second
NTH = {"integrate": 5, "guard": 2, "publish": 2, "cosign": 1}
BACKLOG = 20_000
BACKLOG_MIB = 48.0  # what a backlog may add to the recorder's memory, whatever its length


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """A recorder's end and what it left. `entries` are stored, `checkpoints` were served until then."""

    point: str
    seconds: float  # that it lived
    entries: int
    checkpoints: int
    difference: str  # of the stored log from the second implementation's
    foreign: int  # checkpoints that are not of that history
    error: str = ""

    @property
    def same_tree(self) -> bool:
        """Byte for byte, and nothing else was ever signed."""
        return not self.difference and not self.foreign

    @property
    def good(self) -> bool:
        """The same tree, and it died where it should."""
        return self.same_tree and not self.error


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What a recorder that was away does with what came meanwhile. Memory is resident, in MiB."""

    entries: int
    seconds: float
    begin_mib: float
    peak_mib: float
    checkpoints: int  # that were published on the way
    difference: str

    @property
    def good(self) -> bool:
        """Everything in it, in flat memory, and checkpoints on the way."""
        return not self.difference and self.peak_mib - self.begin_mib < BACKLOG_MIB and self.checkpoints > 1


class Trial:
    """A Kafka, a PostgreSQL, a witness, and entries that come all the time. An async context manager."""

    def __init__(self, folder: Path) -> None:
        self.plant = Plant(folder)
        self.tree = Tree()
        self.notes: dict[bytes, None] = {}
        self.db: asyncpg.Connection
        self._sent = 0
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        plant = self.plant
        self._stack.callback(plant.down)
        try:
            await plant.start("kafka")
            await plant.start("postgres")
            plant.bus = await bootstrap.prepare(plant.folder / "bus", plant.administrator, plant.dsn)
            self._key = plant.bus.log_keys().signer.verifier
            await self._witness()
            self.db = await asyncpg.connect(plant.dsn)
            self._stack.callback(self.db.terminate)
            self._producer = await producer(plant.administrator, "load")
            self._stack.push_async_callback(stop, self._producer)
            self._signer = plant.bus.signer("gateway")
            for work in (self._load, self._read, self._poll):
                self._stack.push_async_callback(stop_task, asyncio.create_task(work()))
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def dies_at(self, point: str, when: str) -> Death:
        """A recorder goes on from what the last one left, and dies at a commit point."""
        place = f"{point}-{when}"
        command = ["-m", "tests.faults.doomed", point, when, str(NTH[point]), *self.plant.arguments("recorder")]
        child = self._start(place, command)
        return await self._death(child, place, lambda: self._ended(child))

    async def dies_after(self, seconds: float, *, ready: bool) -> Death:
        """A recorder goes on from what the last one left, and is killed some time after its start or its readiness."""
        child = self._start("random", ["-m", "deploy.process", *self.plant.arguments("recorder")])

        async def lives() -> None:
            if ready:
                await _until(lambda: _ready(f"{self.plant.metrics('recorder')}/readyz"))
            await asyncio.sleep(seconds)
            self.plant.kill("recorder")

        return await self._death(child, "random", lives)

    async def signs_everything(self) -> Death:
        """A recorder that nobody kills reaches the topic's end; it goes on."""
        await self.plant.start("recorder")
        begun, due = time.monotonic(), self._sent
        await self._until(lambda: self._published(due))
        return await self._found("alive", time.monotonic() - begun, "")

    async def backlog(self, entries: int = BACKLOG) -> Backlog:
        """While no recorder runs, entries come; then one does."""
        self.plant.kill("recorder")
        await self._append(entries)
        before, due = len(self.notes), self._sent
        await self.plant.start("recorder")
        begun = time.monotonic()
        child = self.plant.children["recorder"]
        begin = peak = _resident(child)
        while not await self._published(due):
            peak = max(peak, _resident(child))
            if time.monotonic() > begun + WAIT_SECONDS:
                raise TimeoutError(f"the backlog is not integrated: {log_tail(child.log)[-500:]}")
            await asyncio.sleep(POLL_SECONDS)
        seconds = time.monotonic() - begun
        return Backlog(
            entries=entries,
            seconds=round(seconds, 1),
            begin_mib=begin,
            peak_mib=peak,
            checkpoints=len(self.notes) - before,
            difference=await self._difference(),
        )

    # What goes on all the time

    async def _load(self) -> None:
        while True:
            await self._append(CALL)
            await asyncio.sleep(CALL_SECONDS)

    async def _append(self, count: int) -> None:
        """Readings of nobody, as a gateway logs them."""
        for first in range(0, count, 40):
            bodies = [("Reading", reading()) for _ in range(min(40, count - first))]
            group, now = secrets.token_bytes(16), datetime.now(UTC)
            for value in audit.log_values(self._signer, self.plant.bus.origin, group, bodies, now):
                await self._producer.send(audit.TOPIC, value, partition=0)
        await self._producer.flush()
        self._sent += count

    async def _read(self) -> None:
        """The topic, for the second implementation."""
        reader = await consumer(self.plant.administrator, "second", max_poll_records=5_000)
        try:
            reader.assign([AUDIT])
            await reader.seek_to_beginning(AUDIT)
            while True:
                self.tree.extend(m.value for m in (await reader.getmany(AUDIT, timeout_ms=200)).get(AUDIT, []))
        finally:
            await stop(reader)

    async def _poll(self) -> None:
        """Every checkpoint that is served."""
        connection = await asyncpg.connect(self.plant.dsn)
        try:
            while True:
                note = await connection.fetchval("SELECT note FROM log_checkpoint")
                if note is not None:
                    self.notes[note] = None
                await asyncio.sleep(POLL_SECONDS)
        finally:
            connection.terminate()

    async def _witness(self) -> None:
        """One whom the policy asks: so there are cosignatures to be written."""
        bus = self.plant.bus
        (port,) = free_ports(1)
        witness, store = open_witness(self.plant.folder, f"{bus.origin}/witness/test", [self._key])
        self._stack.enter_context(closing(store))
        serving = asyncio.create_task(serve(Served(create_app(witness, store), port), work=_for_ever()))
        self._stack.push_async_callback(stop_task, serving)
        policy = f"witness w {witness.verifier.vkey} http://127.0.0.1:{port}\nquorum w\n"
        (bus.folder / "log" / "policy").write_text(policy, "utf-8")

    # What is looked at

    def _start(self, name: str, command: Sequence[str | Path]) -> Child:
        log = self.plant.folder / "logs" / f"recorder-{name}-{time.monotonic_ns()}.log"
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self.plant.children["recorder"] = start("recorder", [sys.executable, *command], log, environment=environment)
        return self.plant.children["recorder"]

    async def _death(self, child: Child, point: str, end: Callable[[], Awaitable[None]]) -> Death:
        begun, error = time.monotonic(), ""
        try:
            await end()
        except TimeoutError:
            error = f"it did not die there: {log_tail(child.log)[-800:]}"
            self.plant.kill("recorder")
        if child.process.returncode != -signal.SIGKILL:
            error = f"it ended with {child.process.returncode}: {log_tail(child.log)[-800:]}"
        return await self._found(point, time.monotonic() - begun, error)

    async def _found(self, point: str, seconds: float, error: str) -> Death:
        different = await self._difference()
        sizes = [size_of(note, self._key, self.tree) for note in self.notes]
        return Death(
            point=point,
            seconds=round(seconds, 2),
            entries=await self.db.fetchval("SELECT size FROM log_state") or 0,
            checkpoints=len(set(sizes)),
            difference=different,
            foreign=sizes.count(-1),
            error=error,
        )

    async def _difference(self) -> str:
        """Once the second implementation has read as far as the log has."""
        size = await self.db.fetchval("SELECT size FROM log_state") or 0

        async def there() -> bool:
            return len(self.tree.values) >= size

        await self._until(there)
        return await difference(self.db, self.tree) if size else ""

    async def _published(self, size: int) -> bool:
        return (await self.db.fetchval("SELECT size FROM log_checkpoint") or 0) >= size

    async def _ended(self, child: Child) -> None:
        async def ended() -> bool:
            return child.process.poll() is not None

        await self._until(ended)

    async def _until(self, ask: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while not await ask():
                await asyncio.sleep(POLL_SECONDS)


async def _for_ever() -> None:
    await asyncio.Event().wait()


def reading() -> dict[str, Any]:
    """The body of an entry that says that somebody read the trail."""
    return {
        "reader": credit_code(secrets.randbelow(10**6)),
        "operator": f"operator-{secrets.randbelow(100)}",
        "what": "entries",
        "subjects": [],
        "returned": 0,
        "digest": secrets.token_bytes(32),
        "signer": secrets.token_bytes(32),
        "signature": b"",
    }


def _resident(child: Child) -> float:
    """MiB in memory now; 0 for a process that has just ended."""
    try:
        pages = int(Path(f"/proc/{child.pid}/statm").read_text("ascii").split()[1])
    except (OSError, IndexError):
        return 0.0
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


async def every_point(trial: Trial, said: Callable[[Death], None] = lambda _: None) -> list[Death]:
    """One death before and one after each commit point; then a recorder that lives."""
    deaths = []
    for point in POINTS:
        for when in WHEN:
            deaths.append(await trial.dies_at(point, when))
            said(deaths[-1])
    deaths.append(await trial.signs_everything())
    said(deaths[-1])
    return deaths


async def at_random(trial: Trial, kills: int, seed: int, said: Callable[[Death], None] = lambda _: None) -> list[Death]:
    """So many deaths at moments that the seed gives; then a recorder that lives."""
    chance = random.Random(seed)
    trial.plant.kill("recorder")
    deaths = []
    for at in range(kills):
        ready = bool(at % 2)  # half of them may die before they have done anything
        seconds = chance.uniform(0.0, READY_SECONDS if ready else START_SECONDS)
        deaths.append(await trial.dies_after(seconds, ready=ready))
        said(deaths[-1])
    deaths.append(await trial.signs_everything())
    said(deaths[-1])
    return deaths
