"""The log over HTTP: what is open, what is not, proofs; and the commands that copy, check and begin a log."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from bus import merkle
from bus.client import GatewayClient
from bus.gateway import trail
from bus.httpsig import sign
from bus.identity import Identity
from bus.recorder.guard import Signed
from bus.tlog import proof, tiles, verify
from bus.tlog.checkpoint import Checkpoint
from bus.tlog.note import Note, NoteSigner, Verifier
from bus.tlog.tiles import ENTRIES, Tile
from deploy.cli import app
from deploy.home import Home
from schemas.errors import Code, Refused
from tests.integration.bus import World

SECONDS = 60


def at_home(world: World, home: Home, folder: Path) -> Home:
    """The session's stack with the world's departments in it, as a command finds them."""
    folder.mkdir()
    (folder / "stack.json").symlink_to(home.stack_file)
    (folder / "bus").symlink_to(home.bus)
    (folder / "orgs").symlink_to(world.place.folder / "orgs")
    return Home(folder)


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands here answer a machine."""
    monkeypatch.setattr(sys, "argv", ["deptbus", "--json"])


async def deptbus(*arguments: str | Path) -> tuple[int, Any]:
    """A command's exit code and its document; in a thread, as commands have a loop of their own."""
    line = ["audit", *map(str, arguments), "--json"]
    done = await asyncio.wait_for(asyncio.to_thread(CliRunner().invoke, app, line), SECONDS)
    assert done.stdout, done.exception
    return done.exit_code, json.loads(done.stdout)


def vkey(home: Home) -> Verifier:
    return Verifier.from_vkey((home.bus / "log" / "log.vkey").read_text("utf-8").strip())


async def get(world: World, path: str, token: str = "") -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return await world.http.get(world.place.gateways[0] + path, headers=headers)


async def get_signed(world: World, identity: Identity, path: str) -> httpx.Response:
    url = world.place.gateways[0] + path
    return await world.http.get(url, headers=sign(identity.department, "GET", url, b""))


async def proven(client: GatewayClient, entry: bytes) -> bytes:
    """Once a checkpoint covers it: until then the answer is to ask again."""
    while True:
        try:
            return await client.proof(entry)
        except Refused as exc:
            if exc.code is not Code.NOT_FOUND or "ask again" not in exc.detail:
                raise
            await asyncio.sleep(0.1)


async def test_what_is_open_and_what_caches_may_keep(world: World, home: Home) -> None:
    log = f"/log/{world.place.bus.region}"
    auditor, reader = await world.join(auditor=True), await world.join(auditor=True)
    for _ in range(2):  # an entry each
        await world.post(reader, "/v1/audit/entries:query", {})
    await world.covered()
    answer = await get(world, f"{log}/checkpoint")
    at = verify.signed(answer.content, vkey(home))
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["cache-control"] == "public, max-age=1"

    whole = [(tile, width) for tile, width in tiles.widths(at.size) if tile.level != ENTRIES]
    for tile, width in (*whole[-3:], (whole[-1][0], 1)):
        answer = await get(world, f"{log}/{tiles.path(tile, width)}")
        assert (answer.status_code, len(answer.content)) == (200, width * 32), tile
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    far = tiles.path(Tile(0, at.size // 256 + 4))
    for path, status in (
        (f"{log}/{far}", 404),
        (f"{log}/tile/9/000", 404),
        (f"{log}/tile/0/0", 400),
        ("/log/110000/checkpoint", 404),
        (f"{log}/checkpoint/cosigned", 404),
        (f"/log/110000/{tiles.path(*whole[0])}", 404),
        (f"{log}/tile/entries/000.p/1", 401),
    ):
        answer = await get(world, path)
        assert (answer.status_code, answer.headers["cache-control"]) == (status, "no-store"), path

    # Entries: for an auditor's token, while its hour and her right last; and asking for it is a reading.
    refused = await world.send_json(await world.join(), "/v1/audit/tokens", {})
    assert (refused.status_code, refused.json()["code"]) == (403, Code.REQUEST_FORBIDDEN)
    given = await world.post(auditor, "/v1/audit/tokens", {})
    assert timedelta(minutes=59) < datetime.fromisoformat(given["expires_at"]) - datetime.now(UTC) <= timedelta(hours=1)
    (reading,) = await world.found(("kind", "Reading"), ("party", auditor.uscc))
    assert reading.entry.body["what"] == "log:bundles"
    bundle = f"{log}/tile/entries/000.p/2"
    answer = await get(world, bundle, given["token"])
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    entries = tiles.split_bundle(answer.content)
    hashes = (await get(world, f"{log}/tile/0/000.p/2")).content
    assert b"".join(map(merkle.leaf_hash, entries)) == hashes
    assert (await get(world, f"{log}/{far.replace('tile/0', 'tile/entries')}", given["token"])).status_code == 404
    assert (await get(world, bundle, given["token"] + "x")).status_code == 401
    stored = await world.db.fetch("SELECT hash FROM audit_token WHERE holder = $1", auditor.uscc)
    assert len(stored) == 1
    assert given["token"].encode() not in stored[0]["hash"]
    for statement in (
        "UPDATE org SET auditor = false WHERE uscc = $1",
        "UPDATE org SET auditor = true, suspended = true WHERE uscc = $1",
        "UPDATE org SET suspended = false WHERE uscc = $1",
        "UPDATE audit_token SET expires_at = now() WHERE holder = $1",
    ):
        await world.db.execute(statement, auditor.uscc)
        works = statement.startswith("UPDATE org SET suspended = false")
        assert (await get(world, bundle, given["token"])).status_code == (200 if works else 401), statement


async def test_a_grant_leads_to_its_proof(world: World, home: Home, tmp_path: Path) -> None:
    """With the entry for its parties and for auditors, without it for others; many at one checkpoint."""
    parties = await world.parties()
    auditor, stranger = await world.join(auditor=True), await world.join()
    sealed, _ = await world.firms(parties.provider, 3)
    grant, _ = await world.keys(parties.consumer, sealed)
    entries = [result.entry for result in grant.results]
    log = vkey(home)
    sizes = []
    for who, sees in ((parties.consumer, True), (parties.provider, True), (auditor, True), (stranger, False)):
        async with GatewayClient(who, world.place.gateways) as client:
            found = proof.parse(await proven(client, entries[0]))
        assert (found.extra is not None) == sees
        sizes.append(proof.verify(found, entries[0], log).size)
    # Whose bytes were given to somebody was read by him; a bare proof says nothing.
    assert [f.entry.body["what"] for f in await world.found(("kind", "Reading"), ("party", auditor.uscc))] == [
        "audit/proofs"
    ]
    assert sizes == sorted(sizes)

    answer = await world.post(auditor, "/v1/audit/proofs", {"entries": [entry.hex() for entry in entries]})
    at = verify.signed(answer["note"].encode(), log)
    assert (at.size, at.origin) == (answer["checkpoint"]["size"], world.place.bus.log_origin)
    for entry, one in zip(entries, answer["proofs"], strict=True):
        parsed = proof.parse(one["proof"].encode())
        assert (one["entry"], one["index"]) == (entry.hex(), parsed.index)
        assert proof.verify(parsed, entry, log) == at
    # What witnesses have signed is taken as long as it covers what is asked for.
    await world.db.execute("UPDATE log_checkpoint SET cosigned_size = size, cosigned = note")
    cosigned = await get(world, f"/log/{world.place.bus.region}/checkpoint/cosigned")
    try:
        async with GatewayClient(stranger, world.place.gateways) as client:
            grant, _ = await world.keys(parties.consumer, sealed[:1])
            newer = proof.parse(await proven(client, grant.results[0].entry))
            assert verify.signed(newer.note, log).size > verify.signed(cosigned.content, log).size
            assert proof.parse(await client.proof(entries[0])).note == cosigned.content
    finally:
        await world.db.execute("UPDATE log_checkpoint SET cosigned_size = 0, cosigned = NULL")
    for path, status in ((f"/v1/audit/proofs/{'0' * 64}", 404), ("/v1/audit/proofs/xyz", 400)):
        assert (await get_signed(world, stranger, path)).status_code == status
    refused = await world.send_json(stranger, "/v1/audit/proofs", {"entries": [entries[0].hex(), "0" * 64]})
    assert (refused.status_code, refused.json()["code"]) == (404, Code.NOT_FOUND)
    refused = await world.send_json(stranger, "/v1/audit/proofs", {"entries": []})
    assert (refused.status_code, refused.json()["code"]) == (400, Code.REQUEST_MALFORMED)

    # The same by the command; the file is checked without a bus.
    here = at_home(world, home, tmp_path / "home")
    out, key = tmp_path / "receipt.tlog-proof", home.bus / "log" / "log.vkey"
    asked = ("proof", entries[1].hex(), "--as", parties.consumer.name, "--home", here.path)
    status, document = await deptbus(*asked, "--out", out)
    assert (status, document["carries_entry"]) == (0, True)
    status, document = await deptbus("verify", out, "--key", key, "--entry", entries[1].hex())
    assert (status, document["good"]) == (0, True)
    status, document = await deptbus("verify", out, "--key", log.vkey, "--entry", entries[2].hex())
    assert (status, document["error"]["code"]) == (1, Code.PROOF_INVALID)


async def test_an_export_is_whole_and_a_changed_byte_is_named(world: World, home: Home, tmp_path: Path) -> None:
    auditor = await world.join(auditor=True)
    stranger = await world.join()
    here, out = at_home(world, home, tmp_path / "home"), tmp_path / "export"
    command = ("export", out, "--home", here.path, "--as")
    status, document = await deptbus(*command, stranger.name)
    assert (status, document["error"]["code"]) == (1, Code.REQUEST_FORBIDDEN)
    assert not (out / "checkpoint").exists()

    await world.covered()
    status, document = await deptbus(*command, auditor.name)
    assert status == 0, document
    first = shutil.copy(out / "checkpoint", tmp_path / "first")
    checked = ("verify", out, "--key", out / "log.vkey")
    assert (await deptbus(*checked))[1]["size"] == document["size"]

    # The reading of it is in the log: the next export has more, and fetches only what is new.
    await world.covered()
    status, again = await deptbus(*command, auditor.name)
    assert (status, again["size"] > document["size"]) == (0, True)
    assert again["fetched"] <= 8 + again["size"] // 256 - document["size"] // 256
    assert (await deptbus(*checked, "--since", first))[0] == 0
    assert len(list(out.rglob("*.p"))) == len(list(out.rglob("*.p/*"))) > 0

    file = next(out.glob("tile/entries/*.p/*"))
    data = file.read_bytes()
    file.write_bytes(data[:200] + bytes([data[200] ^ 1]) + data[201:])
    status, said = await deptbus(*checked)
    assert (status, said["error"]["code"]) == (1, Code.LOG_TAMPERED)
    assert str(file.relative_to(out)) in said["error"]["detail"]
    assert (await deptbus("verify", out, "--key", "not a key"))[0] == 2
    assert (await deptbus("verify", tmp_path / "nowhere", "--key", out / "log.vkey"))[0] == 2


async def test_a_log_is_begun_on_purpose_and_once(world: World, home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "home"
    shutil.copytree(home.bus, folder / "bus")
    bus = Home(folder).load_bus()
    origin, command = bus.log_origin, ("incept", "--home", folder, "--origin")
    assert (await deptbus(*command, origin))[1]["error"]["code"] == Code.STATE_INVALID
    bus.guard_file.unlink()
    status, said = await deptbus(*command, origin + "1")
    assert (status, origin in said["error"]["detail"]) == (2, True)
    # Whether anything was signed, only the database can say.
    assert (await deptbus(*command, origin))[1]["error"]["code"] == Code.STACK_NOT_RUNNING
    (folder / "stack.json").symlink_to(home.stack_file)
    status, said = await deptbus(*command, origin)
    assert (status, said["error"]["code"], bus.guard_file.exists()) == (1, Code.STATE_INVALID, False)

    # A guard that was lost: from a checkpoint that this log's key has signed, and from no older one.
    note = tmp_path / "checkpoint"
    own = NoteSigner.load(bus.folder / "log" / "log.key")
    newest = await trail.published(world.db)
    for signer, size, code in (
        (NoteSigner.create(tmp_path / "stranger.key", origin), newest.size + 1_000, Code.SIGNATURE_INVALID),
        (own, 1, Code.STATE_INVALID),
        (own, newest.size + 1_000, None),
    ):
        text = Checkpoint(origin, size, newest.root).text
        note.write_bytes(Note(text, (signer.sign(text),)).encode())
        status, said = await deptbus(*command, origin, "--at", note)
        assert said.get("error", {}).get("code") == code
    assert (status, said["size"], said["vkey"]) == (0, newest.size + 1_000, own.verifier.vkey)
    assert await bus.log_keys().guard.read() == Signed(newest.size + 1_000, newest.root)

    # A bus that never had a log: key, verifier key and a guard at nothing.
    shutil.rmtree(folder / "bus" / "log")
    (folder / "stack.json").unlink()
    status, said = await deptbus(*command, origin)
    assert (status, said["size"], vkey(Home(folder)).vkey) == (0, 0, said["vkey"])
    assert await bus.log_keys().guard.read() == Signed()
