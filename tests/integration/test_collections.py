"""A form is checked before it goes out: over HTTP, with the agreements that stand, and as a command."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from deploy.cli import app
from deploy.home import Home, Stack
from tests.integration.bus import LICENCE, PURPOSE, REGION, World

SECONDS = 60
CHECK = "/v1/collections:check"
FORM = {"form": "税务登记表", "purpose": PURPOSE, "holder": "ORGANISATION", "region": REGION}


def how(answer: Any, item: str = LICENCE) -> dict[str, str]:
    """By element, how the first of its sections of an item is got."""
    found = ((one["element"], source) for one in answer["elements"] for source in one["sources"])
    return {name: source["how"] for name, source in found if source["place"]["item"] == item}


async def test_a_form_is_told_what_the_bus_has(world: World) -> None:
    """And whether an agreement opens it: the same purpose, the same region, in force today."""
    parties = await world.parties(regions=["33"])
    asked = FORM | {"elements": ["企业名称", "法定代表人", "财务软件名称"], "proofs": ["曾用名证明"]}
    answer = await world.post(parties.consumer, CHECK, asked)
    assert [(one["verdict"], one["code"]) for one in answer["elements"]] == [
        ("ON_BUS", "ELEMENT_SHARED"),
        ("ON_BUS", "ELEMENT_SHARED"),
        ("UNLISTED", "PERMIT"),
        ("CANCELLED", "PROOF_CANCELLED"),
    ]
    assert not answer["allowed"]
    assert {"department": parties.provider.uscc, "region": ""} in answer["providers"][LICENCE]
    opened = {"企业名称": "agreement in force", "法定代表人": "apply for an agreement"}
    assert how(answer) == opened

    without = dict.fromkeys(opened, "apply for an agreement")
    for changed in ({"purpose": "supervision"}, {"region": "210600"}, {"region": ""}):
        told = how(await world.post(parties.consumer, CHECK, asked | changed))
        assert told == (opened if changed == {"region": ""} else without)
    assert how(await world.post(await world.join(), CHECK, asked)) == without
    await world.act(parties.consumer, "agreements", parties.agreement, "END", "no longer needed")
    assert how(await world.post(parties.consumer, CHECK, asked)) == without
    # Who issues licences begins with its own forms.
    own = await world.post(parties.provider, CHECK, FORM | {"elements": ["企业名称"]})
    assert own["allowed"]


async def test_the_command_exits_by_what_it_found(world: World, stack: Stack, tmp_path: Path) -> None:
    """0 for a form that may go out, 1 for one that asks for too much, 2 for none."""
    department = (await world.join()).name
    where = Home(world.place.folder)
    where.write_stack(stack)
    (tmp_path / "form.toml").write_text(
        'form = "[red]表"\npurpose = "statistics"\nholder = "PERSON"\nproofs = ["籍贯证明"]\n',
        "utf-8",
    )
    line = ("--form", "表", "--purpose", "statistics", "--element", "财务软件名称")
    code, said = await deptbus(where, department, *line, "--json")
    assert (code, json.loads(said)["allowed"]) == (0, True)
    code, said = await deptbus(where, department, "--file", str(tmp_path / "form.toml"))
    assert code == 1
    assert "[red]表" in said
    assert "PROOF_CANCELLED" in said
    assert "公通字〔2016〕21号" in said.replace("\n", "")
    for wrong in (("--form", "表"), ("--file", str(tmp_path / "form.toml"), *line), ("--file", str(tmp_path / "none"))):
        assert (await deptbus(where, department, *wrong))[0] == 2
    (tmp_path / "form.toml").write_text("form = 2026-01-01\n", "utf-8")
    assert (await deptbus(where, department, "--file", str(tmp_path / "form.toml")))[0] == 2


async def deptbus(home: Home, department: str, *arguments: str) -> tuple[int, str]:
    line = ["collection", "check", "--home", str(home.path), "--as", department, *arguments]
    done = await asyncio.wait_for(asyncio.to_thread(CliRunner().invoke, app, line), SECONDS)
    return done.exit_code, done.stdout
