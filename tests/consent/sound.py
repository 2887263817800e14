"""Facts with nothing wrong: every section but SHUT opens, for a consent and for a duty. Tests change what they test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any
from uuid import UUID

from consent.decide import CHINA, decide
from consent.model import (
    Access,
    Agreement,
    AgreementState,
    CatalogueEntry,
    Consent,
    ConsentState,
    DataClass,
    Decision,
    EntryState,
    Facts,
    Giver,
    Ground,
    Holder,
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
from consent.rules import RULES, Rules
from schemas.catalogue import Catalogue, Item, Section, ShareClass
from schemas.errors import Code

PROVIDER, CONSUMER, OTHER, WINDOW = (
    "11330411MB2A00011E",
    "1132080001400001X7",
    "11430000006122244L",
    "12330411MB0000001A",
)
# Asked for, and what it lies inside of; SEALS lies beside it, STATISTICS alone.
PURPOSE, BROADER, SEALS, STATISTICS = "tax-registration", "business-establishment", "seal-registration", "statistics"
DUTY, AGENT = "税收征收管理法 第十五条", "agent-7"
HOLDER, CO_HOLDER, STRANGER = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32
FIRST, LAST = date(2026, 3, 1), date(2026, 3, 31)
NOON = datetime(2026, 3, 15, 12, tzinfo=CHINA)
YESTERDAY, TODAY, TOMORROW = date(2026, 3, 14), date(2026, 3, 15), date(2026, 3, 16)
PLAIN, SENSITIVE, OPEN, SHUT = "plain", "sensitive", "open", "shut"
SECTIONS = {
    PLAIN: Section(name=PLAIN, share=ShareClass.CONDITIONAL, conditions="c", sensitive=False),
    SENSITIVE: Section(name=SENSITIVE, share=ShareClass.CONDITIONAL, conditions="c", sensitive=True),
    OPEN: Section(name=OPEN, share=ShareClass.UNCONDITIONAL, conditions="", sensitive=False),
    SHUT: Section(name=SHUT, share=ShareClass.NONE, conditions="law", sensitive=False),
}
ITEM: Item = replace(Catalogue.load().item("business-licence"), sections=SECTIONS)
ANOTHER = "tax-registration"  # another item
AGREEMENT = Agreement(
    id=UUID(int=1),
    revision=3,
    provider=PROVIDER,
    consumer=CONSUMER,
    item=ITEM.name,
    basis=DUTY,
    scenario="企业开办",
    mode=Mode.STREAM,
    sections=frozenset({PLAIN, SENSITIVE}),
    purposes=frozenset({PURPOSE}),
    regions=frozenset({"3304", "32"}),
    grounds=frozenset(Ground),
    duties=frozenset({DUTY}),
    notice=Notice.GIVEN,
    valid_from=FIRST,
    valid_until=LAST,
    purpose_until=None,
    requests_a_day=None,
    records_a_day=10,
    max_age=3600,
    data_life=30,
    statuses=frozenset(),
    superseded=False,
    onward=frozenset({OTHER}),
    set_limit=100,
    set_until=LAST,
    state=AgreementState.ACTIVE,
)
SCOPE = Scope(item=ITEM.name, subject=HOLDER, sections=frozenset({PLAIN, SENSITIVE}), sensitive=frozenset({SENSITIVE}))
CONSENT = Consent(
    id=UUID(int=2),
    revision=5,
    recipient=CONSUMER,
    purposes=frozenset({PURPOSE}),
    scopes=(SCOPE,),
    agreements=frozenset({AGREEMENT.hash.hex()}),
    mode=Mode.STREAM,
    valid_from=FIRST,
    valid_until=LAST,
    frequency=None,
    max_uses=2,
    data_life=None,
    notice=Notice.GIVEN,
    given_by=Giver.SUBJECT,
    minor_until=None,
    recorded_by=PROVIDER,
    evidence="ab" * 32,
    state=ConsentState.ACTIVE,
)
POWER = Power(
    id=UUID(int=3),
    revision=2,
    right=PowerKind.OPEN,
    grantor=CONSUMER,
    grantee=WINDOW,
    items=frozenset({ITEM.name}),
    purposes=frozenset({PURPOSE}),
    regions=frozenset({"3304"}),
    valid_from=FIRST,
    valid_until=LAST,
    basis="授权确认书",
    state=PowerState.ACTIVE,
)
MANDATE = Mandate(
    id=UUID(int=4),
    revision=1,
    agent=AGENT,
    subjects=(Holder(item=ITEM.name, subject=HOLDER),),
    purposes=frozenset({PURPOSE}),
    valid_from=FIRST,
    valid_until=LAST,
    recorded_by=PROVIDER,
    evidence="",
    state=PowerState.ACTIVE,
)
ENTRY = CatalogueEntry(
    id=UUID(int=5),
    revision=3,
    item=ITEM.name,
    definition=ITEM.definition,
    format="avro",
    update="实时",
    data_class=DataClass.GENERAL,
    drafted_by=PROVIDER,
    valid_from=FIRST,
    valid_until=LAST,
    state=EntryState.PUBLISHED,
)
RECORD = RecordFacts(
    state=RecordState.ADMITTED,
    item=ITEM.name,
    issuer=PROVIDER,
    region="330411",
    holders=(HOLDER,),
    known_schema=True,
    status=Status.VALID,
    valid_from=FIRST,
    valid_until=LAST,
    superseded=False,
)
FACTS = Facts(
    consumer_known=True,
    consumer_suspended=False,
    index_fresh=True,
    audit_current=True,
    entry=ENTRY,
    agreements=(AGREEMENT,),
    consents=(CONSENT,),
    powers=(POWER,),
    mandates=(MANDATE,),
)
BY_CONSENT = Access(consumer=CONSUMER, purpose=PURPOSE, ground=Ground.CONSENT.value, citation="", case="c-1")
BY_DUTY = replace(BY_CONSENT, ground=Ground.STATUTORY_DUTY.value, citation=DUTY)


@dataclass(frozen=True, kw_only=True)
class Case:
    """Everything that a decision is made of."""

    item: Item | None = ITEM
    access: Access = BY_CONSENT
    sections: Sequence[str] = (SENSITIVE,)
    record: RecordFacts = RECORD
    facts: Facts = FACTS
    now: datetime = NOON

    def decide(self, rules: Rules = RULES) -> Decision:
        """The decision, checked for what holds of every decision."""
        decision = decide(self.item, self.access, self.sections, self.record, self.facts, self.now, rules)
        assert [s.section for s in decision.sections] == list(dict.fromkeys(self.sections))
        assert all(s.rule for s in decision.sections if s.code is Code.PERMIT)
        return decision

    def code(self) -> Code:
        """The only section's code."""
        (only,) = self.decide().sections
        return only.code


def with_record(**changes: Any) -> Case:
    """One fact of the record changed."""
    return Case(record=replace(RECORD, **changes))


def with_facts(**changes: Any) -> Case:
    """One of the other facts changed."""
    return Case(facts=replace(FACTS, **changes))


def with_access(**changes: Any) -> Case:
    """Asked otherwise."""
    return Case(access=replace(BY_CONSENT, **changes))


def with_agreement(**changes: Any) -> Case:
    """Another agreement, to which the subject consented, too."""
    agreement = replace(AGREEMENT, **changes)
    consent = replace(CONSENT, agreements=frozenset({agreement.hash.hex()}))
    return with_facts(agreements=(agreement,), consents=(consent,))


def with_consent(**changes: Any) -> Case:
    """Another consent."""
    return with_facts(consents=(replace(CONSENT, **changes),))


def with_scope(**changes: Any) -> Case:
    """A consent to something else."""
    return with_consent(scopes=(replace(SCOPE, **changes),))


def with_entry(**changes: Any) -> Case:
    """Another entry of the catalogue."""
    return with_facts(entry=replace(ENTRY, **changes))


def by_duty(**changes: Any) -> Case:
    """Asked on a duty, without any consent, under another agreement."""
    return Case(access=BY_DUTY, facts=replace(FACTS, agreements=(replace(AGREEMENT, **changes),), consents=()))


def by_window(**changes: Any) -> Case:
    """Asked by a window with another power."""
    facts = replace(FACTS, powers=(replace(POWER, **changes),))
    return Case(access=replace(BY_CONSENT, consumer=WINDOW), facts=facts)


def by_agent(**changes: Any) -> Case:
    """Asked through an agent with another mandate."""
    facts = replace(FACTS, mandates=(replace(MANDATE, **changes),))
    return Case(access=replace(BY_CONSENT, agent=AGENT), facts=facts)


def of_set(size: int, **changes: Any) -> Case:
    """A set grant on a duty."""
    return replace(by_duty(**changes), access=replace(BY_DUTY, set_size=size))
