"""Dead letters: records that a subscriber could not verify or open, kept with their code, and brought back when mended.

`<group>` is a group as Kafka knows it (`bus.topics.group_of`): its department's code comes first, and only it may read.
`dlq.<group>` holds the bytes as received, never opened content. `retry.<group>` is read by the same group beside its
items' topics: replaying there disturbs nobody else, and the items' topics stay as their issuers wrote them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from bus.kafka import everything, kafka_errors, producer
from bus.topics import dead_letters, retries
from bus.transport import Cluster
from schemas.errors import Code, DeptbusError, Malformed, Misuse

SEND_SECONDS = 30.0
_CODE, _DETAIL, _ORIGIN, _REPLAYED = "deptbus-code", "deptbus-detail", "deptbus-origin", "deptbus-replay-of"
_OURS = frozenset({_CODE, _DETAIL, _ORIGIN, _REPLAYED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a record stood first, and the broker's time there: what it is verified against, replayed or not."""

    topic: str
    partition: int
    offset: int
    timestamp: int

    @property
    def time(self) -> datetime:
        """The broker's time, UTC."""
        return datetime.fromtimestamp(self.timestamp / 1000, UTC)

    def to_json(self) -> dict[str, Any]:
        """As it stands in the header."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """One entry of `dlq.<group>`. `number` is its offset there; `replayed` whether it stands on `retry.<group>`."""

    number: int
    at: datetime
    code: str
    detail: str
    origin: Origin
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...]
    replayed: bool


def origin_of(message: Any) -> Origin:
    """A consumed message's origin: its own place, or what the replay's header says. Raises `Malformed`."""
    if not message.topic.startswith("retry."):
        return Origin(
            topic=message.topic, partition=message.partition, offset=message.offset, timestamp=message.timestamp
        )
    return _origin(dict(message.headers))


def headers_of(message: Any, error: DeptbusError) -> list[tuple[str, bytes]]:
    """The headers of a dead letter: code, sentence, origin, and the record's own."""
    try:
        about = origin_of(message)
    except Malformed:
        about = Origin(
            topic=message.topic, partition=message.partition, offset=message.offset, timestamp=message.timestamp
        )
    return [
        (_CODE, error.code.value.encode()),
        (_DETAIL, error.detail.encode()),
        (_ORIGIN, json.dumps(about.to_json()).encode()),
        *((name, value) for name, value in message.headers if name not in _OURS),
    ]


async def read(cluster: Cluster, group: str) -> list[DeadLetter]:
    """Every dead letter of a group, oldest first. Raises `Unavailable`, also if the group has no such topic yet."""
    replayed = {dict(message.headers).get(_REPLAYED) async for message in everything(cluster, [retries(group).name])}
    return [
        _letter(message, _number(message.offset) in replayed)
        async for message in everything(cluster, [dead_letters(group).name])
    ]


async def replay(cluster: Cluster, group: str, letters: Sequence[DeadLetter]) -> int:
    """Puts them on `retry.<group>`; returns how many. A crash half-way leaves the rest to be replayed."""
    client = await producer(cluster, f"replay-{group}")
    try:
        async with kafka_errors("replaying dead letters"), asyncio.timeout(SEND_SECONDS):
            for letter in letters:
                headers = [
                    (_ORIGIN, json.dumps(letter.origin.to_json()).encode()),
                    (_REPLAYED, _number(letter.number)),
                    *letter.headers,
                ]
                await client.send_and_wait(retries(group).name, letter.value, key=letter.key, headers=headers)
    finally:
        await client.stop()
    return len(letters)


def choose(letters: Sequence[DeadLetter], numbers: Sequence[int], codes: Sequence[str]) -> list[DeadLetter]:
    """Those to replay: not replayed yet, and of the given numbers or codes if any are given. Raises `Misuse`."""
    unknown = set(numbers) - {letter.number for letter in letters}
    if unknown:
        raise Misuse(Code.NOT_FOUND, f"no dead letter has the number {min(unknown)}: `deptbus dlq list` shows them")
    return [
        letter
        for letter in letters
        if (letter.number in numbers if numbers else not letter.replayed) and (not codes or letter.code in codes)
    ]


def _number(offset: int) -> bytes:
    """Compared as it is written: what else stands in a header is no number of ours."""
    return str(offset).encode()


def _letter(message: Any, replayed: bool) -> DeadLetter:
    headers = dict(message.headers)
    return DeadLetter(
        number=message.offset,
        at=datetime.fromtimestamp(message.timestamp / 1000, UTC),
        code=(headers.get(_CODE) or b"").decode("utf-8", "replace"),  # Kafka has headers without a value
        detail=(headers.get(_DETAIL) or b"").decode("utf-8", "replace"),
        origin=_origin(headers),
        key=message.key,
        value=message.value,
        headers=tuple((name, value) for name, value in message.headers if name not in _OURS),
        replayed=replayed,
    )


def _origin(headers: dict[str, bytes]) -> Origin:
    """From the header, which anybody may have written who may write to the topic."""
    try:
        found = msgspec.json.decode(headers[_ORIGIN] or b"", type=Origin)
        found.time  # noqa: B018  # a time beyond the calendar is none
        return found
    except (KeyError, ValueError, OverflowError, OSError, RecursionError, msgspec.DecodeError) as exc:
        raise Malformed(Code.RECORD_MALFORMED, f"no readable {_ORIGIN} header: not a dead letter's") from exc
