"""The running bus's own log and records, in the hands of other people's verifiers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bus import envelope
from bus.client import GatewayClient
from bus.identity import Identity
from bus.tlog import checkpoint, note
from deploy.home import Home, Stack
from schemas.errors import Code, Refused
from tests.go.programs import Programs, batch_proof
from tests.integration.bus import LICENCE, World, place_on

FIRMS = 100
READINGS = 3  # so that the log has a full bundle and a partial one


@pytest.fixture
async def world(home: Home, stack: Stack, tmp_path: Path) -> AsyncIterator[World]:
    async with World(place_on(home, stack, tmp_path)) as made:
        yield made


async def test_the_log(programs: Programs, world: World, home: Home, tmp_path: Path) -> None:
    """Over HTTP and as an export, brought up to date: whole, and going on from where it was. Entries need a token."""
    vkey_file = world.place.bus.folder / "log" / "log.vkey"
    key = ("--key", vkey_file.read_text("utf-8").strip())
    url = f"{world.place.gateways[0]}/log/{world.place.bus.region}"
    folder, before, proof = tmp_path / "export", tmp_path / "before", tmp_path / "entry.tlog-proof"
    for name, there in (("stack.json", home.stack_file), ("bus", home.bus)):
        (tmp_path / name).symlink_to(there)  # with the world's departments a home, as commands find it
    programs = replace(programs, tls_authority=world.place.bus.folder / "tls" / "ca.pem")
    auditor = await world.join(auditor=True)
    export(tmp_path, auditor, folder)
    before.write_bytes((folder / "checkpoint").read_bytes())

    entry = await busy(world)
    async with GatewayClient(auditor, world.place.gateways) as client:
        proof.write_bytes(await proven(world, client, entry))
        token = (await client.post_json("/v1/audit/tokens", {}))["token"]
    export(tmp_path, auditor, folder)
    after = folder / "checkpoint"
    assert size_of(after) >= size_of(before) + FIRMS * READINGS

    for where, vkey in ((url, vkey_file), (folder.as_uri(), folder / "log.vkey")):
        assert (whole := programs.fsck(where, vkey, token)).holds, whole.says
    assert not programs.fsck(url, vkey_file).holds, "nobody reads entries without a token"
    for arguments in (
        ("tree", *key, "--token", token, url),
        ("tree", *key, folder),
        ("consistency", *key, "--tiles", url, before, after),
        ("consistency", *key, "--tiles", folder, before, after),
        ("proof", *key, proof),
    ):
        assert (verdict := programs.verify(*arguments)).holds, verdict.says


async def test_records_as_published(programs: Programs, world: World, tmp_path: Path) -> None:
    """A batch as its readers get it."""
    provider = await world.join(issues=[(LICENCE, "")])
    world.trust.add_certificate(provider.record.der)
    sealed, _ = await world.firms(provider, 5)
    at = datetime.now(UTC)
    records = [batch_proof(envelope.parse(one.value), world.trust, world.place.bus.origin, at) for one in sealed]
    file = tmp_path / "batch.json"
    file.write_text(json.dumps(records), "utf-8")
    assert programs.verify("batch", file) == (True, "5 records stand under their batches' signatures")


async def busy(world: World) -> bytes:
    """Something for the log: its last entry's leaf hash."""
    parties = await world.parties()
    sealed, _ = await world.firms(parties.provider, FIRMS)
    for _ in range(READINGS):
        grant, _ = await world.keys(parties.consumer, sealed)
    return grant.results[-1].entry


def export(home: Path, auditor: Identity, folder: Path) -> None:
    line = ("audit", "export", folder, "--as", auditor.name, "--json", "--home", home)
    done = subprocess.run([sys.executable, "-m", "deploy.cli", *line], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


async def proven(world: World, client: GatewayClient, entry: bytes) -> bytes:
    """The entry's proof, once a checkpoint covers it."""
    found: list[bytes] = []

    async def there() -> bool:
        try:
            found.append(await client.send("GET", f"/v1/audit/proofs/{entry.hex()}", b"", "text/plain"))
        except Refused as refused:
            if refused.code is not Code.NOT_FOUND:
                raise
        return bool(found)

    await world.until(there)
    return found[0]


def size_of(file: Path) -> int:
    return checkpoint.parse(note.parse(file.read_bytes()).text).size
