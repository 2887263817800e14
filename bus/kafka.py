"""Kafka as the bus uses it: the settings, and one translation of its errors.

aiokafka's own limits that these settings go round: its linger was a rate limit before 0.14; a full batch that many
senders wait for is quadratic (so senders here are sequential); its defaults lose records (`acks=1`, `latest`, automatic
commits).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
)

from bus.transport import Cluster
from schemas.errors import Code, Unavailable

T = TypeVar("T")
_FORBIDDEN = (TopicAuthorizationFailedError, GroupAuthorizationFailedError, ClusterAuthorizationFailedError)

BATCH_BYTES = 256 * 1024
LINGER_MS = 5  # enough to fill a batch under load, invisible in a record's way of tens of milliseconds
REQUEST_TIMEOUT_MS = 15_000
MAX_REQUEST_BYTES = 2 * 1024 * 1024  # one record of the largest size, with its batch's overhead
FETCH_BYTES = 4 * 1024 * 1024  # per partition and fetch: bounds a consumer's memory
SESSION_TIMEOUT_MS = 30_000  # a busy loop must not look like a dead consumer
CONNECT_TIMEOUT = 20.0
STOP_SECONDS = 3.0
CLOSED_SECONDS = 0.5  # without connections there is nothing to wait for
ASK_SECONDS = 20.0
POLL_MS = 1_000


@asynccontextmanager
async def kafka_errors(doing: str) -> AsyncIterator[None]:
    """Turns what aiokafka raises into `Unavailable` (KAFKA_UNAVAILABLE; KAFKA_FORBIDDEN: an access rule is missing)."""
    try:
        yield
    except _FORBIDDEN as exc:
        raise Unavailable(
            Code.KAFKA_FORBIDDEN, f"{doing}: Kafka allows it to others; no power or agreement in force gives it ({exc})"
        ) from exc
    except (KafkaError, OSError, TimeoutError) as exc:
        raise Unavailable(Code.KAFKA_UNAVAILABLE, f"{doing}: Kafka did not answer ({type(exc).__name__})") from exc


async def producer(cluster: Cluster, client_id: str, *, linger_ms: int = LINGER_MS) -> AIOKafkaProducer:
    """A started idempotent producer with `acks=all`. The caller stops it."""
    made = AIOKafkaProducer(
        **cluster.options(),
        client_id=client_id,
        acks="all",
        enable_idempotence=True,
        linger_ms=linger_ms,
        max_batch_size=BATCH_BYTES,
        max_request_size=MAX_REQUEST_BYTES,
        request_timeout_ms=REQUEST_TIMEOUT_MS,
    )
    await _start(made, "starting a producer")
    return made


async def consumer(
    cluster: Cluster, client_id: str, *topics: str, group: str | None = None, max_poll_records: int = 500
) -> AIOKafkaConsumer:
    """A started consumer: from the earliest record, committing by hand. The caller stops it."""
    made = AIOKafkaConsumer(
        *topics,
        **cluster.options(),
        client_id=client_id,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_poll_records=max_poll_records,
        max_partition_fetch_bytes=FETCH_BYTES,
        request_timeout_ms=REQUEST_TIMEOUT_MS,
        session_timeout_ms=SESSION_TIMEOUT_MS,
        isolation_level="read_committed",
    )
    await _start(made, "starting a consumer")
    return made


async def stop(client: AIOKafkaConsumer | AIOKafkaProducer) -> None:
    """Stops a client; a consumer within seconds, a producer once what it has taken is sent or given up."""
    stopping = asyncio.ensure_future(_farewell(client) if isinstance(client, AIOKafkaConsumer) else client.stop())
    try:
        await asyncio.wait({stopping})
    finally:
        # Not awaited: aiokafka awaits tasks that it has cancelled, and ends as if whoever stops it were cancelled.
        await asyncio.wait({stopping})
        if not stopping.cancelled():
            stopping.exception()


async def _farewell(client: AIOKafkaConsumer) -> None:
    """A broker answers one request of a connection after the other, and TLS's farewell behind them all.

    So connections are closed without one: the last fetch, which nobody wants, would be waited for, half a second. A
    consumer's own farewell to its group can wait behind a join that is held back until others join: then connections
    are closed under it, and the broker finds out by itself.
    """
    connections = client._client

    async def hang_up() -> None:
        for connection in connections._conns.values():
            if connection.connected():
                connection._writer.transport.abort()
        await AIOKafkaClient.close(connections)

    connections.close = hang_up
    stopping = asyncio.ensure_future(client.stop())
    await asyncio.wait({stopping}, timeout=STOP_SECONDS)
    await connections.close()
    await asyncio.wait({stopping}, timeout=CLOSED_SECONDS)
    stopping.cancel()  # aiokafka may wait for a coordinator that nobody looks for any more
    await stopping


async def _start(client: AIOKafkaConsumer | AIOKafkaProducer, doing: str) -> None:
    try:
        async with kafka_errors(doing), asyncio.timeout(CONNECT_TIMEOUT):
            await client.start()
    except BaseException:
        await stop(client)
        raise


async def bounded(awaitable: Awaitable[T], seconds: float, doing: str) -> T:
    """The result, or `Unavailable` (KAFKA_UNAVAILABLE) after `seconds`."""
    # Not `wait_for`: before Python 3.12 it swallows a cancellation that comes with the result.
    async with kafka_errors(doing), asyncio.timeout(seconds):
        return await awaitable


async def partitions_of(client: AIOKafkaConsumer, topic: str) -> list[TopicPartition]:
    """Every partition of a topic, asked of the broker. `Unavailable` if there is none yet, or it may not be read."""
    async with kafka_errors(f"reading the partitions of {topic}"):
        await client._client.add_topic(topic)  # asked by its name: only then Kafka says that it may not be read
        await client._client.force_metadata_update()
        if topic in client._client.cluster.unauthorized_topics:
            raise TopicAuthorizationFailedError(topic)
    found = client.partitions_for_topic(topic)
    if not found:
        raise Unavailable(Code.KAFKA_UNAVAILABLE, f"topic {topic} does not exist: apply the topics first")
    return [TopicPartition(topic, number) for number in sorted(found)]


async def everything(cluster: Cluster, topics: Sequence[str]) -> AsyncIterator[Any]:
    """Every message of the topics from their beginnings to their present ends, partition by partition."""
    reader = await consumer(cluster, "reader", max_poll_records=1_000)
    try:
        partitions = [tp for topic in topics for tp in await partitions_of(reader, topic)]
        reader.assign(partitions)
        ends = await bounded(reader.end_offsets(partitions), ASK_SECONDS, "reading ends")
        async with kafka_errors("reading topics"):
            await reader.seek_to_beginning(*partitions)
            for tp, end in ends.items():
                while await reader.position(tp) < end:
                    polled = await reader.getmany(tp, timeout_ms=POLL_MS)
                    for message in polled.get(tp, []):
                        if message.value is not None and message.offset < end:
                            yield message
    finally:
        await stop(reader)
