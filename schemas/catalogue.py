"""The catalogue (资源目录): which items travel, who they are about, and how far each section is shared.

`schemas/items/<item>.toml` describes an item, `<item>.<n>.avsc` is version n of its schema document. A published
document never changes: a new version is a new file, and records of the older ones stay readable.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from types import MappingProxyType
from typing import Any, Final

from schemas.errors import Code, Malformed, Refused
from schemas.identifiers import parse_citizen_number, parse_uscc
from schemas.item import ItemSchema
from schemas.validation import Checks, is_identifying

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,63}\Z")
_VERSION: Final = re.compile(r"\.([1-9][0-9]{0,3})\.avsc\Z")
_HOLDER_KINDS: Final = ("PERSON", "ORGANISATION")
# 持证主体代码类型代码, GB/T 36903 annex A. 001 and 111 have their own check characters, the others only this form.
_CREDIT_CODE: Final = "001"
_CITIZEN: Final = "111"
_ORGANISATION_IDS: Final = frozenset({_CREDIT_CODE, "099"})
_PERSON_IDS: Final = frozenset(
    {_CITIZEN, "114", "115", "118", "119", "120", "122", "411", "412", "413", "414", "511", "516", "999"}
)
_TYPE_CODE: Final = re.compile(r"[0-9A-Z]{18}[0-9]{3}\Z")
_OTHER_ID: Final = re.compile(r"[0-9A-Z]{1,32}\Z")


class ShareClass(StrEnum):
    """共享属性: 无条件共享, 有条件共享, 不予共享."""

    UNCONDITIONAL = "UNCONDITIONAL"
    CONDITIONAL = "CONDITIONAL"
    NONE = "NONE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """`conditions`: of CONDITIONAL, or the legal basis of NONE. `sensitive`: needs a separate consent (单独同意)."""

    name: str
    share: ShareClass
    conditions: str
    sensitive: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Why no record of an item may be erased: the law that keeps them. `verified`: its article was read in its text."""

    basis: str
    verified: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectRule:
    """Who a record is about. `field` holds an id of `kind`; or, with `id` and `id_type`, it is an array of records with
    these two fields: its first entry takes the role, the others are CO_HOLDER, and `kind` follows from the id type."""

    role: str
    kind: str
    field: str
    id: str = ""
    id_type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One item of the catalogue. `schema` is the newest of `schemas`, which are by digest."""

    name: str
    zh: str
    type_code: str | None
    schema: ItemSchema
    schemas: Mapping[bytes, ItemSchema]
    sections: Mapping[str, Section]
    holder_kind: str
    holder: tuple[str, ...]
    identifying: tuple[str, ...]
    subject_rules: tuple[SubjectRule, ...]
    checks: Checks
    retention: Retention | None = None

    @property
    def definition(self) -> bytes:
        """SHA-256 over what the item is: its sections with share class and conditions, and every schema's digest."""
        sections = [(s.name, s.share.value, s.conditions, s.sensitive) for s in self.sections.values()]
        said = (self.name, self.type_code, sections, self.holder_kind, self.holder, self.identifying)
        text = json.dumps([*said, sorted(digest.hex() for digest in self.schemas)], ensure_ascii=False)
        return hashlib.sha256(text.encode()).digest()

    @property
    def topic(self) -> str:
        """The Kafka topic that its records travel on."""
        return f"licence.{self.name}"

    def validate(self, values: Mapping[str, Any]) -> None:
        """Values fit to publish under the newest schema. Raises `Malformed` naming the field, never its value."""
        self.checks.run(values)
        self._check_type(values)
        self.identify(values)
        for rule in self.subject_rules:
            if rule.id_type:
                self._check_owners(rule, values[rule.field])

    def identify(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """The identifying values in the catalogue's order. Raises `Malformed` for what is not printable NFC text."""
        for field in self.identifying:
            if not is_identifying(values.get(field)):
                raise Malformed(Code.VALUE_INVALID, f"{self.name}, field {field} must be printable NFC text")
        return tuple(values[field] for field in self.identifying)

    def subjects(self, values: Mapping[str, Any]) -> list[tuple[str, str, str]]:
        """(role, kind, canonical id) of everyone a validated record is about, each person or body once.

        The canonical id of a person without a citizen number, or of a body without a credit code, is the id type, a
        blank and the number: it can't be taken for a number of the usual kind.
        """
        found: dict[tuple[str, str], str] = {}
        for rule in self.subject_rules:
            if rule.id_type:
                role = rule.role
                for entry in values[rule.field]:
                    found.setdefault(_subject(entry[rule.id_type], entry[rule.id]), role)
                    role = "CO_HOLDER"
            elif values.get(rule.field) is not None:
                found.setdefault((rule.kind, values[rule.field]), rule.role)
        return [(role, kind, canonical) for (kind, canonical), role in found.items()]

    def _check_type(self, values: Mapping[str, Any]) -> None:
        """A type code (证照类型代码) is the item's; where the registry has none for it, at least one of its form."""
        field = self.checks.by_key.get("ZZLXDM")
        code = None if field is None else values.get(field)
        if code is not None and (code != self.type_code if self.type_code else not _TYPE_CODE.match(code)):
            raise Malformed(Code.VALUE_INVALID, f"{self.name}, field {field} is not the item's type code")

    def _check_owners(self, rule: SubjectRule, entries: list[Any]) -> None:
        if not entries:
            raise Malformed(Code.VALUE_INVALID, f"{self.name}, field {rule.field} has no entry")
        for at, entry in enumerate(entries):
            where = f"{self.name}, field {rule.field}, entry {at}"
            if not isinstance(entry, dict) or not all(type(entry.get(key)) is str for key in (rule.id, rule.id_type)):
                raise Malformed(Code.VALUE_INVALID, f"{where}: {rule.id} and {rule.id_type} are required texts")
            _check_id(entry[rule.id_type], entry[rule.id], where)


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """All items, by name."""

    items: Mapping[str, Item]

    @staticmethod
    @cache
    def load() -> Catalogue:
        """The catalogue that the package carries; read once. Raises `Malformed` (CONFIG_INVALID)."""
        return Catalogue.read(resources.files("schemas") / "items")

    @classmethod
    def read(cls, folder: Traversable) -> Catalogue:
        """A catalogue from a folder of `.toml` and `.avsc` files. Raises `Malformed` (CONFIG_INVALID)."""
        files = sorted(folder.iterdir(), key=lambda file: file.name)
        names = [file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml")]
        return cls(items=MappingProxyType({name: _read_item(name, folder, files) for name in names}))

    def item(self, name: str) -> Item:
        """Raises `Refused` (ITEM_UNKNOWN)."""
        try:
            return self.items[name]
        except KeyError:
            raise Refused(Code.ITEM_UNKNOWN, "the catalogue has no such item") from None


def _subject(id_type: str, number: str) -> tuple[str, str]:
    kind = "ORGANISATION" if id_type in _ORGANISATION_IDS else "PERSON"
    return kind, number if id_type in (_CREDIT_CODE, _CITIZEN) else f"{id_type} {number}"


def _check_id(id_type: str, number: str, where: str) -> None:
    if id_type not in _ORGANISATION_IDS | _PERSON_IDS:
        raise Malformed(Code.VALUE_INVALID, f"{where}: no such id type (GB/T 36903 annex A)")
    try:
        if id_type == _CREDIT_CODE:
            parse_uscc(number)
        elif id_type == _CITIZEN:
            parse_citizen_number(number)
    except Malformed as exc:
        raise Malformed(exc.code, f"{where}: {exc.detail}") from exc
    if not _OTHER_ID.match(number):
        raise Malformed(Code.VALUE_INVALID, f"{where}: an id number is 1 to 32 digits and upper-case letters")


def _read_item(name: str, folder: Traversable, files: list[Traversable]) -> Item:
    if not _NAME.match(name):
        raise _invalid(name, "the file's name is no item name")
    try:
        facts = tomllib.loads((folder / f"{name}.toml").read_text("utf-8"))
        rules = tuple(SubjectRule(**{"kind": "", **rule}) for rule in facts.pop("subjects"))
        sections = {key: _section(name, key, **section) for key, section in facts.pop("sections").items()}
    except (ValueError, TypeError, KeyError, RecursionError) as exc:
        raise _invalid(name, f"not the layout of an item ({type(exc).__name__}: {exc})") from exc
    versions = _versions(name, files)
    schema = versions[max(versions)]
    try:
        item = Item(
            name=name,
            zh=facts.pop("zh"),
            type_code=facts.pop("type_code", None),
            schema=schema,
            schemas=MappingProxyType({one.digest: one for one in versions.values()}),
            sections=MappingProxyType(sections),
            holder_kind=facts.pop("holder_kind"),
            holder=tuple(facts.pop("holder")),
            identifying=tuple(facts.pop("identifying")),
            subject_rules=rules,
            checks=Checks.of(name, schema),
            retention=Retention(**facts.pop("retention")) if "retention" in facts else None,
        )
    except (KeyError, TypeError) as exc:
        raise _invalid(name, f"{exc.args[0]} is missing") from exc
    if facts:
        raise _invalid(name, f"unknown entries: {', '.join(sorted(facts))}")
    _check_item(item)
    return item


def _section(item: str, name: str, *, share: str, conditions: str = "", sensitive: bool = False) -> Section:
    section = Section(name=name, share=ShareClass(share), conditions=conditions, sensitive=sensitive)
    if (section.share is ShareClass.UNCONDITIONAL) == bool(conditions):
        raise _invalid(item, f"section {name}: CONDITIONAL states conditions and NONE its legal basis, only they do")
    return section


def _versions(name: str, files: list[Traversable]) -> dict[int, ItemSchema]:
    found = {
        int(version[1]): ItemSchema.parse(file.read_bytes())
        for file in files
        if file.name.startswith(f"{name}.") and (version := _VERSION.fullmatch(file.name, len(name)))
    }
    if not found:
        raise _invalid(name, f"no {name}.<n>.avsc")
    return found


def _check_item(item: Item) -> None:
    for schema in item.schemas.values():
        if set(schema.sections) != set(item.sections):
            raise _invalid(item.name, "the sections of its schemas and of its .toml differ")
    if item.holder_kind not in _HOLDER_KINDS or not any(rule.role == "HOLDER" for rule in item.subject_rules):
        raise _invalid(item.name, "an item has a holder, PERSON or ORGANISATION")
    named = {*item.identifying, *item.holder, *(rule.field for rule in item.subject_rules)}
    if not item.identifying or not named <= item.schema.fields.keys():
        raise _invalid(item.name, "identifying, holder and subjects name fields of the schema")
    if any(item.schema.fields[field].avro_type != "string" for field in item.identifying):
        raise _invalid(item.name, "an identifying field is a required string")


def _invalid(item: str, what: str) -> Malformed:
    return Malformed(Code.CONFIG_INVALID, f"catalogue item {item}: {what}")
