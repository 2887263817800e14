"""Agreements, consents, and what a decision is made of. Frozen values; no I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date
from enum import StrEnum
from typing import Any, Self
from uuid import UUID

from schemas.errors import Code, Malformed
from schemas.operations import Operation


class Ground(StrEnum):
    """Legal grounds of PIPL (个人信息保护法) art. 13 that the bus serves today."""

    STATUTORY_DUTY = "STATUTORY_DUTY"  # 法定职责, art. 13 (3): needs no consent, but an agreement that names the duty
    CONSENT = "CONSENT"  # 同意, art. 13 (1)


class Status(StrEnum):
    """A licence's state. 撤销 (void from the start) is not 注销 (ends now) is not 吊销 (penalty)."""

    VALID = "VALID"
    NOT_ACTIVE = "NOT_ACTIVE"
    SUSPENDED = "SUSPENDED"
    CANCELLED = "CANCELLED"
    REVOKED = "REVOKED"
    PUNISHED = "PUNISHED"
    EXPIRED = "EXPIRED"
    ERASED = "ERASED"


class AgreementState(StrEnum):
    """Only ACTIVE opens anything; TERMINATED is final."""

    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"
    TERMINATED = "TERMINATED"


class ConsentState(StrEnum):
    """WITHDRAWN is final: who changes their mind consents anew."""

    ACTIVE = "ACTIVE"
    WITHDRAWN = "WITHDRAWN"


class RecordState(StrEnum):
    """What the index says of a record."""

    ADMITTED = "ADMITTED"
    WAITING = "WAITING"
    CONFLICT = "CONFLICT"
    REFUSED = "REFUSED"


_AFTER = {
    Operation.SUSPENDED: Status.SUSPENDED,
    Operation.CANCELLED: Status.CANCELLED,
    Operation.REVOKED: Status.REVOKED,
    Operation.PUNISHED: Status.PUNISHED,
    Operation.ERASED: Status.ERASED,
}


def status_after(operation: Operation) -> Status:
    """The licence's state once this operation is its newest."""
    return _AFTER.get(operation, Status.VALID)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Document:
    """A value that is stored as JSON: strict both ways."""

    def to_json(self) -> dict[str, Any]:
        return {field.name: _to_json(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Raises `Malformed` (DATA_CORRUPT): only this class writes such documents."""
        try:
            if len(document) != len(fields(cls)):
                raise ValueError("an entry that is not known")
            return cls(**{field.name: _reader(cls, field.name)(document[field.name]) for field in fields(cls)})
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise Malformed(Code.DATA_CORRUPT, f"a stored {cls.__name__.lower()} cannot be read") from exc


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement(_Document):
    """A sharing agreement between a provider and a consumer over one item.

    `regions` are GB/T 2260 prefixes, none meaning everywhere; `duties` the citations that count as a statutory duty;
    `statuses` are those besides VALID that may still be opened, never ERASED; `superseded` allows older versions;
    `max_age` is how many seconds a subscriber may keep a secret.
    """

    id: UUID
    revision: int
    provider: str
    consumer: str
    item: str
    sections: frozenset[str]
    purposes: frozenset[str]
    regions: frozenset[str]
    grounds: frozenset[Ground]
    duties: frozenset[str]
    valid_from: date
    valid_until: date | None
    records_a_day: int | None
    max_age: int
    statuses: frozenset[Status]
    superseded: bool
    state: AgreementState


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent(_Document):
    """One subject's consent for one recipient, item and purposes (PIPL art. 23: recipient, purpose, kind of data).

    `subject` is the pseudonym under the item's key; `sensitive` are the sections separately consented to
    (单独同意, art. 29); `evidence` the SHA-256 of the signed form in hex, or empty.
    """

    id: UUID
    revision: int
    subject: bytes
    recipient: str
    item: str
    purposes: frozenset[str]
    sections: frozenset[str]
    sensitive: frozenset[str]
    valid_from: date
    valid_until: date | None
    max_uses: int | None
    recorded_by: str
    evidence: str
    state: ConsentState


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who asks, for what, on which ground. `ground` is as received: an unknown one is refused, not guessed."""

    consumer: str
    purpose: str
    ground: str
    citation: str
    case: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFacts:
    """What the index says of the record at hand.

    `holders` are the pseudonyms of holder and co-holders; `refusal` is why a REFUSED record was not admitted.
    """

    state: RecordState
    item: str
    issuer: str
    region: str
    holders: tuple[bytes, ...]
    known_schema: bool
    status: Status
    valid_from: date | None
    valid_until: date | None
    superseded: bool
    refusal: Code = Code.NOT_ADMITTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the database says of the parties. `used_up` are agreements and consents whose limit is reached."""

    consumer_known: bool
    consumer_suspended: bool
    index_fresh: bool
    audit_current: bool
    agreements: tuple[Agreement, ...]
    consents: tuple[Consent, ...]
    used_up: frozenset[UUID]


@dataclass(frozen=True, slots=True)
class SectionDecision:
    """One section's answer. `rule` names what decided, `<kind>:<id>@<revision>`; a permit always has one."""

    section: str
    code: Code
    rule: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Every section asked for, once, with its code. `agreements` and `consents` are all that the permits rest on."""

    sections: tuple[SectionDecision, ...]
    agreements: tuple[Agreement, ...] = ()
    consents: tuple[Consent, ...] = ()

    @property
    def permitted(self) -> tuple[str, ...]:
        """The names of the sections that may be opened, in the order asked."""
        return tuple(s.section for s in self.sections if s.code is Code.PERMIT)

    def refused(self, code: Code) -> Decision:
        """The same decision with every permit taken back."""
        sections = tuple(
            SectionDecision(s.section, code, s.rule) if s.code is Code.PERMIT else s for s in self.sections
        )
        return Decision(sections=sections)


def _to_json(value: Any) -> Any:
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, UUID):
        return str(value)
    return value.isoformat() if isinstance(value, date) else value


def _exactly(kind: type) -> Any:
    """A JSON value of this type and no other: `True` is no number, "false" no truth, a text no list of letters."""

    def read(value: Any) -> Any:
        if type(value) is not kind:
            raise TypeError(f"{kind.__name__} expected")
        return value

    return read


_text, _number, _flag, _list = _exactly(str), _exactly(int), _exactly(bool), _exactly(list)


def _optional(read: Any) -> Any:
    return lambda value: None if value is None else read(value)


def _names(kind: Any) -> Any:
    return lambda values: frozenset(kind(_text(one)) for one in _list(values))


def _hex(value: Any) -> bytes:
    read = bytes.fromhex(_text(value))
    if read.hex() != value:
        raise ValueError("bytes are written in lower-case hex")
    return read


def _day(value: Any) -> date:
    day = date.fromisoformat(_text(value))
    if day.isoformat() != value:
        raise ValueError("a day is written YYYY-MM-DD")
    return day


_READERS: Mapping[str, Any] = {
    "id": lambda value: UUID(_text(value)),
    "revision": _number,
    "provider": _text,
    "consumer": _text,
    "item": _text,
    "sections": _names(str),
    "purposes": _names(str),
    "regions": _names(str),
    "grounds": _names(Ground),
    "duties": _names(str),
    "valid_from": _day,
    "valid_until": _optional(_day),
    "records_a_day": _optional(_number),
    "max_age": _number,
    "statuses": _names(Status),
    "superseded": _flag,
    "subject": _hex,
    "recipient": _text,
    "sensitive": _names(str),
    "max_uses": _optional(_number),
    "recorded_by": _text,
    "evidence": _text,
}


def _reader(document: type[_Document], name: str) -> Any:
    if name == "state":
        return AgreementState if document is Agreement else ConsentState
    return _READERS[name]
