"""Consents (个人同意): requested or recorded, given, paused, withdrawn; the body for ever, its state beside it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from typing import Annotated, Any
from uuid import uuid4

import asyncpg
import msgspec
from msgspec import Meta

from bus.gateway import agreements
from bus.gateway.rulebook import ActBody, IdBody, Rulebook, read
from bus.gateway.shapes import Amount, CreditCode, Hash, Some, SubjectId, SubjectKind
from bus.httpsig import Signed
from consent.decide import CHINA
from consent.model import Agreement, Consent, ConsentState, Every, Frequency, Giver, Mode, Notice, Scope
from schemas.catalogue import Catalogue
from schemas.errors import Code, Malformed, Refused

MAX_CONSENTS = 1_000  # at once: a thousand take half of the largest body
MAX_SCOPES = 32
OF_AGE = 14  # years: PIPL art. 31


class SubjectBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A subject by plain id: only ever in a body, never in a URL or a log line."""

    kind: SubjectKind
    id: SubjectId


class ScopeBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What is consented to of one item; `sensitive` are sections separately consented to (单独同意)."""

    item: str
    sections: Annotated[list[str], Meta(extra_json_schema=Some)]
    sensitive: list[str] = []


class FrequencyBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """At most so many uses in each period of the calendar."""

    uses: Amount
    every: Every


class ConsentBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One consent. Who signs the request has recorded it, and is not the recipient; or the recipient asks for it, and
    `through` is the department where the subject answers.

    `agreements` are hashes (hex) of those that it is given under; none means all that the recipient has over the items.
    """

    subject: SubjectBody
    recipient: CreditCode
    purposes: Annotated[list[str], Meta(extra_json_schema=Some)]
    scopes: Annotated[list[ScopeBody], Meta(extra_json_schema={"minItems": 1, "maxItems": MAX_SCOPES})]
    valid_from: date
    valid_until: date | None = None
    agreements: list[Hash] = []
    mode: Mode = Mode.STREAM
    frequency: FrequencyBody | None = None
    max_uses: Amount | None = None
    data_life: Amount | None = None
    notice: Notice = Notice.GIVEN
    given_by: Giver = Giver.SUBJECT
    evidence: Annotated[str, Meta(extra_json_schema={"pattern": "^([0-9a-f]{64})?$"})] = ""
    requested: bool = False
    through: Annotated[str, Meta(extra_json_schema={"pattern": "^([0-9A-HJ-NPQRTUWXY]{18})?$"})] = ""


class ConsentsBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /v1/consents`: many, all recorded or none."""

    consents: Annotated[list[ConsentBody], Meta(min_length=1, max_length=MAX_CONSENTS)]


class SubjectQuery(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A subject under one item's pseudonyms."""

    item: str
    subject: SubjectBody


Pseudonym = Callable[[str, SubjectBody], bytes]


class Consents:
    """The routes of consents."""

    def __init__(self, rulebook: Rulebook, catalogue: Catalogue, pseudonym: Pseudonym) -> None:
        self._rulebook = rulebook
        self._catalogue = catalogue
        self._pseudonym = pseudonym

    async def create(self, signed: Signed, body: ConsentsBody) -> Any:
        """In the trail, then in force (or requested): all or none."""
        async with self._rulebook.connect("checking consents") as connection:
            under: dict[tuple[str, frozenset[str]], list[Agreement]] = {}  # of a batch, most are the same
            made = [await self._make(connection, signed.caller.uscc, one, under) for one in body.consents]
        await self._rulebook.add(signed, made)
        return [one.to_json() for one in made]

    async def act(self, signed: Signed, body: ActBody) -> Any:
        """An answer, a pause or a withdrawal: counts at once, on every gateway."""
        return (await self._rulebook.act(signed, Consent, body)).to_json()

    async def show(self, signed: Signed, body: IdBody) -> Any:
        """One that the caller is a party to, with every act on it."""
        found = await self._rulebook.show(signed, Consent, body.id)
        return found.to_json() | {"acts": await self._rulebook.history(body.id)}

    async def search(self, signed: Signed, body: SubjectQuery) -> Any:
        """A subject's, as far as the caller is a party."""
        pseudonym = self._pseudonym(body.item, body.subject)
        return [one.to_json() for one in await self._rulebook.about(signed, Consent, [pseudonym])]

    async def _make(
        self,
        connection: asyncpg.Connection,
        caller: str,
        body: ConsentBody,
        under: dict[tuple[str, frozenset[str]], list[Agreement]],
    ) -> Consent:
        """A consent as a document. Checked, not stored yet."""
        self._check(body)
        recorder = body.through or caller
        if body.recipient == recorder:
            raise Refused(Code.REQUEST_FORBIDDEN, "who receives the data does not record the consent to it")
        if recorder != caller and not (body.requested and caller == body.recipient):
            raise Refused(Code.REQUEST_FORBIDDEN, "a consent through another department is the recipient's request")
        key = (body.recipient, frozenset(scope.item for scope in body.scopes))
        if key not in under:
            for party in {body.recipient, recorder}:
                await agreements.check_known(connection, party)
            rows = await connection.fetch(agreements.SQL["covering"], key[0], sorted(key[1]))
            under[key] = read(Agreement, rows)
        given = {one.hash.hex() for one in under[key]}
        named = frozenset(body.agreements) or frozenset(given)
        if not named or not named <= given:
            raise Refused(
                Code.AGREEMENT_NONE, "a consent is given under an agreement that shares its items with the recipient"
            )
        return Consent(
            id=uuid4(),
            revision=1,
            recipient=body.recipient,
            purposes=frozenset(body.purposes),
            scopes=tuple(
                Scope(
                    item=scope.item,
                    subject=self._pseudonym(scope.item, body.subject),
                    sections=frozenset(scope.sections),
                    sensitive=frozenset(scope.sensitive),
                )
                for scope in body.scopes
            ),
            agreements=named,
            mode=body.mode,
            valid_from=body.valid_from,
            valid_until=body.valid_until,
            frequency=None
            if body.frequency is None
            else Frequency(uses=body.frequency.uses, every=body.frequency.every),
            max_uses=body.max_uses,
            data_life=body.data_life,
            notice=body.notice,
            given_by=body.given_by,
            minor_until=_minor_until(body.subject),
            recorded_by=recorder,
            evidence=body.evidence,
            state=ConsentState.REQUESTED if body.requested else ConsentState.ACTIVE,
        )

    def _check(self, body: ConsentBody) -> None:
        if not 1 <= len(body.scopes) <= MAX_SCOPES or len({scope.item for scope in body.scopes}) != len(body.scopes):
            raise Malformed(Code.REQUEST_MALFORMED, f"a consent names 1 to {MAX_SCOPES} items, each once")
        for scope in body.scopes:
            agreements.check_names(self._catalogue.item(scope.item), scope.sections, body.purposes)
            if not scope.sections or not body.purposes or not set(scope.sensitive) <= set(scope.sections):
                raise Malformed(
                    Code.REQUEST_MALFORMED, "a consent names sections and purposes; sensitive ones are among them"
                )
        agreements.check_period(body.valid_from, body.valid_until)
        agreements.check_positive(body.max_uses, None if body.frequency is None else body.frequency.uses)
        agreements.check_data_life(body.data_life)
        if body.evidence and not _is_digest(body.evidence):
            raise Malformed(Code.REQUEST_MALFORMED, "evidence is the SHA-256 of the signed form, 64 hex digits")
        if body.given_by is Giver.GUARDIAN and not body.evidence:
            raise Malformed(Code.REQUEST_MALFORMED, "a guardian's consent comes with its evidence (PIPL art. 31)")


def _is_digest(text: str) -> bool:
    return len(text) == 64 and all(digit in "0123456789abcdef" for digit in text)


def _minor_until(subject: SubjectBody) -> date | None:
    """The fourteenth birthday of a person who has not had it yet (GB 11643: digits 7 to 14 say when they were born).

    Who was born on 29 February has it on 1 March. The number was checked when its pseudonym was made.
    """
    if subject.kind != "PERSON":
        return None
    year, month, day = int(subject.id[6:10]) + OF_AGE, int(subject.id[10:12]), int(subject.id[12:14])
    turns = date(year, month, day) if (month, day) != (2, 29) or year % 4 == 0 else date(year, 3, 1)
    return turns if turns > datetime.now(CHINA).date() else None
