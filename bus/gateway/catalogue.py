"""The catalogue's entries (资源目录): drafted by departments, reviewed and published by the operator, retired.

What an item is (sections, elements, schemas) comes with the software, as files of `schemas/items`; an entry names that
definition by its digest and says that it is in force. A new definition is a new entry, whose publication retires the
former in the same transaction: there is no moment without one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import msgspec

from bus import audit
from bus.db import queries
from bus.gateway import revisions, rulebook
from bus.gateway.agreements import check_period
from bus.gateway.revisions import Done, body_of
from bus.gateway.rulebook import LIST_LIMIT, ActBody, IdBody, ListBody, Rulebook
from bus.gateway.shapes import CreditCode, Text
from bus.httpsig import Signed
from bus.messages import check_texts
from bus.pki import Signer
from consent.lifecycle import Act
from consent.model import CatalogueEntry, DataClass, EntryState
from schemas.catalogue import Catalogue, Item, ShareClass
from schemas.errors import Code, Malformed, Refused

SINCE = date(2020, 1, 1)  # the first day of entries that come with the software, and of powers without a date
MAX_PROVIDERS = 10_000  # rows of who issues what where: beyond it the rest is left out

SQL = queries(Path(__file__).with_name("catalogue.sql"))


class EntryBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/catalogue`: an entry as it is drafted. `format` 数据格式, `update` 更新周期, `data_class` 数据分级."""

    item: str
    format: Text
    update: Text
    data_class: DataClass
    valid_from: date
    valid_until: date | None = None


class SectionAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A section: `conditions` of CONDITIONAL, or the legal basis of NONE."""

    name: str
    share: ShareClass
    conditions: str
    sensitive: bool


class ElementAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A data element (数据元): its English and Chinese name, and the standard's key for it, if there is one."""

    name: str
    zh: str
    key: str
    section: str
    sensitivity: str


class DefinitionAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What the item is, as the software has it."""

    zh: str
    type_code: str | None
    sections: list[SectionAnswer]
    elements: list[ElementAnswer]


class ProviderAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Who issues the item: `region` is a division prefix, '' everywhere; `by_law`, or delegated to it."""

    uscc: CreditCode
    name: str
    region: str
    by_law: bool
    valid_from: date
    valid_until: date | None


class Entries:
    """The routes of the catalogue."""

    def __init__(self, rulebook: Rulebook, catalogue: Catalogue) -> None:
        self._rulebook = rulebook
        self._catalogue = catalogue

    async def draft(self, signed: Signed, body: EntryBody) -> Any:
        """Drafts an entry of an item that the software has: DRAFT. Any department may, who issues it or will.

        Raises `Refused`: ITEM_UNKNOWN; STATE_INVALID while another entry of the item is in preparation.
        """
        item = self._catalogue.item(body.item)
        check_texts(body.format, body.update)
        check_period(body.valid_from, body.valid_until)
        if not body.format or not body.update:
            raise Malformed(Code.REQUEST_MALFORMED, "an entry says its format and how often it is updated")
        made = CatalogueEntry(
            id=uuid4(),
            revision=1,
            item=item.name,
            definition=item.definition,
            format=body.format,
            update=body.update,
            data_class=body.data_class,
            drafted_by=signed.caller.uscc,
            valid_from=body.valid_from,
            valid_until=body.valid_until,
            state=EntryState.DRAFT,
        )
        busy = Refused(
            Code.STATE_INVALID, f"another entry of {item.name} is in preparation: publish or retire it first"
        )
        async with self._rulebook.connect("reading the catalogue") as connection:
            if await connection.fetchval(SQL["in_preparation"], item.name):
                raise busy
        try:
            await self._rulebook.add(signed, [made])
        except asyncpg.UniqueViolationError:  # two at once: the trail has both, the catalogue the first
            raise busy from None
        return made.to_json()

    async def act(self, signed: Signed, body: ActBody) -> Any:
        """REVIEW, RETURN, PUBLISH and RETIRE by the operator; a department may RETIRE its own draft."""
        follows = _retire_former if body.act is Act.PUBLISH else None
        return (await self._rulebook.act(signed, CatalogueEntry, body, follows=follows)).to_json()

    async def list(self, signed: Signed, body: ListBody) -> Any:
        """Every entry, for every department: what it is, and who issues it where."""
        async with self._rulebook.connect("reading the catalogue") as connection:
            entries = rulebook.read(CatalogueEntry, await connection.fetch(SQL["entries"], LIST_LIMIT))
            return await _answers(connection, entries, self._catalogue)

    async def show(self, signed: Signed, body: IdBody) -> Any:
        """One entry, with every act on it."""
        async with self._rulebook.connect("reading the catalogue") as connection:
            found = rulebook.read(CatalogueEntry, await connection.fetch(SQL["one"], body.id))
            if not found:
                raise Refused(Code.NOT_FOUND, "the catalogue has no entry of this id")
            (answer,) = await _answers(connection, found, self._catalogue)
        return answer | {"acts": await self._rulebook.history(body.id)}


async def publish_shipped(
    connection: asyncpg.Connection, catalogue: Catalogue, signer: Signer, origin: str
) -> list[str]:
    """Enters the items that come with the software, as the operator's act; returns the names of those that are new.

    An item of which another definition is published gets the software's in its place; one that was retired stays so.
    Their entries in the trail wait in the outbox until a gateway runs. Again is once.
    """
    new: list[str] = []
    async with connection.transaction():
        for item in catalogue.items.values():
            entries = rulebook.read(CatalogueEntry, await connection.fetch(SQL["of_item"], item.name))
            former = [one for one in entries if one.state is EntryState.PUBLISHED]
            if entries and (not former or former[0].definition == item.definition):
                continue
            new.append(item.name)
            await _publish(connection, item, former, signer, origin)
    return new


async def _publish(
    connection: asyncpg.Connection, item: Item, former: Sequence[CatalogueEntry], signer: Signer, origin: str
) -> None:
    drafted = _entry(item, signer.uscc)
    reviewed = replace(drafted, revision=2, state=EntryState.REVIEWED)
    published = replace(drafted, revision=3, state=EntryState.PUBLISHED)
    retired = [(_retired(one), Act.RETIRE, published.word) for one in former]
    further: list[Done] = [(reviewed, Act.REVIEW, ""), *retired, (published, Act.PUBLISH, "")]
    await rulebook.insert(connection, [drafted], signer.uscc)
    for entry, act, reason in further:
        await rulebook.update(connection, entry, act, signer.uscc, reason)
    await revisions.keep(connection, own_values(signer, origin, [(drafted, Act.DRAFT, ""), *further]))


def own_values(signer: Signer, origin: str, said: Sequence[Done]) -> list[bytes]:
    """Log values of the operator's own acts: it signs each document's hash, as there is no request to keep."""
    bodies = [
        (
            "Revision",
            body_of(one, act, reason)
            | {
                "author": signer.uscc,
                "digest": one.hash,
                "signer": signer.id,
                "signature": signer.sign(one.hash),
            },
        )
        for one, act, reason in said
    ]
    return audit.log_values(signer, origin, said[0][0].id.bytes, bodies, datetime.now(UTC))


async def _retire_former(connection: asyncpg.Connection, published: CatalogueEntry) -> list[Done]:
    """The published entry of the same item, if there is one, in whose place the other comes."""
    rows = await connection.fetch(SQL["published"], published.item, published.id)
    return [(_retired(one), Act.RETIRE, published.word) for one in rulebook.read(CatalogueEntry, rows)]


async def _answers(
    connection: asyncpg.Connection, entries: Sequence[CatalogueEntry], catalogue: Catalogue
) -> list[dict[str, Any]]:
    providers: dict[str, list[dict[str, Any]]] = {}
    for row in await connection.fetch(SQL["providers"], [*{one.item for one in entries}], MAX_PROVIDERS):
        provider = dict(row)
        providers.setdefault(provider.pop("item"), []).append(provider)
    return [
        one.to_json()
        | {
            "defined": _definition(one, catalogue),
            "providers": [] if one.state is EntryState.RETIRED else providers.get(one.item, []),
        }
        for one in entries
    ]


def _definition(entry: CatalogueEntry, catalogue: Catalogue) -> dict[str, Any] | None:
    """None for an entry of another version of the software."""
    item = catalogue.items.get(entry.item)
    if item is None or item.definition != entry.definition:
        return None
    return {
        "zh": item.zh,
        "type_code": item.type_code,
        "sections": [
            {"name": s.name, "share": s.share.value, "conditions": s.conditions, "sensitive": s.sensitive}
            for s in item.sections.values()
        ],
        "elements": [
            {"name": f.name, "zh": f.zh, "key": f.key, "section": f.section, "sensitivity": f.sensitivity}
            for f in item.schema.fields.values()
        ],
    }


def _retired(entry: CatalogueEntry) -> CatalogueEntry:
    return replace(entry, revision=entry.revision + 1, state=EntryState.RETIRED)


def _entry(item: Item, operator: str) -> CatalogueEntry:
    return CatalogueEntry(
        id=uuid4(),
        revision=1,
        item=item.name,
        definition=item.definition,
        format="Avro",
        update="REALTIME",
        data_class=DataClass.GENERAL,
        drafted_by=operator,
        valid_from=SINCE,
        valid_until=None,
        state=EntryState.DRAFT,
    )
