"""The catalogue's entries (资源目录): drafted by providers, reviewed and published by the operator, retired."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from uuid import uuid4

import asyncpg

from bus import audit
from bus.gateway import revisions, rulebook
from bus.gateway.revisions import body_of
from bus.pki import Signer
from consent.documents import Document
from consent.lifecycle import Act
from consent.model import CatalogueEntry, DataClass, EntryState
from schemas.catalogue import Catalogue, Item

SINCE = date(2020, 1, 1)  # the first day of entries that come with the software


async def publish_shipped(
    connection: asyncpg.Connection, catalogue: Catalogue, signer: Signer, origin: str
) -> list[str]:
    """Enters the items that come with the software, as the operator's act; returns the names that were new.

    Their entries in the trail wait in the outbox until a gateway runs. Again is once.
    """
    known = {one.item for one in await _entries(connection)}
    missing = [item for name, item in catalogue.items.items() if name not in known]
    async with connection.transaction():
        for item in missing:
            drafted = _entry(item, signer.uscc)
            await rulebook.insert(connection, [drafted], signer.uscc)
            reviewed = replace(drafted, revision=2, state=EntryState.REVIEWED)
            published = replace(drafted, revision=3, state=EntryState.PUBLISHED)
            for entry, act in ((reviewed, Act.REVIEW), (published, Act.PUBLISH)):
                await rulebook.update(connection, entry, act, signer.uscc, "")
            said = [(drafted, Act.DRAFT), (reviewed, Act.REVIEW), (published, Act.PUBLISH)]
            await revisions.keep(connection, own_values(signer, origin, said))
    return [item.name for item in missing]


def own_values(signer: Signer, origin: str, said: Sequence[tuple[Document, Act]]) -> list[bytes]:
    """Log values of the operator's own acts: it signs each document's hash, as there is no request to keep."""
    bodies = [
        (
            "Revision",
            body_of(one, act, "")
            | {
                "author": signer.uscc,
                "digest": one.hash,
                "signer": signer.id,
                "signature": signer.sign(one.hash),
            },
        )
        for one, act in said
    ]
    return audit.log_values(signer, origin, said[0][0].id.bytes, bodies, datetime.now(UTC))


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


async def _entries(connection: asyncpg.Connection) -> list[CatalogueEntry]:
    rows = await connection.fetch(rulebook.SQL["of_kind"], CatalogueEntry.kind, rulebook.LIST_LIMIT)
    return rulebook.read(CatalogueEntry, rows)
