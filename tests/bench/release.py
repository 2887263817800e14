"""`release`: records a second through HTTP from one gateway process, half under consent, half under statutory duty.

Gateway, recorder and client are processes of their own. The client signs and sends; grants are opened and checked after
the clock, and the audit entries are read back from Kafka and counted.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import queue
from collections.abc import Sequence
from datetime import date
from typing import Any

import asyncpg
import psutil
from aiokafka import TopicPartition

from bus import audit, envelope
from bus.client import GatewayClient
from bus.kafka import consumer
from bus.publisher import Publisher
from bus.transport import Cluster
from deploy.demo.agreeing import agree
from schemas.catalogue import Catalogue
from schemas.errors import Code
from tests.bench import load
from tests.bench.measure import Outcome, Said, reach
from tests.bench.sample import ITEM, drafts
from tests.bench.world import World, process, world

READS = 100  # records a request: the subscriber's batch
RECORDS = 80 * READS  # distinct subjects of a round: two to three seconds
ROUNDS = 3
FLOOR = 3_000.0
PACE = 0.7  # of the measured rate: where latencies are read
CONSENTS_A_CALL = 100  # a JSON body is at most 64 KiB
SETTLE_SECONDS = 120.0
POLL_SECONDS = 0.2


def release(said: Said) -> Outcome:
    """The median of three rounds, then p50 and p99 of a batch of 100 at 70 % of it, open loop."""
    with (
        asyncio.Runner() as runner,
        world(runner, said) as there,
        process(there, "recorder"),
        process(there, "gateway") as (pid, gateway, _),
    ):
        claims = [one.claims_bytes for one in runner.run(admitted(there, RECORDS, said))]
        runner.run(allow(there, gateway, said))
        batches = [tuple(claims[at : at + READS]) for at in range(0, RECORDS, READS)]
        began = runner.run(log_end(there.kafka))
        rounds = []
        busy = _processor_seconds(pid)
        for number in range(ROUNDS + 1):
            one = ask(there, gateway, batches, None)
            said(f"round {number}: {one.rate:,.0f}/s")
            rounds.append(one)
        busy = _processor_seconds(pid) - busy
        rates = [one.rate for one in rounds[1:]]
        paced = ask(there, gateway, batches, PACE * sorted(rates)[len(rates) // 2])
        said("reading the audit entries back")
        audited = runner.run(_audited(there.kafka, began))
    released = sum(one.records for one in (*rounds, paced))
    if audited != released:
        raise SystemExit(f"released {released} records, and the audit log holds {audited} permits: they must be equal")
    return reach(
        rates,
        floor=FLOOR,
        more={
            "released": released,
            "audited": audited,
            "gateway_cpu_us_a_record": round(busy / sum(one.records for one in rounds) * 1e6, 1),
            "paced_rate": round(paced.asked, 1),
            "paced_p50_ms": round(paced.percentile(50), 1),
            "paced_p99_ms": round(paced.percentile(99), 1),
        },
    )


async def admitted(there: World, count: int, said: Said) -> list[envelope.Record]:
    """Newly published licences, once the recorder has admitted all of them."""
    records: list[envelope.Record] = []
    async with Publisher(there.market, there.servers, Catalogue.load()) as publisher:
        for batch in drafts(count):
            sealed = await publisher.publish(batch)
            records.extend(envelope.parse(one.value) for one in sealed)
            said(f"publishing {len(records):,} of {count:,}")
    connection = await asyncpg.connect(there.postgres)
    try:
        async with asyncio.timeout(SETTLE_SECONDS):
            while (there_are := await connection.fetchval("SELECT count(*) FROM record")) < count:
                said(f"admitted {there_are:,} of {count:,}")
                await asyncio.sleep(POLL_SECONDS)
    finally:
        await connection.close()
    return records


async def allow(there: World, gateway: str, said: Said) -> None:
    """One agreement on both grounds; a consent of every firm whose batch is read under consent."""
    async with GatewayClient(there.market, [gateway]) as client, GatewayClient(there.bank, [gateway]) as bank:
        await agree(
            client,
            bank,
            {
                "provider": there.market.uscc,
                "item": ITEM,
                "sections": list(load.SECTIONS),
                "purposes": [load.PURPOSE],
                "grounds": [load.DUTY, load.CONSENT],
                "duties": [load.CITATION],
                "valid_from": "2020-01-01",
            },
        )
        firms = [draft.values["uscc"] for batch in drafts(RECORDS) for draft in batch]
        asked = [firm for number, firm in enumerate(firms) if load.ground(number // READS) == load.CONSENT]
        for at in range(0, len(asked), CONSENTS_A_CALL):
            bodies = [_consent(firm, there.bank.uscc) for firm in asked[at : at + CONSENTS_A_CALL]]
            await client.post_json("/v1/consents", {"consents": bodies})
            said(f"consents: {at + len(bodies):,} of {len(asked):,}")


def _consent(firm: str, recipient: str) -> dict[str, Any]:
    return {
        "subject": {"kind": "ORGANISATION", "id": firm},
        "recipient": recipient,
        "purposes": [load.PURPOSE],
        "scopes": [{"item": ITEM, "sections": list(load.SECTIONS)}],
        "valid_from": date(2020, 1, 1).isoformat(),
    }


def ask(there: World, gateway: str, batches: Sequence[tuple[bytes, ...]], rate: float | None) -> load.Measured:
    """One run of the load in a process of its own."""
    context = multiprocessing.get_context("spawn")
    answers: Any = context.Queue()
    child = context.Process(
        target=load.run, args=(str(there.folder / "bank"), there.servers, gateway, list(batches), rate, answers)
    )
    child.start()
    try:
        while True:
            try:
                measured: load.Measured = answers.get(timeout=1)
                return measured
            except queue.Empty:
                if not child.is_alive():
                    raise SystemExit("the client process ended without an answer: see its traceback above") from None
    finally:
        child.join()


def _processor_seconds(pid: int) -> float:
    """What the process has used of its processor: steadier than the clock on a busy machine."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


async def log_end(kafka: Cluster) -> int:
    reader = await consumer(kafka, "bench")
    try:
        partition = TopicPartition(audit.TOPIC, 0)
        ends = await reader.end_offsets([partition])
        return int(ends[partition])
    finally:
        await reader.stop()


async def _audited(kafka: Cluster, start: int) -> int:
    """How many decisions after `start` permit every section that they speak of."""
    end = await log_end(kafka)
    reader = await consumer(kafka, "bench")
    partition = TopicPartition(audit.TOPIC, 0)
    reader.assign([partition])
    reader.seek(partition, start)
    count = 0
    try:
        while await reader.position(partition) < end:
            polled = await reader.getmany(partition, timeout_ms=500)
            for record in polled.get(partition, []):
                entry, _, _ = audit.parse(record.value)
                codes = {section["code"] for section in entry.body.get("sections", [])}
                count += entry.kind == "Decision" and codes == {Code.PERMIT.value}
    finally:
        await reader.stop()
    return count
