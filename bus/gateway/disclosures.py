"""Onward supply (转提供): may a consumer pass what it opened on to somebody else? Only if the provider agreed.

A copy that has left a department cannot be stopped. What is asked here is kept in the trail, so that it can be proven
who was allowed to pass on what to whom, and that somebody who did not ask was not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from bus import envelope
from bus.gateway import reading
from bus.gateway.rulebook import Connect
from bus.gateway.shapes import CreditCode, Hash, Name, Text, from_hex
from bus.httpsig import Signed
from bus.messages import Read, check_asked
from consent.model import Access, Decision
from schemas.errors import Code, Malformed, Refused
from schemas.identifiers import parse_uscc

MAX_SECTIONS = 64

Judge = Callable[[Signed, Access, Read], Awaitable[tuple[Decision, bytes]]]


class DisclosureBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/disclosures:check`: a record by its leaf hash, and the department or firm `to` whom it would go."""

    record: Hash
    sections: list[str]
    to: CreditCode
    purpose: Name
    ground: Name
    operator: Name
    citation: Text = ""
    case: Text = ""
    agent: Text | None = None


class SectionAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One section's answer, and the words of what it rests on."""

    section: str
    code: Code
    rule: str


class DisclosureAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Every section asked for, once; `entry` is the leaf hash of the log's entry, a proof of which may go along."""

    sections: list[SectionAnswer]
    entry: Hash


class Disclosures:
    """The route of onward supply. `judge` decides and logs, and gives no key."""

    def __init__(self, connect: Connect, judge: Judge) -> None:
        self._connect = connect
        self._judge = judge

    async def check(self, signed: Signed, body: DisclosureBody) -> Any:
        """May these sections go on to another? The answer is in the log before it is given; nothing is opened by it.

        Limits of openings do not count here. Raises `Refused` (NOT_FOUND) for a record that is not admitted.
        """
        check_asked(body.purpose, body.ground, body.operator, body.citation, body.case, body.agent)
        if not 1 <= len(body.sections) <= MAX_SECTIONS:
            raise Malformed(Code.REQUEST_MALFORMED, f"1 to {MAX_SECTIONS} sections are asked for")
        record, to = from_hex(body.record, 32), parse_uscc(body.to)
        async with self._connect("looking the record up") as connection:
            value = await reading.value_of(connection, record)
        if value is None:
            raise Refused(Code.NOT_FOUND, "no such record is admitted")
        access = Access(
            consumer=signed.caller.uscc,
            purpose=body.purpose,
            ground=body.ground,
            citation=body.citation,
            case=body.case,
            operator=body.operator,
            agent=body.agent,
            onward_to=to,
        )
        read = Read(envelope.parse(value).claims_bytes, tuple(body.sections))
        decision, entry = await self._judge(signed, access, read)
        sections = [{"section": s.section, "code": s.code.value, "rule": s.rule} for s in decision.sections]
        return {"sections": sections, "entry": entry.hex()}
