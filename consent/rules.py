"""The rules of a decision, as a lawyer reads them: a name, an article, a code, and a sentence in two languages each.

A rule is a function of a question that is true where it is kept. The tuples below are the order in which they are
asked; the first that is broken names the refusal. Taking any one of them out makes at least one case of `tests/policy`
fail.

`verified` says whether the article was read in its text: 政务数据共享条例 (国务院令第809号) stands on summaries.
Sentences are filled from the question: `{agreement.regions}` and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from types import MappingProxyType

from consent.model import (
    Access,
    Agreement,
    AgreementState,
    Consent,
    ConsentState,
    EntryState,
    Facts,
    Giver,
    Ground,
    Mandate,
    Mode,
    Notice,
    Power,
    PowerKind,
    PowerState,
    RecordFacts,
    RecordState,
    Scope,
    Status,
)
from consent.purposes import covers
from schemas.catalogue import Item, Section, ShareClass
from schemas.errors import Code

PIPL = "个人信息保护法"
SHARING = "政务数据共享条例"
BUS = "deptbus"  # a rule of the bus itself: no law asks for it, the promise of its records and its trail does


NO_STATUS: frozenset[Status] = frozenset()


class Question:
    """What is asked of the rules: everything that a decision is made of, and the candidates at hand.

    Not frozen: one question serves all sections and candidates of a decision, which is what makes it cheap.
    """

    __slots__ = (
        "access",
        "agreement",
        "consent",
        "day",
        "facts",
        "item",
        "mandate",
        "name",
        "older",
        "power",
        "record",
        "scope",
        "section",
        "status",
        "statuses",
    )

    def __init__(self, item: Item | None, access: Access, record: RecordFacts, facts: Facts, today: date) -> None:
        self.item = item
        self.access = access
        self.record = record
        self.facts = facts
        self.day = today
        self.status = _status(record, today)
        # Candidates are set before the rules that speak of them are asked.
        self.name = ""
        self.section: Section = None  # type: ignore[assignment]
        self.agreement: Agreement = None  # type: ignore[assignment]
        self.power: Power | None = None
        self.mandate: Mandate = None  # type: ignore[assignment]
        self.consent: Consent = None  # type: ignore[assignment]
        self.scope: Scope = None  # type: ignore[assignment]
        # What the agreement at hand allows besides the newest, valid version.
        self.statuses = NO_STATUS
        self.older = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule. `code` is None where the record's own refusal is the answer."""

    name: str
    code: Code | None
    basis: str
    verified: bool
    en: str
    zh: str
    kept: Callable[[Question], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """All rules, by what they are asked of, in order."""

    whole: tuple[Rule, ...]
    mandate: tuple[Rule, ...]
    section: tuple[Rule, ...]
    agreement: tuple[Rule, ...]
    consent: tuple[Rule, ...]
    state: tuple[Rule, ...]

    def __iter__(self) -> Iterator[Rule]:
        for group in self.__slots__:
            yield from getattr(self, group)

    def without(self, name: str) -> Rules:
        """The same rules but one: what the controls ask."""
        return Rules(**{group: tuple(r for r in getattr(self, group) if r.name != name) for group in self.__slots__})


def broken(rules: Sequence[Rule], question: Question) -> Rule | None:
    """The first rule that is not kept."""
    for rule in rules:
        if not rule.kept(question):
            return rule
    return None


def _rule(name: str, code: Code | None, basis: str, en: str, zh: str, kept: Callable[[Question], bool]) -> Rule:
    """`basis` ends in '?' where the article was not read in its text."""
    verified = not basis.endswith("?")
    return Rule(name=name, code=code, basis=basis.removesuffix("?"), verified=verified, en=en, zh=zh, kept=kept)


def _status(record: RecordFacts, today: date) -> Status:
    """Expiry comes by the clock, without an event; what ended otherwise stays what it is."""
    if record.status is not _STATUS_VALID:
        return record.status
    if record.valid_from is not None and today < record.valid_from:
        return Status.NOT_ACTIVE
    if record.valid_until is not None and today > record.valid_until:
        return Status.EXPIRED
    return _STATUS_VALID


def begun(first: date, today: date) -> bool:
    """Whether a period has begun."""
    return first <= today


def running(last: date | None, today: date) -> bool:
    """Whether a period is not over; its last day counts."""
    return last is None or today <= last


def in_regions(regions: frozenset[str], region: str) -> bool:
    """Whether a division (GB/T 2260, six digits) lies in one of these prefixes; none means everywhere."""
    for prefix in regions:
        if prefix and region.startswith(prefix):
            return True
    return not regions


# Members that the rules name, looked up once: on an Enum's class that costs more than all else that most rules do.
_RECORD_WAITING, _RECORD_REFUSED, _RECORD_CONFLICT = RecordState.WAITING, RecordState.REFUSED, RecordState.CONFLICT
_ENTRY_PUBLISHED, _ENTRY_RETIRED = EntryState.PUBLISHED, EntryState.RETIRED
_SHARE_NONE, _RIGHT_OPEN, _POWER_ACTIVE = ShareClass.NONE, PowerKind.OPEN, PowerState.ACTIVE
_AGREEMENT_ACTIVE, _AGREEMENT_SUSPENDED = AgreementState.ACTIVE, AgreementState.SUSPENDED
_MODE_QUERY, _MODE_STREAM = Mode.QUERY, Mode.STREAM
_GROUND_CONSENT, _GIVER_GUARDIAN = Ground.CONSENT, Giver.GUARDIAN
_NOTICE_GIVEN, _NOTICE_MISSING = Notice.GIVEN, Notice.MISSING
_CONSENT_REQUESTED, _CONSENT_DECLINED, _CONSENT_WITHDRAWN = (
    ConsentState.REQUESTED,
    ConsentState.DECLINED,
    ConsentState.WITHDRAWN,
)
_CONSENT_PAUSED, _CONSENT_EXPIRED = ConsentState.PAUSED, ConsentState.EXPIRED
_STATUS_VALID, _STATUS_ERASED = Status.VALID, Status.ERASED
_RATE, _VOLUME = Code.RATE_EXCEEDED, Code.VOLUME_EXCEEDED
_USED_UP, _FREQUENCY = Code.CONSENT_USED_UP, Code.CONSENT_FREQUENCY

WHOLE = (
    _rule(
        "consumer-known",
        Code.CONSUMER_UNKNOWN,
        f"{BUS}",
        "{access.consumer} has not joined the bus: its operator adds it.",
        "{access.consumer} 尚未接入总线，请联系总线运营方。",
        lambda q: q.facts.consumer_known,
    ),
    _rule(
        "consumer-active",
        Code.CONSUMER_SUSPENDED,
        f"{SHARING} 安全责任?",
        "{access.consumer} is suspended: its operator says why.",
        "{access.consumer} 已被暂停使用，请联系总线运营方。",
        lambda q: not q.facts.consumer_suspended,
    ),
    _rule(
        "audit-current",
        Code.AUDIT_STALLED,
        f"{BUS}",
        "No checkpoint covers the audit log: nothing opens until it is signed again.",
        "审计日志没有新的签名检查点，恢复之前不开放任何数据。",
        lambda q: q.facts.audit_current,
    ),
    _rule(
        "index-fresh",
        Code.INDEX_STALE,
        f"{BUS}",
        "The licence index is not fresh: whether the record still counts cannot be said. Ask again later.",
        "证照索引未及时更新，无法判断该记录是否仍然有效，请稍后再试。",
        lambda q: q.facts.index_fresh,
    ),
    _rule(
        "record-admitted",
        Code.NOT_ADMITTED,
        f"{BUS}",
        "The record is not admitted yet: ask again in a moment.",
        "该记录尚未收录，请稍后再试。",
        lambda q: q.record.state is not _RECORD_WAITING,
    ),
    _rule(
        "record-not-refused",
        None,
        f"{BUS}",
        "The record was refused when it was published: its issuer publishes it anew.",
        "该记录发布时未通过校验，须由发证机关重新发布。",
        lambda q: q.record.state is not _RECORD_REFUSED,
    ),
    _rule(
        "record-not-in-conflict",
        Code.CONFLICT,
        f"{BUS}",
        "Two records claim this one's place: neither opens until a person has ruled.",
        "存在两条相互冲突的记录，人工裁定之前均不开放。",
        lambda q: q.record.state is not _RECORD_CONFLICT,
    ),
    _rule(
        "item-known",
        Code.ITEM_UNKNOWN,
        f"{SHARING} 统一目录管理?",
        "The catalogue has no item {record.item}.",
        "资源目录中没有 {record.item}。",
        lambda q: q.item is not None and q.item.name == q.record.item and q.facts.entry is not None,
    ),
    _rule(
        "item-published",
        Code.ITEM_NOT_PUBLISHED,
        f"{SHARING} 统一目录管理?",
        "{record.item} is not published in the catalogue yet.",
        "资源目录中的 {record.item} 尚未发布。",
        lambda q: (
            (entry := q.facts.entry) is None
            or entry.state is _ENTRY_RETIRED
            or (entry.state is _ENTRY_PUBLISHED and begun(entry.valid_from, q.day))
        ),
    ),
    _rule(
        "item-not-retired",
        Code.ITEM_RETIRED,
        f"{SHARING} 统一目录管理?",
        "{record.item} is retired from the catalogue.",
        "{record.item} 已从资源目录中停用。",
        lambda q: (
            (entry := q.facts.entry) is None
            or (entry.state is not _ENTRY_RETIRED and running(entry.valid_until, q.day))
        ),
    ),
    _rule(
        "schema-known",
        Code.SCHEMA_UNKNOWN,
        f"{BUS}",
        "The catalogue has no such schema of {record.item}.",
        "资源目录中没有 {record.item} 的这一数据结构版本。",
        lambda q: q.record.known_schema,
    ),
)

MANDATE = (
    _rule(
        "mandate-given",
        Code.MANDATE_NONE,
        "民法典 第一百六十一条、第一百六十五条?",
        "No holder of the record has given agent {access.agent} a mandate.",
        "持证主体没有委托代办员 {access.agent}。",
        lambda q: q.mandate.agent == q.access.agent and any(s.subject in q.record.holders for s in q.mandate.subjects),
    ),
    _rule(
        "mandate-in-force",
        Code.MANDATE_ENDED,
        "民法典 第一百七十三条?",
        "The mandate is {mandate.state}, for {mandate.valid_from} to {mandate.valid_until}.",
        "委托状态为 {mandate.state}，期限 {mandate.valid_from} 至 {mandate.valid_until}。",
        lambda q: (
            q.mandate.state is _POWER_ACTIVE
            and begun(q.mandate.valid_from, q.day)
            and running(q.mandate.valid_until, q.day)
        ),
    ),
    _rule(
        "mandate-scope",
        Code.MANDATE_SCOPE,
        "民法典 第一百六十五条?",
        "The mandate is for {mandate.purposes}, not for {access.purpose} of {record.item}.",
        "委托范围为 {mandate.purposes}，不含就 {record.item} 的 {access.purpose}。",
        lambda q: (
            covers(q.mandate.purposes, q.access.purpose)
            and any(s.item == q.record.item and s.subject in q.record.holders for s in q.mandate.subjects)
        ),
    ),
)

SECTION = (
    _rule(
        "section-known",
        Code.SECTION_UNKNOWN,
        f"{SHARING} 统一目录管理?",
        "{record.item} has no section {name}.",
        "{record.item} 没有 {name} 这一部分。",
        lambda q: q.item is not None and q.name in q.item.sections,
    ),
    _rule(
        "section-shared",
        Code.SECTION_NOT_SHARED,
        f"{SHARING} 不予共享?",
        "{name} of {record.item} is not shared (不予共享): {section.conditions}",
        "{record.item} 的 {name} 属不予共享：{section.conditions}",
        lambda q: q.section.share is not _SHARE_NONE,
    ),
)

_PENDING = frozenset(
    {
        AgreementState.SUBMITTED,
        AgreementState.RETURNED,
        AgreementState.ACCEPTED,
        AgreementState.APPROVED,
        AgreementState.PROVISIONED,
    }
)
_KNOWN_GROUNDS = frozenset(ground.value for ground in Ground)


def _is_for(q: Question) -> bool:
    """The item and its provider, and the consumer or somebody who has given it a power."""
    agreement, power, record = q.agreement, q.power, q.record
    if agreement.provider != record.issuer or agreement.item != record.item:
        return False
    if power is None:
        return agreement.consumer == q.access.consumer
    return (power.grantor, power.grantee) == (agreement.consumer, q.access.consumer)


AGREEMENT = (
    _rule(
        "agreement-between-them",
        Code.AGREEMENT_NONE,
        f"{SHARING} 第二十一条?",
        "{access.consumer} has no agreement with {record.issuer} over {record.item}: apply for one.",
        "{access.consumer} 与 {record.issuer} 之间没有 {record.item} 的共享协议，请提出共享申请。",
        _is_for,
    ),
    _rule(
        "power-in-force",
        Code.POWER_ENDED,
        "行政许可法 第二十四条?",
        "The power from {agreement.consumer} is {power.state}, for {power.valid_from} to {power.valid_until}.",
        "{agreement.consumer} 的授权状态为 {power.state}，期限 {power.valid_from} 至 {power.valid_until}。",
        lambda q: (
            q.power is None
            or (
                q.power.state is _POWER_ACTIVE
                and begun(q.power.valid_from, q.day)
                and running(q.power.valid_until, q.day)
            )
        ),
    ),
    _rule(
        "power-scope",
        Code.POWER_SCOPE,
        "行政许可法 第二十四条?",
        "The power is for {power.items}, {power.purposes}, {power.regions}: not for this.",
        "授权范围为 {power.items}、{power.purposes}、{power.regions}，不含本次请求。",
        lambda q: (
            q.power is None
            or (
                q.power.right is _RIGHT_OPEN
                and q.record.item in q.power.items
                and covers(q.power.purposes, q.access.purpose)
                and in_regions(q.power.regions, q.record.region)
            )
        ),
    ),
    _rule(
        "agreement-not-pending",
        Code.AGREEMENT_PENDING,
        f"{SHARING} 申请与答复?",
        "The agreement is {agreement.state} and begins on {agreement.valid_from}: it opens nothing yet.",
        "共享协议状态为 {agreement.state}，自 {agreement.valid_from} 起生效，目前尚不开放数据。",
        lambda q: (
            (q.agreement.state is _AGREEMENT_ACTIVE or q.agreement.state not in _PENDING)
            and begun(q.agreement.valid_from, q.day)
        ),
    ),
    _rule(
        "agreement-not-suspended",
        Code.AGREEMENT_SUSPENDED,
        f"{SHARING} 安全责任?",
        "The agreement is suspended: its provider resumes it.",
        "共享协议已暂停，由数据提供部门恢复。",
        lambda q: q.agreement.state is not _AGREEMENT_SUSPENDED,
    ),
    _rule(
        "agreement-not-ended",
        Code.AGREEMENT_ENDED,
        f"{SHARING} 第二十五条?",
        "The agreement is {agreement.state}; its last day was {agreement.valid_until}.",
        "共享协议状态为 {agreement.state}，截止日期 {agreement.valid_until}。",
        lambda q: (
            ((agreement := q.agreement).state is _AGREEMENT_ACTIVE or agreement.state is _AGREEMENT_SUSPENDED)
            and running(agreement.valid_until, q.day)
        ),
    ),
    _rule(
        "agreement-region",
        Code.AGREEMENT_REGION,
        f"{SHARING} 第二十五条?",
        "The agreement covers {agreement.regions}, not {record.region}.",
        "共享协议的区域为 {agreement.regions}，不含 {record.region}。",
        lambda q: in_regions(q.agreement.regions, q.record.region),
    ),
    _rule(
        "agreement-purpose",
        Code.AGREEMENT_PURPOSE,
        f"{PIPL} 第六条; {SHARING} 第二十五条?",
        "The agreement allows {agreement.purposes}, not {access.purpose}.",
        "共享协议的用途为 {agreement.purposes}，不含 {access.purpose}。",
        lambda q: covers(q.agreement.purposes, q.access.purpose),
    ),
    _rule(
        "purpose-not-reached",
        Code.PURPOSE_ENDED,
        f"{PIPL} 第四十七条",
        "The agreement's purpose was reached on {agreement.purpose_until}: data is not needed any more.",
        "共享协议的目的已于 {agreement.purpose_until} 实现，不再需要数据。",
        lambda q: running(q.agreement.purpose_until, q.day),
    ),
    _rule(
        "agreement-section",
        Code.AGREEMENT_SECTION,
        f"{PIPL} 第三十四条",
        "The agreement shares {agreement.sections}, not {name}.",
        "共享协议的范围为 {agreement.sections}，不含 {name}。",
        lambda q: q.name in q.agreement.sections,
    ),
    _rule(
        "agreement-mode",
        Code.AGREEMENT_MODE,
        f"{SHARING} 共享方式?",
        "The agreement allows single queries, not a stream.",
        "共享协议只允许逐条查询，不允许批量订阅。",
        lambda q: q.access.mode is _MODE_QUERY or q.agreement.mode is _MODE_STREAM,
    ),
    _rule(
        "onward-agreed",
        Code.ONWARD_NOT_AGREED,
        f"{SHARING} 第二十五条?",
        "The provider has not agreed that the data goes on to {access.onward_to}.",
        "数据提供部门未同意向 {access.onward_to} 转提供。",
        lambda q: not q.access.onward_to or q.access.onward_to in q.agreement.onward,
    ),
    _rule(
        "set-agreed",
        Code.SET_NOT_AGREED,
        f"{PIPL} 第十三条第一款第三项、第三十四条",
        "The agreement allows no set grant on this ground: it names a cap, and a duty, not consent.",
        "共享协议不允许以此依据进行批量比对：须约定上限，并以法定职责为依据。",
        lambda q: not q.access.set_size or (q.agreement.set_limit is not None and q.access.ground != _GROUND_CONSENT),
    ),
    _rule(
        "set-size",
        Code.SET_TOO_LARGE,
        f"{PIPL} 第六条",
        "The set has {access.set_size} records; the agreement allows {agreement.set_limit}.",
        "本次批量为 {access.set_size} 条，共享协议上限为 {agreement.set_limit} 条。",
        lambda q: not q.access.set_size or q.access.set_size <= (q.agreement.set_limit or 0),
    ),
    _rule(
        "set-in-time",
        Code.SET_ENDED,
        f"{PIPL} 第四十七条",
        "Set grants ended on {agreement.set_until}.",
        "批量比对已于 {agreement.set_until} 截止。",
        lambda q: not q.access.set_size or running(q.agreement.set_until, q.day),
    ),
    _rule(
        "rate",
        Code.RATE_EXCEEDED,
        f"{SHARING} 使用条件?",
        "The agreement allows {agreement.requests_a_day} requests a day, and they are used up.",
        "共享协议每日 {agreement.requests_a_day} 次请求已用完。",
        lambda q: not q.facts.used_up or q.facts.used_up.get(q.agreement.id) is not _RATE,
    ),
    _rule(
        "volume",
        Code.VOLUME_EXCEEDED,
        f"{SHARING} 使用条件?",
        "The agreement allows {agreement.records_a_day} records a day, and they are used up.",
        "共享协议每日 {agreement.records_a_day} 条记录已用完。",
        lambda q: not q.facts.used_up or q.facts.used_up.get(q.agreement.id) is not _VOLUME,
    ),
    _rule(
        "ground-known",
        Code.GROUND_UNKNOWN,
        f"{PIPL} 第十三条",
        "{access.ground} is none of the seven grounds.",
        "{access.ground} 不属于法定的七种情形。",
        lambda q: q.access.ground in _KNOWN_GROUNDS,
    ),
    _rule(
        "ground-agreed",
        Code.GROUND_NOT_AGREED,
        f"{PIPL} 第十三条、第三十四条",
        "The agreement rests on {agreement.grounds}, not on {access.ground}.",
        "共享协议的依据为 {agreement.grounds}，不含 {access.ground}。",
        lambda q: q.access.ground in q.agreement.grounds,
    ),
    _rule(
        "duty-named",
        Code.DUTY_NOT_NAMED,
        f"{PIPL} 第三十四条",
        "The agreement does not name {access.citation} among what a request may rest on: {agreement.duties}.",
        "共享协议未载明 {access.citation}，可引用的有：{agreement.duties}。",
        lambda q: (
            q.access.ground == _GROUND_CONSENT or (bool(q.access.citation) and q.access.citation in q.agreement.duties)
        ),
    ),
    _rule(
        "notice-settled",
        Code.NOTICE_MISSING,
        f"{PIPL} 第十七条、第十八条、第三十五条",
        "The agreement does not say how subjects are told, or why they are not.",
        "共享协议未载明如何告知个人，也未载明免于告知的理由。",
        lambda q: q.agreement.notice is not _NOTICE_MISSING,
    ),
)

CONSENT = (
    _rule(
        "consent-given",
        Code.CONSENT_NONE,
        f"{PIPL} 第十三条第一款第一项、第二十三条",
        "A holder of the record has not consented that {agreement.consumer} gets {record.item}.",
        "持证主体没有同意向 {agreement.consumer} 提供 {record.item}。",
        lambda q: q.consent.recipient == q.agreement.consumer,
    ),
    _rule(
        "consent-answered",
        Code.CONSENT_PENDING,
        f"{PIPL} 第十四条",
        "The consent is requested; the subject has not answered.",
        "同意请求已发出，个人尚未答复。",
        lambda q: q.consent.state is not _CONSENT_REQUESTED,
    ),
    _rule(
        "consent-not-declined",
        Code.CONSENT_DECLINED,
        f"{PIPL} 第十四条",
        "The subject declined.",
        "个人已拒绝。",
        lambda q: q.consent.state is not _CONSENT_DECLINED,
    ),
    _rule(
        "consent-not-withdrawn",
        Code.CONSENT_WITHDRAWN,
        f"{PIPL} 第十五条",
        "The subject withdrew the consent.",
        "个人已撤回同意。",
        lambda q: q.consent.state is not _CONSENT_WITHDRAWN,
    ),
    _rule(
        "consent-not-paused",
        Code.CONSENT_PAUSED,
        f"{PIPL} 第十五条",
        "The consent is paused.",
        "同意已暂停。",
        lambda q: q.consent.state is not _CONSENT_PAUSED,
    ),
    _rule(
        "consent-in-time",
        Code.CONSENT_EXPIRED,
        f"{PIPL} 第四十七条",
        "The consent is for {consent.valid_from} to {consent.valid_until}.",
        "同意的期限为 {consent.valid_from} 至 {consent.valid_until}。",
        lambda q: (
            q.consent.state is not _CONSENT_EXPIRED
            and begun(q.consent.valid_from, q.day)
            and running(q.consent.valid_until, q.day)
        ),
    ),
    _rule(
        "consent-agreement",
        Code.CONSENT_AGREEMENT,
        f"{PIPL} 第十四条",
        "The consent was given under another agreement than this one.",
        "该同意是就另一份共享协议作出的，须重新取得同意。",
        lambda q: not q.consent.agreements or q.agreement.hash.hex() in q.consent.agreements,
    ),
    _rule(
        "consent-purpose",
        Code.CONSENT_PURPOSE,
        f"{PIPL} 第十四条、第二十三条",
        "The consent is for {consent.purposes}, not for {access.purpose}.",
        "同意的用途为 {consent.purposes}，不含 {access.purpose}。",
        lambda q: covers(q.consent.purposes, q.access.purpose),
    ),
    _rule(
        "consent-section",
        Code.CONSENT_SECTION,
        f"{PIPL} 第二十三条",
        "The consent is for {scope.sections}, not for {name}.",
        "同意的范围为 {scope.sections}，不含 {name}。",
        lambda q: q.name in q.scope.sections,
    ),
    _rule(
        "consent-guardian",
        Code.CONSENT_GUARDIAN,
        f"{PIPL} 第三十一条",
        "The subject is under 14 until {consent.minor_until}: a guardian consents.",
        "个人在 {consent.minor_until} 之前未满十四周岁，须由监护人同意。",
        lambda q: (
            q.consent.minor_until is None or q.day >= q.consent.minor_until or q.consent.given_by is _GIVER_GUARDIAN
        ),
    ),
    _rule(
        "consent-sensitive",
        Code.CONSENT_SENSITIVE,
        f"{PIPL} 第二十八条、第二十九条",
        "{name} is sensitive: it needs a separate consent (单独同意).",
        "{name} 属敏感个人信息，须取得单独同意。",
        lambda q: (
            q.name in q.scope.sensitive
            or not (q.section.sensitive or (q.consent.minor_until is not None and q.day < q.consent.minor_until))
        ),
    ),
    _rule(
        "consent-mode",
        Code.CONSENT_MODE,
        f"{PIPL} 第十四条、第二十三条",
        "The consent allows single queries, not a stream.",
        "该同意只允许逐条查询，不允许批量订阅。",
        lambda q: q.access.mode is _MODE_QUERY or q.consent.mode is _MODE_STREAM,
    ),
    _rule(
        "consent-notice",
        Code.CONSENT_NOTICE,
        f"{PIPL} 第十四条、第十七条",
        "The subject was not told before consenting: the consent was not informed.",
        "取得同意之前未告知个人，同意无效。",
        lambda q: q.consent.notice is _NOTICE_GIVEN,
    ),
    _rule(
        "consent-uses",
        Code.CONSENT_USED_UP,
        f"{PIPL} 第二十三条",
        "The consent allows {consent.max_uses} uses, and they are used up.",
        "该同意允许使用 {consent.max_uses} 次，已用完。",
        lambda q: not q.facts.used_up or q.facts.used_up.get(q.consent.id) is not _USED_UP,
    ),
    _rule(
        "consent-frequency",
        Code.CONSENT_FREQUENCY,
        f"{PIPL} 第二十三条",
        "The consent's uses for this period are used up.",
        "该同意本周期内的使用次数已用完。",
        lambda q: not q.facts.used_up or q.facts.used_up.get(q.consent.id) is not _FREQUENCY,
    ),
)

_STATUS_RULES = (
    (Status.NOT_ACTIVE, Code.STATUS_NOT_ACTIVE, "The licence is not in force yet.", "证照尚未生效。"),
    (Status.SUSPENDED, Code.STATUS_SUSPENDED, "The licence is suspended (暂扣).", "证照已暂扣。"),
    (Status.CANCELLED, Code.STATUS_CANCELLED, "The licence is cancelled (注销).", "证照已注销。"),
    (
        Status.REVOKED,
        Code.STATUS_REVOKED,
        "The licence was revoked (撤销): void from the start.",
        "证照已撤销，自始无效。",
    ),
    (Status.PUNISHED, Code.STATUS_PUNISHED, "The licence was taken away (吊销).", "证照已吊销。"),
    (Status.EXPIRED, Code.STATUS_EXPIRED, "The licence has expired.", "证照已过有效期。"),
)


def _status_rule(status: Status, code: Code, en: str, zh: str) -> Rule:
    """What agreements may allow beside a valid licence."""

    def kept(q: Question) -> bool:
        return q.status is not status or status in q.statuses

    return _rule(f"status-{status.lower().replace('_', '-')}", code, f"{BUS}", en, zh, kept)


STATE = (
    _rule(
        "not-erased",
        Code.STATUS_ERASED,
        f"{PIPL} 第四十七条",
        "The record was erased: nobody can open it.",
        "该记录已删除，任何人无法开启。",
        lambda q: q.status is not _STATUS_ERASED,
    ),
    _rule(
        "newest-version",
        Code.SUPERSEDED,
        f"{PIPL} 第八条",
        "A newer version of the licence exists.",
        "该证照已有新版本。",
        lambda q: not q.record.superseded or q.older,
    ),
    *(_status_rule(*row) for row in _STATUS_RULES),
    _rule(
        "keys-not-destroyed",
        Code.RECORD_ERASED,
        f"{PIPL} 第四十七条",
        "The record was erased and its keys are destroyed: nobody can open it any more.",
        "该记录已删除，密钥已销毁，任何人无法再开启。",
        lambda q: not q.record.erased,
    ),
)

RULES = Rules(whole=WHOLE, mandate=MANDATE, section=SECTION, agreement=AGREEMENT, consent=CONSENT, state=STATE)
BY_NAME = MappingProxyType({rule.name: rule for rule in RULES})
