"""A consent as a receipt (同意凭证): ISO/IEC TS 27560:2023 in the W3C Data Privacy Vocabulary's JSON-LD.

Fields and terms are those of the guide 'Consent Records and Receipts as per ISO/IEC TS 27560:2023 using DPV' (W3C
DPVCG, final report of 15 February 2026), §8 and §9, under DPV 2.3. The subject is named by pseudonyms alone. Of a
department the bus knows name, credit code and, in that, the division that it is registered in (GB 32100, digits 3 to
8); a street, a telephone and a mail address it does not know, and none is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from types import MappingProxyType
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import msgspec
from msgspec import UNSET, UnsetType

from consent.law import NOTICES
from consent.lifecycle import Act
from consent.model import Agreement, Consent, Giver, Scope
from consent.purposes import TREE
from schemas.catalogue import Item

RECORD = "https://w3id.org/dpv/schema/dpv-27560#record"
RECEIPT = "https://w3id.org/dpv/schema/dpv-27560#receipt"
LAW = "个人信息保护法"
# What a subject may ask of who handles the data, with its article.
RIGHTS = (
    ("第十五条", "撤回同意"),
    ("第四十五条", "查阅、复制"),
    ("第四十六条", "更正、补充"),
    ("第四十七条", "删除"),
)
# The event that an act is, and until when it lasts if nothing else is said.
_EVENTS: Mapping[Act, tuple[str, str]] = MappingProxyType(
    {
        Act.REQUEST: ("dpv:ConsentRequested", "the subject's answer (答复)"),
        Act.GIVE: ("dpv:ConsentGiven", "withdrawal (撤回)"),
        Act.RESUME: ("dpv:RenewedConsentGiven", "withdrawal (撤回)"),
        Act.DECLINE: ("dpv:ConsentRefused", ""),
        Act.PAUSE: ("dpv:ConsentStatusInvalidForProcessing", "the subject resumes it (恢复)"),
        Act.WITHDRAW: ("dpv:ConsentWithdrawn", ""),
        Act.EXPIRE: ("dpv:ConsentExpired", ""),
    }
)
_OPENING = frozenset({Act.GIVE, Act.RESUME})
_NOT_THE_SUBJECTS = frozenset({Act.REQUEST, Act.EXPIRE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """An act on a consent: when, and by which department."""

    act: Act
    author: str
    at: datetime


def _term(name: str) -> str:
    """`dpv_has_purpose` is `dpv:hasPurpose`, `at_id` is `@id`."""
    prefix, first, *rest = name.split("_")
    local = first + "".join(map(str.title, rest))
    return f"@{local}" if prefix == "at" else f"{prefix}:{local}"


class Node(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename=_term):
    """An object of the graph."""


class Ref(Node, frozen=True, kw_only=True):
    """A term of a vocabulary, or another object of the graph."""

    at_id: str


class Typed(Node, frozen=True, kw_only=True):
    """Something of a kind, and nothing more."""

    at_type: str
    rdf_value: str | UnsetType = UNSET


class Context(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The namespaces: nothing is fetched to read a receipt."""

    dct: str = "http://purl.org/dc/terms/"
    dpv: str = "https://w3id.org/dpv#"
    loc: str = "https://w3id.org/dpv/loc#"
    rdf: str = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
    schema: str = "https://schema.org/"
    skos: str = "http://www.w3.org/2004/02/skos/core#"


class Pseudonym(Node, frozen=True, kw_only=True):
    """The subject's pseudonym (hex) under one item."""

    at_type: str = "schema:PropertyValue"
    schema_name: str
    schema_value: str


class Subject(Node, frozen=True, kw_only=True):
    """Whom it is about."""

    at_id: str = "_:subject"
    at_type: list[str]
    dpv_has_identifier: list[Pseudonym]


class Address(Node, frozen=True, kw_only=True):
    """As far as a credit code says it."""

    at_type: str = "schema:PostalAddress"
    schema_address_country: str = "CN"
    schema_address_region: str


class Contact(Node, frozen=True, kw_only=True):
    """Where a department is reached: at its counters, by its credit code."""

    at_type: str = "schema:ContactPoint"
    schema_contact_type: str = "counter (窗口)"
    schema_identifier: str


class Entity(Node, frozen=True, kw_only=True):
    """A department or firm that has joined the bus."""

    at_id: str
    at_type: list[str]
    dpv_has_identifier: str
    dpv_has_name: str
    schema_contact_point: Contact
    schema_address: Address


class Purpose(Node, frozen=True, kw_only=True):
    """A purpose, and the DPV purpose that it is or lies in."""

    at_type: str = "dpv:Purpose"
    dct_identifier: str
    dct_title: str
    skos_broader: Ref


class PersonalData(Node, frozen=True, kw_only=True):
    """A section of an item, `<item>/<section>`."""

    at_type: str
    skos_broader: Ref
    dct_identifier: str
    dct_title: str


class Storage(Node, frozen=True, kw_only=True):
    """Where, or for how long data is kept."""

    at_type: str
    dpv_has_location: Ref | UnsetType = UNSET
    dpv_has_duration: Typed | UnsetType = UNSET


class Control(Node, frozen=True, kw_only=True):
    """Where a consent is withdrawn: through any of these departments."""

    at_type: str = "dpv:WithdrawConsent"
    dpv_is_exercised_at: list[Ref]


class Right(Node, frozen=True, kw_only=True):
    """A right of the subject's, and its article."""

    at_type: str = "dpv:DataSubjectRight"
    dct_title: str
    dct_source: str
    dpv_is_exercised_at: list[Ref]


class Process(Node, frozen=True, kw_only=True):
    """Some sections of one item, for all purposes of the consent."""

    at_type: str = "dpv:Process"
    dpv_has_purpose: list[Purpose]
    dpv_has_personal_data: list[PersonalData]
    dpv_has_processing: list[Ref]
    dpv_has_data_source: list[Ref]
    dpv_has_storage_condition: list[Storage]
    dpv_has_data_controller: Ref
    dpv_has_recipient: Ref
    dpv_has_legal_basis: Ref
    dpv_has_frequency: Typed | UnsetType = UNSET


class ConsentNotice(Node, frozen=True, kw_only=True):
    """How the subject was told."""

    at_type: str = "dpv:ConsentNotice"
    dct_language: str = "zh"
    dct_title: str
    dct_source: str


class Applicable(Node, frozen=True, kw_only=True):
    """The law."""

    at_type: str = "dpv:Law"
    dct_title: str = LAW


class Event(Node, frozen=True, kw_only=True):
    """What was done, when, for how long, by whom and through whom."""

    at_type: list[str]
    dpv_is_indicated_at_time: str
    dpv_is_indicated_by: Ref
    dpv_is_implemented_by_entity: Ref
    dpv_has_duration: list[Typed]
    dpv_has_indication_method: str | UnsetType = UNSET


class ConsentRecord(Node, frozen=True, kw_only=True):
    """§8: what was consented to, and everything done since. `dct:source` are the documents, as the log names them."""

    at_id: str
    at_type: str = "dpv:ConsentRecord"
    dct_conforms_to: str = RECORD
    dct_identifier: str
    dct_source: list[str]
    dpv_has_data_subject: Subject
    dpv_has_notice: ConsentNotice
    dpv_has_jurisdiction: Ref
    dpv_has_applicable_law: Applicable
    dpv_has_process: list[Process]
    dpv_has_consent_control: Control
    dpv_has_right: list[Right]
    dpv_has_entity: list[Entity]
    dpv_has_consent_status: list[Event]


class Receipt(Node, frozen=True, kw_only=True):
    """§9. Its identifier follows from the consent's revision."""

    at_context: Context
    at_id: str
    at_type: str = "dpv:ConsentReceipt"
    dct_conforms_to: str = RECEIPT
    dct_identifier: str
    dct_created: str
    schema_recipient: Ref
    dpv_has_record_of_activity: ConsentRecord


def receipt(
    consent: Consent,
    agreements: Sequence[Agreement],
    names: Mapping[str, str],
    items: Mapping[str, Item],
    acts: Sequence[Done],
    at: datetime,
) -> Receipt:
    """The receipt of a consent as it stands at a time (aware).

    `agreements` are those that it was given under, `names` those of departments by credit code, `items` the
    catalogue's, `acts` everything that was done to it, in order.
    """
    providers = sorted({one.provider for one in agreements})
    through = sorted({consent.recorded_by, consent.recipient, *providers})
    return Receipt(
        at_context=Context(),
        at_id=f"urn:uuid:{uuid5(NAMESPACE_URL, consent.word)}",
        dct_identifier=str(uuid5(NAMESPACE_URL, consent.word)),
        dct_created=at.isoformat(timespec="seconds"),
        schema_recipient=Ref(at_id="dpv:DataSubject"),
        dpv_has_record_of_activity=ConsentRecord(
            at_id=f"urn:uuid:{consent.id}",
            dct_identifier=str(consent.id),
            dct_source=[
                f"consent sha256:{consent.hash.hex()}",
                *(f"agreement sha256:{one}" for one in sorted(consent.agreements)),
            ],
            dpv_has_data_subject=Subject(
                at_type=["dpv:DataSubject", "dpv:Child"] if _minor(consent, at.date()) else ["dpv:DataSubject"],
                dpv_has_identifier=[
                    Pseudonym(schema_name=scope.item, schema_value=scope.subject.hex()) for scope in consent.scopes
                ],
            ),
            dpv_has_notice=_notice(consent),
            dpv_has_jurisdiction=Ref(at_id="loc:CN"),
            dpv_has_applicable_law=Applicable(),
            dpv_has_process=[
                _process(consent, scope, sections, agreements, items, at.date(), separate=separate)
                for scope in consent.scopes
                for separate, sections in ((True, scope.sensitive), (False, scope.sections - scope.sensitive))
                if sections
            ],
            dpv_has_consent_control=Control(dpv_is_exercised_at=[_party(one) for one in through]),
            dpv_has_right=[
                Right(
                    dct_title=title,
                    dct_source=f"{LAW} {article}",
                    dpv_is_exercised_at=[_party(one) for one in through],
                )
                for article, title in RIGHTS
            ],
            dpv_has_entity=[_entity(one, consent, names) for one in sorted({*through, *(one.author for one in acts)})],
            dpv_has_consent_status=[_event(consent, done) for done in acts],
        ),
    )


def _minor(consent: Consent, today: date) -> bool:
    return consent.minor_until is not None and today < consent.minor_until


def _notice(consent: Consent) -> ConsentNotice:
    found = NOTICES.get(consent.notice)
    if found is None:
        return ConsentNotice(dct_title="未告知", dct_source=f"{LAW} 第十七条")
    return ConsentNotice(dct_title=found.zh, dct_source=found.citation)


def _process(
    consent: Consent,
    scope: Scope,
    sections: frozenset[str],
    agreements: Sequence[Agreement],
    items: Mapping[str, Item],
    today: date,
    *,
    separate: bool,
) -> Process:
    """`separate`: these sections were consented to separately (单独同意)."""
    own = [one for one in agreements if one.item == scope.item]
    frequency = consent.frequency
    return Process(
        dpv_has_purpose=[_purpose(one) for one in sorted(consent.purposes)],
        dpv_has_personal_data=[
            _data(items.get(scope.item), scope.item, section, child=_minor(consent, today))
            for section in sorted(sections)
        ],
        dpv_has_processing=[Ref(at_id="dpv:Retrieve"), Ref(at_id="dpv:Use")],
        dpv_has_data_source=[_party(one) for one in sorted({one.provider for one in own})],
        dpv_has_storage_condition=[
            Storage(at_type="dpv:StorageLocation", dpv_has_location=Ref(at_id="loc:CN")),
            Storage(at_type="dpv:StorageDuration", dpv_has_duration=_life(consent, own)),
        ],
        dpv_has_data_controller=_party(consent.recipient),
        dpv_has_recipient=_party(consent.recipient),
        dpv_has_legal_basis=Ref(at_id="dpv:ExplicitlyExpressedConsent" if separate else "dpv:ExpressedConsent"),
        dpv_has_frequency=UNSET
        if frequency is None
        else Typed(at_type="dpv:Frequency", rdf_value=f"{frequency.uses} a {frequency.every.value}"),
    )


def _purpose(name: str) -> Purpose:
    known = TREE.get(name)  # none: what a consent of long ago was for may have left the tree
    if known is None:
        return Purpose(dct_identifier=name, dct_title=name, skos_broader=Ref(at_id="dpv:Purpose"))
    term = known.dpv.rpartition("#")[2]
    return Purpose(dct_identifier=name, dct_title=known.zh, skos_broader=Ref(at_id=f"dpv:{term}"))


def _data(item: Item | None, name: str, section: str, *, child: bool) -> PersonalData:
    known = None if item is None else item.sections.get(section)
    sensitive = child or (known is not None and known.sensitive)
    return PersonalData(
        at_type="dpv:SensitivePersonalData" if sensitive else "dpv:PersonalData",
        skos_broader=Ref(at_id="dpv:PersonalData"),
        dct_identifier=f"{name}/{section}",
        dct_title=f"{name if item is None else item.zh} {section}",
    )


def _life(consent: Consent, agreements: Sequence[Agreement]) -> Typed:
    """The shortest that consent and agreements say, in days; else until the purpose is reached (art. 47)."""
    days = [one for one in (consent.data_life, *(one.data_life for one in agreements)) if one is not None]
    if days:
        return Typed(at_type="dpv:TemporalDuration", rdf_value=f"P{min(days)}D")
    return Typed(at_type="dpv:UntilEventDuration", rdf_value="the purpose is reached (处理目的已实现)")


def _event(consent: Consent, done: Done) -> Event:
    state, until = _EVENTS[done.act]
    durations: list[Typed] = []
    if done.act in _OPENING and consent.valid_until is not None:
        last = f"{consent.valid_until.isoformat()}T23:59:59+08:00"
        durations.append(Typed(at_type="dpv:UntilTimeDuration", rdf_value=last))
    if done.act in _OPENING and consent.max_uses is not None:
        durations.append(Typed(at_type="dpv:FixedOccurrencesDuration", rdf_value=str(consent.max_uses)))
    if not durations:
        durations.append(
            Typed(at_type="dpv:UntilEventDuration", rdf_value=until) if until else Typed(at_type="dpv:EndlessDuration")
        )
    kinds = [state]
    if done.act is Act.GIVE:
        separate = any(scope.sensitive for scope in consent.scopes)
        kinds.append("dpv:ExplicitlyExpressedConsent" if separate else "dpv:ExpressedConsent")
    return Event(
        at_type=kinds,
        dpv_is_indicated_at_time=done.at.isoformat(timespec="seconds"),
        dpv_is_indicated_by=_party(done.author) if done.act in _NOT_THE_SUBJECTS else _giver(consent),
        dpv_is_implemented_by_entity=_party(done.author),
        dpv_has_duration=durations,
        dpv_has_indication_method=f"signed form, sha256:{consent.evidence}"
        if done.act is Act.GIVE and consent.evidence
        else UNSET,
    )


def _giver(consent: Consent) -> Ref:
    return Ref(at_id="dpv:GuardianOfDataSubject" if consent.given_by is Giver.GUARDIAN else "_:subject")


def _entity(uscc: str, consent: Consent, names: Mapping[str, str]) -> Entity:
    return Entity(
        at_id=_party(uscc).at_id,
        at_type=["dpv:LegalEntity", "dpv:DataController"] if uscc == consent.recipient else ["dpv:LegalEntity"],
        dpv_has_identifier=uscc,
        dpv_has_name=names.get(uscc, uscc),
        schema_contact_point=Contact(schema_identifier=uscc),
        schema_address=Address(schema_address_region=uscc[2:8]),
    )


def _party(uscc: str) -> Ref:
    return Ref(at_id=f"_:{uscc}")


def document(made: Receipt) -> dict[str, Any]:
    """As JSON."""
    found: dict[str, Any] = msgspec.to_builtins(made)
    return found
