"""The topics of the bus, from the catalogue. Created and checked, never on the fly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAlreadyExistsError, for_code

from bus import audit, cataloguefeed, session, trustfeed
from bus.kafka import REQUEST_TIMEOUT_MS, kafka_errors
from bus.transport import Cluster
from schemas.catalogue import Catalogue

_DAY_MS = 24 * 3600 * 1000
# And a credit code: what it relied on and was revoked since (bus.recorder.impact, bus.notices).
NOTICES = "event.impact."
RULES = "consent.records"  # copies of rules as they change, and the days that came for them
SUPERVISION = "event.supervision"  # findings (bus.recorder.oversight), for a supervisor's own systems
LICENCE_PARTITIONS = 4
REPLICATION = 3
MAX_RECORD = 1024 * 1024 + 16 * 1024  # the largest value with key, headers and batch overhead
COMPACT_AFTER_MS = 7 * _DAY_MS
CREATE_SECONDS = 30
KNOWN_SECONDS = 0.05
_COMMON = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(MAX_RECORD)}
_TWO = {"min.insync.replicas": "2"}
_FOREVER = {"cleanup.policy": "delete", "retention.ms": "-1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A topic as it should be."""

    name: str
    partitions: int
    config: dict[str, str]


def topics(catalogue: Catalogue, *, single_broker: bool) -> list[Topic]:
    """Every topic of the bus.

    What is acknowledged is with two brokers: one of them may be lost for good while the third is behind. On a single
    broker the audit log is flushed to disk at each record: there is no other copy.
    """
    common = _COMMON if single_broker else _COMMON | _TWO
    licence = common | {"cleanup.policy": "compact", "min.compaction.lag.ms": str(COMPACT_AFTER_MS)}
    forever = common | _FOREVER
    never_lost = {"unclean.leader.election.enable": "false"} | ({"flush.messages": "1"} if single_broker else {})
    return [
        *(Topic(name=item.topic, partitions=LICENCE_PARTITIONS, config=licence) for item in catalogue.items.values()),
        Topic(
            name=session.TOPIC,
            partitions=1,
            config=common | {"cleanup.policy": "delete", "retention.ms": str(7 * _DAY_MS)},
        ),
        # Not compacted: whoever writes here, a null over a revocation takes it from nobody who comes later.
        Topic(name=trustfeed.TOPIC, partitions=1, config=forever | never_lost),
        Topic(name=cataloguefeed.TOPIC, partitions=1, config=common | {"cleanup.policy": "compact"}),
        Topic(name=RULES, partitions=1, config=forever),
        Topic(name=audit.TOPIC, partitions=1, config=forever | never_lost),
        Topic(name=SUPERVISION, partitions=1, config=forever),
    ]


def notices_of(uscc: str) -> Topic:
    """A department's notices: nobody else reads who relied on what."""
    return Topic(name=f"{NOTICES}{uscc}", partitions=1, config=_FOREVER | _COMMON)


def group_of(uscc: str, name: str) -> str:
    """A department's group as Kafka knows it: nobody else may join one that begins with its code."""
    return f"{uscc}.{name}"


def dead_letters(group: str) -> Topic:
    """A subscriber group's dead letters: the bytes as received and a code, never opened content. `group` as Kafka knows
    it (`group_of`).
    """
    return _of_group("dlq", group)


def retries(group: str) -> Topic:
    """What is brought back from them, for this group alone."""
    return _of_group("retry", group)


def _of_group(kind: str, group: str) -> Topic:
    config = _FOREVER | {"max.message.bytes": str(MAX_RECORD)}
    return Topic(name=f"{kind}.{group}", partitions=1, config=config)


async def apply(cluster: Cluster, wanted: list[Topic], *, replication: int | None = None) -> list[str]:
    """Creates what is missing; returns the names it created. Existing topics are left as they are.

    `replication` is three, or as many as there are brokers, if not given. Created topics are known when it returns.
    """
    async with connected(cluster, "creating topics") as admin:
        existing = set(await admin.list_topics())
        missing = [topic for topic in wanted if topic.name not in existing]
        if missing:
            copies = replication or min(REPLICATION, await _brokers(admin))
            answer = await admin.create_topics(
                [
                    NewTopic(t.name, t.partitions, copies, topic_configs=t.config if copies == 1 else t.config | _TWO)
                    for t in missing
                ],
                timeout_ms=CREATE_SECONDS * 1000,
            )
            for _name, code, *_ in answer.topic_errors:
                if code not in (0, TopicAlreadyExistsError.errno):
                    raise for_code(code)
            await _until_known(admin, [topic.name for topic in missing])
        return [topic.name for topic in missing]


async def apply_catalogue(
    cluster: Cluster, catalogue: Catalogue, departments: Iterable[str] = (), *, replication: int | None = None
) -> list[str]:
    """Creates what the catalogue and departments (credit codes) ask for, as durable as the cluster allows, and settings
    as they should be; returns the names of what it created. Partitions stay: more of them would part a licence's order.
    """
    async with connected(cluster, "reading the cluster") as admin:
        copies = replication or min(REPLICATION, await _brokers(admin))
    wanted = [*topics(catalogue, single_broker=copies == 1), *map(notices_of, departments)]
    created = await apply(cluster, wanted, replication=copies)
    async with connected(cluster, "setting topics") as admin:
        wrong = {one["topic"] for one in await _differences(admin, wanted) if one["setting"] != "partitions"}
        settings = [ConfigResource(ConfigResourceType.TOPIC, t.name, t.config) for t in wanted if t.name in wrong]
        for answer in await admin.alter_configs(settings) if settings else []:
            for code, *_ in answer.resources:
                if code:
                    raise for_code(code)
    return created


async def differences(cluster: Cluster, catalogue: Catalogue, departments: Iterable[str] = ()) -> list[dict[str, str]]:
    """What of the cluster's topics is not as it should be: `{topic, setting, found, wanted}` each."""
    async with connected(cluster, "reading topics") as admin:
        wanted = topics(catalogue, single_broker=await _brokers(admin) == 1)
        return await _differences(admin, [*wanted, *map(notices_of, departments)])


async def _differences(admin: AIOKafkaAdminClient, wanted: Sequence[Topic]) -> list[dict[str, str]]:
    there = {one["topic"]: len(one["partitions"]) for one in await admin.describe_topics()}
    found = [topic for topic in wanted if topic.name in there]
    resources = [ConfigResource(ConfigResourceType.TOPIC, topic.name) for topic in found]
    configs: dict[str, dict[str, str]] = {}
    for answer in await admin.describe_configs(resources) if resources else []:
        for _error, _message, _kind, name, entries in answer.resources:
            configs[name] = {entry[0]: entry[1] for entry in entries}
    wrong = [_difference(t.name, "topic", "missing", "there") for t in wanted if t.name not in there]
    for topic in found:
        if there[topic.name] < topic.partitions:
            wrong.append(_difference(topic.name, "partitions", str(there[topic.name]), str(topic.partitions)))
        is_ = configs.get(topic.name, {})
        wrong += [_difference(topic.name, k, is_.get(k, ""), v) for k, v in topic.config.items() if is_.get(k) != v]
    return wrong


def _difference(topic: str, setting: str, found: str, wanted: str) -> dict[str, str]:
    return {"topic": topic, "setting": setting, "found": found, "wanted": wanted}


async def _brokers(admin: AIOKafkaAdminClient) -> int:
    return len((await admin.describe_cluster())["brokers"])


async def _until_known(admin: AIOKafkaAdminClient, names: list[str]) -> None:
    """A topic is in the cluster's metadata a moment after it was created; a client that looks before complains."""
    async with asyncio.timeout(CREATE_SECONDS):
        while any(one["error_code"] for one in await admin.describe_topics(names)):  # noqa: ASYNC110 - the broker's news
            await asyncio.sleep(KNOWN_SECONDS)


@asynccontextmanager
async def connected(cluster: Cluster, doing: str) -> AsyncIterator[AIOKafkaAdminClient]:
    """Kafka's administration as aiokafka has it. Raises `Unavailable`."""
    async with kafka_errors(doing):
        admin = AIOKafkaAdminClient(**cluster.options(), request_timeout_ms=REQUEST_TIMEOUT_MS)
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()
