"""The one way a key leaves: decide, make the entry durable, read the rules again, seal the grant.

Commit points, and what a crash at each leaves behind:

1. limits taken      units are gone, no entry: the consumer asks again and takes others;
2. entries durable   an entry whose key was never delivered can exist, never the reverse;
3. rules re-read     a change means a second entry, `VOIDED`, and a refusal; so does that they cannot be read;
4. grant sealed      only now do secrets exist outside this process.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import asyncpg
import structlog
from aiokafka import AIOKafkaProducer

from bus import audit, envelope, merkle, metrics
from bus.db import postgres_errors
from bus.envelope import Claims
from bus.gateway import facts as fact_store
from bus.gateway.facts import Found
from bus.gateway.sessions import SessionKeys
from bus.httpsig import Signed
from bus.kafka import kafka_errors
from bus.messages import KeyRequest, Read, Result, make_grant
from bus.pki import Signer
from bus.sealing import section_secret
from bus.trust import KemKey, Trust
from consent.decide import decide
from consent.model import Access, Decision, Mode, RecordState
from schemas.catalogue import Catalogue
from schemas.errors import Code, Refused

LOG_SECONDS = 10.0  # longer than a leader change; then the consumer is told 503 and nothing was released
JUDGED_SECONDS = 2.0  # the recorder is milliseconds behind; further behind than this, the subscriber backs off
JUDGED_POLL_SECONDS = 0.02
VOIDED = Code.FACTS_CHANGED
MAX_USED_UP = 256  # an entry has 65,535 bytes; these are a subject's used-up consents to one department, of years

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One read of a request, parsed."""

    claims: Claims
    prefix: bytes
    leaf_hash: bytes
    sections: tuple[str, ...]
    holders: tuple[bytes, ...]


class Releases:
    """A gateway's releases. Holds no state of its own: facts are read for each request."""

    def __init__(
        self,
        *,
        signer: Signer,
        origin: str,
        catalogue: Catalogue,
        trust: Trust,
        pool: asyncpg.Pool,
        log: AIOKafkaProducer,
        keys: SessionKeys,
    ) -> None:
        self._signer = signer
        self._origin = origin
        self._catalogue = catalogue
        self._trust = trust
        self._pool = pool
        self._log = log
        self._keys = keys
        self._read = 0

    def read_from(self, offset: int) -> None:
        """Nothing is released until the recorder has read the log this far: it may tell of erasures."""
        self._read = max(self._read, offset)

    async def release(
        self,
        signed: Signed,
        request: KeyRequest,
        mode: Mode = Mode.STREAM,
        of_set: tuple[bytes, int] | None = None,
    ) -> bytes:
        """The encoded grant. Raises `Malformed`, `Refused` (the request as a whole), `Unavailable` (nothing left the
        gateway).

        `of_set` is the entry and the size of a granted set that all reads are members of: its limits were taken, and
        its entry speaks of what is permitted. What is refused by now is an entry as ever.
        """
        recipient = self._recipient(signed, request.recipient, datetime.now(UTC))
        asked = [parse_read(read) for read in request.reads]
        access = Access(
            consumer=signed.caller.uscc,
            purpose=request.purpose,
            ground=request.ground,
            citation=request.citation,
            case=request.case,
            operator=request.operator,
            agent=request.agent,
            mode=mode,
            set_size=0 if of_set is None else of_set[1],
        )
        found = await self._facts(access, asked)
        now = datetime.now(UTC)
        async with postgres_errors("deciding"), self._pool.acquire() as connection:
            unopened = await self._keys.load(connection, {(a.claims.session, a.claims.issuer) for a in asked})
            decisions = [self.decide(a, access, found, now) for a in asked]
            if of_set is None:
                decisions = await fact_store.take(connection, access.consumer, request.request, asked, decisions, now)
            decisions = [_without_keys(a, d, unopened) for a, d in zip(asked, decisions, strict=True)]
            # A set's entry speaks of all that are permitted with every section; of any other one, its own does.
            apart = [at for at, d in enumerate(decisions) if of_set is None or len(d.permitted) < len(d.sections)]
            own = await self._entries(apart, signed, request.request, access, asked, decisions, found, now)
            changed = await self.moved(connection, request.request, access, asked, decisions, found, own)
        decisions = [_voided(d) if at in changed else d for at, d in enumerate(decisions)]
        unsaid = sorted(changed - own.keys())  # what the set's entry said cannot be voided for one of them
        own |= await self._entries(unsaid, signed, request.request, access, asked, decisions, found, now)
        entries = [own[at] if of_set is None or at in own else of_set[0] for at in range(len(asked))]
        return self._grant(request, recipient, asked, decisions, entries, found)

    async def moved(
        self,
        connection: asyncpg.Connection,
        group: bytes,
        access: Access,
        asked: Sequence[Asked],
        decisions: Sequence[Decision],
        found: Found,
        entries: Mapping[int, bytes],
    ) -> set[int]:
        """The last look before anything leaves: which decisions rest on what is not as it was, and are voided.

        `entries` are those of the decisions, by place. Where it cannot be said, all that permit are voided, so that the
        log says so while PostgreSQL is away, and it raises.
        """
        try:
            changed = await fact_store.changed(connection, access.consumer, asked, decisions, found, self._read)
        except Exception:
            await self.void(group, {entries[at] for at, d in enumerate(decisions) if d.permitted and at in entries})
            raise
        await self.void(group, {entries[at] for at in changed if at in entries})
        return changed

    async def _entries(
        self,
        places: Sequence[int],
        signed: Signed,
        group: bytes,
        access: Access,
        asked: Sequence[Asked],
        decisions: Sequence[Decision],
        found: Found,
        now: datetime,
    ) -> dict[int, bytes]:
        """The entries of the reads at these places, by place, once they are durable."""
        if not places:
            return {}
        some, decided = [asked[at] for at in places], [decisions[at] for at in places]
        made = await self.record(signed, group, access, some, decided, found, now)
        return dict(zip(places, made, strict=True))

    async def judge(self, signed: Signed, access: Access, read: Read) -> tuple[Decision, bytes]:
        """A decision that releases no key, and the leaf hash of its entry, which is durable when this returns.

        Limits of openings are neither heeded nor taken. Raises as `release`.
        """
        asked, group = [parse_read(read)], signed.digest[:16]
        found = replace(await self._facts(access, asked), used_up={})
        now = datetime.now(UTC)
        decision = self.decide(asked[0], access, found, now)
        (entry,) = await self.record(signed, group, access, asked, [decision], found, now)
        async with postgres_errors("deciding"), self._pool.acquire() as connection:
            changed = await self.moved(connection, group, access, asked, [decision], found, {0: entry})
        return (_voided(decision) if changed else decision), entry

    async def _facts(self, access: Access, asked: Sequence[Asked]) -> Found:
        """What decides, after a moment's wait for records that the recorder has not come to yet.

        A subscriber reads a record milliseconds after it was published. Without this it would be refused, that refusal
        logged, and the question asked again, later than it need be. No connection is held while waiting.
        """
        found = await self._load(access, asked)
        if found.index_fresh:
            self.read_from(found.read)
        waiting = [a.leaf_hash for a in asked if found.state(a) is RecordState.WAITING]
        if not waiting or not found.index_fresh or not found.audit_current:
            return found
        deadline = monotonic() + JUDGED_SECONDS
        while monotonic() < deadline:
            await asyncio.sleep(JUDGED_POLL_SECONDS)
            async with postgres_errors("deciding"), self._pool.acquire() as connection:
                if await fact_store.judged(connection, waiting):
                    break
        return await self._load(access, asked)

    async def _load(self, access: Access, asked: Sequence[Asked]) -> Found:
        async with postgres_errors("deciding"), self._pool.acquire() as connection:
            agents = [] if access.agent is None else [access.agent]
            now = datetime.now(UTC)
            return await fact_store.load(connection, [access.consumer], agents, asked, now, self._read)

    def _recipient(self, signed: Signed, key_id: bytes, now: datetime) -> KemKey:
        """Keys go to the department that signed, whoever else holds the request."""
        key = self._trust.kem_key(key_id)
        if key is None or key.role != "CONSUMER" or key.owner != signed.caller.uscc:
            raise Refused(Code.RECIPIENT_INVALID, "recipient is not a KemKey of the department that signed")
        if not key.not_before <= now < key.not_after:
            raise Refused(Code.RECIPIENT_INVALID, "recipient has ended: publish a new KemKey")
        return key

    def decide(self, asked: Asked, access: Access, found: Found, now: datetime) -> Decision:
        """What these facts say of one read."""
        record, facts = found.of(asked, access, self._catalogue)
        return decide(self._catalogue.items.get(asked.claims.item), access, asked.sections, record, facts, now)

    async def record(
        self,
        signed: Signed,
        group: bytes,
        access: Access,
        asked: Sequence[Asked],
        decisions: Sequence[Decision],
        found: Found,
        now: datetime,
    ) -> list[bytes]:
        """The leaf hashes of one entry a read, once every in-sync replica has them."""
        bodies = [
            ("Decision", _entry(signed, access, a, d, found.provider(a)) | {"used_up": self._used_up(a, access, found)})
            for a, d in zip(asked, decisions, strict=True)
        ]
        values = audit.log_values(self._signer, self._origin, group, bodies, now)
        await self.append(values)
        return [merkle.leaf_hash(value) for value in values]

    def _used_up(self, asked: Asked, access: Access, found: Found) -> list[dict[str, str]]:
        """What only the counters knew when this was decided: without it, nobody could decide it again."""
        if not found.used_up:
            return []
        _, facts = found.of(asked, access, self._catalogue)
        able = {one.id: one.word for one in (*facts.agreements, *facts.consents) if one.id in found.used_up}
        limited = [{"rule": word, "code": found.used_up[rule].value} for rule, word in able.items()]
        return limited[:MAX_USED_UP]

    async def void(self, group: bytes, entries: Collection[bytes]) -> None:
        """Says in the log that these entries' decisions were taken back. Raises `Unavailable`."""
        if not entries:
            return
        bodies = [("Voided", {"entry": entry, "code": VOIDED.value}) for entry in sorted(entries)]
        await self.append(audit.log_values(self._signer, self._origin, group, bodies, datetime.now(UTC)))

    async def append(self, values: Sequence[bytes]) -> None:
        """Returns when every in-sync replica has these log values. Raises `Unavailable`."""
        batches = _batches(self._log, values)
        with metrics.outcome(metrics.APPENDED, len(values)):
            async with kafka_errors("writing the audit entry"), asyncio.timeout(LOG_SECONDS):
                await asyncio.gather(*[await self._log.send_batch(one, audit.TOPIC, partition=0) for one in batches])

    def _grant(
        self,
        request: KeyRequest,
        recipient: KemKey,
        asked: Sequence[Asked],
        decisions: Sequence[Decision],
        entries: Sequence[bytes],
        found: Found,
    ) -> bytes:
        results: list[Result] = []
        secrets: list[tuple[bytes, str, bytes]] = []
        for a, decision, entry in zip(asked, decisions, entries, strict=True):
            codes = tuple((s.section, s.code.value) for s in decision.sections)
            results.append(Result(leaf_hash=a.leaf_hash, state=found.state(a).value, sections=codes, entry=entry))
            nodes = self._keys.nodes(a.claims.session, a.claims.issuer, a.claims.leaf, decision.permitted)
            secrets.extend((a.leaf_hash, name, section_secret(node, a.prefix)) for name, node in nodes)
        for code, count in Counter(code for result in results for _, code in result.sections).items():
            metrics.RELEASED.labels(outcome=code).inc(count)
        log.info("released", consumer=recipient.owner, traces=[a.claims.record.hex for a in asked])
        return make_grant(request.request, results, secrets, recipient.key, self._signer)


def _batches(log: AIOKafkaProducer, values: Sequence[bytes]) -> list[Any]:
    """Kafka batches made here: one future a batch, where `send` would make one an entry. In order."""
    batches = [log.create_batch()]
    for value in values:
        if batches[-1].append(key=None, value=value, timestamp=None) is None:  # full
            batches.append(log.create_batch())
            batches[-1].append(key=None, value=value, timestamp=None)
    return batches


def parse_read(read: Read) -> Asked:
    """A read with its claims parsed. Raises `Malformed`."""
    claims, prefix = envelope.parse_claims(read.claims)
    return Asked(
        claims=claims,
        prefix=prefix,
        leaf_hash=merkle.leaf_hash(read.claims),
        sections=read.sections,
        holders=claims.holders,
    )


def _without_keys(asked: Asked, decision: Decision, unopened: Mapping[tuple[bytes, str], Code]) -> Decision:
    """A permit that this gateway cannot fulfil is a refusal, and the entry must say so."""
    code = unopened.get((asked.claims.session, asked.claims.issuer))
    if code is None or not decision.permitted:
        return decision
    return decision.refused(code)


def _voided(decision: Decision) -> Decision:
    return decision.refused(VOIDED)


def _entry(signed: Signed, access: Access, asked: Asked, decision: Decision, provider: str) -> dict[str, Any]:
    claims = asked.claims
    return {
        "consumer": access.consumer,
        "purpose": access.purpose,
        "ground": access.ground,
        "citation": access.citation,
        "case": access.case,
        "operator": access.operator,
        "agent": access.agent,
        "mode": access.mode.value,
        "onward_to": access.onward_to,
        "set_size": access.set_size,
        "record": asked.leaf_hash,
        "item": claims.item,
        "region": claims.region,
        "provider": provider,
        "licence": claims.licence,
        "subjects": asked.holders,
        "sections": [{"name": s.section, "code": s.code.value, "rule": s.rule} for s in decision.sections],
        "hashes": [rule.hash for rule in decision.rests_on],
        **signed.kept,
        "trace": claims.record.hex,
    }
