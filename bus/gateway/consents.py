"""Consents (个人同意): requested or recorded, given, paused, withdrawn; the body for ever, its state beside it.

Withdrawing is as easy as giving (PIPL art. 15): one act without a reason, through whichever department recorded the
consent, receives under it or issues what it opens. A portal sees a subject's consents, for the subject, and each look
is an entry of the log.
"""

from __future__ import annotations

from calendar import isleap
from collections.abc import Callable, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID, uuid4

import asyncpg
import msgspec
from msgspec import Meta

from bus.db import queries
from bus.gateway import agreements, control, trail
from bus.gateway.embargoes import LogReading
from bus.gateway.rulebook import ActBody, IdBody, Rulebook, read
from bus.gateway.shapes import Amount, Count, CreditCode, Hash, Some, SubjectId, SubjectKind
from bus.httpsig import Signed
from consent import receipt
from consent.decide import CHINA
from consent.lifecycle import Act
from consent.model import Agreement, Consent, ConsentState, Every, Frequency, Giver, Mode, Notice, Scope
from schemas.catalogue import Catalogue
from schemas.errors import Code, Malformed, Refused, Unavailable

MAX_CONSENTS = 1_000  # at once: a thousand take half of the largest body
MAX_SCOPES = 32
MAX_REVISIONS = 10_000  # that uses are counted under, of all consents of an answer: a second of PostgreSQL's time
OF_AGE = 14  # years: PIPL art. 31

SQL = queries(Path(__file__).with_name("consents.sql"))


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


class ReceiptBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/consents:receipt`. A portal, which is no party, names the subject that it asks for."""

    id: UUID
    subject: SubjectBody | None = None


class UsesAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """In how many entries of the log something was opened under a consent, and the last civil day (UTC+8)."""

    count: Count
    last: date | None


Pseudonym = Callable[[str, SubjectBody], bytes]


class Consents:
    """The routes of consents."""

    def __init__(self, rulebook: Rulebook, catalogue: Catalogue, pseudonym: Pseudonym, log_reading: LogReading) -> None:
        self._rulebook = rulebook
        self._catalogue = catalogue
        self._pseudonym = pseudonym
        self._log_reading = log_reading

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
        """One that the caller is a party to, with every act on it and how often it was used.

        `uses` is null while the log cannot say: it is counted from its index, so that a release pays nothing for it.
        """
        found = await self._rulebook.show(signed, Consent, body.id)
        acts, uses = await self._rulebook.history(body.id), await self._uses([found])
        return found.to_json() | {"acts": acts, "uses": uses[found.id]}

    async def search(self, signed: Signed, body: SubjectQuery) -> Any:
        """A subject's, as far as the caller is a party; all of them for a portal. With how often each was used."""
        pseudonym = self._pseudonym(body.item, body.subject)
        portal = await self._is_portal(signed)
        found = await self._rulebook.about(signed, Consent, [pseudonym], everyone=portal)
        if portal:
            await self._log_reading(signed, signed.digest[:16], "", "consents:search", [pseudonym], len(found))
        uses = await self._uses(found)
        return [one.to_json() | {"uses": uses[one.id]} for one in found]

    async def receipt(self, signed: Signed, body: ReceiptBody) -> Any:
        """The consent as ISO/IEC TS 27560 has it, in DPV's JSON-LD: for its parties, and for the subject's portal."""
        found = await self._seen(signed, body)
        acts = [
            receipt.Done(act=Act(one["act"]), author=one["author"], at=datetime.fromisoformat(one["at"]))
            for one in await self._rulebook.history(found.id)
        ]
        hashes = [bytes.fromhex(one) for one in found.agreements]
        async with self._rulebook.connect("reading what a consent was given under") as connection:
            under = read(Agreement, await connection.fetch(SQL["under"], found.recipient, hashes))
            codes = {found.recorded_by, found.recipient, *(a.provider for a in under), *(a.author for a in acts)}
            names = await control.names(connection, codes)
        made = receipt.receipt(found, under, names, self._catalogue.items, acts, datetime.now(CHINA))
        return receipt.document(made)

    async def _seen(self, signed: Signed, body: ReceiptBody) -> Consent:
        """A party's own; or, for a portal, one of the subject that it names, once the log has that it asked."""
        asked = body.subject  # what is no subject is refused, whoever asks
        pseudonyms = [] if asked is None else [self._pseudonym(item, asked) for item in self._catalogue.items]
        if asked is None or not await self._is_portal(signed):
            return await self._rulebook.show(signed, Consent, body.id)
        about = await self._rulebook.about(signed, Consent, pseudonyms, everyone=True)
        found = [one for one in about if one.id == body.id]
        await self._log_reading(signed, signed.digest[:16], "", "consents:receipt", pseudonyms, len(found))
        if not found:
            raise Refused(Code.NOT_FOUND, "the subject has no consent of this id")
        return found[0]

    async def _is_portal(self, signed: Signed) -> bool:
        async with self._rulebook.connect("reading who asks") as connection:
            return await control.is_portal(connection, signed.caller.uscc)

    async def _uses(self, consents: Sequence[Consent]) -> dict[UUID, Any]:
        """`UsesAnswer` of each. An entry that was voided is one, too; each revision is a word of its own."""
        ids = [one.id for one in consents]
        async with self._rulebook.connect("counting uses") as connection:
            rows = await connection.fetch(SQL["active"], ids, MAX_REVISIONS)
            words = {("rule", f"{Consent.kind}:{row['rule']}@{row['revision']}"): row["rule"] for row in rows}
            try:
                counted = await trail.uses(connection, words, await trail.published(connection))
            except Unavailable:
                return dict.fromkeys(ids)
        found = {one: counted.get(one, (0, None)) for one in ids}
        return {
            one: {"count": count, "last": None if last is None else last.isoformat()}
            for one, (count, last) in found.items()
        }

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
            rows = await connection.fetch(SQL["covering"], key[0], sorted(key[1]))
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
            minor_until=minor_until(body.subject, datetime.now(CHINA).date()),
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
        if body.evidence:
            check_evidence(body.evidence)
        if body.given_by is Giver.GUARDIAN and not body.evidence:
            raise Malformed(Code.REQUEST_MALFORMED, "a guardian's consent comes with its evidence (PIPL art. 31)")


def check_evidence(digest: str) -> None:
    """Raises `Malformed` (REQUEST_MALFORMED) for what is no SHA-256 in lower-case hex."""
    if len(digest) != 64 or not all(digit in "0123456789abcdef" for digit in digest):
        raise Malformed(Code.REQUEST_MALFORMED, "evidence is the SHA-256 of the signed form, 64 hex digits")


def minor_until(subject: SubjectBody, today: date) -> date | None:
    """The fourteenth birthday of a person who has not had it yet (GB 11643: digits 7 to 14 say when they were born).

    Who was born on 29 February has it on 1 March. The number was checked when its pseudonym was made.
    """
    if subject.kind != "PERSON":
        return None
    year, month, day = int(subject.id[6:10]) + OF_AGE, int(subject.id[10:12]), int(subject.id[12:14])
    turns = date(year, 3, 1) if (month, day) == (2, 29) and not isleap(year) else date(year, month, day)
    return turns if turns > today else None
