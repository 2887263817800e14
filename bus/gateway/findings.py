"""What supervision (大数据监督) found, for auditors. A finding points at its evidence: entries of the log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from bus import audit
from bus.db import queries
from bus.gateway import control, trail
from bus.gateway.embargoes import Connect, LogReading
from bus.gateway.shapes import After, CheckpointAnswer, Count, CreditCode, Hash, Id, Limit, Next, Time
from bus.httpsig import Signed
from bus.terms import asked
from schemas.errors import Code, Refused

SQL = queries(Path(__file__).with_name("findings.sql"))


class FindingsBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/audit/findings:list`. `since` and `until` are the log's time; `after` the `next` of the page before."""

    rule: str | None = None
    consumer: CreditCode | None = None
    operator: str | None = None
    since: Time | None = None
    until: Time | None = None
    after: After = 0
    limit: Limit = 100


class FindingAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What a rule found: `first` and `last` are places in the log, `entry` is the log's entry about the finding."""

    id: Id
    rule: str
    severity: str
    at: Time
    consumer: CreditCode
    operator: str
    first: Count
    last: Count
    count: Count
    entries: list[Hash]
    detail: str
    entry: Hash | None


class FindingsAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A page of findings, in the order found."""

    checkpoint: CheckpointAnswer
    findings: list[FindingAnswer]
    next: Next


class Findings:
    """The questions about findings, over a gateway's connections."""

    def __init__(self, connect: Connect, log_reading: LogReading) -> None:
        self._connect = connect
        self._log_reading = log_reading

    async def list(self, signed: Signed, body: FindingsBody) -> Any:
        """A page in the order found, and the checkpoint below which all of its evidence lies. In the log, too.

        `first` and `last` are places in the log, `entries` leaf hashes in hex, `entry` that of the log's entry about
        the finding: null in the moment before it is there. `next` is null if there are no more now. Raises `Refused`
        (REQUEST_FORBIDDEN) for who is no auditor, `Malformed` (USCC_*).
        """
        consumer = None if body.consumer is None else asked("consumer", body.consumer)[1]
        filters = (body.rule, consumer, body.operator, body.since, body.until)
        async with self._connect("reading findings") as connection:
            if not await control.is_auditor(connection, signed.caller.uscc):
                raise Refused(Code.REQUEST_FORBIDDEN, "findings are shown to auditors")
            rows = await connection.fetch(SQL["findings"], body.after, *filters, body.limit)
            at = await trail.published(connection)
        await self._log_reading(signed, signed.digest[:16], "", "audit/findings:list", [], len(rows))
        return {
            "checkpoint": at.to_json(),
            "findings": [{name: audit.plain(value) for name, value in row.items() if name != "number"} for row in rows],
            "next": rows[-1]["number"] if len(rows) == body.limit else None,
        }
