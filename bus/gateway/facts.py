"""The facts of a decision, from PostgreSQL's primary: a fixed number of queries however many records are asked for.

Decisions are never cached. What is cached are parsed agreements and consents: a revision never changes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import asyncpg

from bus.db import queries
from bus.envelope import Claims
from consent.decide import CHINA
from consent.model import Agreement, Consent, Decision, Facts, RecordFacts, RecordState, Status
from schemas.catalogue import Catalogue
from schemas.errors import Code

FRESH = timedelta(seconds=30)  # the recorder says each second that it goes on; thirty missed ones are a stop
STALL = timedelta(seconds=30)  # nobody can check a release that no checkpoint covers: the log's promise is this long
PARSED = 65_536  # revisions kept parsed: about 1 KiB each
EVER = date(1970, 1, 1)  # the period of a limit over all time

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
class Found:
    """Facts of a whole request, by record."""

    consumer_known: bool
    consumer_suspended: bool
    index_fresh: bool
    audit_current: bool
    records: Mapping[bytes, Any]
    agreements: Mapping[tuple[str, str], tuple[Agreement, ...]]
    consents: Mapping[tuple[bytes, str], tuple[Consent, ...]]
    used_up: frozenset[UUID]

    def state(self, asked: Asked) -> RecordState:
        """What the index says of a record."""
        return _state(self.records.get(asked.leaf_hash))

    def of(self, asked: Asked, catalogue: Catalogue) -> tuple[RecordFacts, Facts]:
        """The facts of one record. Claims count only as far as the index has admitted exactly them."""
        claims, holders = asked.claims, asked.holders
        item = catalogue.items.get(claims.item)
        row = self.records.get(asked.leaf_hash)
        record = RecordFacts(
            state=_state(row),
            item=claims.item,
            issuer=claims.issuer,
            region=claims.region,
            holders=holders,
            known_schema=item is not None and claims.schema in item.schemas,
            status=Status.VALID if row is None else Status(row["status"]),
            valid_from=None if row is None else row["valid_from"],
            valid_until=None if row is None else row["valid_until"],
            superseded=row is not None and row["newest"] > row["sequence"],
            refusal=Code.NOT_ADMITTED if row is None or row["refusal"] is None else Code(row["refusal"]),
        )
        facts = Facts(
            consumer_known=self.consumer_known,
            consumer_suspended=self.consumer_suspended,
            index_fresh=self.index_fresh,
            audit_current=self.audit_current,
            agreements=self.agreements.get((claims.issuer, claims.item), ()),
            consents=tuple(c for holder in holders for c in self.consents.get((holder, claims.item), ())),
            used_up=self.used_up,
        )
        return record, facts


async def judged(connection: asyncpg.Connection, leaf_hashes: Sequence[bytes]) -> bool:
    """Whether the recorder has admitted or refused every one of these, or found it in conflict."""
    return bool(await connection.fetchval(SQL["judged"], leaf_hashes))


async def seconds_to_stall(connection: asyncpg.Connection) -> float:
    """How long until keys stop for want of a checkpoint (AUDIT_STALLED); 0 if they have."""
    return float(await connection.fetchval(SQL["seconds_to_stall"], STALL))


async def load(connection: asyncpg.Connection, consumer: str, asked: Sequence[Asked], now: datetime) -> Found:
    """Everything that `decide` needs for these reads."""
    claims = [one.claims for one in asked]
    org = await connection.fetchrow(SQL["consumer"], consumer, FRESH, STALL)
    records = await connection.fetch(SQL["records"], [one.leaf_hash for one in asked])
    providers = {(c.issuer, c.item) for c in claims}
    agreements = await connection.fetch(
        SQL["agreements"], consumer, [provider for provider, _ in providers], [item for _, item in providers]
    )
    holders = {(holder, one.claims.item) for one in asked for holder in one.holders}
    consents = await connection.fetch(
        SQL["consents"], consumer, [holder for holder, _ in holders], [item for _, item in holders]
    )
    by_provider = _grouped(agreements, ("provider", "item"), _agreement)
    by_holder = _grouped(consents, ("subject", "item"), _consent)
    return Found(
        consumer_known=org["suspended"] is not None,
        consumer_suspended=bool(org["suspended"]),
        index_fresh=org["fresh"],
        audit_current=org["current"],
        records={row["leaf_hash"]: row for row in records},
        agreements=by_provider,
        consents=by_holder,
        used_up=await _used_up(connection, by_provider, by_holder, now),
    )


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
    costs = [
        [(_unit(request, one.leaf_hash, *key), key, limit, code) for key, limit, code in _costs(decision, now)]
        for one, decision in zip(asked, decisions, strict=True)
    ]
    units = {unit: (key, limit) for cost in costs for unit, key, limit, _ in cost}
    if not units:
        return list(decisions)
    async with connection.transaction():
        # In a fixed order, so that two gateways never wait for each other in a circle.
        rows = await connection.fetch(SQL["first_time"], consumer, sorted(units))
        unpaid = {row["request"] for row in rows}
        wanted = Counter(units[unit] for unit in unpaid)
        left: dict[tuple[UUID, date], int] = {}
        for key, limit in sorted(wanted):
            await connection.execute(SQL["open_usage"], *key)
            left[key] = await connection.fetchval(SQL["take"], *key, wanted[key, limit], limit)
    taken: list[Decision] = []
    for decision, cost in zip(decisions, costs, strict=True):
        due = [(unit, key, code) for unit, key, _, code in cost if unit in unpaid]
        short = next((code for _, key, code in due if left[key] < 1), None)
        if short is None:
            for unit, key, _ in due:
                left[key] -= 1
                unpaid.discard(unit)
        taken.append(decision if short is None else decision.refused(short))
    return taken


async def changed(
    connection: asyncpg.Connection, consumer: str, asked: Sequence[Asked], decisions: Sequence[Decision], found: Found
) -> set[int]:
    """Which decisions rest on something that is not as it was: the last look before keys leave.

    One statement a table, each its own snapshot: a withdrawal that was committed before this call is seen.
    """
    agreements = {a.id: a.revision for d in decisions for a in d.agreements}
    consents = {c.id: c.revision for d in decisions for c in d.consents}
    rows = await connection.fetch(SQL["revisions"], list(agreements), list(consents))
    standing = {(row["id"], row["revision"]) for row in rows}
    org = await connection.fetchrow(SQL["consumer"], consumer, FRESH, STALL)
    opened = [at for at, decision in enumerate(decisions) if decision.permitted]
    good = org["suspended"] is False and org["fresh"] and org["current"]
    if opened and not good:
        return set(opened)
    records = await connection.fetch(SQL["records"], [asked[at].leaf_hash for at in opened])
    now_found = {row["leaf_hash"]: row for row in records}
    return {
        at
        for at in opened
        if _moved(found.records.get(asked[at].leaf_hash), now_found.get(asked[at].leaf_hash))
        or any((rule.id, rule.revision) not in standing for rule in _rules(decisions[at]))
    }


def _rules(decision: Decision) -> list[Agreement | Consent]:
    return [*decision.agreements, *decision.consents]


def _moved(before: Any, after: Any) -> bool:
    if before is None or after is None:
        return before is not after
    return any(before[name] != after[name] for name in ("conflict", "status", "newest"))


def _state(row: Any) -> RecordState:
    if row is None:
        return RecordState.WAITING
    if row["refusal"] is not None:
        return RecordState.REFUSED
    return RecordState.CONFLICT if row["conflict"] else RecordState.ADMITTED


def _unit(request: bytes, record: bytes, rule: UUID, period: date) -> bytes:
    return sha256(b"".join((request, record, rule.bytes, period.isoformat().encode()))).digest()


def _costs(decision: Decision, now: datetime) -> list[tuple[tuple[UUID, date], int, Code]]:
    """(rule and period, limit, refusal) of each limited rule that the permits rest on: one unit a record."""
    today = now.astimezone(CHINA).date()
    costs: list[tuple[tuple[UUID, date], int, Code]] = []
    for agreement in decision.agreements:
        if agreement.records_a_day is not None:
            costs.append(((agreement.id, today), agreement.records_a_day, Code.RATE_EXCEEDED))
    for consent in decision.consents:
        if consent.max_uses is not None:
            costs.append(((consent.id, EVER), consent.max_uses, Code.CONSENT_USED_UP))
    return costs


async def _used_up(
    connection: asyncpg.Connection,
    agreements: Mapping[Any, Sequence[Agreement]],
    consents: Mapping[Any, Sequence[Consent]],
    now: datetime,
) -> frozenset[UUID]:
    today = now.astimezone(CHINA).date()
    limits = {(a.id, today): a.records_a_day for group in agreements.values() for a in group}
    limits |= {(c.id, EVER): c.max_uses for group in consents.values() for c in group}
    limited = {key: limit for key, limit in limits.items() if limit is not None}
    if not limited:
        return frozenset()
    rows = await connection.fetch(SQL["usage"], [rule for rule, _ in limited], [period for _, period in limited])
    used = {row["rule"]: row["used"] for row in rows}
    return frozenset(rule for (rule, _), limit in limited.items() if used.get(rule, 0) >= limit)


def _grouped(rows: Sequence[Any], names: tuple[str, str], read: Any) -> dict[Any, Any]:
    grouped: dict[Any, list[Any]] = {}
    for row in rows:
        grouped.setdefault((row[names[0]], row[names[1]]), []).append(read(row["id"], row["revision"], row["body"]))
    return {key: tuple(group) for key, group in grouped.items()}


@lru_cache(maxsize=PARSED)
def _agreement(_id: UUID, _revision: int, body: str) -> Agreement:
    return Agreement.from_json(json.loads(body))


@lru_cache(maxsize=PARSED)
def _consent(_id: UUID, _revision: int, body: str) -> Consent:
    return Consent.from_json(json.loads(body))
