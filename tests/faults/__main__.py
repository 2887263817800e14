"""`make faults`: SIGKILL of every part while records flow, then count.

Each round publishes fresh firms, feeds them to a subscriber that writes to a sink exactly once, and kills one part at a
random 10–90 % of the way. At the end: every acknowledged record is on its topic, each is in the sink once, and every
row of the sink has a permit in the audit topic. `build/faults.json` has a row a round.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import asyncpg
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bus import audit, envelope
from bus.kafka import bounded, consumer, partitions_of
from deploy.stack.child import Child, log_tail
from schemas.errors import DeptbusError
from tests.faults.firms import credit_code
from tests.faults.plant import ITEM, Plant, kill
from tests.report import ROOT, write_report

TARGETS = ("publisher", "adapter", "subscriber", "gateway", "recorder", "kafka", "postgres")
ROUND_SECONDS = 240.0
POLL_SECONDS = 0.05
AWAY = 3  # exit code of a load process whose engine was away: it is started again
FULL_RECORDS = 20_000
FULL_ROUNDS = 5
ASK_SECONDS = 30.0
_MAPPING = ROOT / "adapters" / "departments" / "market-regulation.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One kill. `in_topic` and `in_sink` are distinct records; `twice` rows or places that came more than once."""

    target: str
    seed: int
    records: int
    at_record: int
    acked: int
    in_topic: int
    in_sink: int
    released: int
    audited: int
    twice: int
    seconds: float

    @property
    def good(self) -> bool:
        """Nothing lost, nothing twice, no release without its entry."""
        return (
            self.acked == self.records == self.in_topic == self.in_sink
            and self.twice == 0
            and self.audited >= self.released
        )


class Load:
    """The publishing side and the reading side of one round, started again as often as an engine was away."""

    def __init__(self, plant: Plant, feeder: str, first: int, count: int, name: str, start: str) -> None:
        self._plant = plant
        self._feeder = feeder
        folder = plant.folder / "rounds" / name
        folder.mkdir(parents=True)
        self.acked = folder / "acked"
        common = ["--kafka", plant.kafka, "--first", first, "--count", count, "--acked", self.acked]
        self._arguments = {
            feeder: [*common, "--store", folder / "outbox.sqlite"],
            "subscriber": [
                *("--kafka", plant.kafka, "--gateway", plant.gateway, "--dsn", plant.dsn, "--table", name),
                *("--start", start, "--count", count),
            ],
        }
        if feeder == "adapter":
            _write_export(folder / "export.csv", first, count)
            (folder / "market.toml").write_text(_MAPPING.read_text("utf-8"), "utf-8")
            self._arguments[feeder] += ["--input", folder / "export.csv", "--department", folder / "market.toml"]
        self.processes: dict[str, Child] = {part: self._start(part) for part in (feeder, "subscriber")}

    @property
    def progress(self) -> int:
        try:
            return int(self.acked.read_text("ascii"))
        except (OSError, ValueError):
            return 0

    def kill(self, part: str) -> None:
        kill(self.processes[part])
        self.processes[part] = self._start(part)

    def done(self) -> bool:
        """Whether both have finished; starts again what was stopped by an engine's absence."""
        finished = True
        for part, child in list(self.processes.items()):
            status = child.process.poll()
            if status == AWAY:
                self.processes[part] = self._start(part)
            elif status not in (None, 0):
                raise RuntimeError(f"{part} ended with {status}: {log_tail(child.log)[-2000:]}")
            finished = finished and status == 0
        return finished

    def stop(self) -> None:
        for child in self.processes.values():
            if child.process.poll() is None:
                kill(child)

    def _start(self, part: str) -> Child:
        return self._plant.load(part, *self._arguments[part])


async def one_round(plant: Plant, target: str, seed: int, first: int, count: int) -> Round:
    """Runs and kills once, and counts from Kafka and PostgreSQL."""
    begun = time.monotonic()
    at_record = int(count * random.Random(seed).uniform(0.1, 0.9))
    starts = await _ends(plant.kafka, f"licence.{ITEM}")
    audit_start = await _ends(plant.kafka, audit.TOPIC)
    name = f"{target}_{seed}"
    feeder = "adapter" if target == "adapter" else "publisher"
    start = ",".join(f"{topic}:{number}:{offset}" for (topic, number), offset in starts.items())
    load = Load(plant, feeder, first, count, name, start)
    try:
        killed = False
        while not load.done():
            # A subscriber is killed by what it has written, everything else by what is acknowledged.
            reached = await _rows(plant.dsn, name) if target == "subscriber" else load.progress
            if not killed and reached >= at_record:
                killed = True
                if target in load.processes:
                    load.kill(target)
                else:
                    plant.kill(target)
                    await plant.start(target)
            if time.monotonic() - begun > ROUND_SECONDS:
                raise RuntimeError(f"{name} did not finish in {ROUND_SECONDS:.0f} s: logs in {plant.folder / 'logs'}")
            await asyncio.sleep(POLL_SECONDS)
        acked = load.progress
    finally:
        load.stop()
    if not killed:
        raise RuntimeError(f"{name} finished before it was killed: too few records")
    in_topic, twice = await _on_topic(plant.kafka, starts)
    sink = await _sink(plant.dsn, name)
    permits = await _permits(plant.kafka, audit_start)
    return Round(
        target=target,
        seed=seed,
        records=count,
        at_record=at_record,
        acked=acked,
        in_topic=in_topic,
        in_sink=len(set(sink)),
        released=len(set(sink)),
        audited=len(set(sink) & permits),
        twice=twice + len(sink) - len(set(sink)),
        seconds=round(time.monotonic() - begun, 1),
    )


async def _on_topic(kafka: str, starts: dict[tuple[str, int], int]) -> tuple[int, int]:
    """Distinct records since the round began, and places (licence, sequence) that two different ones claim."""
    seen: dict[tuple[bytes, int], bytes] = {}
    twice = 0
    for value in await _values(kafka, starts):
        try:
            record = envelope.parse(value)
        except DeptbusError:
            continue
        place = (record.claims.licence, record.claims.sequence)
        twice += seen.setdefault(place, record.leaf_hash) != record.leaf_hash
    return len(seen), twice


async def _permits(kafka: str, starts: dict[tuple[str, int], int]) -> set[bytes]:
    permits: set[bytes] = set()
    for value in await _values(kafka, starts):
        entry = audit.parse(value)[0]
        if entry.kind == "Decision" and any(s["code"] == "PERMIT" for s in entry.body["sections"]):
            permits.add(entry.body["record"])
    return permits


async def _values(kafka: str, starts: dict[tuple[str, int], int]) -> list[bytes]:
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
            while await reader.position(tp) < ends[tp]:
                polled = await reader.getmany(tp, timeout_ms=1_000)
                values += [m.value for m in polled.get(tp, []) if m.value is not None]
    finally:
        await reader.stop()
    return values


async def _ends(kafka: str, topic: str) -> dict[tuple[str, int], int]:
    reader = await consumer(kafka, "faults")
    try:
        partitions = await partitions_of(reader, topic)
        ends = await bounded(reader.end_offsets(partitions), ASK_SECONDS, "reading ends")
    finally:
        await reader.stop()
    return {(tp.topic, tp.partition): end for tp, end in ends.items()}


async def _sink(dsn: str, table: str) -> list[bytes]:
    connection = await asyncpg.connect(dsn)
    try:
        return [row["leaf_hash"] for row in await connection.fetch(f'SELECT leaf_hash FROM "{table}"')]
    finally:
        await connection.close()


async def _rows(dsn: str, table: str) -> int:
    try:
        return len(await _sink(dsn, table))
    except (asyncpg.PostgresError, OSError):
        return 0


def _write_export(path: Path, first: int, count: int) -> None:
    header = (
        "企业名称",
        "统一社会信用代码",
        "注册日期",
        "企业类型",
        "法人代表",
        "注册资金",
        "经营范围",
        "所在省份",
        "地区",
        "注册地址",
    )
    with path.open("w", encoding="utf-8-sig", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(header)
        for n in range(first, first + count):
            writer.writerow(
                (
                    f"测试{n}号公司",
                    credit_code(n),
                    "2019-09-28",
                    "有限责任公司",
                    "王测试",
                    "100万元人民币",
                    "批发",
                    "浙江",
                    "嘉兴",
                    f"测试路{n}号",
                )
            )


async def run(targets: Sequence[str], rounds: int, records: int, seed: int) -> list[Round]:
    """All rounds on one plant. The firms of a round are its own."""
    done: list[Round] = []
    with tempfile.TemporaryDirectory(prefix="deptbus-faults-") as folder:
        plant = Plant(Path(folder))
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        try:
            with Progress(*columns, disable=not sys.stderr.isatty()) as progress:
                task = progress.add_task("starting", total=rounds * len(targets))
                await plant.up()
                for number in range(rounds):
                    for at, target in enumerate(targets):
                        progress.update(task, description=f"kill -9 of {target}")
                        order = number * len(targets) + at
                        done.append(await one_round(plant, target, seed + order, 1_000_000 + order * records, records))
                        print(json.dumps(asdict(done[-1])), file=sys.stderr)
                        progress.advance(task)
        finally:
            plant.down()
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", choices=TARGETS, action="append")
    parser.add_argument("--rounds", type=int, default=FULL_ROUNDS)
    parser.add_argument("--records", type=int, default=FULL_RECORDS)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 1_000_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    begun = time.monotonic()
    done = asyncio.run(run(arguments.target or TARGETS, arguments.rounds, arguments.records, arguments.seed))
    document = write_report(
        "faults", seconds=time.monotonic() - begun, seed=arguments.seed, rounds=[asdict(one) for one in done]
    )
    if arguments.json:
        print(json.dumps(document))
    bad = [one for one in done if not one.good]
    for one in bad:
        print(f"broken: {one}", file=sys.stderr)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
