"""A set of rules in memory, found by who asks for what: for decisions on a whole set of rules, today's or another.

Indexed so that a decision costs the same however many agreements there are: only those between the two departments over
the item are looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from uuid import UUID

from consent.model import (
    Access,
    Agreement,
    Basis,
    CatalogueEntry,
    Consent,
    Facts,
    Mandate,
    Power,
    PowerKind,
    RecordFacts,
)
from schemas.errors import Code

_NOTHING: Mapping[UUID, Code] = MappingProxyType({})


class RuleSet:
    """Documents of every kind that a permit can rest on. Not to be changed once made."""

    def __init__(self, documents: Iterable[Basis]) -> None:
        self._agreements: dict[tuple[str, str, str], tuple[Agreement, ...]] = {}
        self._consents: dict[tuple[bytes, str], tuple[Consent, ...]] = {}
        self._mandates: dict[tuple[str, bytes, str], tuple[Mandate, ...]] = {}
        self._powers: dict[str, tuple[Power, ...]] = {}
        self.entries: dict[str, CatalogueEntry] = {}
        self.documents: dict[UUID, Basis] = {}
        for one in documents:
            self._add(one)
        # Between most departments agreements are all that counts: what is said of them is said once.
        self._plain = {key: self._facts(key[2], group) for key, group in self._agreements.items()}

    def facts(
        self, access: Access, record: RecordFacts, *, used_up: Mapping[UUID, Code] = _NOTHING, known: bool = True
    ) -> Facts:
        """What this set says of a question, everything else being in order."""
        item = record.item
        key = (access.consumer, record.issuer, item)
        powers = self._powers.get(access.consumer, ())
        consents: tuple[Consent, ...] = ()
        mandates: tuple[Mandate, ...] = ()
        for holder in record.holders:
            consents += self._consents.get((holder, item), ())
            if access.agent is not None:
                mandates += self._mandates.get((access.agent, holder, item), ())
        if known and not (powers or consents or mandates or used_up):
            plain = self._plain.get(key)
            if plain is not None:
                return plain
        agreements = self._agreements.get(key, ())
        for grantor in sorted({power.grantor for power in powers}):
            agreements += self._agreements.get((grantor, record.issuer, item), ())
        return self._facts(item, agreements, consents, powers, mandates, used_up, known)

    def agreements(self) -> Iterable[Agreement]:
        """Every agreement."""
        return (one for group in self._agreements.values() for one in group)

    def _facts(
        self,
        item: str,
        agreements: tuple[Agreement, ...],
        consents: tuple[Consent, ...] = (),
        powers: tuple[Power, ...] = (),
        mandates: tuple[Mandate, ...] = (),
        used_up: Mapping[UUID, Code] = _NOTHING,
        known: bool = True,
    ) -> Facts:
        return Facts(
            consumer_known=known,
            consumer_suspended=False,
            index_fresh=True,
            audit_current=True,
            entry=self.entries.get(item),
            agreements=agreements,
            consents=consents,
            powers=powers,
            mandates=mandates,
            used_up=used_up,
        )

    def _add(self, one: Basis) -> None:
        self.documents[one.id] = one
        match one:
            case Agreement():
                key = (one.consumer, one.provider, one.item)
                self._agreements[key] = (*self._agreements.get(key, ()), one)
            case Consent():
                for scope in one.scopes:
                    about = (scope.subject, scope.item)
                    self._consents[about] = (*self._consents.get(about, ()), one)
            case Mandate():
                for holder in one.subjects:
                    whose = (one.agent, holder.subject, holder.item)
                    self._mandates[whose] = (*self._mandates.get(whose, ()), one)
            case Power():
                if one.right is PowerKind.OPEN:
                    self._powers[one.grantee] = (*self._powers.get(one.grantee, ()), one)
            case CatalogueEntry():
                self.entries[one.item] = one
