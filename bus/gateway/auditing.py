"""What auditors and departments ask of the trail. An auditor reads everything, a department its own.

Every reading is in the log before its answer leaves.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any

import asyncpg
import msgspec

from bus.gateway import control, trail
from bus.gateway.control import SubjectBody
from bus.gateway.trail import Filter, Group
from bus.httpsig import Signed

Connect = Callable[[str], AbstractAsyncContextManager[asyncpg.Connection]]
Everywhere = Callable[[SubjectBody], list[bytes]]
LogReading = Callable[[Signed, bytes, str, str, list[bytes], int], Awaitable[None]]


class FilterBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What entries are looked for. Each is exact; together they narrow. Times are the log's own."""

    subject: SubjectBody | None = None
    kind: str | None = None
    consumer: str | None = None
    provider: str | None = None
    party: str | None = None
    item: str | None = None
    section: str | None = None
    purpose: str | None = None
    ground: str | None = None
    operator: str | None = None
    agent: str | None = None
    case: str | None = None
    decision: str | None = None
    code: str | None = None
    rule: str | None = None
    region: str | None = None
    record: str | None = None
    licence: str | None = None
    request: str | None = None
    entry: str | None = None
    about: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class EntriesBody(FilterBody, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/audit/entries:query`. `after` is the `next` of the page before."""

    after: int = -1
    limit: int = 100


_WORDS = tuple(name for name in FilterBody.__struct_fields__ if name not in ("subject", "since", "until"))


class Auditing:
    """The trail's questions, over a gateway's connections and its pseudonyms."""

    def __init__(self, connect: Connect, everywhere: Everywhere, log_reading: LogReading) -> None:
        self._connect = connect
        self._everywhere = everywhere
        self._log_reading = log_reading

    async def query(self, signed: Signed, body: EntriesBody) -> Any:
        """A page of entries, and the checkpoint that it is true at."""
        subjects = [] if body.subject is None else self._everywhere(body.subject)
        async with self._connect("reading the trail") as connection:
            wanted = await self._wanted(connection, signed, body, subjects)
            at = await trail.published(connection)
            found, following = await trail.page(connection, wanted, at.size, body.after, body.limit)
        await self._log_reading(signed, signed.digest[:16], "", "audit/entries:query", subjects, len(found))
        return {
            "checkpoint": at.to_json(),
            "entries": [one.to_json() for one in found],
            "next": following,
        }

    async def _wanted(
        self, connection: asyncpg.Connection, signed: Signed, body: FilterBody, subjects: Sequence[bytes]
    ) -> Filter:
        """The filter as the index knows it. Whoever is no auditor finds what it is a party to."""
        groups: list[Group] = [
            frozenset([(name, value)]) for name in _WORDS if (value := getattr(body, name)) is not None
        ]
        if subjects:
            groups.append(frozenset(("subject", pseudonym.hex()) for pseudonym in subjects))
        if not await control.is_auditor(connection, signed.caller.uscc):
            groups.append(frozenset([("party", signed.caller.uscc)]))
        return Filter(groups=tuple(groups), since=body.since, until=body.until)
