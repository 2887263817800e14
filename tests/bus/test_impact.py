"""What notices say, from who opened what and what follows from it."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from bus import audit
from bus.impact import Derived, Opening
from bus.recorder.impact import EVIDENCE, RECORDS, notices
from tests.vectors import world

AT = datetime(2026, 3, 1, tzinfo=UTC)
TRIGGER: dict[str, Any] = {
    "record": sha256(b"trigger").digest(),
    "licence": sha256(b"licence").digest(),
    "sequence": 1_000,
    "item": "business-licence",
    "issuer": world.ISSUER,
    "operation": "REVOKED",
    "occurred_at": AT,
    "admitted": sha256(b"admitted").digest(),
    "opened_before": 2_000,
}


def version(sequence: int) -> bytes:
    return sha256(b"version %d" % sequence).digest()


VERSIONS = {version(sequence): sequence for sequence in range(1, 1_002)}


def opening(index: int, sequence: int, consumer: str = world.CONSUMER) -> Opening:
    return Opening(
        index=index,
        at=AT,
        consumer=consumer,
        record=version(sequence),
        entry=sha256(b"entry %d" % index).digest(),
        purpose="tax-registration",
        sections=("identity",),
    )


def derived(number: int, issuer: str = world.CONSUMER) -> Derived:
    return Derived(
        record=sha256(b"derived %d" % number).digest(),
        licence=sha256(b"its licence %d" % number).digest(),
        item="x" * 64,
        issuer=issuer,
        operation="ISSUED",
        status="VALID",
        admitted_at=AT,
        parent=version(1),
        parent_licence=TRIGGER["licence"],
        depth=1,
    )


def test_only_earlier_versions_that_were_opened_before_count() -> None:
    """Not the record that says so, no later version, no record of another licence, no opening after the look."""
    openings = [opening(7, 1), opening(8, 999), opening(9, 1_000), opening(10, 1_001), opening(11, 5_000)]
    (body,) = notices(TRIGGER, VERSIONS, [*openings, opening(2_000, 2)], [], [])
    assert body["opened"] == [version(1), version(999)]
    assert body["entries"] == [one.entry for one in openings[:2]]
    assert (body["addressee"], body["count"], body["derived"]) == (world.CONSUMER, 2, [])


def test_the_largest_notices_fit_into_the_log_and_leave_nothing_out() -> None:
    """More than one can name comes in several, each with its own id; evidence is the first and the last entries."""
    openings = [opening(number, number % 600 + 1) for number in range(1_200)]
    follows = [derived(number) for number in range(RECORDS + 1)]
    bodies = notices(TRIGGER, VERSIONS, openings, follows, [])
    assert [(len(body["opened"]), len(body["derived"])) for body in bodies] == [
        (RECORDS, RECORDS),
        (RECORDS, 1),
        (88, 0),
    ]
    assert {record for body in bodies for record in body["opened"]} == {version(n) for n in range(1, 601)}
    assert [body["count"] for body in bodies] == [2 * RECORDS, 2 * RECORDS, 176]
    assert {len(body["entries"]) for body in bodies} == {EVIDENCE}
    assert bodies[0]["entries"][0] == openings[0].entry
    assert len({body["id"] for body in bodies}) == 3
    for body in bodies:
        assert audit.log_values(world.RECORDER, world.ORIGIN, body["id"], [("Impact", body)], AT)


def test_what_was_said_is_not_said_again_and_what_is_new_is_said_alone() -> None:
    first = notices(TRIGGER, VERSIONS, [opening(7, 1)], [derived(1), derived(2, world.ISSUER)], [])
    assert [body["addressee"] for body in first] == sorted((world.CONSUMER, world.ISSUER))
    assert notices(TRIGGER, VERSIONS, [opening(7, 1)], [derived(1), derived(2, world.ISSUER)], first) == []
    (late,) = notices(TRIGGER, VERSIONS, [opening(7, 1)], [derived(1), derived(2, world.ISSUER), derived(3)], first)
    assert (late["addressee"], late["opened"], late["count"]) == (world.CONSUMER, [], 0)
    assert [one["record"] for one in late["derived"]] == [derived(3).record]
