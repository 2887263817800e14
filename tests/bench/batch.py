"""`python -m tests.bench.batch`: a batch of 100 decisions at a million consents; `build/bench-batch.json`.

One client asks one gateway, a batch after the other, signed: first what may be opened (`POST /access/v1/evaluations`,
whose answer is in the log as one entry), then for the keys (`POST /v1/keys`, an entry a record). Every decision stands
on a consent. Agreements and consents are in the database as the gateway writes them, with real bodies and hashes, but
by COPY and without their acts: each record's holder has one, and the others are of holders who have no record here.

`client` is from before the request is signed until its answer is read, in milliseconds; `server_ms` is the mean of the
gateway's own metric. Afterwards the audit log is read: it must hold every decision, permitted.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import date
from itertools import islice
from random import Random
from typing import Any
from urllib.request import urlopen
from uuid import UUID

import asyncpg
import uvloop
from aiokafka import TopicPartition
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from bus import audit
from bus.client import GatewayClient
from bus.envelope import Record
from bus.gateway.rulebook import about, last_day
from bus.kafka import consumer
from bus.messages import KeyRequest, Read
from bus.transport import Cluster
from consent.documents import Document
from consent.model import (
    Agreement,
    AgreementState,
    Consent,
    ConsentState,
    Giver,
    Ground,
    Mode,
    Notice,
    Scope,
    parties,
)
from consent.purposes import PURPOSES
from deploy.demo.agreeing import agree
from schemas.catalogue import Catalogue
from schemas.errors import Code
from tests.bench.entries import department
from tests.bench.measure import Said
from tests.bench.release import admitted, log_end
from tests.bench.sample import ITEM, SEED
from tests.bench.world import World, process, quiet, world
from tests.report import write_report

BATCH = 100
RECORDS = 20_000  # asked about; a batch is of a hundred of them at random
DEPARTMENTS = 2_500
FLOOR_MS = 50.0  # p99 at the client, of the batch of decisions
WARM = 20  # batches that are not counted
SECTIONS = ("identity", "business")
PURPOSE = "account-opening"
COPIED = 10_000  # documents a COPY
FIRST = date(2020, 1, 1)
SHARE = 20  # of the consents and agreements one in so many is the bank's
_SAMPLES = {"evaluations": "bus_evaluation_duration_seconds", "keys": "bus_key_release_duration_seconds"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.batch", description=__doc__)
    parser.add_argument("--consents", type=int, default=1_000_000)
    parser.add_argument("--agreements", type=int, default=10_000)
    parser.add_argument("--batches", type=int, default=1_000)
    parser.add_argument("--records", type=int, default=RECORDS)
    parser.add_argument("--json", action="store_true", help="print the document on stdout")
    given = parser.parse_args()
    quiet()
    console = Console(stderr=True, highlight=False)
    began = time.monotonic()
    with (
        console.status("starting") as status,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        world(runner, status.update) as there,
        process(there, "recorder"),
        process(there, "gateway") as (_, gateway, metrics),
    ):
        records = runner.run(admitted(there, given.records, status.update))
        filled = time.monotonic()
        runner.run(_fill(there, gateway, records, given.consents, given.agreements, status.update))
        filled = time.monotonic() - filled
        start = runner.run(log_end(there.kafka))
        calls = runner.run(_measured(there, gateway, metrics, records, given.batches, status.update))
        status.update("reading the audit log")
        permitted = runner.run(_permitted(there.kafka, start))
    asked = (given.batches + WARM) * BATCH
    wanted = {"Evaluation": asked, "Decision": asked}
    if permitted != wanted:
        raise SystemExit(f"the audit log holds {permitted} permits, not {wanted}")
    good = calls["evaluations"]["client_p99_ms"] < FLOOR_MS
    document = write_report(
        "bench-batch",
        seconds=time.monotonic() - began,
        seed=SEED,
        consents=given.consents,
        agreements=given.agreements,
        records=given.records,
        batches=given.batches,
        batch=BATCH,
        fill_seconds=round(filled, 1),
        floor_client_p99_ms=FLOOR_MS,
        calls=calls,
        permits_in_log=permitted,
    )
    for name, figures in calls.items():
        colour = "green" if good or name == "keys" else "red"
        console.print(f"[bold]{name:12}[/] [{colour}]{figures}[/]")
    if given.json:
        print(json.dumps(document))
    return 0 if good else 1


async def _measured(
    there: World, gateway: str, metrics: str, records: Sequence[Record], batches: int, said: Said
) -> dict[str, Any]:
    random = Random(SEED)
    drawn = [[records[at] for at in random.sample(range(len(records)), BATCH)] for _ in range(batches + WARM)]
    gc.collect()
    gc.freeze()  # what stands here is the bench's: a client has no twenty thousand records for a collector to look at
    async with GatewayClient(there.bank, [gateway]) as client:

        async def evaluations(asked: Sequence[Record]) -> None:
            said_yes = await client.post_json("/access/v1/evaluations", _evaluations(there.bank.uscc, asked))
            if not all(one["decision"] for one in said_yes["evaluations"]):
                raise SystemExit(f"not all permitted: {[one['context']['code'] for one in said_yes['evaluations']]}")

        async def keys(asked: Sequence[Record]) -> None:
            request = KeyRequest(
                request=random.randbytes(16),
                purpose=PURPOSE,
                ground=Ground.CONSENT.value,
                operator="bench",
                citation="",
                case="",
                agent=None,
                recipient=there.bank.kem.id,
                reads=tuple(Read(one.claims_bytes, SECTIONS) for one in asked),
            )
            await client.send("POST", "/v1/keys", request.encode(), "application/avro")

        return {
            name: await _one_kind(name, call, drawn, metrics, said)
            for name, call in (("evaluations", evaluations), ("keys", keys))
        }


async def _one_kind(
    name: str,
    call: Callable[[Sequence[Record]], Awaitable[None]],
    drawn: Sequence[Sequence[Record]],
    metrics: str,
    said: Said,
) -> dict[str, float]:
    for asked in drawn[:WARM]:
        await call(asked)
    count, seconds = _spent(metrics, name)
    latencies: list[float] = []
    for asked in drawn[WARM:]:
        began = time.perf_counter()
        await call(asked)
        latencies.append((time.perf_counter() - began) * 1_000)
        if len(latencies) % 100 == 0:
            said(f"{name}: {len(latencies):,} batches")
    count, seconds = (after - before for after, before in zip(_spent(metrics, name), (count, seconds), strict=True))
    latencies.sort()
    figures = {f"client_p{percent}_ms": latencies[len(latencies) * percent // 100] for percent in (50, 90, 99)}
    figures |= {"client_max_ms": latencies[-1], "server_mean_ms": seconds / count * 1_000}
    figures["decisions_a_second"] = BATCH * 1_000 * len(latencies) / sum(latencies)
    return {key: round(value, 2) for key, value in figures.items()}


def _spent(metrics: str, name: str) -> tuple[float, float]:
    """(calls, seconds) of a kind so far, as the gateway's metric has them."""
    with urlopen(metrics, timeout=5) as answer:
        text = answer.read().decode()
    found = {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}
    return found[f"{_SAMPLES[name]}_count"], found[f"{_SAMPLES[name]}_sum"]


def _evaluations(consumer_uscc: str, asked: Sequence[Record]) -> dict[str, Any]:
    return {
        "subject": {"type": "department", "id": consumer_uscc},
        "action": {"name": PURPOSE},
        "context": {"operator": "bench", "ground": Ground.CONSENT.value},
        "evaluations": [
            {"resource": {"type": "record", "id": one.leaf_hash.hex(), "properties": {"sections": list(SECTIONS)}}}
            for one in asked
        ],
    }


async def _fill(
    there: World, gateway: str, records: Sequence[Record], consents: int, agreements: int, said: Said
) -> None:
    async with GatewayClient(there.market, [gateway]) as market, GatewayClient(there.bank, [gateway]) as bank:
        application = {
            "provider": there.market.uscc,
            "item": ITEM,
            "sections": list(SECTIONS),
            "purposes": [PURPOSE],
            "grounds": [Ground.CONSENT.value],
            "valid_from": FIRST.isoformat(),
        }
        await agree(market, bank, application)
    connection = await asyncpg.connect(there.postgres)
    try:
        random = Random(SEED)
        await _copy(connection, _agreements(random, there, agreements - 1), "agreements", said)
        holders = [one.claims.holders[0] for one in records]
        await _copy(connection, _consents(random, there, holders, consents), "consents", said)
        # As after years of use: nothing that the filling itself has left to be done.
        await connection.execute("VACUUM (ANALYZE) rule, rule_scope")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


async def _copy(connection: asyncpg.Connection, documents: Iterator[Document], what: str, said: Said) -> None:
    """Rows as `bus.gateway.rulebook.insert` makes them."""
    columns = ["id", "kind", "revision", "state", "hash", "grantor", "grantee", "item", "until", "body"]
    stored = 0
    while part := list(islice(documents, COPIED)):
        rows = [
            (
                *(one.id, one.kind, one.revision, one.state.value, one.hash, *parties(one)),
                *(getattr(one, "item", ""), last_day(one), json.dumps(one.body())),
            )
            for one in part
        ]
        await connection.copy_records_to_table("rule", records=rows, columns=columns)
        scopes = [(subject, item, parties(one)[1], one.id) for one in part for item, subject in about(one)]
        await connection.copy_records_to_table(
            "rule_scope", records=scopes, columns=["subject", "item", "grantee", "rule"]
        )
        stored += len(part)
        said(f"{what}: {stored:,}")


def _agreements(random: Random, there: World, count: int) -> Iterator[Agreement]:
    """Of many departments: some are the bank's, half of the others are with the provider of the records."""
    items, purposes = list(Catalogue.load().items.values()), list(PURPOSES)
    for number in range(count):
        item = random.choice(items)
        provider, other = (department(one) for one in random.sample(range(DEPARTMENTS), 2))
        bank = number % SHARE == 0
        yield Agreement(
            id=UUID(int=random.getrandbits(128)),
            revision=5,
            provider=provider if bank or number % 2 else there.market.uscc,
            consumer=there.bank.uscc if bank else other,
            item=item.name,
            basis="税收征收管理法 第十五条",
            scenario="企业开办",
            mode=Mode.STREAM,
            sections=frozenset(item.sections),
            purposes=frozenset(random.sample(purposes, 2)),
            regions=frozenset({"33"}),
            grounds=frozenset({Ground.STATUTORY_DUTY, Ground.CONSENT}),
            duties=frozenset({"税收征收管理法 第十五条"}),
            notice=Notice.GIVEN,
            valid_from=FIRST,
            valid_until=None,
            purpose_until=None,
            requests_a_day=None,
            records_a_day=None,
            max_age=86_400,
            data_life=None,
            statuses=frozenset(),
            superseded=False,
            onward=frozenset(),
            set_limit=None,
            set_until=None,
            state=AgreementState.ACTIVE,
        )


def _consents(random: Random, there: World, holders: Sequence[bytes], count: int) -> Iterator[Consent]:
    """One of each holder for the bank, spread among those of others."""
    known, every = iter(holders), max(count // len(holders), 1)
    for number in range(count):
        mine = next(known, None) if number % every == 0 else None
        bank = mine is not None or number % SHARE == 0
        scope = Scope(
            item=ITEM, subject=mine or random.randbytes(32), sections=frozenset(SECTIONS), sensitive=frozenset()
        )
        yield Consent(
            id=UUID(int=random.getrandbits(128)),
            revision=1,
            recipient=there.bank.uscc if bank else department(random.randrange(DEPARTMENTS)),
            purposes=frozenset({PURPOSE}),
            scopes=(scope,),
            agreements=frozenset(),
            mode=Mode.STREAM,
            valid_from=FIRST,
            valid_until=None,
            frequency=None,
            max_uses=None,
            data_life=None,
            notice=Notice.GIVEN,
            given_by=Giver.SUBJECT,
            minor_until=None,
            recorded_by=there.market.uscc,
            evidence="",
            state=ConsentState.ACTIVE,
        )


async def _permitted(kafka: Cluster, start: int) -> dict[str, int]:
    """How many permits the entries after `start` hold, by kind."""
    end = await log_end(kafka)
    reader = await consumer(kafka, "bench")
    partition = TopicPartition(audit.TOPIC, 0)
    reader.assign([partition])
    reader.seek(partition, start)
    found: Counter[str] = Counter()
    try:
        while await reader.position(partition) < end:
            polled = await reader.getmany(partition, timeout_ms=500)
            for record in polled.get(partition, []):
                entry, _, _ = audit.parse(record.value)
                if entry.kind == "Evaluation":
                    found[entry.kind] += sum(one["code"] == Code.PERMIT.value for one in entry.body["answers"])
                elif entry.kind == "Decision":
                    found[entry.kind] += {one["code"] for one in entry.body["sections"]} == {Code.PERMIT.value}
    finally:
        await reader.stop()
    return dict(found)


if __name__ == "__main__":
    sys.exit(main())
