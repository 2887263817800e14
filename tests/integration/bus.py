"""What a test does on a bus: departments join, firms are published, agreements made, keys asked for, rows awaited."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import asyncpg
import httpx

from bus import audit, db, envelope, session
from bus.audit import Entry
from bus.client import GatewayClient
from bus.envelope import Record
from bus.gateway import trail
from bus.gateway.service import Gateway
from bus.gateway.trail import Filter, Found
from bus.httpsig import sign
from bus.identity import Identity
from bus.kafka import consumer, partitions_of, producer, stop
from bus.messages import Grant, KeyRequest, Read, open_grant
from bus.opening import open_section
from bus.outbox import Sealed
from bus.publisher import Publisher
from bus.recorder.guard import Guard
from bus.recorder.log import NO_WITNESSES, LogKeys
from bus.recorder.service import Recorder
from bus.sealer import Draft, Sealer
from bus.subscriber import OWN_SECONDS, Subscriber, Wanted
from bus.supervision import Rules
from bus.terms import Word
from bus.tlog.note import NoteSigner
from bus.tlog.policy import Policy
from bus.topics import dead_letters, group_of
from bus.transport import Cluster, client_context
from bus.trust import Trust
from bus.trustfeed import TrustFeed
from deploy import bootstrap
from deploy.bootstrap import Bus
from deploy.home import Home, Stack
from schemas.catalogue import Catalogue
from schemas.errors import Code
from schemas.operations import Operation
from tests.faults.firms import BASE, credit_code, firm
from tests.faults.plant import Plant
from tests.integration.described import Described, described

T = TypeVar("T")

LICENCE = "business-licence"
TAX = "tax-registration"
DUTY = "税收征收管理法 第十五条"
PURPOSE = "tax-registration"
REGION = "330411"
SOON_SECONDS = 20.0
POLL_SECONDS = 0.05
_CITIZEN_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a bus is: nothing here belongs to one event loop."""

    bus: Bus
    kafka: Cluster  # as its administrator
    servers: str
    dsn: str
    gateways: tuple[str, ...]
    metrics: tuple[str, ...]
    logs: tuple[Path, ...]
    folder: Path


def place_of(plant: Plant) -> Place:
    """A plant's bus, seen as a place: it may be killed and started again."""
    return Place(
        bus=plant.bus,
        kafka=plant.administrator,
        servers=plant.kafka,
        dsn=plant.dsn,
        gateways=(plant.gateway,),
        metrics=(f"{plant.metrics('gateway')}/metrics",),
        logs=(),
        folder=plant.folder,
    )


def place_on(home: Home, stack: Stack, folder: Path) -> Place:
    """A session's stack, seen as a place, with a folder of its own."""
    return Place(
        bus=home.load_bus(),
        kafka=stack.administrator,
        servers=stack.kafka,
        dsn=stack.postgres,
        gateways=tuple(stack.gateways),
        metrics=tuple(stack.metrics.values()),
        logs=tuple(map(Path, stack.logs.values())),
        folder=folder,
    )


@dataclass(slots=True)
class Parties:
    """A provider of business licences, a consumer, and what one has agreed with the other."""

    provider: Identity
    consumer: Identity
    agreement: dict[str, Any] = field(default_factory=dict)


class World:
    """An async context manager: one test's view of a bus."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.catalogue = Catalogue.load()
        self.trust = Trust(place.bus.authority.signer.der)
        self.trust.add_certificate(place.bus.signer("gateway").der)
        self.db: asyncpg.Connection
        self.http = httpx.AsyncClient(trust_env=False, timeout=60, verify=client_context(place.bus.tls_authority))

    async def __aenter__(self) -> Self:
        self.db = await db.connect(self.place.dsn)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.http.aclose()
        self.db.terminate()

    async def reconnect(self) -> None:
        """After PostgreSQL was away."""
        self.db.terminate()
        self.db = await db.connect(self.place.dsn)

    def gateway(self, **more: Any) -> Gateway:
        """One in this process, over the same engines; the caller enters it."""
        bus = self.place.bus
        given: dict[str, Any] = {
            "keyring": bus.keyring(),
            "origin": bus.origin,
            "authority": bus.authority.signer.der,
            "catalogue": self.catalogue,
            "cluster": self.place.kafka,
            "dsn": self.place.dsn,
        }
        return Gateway(**given | more)

    # Departments, agreements, consents

    async def join(
        self,
        *,
        issues: Sequence[tuple[str, str]] = (),
        receives: Sequence[str] = (),
        auditor: bool = False,
        portal: bool = False,
    ) -> Identity:
        """A new department that every gateway knows."""
        identity = await self.add(issues=issues, receives=receives, auditor=auditor, portal=portal)
        for gateway in self.place.gateways:
            await self.until(lambda gateway=gateway: self._knows(gateway, identity))  # type: ignore[misc]
        return identity

    async def add(
        self,
        *,
        issues: Sequence[tuple[str, str]] = (),
        receives: Sequence[str] = (),
        auditor: bool = False,
        portal: bool = False,
    ) -> Identity:
        """A new department that no gateway was asked about yet."""
        name = f"dept-{secrets.token_hex(6)}"
        return await bootstrap.add_org(
            self.place.bus,
            self.place.folder / "orgs" / name,
            self.place.kafka,
            self.place.dsn,
            name=name,
            uscc=credit_code(fresh_number()),
            issues=issues,
            receives=receives,
            auditor=auditor,
            portal=portal,
        )

    async def operator(self) -> Identity:
        """The bus's operator, with keys of the test's own."""
        bus, folder = self.place.bus, self.place.folder / "orgs" / bootstrap.OPERATOR
        return await bootstrap.add_operator(bus, folder, self.place.kafka, self.place.dsn)

    async def _knows(self, gateway: str, identity: Identity) -> bool:
        """Whether a gateway has read the department's certificate and KemKey: claims come after both."""
        request = key_request(identity, [Read(b"", ())])
        said: str = (await self.send(identity, request.encode(), gateway=gateway)).json()["code"]
        return said == Code.RECORD_MALFORMED

    async def parties(self, **agreement: Any) -> Parties:
        """A provider and a consumer of business licences with an agreement on statutory duty and consent."""
        provider = await self.join(issues=[(LICENCE, "")])
        consumer_ = await self.join(receives=[LICENCE])
        made = Parties(provider, consumer_)
        made.agreement = await self.agree(provider, consumer_, **agreement)
        return made

    async def agree(self, provider: Identity, consumer_: Identity, **changed: Any) -> dict[str, Any]:
        """From application to use: every step of an agreement's life."""
        body = {
            "provider": provider.uscc,
            "item": LICENCE,
            "sections": ["identity", "business"],
            "purposes": [PURPOSE],
            "grounds": ["STATUTORY_DUTY", "CONSENT"],
            "duties": [DUTY],
            "valid_from": "2020-01-01",
        }
        made: dict[str, Any] = await self.post(consumer_, "/v1/agreements", body | changed)
        for who, act in (
            (provider, "ACCEPT"),
            (provider, "APPROVE"),
            (provider, "PROVISION"),
            (consumer_, "ACTIVATE"),
        ):
            made = await self.act(who, "agreements", made, act)
        return made

    async def act(
        self, who: Identity, kind: str, document: Mapping[str, Any], act: str, reason: str = "", gateway: int = 0
    ) -> dict[str, Any]:
        """An act on an agreement, a consent, ... (`kind` as in the route)."""
        body = {"id": document["id"], "act": act, "reason": reason}
        done: dict[str, Any] = await self.post(who, f"/v1/{kind}:act", body, gateway)
        return done

    async def consent(self, parties: Parties, values: Mapping[str, Any], **changed: Any) -> dict[str, Any]:
        """The firm's consent to its identity section, recorded by the provider."""
        body = {
            "subject": {"kind": "ORGANISATION", "id": values["uscc"]},
            "recipient": parties.consumer.uscc,
            "purposes": [PURPOSE],
            "scopes": [{"item": LICENCE, "sections": ["identity"]}],
            "valid_from": "2020-01-01",
        }
        made = await self.post(parties.provider, "/v1/consents", {"consents": [body | changed]})
        one: dict[str, Any] = made[0]
        return one

    async def withdraw(self, parties: Parties, consent: Mapping[str, Any], gateway: int = 0) -> None:
        await self.act(parties.provider, "consents", consent, "WITHDRAW", gateway=gateway)

    def described(self, gateway: int = 0) -> Described:
        """What a gateway says of itself."""
        return described(self.place.gateways[gateway], self.place.bus.tls_authority)

    async def post(self, identity: Identity, path: str, body: Any, gateway: int = 0) -> Any:
        """The answer to a JSON request, which is as the gateway describes it."""
        async with GatewayClient(identity, [self.place.gateways[gateway]]) as client:
            answer = await client.post_json(path, body)
        self.described(gateway).check("post", path, 200, answer)
        return answer

    # Publishing

    async def publish(self, identity: Identity, *drafts: Draft) -> list[Sealed]:
        """Published and judged by the recorder."""
        async with Publisher(identity, self.place.servers, self.catalogue) as publisher:
            sealed = await publisher.publish(drafts)
        await self.judged(sealed)
        return sealed

    async def firms(self, identity: Identity, count: int = 1) -> tuple[list[Sealed], list[dict[str, Any]]]:
        """Licences of new firms, admitted."""
        values = [fresh_firm() for _ in range(count)]
        return await self.publish(identity, *map(draft, values)), values

    async def sealer(self, identity: Identity, item: str = LICENCE, *, announce: bool = True) -> Sealer:
        """A sealer with an open session, for records that no publisher would make."""
        feed = TrustFeed(Trust(identity.authority), self.place.kafka, "test")
        await feed.start()
        await feed.stop()
        made = Sealer(identity, self.catalogue.item(item))
        now = datetime.now(UTC)
        opened = made.open_session(feed.trust.gateway_key(identity.gateway_owner, now), now)
        if announce:
            await self.produce((session.TOPIC, opened.key, opened.value))
        return made

    async def send_sealed(self, *sealed: Sealed) -> None:
        """On their topics and judged."""
        await self.produce(*((s.topic, s.key, s.value) for s in sealed))
        await self.judged(sealed)

    async def produce(self, *messages: tuple[str, bytes | None, bytes], partition: int | None = None) -> list[Any]:
        """Raw values on topics, one after the other; where they stand."""
        client = await producer(self.place.kafka, "test")
        try:
            return [
                await client.send_and_wait(topic, value, key=key, partition=partition) for topic, key, value in messages
            ]
        finally:
            await client.stop()

    async def judged(self, sealed: Sequence[Sealed]) -> None:
        """Waits until the recorder has come to the present end of the licences' topics."""
        topics = {s.topic for s in sealed}
        reader = await consumer(self.place.kafka, "test")
        try:
            partitions = [tp for topic in topics for tp in await partitions_of(reader, topic)]
            ends = await reader.end_offsets(partitions)
        finally:
            await stop(reader)
        await self.until(lambda: self._reached({(tp.topic, tp.partition): end for tp, end in ends.items()}))

    async def _reached(self, ends: Mapping[tuple[str, int], int]) -> bool:
        rows = await self.db.fetch("SELECT topic, partition, next_offset FROM position")
        at = {(r["topic"], r["partition"]): r["next_offset"] for r in rows}
        return all(at.get(place, 0) >= end for place, end in ends.items())

    async def on_topic(self, topic: str, key: bytes | None = None) -> list[Any]:
        """Every message that stands on a topic now, or those of one key."""
        reader = await consumer(self.place.kafka, "test")
        found: list[Any] = []
        try:
            partitions = await partitions_of(reader, topic)
            reader.assign(partitions)
            await reader.seek_to_beginning(*partitions)
            ends = await reader.end_offsets(partitions)
            for tp, end in ends.items():
                while await reader.position(tp) < end:
                    found.extend((await reader.getmany(tp, timeout_ms=200)).get(tp, []))
        finally:
            await stop(reader)
        return [m for m in found if key is None or m.key == key]

    # Keys

    async def send(
        self,
        identity: Identity,
        body: bytes,
        *,
        gateway: str = "",
        path: str = "/v1/keys",
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """A request as its bytes say, signed by the department if no headers are given."""
        url = (gateway or self.place.gateways[0]) + path
        signed = sign(identity.department, "POST", url, body) if headers is None else dict(headers)
        return await self.http.post(url, content=body, headers=signed)

    async def send_json(self, identity: Identity, path: str, body: Any, gateway: int = 0) -> httpx.Response:
        """A JSON request, whatever is answered."""
        url = self.place.gateways[gateway]
        answer = await self.send(identity, json.dumps(body).encode(), gateway=url, path=path)
        self.described(gateway).check("post", path, answer.status_code, answer.json())
        return answer

    async def ask(
        self, identity: Identity, request: KeyRequest, gateway: int = 0
    ) -> tuple[Grant, Mapping[tuple[bytes, str], bytes]]:
        """A request that is not refused as a whole: the grant and its secrets."""
        answer = await self.send(identity, request.encode(), gateway=self.place.gateways[gateway])
        assert answer.status_code == 200, answer.text
        return open_grant(answer.content, request.request, identity.kem, self.trust, datetime.now(UTC))

    async def keys(
        self, identity: Identity, sealed: Sequence[Sealed], gateway: int = 0, **changed: Any
    ) -> tuple[Grant, Mapping[tuple[bytes, str], bytes]]:
        """Keys for the identity sections on statutory duty, with words changed as the test says."""
        return await self.ask(identity, key_request(identity, reads(sealed), **changed), gateway)

    async def codes(self, identity: Identity, sealed: Sealed, gateway: int = 0, **changed: Any) -> list[str]:
        """The code of each section; what is not permitted has no secret."""
        sections = changed.pop("sections", ("identity",))
        request = key_request(identity, reads([sealed], sections), **changed)
        grant, secrets_ = await self.ask(identity, request, gateway)
        codes = dict(grant.results[0].sections)
        assert {name for _, name in secrets_} == {name for name, code in codes.items() if code == Code.PERMIT}
        return list(codes.values())

    def open(self, sealed: Sealed, secrets_: Mapping[tuple[bytes, str], bytes]) -> Any:
        """The identity section's fields, with the secret of the grant."""
        return self.open_record(envelope.parse(sealed.value), secrets_)

    def open_record(self, record: Record, secrets_: Mapping[tuple[bytes, str], bytes]) -> Any:
        schema = self.catalogue.item(record.claims.item).schema
        return open_section(schema, record, "identity", secrets_[record.leaf_hash, "identity"])[0]

    def subscriber(
        self, identity: Identity, group: str, *, patience: float = OWN_SECONDS, **changed: Any
    ) -> Subscriber:
        wanted = Wanted(
            sections=("identity",), purpose=PURPOSE, ground="STATUTORY_DUTY", operator="test", citation=DUTY
        )
        return Subscriber(
            identity,
            self.place.servers,
            self.place.gateways,
            self.catalogue,
            group=group,
            items=[LICENCE],
            wanted=replace(wanted, **changed),
            patience=patience,
        )

    async def group(self, identity: Identity) -> str:
        """A new group of a department that begins at the present end: other tests' records are none of its business."""
        name = f"group-{secrets.token_hex(6)}"
        reader = await consumer(self.place.kafka, "test", group=group_of(identity.uscc, name))
        try:
            partitions = await partitions_of(reader, f"licence.{LICENCE}")
            reader.assign(partitions)
            await reader.commit(await reader.end_offsets(partitions))
        finally:
            await stop(reader)
        return name

    async def letters(self, identity: Identity, group: str) -> list[Any]:
        """The group's dead letters."""
        return await self.on_topic(dead_letters(group_of(identity.uscc, group)).name)

    # The trail and the index

    async def logged(self, kind: str) -> list[Entry]:
        """Entries of a kind on the audit topic now, before anybody writes rows of them."""
        entries = [audit.parse(m.value)[0] for m in await self.on_topic(audit.TOPIC)]
        return [entry for entry in entries if entry.kind == kind]

    async def found(self, *words: Word, count: int = 1) -> list[Found]:
        """The log's entries that have all these words, once there are so many."""
        wanted = Filter(groups=tuple(frozenset([word]) for word in words))
        found: list[Found] = []

        async def there() -> bool:
            found[:], _ = await trail.page(self.db, wanted, await trail.published(self.db), -1, trail.PAGE)
            return len(found) >= count

        await self.until(there)
        return found

    async def covered(self) -> int:
        """Waits until a checkpoint covers everything that is on the audit topic now; its size."""
        count = len(await self.on_topic(audit.TOPIC))

        async def there() -> bool:
            return (await trail.published(self.db)).size >= count

        await self.until(there)
        return count

    def log_keys(self, folder: Path, witnesses: Policy = NO_WITNESSES) -> LogKeys:
        """A log key and a guard of the test's own, made once."""
        origin = self.place.bus.log_origin
        key, guard = folder / "log.key", folder / "guard.sqlite"
        if not key.exists():
            NoteSigner.create(key, origin)
            Guard.create(guard, origin)
        return LogKeys(signer=NoteSigner.load(key), guard=Guard(guard, origin), policy=witnesses)

    def recorder(
        self, dsn: str, folder: Path, *, rules: Rules | None = None, witnesses: Policy = NO_WITNESSES
    ) -> Recorder:
        """Another recorder over this Kafka, with a database, a log key and a guard of its own."""
        bus = self.place.bus
        return Recorder(
            bus.signer("recorder"),
            bus.origin,
            self.catalogue,
            Trust(bus.authority.signer.der),
            self.place.kafka,
            dsn,
            self.log_keys(folder, witnesses),
            rules,
        )

    async def refusals(self, topic: str, places: Sequence[Any]) -> list[str]:
        """The refusal's code at each place (a produced message's metadata), empty if it was not refused."""
        rows = await self.db.fetch("SELECT partition, position, code FROM refusal WHERE topic = $1", topic)
        codes = {(r["partition"], r["position"]): r["code"] for r in rows}
        return [codes.get((p.partition, p.offset), "") for p in places]

    async def until(self, ask: Callable[[], Awaitable[bool]], seconds: float = SOON_SECONDS) -> None:
        """Asks until the answer is yes. A gateway that is away, or does not know a department yet, is asked again."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with suppress(httpx.TransportError):
                if await ask():
                    return
            await asyncio.sleep(POLL_SECONDS)
        raise AssertionError(f"not within {seconds:.0f} s")

    async def within(self, work: Awaitable[T], seconds: float = SOON_SECONDS) -> T:
        """The result, or a failure that says that it hangs."""
        return await asyncio.wait_for(work, seconds)


def fresh_number() -> int:
    return secrets.randbelow(BASE**6)


def fresh_firm() -> dict[str, Any]:
    """A synthetic firm that no other test has."""
    return firm(fresh_number())


def citizen_number(born: date | None = None) -> str:
    """A synthetic citizen number under an area that was never assigned, its check right."""
    day = born or date(1990, 1, secrets.randbelow(28) + 1)
    body = f"999999{day:%Y%m%d}{secrets.randbelow(1000):03d}"
    total = sum(int(digit) * weight for digit, weight in zip(body, _CITIZEN_WEIGHTS, strict=True))
    return body + "10X98765432"[total % 11]


def draft(values: Mapping[str, Any], sequence: int = 1, **changed: Any) -> Draft:
    made = Draft(
        item=LICENCE,
        operation=Operation.ISSUED if sequence == 1 else Operation.CHANGED,
        values=values,
        sequence=sequence,
        occurred_at=datetime.now(UTC),
        region=REGION,
    )
    return replace(made, **changed)


def tax_draft(values: Mapping[str, Any], *parents: bytes) -> Draft:
    """A tax registration of a firm."""
    certificate = {
        "name": values["name"],
        "uscc": values["uscc"],
        "issued_on": date(2025, 1, 1),
        "region": REGION,
        "taxes": ["增值税"],
    }
    return draft(certificate, item=TAX, parents=parents)


def reads(sealed: Sequence[Sealed], sections: Sequence[str] = ("identity",)) -> list[Read]:
    return [Read(envelope.parse(s.value).claims_bytes, tuple(sections)) for s in sealed]


def key_request(identity: Identity, asked: Sequence[Read], **changed: Any) -> KeyRequest:
    """On statutory duty, for tax registration."""
    made = KeyRequest(
        request=secrets.token_bytes(16),
        purpose=PURPOSE,
        ground="STATUTORY_DUTY",
        operator="test",
        citation=DUTY,
        case="",
        agent=None,
        recipient=identity.kem.id,
        reads=tuple(asked),
    )
    return replace(made, **changed)
