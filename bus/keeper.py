"""Keeps Kafka's access rules and quotas as the bus's database says: an agreement that comes into force, or ends.

It listens to the database and looks at everything again each minute, when a day may have come, too: what it finds then
that it did not do itself is somebody's drift, which it says and takes back. Users it leaves alone: a login that nobody
joined with can do nothing. Whoever runs it is Kafka's administrator; gateways are not.

A crash leaves the cluster as it was: the next start compares all of it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import asyncpg
import structlog

from bus import metrics
from bus.access import PROCESSES, Access, Changes, Department, changes, wanted
from bus.db import connect, postgres_errors, queries
from bus.kafkaadmin import Administrator, administrator
from bus.transport import Cluster
from consent.decide import CHINA
from schemas.catalogue import Catalogue
from schemas.errors import Code, DeptbusError, Unavailable

LOOK_SECONDS = 60.0
RETRY_SECONDS = 1.0
CHANNEL = "access"  # migration 0023

SQL = queries(Path(__file__).with_name("keeper.sql"))
log = structlog.get_logger()


async def departments(connection: asyncpg.Connection, day: date, uscc: str | None = None) -> list[Department]:
    """What the database says of all of them, or of one; empty for one who has not joined."""
    return [
        Department(
            uscc=row["uscc"],
            suspended=row["suspended"],
            auditor=row["auditor"],
            own_gateway=row["own_gateway"],
            issues=frozenset(row["issues"]),
            opens=frozenset(row["opens"]),
            records_a_day=row["records"],
        )
        for row in await connection.fetch(SQL["departments"], day, uscc)
    ]


async def due(connection: asyncpg.Connection, catalogue: Catalogue, day: date) -> Access:
    """Everything that anybody may do on this day. Raises `Unavailable`."""
    async with postgres_errors("reading who may do what"):
        return wanted(catalogue, await departments(connection, day))


async def compare(admin: Administrator, connection: asyncpg.Connection, catalogue: Catalogue) -> Changes:
    """What is to be done to a cluster so that it is as it should be today. Raises `Unavailable`."""
    return changes(await due(connection, catalogue, today()), await admin.access())


async def admit(kafka: Cluster, connection: asyncpg.Connection, catalogue: Catalogue, uscc: str) -> None:
    """A department's rules at once, for whoever cannot wait for the keeper. Raises `Unavailable`."""
    async with postgres_errors("reading who may do what"):
        known = await departments(connection, today(), uscc)
    everything = wanted(catalogue, known)
    async with administrator(kafka) as admin:
        for user in everything.users.difference(PROCESSES):
            should, found = everything.of(user), (await admin.access(user)).of(user)
            await admin.apply(changes(should, found))
            await admin.settle(user, should.bindings)


class Keeper:
    """`run` until cancelled. `kafka` as its administrator."""

    def __init__(self, kafka: Cluster, dsn: str, catalogue: Catalogue) -> None:
        self._kafka = kafka
        self._dsn = dsn
        self._catalogue = catalogue
        self._current = False

    def check(self) -> None:
        """Raises `Unavailable` while the cluster is not known to be as it should be."""
        if not self._current:
            raise Unavailable(Code.KAFKA_UNAVAILABLE, "access rules are not applied: see this process's log")

    async def run(self) -> None:
        """Begins anew after whatever went wrong."""
        while True:
            try:
                await self._run()
            except DeptbusError as exc:
                log.warning("access_delayed", code=exc.code, detail=exc.detail)
            except (asyncpg.PostgresError, KeyError) as exc:
                log.error("access_failed", error=type(exc).__name__, exc_info=True)
            self._current = False
            await asyncio.sleep(RETRY_SECONDS)

    async def _run(self) -> None:
        connection = await connect(self._dsn)
        try:
            told = asyncio.Event()
            async with postgres_errors("listening"):
                await connection.add_listener(CHANNEL, lambda *_: told.set())
                connection.add_termination_listener(lambda _: told.set())
            async with administrator(self._kafka) as admin:
                standing = await self._look(admin, connection, None)
                while True:
                    looked = False
                    with suppress(TimeoutError):
                        async with asyncio.timeout(LOOK_SECONDS):
                            looked = await told.wait()
                    told.clear()
                    standing = await self._look(admin, connection, standing if looked else None)
        finally:
            with suppress(Exception):
                await connection.close(timeout=1)

    async def _look(self, admin: Administrator, connection: asyncpg.Connection, standing: Access | None) -> Access:
        """Makes the cluster as it should be; what it then has. It is read if nobody knows it."""
        should = await due(connection, self._catalogue, today())
        found = standing or await admin.access()
        todo = changes(should, found)
        await admin.apply(todo)
        if standing is None:
            metrics.ACCESS_DRIFT.set(len(todo))
        if todo.add or todo.remove or todo.quotas:
            _say(todo, drift=standing is None and self._current)
        self._current = True
        metrics.ACCESS_APPLIED.set_to_current_time()
        return replace(should, users=found.users)


def _say(done: Changes, *, drift: bool) -> None:
    metrics.ACCESS_CHANGES.labels(change="added").inc(len(done.add))
    metrics.ACCESS_CHANGES.labels(change="removed").inc(len(done.remove))
    tell = log.warning if drift else log.info
    tell("access_drift" if drift else "access_changed", added=len(done.add), removed=len(done.remove))


def today() -> date:
    """The day that agreements are looked at on."""
    return datetime.now(CHINA).date()
