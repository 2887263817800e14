"""Who opened a subject's data, when, for what and on which ground: asked by a portal, for the subject.

The bus knows persons and firms by their departments alone. So a department that they come to, a service counter or a
site (a *portal*, `deptbus org add --portal`), asks for them, and answers for having made sure who they are. Auditors
may ask, too. Each asking is an entry of the log, with the subject's pseudonyms, before it is answered.

A usage is a decision of the log that opened a section of a licence of which the subject is the holder or a co-holder.
Refusals opened nothing and are none; one that was taken back before a key left is marked. Readings of the log itself
are none either: an auditor's stays between auditors until its embargo ends (`bus/gateway/embargoes.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import asyncpg
import msgspec

from bus import impact, tilestore
from bus.gateway import control, embargoes, sets, trail
from bus.gateway.auditing import NOBODY
from bus.gateway.consents import SubjectBody
from bus.gateway.embargoes import Connect, LogReading, ReaderBody
from bus.gateway.shapes import After, CheckpointAnswer, Count, CreditCode, Hash, Limit, Next, Time
from bus.gateway.trail import Filter, Found
from bus.httpsig import Signed
from consent.law import GROUNDS
from consent.purposes import PURPOSES
from schemas.catalogue import Catalogue
from schemas.errors import Code, Refused

WHAT = "subjects/usages:query"


class UsagesBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/subjects/usages:query`. Times are the log's own, `since` inclusive, `until` not.

    `after` is the `next` of the page before. `reader.operator` is who asks at the portal, by its own id.
    """

    subject: SubjectBody
    since: Time | None = None
    until: Time | None = None
    after: After = -1
    limit: Limit = 100
    reader: ReaderBody = NOBODY


class PeriodBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /v1/subjects/usages:period`; nothing to say."""


class SetUsage(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A decision over a set (免申即享): its root, how many records it has, and which of them are the subject's.

    `/v1/sets:prove` gives each one's path to the root.
    """

    root: Hash
    size: Count
    records: list[Hash]


class UsageAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A decision that opened sections of the subject's; `voided` ones opened nothing. Names as they are now.

    With `onward_to`, the receiver was not given them but allowed to pass them on to that party (转提供).
    """

    index: Count
    entry: Hash
    logged_at: Time
    receiver: CreditCode
    receiver_name: str
    provider: CreditCode
    provider_name: str
    item: str
    item_zh: str
    sections: list[str]
    purpose: str
    purpose_zh: str
    ground: str
    ground_zh: str
    citation: str
    onward_to: CreditCode | None
    onward_to_name: str
    set: SetUsage | None
    voided: bool


class UsagesAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A page of usages, in the log's order."""

    checkpoint: CheckpointAnswer
    usages: list[UsageAnswer]
    next: Next


class PeriodAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """When the oldest entry was logged that is still served; null if there is none."""

    checkpoint: CheckpointAnswer
    since: Time | None


class Usages:
    """A portal's questions, over a gateway's connections, its pseudonyms and its catalogue."""

    def __init__(
        self,
        connect: Connect,
        everywhere: Callable[[SubjectBody], list[bytes]],
        log_reading: LogReading,
        catalogue: Catalogue,
    ) -> None:
        self._connect = connect
        self._everywhere = everywhere
        self._log_reading = log_reading
        self._catalogue = catalogue

    async def query(self, signed: Signed, body: UsagesBody) -> Any:
        """A page of usages in the log's order, and the checkpoint that it is true at.

        Raises `Refused` (REQUEST_FORBIDDEN) for who is neither a portal nor an auditor.
        """
        embargoes.check_reader(signed, body.reader)
        subjects = self._everywhere(body.subject)
        async with self._connect("reading who opened a subject's data") as connection:
            auditor = await _may_ask(connection, signed)
            at = await trail.published(connection)
            own = [("subject", pseudonym.hex()) for pseudonym in subjects]
            groups = (
                frozenset((*own, *await sets.words_of(connection, subjects))),
                frozenset([("kind", "Decision"), ("kind", "SetDecision")]),
                frozenset([("decision", "PERMIT")]),
            )
            wanted = Filter(groups=groups, since=body.since, until=body.until)
            found, following = await trail.page(connection, wanted, at, body.after, body.limit)
            voided = await impact.voided(connection, found, at)
            sides = ("consumer", "provider", "onward_to")
            names = await control.names(connection, {one.entry.body.get(side, "") for one in found for side in sides})
            entries = [one.entry.leaf_hash for one in found if one.entry.kind == "SetDecision"]
            members = await sets.places(connection, entries, subjects) if entries else {}
        parties = trail.parties(found) if auditor else ()
        await embargoes.tell(self._connect, self._log_reading, signed, body.reader, WHAT, subjects, len(found), parties)
        return {
            "checkpoint": at.to_json(),
            "usages": [self._usage(one, names, voided, members) for one in found],
            "next": following,
        }

    async def period(self, signed: Signed, body: PeriodBody) -> Any:
        """Since when the log can tell: `since`, the time of the oldest entry that is served, null if it has none."""
        async with self._connect("reading since when there is a log") as connection:
            await _may_ask(connection, signed)
            at = await trail.published(connection)
            oldest = await tilestore.entries(connection, [at.minimum]) if at.minimum < at.size else []
        return {"checkpoint": at.to_json(), "since": oldest[0].logged_at.isoformat() if oldest else None}

    def _usage(
        self,
        found: Found,
        names: Mapping[str, str],
        voided: Iterable[bytes],
        members: Mapping[bytes, Sequence[bytes]],
    ) -> dict[str, Any]:
        body, entry = found.entry.body, found.entry.leaf_hash
        of_set = found.entry.kind == "SetDecision"
        sections = body["sections"]
        onward = body.get("onward_to", "")
        item = self._catalogue.items.get(body["item"])
        return {
            "index": found.stored.index,
            "entry": entry.hex(),
            "logged_at": found.stored.logged_at.isoformat(),
            "receiver": body["consumer"],
            "receiver_name": names.get(body["consumer"], ""),
            "provider": body["provider"],
            "provider_name": names.get(body["provider"], ""),
            "item": body["item"],
            "item_zh": "" if item is None else item.zh,
            "sections": sections if of_set else [one["name"] for one in sections if one["code"] == Code.PERMIT],
            "purpose": body["purpose"],
            "purpose_zh": PURPOSES.get(body["purpose"], ""),
            "ground": body["ground"],
            "ground_zh": GROUNDS.get(body["ground"], ""),
            "citation": body["citation"],
            "onward_to": onward or None,
            "onward_to_name": names.get(onward, ""),
            "set": {
                "root": body["root"].hex(),
                "size": body["count"],
                "records": [one.hex() for one in members.get(entry, ())],
            }
            if of_set
            else None,
            "voided": entry in voided,
        }


async def _may_ask(connection: asyncpg.Connection, signed: Signed) -> bool:
    """Whether it is an auditor who asks. Raises `Refused` for who is no portal either."""
    caller = signed.caller.uscc
    if auditor := await control.is_auditor(connection, caller):
        return auditor
    if not await control.is_portal(connection, caller):
        raise Refused(Code.REQUEST_FORBIDDEN, "only a portal, or an auditor, asks for a person or a firm")
    return False
