"""Cases of the rules, as a department's lawyer writes them: who asks for what, what there is, what must come out.

A file (`tests/policy/*.yaml`, `deptbus policy test`) has fixtures with names, and cases::

    parties:    {tax: {zh: 税务局, uscc: 1132080001400001X7}}
    subjects:   {firm: {zh: 某公司}}
    records:    {licence: {item: business-licence, issuer: market, region: "330411", holders: [firm]}}
    agreements: {tax-licence: {provider: market, consumer: tax, item: business-licence, sections: [identity], …}}
    cases:
      - name: The tax office registers a firm
        zh: 税务机关办理税务登记
        because: 个人信息保护法 第十三条第一款第三项
        now: 2026-03-15
        record: licence
        with: [tax-licence]
        ask: {consumer: tax, purpose: tax-registration, ground: STATUTORY_DUTY, citation: …, sections: [identity]}
        expect: PERMIT

Fixtures are documents' own fields with defaults (`_DEFAULTS`); parties and subjects go by their names. A fixture that
`extends` another changes some of its fields; so does a case, whose `ask`, `bus` and `but` are merged. `with` is all
that there is, `but` changes fixtures for one case, `bus` what the bus itself knows, `used_up` says which limits are
reached. Every item's entry in the catalogue is published unless `with` names another.

Pure: a file comes in parsed. What cannot be meant is `Misuse` (CONFIG_INVALID), naming file, case and key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, time
from hashlib import sha256
from typing import Any, TypeVar
from uuid import UUID, uuid5

from consent.decide import CHINA, decide
from consent.documents import readers
from consent.model import (
    Access,
    Agreement,
    Basis,
    CatalogueEntry,
    Consent,
    Facts,
    Holder,
    Mandate,
    Power,
    RecordFacts,
    Scope,
)
from consent.purposes import PURPOSES
from consent.rules import RULES, Rule, Rules
from schemas.catalogue import Catalogue, Item
from schemas.errors import Code, Malformed, Misuse

_NAMES = UUID("6f1c1f6e-3d0b-5a7e-9f53-0d6c0a9e7b11")  # fixtures' ids follow from their names
_NOON = time(12)  # of a case that names a day

_KINDS: Mapping[str, type[Basis]] = {
    "agreements": Agreement,
    "consents": Consent,
    "powers": Power,
    "mandates": Mandate,
    "entries": CatalogueEntry,
}
_PLAIN: dict[str, Any] = {"revision": 1, "valid_from": date(2026, 1, 1), "valid_until": None, "state": "ACTIVE"}
_DEFAULTS: Mapping[type, Mapping[str, Any]] = {
    Agreement: _PLAIN
    | {"basis": "", "scenario": "", "mode": "QUERY", "regions": [], "duties": [], "notice": "GIVEN"}
    | {"purpose_until": None, "requests_a_day": None, "records_a_day": None, "max_age": 0, "data_life": None}
    | {"statuses": [], "superseded": False, "onward": [], "set_limit": None, "set_until": None},
    Consent: _PLAIN
    | {"agreements": [], "mode": "QUERY", "frequency": None, "max_uses": None, "data_life": None, "notice": "GIVEN"}
    | {"given_by": "SUBJECT", "minor_until": None, "recorded_by": "", "evidence": ""},
    Power: _PLAIN | {"right": "OPEN", "regions": [], "basis": ""},
    Mandate: _PLAIN | {"valid_until": date(2026, 12, 31), "recorded_by": "", "evidence": ""},
    CatalogueEntry: _PLAIN
    | {
        "definition": "",
        "format": "avro",
        "update": "",
        "data_class": "GENERAL",
        "drafted_by": "",
        "state": "PUBLISHED",
    },
    RecordFacts: {"state": "ADMITTED", "known_schema": True, "status": "VALID", "valid_from": None}
    | {"valid_until": None, "superseded": False, "erased": False, "refusal": "NOT_ADMITTED"},
    Access: {
        "citation": "",
        "case": "",
        "operator": "",
        "agent": None,
        "mode": "QUERY",
        "onward_to": "",
        "set_size": 0,
    },
    Scope: {"sensitive": []},
    Holder: {},
}
_BUS = {"consumer_known": True, "consumer_suspended": False, "index_fresh": True, "audit_current": True}
_PARTIES = frozenset(
    {
        "provider",
        "consumer",
        "recipient",
        "recorded_by",
        "grantor",
        "grantee",
        "drafted_by",
        "issuer",
        "onward",
        "onward_to",
    }
)
_SUBJECTS = frozenset({"subject", "holders"})
_MERGED = ("ask", "bus", "but")
_FILE = frozenset({"parties", "subjects", "records", "cases", *_KINDS})
_CASE = {
    *("name", "zh", "because", "verified", "now", "record", "with", "used_up", "expect", "rests_on", "extends"),
    *_MERGED,
}
_T = TypeVar("_T", bound=Basis | Access | RecordFacts | Scope | Holder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What a section's answer was, other than expected. `rule` is that of the refusal, expected or got."""

    section: str
    expected: str
    got: str
    rule: Rule | None

    def to_json(self, case: Case) -> dict[str, Any]:
        """As commands and the gateway tell it, with its case and the rule's article."""
        return {
            "case": case.name,
            "because": case.because,
            "section": self.section,
            "expected": self.expected,
            "got": self.got,
            "rule": None if self.rule is None else self.rule.name,
            "basis": None if self.rule is None else self.rule.basis,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One case: a decision and what must come out. `because` names the article or the rule, `verified` whether the
    article was read in its text; `rests_on` are names of the documents that permits must rest on, if given.
    """

    name: str
    zh: str
    because: str
    verified: bool
    item: Item | None
    access: Access
    sections: tuple[str, ...]
    record: RecordFacts
    facts: Facts
    moment: datetime
    expect: Mapping[str, Code]
    rests_on: frozenset[str] | None
    names: Mapping[UUID, str]

    @property
    def documents(self) -> Iterator[Basis]:
        """All that there is."""
        facts = self.facts
        if facts.entry is not None:
            yield facts.entry
        for group in (facts.agreements, facts.consents, facts.powers, facts.mandates):
            yield from group

    def differences(self, rules: Rules = RULES) -> tuple[Difference, ...]:
        """Where the answer is not what was expected."""
        decision = decide(self.item, self.access, self.sections, self.record, self.facts, self.moment, rules)
        found = [
            Difference(section=one.section, expected=expected, got=one.code, rule=_rule(expected, one.code))
            for one in decision.sections
            if one.code is not (expected := self.expect[one.section])
        ]
        rests_on = {self.names.get(one.id, f"catalogue entry of {self.record.item}") for one in decision.rests_on}
        if self.rests_on is not None and not found and rests_on != self.rests_on:
            expected_words, got_words = ", ".join(sorted(self.rests_on)), ", ".join(sorted(rests_on))
            found.append(Difference(section="rests_on", expected=expected_words, got=got_words, rule=None))
        return tuple(found)


def parse(document: Any, file: str, catalogue: Catalogue) -> tuple[Case, ...]:
    """The cases of a parsed file, in its order. `file` is what errors call it."""
    return _File(document, file, catalogue).cases()


def _rule(*codes: Code) -> Rule | None:
    return next((rule for code in codes for rule in RULES if rule.code is code), None)


@dataclass(frozen=True, slots=True)
class _At:
    """A place in a file, for errors."""

    words: str

    def key(self, name: object) -> _At:
        return _At(f"{self.words}, {name}")

    def wrong(self, what: str) -> Misuse:
        return Misuse(Code.CONFIG_INVALID, f"{self.words}: {what}")

    def mapping(self, value: Any) -> Mapping[str, Any]:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise self.wrong("names with values are expected; a name of digits alone is written in quotes")
        return value

    def text(self, value: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            raise self.wrong("a text is expected; a number is written in quotes")
        return value

    def list(self, value: Any) -> Sequence[Any]:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise self.wrong("a list is expected: [ … ]")
        return value

    def texts(self, value: Any) -> tuple[str, ...]:
        return tuple(self.text(one) for one in self.list(value))

    def known(self, given: Mapping[str, Any], names: Iterator[str] | set[str] | frozenset[str]) -> None:
        if unknown := sorted(set(given) - (known := set(names))):
            raise self.key(unknown[0]).wrong(f"not known here; known are {', '.join(sorted(known))}")


class _File:
    """A file while it is read."""

    def __init__(self, document: Any, file: str, catalogue: Catalogue) -> None:
        self._at = _At(file)
        _check_texts(document, self._at)
        self._catalogue = catalogue
        self._file = self._at.mapping(document)
        self._at.known(self._file, _FILE)
        self._parties = {name: self._text_of("parties", name, "uscc") for name in self._group("parties")}
        for name in self._group("subjects"):
            self._text_of("subjects", name)
        kinds = {name: group for group in _KINDS for name in self._group(group)}
        if len(kinds) < sum(len(self._group(group)) for group in _KINDS):
            raise self._at.wrong("two documents have one name")
        self._kinds = kinds
        self._documents: dict[str, Basis] = {}

    def cases(self) -> tuple[Case, ...]:
        """Every case of the file."""
        found: dict[str, Mapping[str, Any]] = {}
        cases: list[Case] = []
        for number, given in enumerate(self._at.key("cases").list(self._file.get("cases", [])), 1):
            at = self._at.key(f"case {number}")
            raw = at.mapping(given)
            at.known(raw, _CASE)
            name = at.key("name").text(raw.get("name"))
            at = _At(f"{self._at.words}, case {number} ({name})")
            if name in found:
                raise at.key("name").wrong("another case has this name")
            if "extends" in raw:
                base = at.key("extends").text(raw["extends"])
                if base not in found:
                    raise at.key("extends").wrong(f"there is no case {base!r} before this one")
                raw = _merged(found[base], raw, at)
            found[name] = raw
            cases.append(self._case(raw, at))
        return tuple(cases)

    def _group(self, name: str) -> Mapping[str, Any]:
        return self._at.key(name).mapping(self._file.get(name, {}))

    def _text_of(self, group: str, name: str, *others: str) -> str:
        """A party's or subject's `zh` and other texts, all there; the last one."""
        at = self._at.key(group).key(name)
        given = at.mapping(self._group(group)[name])
        at.known(given, {"zh", *others})
        return [at.key(key).text(given.get(key)) for key in ("zh", *others)][-1]

    def _fixture(self, group: str, name: str, at: _At, seen: tuple[str, ...] = ()) -> Mapping[str, Any]:
        """A fixture's fields, with those of what it extends."""
        fixtures = self._group(group)
        if name not in fixtures:
            raise at.wrong(f"there is no {name!r} among the {group}")
        if name in seen:
            raise at.wrong(f"{name!r} extends itself")
        here = self._at.key(group).key(name)
        given = dict(here.mapping(fixtures[name]))
        base = given.pop("extends", None)
        if base is None:
            return given
        return {**self._fixture(group, here.key("extends").text(base), here.key("extends"), (*seen, name)), **given}

    def _case(self, raw: Mapping[str, Any], at: _At) -> Case:
        but = {key: at.key("but").key(key).mapping(value) for key, value in _part(raw, "but", at).items()}
        with_ = at.key("with").texts(raw.get("with", []))
        record_name = at.key("record").text(raw.get("record"))
        at.key("but").known(but, {record_name, *with_})
        record = self._record(record_name, but.get(record_name, {}), at)
        documents = {name: self._document(name, but.get(name, {}), at.key("with")) for name in with_}
        asked = dict(_part(raw, "ask", at))
        sections = at.key("ask").key("sections").texts(asked.pop("sections", None))
        bus = _part(raw, "bus", at)
        at.key("bus").known(bus, set(_BUS))
        for key, value in bus.items():
            if not isinstance(value, bool):
                raise at.key("bus").key(key).wrong("true or false is expected")
        access = self._made(Access, asked, at.key("ask"))
        if access.purpose not in PURPOSES:
            raise at.key("ask").key("purpose").wrong(f"{access.purpose} is no purpose of consent/purposes.toml")
        verified = raw.get("verified", True)
        if not isinstance(verified, bool):
            raise at.key("verified").wrong("true or false is expected")
        rests_on = raw.get("rests_on")
        return Case(
            name=raw["name"],
            zh=at.key("zh").text(raw.get("zh")),
            because=at.key("because").text(raw.get("because")),
            verified=verified,
            item=self._catalogue.items.get(record.item),
            access=access,
            sections=sections,
            record=record,
            facts=self._facts(record, documents, {**_BUS, **bus}, self._used_up(raw, documents, at)),
            moment=_moment(raw.get("now"), at.key("now")),
            expect=_expected(raw.get("expect"), sections, at.key("expect")),
            rests_on=None if rests_on is None else frozenset(at.key("rests_on").texts(rests_on)),
            names={one.id: name for name, one in documents.items()},
        )

    def _facts(
        self, record: RecordFacts, documents: Mapping[str, Basis], bus: Mapping[str, bool], used_up: Mapping[UUID, Code]
    ) -> Facts:
        """All documents, not what an index would find of them: the rules say no to the others."""
        entries = {one.item: one for one in documents.values() if isinstance(one, CatalogueEntry)}
        if record.item in self._catalogue.items and record.item not in entries:
            given = {"item": record.item}
            entries[record.item] = self._made(CatalogueEntry, given, self._at, uuid5(_NAMES, record.item))
        return Facts(
            **bus,
            entry=entries.get(record.item),
            agreements=_of(Agreement, documents),
            consents=_of(Consent, documents),
            powers=_of(Power, documents),
            mandates=_of(Mandate, documents),
            used_up=used_up,
        )

    def _used_up(self, raw: Mapping[str, Any], documents: Mapping[str, Basis], at: _At) -> Mapping[UUID, Code]:
        at = at.key("used_up")
        given = at.mapping(raw.get("used_up", {}))
        at.known(given, set(documents))
        return {documents[name].id: _code(code, at.key(name)) for name, code in given.items()}

    def _record(self, name: str, but: Mapping[str, Any], at: _At) -> RecordFacts:
        given = {**self._fixture("records", name, at.key("record")), **but}
        return self._made(RecordFacts, given, self._at.key("records").key(name))

    def _document(self, name: str, but: Mapping[str, Any], at: _At) -> Basis:
        if name not in self._kinds:
            raise at.wrong(f"there is no document {name!r} in this file")
        if not but and name in self._documents:
            return self._documents[name]
        group = self._kinds[name]
        place = self._at.key(group).key(name) if not but else at.key(name)
        given = {**self._fixture(group, name, at), **but}
        made = self._made(_KINDS[group], given, place, uuid5(_NAMES, name))
        if not but:
            self._documents[name] = made
        return made

    def _made(self, cls: type[_T], given: Mapping[str, Any], at: _At, id: UUID | None = None) -> _T:
        """A value of its fields, each by its type; defaults for the rest."""
        kinds = readers(cls)  # type: ignore[arg-type]  # a class is hashable, whatever its union
        own = {"id": str(id)} if id is not None else {}
        at.known(given, kinds.keys() - own.keys())
        values = {**_DEFAULTS[cls], **given}
        read: dict[str, Any] = {}
        for name, reader in kinds.items():
            here = at.key(name)
            if name in own:
                read[name] = reader(own[name])
            elif name not in values:
                raise here.wrong("is missing")
            else:
                read[name] = self._value(name, reader, values[name], here)
        return cls(**read)

    def _value(self, name: str, reader: Any, value: Any, at: _At) -> Any:
        if name in ("scopes", "subjects"):
            part = Scope if name == "scopes" else Holder
            return tuple(self._made(part, at.mapping(one), at.key(n)) for n, one in enumerate(at.list(value), 1))
        try:
            return reader(self._json(name, value, at))
        except (TypeError, ValueError, Malformed) as exc:
            raise at.wrong(f"{value!r} cannot be meant: {exc}") from exc

    def _json(self, name: str, value: Any, at: _At) -> Any:
        """As stored documents have it: names of this file become codes, pseudonyms and hashes."""
        if name == "definition":
            return sha256(b"").hexdigest()
        if name in _PARTIES and value:
            return _each(value, lambda one: self._party(one, at))
        if name in _SUBJECTS:
            return _each(value, lambda one: self._subject(one, at))
        if name == "agreements":
            return _each(value, lambda one: self._document(one, {}, at).hash.hex())
        if name == "purposes" and (unknown := set(at.list(value)) - PURPOSES.keys()):
            raise at.wrong(f"{min(unknown)} is no purpose of consent/purposes.toml")
        if name in ("item", "items") and not at.words.startswith(f"{self._at.words}, records"):
            for one in [value] if name == "item" else at.list(value):
                if one not in self._catalogue.items:
                    raise at.wrong(f"{one} is no item of the catalogue")
        if isinstance(value, date) and not isinstance(value, datetime):
            return value.isoformat()
        return value

    def _party(self, name: Any, at: _At) -> str:
        if name not in self._parties:
            raise at.wrong(f"there is no party {name!r} in this file")
        return self._parties[name]

    def _subject(self, name: Any, at: _At) -> str:
        if name not in self._group("subjects"):
            raise at.wrong(f"there is no subject {name!r} in this file")
        return sha256(name.encode()).hexdigest()


def _check_texts(document: Any, at: _At) -> None:
    """Escapes in JSON and YAML can write half a surrogate pair, which no answer and no error could repeat."""
    waiting = [document]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            if any("\ud800" <= character <= "\udfff" for character in one):
                raise at.wrong("half a surrogate pair is no text")
        elif isinstance(one, Mapping):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, Sequence):
            waiting += one


def _merged(base: Mapping[str, Any], given: Mapping[str, Any], at: _At) -> Mapping[str, Any]:
    """What a case says, and of what it extends the rest. What it expects, and why, is always its own."""
    kept = {key: value for key, value in base.items() if key not in ("extends", "rests_on", "verified", "used_up")}
    merged = {key: {**_part(base, key, at), **_part(given, key, at)} for key in _MERGED if key in base or key in given}
    for key in ("zh", "because", "expect"):
        if key not in given:
            raise at.key(key).wrong("is missing: a case that extends another has its own")
    return {**kept, **given, **merged}


def _part(raw: Mapping[str, Any], name: str, at: _At) -> Mapping[str, Any]:
    return at.key(name).mapping(raw.get(name, {}))


def _of(kind: type[_T], documents: Mapping[str, Basis]) -> tuple[_T, ...]:
    return tuple(one for one in documents.values() if isinstance(one, kind))


def _each(value: Any, change: Any) -> Any:
    return [change(one) for one in value] if isinstance(value, list) else change(value)


def _code(value: Any, at: _At) -> Code:
    try:
        return Code(value)
    except ValueError as exc:
        raise at.wrong(f"{value!r} is no code of schemas/errors.py") from exc


def _expected(value: Any, sections: tuple[str, ...], at: _At) -> Mapping[str, Code]:
    if isinstance(value, str):
        return dict.fromkeys(sections, _code(value, at))
    given = at.mapping(value)
    if set(given) != set(sections):
        raise at.wrong("one code, or one for each section asked for")
    return {section: _code(code, at.key(section)) for section, code in given.items()}


def _moment(value: Any, at: _At) -> datetime:
    """A day is its noon in UTC+8; a moment says its zone. As YAML's own values, or as the texts that JSON has."""
    if isinstance(value, str):
        with suppress(ValueError):
            value = date.fromisoformat(value) if len(value) == len("2026-03-15") else datetime.fromisoformat(value)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise at.wrong("a moment says its zone, such as +08:00")
        return value
    if isinstance(value, date):
        return datetime.combine(value, _NOON, CHINA)
    raise at.wrong("a day (2026-03-15) or a moment (2026-03-15T12:00:00+08:00) is expected")
