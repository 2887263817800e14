"""A database moves forward only, step by step, and keeps its rows; what was decided before is decided so after."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from bus import db
from bus.gateway import catalogue, control, issuing, rulebook
from bus.pki import CertificateAuthority, Role
from bus.recorder import service
from consent.decide import decide
from consent.issuing import Issuing
from consent.lifecycle import Act
from consent.model import (
    Access,
    Agreement,
    CatalogueEntry,
    Consent,
    EntryState,
    Mode,
    RecordFacts,
    RecordState,
    Status,
)
from consent.ruleset import RuleSet
from schemas.catalogue import Catalogue
from schemas.errors import Code, Malformed, Refused
from tests.faults.firms import credit_code
from tests.integration.bus import DUTY, LICENCE, PURPOSE

OPERATOR, PROVIDER, CONSUMER = map(credit_code, (1, 2, 3))
BEFORE = 10  # the newest step of a bus that knew agreements, consents and issuers as tables
HOLDER, GONE = bytes(32), bytes([1] * 32)
AGREEMENT: dict[str, Any] = {
    "id": str(UUID(int=1)),
    "revision": 1,
    "provider": PROVIDER,
    "consumer": CONSUMER,
    "item": LICENCE,
    "sections": ["identity"],
    "purposes": [PURPOSE],
    "regions": ["3304"],
    "grounds": ["CONSENT", "STATUTORY_DUTY"],
    "duties": [DUTY],
    "valid_from": "2020-01-01",
    "valid_until": None,
    "records_a_day": 5,
    "max_age": 3600,
    "statuses": [],
    "superseded": False,
    "state": "ACTIVE",
}
CONSENT: dict[str, Any] = {
    "id": str(UUID(int=2)),
    "revision": 1,
    "subject": HOLDER.hex(),
    "recipient": CONSUMER,
    "item": LICENCE,
    "purposes": [PURPOSE],
    "sections": ["identity"],
    "sensitive": [],
    "valid_from": "2020-01-01",
    "valid_until": None,
    "max_uses": 3,
    "recorded_by": PROVIDER,
    "evidence": "",
    "state": "ACTIVE",
}


async def test_steps_apply_once_and_what_does_not_fit_is_refused(dsn: str) -> None:
    """Twice is once; a newer database and an edited step are refused with DATA_VERSION; rows survive all of it."""
    newest = await db.migrate(dsn)
    connection = await db.connect(dsn)
    try:
        await connection.execute("INSERT INTO org (uscc, name) VALUES ('a', 'b')")
        applied = await connection.fetch("SELECT * FROM schema_version ORDER BY version")
        assert await db.migrate(dsn) == newest == applied[-1]["version"]
        assert await connection.fetch("SELECT * FROM schema_version ORDER BY version") == applied

        await connection.execute("INSERT INTO schema_version (version, digest) VALUES ($1, 'x')", newest + 1)
        assert await refusal(dsn) is Code.DATA_VERSION
        await connection.execute("DELETE FROM schema_version WHERE version = $1", newest + 1)
        await connection.execute("UPDATE schema_version SET digest = 'edited' WHERE version = 1")
        assert await refusal(dsn) is Code.DATA_VERSION
        await connection.execute("UPDATE schema_version SET digest = $1 WHERE version = 1", applied[0]["digest"])
        assert await db.migrate(dsn) == newest
        assert await connection.fetchval("SELECT name FROM org WHERE uscc = 'a'") == "b"
    finally:
        await connection.close()


async def refusal(dsn: str) -> Code:
    with pytest.raises(Malformed) as refused:
        await db.migrate(dsn)
    return refused.value.code


async def test_agreements_consents_and_issuers_of_before_decide_as_they_did(dsn: str, tmp_path: Path) -> None:
    """Rows as step 10 had them, brought to the newest as `deptbus up` does, twice: the same answers."""
    connection = await db.connect(dsn)
    try:
        await rows_of_before(connection)
        await db.migrate(dsn)
        authority = CertificateAuthority.create(tmp_path / "ca", "test", OPERATOR)
        signer = authority.issue(Role.GATEWAY, OPERATOR, "test")
        for adopted in (2, 0):
            await control.add_org(connection, OPERATOR, "operator", operator=True)
            assert await issuing.adopt(connection, signer, "test") == adopted
            await catalogue.publish_shipped(connection, Catalogue.load(), signer, "test")
        assert await answers(connection) == {
            "duty": Code.PERMIT,
            "consent": Code.PERMIT,
            "withdrawn": Code.CONSENT_WITHDRAWN,
            "elsewhere": Code.AGREEMENT_REGION,
        }
        assert await issues(connection, PROVIDER) == {"330411": PROVIDER, "330102": Code.ISSUER_NOT_ENTITLED}
        assert (await issues(connection, CONSUMER))["330411"] is Code.ISSUER_NOT_ENTITLED
        orgs = {one["uscc"]: one["issues"] for one in await control.orgs(connection)}
        assert orgs == {OPERATOR: [], CONSUMER: [], PROVIDER: [f"{LICENCE}:3304", "tax-registration"]}
        used = await connection.fetch("SELECT code, used FROM usage ORDER BY code")
        assert [tuple(row) for row in used] == [(Code.CONSENT_USED_UP, 2), (Code.VOLUME_EXCEEDED, 4)]
    finally:
        await connection.close()


async def test_an_upgrade_publishes_what_it_defines_anew_and_revives_nothing(dsn: str, tmp_path: Path) -> None:
    """A changed definition comes in the former's place at once; an item that was retired stays retired."""
    await db.migrate(dsn)
    connection = await db.connect(dsn)
    try:
        signer = CertificateAuthority.create(tmp_path / "ca", "test", OPERATOR).signer
        shipped = Catalogue.load()
        assert await catalogue.publish_shipped(connection, shipped, signer, "test") == list(shipped.items)
        assert await catalogue.publish_shipped(connection, shipped, signer, "test") == []
        (gone,) = [one for one in await entries(connection) if one.item == "tax-registration"]
        retired = replace(gone, revision=gone.revision + 1, state=EntryState.RETIRED)
        await rulebook.update(connection, retired, Act.RETIRE, OPERATOR, "over")

        item = shipped.items[LICENCE]
        sensitive = {name: replace(section, sensitive=True) for name, section in item.sections.items()}
        upgraded = Catalogue(items={**shipped.items, LICENCE: replace(item, sections=sensitive)})
        assert await catalogue.publish_shipped(connection, upgraded, signer, "test") == [LICENCE]
        assert await catalogue.publish_shipped(connection, upgraded, signer, "test") == []
        licences = {one.state: one.definition for one in await entries(connection) if one.item == LICENCE}
        assert licences == {
            EntryState.PUBLISHED: upgraded.items[LICENCE].definition,
            EntryState.RETIRED: item.definition,
        }
        assert [one.state for one in await entries(connection) if one.item == gone.item] == [EntryState.RETIRED]
        waiting = await connection.fetchval("SELECT count(*) FROM revision_outbox")
        assert waiting == 3 * len(shipped.items) + 4  # what is not in the log yet is not lost either
    finally:
        await connection.close()


async def entries(connection: asyncpg.Connection) -> list[CatalogueEntry]:
    return rulebook.read(CatalogueEntry, await connection.fetch(catalogue.SQL["entries"], 100))


async def rows_of_before(connection: asyncpg.Connection) -> None:
    await connection.execute("CREATE TABLE schema_version (version integer PRIMARY KEY, digest text NOT NULL)")
    await connection.execute("ALTER TABLE schema_version ADD applied_at timestamptz NOT NULL DEFAULT now()")
    for version, text in db._steps().items():
        if version <= BEFORE:
            await connection.execute(text)
            await connection.execute("INSERT INTO schema_version VALUES ($1, $2)", version, db._digest(text))
    for uscc, name in ((PROVIDER, "market"), (CONSUMER, "tax")):
        await connection.execute("INSERT INTO org (uscc, name) VALUES ($1, $2)", uscc, name)
    for item, region in ((LICENCE, "3304"), ("tax-registration", "")):
        await connection.execute("INSERT INTO issuer VALUES ($1, $2, $3)", item, PROVIDER, region)
    a, gone = AGREEMENT, CONSENT | {"id": str(UUID(int=3)), "subject": GONE.hex(), "state": "WITHDRAWN", "revision": 2}
    await connection.execute(
        "INSERT INTO agreement (id, revision, provider, consumer, item, state, body)"
        " VALUES ($1, 1, $2, $3, $4, $5, $6)",
        *(a["id"], a["provider"], a["consumer"], a["item"], a["state"], json.dumps(a)),
    )
    for c in (CONSENT, gone):
        await connection.execute(
            "INSERT INTO consent (id, revision, subject, recipient, item, state, body)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7)",
            *(
                c["id"],
                c["revision"],
                bytes.fromhex(c["subject"]),
                c["recipient"],
                c["item"],
                c["state"],
                json.dumps(c),
            ),
        )
    await connection.execute("INSERT INTO usage VALUES ($1, '2026-01-01', 4)", a["id"])
    await connection.execute("INSERT INTO usage VALUES ($1, '1970-01-01', 2)", CONSENT["id"])


async def answers(connection: asyncpg.Connection) -> dict[str, Code]:
    documents: list[Agreement | Consent | CatalogueEntry] = []
    for kind in (Agreement, Consent, CatalogueEntry):
        documents += rulebook.read(kind, await connection.fetch(rulebook.SQL["of_kind"], kind.kind, 100))
    rules = RuleSet(documents)

    def ask(holder: bytes, ground: str, region: str) -> Code:
        access = Access(consumer=CONSUMER, purpose=PURPOSE, ground=ground, citation=DUTY, case="1", mode=Mode.STREAM)
        record = RecordFacts(
            state=RecordState.ADMITTED,
            item=LICENCE,
            issuer=PROVIDER,
            region=region,
            holders=(holder,),
            known_schema=True,
            status=Status.VALID,
            valid_from=None,
            valid_until=None,
            superseded=False,
        )
        facts, now = rules.facts(access, record), datetime.now(UTC)
        (section,) = decide(Catalogue.load().item(LICENCE), access, ("identity",), record, facts, now).sections
        return section.code

    return {
        "duty": ask(GONE, "STATUTORY_DUTY", "330411"),
        "consent": ask(HOLDER, "CONSENT", "330411"),
        "withdrawn": ask(GONE, "CONSENT", "330411"),
        "elsewhere": ask(HOLDER, "CONSENT", "330102"),
    }


async def issues(connection: asyncpg.Connection, department: str) -> dict[str, str]:
    """By region, what the recorder says of a licence that the department issues now."""
    rows = await connection.fetch(service.SQL["standing"], [LICENCE], [department])
    known = Issuing(OPERATOR, filter(None, map(service._standing, rows)))

    def ask(region: str) -> str:
        try:
            return known.authority(LICENCE, department, region, datetime.now(UTC))
        except Refused as exc:
            return exc.code

    return {region: ask(region) for region in ("330411", "330102")}
