"""What a decision is made of: agreements, consents, powers, mandates, the catalogue's entries, and facts.

Frozen values; no I/O, no clock. What a document says is its body (`consent.documents`), where it stands is its state,
and which states follow which stands in `consent.lifecycle`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from types import MappingProxyType
from typing import ClassVar, NamedTuple
from uuid import UUID

from consent.documents import Document, Part
from schemas.errors import Code
from schemas.operations import Operation


class Ground(StrEnum):
    """The legal grounds of PIPL (个人信息保护法) art. 13 (1), its items 1 to 7 (`consent/law.toml`)."""

    CONSENT = "CONSENT"  # ① 同意
    CONTRACT_OR_HR = "CONTRACT_OR_HR"  # ② 订立、履行合同或者人力资源管理所必需
    STATUTORY_DUTY = "STATUTORY_DUTY"  # ③ 法定职责或者法定义务: no consent, but an agreement that names the duty
    EMERGENCY = "EMERGENCY"  # ④ 突发公共卫生事件, 紧急情况
    NEWS = "NEWS"  # ⑤ 新闻报道、舆论监督
    SELF_PUBLISHED = "SELF_PUBLISHED"  # ⑥ 自行公开或者已经合法公开
    OTHER_LAW = "OTHER_LAW"  # ⑦ 法律、行政法规规定的其他情形


class Notice(StrEnum):
    """Whether the subject is told (告知): PIPL art. 17, and its exemptions in art. 18 and 35."""

    GIVEN = "GIVEN"  # art. 17
    EXEMPT_SECRECY = "EXEMPT_SECRECY"  # art. 18 (1): a law demands secrecy, or that nobody is told
    EXEMPT_DUTY = "EXEMPT_DUTY"  # art. 35: it would obstruct the duty
    LATER_EMERGENCY = "LATER_EMERGENCY"  # art. 18 (2): an emergency; told once it is over
    MISSING = "MISSING"  # not settled: nothing opens


class Mode(StrEnum):
    """How data is fetched (共享方式). STREAM allows QUERY, too."""

    QUERY = "QUERY"  # one licence at a time, for a case at hand
    STREAM = "STREAM"  # records as they are published


class Every(StrEnum):
    """The period of a frequency, by the calendar in UTC+8; a week begins on Monday."""

    DAY = "DAY"
    WEEK = "WEEK"
    MONTH = "MONTH"
    YEAR = "YEAR"


class Giver(StrEnum):
    """Who gave a consent."""

    SUBJECT = "SUBJECT"
    GUARDIAN = "GUARDIAN"  # 监护人: for a person under 14 (PIPL art. 31)


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
    """Only ACTIVE opens anything. REFUSED, EXPIRED and TERMINATED are final."""

    SUBMITTED = "SUBMITTED"  # 申请
    RETURNED = "RETURNED"  # 退回补正: once
    ACCEPTED = "ACCEPTED"  # 受理
    REFUSED = "REFUSED"  # 不予共享, with a reason
    APPROVED = "APPROVED"  # 同意共享
    PROVISIONED = "PROVISIONED"  # 提供: the provider has made the data ready
    ACTIVE = "ACTIVE"  # 使用
    SUSPENDED = "SUSPENDED"  # 暂停
    EXPIRED = "EXPIRED"  # 到期
    TERMINATED = "TERMINATED"  # 终止


class ConsentState(StrEnum):
    """Only ACTIVE allows anything. DECLINED, WITHDRAWN and EXPIRED are final: who changes their mind consents anew."""

    REQUESTED = "REQUESTED"  # 待确认
    DECLINED = "DECLINED"  # 拒绝
    ACTIVE = "ACTIVE"  # 有效
    PAUSED = "PAUSED"  # 暂停
    WITHDRAWN = "WITHDRAWN"  # 撤回
    EXPIRED = "EXPIRED"  # 到期


class PowerState(StrEnum):
    """Of powers and mandates. ENDED and EXPIRED are final."""

    ACTIVE = "ACTIVE"
    ENDED = "ENDED"  # 收回
    EXPIRED = "EXPIRED"  # 到期


class EntryState(StrEnum):
    """Of the catalogue's entries. Records travel under PUBLISHED entries alone; RETIRED is final."""

    DRAFT = "DRAFT"  # 编制
    REVIEWED = "REVIEWED"  # 审核
    PUBLISHED = "PUBLISHED"  # 发布
    RETIRED = "RETIRED"  # 停用


class CorrectionState(StrEnum):
    """Of a doubt about a record (校核). FIXED and CONFIRMED are final."""

    REQUESTED = "REQUESTED"
    FIXED = "FIXED"  # 已更正
    CONFIRMED = "CONFIRMED"  # 核实无误


class DisputeState(StrEnum):
    """Of a dispute (争议) over an agreement. SETTLED and DECIDED are final."""

    DISPUTED = "DISPUTED"  # 协商
    SETTLED = "SETTLED"  # 协商一致
    COORDINATED = "COORDINATED"  # 主管部门协调
    DECIDED = "DECIDED"  # 政府决定


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
class Agreement(Document):
    """A sharing agreement (共享协议) over one item.

    `basis` 使用依据, `scenario` 应用场景, `mode` 共享方式; `regions` are GB/T 2260 prefixes, none meaning everywhere;
    `duties` the citations that a request may rest on; `purpose_until` the day on which its purpose is reached;
    `max_age` how many seconds a subscriber may keep a secret, `data_life` how many days opened data; `statuses` those
    besides VALID that may still be opened, never ERASED; `superseded` allows older versions; `onward` the departments
    to which the consumer may pass data on; `set_limit` how many records one set grant may hold, until `set_until`.
    """

    kind: ClassVar[str] = "agreement"

    provider: str
    consumer: str
    item: str
    basis: str
    scenario: str
    mode: Mode
    sections: frozenset[str]
    purposes: frozenset[str]
    regions: frozenset[str]
    grounds: frozenset[Ground]
    duties: frozenset[str]
    notice: Notice
    valid_from: date
    valid_until: date | None
    purpose_until: date | None
    requests_a_day: int | None
    records_a_day: int | None
    max_age: int
    data_life: int | None
    statuses: frozenset[Status]
    superseded: bool
    onward: frozenset[str]
    set_limit: int | None
    set_until: date | None
    state: AgreementState


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope(Part):
    """What a consent allows of one item. `subject` is the pseudonym under the item's key; `sensitive` are the sections
    separately consented to (单独同意, PIPL art. 29).
    """

    item: str
    subject: bytes
    sections: frozenset[str]
    sensitive: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frequency(Part):
    """At most so many uses in each period."""

    uses: int
    every: Every


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent(Document):
    """One subject's consent for one recipient (PIPL art. 23: recipient, purpose, kinds of data).

    `agreements` are the hashes (hex) of those that it was given under: another agreement needs another consent (art.
    14). `minor_until` is the day on which the subject turns 14. `evidence` is the SHA-256 of the signed form in hex,
    or empty.
    """

    kind: ClassVar[str] = "consent"

    recipient: str
    purposes: frozenset[str]
    scopes: tuple[Scope, ...]
    agreements: frozenset[str]
    mode: Mode
    valid_from: date
    valid_until: date | None
    frequency: Frequency | None
    max_uses: int | None
    data_life: int | None
    notice: Notice
    given_by: Giver
    minor_until: date | None
    recorded_by: str
    evidence: str
    state: ConsentState


class PowerKind(StrEnum):
    """What a power is for."""

    ISSUE = "ISSUE"  # to issue an item's records: by law (权力清单), or delegated
    OPEN = "OPEN"  # to open what the grantor's agreements share


@dataclass(frozen=True, slots=True, kw_only=True)
class Power(Document):
    """A power (授权) over items: the operator enters those by law, a department delegates its own to a window (窗口),
    a zone or a lower level, which acts with its own keys.

    `purposes` bound an OPEN power; `regions` are GB/T 2260 prefixes, none meaning everywhere; `basis` names the law, or
    the deed of delegation (授权确认书).
    """

    kind: ClassVar[str] = "power"

    right: PowerKind
    grantor: str
    grantee: str
    items: frozenset[str]
    purposes: frozenset[str]
    regions: frozenset[str]
    valid_from: date
    valid_until: date | None
    basis: str
    state: PowerState


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder(Part):
    """A subject under one item: the pseudonym under the item's key."""

    item: str
    subject: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Mandate(Document):
    """A subject's mandate for an agent (代办员), who acts for them: for whom, for which items and purposes, how long.

    `agent` is the agent's id as requests name it: never a citizen number.
    """

    kind: ClassVar[str] = "mandate"

    agent: str
    subjects: tuple[Holder, ...]
    purposes: frozenset[str]
    valid_from: date
    valid_until: date
    recorded_by: str
    evidence: str
    state: PowerState


class DataClass(StrEnum):
    """数据分级, 数据安全法 art. 21."""

    GENERAL = "GENERAL"  # 一般
    IMPORTANT = "IMPORTANT"  # 重要
    CORE = "CORE"  # 核心


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueEntry(Document):
    """An entry of the catalogue (资源目录), as it was drafted: its id follows from the item's name.

    `definition` is the SHA-256 of the item's definition: sections with share class and conditions, and every schema;
    `format` 数据格式, `update` 更新周期.
    """

    kind: ClassVar[str] = "item"

    item: str
    definition: bytes
    format: str
    update: str
    data_class: DataClass
    drafted_by: str
    valid_from: date
    valid_until: date | None
    state: EntryState


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction(Document):
    """A consumer's doubt about a record (疑义校核): the record's leaf hash, what is doubted, and why."""

    kind: ClassVar[str] = "correction"

    record: bytes
    item: str
    provider: str
    consumer: str
    section: str
    reason: str
    state: CorrectionState


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispute(Document):
    """A dispute (争议) between the parties of an agreement."""

    kind: ClassVar[str] = "dispute"

    agreement: UUID
    provider: str
    consumer: str
    raised_by: str
    reason: str
    state: DisputeState


def parties(document: Document) -> tuple[str, str]:
    """(grantor, grantee): an agreement's provider and consumer, who recorded a consent and who gets it, and so on."""
    match document:
        case Agreement() | Correction() | Dispute():
            return document.provider, document.consumer
        case Consent():
            return document.recorded_by, document.recipient
        case Power():
            return document.grantor, document.grantee
        case Mandate():
            return document.recorded_by, document.agent
        case CatalogueEntry():
            return document.drafted_by, ""
    raise AssertionError(document.kind)


Basis = Agreement | Consent | Power | Mandate | CatalogueEntry  # what a permit can rest on


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who asks, for what, on which ground. `ground` is as received: an unknown one is refused, not guessed.

    `agent` acts for the subject, if anybody does; `onward_to` is the department that would be given the data next, if
    any; `set_size` is how many records a set grant would hold, 0 if none is asked for.
    """

    consumer: str
    purpose: str
    ground: str
    citation: str
    case: str
    operator: str = ""
    agent: str | None = None
    mode: Mode = Mode.QUERY
    onward_to: str = ""
    set_size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFacts:
    """What the index says of the record at hand.

    `issuer` is the department in whose power it was issued; `holders` are the pseudonyms of holder and co-holders;
    `refusal` is why a REFUSED record was not admitted. Of one that is `erased` the keys are destroyed, or to be.
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
    erased: bool = False
    refusal: Code = Code.NOT_ADMITTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the database says of the parties.

    `entry` is the item's in the catalogue; `used_up` are the rules whose limit is reached, with the limit's code.
    """

    consumer_known: bool
    consumer_suspended: bool
    index_fresh: bool
    audit_current: bool
    entry: CatalogueEntry | None
    agreements: tuple[Agreement, ...]
    consents: tuple[Consent, ...]
    powers: tuple[Power, ...] = ()
    mandates: tuple[Mandate, ...] = ()
    used_up: Mapping[UUID, Code] = field(default_factory=lambda: MappingProxyType({}))


class SectionDecision(NamedTuple):
    """One section's answer. `rule` names what decided, words `<kind>:<id>@<revision>`; a permit always has one."""

    section: str
    code: Code
    rule: str


class Decision(NamedTuple):
    """Every section asked for, once, with its code. `rests_on` is all that the permits rest on, each once."""

    sections: tuple[SectionDecision, ...]
    rests_on: tuple[Basis, ...] = ()

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
