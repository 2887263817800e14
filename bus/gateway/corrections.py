"""Corrections (校核纠错): a consumer doubts what it opened; the issuer corrects the record, or confirms it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec

from bus.db import queries
from bus.gateway import reading
from bus.gateway.deadlines import Deadlines
from bus.gateway.rulebook import MAX_REASON, ActBody, IdBody, ListBody, Rulebook
from bus.gateway.shapes import Hash, from_hex
from bus.httpsig import Signed
from bus.messages import check_texts
from consent.model import Correction, CorrectionState
from schemas.catalogue import Catalogue, ShareClass
from schemas.errors import Code, Malformed, Refused

SQL = queries(Path(__file__).with_name("corrections.sql"))


class CorrectionBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/corrections`: a record by its leaf hash, the section that is doubted, and why; no personal id in it."""

    record: Hash
    section: str
    reason: str


class Corrections:
    """The routes of corrections."""

    def __init__(self, rulebook: Rulebook, catalogue: Catalogue, deadlines: Deadlines) -> None:
        self._rulebook = rulebook
        self._catalogue = catalogue
        self._deadlines = deadlines

    async def request(self, signed: Signed, body: CorrectionBody) -> Any:
        """Asks the issuer of a record to look at it again: REQUESTED.

        Raises `Refused` (NOT_FOUND) for a record that the caller may not have opened.
        """
        check_texts(body.reason, most=MAX_REASON)
        if not body.reason:
            raise Refused(Code.REASON_MISSING, "a correction says what is doubted, and why")
        record = from_hex(body.record, 32)
        async with self._rulebook.connect("looking the record up") as connection:
            found = await reading.version(connection, record)
            item = None if found is None else self._catalogue.items.get(found.item)
            if found is None or item is None:
                raise _not_opened()
            if body.section not in item.sections:
                raise Malformed(Code.SECTION_UNKNOWN, f"{item.name} has no section {body.section!r:.80}")
            if item.sections[body.section].share is not ShareClass.UNCONDITIONAL and not await connection.fetchval(
                SQL["opened"], signed.caller.uscc, found.provider, found.item, body.section
            ):
                raise _not_opened()
        made = Correction(
            id=uuid4(),
            revision=1,
            record=record,
            item=found.item,
            provider=found.provider,
            consumer=signed.caller.uscc,
            section=body.section,
            reason=body.reason,
            state=CorrectionState.REQUESTED,
        )
        await self._rulebook.add(signed, [made])
        return made.to_json()

    async def act(self, signed: Signed, body: ActBody) -> Any:
        """FIX or CONFIRM, by the issuer, with what it found. A fix is a new record: this says that it was published."""
        return (await self._rulebook.act(signed, Correction, body)).to_json()

    async def list(self, signed: Signed, body: ListBody) -> Any:
        """The caller's own, on either side, each with its deadline."""
        found = await self._rulebook.mine(signed, Correction)
        return await self._deadlines.listed(self._rulebook, found)

    async def show(self, signed: Signed, body: IdBody) -> Any:
        """One of the caller's own, with its deadline, and every act on it."""
        found = await self._rulebook.show(signed, Correction, body.id)
        return await self._deadlines.whole(self._rulebook, found)


def _not_opened() -> Refused:
    return Refused(Code.NOT_FOUND, "no such record is admitted, or your department has had no agreement to open it")
