"""The facts of a decision, from PostgreSQL's primary: a fixed number of queries however many records are asked for.

Decisions are never cached. What is cached are parsed agreements and consents: a revision never changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import asyncpg

from bus.db import queries
from bus.envelope import Claims
from bus.gateway.rulebook import from_row
from consent.decide import CHINA
from consent.limits import Life, Limit, data_life, limits
from consent.model import (
    Access,
    Agreement,
    Basis,
    CatalogueEntry,
    Consent,
    Decision,
    EntryState,
    Facts,
    Mandate,
    Power,
    RecordFacts,
    RecordState,
    Status,
)
from schemas.catalogue import Catalogue
from schemas.errors import Code
from schemas.operations import Operation

FRESH = timedelta(seconds=30)  # the recorder says each second that it goes on; thirty missed ones are a stop
STALL = timedelta(seconds=30)  # nobody can check a release that no checkpoint covers: the log's promise is this long

_FURTHER = (EntryState.RETIRED, EntryState.DRAFT, EntryState.REVIEWED, EntryState.PUBLISHED)

SQL = queries(Path(__file__).with_name("facts.sql"))


class Asked(Protocol):
    """One read: its parsed claims and their leaf hash."""

    @property
    def claims(self) -> Claims:
        """What the record claims."""

    @property
    def holders(self) -> tuple[bytes, ...]:
        """Whose consent counts: computed once a request."""

    @property
    def leaf_hash(self) -> bytes:
        """Its identity, 32 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """A question that opens nothing: about a record, or, without its leaf hash, one that nobody need have."""

    claims: Claims
    holders: tuple[bytes, ...]
    leaf_hash: bytes = b""


def imagined(item: str, provider: str, region: str) -> Claims:
    """What a record of this provider would claim, as far as a decision looks at it; about nobody in particular."""
    return Claims(
        record=UUID(int=0),
        item=item,
        schema=b"",
        operation=Operation.ISSUED.value,
        issuer=provider,
        subjects=(),
        licence=b"",
        pseudonyms=0,
        sequence=1,
        occurred_at=datetime.fromtimestamp(0, UTC),
        valid_from=None,
        valid_until=None,
        region=region,
        parents=(),
        session=b"",
        leaf=0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Facts of a whole request. `suspended` has the consumers that have joined; `read` is how far the recorder has read
    the log; agreements are by consumer, provider and item, powers by who may open, consents and mandates by holder and
    item.
    """

    suspended: Mapping[str, bool]
    index_fresh: bool
    audit_current: bool
    read: int
    records: Mapping[bytes, Any]
    entries: Mapping[str, CatalogueEntry]
    agreements: Mapping[tuple[str, str, str], tuple[Agreement, ...]]
    powers: Mapping[str, tuple[Power, ...]]
    scoped: Mapping[tuple[bytes, str], tuple[Consent | Mandate, ...]]
    used_up: Mapping[UUID, Code]

    def state(self, asked: Asked) -> RecordState:
        """What the index says of a record."""
        return _state(self.records.get(asked.leaf_hash))

    def provider(self, asked: Asked) -> str:
        """The department in whose power a record was issued: of one that is not admitted, its issuer."""
        return _provider(self.records, asked)

    def of(self, asked: Asked, access: Access, catalogue: Catalogue) -> tuple[RecordFacts, Facts]:
        """The facts of one record. Claims count only as far as the index has admitted exactly them."""
        claims, holders = asked.claims, asked.holders
        item = catalogue.items.get(claims.item)
        row = self.records.get(asked.leaf_hash)
        provider = self.provider(asked)
        record = RecordFacts(
            state=_state(row),
            item=claims.item,
            issuer=provider,
            region=claims.region,
            holders=holders,
            known_schema=item is not None and claims.schema in item.schemas,
            status=Status.VALID if row is None else Status(row["status"]),
            valid_from=None if row is None else row["valid_from"],
            valid_until=None if row is None else row["valid_until"],
            superseded=row is not None and row["newest"] > row["sequence"],
            erased=row is not None and bool(row["erased"]),
            refusal=Code.NOT_ADMITTED if row is None or row["refusal"] is None else Code(row["refusal"]),
        )
        consumer = access.consumer
        powers = self.powers.get(consumer, ())
        recipients = {consumer, *(power.grantor for power in powers)}
        about = [one for holder in holders for one in self.scoped.get((holder, claims.item), ())]
        facts = Facts(
            consumer_known=consumer in self.suspended,
            consumer_suspended=self.suspended.get(consumer, False),
            index_fresh=self.index_fresh,
            audit_current=self.audit_current,
            entry=self.entries.get(claims.item),
            agreements=tuple(
                agreement
                for one in (consumer, *sorted(recipients - {consumer}))
                for agreement in self.agreements.get((one, provider, claims.item), ())
            ),
            powers=powers,
            consents=tuple(one for one in about if isinstance(one, Consent) and one.recipient in recipients),
            mandates=tuple(one for one in about if isinstance(one, Mandate) and one.agent == access.agent),
            used_up=self.used_up,
        )
        return record, facts

    def about(self, question: About, access: Access, catalogue: Catalogue) -> tuple[RecordFacts, Facts]:
        """As `of`; a record that nobody need have is the newest version of a valid licence. Never for a key."""
        record, facts = self.of(question, access, catalogue)
        if question.leaf_hash:
            return record, facts
        return replace(record, state=RecordState.ADMITTED, known_schema=True), facts


async def judged(connection: asyncpg.Connection, leaf_hashes: Sequence[bytes]) -> bool:
    """Whether the recorder has admitted or refused every one of these, or found it in conflict."""
    return bool(await connection.fetchval(SQL["judged"], leaf_hashes))


async def seconds_to_stall(connection: asyncpg.Connection) -> float:
    """How long until keys stop for want of a checkpoint (AUDIT_STALLED); 0 if they have."""
    return float(await connection.fetchval(SQL["seconds_to_stall"], STALL))


async def load(
    connection: asyncpg.Connection,
    consumers: Sequence[str],
    agents: Sequence[str],
    asked: Sequence[Asked],
    now: datetime,
    read: int = 0,
) -> Found:
    """Everything that `decide` needs for these reads by any of these consumers, any of these agents acting.

    The index is stale until the recorder has read the log up to offset `read`.
    """
    joined = await connection.fetch(SQL["consumers"], consumers, FRESH, STALL)
    rows = await connection.fetch(SQL["records"], [one.leaf_hash for one in asked])
    records = {row["leaf_hash"]: row for row in rows}
    providers = {(_provider(records, one), one.claims.item) for one in asked}
    rules = await connection.fetch(
        SQL["rules"], consumers, [provider for provider, _ in providers], [item for _, item in providers]
    )
    standing = [from_row(row) for row in rules]
    agreements: dict[tuple[str, str, str], list[Agreement]] = {}
    powers: dict[str, list[Power]] = {}
    for one in standing:
        if isinstance(one, Agreement):
            agreements.setdefault((one.consumer, one.provider, one.item), []).append(one)
        elif isinstance(one, Power):
            powers.setdefault(one.grantee, []).append(one)
    grantors = {power.grantor for group in powers.values() for power in group}
    holders = {(holder, one.claims.item) for one in asked for holder in one.holders}
    rows = await connection.fetch(
        SQL["scoped"],
        [*{*consumers, *grantors, *agents}],
        [holder for holder, _ in holders],
        [item for _, item in holders],
    )
    scoped: dict[tuple[bytes, str], list[Any]] = {}
    for row in rows:
        scoped.setdefault((row["subject"], row["item"]), []).append(from_row(row))
    documents = [*(one for group in agreements.values() for one in group), *(o for g in scoped.values() for o in g)]
    return Found(
        suspended={row["uscc"]: row["suspended"] for row in joined if row["uscc"] is not None},
        index_fresh=joined[0]["fresh"] and (joined[0]["read"] or 0) >= read,
        audit_current=joined[0]["current"],
        read=joined[0]["read"] or 0,
        records=records,
        entries=_entries(one for one in standing if isinstance(one, CatalogueEntry)),
        agreements={key: tuple(group) for key, group in agreements.items()},
        powers={key: tuple(group) for key, group in powers.items()},
        scoped={key: tuple(group) for key, group in scoped.items()},
        used_up=await _used_up(connection, documents, now),
    )


def _entries(found: Iterable[CatalogueEntry]) -> dict[str, CatalogueEntry]:
    """Each item's entry; of several the published one, else the one that came furthest."""
    return {one.item: one for one in sorted(found, key=lambda one: _FURTHER.index(one.state))}


async def take(
    connection: asyncpg.Connection,
    consumer: str,
    request: bytes,
    asked: Sequence[Asked],
    decisions: Sequence[Decision],
    now: datetime,
) -> list[Decision]:
    """Takes the units that the permits cost; a permit for which none is left becomes a refusal.

    A unit is of one request id, record, rule and period. A repeated request takes none: its units were taken the first
    time, whether or not the answer arrived. What the same id asks for besides is paid for.
    """
    today = now.astimezone(CHINA).date()
    costs = [
        [
            (_unit(request, one.leaf_hash, limit), limit)
            for document in decision.rests_on
            for limit in limits(document, today)
        ]
        for one, decision in zip(asked, decisions, strict=True)
    ]
    units = {unit: limit for cost in costs for unit, limit in cost}
    lives = [
        {_life(request, one.leaf_hash, life): life for rule in decision.rests_on if (life := data_life(rule, today))}
        for one, decision in zip(asked, decisions, strict=True)
    ]
    if not units and not any(lives):
        return list(decisions)
    async with connection.transaction():
        # In a fixed order, so that two gateways never wait for each other in a circle.
        rows = await connection.fetch(SQL["first_time"], consumer, sorted({*units, *(u for one in lives for u in one)}))
        new = {row["request"] for row in rows}
        wanted = Counter(units[unit] for unit in new if unit in units)
        left: dict[Limit, int] = {}
        for limit in sorted(wanted):
            key = (limit.rule, limit.code.value, limit.period)
            await connection.execute(SQL["open_usage"], *key)
            left[limit] = await connection.fetchval(SQL["take"], *key, wanted[limit], limit.most)
        taken = _pay(decisions, costs, set(new), left)
        # What a crash or a change hereafter keeps from being opened is noted all the same: nothing opened is missed.
        opened = {
            u: life for one, by_unit in zip(taken, lives, strict=True) if one.permitted for u, life in by_unit.items()
        }
        noted = sorted(Counter(life for unit, life in opened.items() if unit in new).items())
        if noted:
            await connection.execute(
                SQL["note"],
                consumer,
                today,
                [life.rule for life, _ in noted],
                [life.ends_on for life, _ in noted],
                [count for _, count in noted],
            )
    return taken


def _pay(
    decisions: Sequence[Decision],
    costs: Sequence[Sequence[tuple[bytes, Limit]]],
    unpaid: set[bytes],
    left: dict[Limit, int],
) -> list[Decision]:
    """Each decision with what is left of its limits: a permit that costs more becomes a refusal."""
    taken: list[Decision] = []
    for decision, cost in zip(decisions, costs, strict=True):
        due = [(unit, limit) for unit, limit in cost if unit in unpaid]
        short = next((limit.code for _, limit in due if left[limit] < 1), None)
        if short is None:
            for unit, limit in due:
                left[limit] -= 1
                unpaid.discard(unit)
        taken.append(decision if short is None else decision.refused(short))
    return taken


async def changed(
    connection: asyncpg.Connection,
    consumer: str,
    asked: Sequence[Asked],
    decisions: Sequence[Decision],
    found: Found,
    read: int = 0,
) -> set[int]:
    """Which decisions rest on something that is not as it was: the last look before keys leave.

    One statement a table, each its own snapshot: a withdrawal that was committed before this call is seen.
    """
    rows = await connection.fetch(SQL["revisions"], list({rule.id for d in decisions for rule in d.rests_on}))
    standing = {(row["id"], row["revision"]) for row in rows}
    org = await connection.fetchrow(SQL["consumers"], [consumer], FRESH, STALL)
    opened = [at for at, decision in enumerate(decisions) if decision.permitted]
    good = org["suspended"] is False and org["fresh"] and org["current"] and (org["read"] or 0) >= read
    if opened and not good:
        return set(opened)
    records = await connection.fetch(SQL["records"], [asked[at].leaf_hash for at in opened])
    now_found = {row["leaf_hash"]: row for row in records}
    return {
        at
        for at in opened
        if _moved(found.records.get(asked[at].leaf_hash), now_found.get(asked[at].leaf_hash))
        or any((rule.id, rule.revision) not in standing for rule in decisions[at].rests_on)
    }


def _moved(before: Any, after: Any) -> bool:
    if before is None or after is None:
        return before is not after
    return any(before[name] != after[name] for name in ("conflict", "status", "newest", "erased"))


def _provider(records: Mapping[bytes, Any], asked: Asked) -> str:
    row = records.get(asked.leaf_hash)
    return asked.claims.issuer if row is None or row["provider"] is None else str(row["provider"])


def _state(row: Any) -> RecordState:
    if row is None:
        return RecordState.WAITING
    if row["refusal"] is not None:
        return RecordState.REFUSED
    return RecordState.CONFLICT if row["conflict"] else RecordState.ADMITTED


def _unit(request: bytes, record: bytes, limit: Limit) -> bytes:
    """A unit of a rate is one for the whole request, any other one for each record."""
    of = b"" if limit.a_request else record
    return sha256(
        b"".join((request, of, limit.rule.bytes, limit.code.encode(), limit.period.isoformat().encode()))
    ).digest()


def _life(request: bytes, record: bytes, life: Life) -> bytes:
    """As a unit: a repeated request opens nothing more."""
    return sha256(b"".join((request, record, life.rule.bytes, b"life", life.ends_on.isoformat().encode()))).digest()


async def _used_up(connection: asyncpg.Connection, documents: Iterable[Basis], now: datetime) -> dict[UUID, Code]:
    """The first limit of each rule of which nothing is left."""
    today = now.astimezone(CHINA).date()
    limited = {limit for document in documents for limit in limits(document, today)}
    if not limited:
        return {}
    rows = await connection.fetch(
        SQL["usage"],
        [limit.rule for limit in limited],
        [limit.code.value for limit in limited],
        [limit.period for limit in limited],
    )
    used = {(row["rule"], row["code"], row["period"]): row["used"] for row in rows}
    return {
        limit.rule: limit.code
        for limit in sorted(limited, reverse=True)
        if used.get((limit.rule, limit.code.value, limit.period), 0) >= limit.most
    }
