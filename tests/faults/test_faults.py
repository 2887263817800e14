"""kill -9 of every part once, and faults in pairs: what failed, and what failed but was persisted.

2,000 records a load instead of the 20,000 of `make faults`: as many kills in a tenth of the time. A kill meets the same
code at any length; only how often a batch boundary is hit differs, which the five rounds of `make faults` are for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import pytest_asyncio
from aiokafka.errors import KafkaError

from adapters.sink import PostgresSink
from bus import db
from bus.outbox import Outbox
from bus.publisher import Publisher
from bus.sealer import Draft
from bus.subscriber import Opened
from schemas.catalogue import Catalogue
from schemas.errors import Unavailable
from schemas.operations import Operation
from tests.faults.__main__ import LOADS, TARGETS, TOPIC, Course, Kill, _ends, _on_topic, one_load
from tests.faults.doomed import POINTS, WHEN
from tests.faults.firms import firm
from tests.faults.log import Trial, every_point
from tests.faults.plant import ITEM, Plant

RECORDS = 2_000
SEED = 20_260_301

pytestmark = pytest.mark.slow


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plant(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Plant]:
    made = Plant(tmp_path_factory.mktemp("plant"))
    try:
        await made.up()
        yield made
    finally:
        made.down()


class TestKills:
    @pytest.mark.parametrize("parts", LOADS, ids=lambda parts: "-".join(parts))
    @pytest.mark.asyncio(loop_scope="module")
    async def test_nothing_is_lost_or_doubled(self, plant: Plant, parts: tuple[str, ...]) -> None:
        kills = [(target, SEED + TARGETS.index(target)) for target in parts]
        rows = await one_load(plant, kills, 1_000_000 + LOADS.index(parts) * RECORDS, RECORDS, f"load_{parts[0]}")
        assert [row.target for row in rows] == list(parts)
        for row in rows:
            assert row.good, row


class TestLog:
    async def test_a_death_at_each_commit_point_leaves_the_same_tree(self, tmp_path: Path) -> None:
        """Before and after it: the next recorder goes on, and what was ever signed is one history."""
        async with Trial(tmp_path) as trial:
            deaths = await every_point(trial)
        assert [death.point for death in deaths[:-1]] == [f"{point}-{when}" for point in POINTS for when in WHEN]
        assert [death for death in deaths if not death.good] == []
        assert deaths[-1].entries > deaths[0].entries > 0
        assert deaths[-1].checkpoints > len(POINTS)


class TestJudgement:
    """A row that any of these is wrong in is bad: the harness itself can say no."""

    GOOD = Kill(
        target="kafka",
        seed=1,
        load="l",
        records=9,
        at_record=5,
        acked=9,
        in_topic=9,
        in_sink=9,
        released=9,
        audited=9,
    )

    def test_good(self) -> None:
        assert self.GOOD.good

    @pytest.mark.parametrize(
        "wrong",
        [
            {"acked": 8},
            {"in_topic": 8},
            {"in_topic": 10},
            {"in_sink": 8},
            {"released": 8},
            {"audited": 8},
            {"released": 0, "audited": 0},
            {"twice": 1},
            {"unopened": 1},
            {"at_record": 0},
            {"at_record": 9},
            {"error": "it hung"},
        ],
    )
    def test_bad(self, wrong: dict[str, Any]) -> None:
        assert not replace(self.GOOD, **wrong).good

    async def test_a_course_without_targets_has_no_rows(self) -> None:
        assert await Course(records=1, seed=1, targets=()).run(cast(Plant, None)) == []


class _Fails:
    """A producer whose answer is lost: `first` says whether the brokers got the record all the same."""

    def __init__(self, real: Any, *, persisted: bool) -> None:
        self._real = real
        self._persisted = persisted

    async def send(self, *arguments: Any, **named: Any) -> Any:
        if self._persisted:
            await (await self._real.send(*arguments, **named))
        raise KafkaError

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class TestPairs:
    """The same fault twice: once nothing had happened, once everything had and only the answer was lost."""

    @pytest.mark.parametrize("persisted", [False, True], ids=["failed", "failed-but-persisted"])
    @pytest.mark.asyncio(loop_scope="module")
    async def test_outbox(self, plant: Plant, tmp_path: Path, persisted: bool) -> None:
        starts = await _ends(plant.administrator, TOPIC)
        drafts = [_draft(number) for number in range(8_000_000 + persisted * 10, 8_000_003 + persisted * 10)]
        with Outbox(tmp_path / "outbox.sqlite") as outbox:
            async with Publisher(plant.provider, plant.kafka, Catalogue.load(), outbox=outbox) as sdk:
                sealed = await sdk.seal(drafts)
                outbox.stage(sealed)
                real, sdk._producer = sdk._producer, cast(Any, _Fails(sdk._producer, persisted=persisted))
                with pytest.raises(Unavailable):
                    await sdk.send(sealed)
                sdk._producer = real
                assert [one.leaf_hash for one in outbox.pending()] == [one.leaf_hash for one in sealed]
            async with Publisher(plant.provider, plant.kafka, Catalogue.load(), outbox=outbox):
                assert outbox.pending() == []  # sent again when it connected
        leaves, twice = await _on_topic(plant.administrator, starts)
        assert leaves == {one.leaf_hash for one in sealed}
        assert twice == 0

    @pytest.mark.parametrize("persisted", [False, True], ids=["failed", "failed-but-persisted"])
    async def test_sink(self, dsn: str, persisted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        batch = [_opened(number) for number in range(3)]
        async with PostgresSink(dsn, "sink", {"name": "text"}) as sink:
            await sink.write(batch[:1])
            assert sink._connection is not None
            transaction = sink._connection.transaction

            class Broken:
                """A transaction whose COMMIT is not answered."""

                async def __aenter__(self) -> None:
                    self.real = transaction()
                    await self.real.__aenter__()

                async def __aexit__(self, *_: object) -> None:
                    if persisted:
                        await self.real.__aexit__(None, None, None)
                    assert sink._connection is not None
                    sink._connection.terminate()
                    raise ConnectionResetError

            with monkeypatch.context() as patch:
                patch.setattr(type(sink._connection), "transaction", lambda _: Broken())
                with pytest.raises(Unavailable):
                    await sink.write(batch)
        async with PostgresSink(dsn, "sink", {"name": "text"}) as sink:
            next_offset = (await sink.offsets())[batch[0].topic, 0]
            assert next_offset == (3 if persisted else 1)
            await sink.write(batch)  # handed over again
            assert (await sink.offsets())[batch[0].topic, 0] == 3
        connection = await db.connect(dsn)
        try:
            assert await connection.fetchval("SELECT count(*) FROM sink") == 3
        finally:
            await connection.close()


def _draft(number: int) -> Draft:
    return Draft(
        item=ITEM,
        operation=Operation.ISSUED,
        values=firm(number),
        sequence=1,
        occurred_at=datetime.now(UTC),
        region="330411",
    )


def _opened(number: int) -> Opened:
    claims = SimpleNamespace(licence=bytes([number]), sequence=1, item=ITEM)
    return Opened(
        record=cast(Any, SimpleNamespace(claims=claims, leaf_hash=bytes([number]) * 32)),
        sections={"identity": {"name": f"甲{number}"}},
        refused={},
        topic=TOPIC,
        partition=0,
        offset=number,
        time=datetime.now(UTC),
        salts={},
        plains={},
        entry=b"",
    )
