"""`deploy.check` finds exactly what is lost, twice or unaudited, and nothing on a clean bus."""

from __future__ import annotations

from deploy.check import Findings, check
from tests.integration.bus import LICENCE, TAX, World, fresh_firm, tax_draft

TOPIC = f"licence.{LICENCE}"


async def test_each_planted_fault_is_found_and_nothing_else(killable: World) -> None:
    """A deleted index row, a record sent twice, a second certificate, a parent never opened: these four."""
    parties = await killable.parties()
    office = await killable.join(issues=[(TAX, "")], receives=[LICENCE])
    await killable.agree(parties.provider, office)
    (opened, unopened, lost), (values, other_values, _) = await killable.firms(parties.provider, 3)
    assert (await killable.keys(office, [opened]))[1]
    await killable.publish(office, tax_draft(values, opened.leaf_hash))

    async def found() -> Findings:
        await killable.covered()
        return await check(killable.place.kafka, killable.place.dsn, killable.catalogue)

    clean = await found()
    assert clean.good, clean.to_json()

    await killable.db.execute("DELETE FROM record WHERE leaf_hash = $1", lost.leaf_hash)
    (again,) = await killable.produce((opened.topic, opened.key, opened.value))
    await killable.judged([opened])
    firm = fresh_firm()
    (second,) = await killable.publish(office, tax_draft(firm, opened.leaf_hash))
    (unaudited,) = await killable.publish(office, tax_draft(other_values, unopened.leaf_hash))
    after = await found()
    places = {m.key: f"{m.topic}/{m.partition}/{m.offset}" for m in await killable.on_topic(f"licence.{TAX}")}
    (missing,) = await killable.on_topic(TOPIC, lost.key)
    assert after.lost == [f"{TOPIC}/{missing.partition}/{missing.offset} (not in the index)"]
    assert sorted(after.duplicated) == sorted(
        [
            f"{TOPIC}/{again.partition}/{again.offset} (the same record again)",
            f"{places[second.key]} (a second certificate from one licence)",
        ]
    )
    assert after.unaudited == [f"{places[unaudited.key]} (its parent was never opened by its issuer)"]
