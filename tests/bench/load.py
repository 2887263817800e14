"""The client of `release`, in its own process: sends key requests, then checks every grant."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop

from bus.client import GatewayClient
from bus.identity import Identity
from bus.messages import KeyRequest, Read, open_grant
from bus.trust import Trust
from bus.trustfeed import TrustFeed
from schemas.errors import Code
from tests.bench.world import quiet

SECTIONS = ("identity", "business")
PURPOSE = "account-opening"
CITATION = "税收征收管理法 15"
DUTY = "STATUTORY_DUTY"
CONSENT = "CONSENT"
CLIENTS = 4  # requests under way in the closed loop: enough that the gateway never waits for one
TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A run: how many records were released in how many seconds; a batch's latencies in milliseconds.

    In a paced run a batch's latency begins when it was due: waiting behind a slow one counts (no coordinated omission).
    """

    records: int
    seconds: float
    asked: float
    latencies: tuple[float, ...]

    @property
    def rate(self) -> float:
        return self.records / self.seconds

    def percentile(self, percent: int) -> float:
        """The latency that `percent` of the batches do not exceed."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)]


def ground(batch: int) -> str:
    """Every other batch is read under consent."""
    return CONSENT if batch % 2 else DUTY


def run(
    folder: str, kafka: str, gateway: str, batches: Sequence[tuple[bytes, ...]], rate: float | None, answers: Any
) -> None:
    """Reads every batch once; `rate` in records a second, none for as fast as the gateway answers."""
    quiet()
    answers.put(uvloop.run(_run(Identity.load(Path(folder)), kafka, gateway, batches, rate)))


async def _run(
    identity: Identity, kafka: str, gateway: str, batches: Sequence[tuple[bytes, ...]], rate: float | None
) -> Measured:
    requests = [_request(identity, number, claims) for number, claims in enumerate(batches)]
    bodies = [request.encode() for request in requests]
    grants: list[bytes] = [b""] * len(batches)
    latencies = [0.0] * len(batches)
    free = asyncio.Semaphore(CLIENTS if rate is None else len(batches))
    async with GatewayClient(identity, [gateway]) as client, asyncio.timeout(TIMEOUT_SECONDS):

        async def one(number: int, due: float) -> None:
            grants[number] = await client.send("POST", "/v1/keys", bodies[number], "application/avro")
            latencies[number] = (time.perf_counter() - due) * 1000
            free.release()

        began = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for number, claims in enumerate(batches):
                due = time.perf_counter() if rate is None else began + number * len(claims) / rate
                await asyncio.sleep(max(due - time.perf_counter(), 0))
                await free.acquire()
                tasks.create_task(one(number, time.perf_counter() if rate is None else due))
        seconds = time.perf_counter() - began
    await _check(identity, kafka, requests, grants)
    records = sum(map(len, batches))
    return Measured(records=records, seconds=seconds, asked=rate or records / seconds, latencies=tuple(latencies))


def _request(identity: Identity, number: int, claims: Sequence[bytes]) -> KeyRequest:
    return KeyRequest(
        request=secrets.token_bytes(16),
        purpose=PURPOSE,
        ground=ground(number),
        operator="bench",
        citation=CITATION if ground(number) == DUTY else "",
        case="",
        agent=None,
        recipient=identity.kem.id,
        reads=tuple(Read(one, SECTIONS) for one in claims),
    )


async def _check(identity: Identity, kafka: str, requests: Sequence[KeyRequest], grants: Sequence[bytes]) -> None:
    """Every grant opens, and holds a key for each section of each record."""
    feed = TrustFeed(Trust(identity.authority), identity.cluster(kafka), "bench")
    await feed.start()
    try:
        for request, value in zip(requests, grants, strict=True):
            grant, keys = open_grant(value, request.request, identity.kem, feed.trust, datetime.now(UTC))
            codes = {code for result in grant.results for _, code in result.sections}
            if codes != {Code.PERMIT.value} or len(keys) != len(request.reads) * len(SECTIONS):
                raise SystemExit(f"a batch under {request.ground} was not released whole: {sorted(codes)}")
    finally:
        await feed.stop()
