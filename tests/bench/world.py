"""A bus of its own for a bench: a new database, a market department that issues, and consumers."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import urlsplit, urlunsplit
from urllib.request import urlopen

import asyncpg
import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from bus.identity import Identity
from bus.kafka import consumer, partitions_of
from bus.topics import LICENCE_PARTITIONS, topics
from deploy import bootstrap
from deploy.bootstrap import Bus
from schemas.catalogue import Catalogue
from tests.bench.engines import engines
from tests.bench.sample import ISSUER, ITEM

BANK = "112106000050000185"  # synthetic
PARTITIONS = LICENCE_PARTITIONS  # as the bus's own
READY_SECONDS = 30.0
STOP_SECONDS = 10.0

Said = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Where things are. `market` issues business licences, `bank` receives them and may read the audit trail."""

    folder: Path
    kafka: str
    postgres: str
    bus: Bus
    market: Identity
    bank: Identity
    plain_topic: str


@contextmanager
def world(runner: asyncio.Runner, said: Said) -> Iterator[World]:
    """Engines with a bus on them. Database and folder go away afterwards; the topics are the engine's and stay."""
    there = engines()
    folder = Path(mkdtemp(prefix="deptbus-bench-"))
    name = f"bench_{os.getpid()}_{time.time_ns()}"
    said("setting up a bus")
    runner.run(_execute(there.postgres, f"CREATE DATABASE {name}"))
    try:
        yield runner.run(_set_up(folder, there.kafka, _database(there.postgres, name), f"plain-{name}"))
    finally:
        runner.run(_execute(there.postgres, f"DROP DATABASE {name} WITH (FORCE)"))
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def process(there: World, name: str) -> Iterator[tuple[int, str]]:
    """A gateway or recorder as its own process: its pid and its URL, once it says that it is ready."""
    port, metrics_port = _free_port(), _free_port()
    dsn = there.folder / "dsn"
    dsn.write_text(there.postgres, "utf-8")
    command = [
        *(sys.executable, "-m", "deploy.process", name, "--bus", str(there.bus.folder), "--kafka", there.kafka),
        *("--postgres-file", str(dsn), "--port", str(port), "--metrics-port", str(metrics_port)),
    ]
    log = there.folder / f"{name}.log"
    with log.open("ab") as output:
        child = subprocess.Popen(command, stdout=output, stderr=output, cwd=Path(__file__).parents[2])
    try:
        _wait_ready(child, f"http://127.0.0.1:{metrics_port}/readyz", log)
        yield child.pid, f"http://127.0.0.1:{port}"
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()


def quiet() -> None:
    """Errors only, on stderr: an engine that served earlier buses has their certificates, and each is refused aloud."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


async def _set_up(folder: Path, kafka: str, postgres: str, plain_topic: str) -> World:
    bus = await bootstrap.prepare(folder / "bus", kafka, postgres)
    market = await bootstrap.add_org(
        bus, folder / "market", kafka, postgres, name="market", uscc=ISSUER, issues=[(ITEM, "")], receives=[]
    )
    bank = await bootstrap.add_org(
        bus, folder / "bank", kafka, postgres, name="bank", uscc=BANK, issues=[], receives=[ITEM], auditor=True
    )
    await _begin_at_the_end(kafka, postgres)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(plain_topic, PARTITIONS, 1)])
    finally:
        await admin.close()
    return World(
        folder=folder,
        kafka=kafka,
        postgres=postgres,
        bus=bus,
        market=market,
        bank=bank,
        plain_topic=plain_topic,
    )


async def _begin_at_the_end(kafka: str, postgres: str) -> None:
    """The recorder of this bus passes over what earlier buses left on the engine's topics."""
    reader = await consumer(kafka, "bench")
    connection = await asyncpg.connect(postgres)
    try:
        names = [topic.name for topic in topics(Catalogue.load(), single_broker=True)]
        partitions = [tp for name in names for tp in await partitions_of(reader, name)]
        ends = await reader.end_offsets(partitions)
        rows = [(tp.topic, tp.partition, end) for tp, end in ends.items()]
        await connection.copy_records_to_table("position", records=rows, columns=["topic", "partition", "next_offset"])
        await connection.execute("CREATE TABLE bench_begin AS TABLE position")
    finally:
        await connection.close()
        await reader.stop()


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _database(dsn: str, name: str) -> str:
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_ready(child: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and child.poll() is None:
        try:
            with urlopen(url, timeout=1) as answer:
                if json.load(answer)["status"] == "ready":
                    return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"a process did not become ready; its log ends:\n{log.read_text('utf-8')[-2000:]}")
