"""The decision: which sections of a record one consumer may open, for what, on which ground.

Denial is the default and every answer names its code. The order is the architecture's: the consumer (a stranger is told
nothing of records), the record, the item and its sections, the agreement, the ground, the record's state. Pure: facts
and the time come in.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta, timezone
from functools import lru_cache
from uuid import UUID

from consent.model import (
    Access,
    Agreement,
    AgreementState,
    Consent,
    ConsentState,
    Decision,
    Facts,
    Ground,
    RecordFacts,
    RecordState,
    SectionDecision,
    Status,
)
from schemas.catalogue import Item, ShareClass
from schemas.errors import Code

CHINA = timezone(timedelta(hours=8))  # civil dates of licences, agreements and consents

_STATUS_CODES = {
    Status.NOT_ACTIVE: Code.STATUS_NOT_ACTIVE,
    Status.SUSPENDED: Code.STATUS_SUSPENDED,
    Status.CANCELLED: Code.STATUS_CANCELLED,
    Status.REVOKED: Code.STATUS_REVOKED,
    Status.PUNISHED: Code.STATUS_PUNISHED,
    Status.EXPIRED: Code.STATUS_EXPIRED,
    Status.ERASED: Code.STATUS_ERASED,
}
# How far each refusal got, for 'the nearest miss': of several candidates the one that failed last is reported.
_AGREEMENT_STEPS = (
    Code.AGREEMENT_NONE,
    Code.AGREEMENT_ENDED,
    Code.AGREEMENT_REGION,
    Code.AGREEMENT_PURPOSE,
    Code.AGREEMENT_SECTION,
    Code.RATE_EXCEEDED,
    Code.GROUND_UNKNOWN,
    Code.GROUND_NOT_AGREED,
    Code.DUTY_NOT_NAMED,
    Code.CONSENT_NONE,
    Code.CONSENT_WITHDRAWN,
    Code.CONSENT_EXPIRED,
    Code.CONSENT_PURPOSE,
    Code.CONSENT_SECTION,
    Code.CONSENT_SENSITIVE,
    Code.CONSENT_USED_UP,
    Code.SUPERSEDED,
    *_STATUS_CODES.values(),
    Code.UNDECIDABLE,
)
_REACHED = {code: step for step, code in enumerate(_AGREEMENT_STEPS)}


def decide(
    item: Item | None,
    access: Access,
    sections: Sequence[str],
    record: RecordFacts,
    facts: Facts,
    now: datetime,
) -> Decision:
    """One code for each section asked for, however often it is named. `now` is aware; civil days are in UTC+8."""
    sections = tuple(dict.fromkeys(sections))
    whole = _refuse_all(item, record, facts)
    if whole is not None or item is None:
        return _all(sections, whole or Code.ITEM_UNKNOWN)
    today = now.astimezone(CHINA).date()
    status = _status(record, today)
    decided: list[SectionDecision] = []
    agreements: dict[UUID, Agreement] = {}
    used: dict[UUID, Consent] = {}
    for name in sections:
        section = item.sections.get(name)
        if section is None:
            decided.append(SectionDecision(name, Code.SECTION_UNKNOWN, ""))
        elif section.share is ShareClass.NONE:
            decided.append(SectionDecision(name, Code.SECTION_NOT_SHARED, f"catalogue:{item.name}"))
        elif section.share is ShareClass.UNCONDITIONAL:
            code = _state_code(status, record.superseded, None)
            decided.append(SectionDecision(name, code, f"catalogue:{item.name}"))
        else:
            code, rule, chosen, consents = _conditional(name, section.sensitive, access, record, facts, status, today)
            decided.append(SectionDecision(name, code, rule))
            if chosen is not None:
                agreements[chosen.id] = chosen
                used.update((consent.id, consent) for consent in consents)
    return Decision(sections=tuple(decided), agreements=tuple(agreements.values()), consents=tuple(used.values()))


def _refuse_all(item: Item | None, record: RecordFacts, facts: Facts) -> Code | None:
    """What refuses every section alike."""
    if not facts.consumer_known:
        return Code.CONSUMER_UNKNOWN
    if facts.consumer_suspended:
        return Code.CONSUMER_SUSPENDED
    if not facts.audit_current:
        return Code.AUDIT_STALLED
    if not facts.index_fresh:
        return Code.INDEX_STALE
    if record.state is RecordState.WAITING:
        return Code.NOT_ADMITTED
    if record.state is RecordState.REFUSED:
        return record.refusal
    if record.state is RecordState.CONFLICT:
        return Code.CONFLICT
    if item is None or item.name != record.item:
        return Code.ITEM_UNKNOWN
    return None if record.known_schema else Code.SCHEMA_UNKNOWN


@lru_cache(maxsize=1_024)
def _named(agreement: UUID, revision: int) -> str:
    """An agreement as the trail names it. One decides thousands of sections: its name is made once."""
    return f"agreement:{agreement}@{revision}"


def _conditional(
    name: str, sensitive: bool, access: Access, record: RecordFacts, facts: Facts, status: Status, today: date
) -> tuple[Code, str, Agreement | None, tuple[Consent, ...]]:
    """A section under conditions: the first agreement that permits, else the nearest miss."""
    miss: tuple[Code, str] = (Code.AGREEMENT_NONE, "")
    for agreement in facts.agreements:
        code, consents = _under(agreement, name, sensitive, access, record, facts, status, today)
        rule = _named(agreement.id, agreement.revision)
        if code is Code.PERMIT:
            return code, " ".join((rule, *(f"consent:{c.id}@{c.revision}" for c in consents))), agreement, consents
        if _REACHED[code] > _REACHED[miss[0]] or not miss[1]:
            miss = (code, rule)
    return *miss, None, ()


def _under(
    agreement: Agreement,
    name: str,
    sensitive: bool,
    access: Access,
    record: RecordFacts,
    facts: Facts,
    status: Status,
    today: date,
) -> tuple[Code, tuple[Consent, ...]]:
    code = _agreement_code(agreement, name, access, record, facts, today)
    if code is not Code.PERMIT:
        return code, ()
    consents: tuple[Consent, ...] = ()
    if access.ground == Ground.STATUTORY_DUTY:
        if Ground.STATUTORY_DUTY not in agreement.grounds:
            return Code.GROUND_NOT_AGREED, ()
        if not access.citation or access.citation not in agreement.duties:
            return Code.DUTY_NOT_NAMED, ()
    elif access.ground == Ground.CONSENT:
        if Ground.CONSENT not in agreement.grounds:
            return Code.GROUND_NOT_AGREED, ()
        code, consents = _consents(name, sensitive, access, record, facts, today)
        if code is not Code.PERMIT:
            return code, ()
    else:
        return Code.GROUND_UNKNOWN, ()
    return _state_code(status, record.superseded, agreement), consents


def _agreement_code(
    agreement: Agreement, name: str, access: Access, record: RecordFacts, facts: Facts, today: date
) -> Code:
    if (agreement.provider, agreement.consumer, agreement.item) != (record.issuer, access.consumer, record.item):
        return Code.AGREEMENT_NONE
    if agreement.state is not AgreementState.ACTIVE or not _covers(agreement.valid_from, agreement.valid_until, today):
        return Code.AGREEMENT_ENDED
    if agreement.regions and not any(prefix and record.region.startswith(prefix) for prefix in agreement.regions):
        return Code.AGREEMENT_REGION
    if access.purpose not in agreement.purposes:
        return Code.AGREEMENT_PURPOSE
    if name not in agreement.sections:
        return Code.AGREEMENT_SECTION
    return Code.RATE_EXCEEDED if agreement.id in facts.used_up else Code.PERMIT


def _consents(
    name: str, sensitive: bool, access: Access, record: RecordFacts, facts: Facts, today: date
) -> tuple[Code, tuple[Consent, ...]]:
    """A consent of every holder: a co-owner's is not another's to give."""
    if not record.holders:
        return Code.CONSENT_NONE, ()
    found: list[Consent] = []
    for holder in record.holders:
        nearest = Code.CONSENT_NONE
        for consent in facts.consents:
            if (consent.subject, consent.recipient, consent.item) != (holder, access.consumer, record.item):
                continue
            code = _consent_code(consent, name, sensitive, access, facts, today)
            if code is Code.PERMIT:
                found.append(consent)
                break
            if _REACHED[code] > _REACHED[nearest]:
                nearest = code
        else:
            return nearest, ()
    return Code.PERMIT, tuple(found)


def _consent_code(consent: Consent, name: str, sensitive: bool, access: Access, facts: Facts, today: date) -> Code:
    if consent.state is not ConsentState.ACTIVE:
        return Code.CONSENT_WITHDRAWN
    if not _covers(consent.valid_from, consent.valid_until, today):
        return Code.CONSENT_EXPIRED
    if access.purpose not in consent.purposes:
        return Code.CONSENT_PURPOSE
    if name not in consent.sections:
        return Code.CONSENT_SECTION
    if sensitive and name not in consent.sensitive:
        return Code.CONSENT_SENSITIVE
    return Code.CONSENT_USED_UP if consent.id in facts.used_up else Code.PERMIT


def _status(record: RecordFacts, today: date) -> Status:
    """Expiry comes by the clock, without an event; what ended otherwise stays what it is."""
    if record.status is not Status.VALID:
        return record.status
    if record.valid_from is not None and today < record.valid_from:
        return Status.NOT_ACTIVE
    if record.valid_until is not None and today > record.valid_until:
        return Status.EXPIRED
    return Status.VALID


def _state_code(status: Status, superseded: bool, agreement: Agreement | None) -> Code:
    """What agreements may allow beside the newest, valid version. Nobody can agree to open what was erased."""
    if status is Status.ERASED:
        return Code.STATUS_ERASED
    if superseded and not (agreement is not None and agreement.superseded):
        return Code.SUPERSEDED
    if status is Status.VALID or (agreement is not None and status in agreement.statuses):
        return Code.PERMIT
    return _STATUS_CODES.get(status, Code.UNDECIDABLE)


def _covers(first: date, last: date | None, today: date) -> bool:
    return first <= today and (last is None or today <= last)


def _all(sections: Sequence[str], code: Code) -> Decision:
    return Decision(sections=tuple(SectionDecision(name, code, "") for name in sections))
