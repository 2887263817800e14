"""Opening a record with released keys: commitment, padding and encoding checked before a field is seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bus import sealing
from bus.envelope import Claims, Record
from bus.messages import Result
from schemas.catalogue import Catalogue
from schemas.errors import Code, Malformed, Refused
from schemas.item import ItemSchema

# Permitted, and yet no key: a record to come back to, not one to hand over with a refusal.
_KEYLESS = frozenset({Code.SESSION_UNKNOWN, Code.SESSION_INVALID, Code.SESSION_ELSEWHERE, Code.BODY_UNOPENABLE})

Secrets = Mapping[tuple[bytes, str], bytes]  # by (leaf hash, section), as a grant gives them


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedRecord:
    """The sections that opened, the code of each that was refused, and the audit entry (leaf hash) that says so.

    `salts` and `plains` (padded plaintexts) are what a disclosure to a third party is made of; secrets are not kept.
    """

    record: Record
    sections: Mapping[str, Mapping[str, Any]]
    refused: Mapping[str, Code]
    salts: Mapping[str, bytes] = field(repr=False)
    plains: Mapping[str, bytes] = field(repr=False)
    entry: bytes

    @property
    def claims(self) -> Claims:
        """What the record claims, in clear."""
        return self.record.claims

    @property
    def item(self) -> str:
        """The catalogue item."""
        return self.record.claims.item

    @property
    def leaf_hash(self) -> bytes:
        """The record's identity, 32 bytes."""
        return self.record.leaf_hash

    @property
    def licence(self) -> bytes:
        """The reference of the licence over all its versions, 32 bytes."""
        return self.record.claims.licence

    @property
    def sequence(self) -> int:
        """Which version of the licence this is, from 1."""
        return self.record.claims.sequence

    @property
    def values(self) -> dict[str, Any]:
        """The fields of every opened section, together."""
        return {name: value for section in self.sections.values() for name, value in section.items()}


def elsewhere(result: Result) -> bool:
    """Whether it is another department's gateway that opens the record's session."""
    return any(code == Code.SESSION_ELSEWHERE for _, code in result.sections)


def schema_of(catalogue: Catalogue, record: Record) -> ItemSchema:
    """The schema that a record's claims name. Raises `Refused` (ITEM_UNKNOWN, SCHEMA_UNKNOWN)."""
    schema = catalogue.item(record.claims.item).schemas.get(record.claims.schema)
    if schema is None:
        raise Refused(Code.SCHEMA_UNKNOWN, f"the catalogue has no such schema of {record.claims.item}")
    return schema


def open_record(record: Record, schema: ItemSchema, result: Result, secrets: Secrets) -> OpenedRecord:
    """A record as the grant allows. Raises `Malformed` or `Refused` (CONFLICT, GRANT_INVALID, BODY_*, SECTION_*)."""
    if result.state == "REFUSED":
        why = next((Code(code) for _, code in result.sections), Code.NOT_ADMITTED)
        raise Refused(why, "the recorder refused this record: its issuer is told why")
    if result.state == "CONFLICT":
        raise Refused(Code.CONFLICT, "two records claim this place: neither opens until a ruling")
    lost = next((Code(code) for _, code in result.sections if code in _KEYLESS), None)
    if lost is not None:
        raise Refused(lost, "it may be opened, and no gateway holds its session's key: replay it once one does")
    sections: dict[str, Mapping[str, Any]] = {}
    salts: dict[str, bytes] = {}
    plains: dict[str, bytes] = {}
    for name, code in result.sections:
        if code == Code.PERMIT:
            secret = secrets.get((record.leaf_hash, name))
            if secret is None:
                raise Refused(Code.GRANT_INVALID, f"the grant permits section {name} and holds no key for it")
            sections[name], plains[name] = open_section(schema, record, name, secret)
            salts[name] = sealing.salt_of(secret)
    return OpenedRecord(
        record=record,
        sections=sections,
        refused={name: Code(code) for name, code in result.sections if code != Code.PERMIT},
        salts=salts,
        plains=plains,
        entry=result.entry,
    )


def open_section(schema: ItemSchema, record: Record, section: str, secret: bytes) -> tuple[Mapping[str, Any], bytes]:
    """A section's fields and its padded plaintext. Raises `Malformed`, `Refused`."""
    for at, (name, commitment) in enumerate(record.claims.sections):
        if name == section:
            plain = sealing.open_body(secret, commitment, record.bodies[at])
            return decode_section(schema, section, plain), plain
    raise Refused(Code.SECTION_UNKNOWN, f"the record has no section {section}")


def decode_section(schema: ItemSchema, section: str, plain: bytes) -> Mapping[str, Any]:
    """The fields of a padded plaintext. Raises `Malformed` or `Refused` (SECTION_UNKNOWN)."""
    codec = schema.codecs.get(section)
    if codec is None:
        raise Refused(Code.SECTION_UNKNOWN, f"the schema {schema.name} has no section {section}")
    try:
        value, used = codec.read(plain, 0)
    except Malformed as exc:
        raise Malformed(Code.SECTION_MALFORMED, exc.detail) from exc
    sealing.check_padding(plain, used)
    fields: Mapping[str, Any] = value
    return fields
