"""Who may issue what, where and when: the catalogue's published entries (资源目录) and the powers to issue (权力清单).

Those by law are the operator's to enter. A department may delegate its own to a window, a zone or a lower level, whose
records are then issued in the department's power: it is their provider. A delegated power counts only while its grantor
holds the power by law, and cannot be passed on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from consent.decide import CHINA
from consent.model import CatalogueEntry, EntryState, Power, PowerKind, PowerState
from consent.rules import begun, in_regions, running
from schemas.errors import Code, Refused

# What has counted at some time. A power that ended with its last day needs no moment: its dates say it.
_CLOSED = (EntryState.RETIRED, PowerState.ENDED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A document with the moments at which its state changed: it counts from `opened` on, and no longer at `closed`.

    `opened` is None for what needs nobody's publication: its dates say when it begins.
    """

    document: CatalogueEntry | Power
    opened: datetime | None
    closed: datetime | None

    @property
    def key(self) -> str:
        """What it is found by: an entry's item, a power's holder."""
        return self.document.item if isinstance(self.document, CatalogueEntry) else self.document.grantee

    def counts(self, at: datetime, today: date) -> bool:
        """Whether it stood at that moment, of that civil day."""
        if (self.opened is not None and at < self.opened) or (self.closed is not None and self.closed <= at):
            return False
        return begun(self.document.valid_from, today) and running(self.document.valid_until, today)


def standing(document: CatalogueEntry | Power, since: datetime, opened: datetime | None = None) -> Standing | None:
    """A document that is in its state `since` then. None for what never counted, and for powers of another right."""
    if isinstance(document, Power) and document.right is not PowerKind.ISSUE:
        return None
    if document.state in (EntryState.DRAFT, EntryState.REVIEWED):
        return None
    return Standing(document=document, opened=opened, closed=since if document.state in _CLOSED else None)


class Issuing:
    """Entries and powers, found by item and by holder: a question costs a few look-ups, however many there are."""

    def __init__(self, operator: str, standing: Iterable[Standing] = ()) -> None:
        self._operator = operator
        self._entries: dict[str, dict[UUID, Standing]] = {}
        self._powers: dict[str, dict[UUID, Standing]] = {}
        for one in standing:
            self.put(one)

    def put(self, one: Standing) -> None:
        """Takes a document in, in place of its revision before."""
        group = self._entries if isinstance(one.document, CatalogueEntry) else self._powers
        group.setdefault(one.key, {})[one.document.id] = one

    def authority(self, item: str, issuer: str, region: str, at: datetime, before: str | None = None) -> str:
        """In whose power a record counts that came at that moment: the issuer's own, or the one that delegated it.

        `before` is the department in whose power the licence's version before was issued: the licence stays its. Of
        several that delegated the same, the first by credit code. Raises `Refused`: ITEM_NOT_PUBLISHED, ITEM_RETIRED,
        ISSUER_NOT_ENTITLED.
        """
        today = at.astimezone(CHINA).date()
        self._check_published(item, at, today)
        found = sorted(
            {
                issuer if grantor == self._operator else grantor
                for grantor in self._grantors(issuer, item, region, at, today)
                if grantor == self._operator or self._operator in self._grantors(grantor, item, region, at, today)
            }
        )
        if not found:
            raise Refused(Code.ISSUER_NOT_ENTITLED, f"{issuer} has no power to issue {item} in {region} on {today}")
        if before is not None and before not in found:
            raise Refused(Code.ISSUER_NOT_ENTITLED, "this licence's earlier version was issued in another's power")
        if before is not None:
            return before
        return issuer if issuer in found else found[0]

    def _check_published(self, item: str, at: datetime, today: date) -> None:
        entries = self._entries.get(item, {}).values()
        if any(one.counts(at, today) for one in entries):
            return
        over = (
            (one.closed is not None and one.closed <= at) or not running(one.document.valid_until, today)
            for one in entries
        )
        if any(over):
            raise Refused(Code.ITEM_RETIRED, f"{item} is retired from the catalogue: no record of it travels any more")
        raise Refused(Code.ITEM_NOT_PUBLISHED, f"{item} is not published in the catalogue: its operator publishes it")

    def _grantors(self, holder: str, item: str, region: str, at: datetime, today: date) -> set[str]:
        """Who gave a department powers that cover this; the operator gave those by law."""
        return {
            power.grantor
            for one in self._powers.get(holder, {}).values()
            if isinstance(power := one.document, Power)
            and item in power.items
            and in_regions(power.regions, region)
            and one.counts(at, today)
        }
