"""A department's export becomes records: duplicates are nothing, changes a new version, damage is kept aside.

A crash at any point loses and doubles nothing: sealed bytes and the licence's new state are on disk before they are
produced, a restart sends exactly those bytes again, and the export is simply read again from its beginning.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from pathlib import Path
from time import monotonic
from typing import Any

from adapters import sources
from adapters.config import Department
from adapters.exports import Exports
from adapters.mapping import Accepted, Quarantined, Row, map_row
from bus.outbox import LicenceState, Outbox
from bus.publisher import Publisher
from bus.sealer import Draft
from consent.decide import CHINA
from schemas.catalogue import Catalogue, Item
from schemas.operations import Operation

BATCH = 64
LINGER_SECONDS = 0.02  # a batch of 64 fills in less while an export is read; a trickle is not held up
YIELD_ROWS = 50  # mapping is plain computing: the loop turns in between

Line = tuple[Publisher, Outbox]


@dataclass(slots=True)
class Result:
    """What became of an export. `outcomes` names the lines that are not a plain new licence."""

    lines: int = 0
    published: int = 0
    quarantined: int = 0
    quarantined_by_reason: dict[str, int] = field(default_factory=dict)
    duplicates: int = 0
    changes: int = 0
    outcomes: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The counts and outcomes as `deploy/demo/expected.json` has them."""
        return {name: getattr(self, name) for name in self.__slots__}

    def quarantine(self, row: Quarantined) -> None:
        """Counts a row that was kept aside."""
        self.quarantined += 1
        self.quarantined_by_reason[row.reason.value] = self.quarantined_by_reason.get(row.reason.value, 0) + 1
        self.outcomes[str(row.line)] = row.reason.value

    def duplicate(self, row: Accepted, of: int | None) -> None:
        """Counts a row that says again what was said; `of` is that line, if it is one of the same export."""
        self.duplicates += 1
        self.outcomes[str(row.line)] = "DUPLICATE" if of is None else f"DUPLICATE of line {of}"

    def change(self, row: Accepted, of: int | None) -> None:
        """Counts a row that changes a licence; `of` is the line before it, if it is one of the same export."""
        self.changes += 1
        self.outcomes[str(row.line)] = "CHANGE" if of is None else f"CHANGE of line {of}"


def plan(path: Path, department: Department, catalogue: Catalogue) -> tuple[Result, list[tuple[Accepted, bool]]]:
    """What a feed into an empty bus would do.

    The result, and the accepted rows with whether each is a change. No I/O but the file.
    """
    item = catalogue.item(department.item)
    result = Result()
    seen: dict[tuple[str, ...], Accepted] = {}
    accepted: list[tuple[Accepted, bool]] = []
    for row in _mapped(path, department, item):
        result.lines += 1
        if isinstance(row, Quarantined):
            result.quarantine(row)
            continue
        identity = item.identify(row.values)
        before = seen.get(identity)
        if before is not None and before.digest == row.digest:
            result.duplicate(row, before.line)
            continue
        if before is not None:
            result.change(row, before.line)
        result.published += 1
        accepted.append((row, before is not None))
        seen[identity] = row
    return result, accepted


class Feed:
    """Feeds exports of one department's layout."""

    def __init__(
        self,
        department: Department,
        catalogue: Catalogue,
        line_of: Callable[[str], Line],
        quarantine: Path,
        exports: Exports,
        *,
        before_change: Callable[[Accepted], Awaitable[None]] | None = None,
        before_row: Callable[[Row], Awaitable[None]] | None = None,
        on_batch: Callable[[Result], None] | None = None,
    ) -> None:
        """`line_of` gives publisher and outbox of an issuing department by name.

        `before_change` is awaited before a changed licence is sealed, with everything before it published; `before_row`
        paces; `on_batch` sees the result as it grows.
        """
        self._department = department
        self._catalogue = catalogue
        self._item = catalogue.item(department.item)
        self._line_of = line_of
        self._quarantine = quarantine
        self._exports = exports
        self._before_change = before_change
        self._before_row = before_row
        self._on_batch = on_batch
        self._waiting: dict[str, dict[bytes, tuple[Draft, Accepted]]] = {}
        self._oldest = 0.0
        self._export = ""

    async def run(self, path: Path) -> Result:
        """Reads the file once. Raises `Malformed` before the first record if it is not as declared.

        `Unavailable` any time.
        """
        result = Result()
        header, rows = await asyncio.to_thread(sources.rows, path, self._department)
        self._export = await asyncio.to_thread(self._exports.identify, path)
        self._quarantine.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Written anew by each reading of an export: a row that is still damaged stands in it once.
        with (self._quarantine / f"{self._export}.jsonl").open("w", encoding="utf-8") as aside:
            for row in rows:
                if self._before_row is not None:
                    await self._before_row(row)
                if self._waiting and monotonic() - self._oldest > LINGER_SECONDS:
                    await self._flush_all(result)
                result.lines += 1
                mapped = map_row(row, header, self._department, self._item)
                if isinstance(mapped, Quarantined):
                    result.quarantine(mapped)
                    aside.write(_aside(path, mapped) + "\n")
                else:
                    await self._accept(mapped, result)
                if result.lines % YIELD_ROWS == 0:
                    await asyncio.sleep(0)
        await self._flush_all(result)
        return result

    async def _accept(self, row: Accepted, result: Result) -> None:
        name = self._department.issuer(row.region)
        publisher, outbox = self._line_of(name)
        reference = publisher.reference(self._item.name, row.values)
        if reference in self._waiting.get(name, {}):
            await self._flush(name, result)  # its state is known once it is staged
        before = outbox.licence(reference)
        line = None if before is None else self._line(before)
        if before is not None and (before.digest == row.digest or (line is not None and row.line <= line)):
            # The last accepted state again; or a line of this very export that was fed before, by an earlier reading.
            result.duplicate(row, line)
            return
        if before is not None:
            if self._before_change is not None:
                await self._flush_all(result)
                await self._before_change(row)
            result.change(row, line)
        if not self._waiting:
            self._oldest = monotonic()
        waiting = self._waiting.setdefault(name, {})
        waiting[reference] = (self._draft(row, before), row)
        if len(waiting) >= BATCH:
            await self._flush(name, result)

    def _draft(self, row: Accepted, before: LicenceState | None) -> Draft:
        """A first version began on the day that the export names; a change when it is seen: the export does not say."""
        since = datetime.combine(row.values[self._department.since], time(), CHINA).astimezone(UTC)
        return Draft(
            item=self._item.name,
            operation=Operation.ISSUED if before is None else Operation.CHANGED,
            values=row.values,
            sequence=1 if before is None else before.sequence + 1,
            occurred_at=since if before is None else datetime.now(UTC),
            region=row.region,
        )

    def _line(self, before: LicenceState) -> int | None:
        """The line of this export that a licence's last state stood on, if it was in this export."""
        export, _, line = before.note.partition(":")
        return int(line) if export == self._export else None

    async def _flush_all(self, result: Result) -> None:
        for name in list(self._waiting):
            await self._flush(name, result)

    async def _flush(self, name: str, result: Result) -> None:
        """Seal, stage, send: on disk before it is produced, forgotten when the brokers have it."""
        waiting = list(self._waiting.pop(name, {}).values())
        if not waiting:
            return
        publisher, outbox = self._line_of(name)
        sealed = await publisher.seal([draft for draft, _ in waiting])
        digests = {s.leaf_hash: row.digest for s, (_, row) in zip(sealed, waiting, strict=True)}
        lines = {s.leaf_hash: f"{self._export}:{row.line}" for s, (_, row) in zip(sealed, waiting, strict=True)}
        await asyncio.to_thread(outbox.stage, sealed, digests, lines)
        await publisher.send(sealed)
        result.published += len(sealed)
        if self._on_batch is not None:
            self._on_batch(result)


def _mapped(path: Path, department: Department, item: Item) -> Iterator[Accepted | Quarantined]:
    header, rows = sources.rows(path, department)
    for row in rows:
        yield map_row(row, header, department, item)


def _aside(path: Path, row: Quarantined) -> str:
    """The row whole, as it came, for the department to mend."""
    about: Mapping[str, Any] = {
        "file": path.name,
        "line": row.line,
        "column": row.column,
        "reason": row.reason.value,
        "cells": row.cells,
    }
    return json.dumps(about, ensure_ascii=False)
