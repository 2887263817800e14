"""Sharing agreements (共享协议): a consumer applies, the provider answers, both use and end them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID, uuid4

import asyncpg
import msgspec
from msgspec import Meta

from bus.db import queries
from bus.gateway.deadlines import Deadlines
from bus.gateway.rulebook import ActBody, IdBody, ListBody, Rulebook
from bus.gateway.shapes import Amount, CreditCode, Reason, Region, Some
from bus.httpsig import Signed
from bus.messages import check_texts
from consent.lifecycle import Act
from consent.model import Agreement, AgreementState, Ground, Mode, Notice, Status
from consent.purposes import PURPOSES
from schemas.catalogue import Catalogue, Item
from schemas.errors import Code, Malformed, Refused

DEFAULT_MAX_AGE = 24 * 3600
MAX_LIST = 64
MAX_TEXT = 500  # characters of a basis or a scenario
MAX_DATA_LIFE = 36_500  # days: a hundred years, which are days of a calendar still

SQL = queries(Path(__file__).with_name("agreements.sql"))


class AgreementBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/agreements`: the application (共享申请) of who signs the request, the consumer."""

    provider: CreditCode
    item: str
    sections: Annotated[list[str], Meta(extra_json_schema=Some)]
    purposes: Annotated[list[str], Meta(extra_json_schema=Some)]
    grounds: Annotated[list[Ground], Meta(extra_json_schema=Some)]
    valid_from: date
    basis: Reason = ""
    scenario: Reason = ""
    mode: Mode = Mode.STREAM
    notice: Notice = Notice.GIVEN
    valid_until: date | None = None
    purpose_until: date | None = None
    regions: list[Region] = []
    duties: list[Reason] = []
    requests_a_day: Amount | None = None
    records_a_day: Amount | None = None
    max_age: Amount = DEFAULT_MAX_AGE
    data_life: Amount | None = None
    statuses: list[Status] = []
    superseded: bool = False
    onward: list[CreditCode] = []
    set_limit: Amount | None = None
    set_until: date | None = None


class ResubmitBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/agreements:resubmit`: a returned application, supplemented."""

    id: UUID
    application: AgreementBody


class Agreements:
    """The routes of agreements."""

    def __init__(self, rulebook: Rulebook, catalogue: Catalogue, deadlines: Deadlines) -> None:
        self._rulebook = rulebook
        self._catalogue = catalogue
        self._deadlines = deadlines

    async def submit(self, signed: Signed, body: AgreementBody) -> Any:
        """Applies for an agreement: SUBMITTED."""
        async with self._rulebook.connect("checking an application") as connection:
            made = await self._make(connection, signed.caller.uscc, body)
        await self._rulebook.add(signed, [made])
        return made.to_json()

    async def resubmit(self, signed: Signed, body: ResubmitBody) -> Any:
        """Supplements a returned application, for the same item and provider: SUBMITTED again."""
        before = await self._rulebook.show(signed, Agreement, body.id)
        async with self._rulebook.connect("checking an application") as connection:
            made = await self._make(connection, signed.caller.uscc, body.application)
        if (made.provider, made.item) != (before.provider, before.item):
            raise Refused(Code.STATE_INVALID, "a supplement keeps provider and item: apply anew for others")
        changed = replace(made, id=body.id)
        after = await self._rulebook.act(signed, Agreement, ActBody(id=body.id, act=Act.RESUBMIT), changed)
        return after.to_json()

    async def act(self, signed: Signed, body: ActBody) -> Any:
        """An answer, or an end: counts at once, on every gateway."""
        if body.act is Act.RESUBMIT:
            raise Refused(Code.STATE_INVALID, "a supplement comes with its application: /v1/agreements:resubmit")
        return (await self._rulebook.act(signed, Agreement, body)).to_json()

    async def list(self, signed: Signed, body: ListBody) -> Any:
        """The caller's own, on either side, each with the deadline that runs."""
        return await self._deadlines.listed(self._rulebook, await self._rulebook.mine(signed, Agreement))

    async def show(self, signed: Signed, body: IdBody) -> Any:
        """One of the caller's own, with the deadline that runs, and every act on it: a refusal names its reason."""
        return await self._deadlines.whole(self._rulebook, await self._rulebook.show(signed, Agreement, body.id))

    async def _make(self, connection: asyncpg.Connection, caller: str, body: AgreementBody) -> Agreement:
        """The application as a document. Checked, not stored yet."""
        item = self._catalogue.item(body.item)
        check_names(item, body.sections, body.purposes)
        if body.sections == [] or body.purposes == [] or not body.grounds:
            raise Malformed(Code.REQUEST_MALFORMED, "an agreement names at least one section, purpose and ground")
        check_regions(body.regions)
        if any(ground is not Ground.CONSENT for ground in body.grounds) and not body.duties:
            raise Malformed(Code.REQUEST_MALFORMED, "an agreement on a duty or another law cites it in duties")
        check_period(body.valid_from, body.valid_until)
        check_positive(body.requests_a_day, body.records_a_day, body.max_age, body.set_limit)
        check_data_life(body.data_life)
        check_texts(body.basis, body.scenario, *body.duties, most=MAX_TEXT)
        if not await connection.fetchval(SQL["issues"], item.name, body.provider):
            raise Refused(
                Code.REQUEST_FORBIDDEN, f"{body.provider} does not issue {item.name}: only its issuer shares it"
            )
        for party in {caller, *body.onward}:
            await check_known(connection, party)
        return Agreement(
            id=uuid4(),
            revision=1,
            provider=body.provider,
            consumer=caller,
            item=item.name,
            basis=body.basis,
            scenario=body.scenario,
            mode=body.mode,
            sections=frozenset(body.sections),
            purposes=frozenset(body.purposes),
            regions=frozenset(body.regions),
            grounds=frozenset(body.grounds),
            duties=frozenset(body.duties),
            notice=body.notice,
            valid_from=body.valid_from,
            valid_until=body.valid_until,
            purpose_until=body.purpose_until,
            requests_a_day=body.requests_a_day,
            records_a_day=body.records_a_day,
            max_age=body.max_age,
            data_life=body.data_life,
            statuses=frozenset(body.statuses),
            superseded=body.superseded,
            onward=frozenset(body.onward),
            set_limit=body.set_limit,
            set_until=body.set_until,
            state=AgreementState.SUBMITTED,
        )


async def check_known(connection: asyncpg.Connection, uscc: str) -> None:
    """Raises `Refused` (CONSUMER_UNKNOWN) for a department that has not joined."""
    if not await connection.fetchval(SQL["known"], uscc):
        raise Refused(Code.CONSUMER_UNKNOWN, f"no department of code {uscc:.32} has joined the bus")


def check_names(item: Item, sections: Sequence[str], purposes: Sequence[str]) -> None:
    """Sections are the item's, purposes the tree's. Raises `Malformed`."""
    if len(sections) > MAX_LIST or len(purposes) > MAX_LIST:
        raise Malformed(Code.REQUEST_MALFORMED, f"at most {MAX_LIST} sections and purposes")
    for section in sections:
        if section not in item.sections:
            raise Malformed(Code.SECTION_UNKNOWN, f"{item.name} has no section {section!r:.80}")
    check_purposes(purposes)


def check_purposes(purposes: Sequence[str]) -> None:
    """Raises `Malformed` (REQUEST_MALFORMED) for one that the tree does not have."""
    for purpose in purposes:
        if purpose not in PURPOSES:
            raise Malformed(Code.REQUEST_MALFORMED, f"unknown purpose {purpose!r:.80}: see consent/purposes.toml")


def check_regions(regions: Sequence[str]) -> None:
    """Raises `Malformed` (REGION_UNKNOWN) for what is no GB/T 2260 prefix."""
    if not all(prefix.isascii() and prefix.isdigit() and len(prefix) in (2, 4, 6) for prefix in regions):
        raise Malformed(Code.REGION_UNKNOWN, "regions are division prefixes of 2, 4 or 6 digits")


def check_period(first: date, last: date | None) -> None:
    """Raises `Malformed` (REQUEST_MALFORMED) for a period that ends before it begins."""
    if last is not None and last < first:
        raise Malformed(Code.REQUEST_MALFORMED, "valid_until is before valid_from")


def check_data_life(days: int | None) -> None:
    """Raises `Malformed` (REQUEST_MALFORMED) for what is no number of days until data is deleted."""
    if days is not None and not 1 <= days <= MAX_DATA_LIFE:
        raise Malformed(Code.REQUEST_MALFORMED, f"data_life is 1 to {MAX_DATA_LIFE} days; none is no limit")


def check_positive(*numbers: int | None) -> None:
    """Raises `Malformed` (REQUEST_MALFORMED) for a limit of nothing."""
    if any(number is not None and not 1 <= number <= 2**31 for number in numbers):
        raise Malformed(Code.REQUEST_MALFORMED, "limits are at least 1 and at most 2^31")
