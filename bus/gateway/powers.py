"""Powers (授权) of departments, and mandates (委托) of agents: apart from consent, which is a subject's.

A department lets another one (a window 窗口, a zone, a lower level) open what its own agreements share, or issue what
it may issue itself: the other acts with its own keys, under its own name. Who acts for a subject (代办员) does so under
a mandate that a department recorded where the subject gave it. Both have dates, and end by one act.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import asyncpg
import msgspec
from msgspec import Meta

from bus.db import queries
from bus.gateway.agreements import MAX_LIST, check_known, check_period, check_purposes, check_regions
from bus.gateway.consents import MAX_SCOPES, Pseudonym, SubjectBody, SubjectQuery, check_evidence
from bus.gateway.rulebook import ActBody, IdBody, ListBody, Rulebook
from bus.gateway.shapes import CreditCode, Hash, Name, Region, Some
from bus.httpsig import Signed
from bus.messages import check_texts
from consent.decide import CHINA
from consent.model import Holder, Mandate, Power, PowerKind, PowerState
from consent.rules import in_regions
from schemas.catalogue import Catalogue
from schemas.errors import Code, Malformed, Refused

SQL = queries(Path(__file__).with_name("powers.sql"))

Items = Annotated[list[str], Meta(extra_json_schema={"minItems": 1, "maxItems": MAX_SCOPES, "uniqueItems": True})]


class PowerBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/powers`: who signs it is the grantor. `basis` is the deed of delegation (授权确认书)."""

    right: PowerKind
    grantee: CreditCode
    items: Items
    basis: Name
    valid_from: date
    valid_until: date | None = None
    purposes: list[str] = []
    regions: list[Region] = []


class MandateBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/mandates`: who signs it recorded it, where the subject gave it.

    `agent` is the agent's id in the departments' systems, never a citizen number; `evidence` the SHA-256 of the signed
    mandate (委托书).
    """

    agent: Name
    subject: SubjectBody
    items: Items
    purposes: Annotated[list[str], Meta(extra_json_schema=Some)]
    valid_from: date
    valid_until: date
    evidence: Hash


class Powers:
    """The routes of powers."""

    def __init__(self, rulebook: Rulebook, catalogue: Catalogue) -> None:
        self._rulebook = rulebook
        self._catalogue = catalogue

    async def add(self, signed: Signed, body: PowerBody) -> Any:
        """Delegates a power: in the trail, then in force.

        OPEN: what the caller's own agreements share, now or later. ISSUE: what the caller may issue by law, there; a
        delegated power is not passed on. The operator's power to issue is one by law (权力清单).
        """
        caller = signed.caller.uscc
        self._check(body)
        if body.grantee == caller:
            raise Refused(Code.REQUEST_FORBIDDEN, "a power is given to another department")
        async with self._rulebook.connect("checking a power") as connection:
            await check_known(connection, body.grantee)
            if body.right is PowerKind.ISSUE and not self._rulebook.is_operator(signed):
                await check_issues(connection, caller, body.items, body.regions)
        made = Power(
            id=uuid4(),
            revision=1,
            right=body.right,
            grantor=caller,
            grantee=body.grantee,
            items=frozenset(body.items),
            purposes=frozenset(body.purposes),
            regions=frozenset(body.regions),
            valid_from=body.valid_from,
            valid_until=body.valid_until,
            basis=body.basis,
            state=PowerState.ACTIVE,
        )
        await self._rulebook.add(signed, [made])
        return made.to_json()

    async def act(self, signed: Signed, body: ActBody) -> Any:
        """Ends it, from either side: counts at once, on every gateway."""
        return (await self._rulebook.act(signed, Power, body)).to_json()

    async def list(self, signed: Signed, body: ListBody) -> Any:
        """The caller's own: given and received."""
        return [one.to_json() for one in await self._rulebook.mine(signed, Power)]

    async def show(self, signed: Signed, body: IdBody) -> Any:
        """One of the caller's own, with every act on it."""
        found = await self._rulebook.show(signed, Power, body.id)
        return found.to_json() | {"acts": await self._rulebook.history(body.id)}

    def _check(self, body: PowerBody) -> None:
        _check_items(self._catalogue, body.items)
        check_purposes(body.purposes)
        check_regions(body.regions)
        check_period(body.valid_from, body.valid_until)
        check_texts(body.basis)
        if max(len(body.purposes), len(body.regions)) > MAX_LIST:
            raise Malformed(Code.REQUEST_MALFORMED, f"at most {MAX_LIST} purposes and regions")
        if not body.basis:
            raise Malformed(Code.REQUEST_MALFORMED, "a power names its basis, the deed of delegation (授权确认书)")
        if bool(body.purposes) is not (body.right is PowerKind.OPEN):
            raise Malformed(Code.REQUEST_MALFORMED, "a power to open names its purposes; one to issue has none")


class Mandates:
    """The routes of mandates."""

    def __init__(self, rulebook: Rulebook, catalogue: Catalogue, pseudonym: Pseudonym) -> None:
        self._rulebook = rulebook
        self._catalogue = catalogue
        self._pseudonym = pseudonym

    async def add(self, signed: Signed, body: MandateBody) -> Any:
        """Records a mandate: in the trail, then in force. No agent records its own."""
        caller = signed.caller.uscc
        _check_items(self._catalogue, body.items)
        check_purposes(body.purposes)
        check_period(body.valid_from, body.valid_until)
        check_texts(body.agent)
        check_evidence(body.evidence)
        if not body.agent or not 1 <= len(body.purposes) <= MAX_LIST:
            raise Malformed(Code.REQUEST_MALFORMED, f"a mandate names its agent, and 1 to {MAX_LIST} purposes")
        if body.agent == caller:
            raise Refused(Code.REQUEST_FORBIDDEN, "who acts for the subject does not record the mandate for it")
        made = Mandate(
            id=uuid4(),
            revision=1,
            agent=body.agent,
            subjects=tuple(Holder(item=item, subject=self._pseudonym(item, body.subject)) for item in body.items),
            purposes=frozenset(body.purposes),
            valid_from=body.valid_from,
            valid_until=body.valid_until,
            recorded_by=caller,
            evidence=body.evidence,
            state=PowerState.ACTIVE,
        )
        await self._rulebook.add(signed, [made])
        return made.to_json()

    async def act(self, signed: Signed, body: ActBody) -> Any:
        """Ends it: counts at once, on every gateway."""
        return (await self._rulebook.act(signed, Mandate, body)).to_json()

    async def list(self, signed: Signed, body: ListBody) -> Any:
        """Those that the caller recorded."""
        return [one.to_json() for one in await self._rulebook.mine(signed, Mandate)]

    async def search(self, signed: Signed, body: SubjectQuery) -> Any:
        """A subject's, as far as the caller recorded them."""
        found = await self._rulebook.about(signed, Mandate, [self._pseudonym(body.item, body.subject)])
        return [one.to_json() for one in found]

    async def show(self, signed: Signed, body: IdBody) -> Any:
        """One that the caller recorded, with every act on it."""
        found = await self._rulebook.show(signed, Mandate, body.id)
        return found.to_json() | {"acts": await self._rulebook.history(body.id)}


async def check_issues(
    connection: asyncpg.Connection, grantor: str, items: Sequence[str], regions: Sequence[str]
) -> None:
    """Raises `Refused` (REQUEST_FORBIDDEN) for an item that a department does not issue by law in all of these."""
    held: dict[str, set[str]] = {}
    for row in await connection.fetch(SQL["issues"], grantor, list(items), datetime.now(CHINA).date()):
        held.setdefault(row["item"], set()).add(row["region"])
    for item in items:
        own = held.get(item, set())
        everywhere = "" in own
        if not own or not (everywhere or (regions and all(in_regions(frozenset(own), one) for one in regions))):
            raise Refused(
                Code.REQUEST_FORBIDDEN, f"the power to issue {item} there is not yours to delegate: name your regions"
            )


def _check_items(catalogue: Catalogue, items: Sequence[str]) -> None:
    if not 1 <= len(items) <= MAX_SCOPES or len(set(items)) != len(items):
        raise Malformed(Code.REQUEST_MALFORMED, f"1 to {MAX_SCOPES} items, each once")
    for item in items:
        catalogue.item(item)
