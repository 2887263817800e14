"""A gateway, put together: its engines, its keys, and what its routes call.

Stateless: any number may run over the same Kafka, PostgreSQL and key folder.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, date, datetime
from types import TracebackType
from typing import Any, Self

import asyncpg
import msgspec
import structlog
from aiokafka import AIOKafkaProducer, TopicPartition

from bus import audit, cataloguefeed, db, envelope, httpsig, merkle, metrics, pseudonyms, trustfeed
from bus.cataloguefeed import CatalogueFeed
from bus.db import postgres_errors
from bus.gateway import issuing, reading, replays
from bus.gateway.agreements import AgreementBody, Agreements, ResubmitBody
from bus.gateway.auditing import Auditing, CountsAnswer, CountsBody, EntriesAnswer, EntriesBody, StoryAnswer, StoryBody
from bus.gateway.catalogue import DefinitionAnswer, Entries, EntryBody, ProviderAnswer
from bus.gateway.collections import CollectionAnswer, CollectionBody, Collections
from bus.gateway.consents import Consents, ConsentsBody, ReceiptBody, SubjectBody, SubjectQuery, UsesAnswer
from bus.gateway.corrections import CorrectionBody, Corrections
from bus.gateway.deadlines import Deadlines, due
from bus.gateway.disclosures import DisclosureAnswer, DisclosureBody, Disclosures
from bus.gateway.disputes import DisputeBody, Disputes
from bus.gateway.embargoes import (
    ConfirmBody,
    EmbargoAnswer,
    EmbargoBody,
    Embargoes,
    EmbargoesBody,
    ReadingsAnswer,
    ReadingsBody,
)
from bus.gateway.erasures import EraseBody, ErasureBody, Erasures, ErasuresAnswer
from bus.gateway.evaluating import DecisionPoint
from bus.gateway.facts import seconds_to_stall
from bus.gateway.findings import Findings, FindingsAnswer, FindingsBody
from bus.gateway.impacts import ImpactAnswer, ImpactBody, Impacts
from bus.gateway.keyring import Keyring
from bus.gateway.logfiles import LogFiles, ProofsAnswer, ProofsBody, TokenAnswer, TokenBody
from bus.gateway.openapi import Route
from bus.gateway.policy import (
    CasesAnswer,
    CasesBody,
    DiffAnswer,
    DiffBody,
    ExplainAnswer,
    ExplainBody,
    Policies,
    ReplayAnswer,
    ReplayBody,
    SimulateAnswer,
    SimulateBody,
)
from bus.gateway.powers import MandateBody, Mandates, PowerBody, Powers
from bus.gateway.reading import RecordAnswer, RecordsAnswer
from bus.gateway.release import Releases
from bus.gateway.revisions import Revisions
from bus.gateway.rulebook import ActBody, IdBody, ListBody, Rulebook
from bus.gateway.scorecards import ScorecardAnswer, ScorecardBody, Scorecards
from bus.gateway.sessions import SessionKeys
from bus.gateway.sets import CandidatesAnswer, CandidatesBody, MemberBody, ProofAnswer, SetAnswer, SetBody, Sets
from bus.gateway.shapes import ActAnswer, Hash, Name, RequestId, Text, from_hex, listed, shown
from bus.gateway.usages import PeriodAnswer, PeriodBody, Usages, UsagesAnswer, UsagesBody
from bus.httpsig import Signed
from bus.kafka import bounded, consumer, kafka_errors, producer
from bus.messages import KeyRequest, Read, check_asked
from bus.people.logins import Logins
from bus.people.openid import Provider, Registration
from bus.people.register import (
    AppointBody,
    DepartmentAnswer,
    DepartmentBody,
    NothingBody,
    OperationsAnswer,
    PersonAnswer,
    PersonBody,
    Register,
)
from bus.renewal import follow
from bus.sealer import SCHEMA_ID
from bus.topics import RULES
from bus.transport import Cluster
from bus.trust import Trust, topic_key
from bus.trustfeed import TrustFeed
from consent.calendar import NONE, Years
from consent.collections import Proofs
from consent.decide import CHINA
from consent.documents import Document
from consent.model import (
    Access,
    Agreement,
    CatalogueEntry,
    Consent,
    Correction,
    Decision,
    Dispute,
    Mandate,
    Mode,
    Power,
)
from consent.receipt import Receipt
from schemas.avro import wire_schema
from schemas.catalogue import Catalogue
from schemas.errors import Code, Malformed, Refused, Unavailable
from schemas.identifiers import parse_citizen_number, parse_uscc

GENERATION = 1
CHECK_SECONDS = 5.0
RENEW_SECONDS = 600.0
KEM_LOOK_SECONDS = 1.0
STALL_LOOK_SECONDS = 1.0
SIGNER_SECONDS = 1.0

log = structlog.get_logger()


class RecordBody(msgspec.Struct, forbid_unknown_fields=True):
    """Names one record by its leaf hash, in hex."""

    record: Hash


class SearchBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/licences:search`: the clerk's once-only retrieval. `request` and `recipient` in hex."""

    item: str
    subject: SubjectBody
    sections: list[str]
    request: RequestId
    recipient: Hash
    purpose: Name
    ground: Name
    operator: Name
    citation: Text = ""
    case: Text = ""
    agent: Text | None = None
    as_of: date | None = None


class Gateway:
    """An async context manager: connected inside, `run` keeps it current."""

    def __init__(
        self,
        *,
        keyring: Keyring,
        origin: str,
        authority: bytes,
        catalogue: Catalogue,
        cluster: Cluster,
        dsn: str,
        proofs: Proofs | None = None,
        years: Years = NONE,
        names: Collection[str] = (),
        people: Registration | None = None,
        operator: str | None = None,
    ) -> None:
        """Without `proofs`, the lists that come with the software count; `years` are the operator's own calendar.

        `names` are the authorities that it is reached at (`httpsig.verify`); none means any. `people` log in at that
        provider; without one nobody does. `operator` is the bus's, if the keys are not its own but a provider's: then
        only the keys of that one's sessions are released here, and everything else is asked at the operator's gateway.
        """
        operator = operator or keyring.signer.uscc
        self._own = operator != keyring.signer.uscc
        self._keyring = keyring
        self._names = frozenset(names)
        self._origin = origin
        self._catalogue = catalogue
        self._cluster = cluster
        self._dsn = dsn
        self.trust = Trust(authority)
        self._feed = TrustFeed(self.trust, cluster, "gateway")
        self._standing = CatalogueFeed(self._feed, operator, cluster, "gateway")
        self._telling = asyncio.Lock()
        self._untold = asyncio.Event()
        self._looking = asyncio.Lock()
        self._sessions = SessionKeys(keyring, catalogue)
        self._told: bytes | None = None  # the KEM key that the certificates' topic has from here
        self._pool: asyncpg.Pool | None = None
        self._producer: AIOKafkaProducer | None = None
        self.findings = Findings(self._connection, self._log_reading)
        self.auditing = Auditing(self._connection, self._everywhere, self._log_reading, self.trust)
        self.embargoes = Embargoes(self._connection, self._log_reading)
        self.logfiles = LogFiles(self._connection, self._log_reading, self.trust)
        self.impacts = Impacts(self._connection, self._log_reading)
        self.scorecards = Scorecards(self._connection, self._log_reading)
        self.usages = Usages(self._connection, self._everywhere, self._log_reading, catalogue)
        self.collections = Collections(self._connection, catalogue, proofs or Proofs.shipped())
        self.sets = Sets(self._connection, lambda: self.releases, keyring.signer, origin, catalogue)
        self.policies = Policies(self._connection, self._log_reading, catalogue, self._pseudonym, operator)
        self.releases: Releases
        self.revisions = Revisions(keyring.signer, origin, self._append)
        self.rulebook = Rulebook(self._connection, self.revisions, self._announce, operator)
        deadlines = Deadlines(catalogue, years)
        self.entries = Entries(self.rulebook, catalogue)
        self.agreements = Agreements(self.rulebook, catalogue, deadlines)
        self.corrections = Corrections(self.rulebook, catalogue, deadlines)
        self.disputes = Disputes(self.rulebook, deadlines)
        self.disclosures = Disclosures(self._connection, self._judge)
        self.consents = Consents(self.rulebook, catalogue, self._pseudonym, self._log_reading)
        self.powers = Powers(self.rulebook, catalogue)
        self.mandates = Mandates(self.rulebook, catalogue, self._pseudonym)
        self._provider = Provider(people) if people else None
        self.logins = Logins(self._connection, self._log_reading, self._person, self._provider)
        self.register = Register(
            self._connection,
            self._append,
            self.revisions,
            lambda subject: self._person(self.logins.provider.registration.issuer, subject),
            keyring.signer,
            origin,
        )
        self.decisions = DecisionPoint(self._connection, self._append, catalogue, keyring.signer, origin, operator)
        self.erasures = Erasures(
            connect=self._connection,
            append=self._append,
            keyring=keyring,
            sessions=self._sessions,
            trust=self.trust,
            catalogue=catalogue,
            pseudonym=self._pseudonym,
            origin=origin,
            operator=operator,
        )

    async def __aenter__(self) -> Self:
        try:
            await self._feed.start()
            await self._standing.start()
            self._pool = await db.pool(self._dsn)
            self._producer = await producer(self._cluster, "gateway", linger_ms=0)
            if not self._keyring.master.locked:
                await self._renew_kem()
            await self._tell()
            logged = await bounded(self._log_end(), CHECK_SECONDS, "reading the log's end")
        except BaseException:
            await self._close()
            raise
        self.releases = Releases(
            signer=self._keyring.signer,
            origin=self._origin,
            catalogue=self._catalogue,
            trust=self.trust,
            pool=self._pool,
            log=self._producer,
            keys=self._sessions,
        )
        self.releases.read_from(logged)  # a database that was restored learns first what was erased since
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def run(self) -> None:
        """Follows certificates, stores session keys as they come, renews the KEM key. Until cancelled."""
        assert self._pool is not None
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._feed.follow())
            tasks.create_task(self._sessions.sweep(self._pool))
            tasks.create_task(self._keep_kem())
            tasks.create_task(self._keep_signer())
            tasks.create_task(self.erasures.sweep())
            tasks.create_task(self._keep_telling())
            tasks.create_task(self.revisions.sweep(self._pool))
            tasks.create_task(self._count_down())
            tasks.create_task(replays.sweep(self._pool))

    async def check(self) -> None:
        """Raises `Unavailable` unless Kafka and PostgreSQL answer within five seconds, or its keys are locked."""
        assert self._producer is not None
        self._keyring.check()
        await bounded(self._producer.client.fetch_all_metadata(), CHECK_SECONDS, "asking Kafka")
        async with self._connection("asking PostgreSQL") as connection:
            await connection.fetchval("SELECT 1", timeout=CHECK_SECONDS)

    async def authenticate(self, message: httpsig.Message, body: bytes) -> Signed:
        """Who signed a request, which no gateway took in before. Raises `Refused` (REQUEST_*, CERTIFICATE_*).

        A department that joined a moment ago is looked for on the certificates' topic: its first request counts.
        """
        signed = await self._signed(message, body)
        async with self._connection("taking a request in") as connection:
            await replays.take(connection, signed)
        return signed

    async def _signed(self, message: httpsig.Message, body: bytes) -> Signed:
        try:
            return httpsig.verify(message, body, self.trust, datetime.now(UTC), self._names)
        except Refused as exc:
            if exc.code is not Code.CERTIFICATE_UNKNOWN:
                raise
        async with self._looking:  # strangers, however many, cost one look at a time
            await self._feed.catch_up()
        return httpsig.verify(message, body, self.trust, datetime.now(UTC), self._names)

    def routes(self) -> Mapping[str, Route]:
        """The JSON routes: what each path calls, the body it takes, the answer it gives."""
        entry = {"defined": DefinitionAnswer | None, "providers": list[ProviderAnswer]}
        if self._own:  # it has neither the pseudonyms' root nor a say in rules
            return {"/v1/records:show": Route(self.show_record, RecordBody, RecordAnswer)}
        return {
            "/v1/catalogue": Route(self.entries.draft, EntryBody, shown(CatalogueEntry)),
            "/v1/catalogue:act": Route(self.entries.act, ActBody, shown(CatalogueEntry)),
            "/v1/catalogue:list": Route(self.entries.list, ListBody, listed(shown(CatalogueEntry, **entry))),
            "/v1/catalogue:show": Route(
                self.entries.show, IdBody, shown(CatalogueEntry, **entry, acts=list[ActAnswer])
            ),
            "/v1/agreements": Route(self.agreements.submit, AgreementBody, shown(Agreement)),
            "/v1/agreements:resubmit": Route(self.agreements.resubmit, ResubmitBody, shown(Agreement)),
            "/v1/agreements:act": Route(self.agreements.act, ActBody, shown(Agreement)),
            "/v1/agreements:list": Route(self.agreements.list, ListBody, listed(due(Agreement))),
            "/v1/agreements:show": Route(self.agreements.show, IdBody, due(Agreement, acts=list[ActAnswer])),
            "/v1/corrections": Route(self.corrections.request, CorrectionBody, shown(Correction)),
            "/v1/corrections:act": Route(self.corrections.act, ActBody, shown(Correction)),
            "/v1/corrections:list": Route(self.corrections.list, ListBody, listed(due(Correction))),
            "/v1/corrections:show": Route(self.corrections.show, IdBody, due(Correction, acts=list[ActAnswer])),
            "/v1/disputes": Route(self.disputes.raise_, DisputeBody, shown(Dispute)),
            "/v1/disputes:act": Route(self.disputes.act, ActBody, shown(Dispute)),
            "/v1/disputes:list": Route(self.disputes.list, ListBody, listed(due(Dispute))),
            "/v1/disputes:show": Route(self.disputes.show, IdBody, due(Dispute, acts=list[ActAnswer])),
            "/v1/consents": Route(self.consents.create, ConsentsBody, listed(shown(Consent))),
            "/v1/consents:act": Route(self.consents.act, ActBody, shown(Consent)),
            "/v1/consents:show": Route(
                self.consents.show, IdBody, shown(Consent, acts=list[ActAnswer], uses=UsesAnswer | None)
            ),
            "/v1/consents:search": Route(
                self.consents.search, SubjectQuery, listed(shown(Consent, uses=UsesAnswer | None))
            ),
            "/v1/consents:receipt": Route(self.consents.receipt, ReceiptBody, Receipt),
            "/v1/powers": Route(self.powers.add, PowerBody, shown(Power)),
            "/v1/powers:act": Route(self.powers.act, ActBody, shown(Power)),
            "/v1/powers:list": Route(self.powers.list, ListBody, listed(shown(Power))),
            "/v1/powers:show": Route(self.powers.show, IdBody, shown(Power, acts=list[ActAnswer])),
            "/v1/mandates": Route(self.mandates.add, MandateBody, shown(Mandate)),
            "/v1/mandates:act": Route(self.mandates.act, ActBody, shown(Mandate)),
            "/v1/mandates:list": Route(self.mandates.list, ListBody, listed(shown(Mandate))),
            "/v1/mandates:search": Route(self.mandates.search, SubjectQuery, listed(shown(Mandate))),
            "/v1/mandates:show": Route(self.mandates.show, IdBody, shown(Mandate, acts=list[ActAnswer])),
            "/v1/collections:check": Route(self.collections.check, CollectionBody, CollectionAnswer),
            "/v1/disclosures:check": Route(self.disclosures.check, DisclosureBody, DisclosureAnswer),
            "/v1/policy:explain": Route(self.policies.explain, ExplainBody, ExplainAnswer),
            "/v1/policy:simulate": Route(self.policies.simulate, SimulateBody, SimulateAnswer),
            "/v1/policy:diff": Route(self.policies.diff, DiffBody, DiffAnswer),
            "/v1/policy:test": Route(self.policies.test, CasesBody, CasesAnswer),
            "/v1/policy:replay": Route(self.policies.replay, ReplayBody, ReplayAnswer),
            "/v1/licences:search": Route(self.search_licences, SearchBody, RecordsAnswer),
            "/v1/records:show": Route(self.show_record, RecordBody, RecordAnswer),
            "/v1/erasures": Route(self.erasures.start, EraseBody, ErasuresAnswer),
            "/v1/erasures:show": Route(self.erasures.show, ErasureBody, ErasuresAnswer),
            "/v1/records:impact": Route(self.impacts.show, ImpactBody, ImpactAnswer),
            "/v1/audit/entries:query": Route(self.auditing.query, EntriesBody, EntriesAnswer),
            "/v1/audit/counts:query": Route(self.auditing.counts, CountsBody, CountsAnswer),
            "/v1/audit/stories:show": Route(self.auditing.story, StoryBody, StoryAnswer),
            "/v1/audit/readings:list": Route(self.embargoes.readings, ReadingsBody, ReadingsAnswer),
            "/v1/audit/embargoes": Route(self.embargoes.propose, EmbargoBody, EmbargoAnswer),
            "/v1/audit/embargoes:confirm": Route(self.embargoes.confirm, ConfirmBody, EmbargoAnswer),
            "/v1/audit/embargoes:list": Route(self.embargoes.list, EmbargoesBody, list[EmbargoAnswer]),
            "/v1/audit/proofs": Route(self.logfiles.proofs, ProofsBody, ProofsAnswer),
            "/v1/audit/tokens": Route(self.logfiles.issue_token, TokenBody, TokenAnswer),
            "/v1/audit/findings:list": Route(self.findings.list, FindingsBody, FindingsAnswer),
            "/v1/sets": Route(self.sets.grant, SetBody, SetAnswer),
            "/v1/sets:candidates": Route(self.sets.candidates, CandidatesBody, CandidatesAnswer),
            "/v1/sets:prove": Route(self.sets.prove, MemberBody, ProofAnswer),
            "/v1/scorecards:show": Route(self.scorecards.show, ScorecardBody, ScorecardAnswer),
            "/v1/people": Route(self.register.appoint, AppointBody, PersonAnswer),
            "/v1/people:suspend": Route(self.register.suspend, PersonBody, PersonAnswer),
            "/v1/people:resume": Route(self.register.resume, PersonBody, PersonAnswer),
            "/v1/people:dismiss": Route(self.register.dismiss, PersonBody, PersonAnswer),
            "/v1/people:list": Route(self.register.people, NothingBody, list[PersonAnswer]),
            "/v1/departments:suspend": Route(self.register.suspend_department, DepartmentBody, DepartmentAnswer),
            "/v1/departments:resume": Route(self.register.resume_department, DepartmentBody, DepartmentAnswer),
            "/v1/operations:show": Route(self.register.operations, NothingBody, OperationsAnswer),
            "/v1/subjects/usages:query": Route(self.usages.query, UsagesBody, UsagesAnswer),
            "/v1/subjects/usages:period": Route(self.usages.period, PeriodBody, PeriodAnswer),
        }

    async def search_licences(self, signed: Signed, body: SearchBody) -> Any:
        """Sealed licences in force, and a grant for them: the same release as any other."""
        check_asked(body.purpose, body.ground, body.operator, body.citation, body.case, body.agent)
        request, recipient = from_hex(body.request, 16), from_hex(body.recipient, 32)
        pseudonym = self._pseudonym(body.item, body.subject)
        day = body.as_of or datetime.now(CHINA).date()
        async with self._connection("looking up licences") as connection:
            found = await reading.in_force(connection, pseudonym, body.item, day)
        if not found:
            await self._log_reading(signed, request, body.operator, "licences:search", [pseudonym], 0)
            return {"records": [], "grant": None}
        reads = tuple(Read(envelope.parse(one.value).claims_bytes, tuple(body.sections)) for one in found)
        grant = await self.releases.release(
            signed,
            KeyRequest(
                request=request,
                purpose=body.purpose,
                ground=body.ground,
                operator=body.operator,
                citation=body.citation,
                case=body.case,
                agent=body.agent,
                recipient=recipient,
                reads=reads,
            ),
            Mode.QUERY,
        )
        return {"records": [b64encode(one.value).decode() for one in found], "grant": b64encode(grant).decode()}

    async def show_record(self, signed: Signed, body: RecordBody) -> Any:
        """A sealed record by its leaf hash. Nothing in it opens without a release."""
        async with self._connection("reading a record") as connection:
            value = await reading.sealed(connection, signed.caller.uscc, from_hex(body.record, 32))
        return {"value": b64encode(value).decode()}

    async def admitted(self, leaf_hash: bytes) -> Any:
        """What the index says of a record: state, entry, status."""
        async with self._connection("reading the index") as connection:
            return await reading.admitted(connection, leaf_hash, self.trust)

    def registry_schema(self, number: str) -> bytes:
        """The read-only schema registry's answer. Only the envelope has an id: sections are sealed."""
        if number != str(SCHEMA_ID):
            raise Refused(Code.NOT_FOUND, f"no schema has this id: the envelope's is {SCHEMA_ID}")
        return json.dumps({"schema": json.dumps(wire_schema("Envelope"))}).encode()

    def _pseudonym(self, item: str, subject: SubjectBody) -> bytes:
        name = self._catalogue.item(item).name
        key = pseudonyms.item_key(self._keyring.pseudonym_root, name, GENERATION)
        return pseudonyms.subject(key, subject.kind, _canonical(subject))

    def _person(self, issuer: str, subject: str) -> bytes:
        return pseudonyms.person(self._keyring.pseudonym_root, issuer, subject)

    def _everywhere(self, subject: SubjectBody) -> list[bytes]:
        """The subject's pseudonym under every item: the auditor asks about a person, not about a licence."""
        return [self._pseudonym(item, subject) for item in self._catalogue.items]

    async def _append(self, values: Sequence[bytes]) -> None:
        """To the audit log, once the gateway is connected."""
        await self.releases.append(values)

    async def _judge(self, signed: Signed, access: Access, read: Read) -> tuple[Decision, bytes]:
        """As `Releases.judge`, once the gateway is connected."""
        return await self.releases.judge(signed, access, read)

    async def _log_reading(
        self, signed: Signed, group: bytes, operator: str, what: str, subjects: list[bytes], returned: int
    ) -> bytes:
        """The leaf hash of the entry, which is in the log when this returns."""
        body = {
            "reader": signed.caller.uscc,
            "operator": signed.operator(operator),
            "what": what,
            "subjects": subjects,
            "returned": returned,
            **signed.kept,
        }
        values = audit.log_values(self._keyring.signer, self._origin, group, [("Reading", body)], datetime.now(UTC))
        await self.releases.append(values)
        return merkle.leaf_hash(values[0])

    async def _announce(self, documents: Sequence[Document]) -> None:
        """Copies for others on `consent.records`; the database is what decides. A Kafka that is away delays nothing."""
        assert self._producer is not None
        try:
            async with kafka_errors("announcing"), asyncio.timeout(CHECK_SECONDS):
                sent = [
                    await self._producer.send(
                        RULES,
                        msgspec.json.encode({"kind": document.kind, **document.to_json()}),
                        key=document.id.bytes,
                    )
                    for document in documents
                ]
                await asyncio.gather(*sent)
        except Unavailable as exc:
            log.warning("announcement_lost", code=exc.code, kind=documents[0].kind)
        if any(map(cataloguefeed.travels, documents)):
            try:
                await bounded(self._tell(), CHECK_SECONDS, "telling publishers")
            except Unavailable as exc:
                log.warning("catalogue_delayed", code=exc.code)
                self._untold.set()

    async def _tell(self) -> None:
        """Puts on `bus.catalogue` whatever it lacks: the operator's gateways do."""
        assert self._producer is not None
        if self._own:
            return
        async with self._telling, self._connection("reading the catalogue") as connection:
            await issuing.announce(connection, self._standing, self._producer, self._keyring.signer)

    async def _keep_telling(self) -> None:
        """Again and again: what the clock ended, and what another process entered; at once what a Kafka missed."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(RENEW_SECONDS):
                    await self._untold.wait()
            self._untold.clear()
            try:
                await self._tell()
            except Unavailable as exc:
                log.warning("catalogue_delayed", code=exc.code)
                self._untold.set()
                await asyncio.sleep(CHECK_SECONDS)

    async def _keep_kem(self) -> None:
        """Makes the next key when it is due, at once if somebody wants one, and tells of one that another gateway made:
        that one may have ended before it could."""
        while True:
            await asyncio.sleep(KEM_LOOK_SECONDS)
            try:
                if self._keyring.master.locked:
                    continue
                current = self._keyring.current_kem(datetime.now(UTC))
                if current is None or current != self._told:
                    await self._renew_kem()
            except Unavailable as exc:
                log.warning("kem_renewal_delayed", code=exc.code)

    async def _keep_signer(self) -> None:
        """Takes up a renewed key at once, and makes the KEM key anew: the one before falls with who signed it."""
        while True:
            if follow(self._keyring.signer, "gateway"):
                try:
                    await self._renew_kem()
                except Unavailable as exc:
                    log.warning("kem_renewal_delayed", code=exc.code)
            await asyncio.sleep(SIGNER_SECONDS)

    async def _count_down(self) -> None:
        """Says how long keys would still be released if no checkpoint came any more."""
        while True:
            try:
                async with self._connection("reading the checkpoint's age") as connection:
                    left = await seconds_to_stall(connection)
                metrics.STALL_SECONDS.set(left)
            except Unavailable as exc:
                log.warning("stall_unknown", code=exc.code)
            await asyncio.sleep(STALL_LOOK_SECONDS)

    async def _log_end(self) -> int:
        """Where the audit topic ends now."""
        reader = await consumer(self._cluster, "gateway-log")
        try:
            tp = TopicPartition(audit.TOPIC, 0)
            return int((await reader.end_offsets([tp]))[tp])
        finally:
            await reader.stop()

    async def _renew_kem(self) -> None:
        """Makes the day's key if it is time, and puts it on the topic, for all that this process knows once."""
        assert self._producer is not None
        value = self._keyring.renew_kem(datetime.now(UTC))
        async with kafka_errors("publishing the KEM key"):
            await self._producer.send_and_wait(trustfeed.TOPIC, value, key=topic_key(value))
        self._told = value
        await self._feed.catch_up()

    @asynccontextmanager
    async def _connection(self, doing: str) -> AsyncIterator[asyncpg.Connection]:
        assert self._pool is not None
        async with postgres_errors(doing), self._pool.acquire(timeout=CHECK_SECONDS) as connection:
            yield connection

    async def _close(self) -> None:
        if self._producer is not None:
            await self._producer.stop()
        if self._pool is not None:
            self._pool.terminate()
        if self._provider is not None:
            await self._provider.aclose()
        await self._standing.stop()
        await self._feed.stop()


def _canonical(subject: SubjectBody) -> str:
    match subject.kind:
        case "PERSON":
            return parse_citizen_number(subject.id)
        case "ORGANISATION" | "DEPARTMENT":
            return parse_uscc(subject.id)
    raise Malformed(Code.REQUEST_MALFORMED, "subject.kind is PERSON, ORGANISATION or DEPARTMENT")
