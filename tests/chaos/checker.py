"""An independent look at a bus under faults: what is in Kafka and PostgreSQL, against what its clients were told.

Nothing here comes from the software under test but the published schemas (`schemas/wire`): records and entries are read
by plain aiokafka and fastavro, rows by plain SQL, and the tree is RFC 6962's, made here. Each look is exact: it takes
what clients noted so far, then the topics' ends, and reads up to them; so whatever was noted must be there. It holds:

1. an acknowledged record is on its topic, and in the index, the sink and the log, once;
2. a licence's sequences have no gap, and no place has two records;
3. a key that a client got has its entry in the log, which permits that section and was not voided;
4. no key leaves whose entry came into the log after the answer to its consent's withdrawal, and none is brought by a
   request that began after it;
5. the stored log, to the last tile and bundle, and every signed checkpoint are of the topic's one tree.

Withdrawals are ordered by the log's offsets: clocks are among the faults.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import fastavro
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

T = TypeVar("T")

AUDIT = TopicPartition("audit.access", 0)
WIDTH = 256  # of a tile (C2SP tlog-tiles)
MAX_ENTRY = 65_535
POLL_MS, POLL_RECORDS = 500, 200
BEHIND_SECONDS = 120.0  # the recorder or the sink is that far behind: it has not recovered
STEP_SECONDS = 20.0
RETRY_SECONDS = 0.3
WATCH_SECONDS = 0.5
SHOWN = 5  # examples in a sentence
ASYNCPG = (asyncpg.InterfaceError, asyncpg.InternalClientError)  # its own, when a server goes between two messages
Key = tuple[bytes, bytes, frozenset[str]]  # of which record, by which entry, which sections
NOTHING: Mapping[bytes, int] = {}


class Schemas:
    """Avro records, as `schemas/wire` publishes them."""

    def __init__(self, folder: Path) -> None:
        def published(name: str) -> Any:
            return json.loads((folder / f"{name}.avsc").read_text("utf-8"))

        claims = next(one["type"] for one in published("Envelope")["fields"] if one["name"] == "claims")
        self._claims = fastavro.parse_schema(claims, _force=True)
        self._logged = fastavro.parse_schema(published("LoggedEntry"), _force=True)
        self._entry = fastavro.parse_schema(published("AuditEntry"), _force=True)

    def claims(self, value: bytes) -> tuple[bytes, dict[str, Any]]:
        """A record's identity, which is of its claims' bytes alone, and the claims."""
        data = BytesIO(value[5:])
        claims: Any = fastavro.schemaless_reader(data, self._claims, None)
        return sha256(b"\x00" + value[5 : 5 + data.tell()]).digest(), claims

    def entry(self, value: bytes) -> tuple[str, dict[str, Any]]:
        """What an entry of the log is, and its body."""
        logged: Any = fastavro.schemaless_reader(BytesIO(value), self._logged, None)
        entry: Any = fastavro.schemaless_reader(BytesIO(logged["entry"]), self._entry, None, return_record_name=True)
        kind, body = entry["body"]
        return kind.rpartition(".")[2], body


class Growing:
    """RFC 6962's tree over leaf hashes that keep coming: every perfect subtree's hash, 64 bytes a leaf."""

    def __init__(self) -> None:
        self.levels: list[list[bytes]] = [[]]

    def __len__(self) -> int:
        return len(self.levels[0])

    def add(self, leaf: bytes) -> None:
        """The next leaf's hash."""
        self.levels[0].append(leaf)
        height = 0
        while len(self.levels[height]) % 2 == 0:
            if len(self.levels) == height + 1:
                self.levels.append([])
            left, right = self.levels[height][-2:]
            self.levels[height + 1].append(_node(left, right))
            height += 1

    def root(self, size: int) -> bytes:
        """MTH(D[0:size])."""
        if size == 0:
            return sha256(b"").digest()
        peaks, begin = [], 0
        for height in reversed(range(size.bit_length())):
            if size >> height & 1:
                peaks.append(self.levels[height][begin >> height])
                begin += 1 << height
        found = peaks.pop()
        while peaks:
            found = _node(peaks.pop(), found)
        return found

    def tile(self, level: int, number: int, size: int) -> bytes:
        """The hashes that a log of this size has in a tile."""
        height = 8 * level
        return b"".join(self.levels[height][WIDTH * number : min(WIDTH * (number + 1), size >> height)])


@dataclass(slots=True)
class Topics:
    """What the topics hold, in offset order."""

    schemas: Schemas
    leaves: dict[bytes, tuple[str, int, int]] = field(default_factory=dict)  # and where each stood first
    sequences: dict[bytes, int] = field(default_factory=dict)
    tree: Growing = field(default_factory=Growing)
    # By the entry's leaf hash, until its key was looked at: record, sections, offset.
    permits: dict[bytes, tuple[bytes, frozenset[str], int]] = field(default_factory=dict)
    voided: set[bytes] = field(default_factory=set)
    admitted: set[bytes] = field(default_factory=set)  # leaf hashes of `Admitted` entries
    breaks: list[str] = field(default_factory=list)

    def record(self, place: tuple[str, int, int], value: bytes | None) -> bytes | None:
        """A message of a licence topic; its leaf hash if it is new."""
        if value is None:
            return None
        leaf, claims = self.schemas.claims(value)
        if leaf in self.leaves:
            return None  # the very same record again: a resend
        self.leaves[leaf] = place
        before, sequence = self.sequences.get(claims["licence"], 0), claims["sequence"]
        if sequence <= before:
            self.breaks.append(f"{_named(place)}: sequence {sequence} of a licence has another record, too")
        elif sequence > before + 1:
            self.breaks.append(f"{_named(place)}: sequence {sequence} of a licence comes after {before}")
        self.sequences[claims["licence"]] = max(before, sequence)
        return leaf

    def entry(self, offset: int, value: bytes | None) -> None:
        """A message of the audit log."""
        if not value or len(value) > MAX_ENTRY:
            return  # no leaf, by the log's rule
        leaf = sha256(b"\x00" + value).digest()
        self.tree.add(leaf)
        kind, body = self.schemas.entry(value)
        match kind:
            case "Decision":
                permitted = frozenset(one["name"] for one in body["sections"] if one["code"] == "PERMIT")
                if permitted:
                    self.permits[leaf] = (body["record"], permitted, offset)
            case "Voided":
                self.voided.add(body["entry"])
            case "Admitted":
                self.admitted.add(leaf)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledgers:
    """What clients noted, a line each, in files that only grow."""

    acknowledged: tuple[Path, ...]  # leaf
    released: Path  # leaf, entry, sections with commas between
    consented: Path  # the same, of keys that a consent opened
    withdrawn: Path  # leaf, where the log ended once the withdrawal was answered
    late: Path  # leaf: a key that came to a request which began after that


class Checker:
    """Reads on from where it stood at the last look. An async context manager."""

    def __init__(
        self, *, kafka: Mapping[str, Any], dsn: str, item: str, sink: str, ledgers: Ledgers, vkey: str, schemas: Path
    ) -> None:
        """`kafka` are the clients' options; `sink` the table that the subscriber fills; `vkey` the log's (C2SP)."""
        self._kafka = kafka
        self._dsn = dsn
        self._topic = f"licence.{item}"
        self._sink = sink
        self._ledgers = ledgers
        self._read_to: dict[Path, int] = {}
        self.topics = Topics(Schemas(schemas))
        self.log = StoredLog(self.topics.tree, vkey)
        # On the topic, and not yet looked for in the index and the sink.
        self._fresh: dict[TopicPartition, list[tuple[int, bytes]]] = {}
        self._entries: dict[bytes, bytes] = {}  # of indexed records
        self._noted: set[tuple[bytes, bytes]] = set()  # keys that were looked at: 700,000 in an hour, some 200 MB
        self._withdrawn: dict[bytes, int] = {}
        self.acknowledged = self.released = self.looks = 0
        self._consumer: AIOKafkaConsumer | None = None

    @property
    def withdrawn(self) -> int:
        """How many consents were."""
        return len(self._withdrawn)

    async def close(self) -> None:
        """Lets Kafka go."""
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            await asyncio.wait({asyncio.ensure_future(consumer.stop())}, timeout=STEP_SECONDS)

    async def look(self, seconds: float = BEHIND_SECONDS, *, last: bool = False) -> list[str]:
        """What is wrong by now. Waits for recorder and sink, and tries again while an engine does not answer.

        The `last` one is when nothing is published any more: then there must be nothing more either.
        """
        self.looks += 1
        deadline = time.monotonic() + seconds
        acknowledged, released, consented, late = self._notes()
        unlogged, self._entries = self._entries, {}
        ends = await _answered(self._read, deadline)
        broken, self.topics.breaks = self.topics.breaks, []
        self.acknowledged += len(acknowledged)
        broken += some("acknowledged, and not on the topic", (n for n in acknowledged if n not in self.topics.leaves))
        broken += some(
            "in the index without its entry in the log",
            (leaf for leaf, entry in unlogged.items() if entry not in self.topics.admitted),
        )
        broken += self._keys(released)
        broken += self._keys(consented, self._withdrawn)
        broken += some("a key for a request that began after a withdrawal", late)
        return broken + await _answered(lambda: self._stored(ends, deadline, last), deadline)

    async def watch(self) -> None:
        """Looks at each checkpoint as it is served. Until cancelled."""
        connection: asyncpg.Connection | None = None
        while True:
            try:
                if connection is None or connection.is_closed():
                    connection = await asyncpg.connect(self._dsn, timeout=STEP_SECONDS, command_timeout=STEP_SECONDS)
                before = self.log.checkpoint
                note = await connection.fetchval("SELECT note FROM log_checkpoint")
                if note is not None:
                    self.topics.breaks += self.log.served(note, before)
            except (OSError, TimeoutError, asyncpg.PostgresError, *ASYNCPG):
                if connection is not None:
                    connection.terminate()
            await asyncio.sleep(WATCH_SECONDS)

    # What clients noted

    def _notes(self) -> tuple[list[bytes], list[Key], list[Key], list[bytes]]:
        ledgers = self._ledgers
        acknowledged = [bytes.fromhex(line) for path in ledgers.acknowledged for line in self._lines(path)]
        keys = []
        for path in (ledgers.released, ledgers.consented):
            parts = (line.split(" ") for line in self._lines(path))
            keys.append(
                [
                    (bytes.fromhex(leaf), bytes.fromhex(entry), frozenset(names.split(",")))
                    for leaf, entry, names in parts
                ]
            )
        for line in self._lines(ledgers.withdrawn):
            leaf, offset = line.split(" ")
            self._withdrawn[bytes.fromhex(leaf)] = int(offset)
        released, consented = keys
        return acknowledged, released, consented, [bytes.fromhex(line) for line in self._lines(ledgers.late)]

    def _lines(self, path: Path) -> list[str]:
        """New whole lines. Each was written by one call: a writer that is killed leaves no half of one."""
        try:
            with path.open("rb") as file:
                file.seek(self._read_to.get(path, 0))
                data = file.read()
        except FileNotFoundError:
            return []
        end = data.rfind(b"\n") + 1
        self._read_to[path] = self._read_to.get(path, 0) + end
        return data[:end].decode("ascii").splitlines()

    # Kafka

    async def _read(self) -> dict[TopicPartition, int]:
        """Reads up to the present ends, and returns them."""
        consumer = await self._connected()
        async with asyncio.timeout(STEP_SECONDS):
            ends: dict[TopicPartition, int] = await consumer.end_offsets(list(consumer.assignment()))
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            async with asyncio.timeout(STEP_SECONDS):
                polled = await consumer.getmany(timeout_ms=POLL_MS, max_records=POLL_RECORDS)
            for tp, messages in polled.items():
                for message in messages:
                    if tp == AUDIT:
                        self.topics.entry(message.offset, message.value)
                    elif leaf := self.topics.record((tp.topic, tp.partition, message.offset), message.value):
                        self._fresh.setdefault(tp, []).append((message.offset, leaf))
        return ends

    async def _connected(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            made = AIOKafkaConsumer(
                **self._kafka,
                client_id="checker",
                enable_auto_commit=False,
                auto_offset_reset="none",  # a topic that lost its beginning, or an end that we have seen, is an error
                max_partition_fetch_bytes=4 * 1024 * 1024,
                request_timeout_ms=15_000,
                metadata_max_age_ms=5_000,
            )
            try:
                async with asyncio.timeout(STEP_SECONDS):
                    await made.start()
                    await made._client.force_metadata_update()
                    tps = [TopicPartition(self._topic, n) for n in made.partitions_for_topic(self._topic) or ()]
                    made.assign([*tps, AUDIT])
                    for tp in made.assignment():
                        made.seek(tp, 0)
            except BaseException:
                await asyncio.wait({asyncio.ensure_future(made.stop())}, timeout=STEP_SECONDS)
                raise
            self._consumer = made
        return self._consumer

    # Keys and consents

    def _keys(self, keys: Iterable[Key], withdrawn: Mapping[bytes, int] = NOTHING) -> list[str]:
        unlogged, other, voided, late = [], [], [], []
        for leaf, entry, sections in keys:
            self.released += 1
            record, permitted, offset = self.topics.permits.pop(entry, (b"", frozenset(), 0))
            if (leaf, entry) in self._noted:  # a batch that its sink rejects is handed over again, one by one
                continue
            self._noted.add((leaf, entry))
            if not record:
                unlogged.append(leaf)
            elif record != leaf or not sections <= permitted:
                other.append(leaf)
            elif entry in self.topics.voided:
                voided.append(leaf)
            elif offset >= withdrawn.get(leaf, offset + 1):
                late.append(leaf)
        return [
            *some("a key without its entry in the log", unlogged),
            *some("a key whose entry permits something else", other),
            *some("a key whose entry was voided", voided),
            *some("a key whose entry came after the withdrawal of its consent", late),
        ]

    # PostgreSQL

    async def _stored(self, ends: Mapping[TopicPartition, int], deadline: float, last: bool) -> list[str]:
        connection = await asyncpg.connect(self._dsn, timeout=STEP_SECONDS, command_timeout=STEP_SECONDS)
        try:
            while behind := await self._behind(connection, ends):
                if time.monotonic() > deadline:
                    return [behind]
                await asyncio.sleep(RETRY_SECONDS)
            due = [leaf for tp, found in self._fresh.items() for offset, leaf in found if offset < ends[tp]]
            broken = [*await self._rows(connection, due, last), *await self._log(connection)]
        finally:
            connection.terminate()
        # What came behind the ends is for the next look.
        self._fresh = {tp: [one for one in found if one[0] >= ends[tp]] for tp, found in self._fresh.items()}
        return broken

    async def _behind(self, connection: asyncpg.Connection, ends: Mapping[TopicPartition, int]) -> str:
        """Who has not come to these ends yet."""
        for name, table in (("the recorder", "position"), ("the sink", f"{self._sink}_offset")):
            rows = await connection.fetch(f'SELECT topic, partition, next_offset FROM "{table}"')
            there = {TopicPartition(row["topic"], row["partition"]): row["next_offset"] for row in rows}
            wanted = {tp: end for tp, end in ends.items() if end and (tp != AUDIT or table == "position")}
            for tp, end in wanted.items():
                if there.get(tp, 0) < end:
                    return f"{name} did not catch up: {there.get(tp, 0)} of {end} in {tp.topic}/{tp.partition}"
        return ""

    async def _rows(self, connection: asyncpg.Connection, fresh: Sequence[bytes], last: bool) -> list[str]:
        """Each record that came since the last look, in the index and in the sink; in the end nothing but them."""
        rows = await connection.fetch("SELECT leaf_hash, entry FROM record WHERE leaf_hash = ANY($1)", fresh)
        indexed = {row["leaf_hash"]: row["entry"] for row in rows}
        rows = await connection.fetch("SELECT leaf_hash, code FROM refusal WHERE leaf_hash = ANY($1)", fresh)
        refused = sorted({row["code"] for row in rows})
        sink = f'FROM "{self._sink}"'
        sunk = {
            r["leaf_hash"] for r in await connection.fetch(f"SELECT leaf_hash {sink} WHERE leaf_hash = ANY($1)", fresh)
        }
        self._entries |= indexed  # the log goes on while the index is read: they are looked for the next time
        broken = [
            *some(f"on the topic, and not in the index (refused: {refused})", (n for n in fresh if n not in indexed)),
            *some("on the topic, and not in the sink", (leaf for leaf in fresh if leaf not in sunk)),
        ]
        if last:
            for what, query in (
                ("records in the index", "SELECT count(*) FROM record"),
                ("records in the sink", f"SELECT count(DISTINCT (licence, sequence)) {sink}"),
                ("rows in the sink", f"SELECT count(*) {sink}"),
            ):
                count = await connection.fetchval(query)
                if count != len(self.topics.leaves):
                    broken.append(f"{count} {what}, {len(self.topics.leaves)} on the topic")
        return broken

    async def _log(self, connection: asyncpg.Connection) -> list[str]:
        """The stored log since the last look, and the checkpoint that stands with it."""
        before = self.log.checkpoint
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            state = await connection.fetchrow("SELECT size, root FROM log_state")
            published = await connection.fetchrow("SELECT note FROM log_checkpoint")
            first = self.log.size // WIDTH
            tiles = await connection.fetch(
                "SELECT level, number, hashes FROM log_tile WHERE number >= ($1::bigint >> (8 * level))", first
            )
            bundles = await connection.fetch("SELECT number, entries FROM log_bundle WHERE number >= $1", first)
        if state is None or published is None:
            return ["there is no log"]
        return self.log.served(published["note"], before) + self.log.compare(
            state["size"],
            state["root"],
            {(row["level"], row["number"]): row["hashes"] for row in tiles},
            {row["number"]: row["entries"] for row in bundles},
        )


class StoredLog:
    """The log in PostgreSQL beside the tree of its topic. A look begins with the tile on the edge of the one before."""

    def __init__(self, tree: Growing, vkey: str) -> None:
        self._tree = tree
        self._name, self._key = _vkey(vkey)
        self.size = self.checkpoints = 0
        self._newest = (0, b"")
        self._served: list[tuple[int, bytes]] = []  # roots of what was not read yet

    @property
    def checkpoint(self) -> int:
        """The largest that was seen."""
        return self._newest[0]

    def compare(
        self,
        size: int,
        root: bytes,
        tiles: Mapping[tuple[int, int], bytes],
        bundles: Mapping[int, bytes],
    ) -> list[str]:
        """What is not as the topic says, checkpoints that were served among it.

        The log may be ahead of what was read of it: then by what was read.
        """
        tree, known = self._tree, min(size, len(self._tree))
        broken = []
        if size < self.size:
            broken.append(f"the log shrank from {self.size} to {size}")
        if size == known and root != tree.root(size):
            broken.append(f"the log's root at {size} is another")
        for level in range(4):
            for number in range(self.size >> 8 * (level + 1), ((known >> 8 * level) + WIDTH - 1) // WIDTH):
                wanted, found = tree.tile(level, number, known), tiles.get((level, number), b"")
                if found[: len(wanted)] != wanted or (size == known and len(found) != len(wanted)):
                    broken.append(f"tile {level}/{number} is another")
        for number in range(self.size // WIDTH, (known + WIDTH - 1) // WIDTH):
            leaves = b"".join(sha256(b"\x00" + one).digest() for one in _entries(bundles.get(number, b"")))
            wanted = tree.tile(0, number, known)
            if leaves[: len(wanted)] != wanted or (size == known and len(leaves) != len(wanted)):
                broken.append(f"bundle {number} is another")
        self.size = known
        due = [one for one in self._served if one[0] <= len(tree)]
        self._served = [one for one in self._served if one[0] > len(tree)]
        return broken + [f"a signed checkpoint of {n} has another root" for n, root in due if root != tree.root(n)]

    def served(self, note: bytes, before: int) -> list[str]:
        """What is wrong with a checkpoint as it was served: it is not the log's, or went back.

        `before`: the largest that had been seen when this one was asked for. Two are read at once: what was seen since
        then says nothing about it.
        """
        text, _, signatures = note.decode().partition("\n\n")
        origin, size, root = text.split("\n")
        own = [line.split(" ")[2] for line in signatures.splitlines() if line.split(" ")[1] == origin == self._name]
        if not own:
            return ["a checkpoint has no signature of the log"]
        try:
            self._key.verify(base64.b64decode(own[0])[4:], (text + "\n").encode())
        except InvalidSignature:
            return ["a checkpoint's signature does not hold"]
        served = (int(size), base64.b64decode(root))
        if served != self._newest:
            self._served.append(served)
            self.checkpoints += served > self._newest
            self._newest = max(served, self._newest)
        return [f"a checkpoint of {size} after one of {before}"] if int(size) < before else []


async def _answered(ask: Callable[[], Awaitable[T]], deadline: float) -> T:
    """Asks again while Kafka or PostgreSQL does not answer."""
    while True:
        try:
            return await ask()
        except (KafkaError, OSError, TimeoutError, asyncpg.PostgresError, *ASYNCPG) as exc:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the checker got no answer: {type(exc).__name__}: {exc}") from exc
            await asyncio.sleep(RETRY_SECONDS)


def some(what: str, leaves: Iterable[bytes]) -> list[str]:
    """A sentence with a few of them; none if there are none."""
    found = list(leaves)
    named = ", ".join(leaf.hex()[:16] for leaf in found[:SHOWN])
    return [f"{what}: {len(found)} ({named})"] if found else []


def _entries(bundle: bytes) -> Iterable[bytes]:
    at = 0
    while at < len(bundle):
        end = at + 2 + int.from_bytes(bundle[at : at + 2])
        yield bundle[at + 2 : end]
        at = end


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def _named(place: tuple[str, int, int]) -> str:
    return "/".join(map(str, place))


def _vkey(vkey: str) -> tuple[str, Ed25519PublicKey]:
    """Name and key of a verifier key (C2SP signed-note): `<name>+<id>+<base64 of a type byte and the key>`."""
    name, _, encoded = vkey.strip().split("+", 2)
    return name, Ed25519PublicKey.from_public_bytes(base64.b64decode(encoded)[1:])
