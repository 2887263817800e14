"""The deadlines of documents, as answers show them and the recorder's clock looks at them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from bus.db import queries
from bus.gateway.rulebook import Rulebook
from bus.gateway.shapes import shown
from consent.calendar import Years
from consent.deadlines import Deadline, Standing, running
from consent.decide import CHINA
from consent.documents import Document
from consent.lifecycle import Act
from consent.model import Agreement
from schemas.catalogue import Catalogue, ShareClass

SQL = queries(Path(__file__).with_name("deadlines.sql"))


class DeadlineAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The limit (of `consent/law.toml`) that runs for a document: who is slow is LATE after `due`.

    `due` is null where the calendar of working days does not reach: then the standing is DEADLINE_UNKNOWN. `verified`
    says whether the article was read in its text.
    """

    limit: str
    since: date
    due: date | None
    standing: Standing
    citation: str
    verified: bool


def due(kind: type, **more: Any) -> Any:
    """How a document looks with its deadline, as `shown`."""
    return shown(kind, deadline=DeadlineAnswer | None, **more)


class Deadlines:
    """Knows what the days of deadlines follow from: the items' share classes, and the operator's own calendar."""

    def __init__(self, catalogue: Catalogue, years: Years) -> None:
        self._catalogue = catalogue
        self._years = years

    async def of(self, connection: asyncpg.Connection, documents: Sequence[Document]) -> dict[UUID, Deadline]:
        """The deadlines of those that have one, by their ids."""
        acts: dict[UUID, dict[Act, date]] = {}
        for row in await connection.fetch(SQL["acts"], [one.id for one in documents]):
            acts.setdefault(row["rule"], {})[Act(row["act"])] = row["at"].astimezone(CHINA).date()
        found = {one.id: running(one, self._shares(one), acts.get(one.id, {}), self._years) for one in documents}
        return {identifier: deadline for identifier, deadline in found.items() if deadline is not None}

    async def answers(self, connection: asyncpg.Connection, documents: Sequence[Document]) -> list[dict[str, Any]]:
        """Documents as answers have them, each with its `deadline`; null where none runs."""
        found = await self.of(connection, documents)
        today = datetime.now(CHINA).date()
        return [one.to_json() | {"deadline": _shown(found.get(one.id), today)} for one in documents]

    async def listed(self, rulebook: Rulebook, documents: Sequence[Document]) -> list[dict[str, Any]]:
        """Documents as a list answers them."""
        async with rulebook.connect("reading deadlines") as connection:
            return await self.answers(connection, documents)

    async def whole(self, rulebook: Rulebook, document: Document) -> dict[str, Any]:
        """One document with every act on it."""
        (found,) = await self.listed(rulebook, [document])
        return found | {"acts": await rulebook.history(document.id)}

    def _shares(self, document: Document) -> list[ShareClass]:
        """Of an agreement's sections. One that the catalogue does not have any more may have been conditional."""
        if not isinstance(document, Agreement):
            return []
        item = self._catalogue.items.get(document.item)
        known = {} if item is None else item.sections
        return [known[name].share if name in known else ShareClass.CONDITIONAL for name in document.sections]


def _shown(deadline: Deadline | None, today: date) -> Any:
    if deadline is None:
        return None
    return {
        "limit": deadline.limit.id,
        "since": deadline.since.isoformat(),
        "due": None if deadline.due is None else deadline.due.isoformat(),
        "standing": deadline.standing(today).value,
        "citation": deadline.limit.citation,
        "verified": deadline.limit.verified,
    }
