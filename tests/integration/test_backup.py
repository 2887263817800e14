"""The drill: a database is put back from its copy, and everything that came since is there again, out of the topics."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from bus import db
from bus.recorder.guard import Guard
from bus.recorder.service import Recorder
from bus.trust import Trust
from bus.trustfeed import stop_task
from deploy import backup
from deploy.home import Home
from schemas.errors import Code, DeptbusError, Malformed, Misuse
from tests.integration.bus import World


async def test_nothing_is_lost_up_to_the_last_backup_plus_the_topics(world: World, tmp_path: Path) -> None:
    """Records and the log come again, as the same tree; what was withdrawn since stays so, what was agreed since does
    not come back by itself. Meanwhile nothing is signed that the guard has seen more of.
    """
    parties = await world.parties()
    await world.firms(parties.provider)
    _, (values,) = await world.firms(parties.provider)
    withdrawn, kept = [await world.consent(parties, values) for _ in range(2)]
    taken = await backup.back_up(world.place.dsn, tmp_path / "copy")

    after, _ = await world.firms(parties.provider, 20)
    await world.withdraw(parties, withdrawn)
    agreed = (await world.parties()).agreement
    rules = await _rules(world.db, withdrawn, kept, agreed)
    await world.until(lambda: _logged(world.db, withdrawn["id"], taken.entries))

    name = f"drill_{secrets.token_hex(6)}"
    dsn = world.place.dsn.rsplit("/", 1)[0] + "/" + name
    guard = tmp_path / "guard.sqlite"
    shutil.copy(world.place.bus.guard_file, guard)
    seen = await Guard(guard, world.place.bus.log_origin).read()
    assert (await backup.put_back(dsn, tmp_path / "copy")) == taken
    restored = await db.connect(dsn)
    running: asyncio.Task[None] | None = None
    try:
        assert await restored.fetchval("SELECT size FROM log_state") == taken.entries < seen.size
        assert (await _rules(restored, withdrawn, kept, agreed)) != rules
        note = await restored.fetchval("SELECT note FROM log_checkpoint")
        running = asyncio.create_task(_recorder(world, dsn, guard).run())

        async def signed() -> bool:
            size, now = await restored.fetchrow("SELECT size, note FROM log_checkpoint")
            assert now == note or size >= seen.size  # nothing that is less than what was signed already
            return bool(size >= seen.size)

        await world.until(signed)
        leaves = [one.leaf_hash for one in after]

        async def admitted() -> bool:  # records are read beside the log, and may be behind it
            there = await restored.fetchval("SELECT count(*) FROM record WHERE leaf_hash = ANY($1)", leaves)
            return bool(there == len(leaves))

        await world.until(admitted)
        full = "SELECT level, number, hashes FROM log_tile WHERE (number + 1) << (8 * (level + 1)) <= $1 ORDER BY 1, 2"
        ours, theirs = await restored.fetch(full, seen.size), await world.db.fetch(full, seen.size)
        assert ours == theirs
        assert await _rules(restored, withdrawn, kept) == {withdrawn["id"]: "WITHDRAWN", kept["id"]: "ACTIVE"}
        assert await _rules(restored, agreed) == {}
        acts = await restored.fetch("SELECT act FROM rule_act WHERE rule = $1 ORDER BY revision", withdrawn["id"])
        assert [row["act"] for row in acts][-1] == "WITHDRAW"
    finally:
        await stop_task(running)
        await restored.close()
        await world.db.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


async def test_a_database_in_use_is_not_replaced(world: World, dsn: str, tmp_path: Path) -> None:
    await db.migrate(dsn)
    taken = await backup.back_up(dsn, tmp_path / "copy")
    held = await db.connect(dsn)
    try:
        await held.execute("CREATE TABLE mark ()")
        with pytest.raises(Misuse) as caught:
            await backup.put_back(dsn, tmp_path / "copy")
        assert caught.value.code is Code.STACK_RUNNING
        await held.execute("SELECT FROM mark")  # it is the one that it was
    finally:
        await held.close()
    assert await backup.put_back(dsn, tmp_path / "copy") == taken
    again = await db.connect(dsn)
    try:
        assert await again.fetchval("SELECT to_regclass('mark')") is None
    finally:
        await again.close()


async def test_no_copy_holds_keys_and_database_and_none_the_guard(home: Home, world: World, tmp_path: Path) -> None:
    copy, keys = tmp_path / "copy", tmp_path / "keys"
    for other in (copy, copy / "keys", tmp_path):
        with pytest.raises(Misuse):
            backup.back_up_keys(home, other, copy)
    backup.back_up_keys(home, keys, copy)
    there = {path.relative_to(keys).as_posix() for path in keys.rglob("*")}
    assert "bus/log/log.key" in there
    assert not [path for path in there if "guard" in path or path.startswith("unlock")]
    await backup.back_up(world.place.dsn, copy)
    dump = (copy / backup.DUMP).read_bytes()
    secret = (home.bus / "log" / "log.key").read_bytes().strip()
    assert secret not in dump
    new = Home(tmp_path / "new")
    backup.put_keys_back(new, keys)
    assert new.load_bus().log_origin == home.load_bus().log_origin
    assert not new.load_bus().guard_file.exists()
    with pytest.raises(Misuse):  # keys that are there are not replaced
        backup.put_keys_back(new, keys)


async def test_a_damaged_copy_is_refused(world: World, dsn: str, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    with pytest.raises(Misuse):
        backup.Backup.load(folder)
    await db.migrate(dsn)
    await backup.back_up(dsn, folder)
    with pytest.raises(Misuse):  # a folder of its own
        await backup.back_up(dsn, folder)
    with (folder / backup.DUMP).open("r+b") as file:
        file.seek(100)
        file.write(b"\xff")
    with pytest.raises(Malformed) as caught:
        await backup.put_back(dsn, folder)
    assert caught.value.code is Code.DATA_CORRUPT
    (folder / backup.ABOUT).write_text("{}", "utf-8")
    with pytest.raises(DeptbusError) as unreadable:
        backup.Backup.load(folder)
    assert unreadable.value.code is Code.DATA_CORRUPT


def _recorder(world: World, dsn: str, guard: Path) -> Recorder:
    bus = world.place.bus
    keys = replace(bus.log_keys(), guard=Guard(guard, bus.log_origin))
    trust = Trust(bus.authority.signer.der)
    return Recorder(bus.signer("recorder"), bus.origin, world.catalogue, trust, world.place.kafka, dsn, keys)


async def _rules(connection: asyncpg.Connection, *documents: dict[str, str]) -> dict[str, str]:
    ids = [document["id"] for document in documents]
    return {str(row["id"]): row["state"] for row in await connection.fetch(STATES, ids)}


STATES = "SELECT id, state FROM rule WHERE id = ANY($1::uuid[])"


async def _logged(connection: asyncpg.Connection, rule: str, since: int) -> bool:
    """Whether the withdrawal's entry is in the log: what the recorder has not read yet it cannot know."""
    rows = await connection.fetch("SELECT entries FROM log_bundle WHERE number >= $1", since // 256)
    return any(row["entries"].count(rule.encode()) >= 1 and b"WITHDRAWN" in row["entries"] for row in rows)
