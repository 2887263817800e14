"""What a bus has in it, for a process that is to ask for it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from bus import envelope
from tests.integration.bus import LICENCE, PURPOSE, World


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """`departments` are identities' folders, `values` good values of a field, `claims` of records, in hex."""

    departments: Sequence[str]
    token: str
    claims: Sequence[str]
    values: Mapping[str, Sequence[Any]]

    @classmethod
    def load(cls, file: Path) -> Self:
        return cls(**json.loads(file.read_text("utf-8")))

    def save(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self), ensure_ascii=False), "utf-8")


async def make(world: World) -> Known:
    """Two departments that share licences, an auditor, and one of most things that can be asked for."""
    parties = await world.parties()
    auditor = await world.join(auditor=True)
    sealed, firms = await world.firms(parties.provider, 2)
    grant, _ = await world.keys(parties.consumer, sealed)
    consent = await world.consent(parties, firms[0])
    await world.covered()
    token = await world.post(auditor, "/v1/audit/tokens", {})
    records = [one.leaf_hash.hex() for one in sealed]
    entries = [one.entry.hex() for one in grant.results]
    people = [parties.provider, parties.consumer, auditor]
    credit_codes = [one.uscc for one in people]
    claims = [envelope.parse(one.value).claims for one in sealed]
    return Known(
        departments=[str(world.place.folder / "orgs" / one.name) for one in people],
        token=token["token"],
        claims=[envelope.parse(one.value).claims_bytes.hex() for one in sealed],
        values={
            **dict.fromkeys(("consumer", "provider", "party", "department"), credit_codes),
            **dict.fromkeys(("record", "leaf_hash"), records),
            **dict.fromkeys(("entry", "about"), entries),
            "entries": [entries],
            "recipient": [parties.consumer.kem.id.hex(), *credit_codes],
            "subject": [{"kind": "ORGANISATION", "id": firm["uscc"]} for firm in firms],
            "item": [LICENCE],
            "section": ["identity"],
            "sections": [["identity"]],
            "sensitive": [[]],
            "purpose": [PURPOSE],
            "purposes": [[PURPOSE]],
            "ground": ["STATUTORY_DUTY", "CONSENT"],
            "citation": [""],
            "grounds": [["CONSENT"]],
            "regions": [[], ["33"]],
            "onward": [[]],
            "agreement": [parties.agreement["id"]],
            "operator": ["fuzz"],
            "investigation": ["", "fuzz"],
            "reason": ["fuzz"],
            "form": ["开业登记表"],
            "holder": ["ORGANISATION"],
            "elements": [["name"], ["name", "uscc"]],
            "proofs": [[]],
            "licence": [one.licence.hex() for one in claims],
            "id": [parties.agreement["id"], consent["id"]],
            "region": [world.place.bus.region],
            "path": ["0/000.p/1"],
            "number": ["1"],
        },
    )
