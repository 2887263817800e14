"""Powers to issue by law (权力清单), which the operator enters, and what the bus is told of all powers to issue."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import asyncpg
from aiokafka import AIOKafkaProducer

from bus import cataloguefeed
from bus.cataloguefeed import CatalogueFeed, standing_value
from bus.db import queries
from bus.gateway import revisions, rulebook
from bus.gateway.catalogue import SINCE, own_values
from bus.kafka import kafka_errors
from bus.pki import Signer
from consent.lifecycle import Act
from consent.model import Power, PowerKind, PowerState
from schemas.errors import Code, Malformed

SQL = queries(Path(__file__).with_name("issuing.sql"))


async def give(
    connection: asyncpg.Connection, signer: Signer, origin: str, *, item: str, uscc: str, region: str
) -> Power | None:
    """A department issues an item by law: `region` is a GB/T 2260 prefix of 2, 4 or 6 digits, or '' for everywhere.

    The operator's own act, whose entry waits in the outbox until a gateway runs. Again is once: None if it is so.
    """
    if region and (not region.isdigit() or len(region) not in (2, 4, 6)):
        raise Malformed(Code.REGION_UNKNOWN, f"{region} is not a division prefix of 2, 4 or 6 digits")
    async with connection.transaction():
        if await connection.fetchval(SQL["has"], item, uscc, region):
            return None
        power = Power(
            id=uuid4(),
            revision=1,
            right=PowerKind.ISSUE,
            grantor=signer.uscc,
            grantee=uscc,
            items=frozenset({item}),
            purposes=frozenset(),
            regions=frozenset({region} - {""}),
            valid_from=SINCE,
            valid_until=None,
            basis="",
            state=PowerState.ACTIVE,
        )
        await rulebook.insert(connection, [power], signer.uscc)
        await revisions.keep(connection, own_values(signer, origin, [(power, Act.GIVE, "")]))
    return power


async def adopt(connection: asyncpg.Connection, signer: Signer, origin: str) -> int:
    """Makes the operator the grantor of the powers that stood before they were documents; returns how many those were.

    All or none: a crash leaves them to the next call.
    """
    async with connection.transaction():
        rows = await connection.fetch(SQL["former"])
        for row in rows:
            power = replace(Power.stored(json.loads(row["body"]), 1, row["state"]), grantor=signer.uscc)
            await connection.execute(SQL["give"], power.id, power.grantor, power.hash, json.dumps(power.body()))
            act = (power.id, power.revision, Act.GIVE.value, power.state.value, signer.uscc, "")
            await connection.execute(rulebook.SQL["put_act"], *act)
            await revisions.keep(connection, own_values(signer, origin, [(power, Act.GIVE, "")]))
    return len(rows)


async def announce(
    connection: asyncpg.Connection, feed: CatalogueFeed, producer: AIOKafkaProducer, signer: Signer
) -> int:
    """Puts on `bus.catalogue` what the database has and the topic lacks; returns how many documents that were.

    Raises `Unavailable`: what is missing is put there by the next call.
    """
    await feed.catch_up()
    missing = [
        row for row in await connection.fetch(SQL["standing"]) if feed.revisions.get(row["id"], 0) < row["revision"]
    ]
    async with kafka_errors(f"writing {cataloguefeed.TOPIC}"):
        values = [standing_value(rulebook.from_row(row), row["since"], signer) for row in missing]
        sent = [
            await producer.send(cataloguefeed.TOPIC, value, key=row["id"].bytes)
            for row, value in zip(missing, values, strict=True)
        ]
        await asyncio.gather(*sent)
    return len(missing)
