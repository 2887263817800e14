"""`make faults`: SIGKILL of every part while records flow, then count. `build/faults.json` has a row a kill.

Five things are tried: every part under a load of records (here), the gateways while the recorder is stopped
(`tests.faults.stall`), withdrawals of consent while two gateways release on it, one of which is then cut off from
PostgreSQL (`tests.faults.withdrawal`), the audit log through a hundred and more deaths of its recorder
(`tests.faults.log`), and an erasure, after which the record's keys are looked for everywhere (`tests.faults.erasure`).

A load publishes fresh firms and feeds them to a subscriber that writes to a sink exactly once; on its way several parts
are killed, each at a random 10–90 % of the records (one load a kill would take an hour; a load that bears three or four
kills bears each). The feeder stays within sight of the sink, so that every part is at work whenever one is killed. At
the end: every acknowledged record is on its topic and in the sink, none twice, and every record that a grant opened has
the very audit entry that the grant named, with a permit.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import logging
import random
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import asyncpg
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bus import audit, envelope
from bus.kafka import bounded, consumer, partitions_of
from bus.logs import configure
from bus.transport import Cluster
from deploy.stack.child import Child, log_tail
from schemas.errors import DeptbusError
from tests.faults.doomed import POINTS
from tests.faults.erasure import Erasure, NotReadable, erasure
from tests.faults.firms import credit_code
from tests.faults.log import RANDOM_KILLS, Backlog, Death, Trial, at_random, every_point
from tests.faults.plant import ITEM, SECTION, Plant, kill
from tests.faults.stall import Stall, stall
from tests.faults.withdrawal import Withdrawal, withdrawal
from tests.report import ROOT, write_report

# Which parts one load loses: `publisher` and `adapter` each feed one.
LOADS = (("publisher", "subscriber", "gateway", "kafka"), ("adapter", "recorder", "postgres"))
TARGETS = tuple(target for load in LOADS for target in load)
EXTRA = ("stall", "withdrawal", "log", "erasure")
LOAD_SECONDS = 240.0
POLL_SECONDS = 0.05
AWAY = 3  # exit code of a load process whose engine was away: it is started again
RESTARTS = 100  # that many absences are no absence any more
FULL_RECORDS = 20_000
FULL_ROUNDS = 5
ASK_SECONDS = 30.0
TOPIC = f"licence.{ITEM}"
_MAPPING = ROOT / "adapters" / "departments" / "market-regulation.toml"
Places = dict[tuple[str, int], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One kill and what became of its load. Counts are of distinct records."""

    target: str
    seed: int
    load: str
    records: int
    at_record: int  # how far the killed part was, by its own measure
    acked: int = 0
    in_topic: int = 0
    in_sink: int = 0
    released: int = 0  # opened with a key from a grant
    audited: int = 0  # of those: with the entry that the grant named, and a permit in it
    twice: int = 0  # places that two records claim, rows that came more than once
    unopened: int = 0  # rows without what was asked for
    seconds: float = 0.0
    error: str = ""

    @property
    def good(self) -> bool:
        """Nothing lost, nothing twice, no release without its entry, and killed on the way."""
        counts = {self.acked, self.in_topic, self.in_sink, self.released, self.audited}
        on_the_way = 0 < self.at_record < self.records
        return counts == {self.records} and not (self.twice or self.unopened or self.error) and on_the_way


class Load:
    """The publishing side and the reading side, started again as often as an engine was away."""

    def __init__(self, plant: Plant, feeder: str, first: int, count: int, name: str, starts: Places) -> None:
        self._plant = plant
        self._restarts = 0
        self.name, self.count, self.feeder = name, count, feeder
        self.starts = starts
        folder = plant.folder / "loads" / name
        folder.mkdir(parents=True)
        self.acked, self.sunk, self.released = folder / "acked", folder / "sunk", folder / "released"
        feeding = [
            *("--kafka", plant.kafka, "--first", first, "--count", count, "--acked", self.acked),
            *("--store", folder / "outbox.sqlite", "--follow", self.sunk, "--ahead", max(256, count // 8)),
        ]
        if feeder == "adapter":
            _write_export(folder / "export.csv", first, count)
            (folder / "market.toml").write_text(_MAPPING.read_text("utf-8"), "utf-8")
            feeding += ["--input", folder / "export.csv", "--department", folder / "market.toml"]
        start = ",".join(f"{topic}:{number}:{offset}" for (topic, number), offset in starts.items())
        self._arguments = {
            feeder: feeding,
            "subscriber": [
                *("--kafka", plant.kafka, "--gateway", plant.gateway, "--dsn", plant.dsn, "--table", name),
                *("--start", start, "--count", count, "--released", self.released),
            ],
        }
        self.processes: dict[str, Child] = {part: self._start(part) for part in (feeder, "subscriber")}

    @property
    def progress(self) -> int:
        """How many are acknowledged."""
        try:
            return int(self.acked.read_text("ascii"))
        except (OSError, ValueError):
            return 0

    def kill(self, part: str) -> None:
        """And starts it again."""
        kill(self.processes[part])
        self.processes[part] = self._start(part)

    def done(self) -> bool:
        """Whether both have finished; starts again what was stopped by an engine's absence."""
        finished = True
        for part, child in list(self.processes.items()):
            status = child.process.poll()
            if status == AWAY and self._restarts < RESTARTS:
                self._restarts += 1
                self.processes[part] = self._start(part)
            elif status not in (None, 0):
                raise RuntimeError(f"{part} ended with {status}: {log_tail(child.log)[-1500:]}")
            finished = finished and status == 0
        return finished

    def stop(self) -> None:
        for child in self.processes.values():
            if child.process.poll() is None:
                kill(child)

    def _start(self, part: str) -> Child:
        return self._plant.load(part, *self._arguments[part])


class Positions:
    """How far the sink and the recorder's index are, from one connection; made again when PostgreSQL was away."""

    def __init__(self, plant: Plant, load: Load) -> None:
        self._plant = plant
        self._load = load
        self._begin = sum(load.starts.values())
        self._connection: asyncpg.Connection | None = None
        self.sink = self.index = 0

    async def look(self) -> None:
        """Keeps what was known while PostgreSQL is away."""
        try:
            if self._connection is None or self._connection.is_closed():
                self._connection = await asyncpg.connect(self._plant.dsn, timeout=5, command_timeout=5)
            self.index = await self._sum("position") or self.index
            self.sink = await self._sum(f"{self._load.name}_offset") or self.sink
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError):
            if self._connection is not None and not isinstance(sys.exception(), asyncpg.UndefinedTableError):
                self._connection.terminate()
                self._connection = None
        self._load.sunk.write_text(str(self.sink), "ascii")

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()

    async def _sum(self, table: str) -> int:
        assert self._connection is not None
        query = f'SELECT coalesce(sum(next_offset), 0)::bigint FROM "{table}" WHERE topic = $1'
        found = int(await self._connection.fetchval(query, TOPIC))
        # A partition that nothing was written from yet still has its beginning.
        missing = f'SELECT partition FROM "{table}" WHERE topic = $1'
        there = {row["partition"] for row in await self._connection.fetch(missing, TOPIC)}
        found += sum(offset for (_, number), offset in self._load.starts.items() if number not in there)
        return max(0, found - self._begin)


async def one_load(plant: Plant, kills: Sequence[tuple[str, int]], first: int, count: int, name: str) -> list[Kill]:
    """Runs one load, kills `(target, seed)` on its way, and counts from Kafka and PostgreSQL.

    Whatever goes wrong stands in the rows: a load that hangs ends by its own bound.
    """
    begun = time.monotonic()
    rows = [Kill(target=target, seed=seed, load=name, records=count, at_record=0) for target, seed in kills]
    try:
        for missing in [part for part in ("kafka", "postgres", "recorder", "gateway") if part not in plant.children]:
            await plant.start(missing)  # it ended by itself in the load before, which that load's rows say
        starts = await _ends(plant.administrator, TOPIC)
        logged = await _ends(plant.administrator, audit.TOPIC)
        feeder = "adapter" if "adapter" in dict(kills) else "publisher"
        load = Load(plant, feeder, first, count, name, starts)
        try:
            await _run(plant, load, rows)
        finally:
            load.stop()
        rows = await _counted(plant, load, rows, logged)
    except (RuntimeError, DeptbusError, OSError, TimeoutError, asyncpg.PostgresError) as exc:
        rows = [replace(row, error=f"{type(exc).__name__}: {exc}"[:2_000]) for row in rows]
    return [replace(row, seconds=round(time.monotonic() - begun, 1)) for row in rows]


async def _run(plant: Plant, load: Load, rows: list[Kill]) -> None:
    """To the end of the load; `rows` learn where each kill was.

    One kill at a time: each has its recovery to itself, while the load goes on.
    """
    waiting = {row.target: int(load.count * random.Random(row.seed).uniform(0.1, 0.9)) for row in rows}
    killed_by_us = ""
    deadline = time.monotonic() + LOAD_SECONDS
    async with AsyncExitStack() as stack:
        positions = Positions(plant, load)
        stack.push_async_callback(positions.close)
        measures = _measures(load, positions)
        recovery: asyncio.Task[None] | None = None
        while not (load.done() and recovery is None):
            await positions.look()
            if recovery is not None and recovery.done():
                recovery.result()
                recovery, killed_by_us = None, ""
            _check_alive(plant, killed_by_us)
            due = [target for target, at in waiting.items() if measures[target]() >= at]
            if due and recovery is None:
                killed_by_us = due[0]
                del waiting[due[0]]
                rows[:] = [replace(r, at_record=measures[r.target]()) if r.target == due[0] else r for r in rows]
                recovery = asyncio.create_task(_kill(plant, load, due[0]))
            if time.monotonic() > deadline:
                where = {target: measure() for target, measure in measures.items()}
                raise RuntimeError(f"not finished in {LOAD_SECONDS:.0f} s: {where}; {_last_words(plant, load)}")
            await asyncio.sleep(POLL_SECONDS)


def _check_alive(plant: Plant, killed_by_us: str) -> None:
    """No process may end because another was killed."""
    for name, child in plant.children.items():
        if name != killed_by_us and child.process.poll() is not None:
            status = child.process.returncode
            plant.children.pop(name)
            raise RuntimeError(f"{name} ended by itself with {status}: {log_tail(child.log)[-1500:]}")


def _measures(load: Load, positions: Positions) -> dict[str, Callable[[], int]]:
    """Each part by its own work: the feeder and Kafka by what is acknowledged, who reads by the sink, the index."""
    acked, sink, index = (lambda: load.progress), (lambda: positions.sink), (lambda: positions.index)
    return {
        **dict.fromkeys(("publisher", "adapter", "kafka"), acked),
        **dict.fromkeys(("subscriber", "gateway"), sink),
        **dict.fromkeys(("recorder", "postgres"), index),
    }


async def _kill(plant: Plant, load: Load, target: str) -> None:
    if target in load.processes:
        load.kill(target)
    else:
        plant.kill(target)
        await plant.start(target)


def _last_words(plant: Plant, load: Load) -> str:
    children = {**plant.children, **load.processes}
    return "; ".join(f"{name}: {log_tail(child.log)[-300:]}" for name, child in children.items())


async def _counted(plant: Plant, load: Load, rows: Sequence[Kill], logged: Places) -> list[Kill]:
    on_topic, twice = await _on_topic(plant.administrator, load.starts)
    sink = await _sink(plant.dsn, load.name)
    stored = {leaf for leaf, _, _ in sink}
    released = _released(load.released)
    permits = await _permits(plant.administrator, logged)
    audited = {leaf for leaf, entries in released.items() if all(permits.get(entry) == leaf for entry in entries)}
    return [
        replace(
            row,
            acked=load.progress,
            in_topic=len(on_topic),
            in_sink=len(stored & on_topic),
            released=len(released.keys() & on_topic),
            audited=len(audited),
            twice=twice + len(sink) - len({place for _, place, _ in sink}),
            unopened=sum(uscc is None for _, _, uscc in sink),
        )
        for row in rows
    ]


def _released(path: Path) -> dict[bytes, set[bytes]]:
    """By leaf hash, the audit entries that grants named; a record that was handed over twice has two."""
    found: dict[bytes, set[bytes]] = {}
    for line in path.read_text("ascii").splitlines():
        leaf, entry, _sections = line.split(" ")
        found.setdefault(bytes.fromhex(leaf), set()).add(bytes.fromhex(entry))
    return found


async def _on_topic(kafka: Cluster, starts: Places) -> tuple[set[bytes], int]:
    """Leaf hashes since the load began, and how many places (licence, sequence) two different ones claim."""
    seen: dict[tuple[bytes, int], bytes] = {}
    leaves: set[bytes] = set()
    for value in await _values(kafka, starts):
        record = envelope.parse(value)
        leaves.add(record.leaf_hash)
        seen.setdefault((record.claims.licence, record.claims.sequence), record.leaf_hash)
    return leaves, len(leaves) - len(seen)


async def _permits(kafka: Cluster, starts: Places) -> dict[bytes, bytes]:
    """By the entry's leaf hash, the record whose section it permits."""
    permits: dict[bytes, bytes] = {}
    for value in await _values(kafka, starts):
        entry = audit.parse(value)[0]
        if entry.kind == "Decision":
            codes = {section["name"]: section["code"] for section in entry.body["sections"]}
            if codes.get(SECTION) == "PERMIT":
                permits[entry.leaf_hash] = entry.body["record"]
    return permits


async def _values(kafka: Cluster, starts: Places) -> list[bytes]:
    """Every value from these offsets to the present ends."""
    topic = next(iter(starts))[0]
    reader = await consumer(kafka, "faults", max_poll_records=2_000)
    values: list[bytes] = []
    try:
        partitions = await partitions_of(reader, topic)
        reader.assign(partitions)
        ends = await bounded(reader.end_offsets(partitions), ASK_SECONDS, "reading ends")
        for tp in partitions:
            reader.seek(tp, starts[tp.topic, tp.partition])
        async with asyncio.timeout(ASK_SECONDS):
            while any([await reader.position(tp) < ends[tp] for tp in partitions]):
                polled = await reader.getmany(timeout_ms=1_000)
                values += [m.value for messages in polled.values() for m in messages if m.value is not None]
    finally:
        await reader.stop()
    return values


async def _ends(kafka: Cluster, topic: str) -> Places:
    reader = await consumer(kafka, "faults")
    try:
        partitions = await partitions_of(reader, topic)
        ends = await bounded(reader.end_offsets(partitions), ASK_SECONDS, "reading ends")
    finally:
        await reader.stop()
    return {(tp.topic, tp.partition): end for tp, end in ends.items()}


async def _sink(dsn: str, table: str) -> list[tuple[bytes, tuple[bytes, int], str | None]]:
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch(f'SELECT leaf_hash, licence, sequence, uscc FROM "{table}"')
    finally:
        await connection.close()
    return [(row["leaf_hash"], (row["licence"], row["sequence"]), row["uscc"]) for row in rows]


def _write_export(path: Path, first: int, count: int) -> None:
    names = ("企业名称", "统一社会信用代码", "注册日期", "企业类型", "法人代表", "注册资金", "经营范围")
    header = (*names, "所在省份", "地区", "注册地址")
    with path.open("w", encoding="utf-8-sig", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(header)
        for n in range(first, first + count):
            firm = (f"测试{n}号公司", credit_code(n), "2019-09-28", "有限责任公司", "王测试", "100万元人民币", "批发")
            writer.writerow((*firm, "浙江", "嘉兴", f"测试路{n}号"))


@dataclass(slots=True)
class Course:
    """All loads on one plant. The firms of a load are its own."""

    records: int
    seed: int
    targets: Sequence[str] = TARGETS
    rounds: int = 1
    first: int = 1_000_000
    done: list[Kill] = field(default_factory=list)

    async def run(self, plant: Plant, said: Callable[[Kill], None] = lambda _: None) -> list[Kill]:
        for number in range(self.rounds):
            for at, parts in enumerate(LOADS):
                kills = [(t, self.seed + number * len(TARGETS) + TARGETS.index(t)) for t in parts if t in self.targets]
                if not kills:
                    continue
                order = number * len(LOADS) + at
                name = f"load_{self.seed}_{order}"
                for row in await one_load(plant, kills, self.first + order * self.records, self.records, name):
                    self.done.append(row)
                    said(row)
        return self.done


@dataclass(slots=True)
class Outcome:
    """What everything that was tried came to."""

    rounds: list[Kill] = field(default_factory=list)
    stall: Stall | None = None
    withdrawal: Withdrawal | None = None
    log: list[Death] = field(default_factory=list)
    backlog: Backlog | None = None
    erasure: Erasure | None = None
    not_tried: str = ""

    @property
    def bad(self) -> list[Any]:
        """What broke a promise."""
        single = (self.stall, self.withdrawal, self.backlog, self.erasure)
        rows = [*self.rounds, *self.log, *(one for one in single if one is not None)]
        return [row for row in rows if not row.good]


async def run(course: Course, extra: Collection[str], kills: int) -> Outcome:
    """Each on a plant of its own, with a bar on stderr."""
    outcome = Outcome(rounds=course.done)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    deaths = (2 * len(POINTS) + 1 + kills + 1) if "log" in extra else 0
    with (
        tempfile.TemporaryDirectory(prefix="deptbus-faults-") as folder,
        Progress(*columns, disable=not sys.stderr.isatty()) as progress,
    ):
        task = progress.add_task("kill -9", total=course.rounds * len(course.targets) + deaths)
        progress.console.file = sys.stderr

        def said(row: Any) -> None:
            progress.advance(task)
            progress.console.print(json.dumps(asdict(row), ensure_ascii=False), markup=False, soft_wrap=True)

        if course.targets or {"stall", "withdrawal"} & set(extra):
            plant = Plant(Path(folder) / "plant")
            try:
                await plant.up()
                await course.run(plant, said)
                if "stall" in extra:
                    outcome.stall = await stall(plant)
                if "withdrawal" in extra:
                    outcome.withdrawal = await withdrawal(plant)
            finally:
                plant.down()
        if "log" in extra:
            async with Trial(Path(folder) / "log") as trial:
                outcome.log += await every_point(trial, said)
                outcome.log += await at_random(trial, kills, course.seed, said)
                outcome.backlog = await trial.backlog()
        if "erasure" in extra:
            try:
                outcome.erasure = await erasure(Path(folder) / "erasure")
            except NotReadable as exc:
                outcome.not_tried = f"erasure: {exc.__doc__}"
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", choices=(*TARGETS, *EXTRA), action="append")
    parser.add_argument("--rounds", type=int, default=FULL_ROUNDS)
    parser.add_argument("--records", type=int, default=FULL_RECORDS)
    parser.add_argument("--kills", type=int, default=RANDOM_KILLS, help="of the log's recorder, at random")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 1_000_000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    configure("faults", logging.WARNING)
    begun = time.monotonic()
    wanted = given.target or (*TARGETS, *EXTRA)
    targets = [target for target in TARGETS if target in wanted]
    course = Course(records=given.records, seed=given.seed, targets=targets, rounds=given.rounds)
    outcome = asyncio.run(run(course, wanted, given.kills))
    document = write_report(
        "faults",
        seconds=time.monotonic() - begun,
        seed=given.seed,
        rounds=[asdict(one) for one in outcome.rounds],
        stall=None if outcome.stall is None else asdict(outcome.stall),
        withdrawal=None if outcome.withdrawal is None else asdict(outcome.withdrawal),
        log=[{"kill": at, **asdict(one), "same_tree": one.same_tree} for at, one in enumerate(outcome.log, 1)],
        backlog=None if outcome.backlog is None else asdict(outcome.backlog),
        erasure=None if outcome.erasure is None else asdict(outcome.erasure),
    )
    if given.json:
        print(json.dumps(document, ensure_ascii=False))
    for one in outcome.bad:
        print(f"broken: {one}", file=sys.stderr)
    if outcome.not_tried:
        print(f"not tried: {outcome.not_tried}", file=sys.stderr)
    sys.exit(1 if outcome.bad else AWAY if outcome.not_tried else 0)


if __name__ == "__main__":
    main()
