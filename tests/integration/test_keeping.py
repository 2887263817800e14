"""How long the log is served: for ever, or for three years and more. Nothing is taken out of the tree."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from bus import db
from bus.gateway import trail
from bus.gateway.trail import Filter
from bus.proof import ProofVerifier
from bus.recorder.log import Log
from bus.trust import Trust
from bus.trustfeed import TrustFeed, stop_task
from schemas.errors import Code, Misuse
from tests.integration.bus import World


async def test_what_is_older_than_the_setting_is_not_served(world: World, dsn: str, tmp_path: Path) -> None:
    """An entry of three years ago is there, the one before it is not; a longer setting brings it back."""
    await world.parties()
    await world.parties()
    size = await world.covered()
    await db.migrate(dsn)
    connection = await db.connect(dsn)
    task = asyncio.create_task(world.recorder(dsn, tmp_path).run())
    try:

        async def read() -> bool:
            return (await connection.fetchval("SELECT size FROM log_checkpoint") or 0) >= size

        await world.until(read, 30)
        await stop_task(task)
        at = await trail.published(connection)
        found, _ = await trail.page(connection, Filter(), at, at.size - 4, 10)
        oldest = found[0].stored
        kept = replace(world.log_keys(tmp_path), keep_years=3)
        feed = TrustFeed(Trust(world.place.bus.authority.signer.der), world.place.kafka, "test")
        now = oldest.logged_at.replace(year=oldest.logged_at.year + 3)
        for keys, moment, minimum in (
            (kept, now, oldest.index),
            (kept, now + timedelta(days=1), at.size),
            (replace(kept, keep_years=4), now, 0),
            (replace(kept, keep_years=None), now + timedelta(days=4_000), 0),
        ):
            await Log(keys, "", feed, ProofVerifier(), dsn).keep(connection, moment)
            served, _ = await trail.page(connection, Filter(), await trail.published(connection), -1, 1)
            assert [one.stored.index for one in served] == ([] if minimum == at.size else [minimum])
    finally:
        await stop_task(task)
        await connection.close()


@pytest.mark.parametrize("years", [2, 0, -1, True, "3"])
async def test_less_than_three_years_is_refused(world: World, tmp_path: Path, years: int) -> None:
    with pytest.raises(Misuse) as refused:
        replace(world.log_keys(tmp_path), keep_years=years)
    assert refused.value.code is Code.CONFIG_INVALID
