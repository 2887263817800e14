"""Agreements, consents and departments: who may change what. A change is committed before it is answered."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec

from bus.db import queries
from bus.gateway import revisions
from bus.gateway.revisions import Rule
from consent.model import Agreement, AgreementState, Consent, ConsentState, Ground, Status
from consent.purposes import PURPOSES
from schemas.catalogue import Catalogue, Item
from schemas.errors import Code, Malformed, Refused

LIST_LIMIT = 1_000
DEFAULT_MAX_AGE = 24 * 3600
MAX_LIST = 64

SQL = queries(Path(__file__).with_name("control.sql"))

Entry = Callable[[Rule], Sequence[bytes]]


class AgreementBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/agreements`: the provider is who signs the request."""

    consumer: str
    item: str
    sections: list[str]
    purposes: list[str]
    grounds: list[Ground]
    valid_from: date
    valid_until: date | None = None
    regions: list[str] = []
    duties: list[str] = []
    records_a_day: int | None = None
    max_age: int = DEFAULT_MAX_AGE
    statuses: list[Status] = []
    superseded: bool = False


class SubjectBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A subject by plain id: only ever in a body, never in a URL or a log line."""

    kind: str
    id: str


class ConsentBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/consents`: recorded by who signs the request, who is not the recipient."""

    subject: SubjectBody
    recipient: str
    item: str
    purposes: list[str]
    sections: list[str]
    valid_from: date
    sensitive: list[str] = []
    valid_until: date | None = None
    max_uses: int | None = None
    evidence: str = ""


async def add_org(
    connection: asyncpg.Connection, uscc: str, name: str, *, auditor: bool = False, portal: bool = False
) -> None:
    """A department that joins, or joins again. Raises `Refused` (STATE_INVALID) if another has its name."""
    try:
        await connection.execute(SQL["add_org"], uscc, name, auditor, portal)
    except asyncpg.UniqueViolationError as exc:
        raise Refused(Code.STATE_INVALID, f"another department is called {name}") from exc


async def add_issuer(connection: asyncpg.Connection, item: str, uscc: str, region: str) -> None:
    """`region` is a GB/T 2260 prefix of 2, 4 or 6 digits, or empty for the whole country."""
    if region and (not region.isdigit() or len(region) not in (2, 4, 6)):
        raise Malformed(Code.REGION_UNKNOWN, f"{region} is not a division prefix of 2, 4 or 6 digits")
    await connection.execute(SQL["add_issuer"], item, uscc, region)


async def orgs(connection: asyncpg.Connection) -> list[dict[str, Any]]:
    """Everyone who has joined: uscc, name, suspended, auditor, portal, and `issues` as `item` or `item:division`."""
    return [dict(row) for row in await connection.fetch(SQL["orgs"])]


async def make_agreement(
    connection: asyncpg.Connection, catalogue: Catalogue, caller: str, body: AgreementBody
) -> Agreement:
    """An agreement that `caller`, an issuer of the item, makes with a consumer. Checked, not stored yet."""
    item = catalogue.item(body.item)
    _check_names(item, body.sections, body.purposes)
    if body.sections == [] or not body.grounds:
        raise Malformed(Code.REQUEST_MALFORMED, "an agreement names at least one section and one ground")
    if not all(prefix.isdigit() and len(prefix) in (2, 4, 6) for prefix in body.regions):
        raise Malformed(Code.REGION_UNKNOWN, "regions are division prefixes of 2, 4 or 6 digits")
    if Ground.STATUTORY_DUTY in body.grounds and not body.duties:
        raise Malformed(Code.REQUEST_MALFORMED, "an agreement on statutory duty cites the duties")
    _check_period(body.valid_from, body.valid_until)
    _check_positive(body.records_a_day, body.max_age)
    if not await connection.fetchval(SQL["issues"], item.name, caller):
        raise Refused(Code.REQUEST_FORBIDDEN, f"{caller} does not issue {item.name}: only its issuer shares it")
    await _check_known(connection, body.consumer)
    return Agreement(
        id=uuid4(),
        revision=1,
        provider=caller,
        consumer=body.consumer,
        item=item.name,
        sections=frozenset(body.sections),
        purposes=frozenset(body.purposes),
        regions=frozenset(body.regions),
        grounds=frozenset(body.grounds),
        duties=frozenset(body.duties),
        valid_from=body.valid_from,
        valid_until=body.valid_until,
        records_a_day=body.records_a_day,
        max_age=body.max_age,
        statuses=frozenset(body.statuses),
        superseded=body.superseded,
        state=AgreementState.ACTIVE,
    )


async def store_agreement(connection: asyncpg.Connection, agreement: Agreement) -> None:
    """In force when it returns."""
    await connection.execute(
        SQL["put_agreement"],
        agreement.id,
        agreement.revision,
        agreement.provider,
        agreement.consumer,
        agreement.item,
        agreement.state.value,
        json.dumps(agreement.to_json()),
    )


async def end_agreement(connection: asyncpg.Connection, caller: str, agreement_id: UUID, entry: Entry) -> Agreement:
    """Either party ends it. Ended twice is refused, so that nobody believes to have ended it first.

    `entry` makes the log values that are kept in the same transaction.
    """
    async with connection.transaction():
        body = await connection.fetchval(SQL["lock_agreement"], agreement_id)
        agreement = None if body is None else Agreement.from_json(json.loads(body))
        if agreement is None or caller not in (agreement.provider, agreement.consumer):
            raise Refused(Code.NOT_FOUND, "you have no agreement of this id")
        if agreement.state is AgreementState.TERMINATED:
            raise Refused(Code.STATE_INVALID, "the agreement has ended already")
        ended = replace(agreement, state=AgreementState.TERMINATED, revision=agreement.revision + 1)
        await connection.execute(
            SQL["change_agreement"], ended.id, ended.revision, ended.state.value, json.dumps(ended.to_json())
        )
        await revisions.keep(connection, entry(ended))
    return ended


async def agreements(connection: asyncpg.Connection, caller: str, agreement_id: UUID | None) -> list[Agreement]:
    """The caller's own, on either side."""
    rows = await connection.fetch(SQL["agreements_of"], caller, agreement_id, LIST_LIMIT)
    if agreement_id is not None and not rows:
        raise Refused(Code.NOT_FOUND, "you have no agreement of this id")
    return [Agreement.from_json(json.loads(row["body"])) for row in rows]


async def make_consents(
    connection: asyncpg.Connection, catalogue: Catalogue, caller: str, bodies: Sequence[tuple[ConsentBody, bytes]]
) -> list[Consent]:
    """Consents from `(body, subject's pseudonym)`. Checked, not stored yet."""
    made = []
    for body, pseudonym in bodies:
        item = catalogue.item(body.item)
        _check_names(item, body.sections, body.purposes)
        if not body.sections or not body.purposes or not set(body.sensitive) <= set(body.sections):
            raise Malformed(
                Code.REQUEST_MALFORMED, "a consent names sections and purposes; sensitive ones are among them"
            )
        _check_period(body.valid_from, body.valid_until)
        _check_positive(body.max_uses)
        if body.recipient == caller:
            raise Refused(Code.REQUEST_FORBIDDEN, "who receives the data does not record the consent to it")
        await _check_known(connection, body.recipient)
        made.append(
            Consent(
                id=uuid4(),
                revision=1,
                subject=pseudonym,
                recipient=body.recipient,
                item=item.name,
                purposes=frozenset(body.purposes),
                sections=frozenset(body.sections),
                sensitive=frozenset(body.sensitive),
                valid_from=body.valid_from,
                valid_until=body.valid_until,
                max_uses=body.max_uses,
                recorded_by=caller,
                evidence=body.evidence,
                state=ConsentState.ACTIVE,
            )
        )
    return made


async def store_consents(connection: asyncpg.Connection, consents: Sequence[Consent]) -> None:
    """In force when it returns, all or none."""
    rows = [
        (c.id, c.revision, c.subject, c.recipient, c.item, c.state.value, json.dumps(c.to_json())) for c in consents
    ]
    async with connection.transaction():
        await connection.executemany(SQL["put_consent"], rows)


async def withdraw_consent(connection: asyncpg.Connection, caller: str, consent_id: UUID, entry: Entry) -> Consent:
    """Withdrawal is as easy as giving (PIPL art. 15): who recorded it, its recipient or an issuer of the item takes it.

    `entry` makes the log values that are kept in the same transaction.
    """
    async with connection.transaction():
        body = await connection.fetchval(SQL["lock_consent"], consent_id)
        consent = None if body is None else Consent.from_json(json.loads(body))
        if consent is None or not await _party(connection, caller, consent):
            raise Refused(Code.NOT_FOUND, "you have no consent of this id")
        if consent.state is ConsentState.WITHDRAWN:
            raise Refused(Code.STATE_INVALID, "the consent is withdrawn already")
        withdrawn = replace(consent, state=ConsentState.WITHDRAWN, revision=consent.revision + 1)
        await connection.execute(
            SQL["change_consent"],
            withdrawn.id,
            withdrawn.revision,
            withdrawn.state.value,
            json.dumps(withdrawn.to_json()),
        )
        await revisions.keep(connection, entry(withdrawn))
    return withdrawn


async def consent(connection: asyncpg.Connection, caller: str, consent_id: UUID) -> Consent:
    """One consent, for its parties. Raises `Refused` (NOT_FOUND) for everybody else."""
    body = await connection.fetchval(SQL["consent"], consent_id)
    found = None if body is None else Consent.from_json(json.loads(body))
    if found is None or not await _party(connection, caller, found):
        raise Refused(Code.NOT_FOUND, "you have no consent of this id")
    return found


async def consents_of(connection: asyncpg.Connection, caller: str, pseudonym: bytes) -> list[Consent]:
    """A subject's consents that the caller is a party to."""
    rows = await connection.fetch(SQL["consents_of"], pseudonym, LIST_LIMIT)
    found = [Consent.from_json(json.loads(row["body"])) for row in rows]
    return [one for one in found if await _party(connection, caller, one)]


async def is_auditor(connection: asyncpg.Connection, caller: str) -> bool:
    """Whether a department may read the whole trail."""
    return bool(await connection.fetchval(SQL["is_auditor"], caller))


async def is_portal(connection: asyncpg.Connection, caller: str) -> bool:
    """Whether persons and firms ask through a department who has opened their data."""
    return bool(await connection.fetchval(SQL["is_portal"], caller))


async def _party(connection: asyncpg.Connection, caller: str, consent: Consent) -> bool:
    if caller in (consent.recorded_by, consent.recipient):
        return True
    return bool(await connection.fetchval(SQL["issues"], consent.item, caller))


async def _check_known(connection: asyncpg.Connection, uscc: str) -> None:
    if not await connection.fetchval(SQL["known"], uscc):
        raise Refused(Code.CONSUMER_UNKNOWN, f"no department of code {uscc} has joined the bus")


def _check_names(item: Item, sections: Sequence[str], purposes: Sequence[str]) -> None:
    if len(sections) > MAX_LIST or len(purposes) > MAX_LIST:
        raise Malformed(Code.REQUEST_MALFORMED, f"at most {MAX_LIST} sections and purposes")
    for section in sections:
        if section not in item.sections:
            raise Malformed(Code.SECTION_UNKNOWN, f"{item.name} has no section {section!r:.80}")
    for purpose in purposes:
        if purpose not in PURPOSES:
            raise Malformed(Code.REQUEST_MALFORMED, f"unknown purpose {purpose!r:.80}: see consent/purposes.toml")


def _check_period(first: date, last: date | None) -> None:
    if last is not None and last < first:
        raise Malformed(Code.REQUEST_MALFORMED, "valid_until is before valid_from")


def _check_positive(*numbers: Any) -> None:
    if any(number is not None and number < 1 for number in numbers):
        raise Malformed(Code.REQUEST_MALFORMED, "limits are at least 1")
