"""People at their terminals: what they ask with `deptbus` in their sessions, without any department's key."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bus.identity import Identity
from bus.kafka import partitions_of
from bus.people.roles import Role
from deploy.accounts.store import Store
from deploy.cli import app
from deploy.home import Home
from deploy.stack.accounts import store_file
from schemas.errors import Code
from tests.integration.bus import DUTY, PURPOSE, World
from tests.integration.test_access import OWN, SOON, reading, refused, until_refused
from tests.terminal import logged_in

SECONDS = 60
PUBLIC = ("config.json", "ca/ca.pem", "log/log.vkey", "tls/ca.pem")


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands here answer a machine."""
    monkeypatch.setattr(sys, "argv", ["deptbus", "--json"])


def desk(home: Home, folder: Path) -> Home:
    """A person's own: where the stack is, what everybody may know of the bus, and no key."""
    for name in PUBLIC:
        file = folder / "bus" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.symlink_to(home.bus / name)
    (folder / "stack.json").symlink_to(home.stack_file)
    return Home(folder)


async def sit_down(world: World, home: Home, folder: Path, department: Identity, role: Role) -> tuple[Home, str]:
    """A person of the department's who has logged in at a desk of her own, and her pseudonym."""
    name = f"p-{secrets.token_hex(6)}"
    with closing(Store(store_file(home.path))) as store:
        password, subject = store.add(name), store.subject(name)
    body = {"subject": subject, "role": role.value, "name": name}
    person: str = (await world.post(department, "/v1/people", body))["id"]
    made = desk(home, folder)
    session = await asyncio.to_thread(logged_in, made, name, password)
    assert (session["person"], session["role"]) == (person, role)
    return made, person


async def deptbus(home: Home, *arguments: str, code: int = 0) -> Any:
    """A command's document; in a thread, as commands have a loop of their own."""
    line = [*arguments, "--json", "--home", str(home.path)]
    done = await asyncio.wait_for(asyncio.to_thread(CliRunner().invoke, app, line), SECONDS)
    assert done.exit_code == code, (done.stdout, done.exception)
    return json.loads(done.stdout or "null")


async def test_an_auditor_who_has_logged_in_needs_no_departments_key(world: World, home: Home, tmp_path: Path) -> None:
    """Every command of hers, as herself: the log names her for each; and all of it ends with her session."""
    parties, office = await world.parties(), await world.join(auditor=True)
    sealed, (firm, _) = await world.firms(parties.provider, 2)
    case, begun = f"case-{secrets.token_hex(4)}", datetime.now(UTC) - timedelta(seconds=5)
    grant, _ = await world.keys(parties.consumer, sealed, case=case)
    record, entry = sealed[0].leaf_hash.hex(), grant.results[0].entry.hex()
    await world.covered()
    here, anne = await sit_down(world, home, tmp_path / "desk", office, Role.AUDITOR)

    found = await deptbus(here, "audit", "query", "--case", case, "--investigation", case)
    assert [one["body"]["consumer"] for one in found["entries"]] == [parties.consumer.uscc] * 2
    assert (await deptbus(here, "audit", "counts", "--case", case))["total"] == 2
    story = await deptbus(here, "audit", "story", record)
    assert "opened" in [event["what"] for event in story["events"]]
    subject = ("--subject", f"ORGANISATION:{firm['uscc']}")
    assert len((await deptbus(here, "audit", "subject", *subject))["usages"]) == 1
    assert "findings" in await deptbus(here, "audit", "findings", "--consumer", parties.consumer.uscc)
    card = await deptbus(here, "audit", "scorecard", "--department", parties.provider.uscc)
    assert card["department"] == parties.provider.uscc
    assert any(one["operator"] == anne for one in (await deptbus(here, "audit", "readings"))["readings"])
    embargo = ("audit", "embargo", "propose", "--investigation", case, "--until", begun.isoformat())
    assert (await deptbus(here, *embargo))["proposed_operator"] == anne
    assert any(one["investigation"] == case for one in await deptbus(here, "audit", "embargo", "list"))
    assert (await deptbus(here, "audit", "proof", entry))["carries_entry"]
    out = tmp_path / "case.zip"
    assert (await deptbus(here, "audit", "evidence", "--case", case, "--out", str(out)))["entries"] == 2
    log = str(tmp_path / "log")
    assert (await deptbus(here, "audit", "export", log))["size"] > 2
    asked = ("--section", "identity", "--purpose", PURPOSE, "--ground", "STATUTORY_DUTY", "--citation", DUTY)
    why = await deptbus(here, "policy", "explain", "--record", record, "--consumer", parties.consumer.uscc, *asked)
    assert why["sections"][0]["code"] == Code.PERMIT
    now = datetime.now(UTC).isoformat()
    assert (await deptbus(here, "policy", "replay", "--from", begun.isoformat(), "--to", now))["decided"] >= 2

    said = {
        *("people/sessions:begin", f"audit/entries:query#{case}", "audit/counts:query", "audit/stories:show"),
        *("subjects/usages:query", "audit/findings:list", "scorecards:show", "audit/readings:list"),
        *("audit/proofs", "audit/entries:query", "log:bundles", "policy:explain", "policy:replay"),
    }
    await world.covered()
    read = await world.found(("kind", "Reading"), ("operator", anne))
    whats = {one.entry.body["what"] for one in read}
    assert said <= whats
    assert [what for what in whats - said if not what.startswith("embargo:proposed")] == []
    assert {one.entry.body["signer"].hex() for one in read} == {anne}

    # Not hers: a key, a rule, another department's name.
    await deptbus(here, "audit", "query", "--as", office.name, code=2)
    assert (await deptbus(here, "agreement", "list", code=1))["error"]["code"] == Code.ROLE_FORBIDDEN
    await deptbus(here, "logout")
    assert (await deptbus(here, "audit", "query", code=1))["error"]["code"] == Code.LOGIN_ENDED


async def test_an_officer_answers_for_her_department(world: World, home: Home, tmp_path: Path) -> None:
    """She suspends what it agreed and one of its people, and sees what is its own."""
    parties = await world.parties()
    here, officer = await sit_down(world, home, tmp_path / "desk", parties.provider, Role.OFFICER)
    agreement = parties.agreement["id"]
    assert [one["id"] for one in await deptbus(here, "agreement", "list")] == [agreement]
    done = await deptbus(here, "agreement", "act", agreement, "SUSPEND", "--reason", "test")
    assert done["state"] == "SUSPENDED"
    assert (await deptbus(here, "agreement", "show", agreement))["acts"][-1]["reason"] == "test"
    assert [one["id"] for one in await deptbus(here, "people", "list")] == [officer]
    assert await deptbus(here, "correction", "list") == await deptbus(here, "dispute", "list") == []
    assert (await deptbus(here, "people", "suspend", officer, "--reason", "test"))["state"] == "SUSPENDED"
    assert (await deptbus(here, "people", "list", code=1))["error"]["code"] == Code.LOGIN_ENDED


async def test_who_runs_the_bus_suspends_a_department_and_its_key_alone_resumes_it(
    world: World, home: Home, tmp_path: Path
) -> None:
    """No key and no topic from the answer on, and both again; a session does only the one half of it."""
    parties, runs = await world.parties(), await world.operator()
    (sealed,), _ = await world.firms(parties.provider)
    here, operator = await sit_down(world, home, tmp_path / "desk", runs, Role.OPERATOR)
    keys = desk(home, tmp_path / "keys")
    (keys.path / "orgs").symlink_to(world.place.folder / "orgs")
    reader, why = parties.consumer, ("--reason", "keys found in the open")
    assert await world.codes(reader, sealed) == [Code.PERMIT]

    async def may_read() -> bool:
        async with reading(world, reader) as client:
            return not await refused(partitions_of(client, OWN))

    async def remarks() -> list[bool]:
        return [one["suspended"] for one in await deptbus(here, "org", "list") if one["uscc"] == reader.uscc]

    async with reading(world, reader) as client:
        client.assign(await partitions_of(client, OWN))
        done = await deptbus(here, "org", "suspend", reader.uscc, *why)
        assert done == {"uscc": reader.uscc, "name": reader.name, "suspended": True}
        assert await world.codes(reader, sealed) == [Code.CONSUMER_SUSPENDED]
        assert await refused(until_refused(client), SOON)
    assert not await may_read()
    assert await remarks() == [True]
    again = await deptbus(keys, "org", "suspend", reader.name, *why, "--as", "operator", code=1)
    assert again["error"]["code"] == Code.STATE_INVALID
    await deptbus(here, "org", "resume", reader.uscc, *why, code=2)
    others = await deptbus(keys, "org", "resume", reader.name, *why, "--as", parties.provider.name, code=1)
    assert others["error"]["code"] == Code.REQUEST_FORBIDDEN
    assert (await deptbus(keys, "org", "resume", reader.name, *why, "--as", "operator"))["suspended"] is False
    assert await world.codes(reader, sealed) == [Code.PERMIT]
    await world.until(may_read)
    assert await remarks() == [False]
    acts = await world.found(("kind", "Revision"), ("rule", f"department:{reader.uscc}@2"))
    assert (acts[0].entry.body["act"], acts[0].entry.body["signer"].hex()) == ("SUSPEND", operator)
