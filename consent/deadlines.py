"""How long somebody may take: which limit of `consent.law.LIMITS` runs for a document, until when, and if it is over.

Counted in working days. Where the calendar does not reach, nobody knows, and that is what is said: no guess.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from consent.calendar import NONE, Years, add_working_days
from consent.documents import Document
from consent.law import LIMITS, Limit
from consent.lifecycle import Act
from consent.model import Agreement, AgreementState, Correction, CorrectionState, Dispute, DisputeState
from schemas.catalogue import ShareClass
from schemas.errors import Code


class Standing(StrEnum):
    """Of a deadline on a day."""

    RUNNING = "RUNNING"
    LATE = "LATE"  # the day has passed
    UNKNOWN = Code.DEADLINE_UNKNOWN.value  # the calendar does not reach that far


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """A limit that runs. `since` is the day it counts from, `due` the last day in time; None: nobody knows it yet."""

    limit: Limit
    since: date
    due: date | None

    def standing(self, today: date) -> Standing:
        """`today` is a day of China's."""
        if self.due is None:
            return Standing.UNKNOWN
        return Standing.LATE if today > self.due else Standing.RUNNING


# The acts that a state's limit counts from, the last of them. A supplemented application counts anew: as the
# regulation's summaries have it, none of which was read in its text (`Limit.verified`). While it is with its applicant
# (RETURNED) nobody's time runs.
_SUBMITTED = frozenset({Act.SUBMIT, Act.RESUBMIT})
_COUNTED_FROM: Mapping[tuple[type[Document], Any], frozenset[Act]] = MappingProxyType(
    {
        (Agreement, AgreementState.SUBMITTED): _SUBMITTED,
        (Agreement, AgreementState.ACCEPTED): _SUBMITTED,
        (Agreement, AgreementState.APPROVED): frozenset({Act.APPROVE}),
        (Correction, CorrectionState.REQUESTED): frozenset({Act.REQUEST}),
        (Dispute, DisputeState.DISPUTED): frozenset({Act.REQUEST}),
        (Dispute, DisputeState.COORDINATED): frozenset({Act.REQUEST}),
    }
)


def running(
    document: Document, shares: Collection[ShareClass], acts: Mapping[Act, date], years: Years = NONE
) -> Deadline | None:
    """The deadline that a document is under in its state, if any.

    `shares` are the share classes of an agreement's sections, `acts` the day (of China's) of each act on the document,
    the last one of its kind.
    """
    since = [acts[act] for act in _COUNTED_FROM.get((type(document), document.state), ()) if act in acts]
    if not since:
        return None
    limit = LIMITS[_limit(document, shares)]
    begun = max(since)
    return Deadline(limit=limit, since=begun, due=add_working_days(begun, limit.days, years))


def _limit(document: Document, shares: Collection[ShareClass]) -> str:
    if not isinstance(document, Agreement):
        return document.kind.upper()
    if document.state is AgreementState.APPROVED:
        return "PROVISION"
    if all(share is ShareClass.UNCONDITIONAL for share in shares):
        return "ANSWER_UNCONDITIONAL"
    return "ANSWER_CONDITIONAL"
