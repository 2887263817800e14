"""Limits of documents: so many units in a period. What is taken of them is counted elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from uuid import UUID

from consent.model import Agreement, Basis, Consent, Every
from schemas.errors import Code

EVER = date(1970, 1, 1)  # the period of a limit over all time


@dataclass(frozen=True, slots=True, order=True)
class Limit:
    """At most `most` units in a period, which is named by its first day (UTC+8). `code` is the refusal after that."""

    rule: UUID
    code: Code
    period: date
    most: int

    @property
    def a_request(self) -> bool:
        """Whether a unit is a request; else it is a record."""
        return self.code is Code.RATE_EXCEEDED


def limits(document: Basis, today: date) -> list[Limit]:
    """What a permit under this document costs a unit of."""
    match document:
        case Agreement():
            found = [
                (Code.RATE_EXCEEDED, today, document.requests_a_day),
                (Code.VOLUME_EXCEEDED, today, document.records_a_day),
            ]
        case Consent():
            frequency = document.frequency
            found = [(Code.CONSENT_USED_UP, EVER, document.max_uses)]
            if frequency is not None:
                found.append((Code.CONSENT_FREQUENCY, beginning(frequency.every, today), frequency.uses))
        case _:
            return []
    return [Limit(document.id, code, period, most) for code, period, most in found if most is not None]


@dataclass(frozen=True, slots=True, order=True)
class Life:
    """Until when what is opened under a rule may be kept, that day included."""

    rule: UUID
    ends_on: date


def data_life(document: Basis, today: date) -> Life | None:
    """Of what is opened today; None if the document does not limit it."""
    days = document.data_life if isinstance(document, Agreement | Consent) else None
    return None if days is None else Life(document.id, today + timedelta(days=days))


def beginning(every: Every, day: date) -> date:
    """The first day of the period that a day is in."""
    match every:
        case Every.DAY:
            return day
        case Every.WEEK:
            return day - timedelta(days=day.weekday())
        case Every.MONTH:
            return day.replace(day=1)
        case Every.YEAR:
            return day.replace(month=1, day=1)
