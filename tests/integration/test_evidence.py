"""A case's evidence out of a running bus: gathered over HTTP, checked by a browser and by `bus.tlog` alone."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bus import audit
from bus.client import GatewayClient
from bus.tlog import proof
from bus.tlog.note import Verifier
from bus.tlog.proof import TlogProof
from deploy.commands import evidence as command
from deploy.home import Home
from schemas.errors import Code, Refused
from tests.browser import Browser
from tests.integration.bus import World

SECONDS = 60
PUBLISHED_SECONDS = 1.5  # a checkpoint comes every second


def at_home(world: World, home: Home, folder: Path) -> Home:
    """The session's stack with the world's departments in it, as a command finds them."""
    folder.mkdir()
    (folder / "stack.json").symlink_to(home.stack_file)
    (folder / "bus").symlink_to(home.bus)
    (folder / "orgs").symlink_to(world.place.folder / "orgs")
    return Home(folder)


async def deptbus(home: Home, *arguments: str) -> tuple[int, Any]:
    """A command's exit code and its document."""
    line = (sys.executable, "-m", "deploy.cli", *arguments, "--json", "--home", str(home.path))
    child = await asyncio.create_subprocess_exec(*line, stdout=asyncio.subprocess.PIPE)
    said, _ = await asyncio.wait_for(child.communicate(), SECONDS)
    assert child.returncode is not None
    return child.returncode, json.loads(said)


async def test_a_case_becomes_an_archive_that_anybody_checks(
    world: World, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decisions of the case and of no other, one taken back: each proven under one checkpoint while the log grows."""
    parties = await world.parties()
    auditor = await world.join(auditor=True)
    sealed, _ = await world.firms(parties.provider, 3)
    case = f"嘉市监案〔2026〕{secrets.token_hex(4)}号 <b>&"
    grant, _ = await world.keys(parties.consumer, sealed, case=case)
    await world.keys(parties.consumer, sealed[:1], case=f"{case}-2")
    body = {"entry": grant.results[1].entry, "code": Code.FACTS_CHANGED.value}
    gateway, now = world.place.bus.signer("gateway"), datetime.now(UTC)
    for value in audit.log_values(gateway, world.place.bus.origin, grant.request, [("Voided", body)], now):
        await world.produce((audit.TOPIC, None, value))
    await world.covered()
    here = at_home(world, home, tmp_path / "home")
    out = tmp_path / "case.zip"
    status, document = await deptbus(here, "audit", "evidence", "--as", auditor.name, "--case", case, "--out", str(out))
    assert (status, document["entries"]) == (0, 4), document

    log = Verifier.from_vkey((home.bus / "log" / "log.vkey").read_text("utf-8").strip())
    with zipfile.ZipFile(out) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    proofs = [proof.parse(data) for name, data in files.items() if name.startswith("proofs/")]
    assert len(proofs) == 4
    assert {proof.verify(one, None, log).size for one in proofs} == {document["size"]}
    page = tmp_path / "index.html"
    page.write_bytes(files["index.html"])
    with Browser(tmp_path / "chromium") as browser:
        tab = browser.open(page)
        tab.until("['good', 'bad', 'unable'].includes(document.documentElement?.dataset.result)")
        assert tab.evaluate("document.documentElement.dataset.result") == "good"
        assert tab.evaluate("document.querySelectorAll('tr[data-status=good]').length") == 4

    # What she read is itself in the log; a page that is not the last is not the end; what nobody asked has no evidence.
    (reading, *_) = await world.found(("kind", "Reading"), ("consumer", auditor.uscc))
    assert reading.entry.body["what"] == "audit/entries:query"
    monkeypatch.setattr(command, "PAGE", 2)
    monkeypatch.setattr(command, "BATCH", 3)
    async with GatewayClient(auditor, world.place.gateways) as client:
        # Between two batches of proofs the log grows by her own reading: both end under one checkpoint.
        signed, items, _ = await command.collect(
            client, log, case, lambda done, of: time.sleep(done and PUBLISHED_SECONDS)
        )
        assert [item.index for item in items] == sorted(one.index for one in proofs)
        for item in items:
            assert proof.verify(TlogProof(item.index, item.path, signed, item.value), None, log).size > document["size"]
        with pytest.raises(Refused) as refused:
            await command.collect(client, log, "no such case", lambda done, of: None)
        assert (refused.value.code, refused.value.exit_code) == (Code.NOT_FOUND, 1)
