"""A department that issues its own certificate from another's: one for each, however often the other comes again.

Exactly once by the outbox: the new certificate's licence reference is looked up before it is sealed, its bytes are on
disk before they are produced, and a crash resends the same bytes. The subscriber commits after this returns, so a crash
hands the records over again and the outbox knows them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from bus.outbox import Outbox
from bus.publisher import Publisher
from bus.sealer import Draft
from bus.subscriber import Opened
from schemas.errors import Code
from schemas.operations import Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What a department issues: the item's values, where, and for how long."""

    values: Mapping[str, Any]
    region: str
    valid_from: date | None = None
    valid_until: date | None = None


Make = Callable[[Opened], Certificate | None]


class Issuing:
    """A subscriber's handler. `make` says what to issue for an opened record, or None; it is pure."""

    def __init__(self, publisher: Publisher, outbox: Outbox, item: str, make: Make) -> None:
        self._publisher = publisher
        self._outbox = outbox
        self._item = item
        self._make = make
        self.issued = 0
        self.refused: dict[Code, int] = {}

    async def __call__(self, batch: Sequence[Opened]) -> None:
        """Issues what is new in the batch. Returns when the brokers have it."""
        drafts: dict[bytes, Draft] = {}
        for opened in batch:
            for code in set(opened.refused.values()):
                self.refused[code] = self.refused.get(code, 0) + 1
            certificate = None if opened.refused else self._make(opened)
            if certificate is None:
                continue
            reference = self._publisher.reference(self._item, certificate.values)
            if reference not in drafts and await asyncio.to_thread(self._outbox.licence, reference) is None:
                drafts[reference] = self._draft(opened, certificate)
        if drafts:
            await self._publisher.publish(list(drafts.values()))
            self.issued += len(drafts)

    def _draft(self, opened: Opened, certificate: Certificate) -> Draft:
        return Draft(
            item=self._item,
            operation=Operation.ISSUED,
            values=certificate.values,
            sequence=1,
            occurred_at=datetime.now(UTC),
            region=certificate.region,
            valid_from=certificate.valid_from,
            valid_until=certificate.valid_until,
            parents=(opened.leaf_hash,),
        )
