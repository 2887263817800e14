"""Supervision: every rule of the shipped file fires on what it is about, and not on what only looks like it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.audit import Entry
from bus.supervision import MAX_EVIDENCE, Finding, Rules, Watch
from consent.calendar import is_working_day
from consent.decide import CHINA
from deploy.demo.departments import DEPARTMENTS
from schemas.errors import Malformed

NOON = datetime(2026, 3, 11, 12, tzinfo=CHINA)  # a Wednesday
RULES = Rules.load()
SHIPPED = (Path(__file__).parents[2] / "bus" / "supervision.toml").read_text("utf-8")
CONSUMER = "11330411MB2A00011E"
CLERK, SYSTEM = "clerk-7", "tax-sync"


def entry(number: int, *, operator: str = CLERK, subject: int = 0, code: str = "PERMIT", **body: Any) -> Entry:
    """A decision on one section."""
    fields = {
        "consumer": CONSUMER,
        "operator": operator,
        "purpose": "tax-registration",
        "case": "",
        "subjects": [sha256(b"subject %d" % subject).digest()],
        "sections": [{"name": "identity", "code": code, "rule": ""}],
    }
    return logged("Decision", number, fields | body)


def logged(kind: str, number: int, body: dict[str, Any]) -> Entry:
    return Entry(
        time=NOON,
        group=bytes(16),
        kind=kind,
        body=body,
        signer=bytes(32),
        leaf_hash=sha256(b"entry %d" % number).digest(),
        value=b"",
    )


def found(*acts: tuple[datetime, Entry], rules: Rules = RULES) -> list[Finding]:
    watch = Watch(rules)
    return [one for number, (at, one_) in enumerate(acts) for one in watch.feed(number, at, one_)]


def ids(findings: Sequence[Finding]) -> list[str]:
    return [finding.rule.id for finding in findings]


def every(seconds: float, count: int, start: datetime = NOON, **fields: Any) -> list[tuple[datetime, Entry]]:
    return [(start + timedelta(seconds=seconds * n), entry(n, **fields)) for n in range(count)]


def test_burst() -> None:
    """Sixty within a minute, and once; sixty in a little more is a busy hour."""
    (finding,) = found(*every(1, 200))
    assert (finding.rule.id, finding.first, finding.last, finding.count) == ("burst", 0, 59, 60)
    assert found(*every(61 / 59, 200)) == []
    assert found(*every(1, 59)) == []
    half = [(at, entry(n, operator=f"clerk-{n % 2}")) for n, (at, _) in enumerate(every(0.6, 100))]
    assert found(*half) == []  # two clerks are two clerks
    assert found(*every(0.001, 2_000, operator=SYSTEM)) == []


def test_a_burst_after_a_pause_is_another() -> None:
    pause = NOON + timedelta(seconds=300)
    assert ids(found(*every(1, 90), *every(1, 90, pause))) == ["burst", "burst"]


def test_many_subjects() -> None:
    """Different ones, within half an hour; look-ups that found nothing count; the same person again does not."""
    acts = [(at, entry(n, subject=n)) for n, (at, _) in enumerate(every(60, 90))]
    (finding,) = found(*acts)
    assert (finding.rule.id, finding.last, finding.count) == ("many-subjects", 29, 30)
    assert found(*[(at, entry(n, subject=n % 29)) for n, (at, _) in enumerate(every(20, 90))]) == []
    assert found(*[(at, entry(n, subject=n)) for n, (at, _) in enumerate(every(63, 90))]) == []
    searched = {"reader": CONSUMER, "operator": CLERK, "what": "licences:search"}
    looked = [
        (at, logged("Reading", n, {**searched, "subjects": [bytes([n] * 32)]}))
        for n, (at, _) in enumerate(every(2, 30))
    ]
    assert ids(found(*looked)) == ["many-subjects"]
    trail = [(at, logged(one.kind, n, one.body | {"what": "audit"})) for n, (at, one) in enumerate(looked)]
    assert found(*trail) == []  # an auditor's questions are no use of data


@pytest.mark.parametrize(
    ("at", "fires"),
    [
        ("2026-03-11T07:30:00", False),
        ("2026-03-11T07:29:59", True),
        ("2026-03-11T18:59:59", False),
        ("2026-03-11T19:00:00", True),
        ("2026-03-14T10:00:00", True),  # a Saturday
        ("2025-10-01T10:00:00", True),  # National Day, a Wednesday
        ("2026-02-17T10:00:00", True),  # Spring Festival, a Tuesday
        ("2025-09-28T10:00:00", False),  # a Sunday worked for National Day (调休)
        ("2026-02-14T10:00:00", False),  # a Saturday worked for Spring Festival
        ("2026-02-14T20:00:00", True),
        ("2027-03-10T10:00:00", False),  # not known yet: nothing is said, but counted
        ("2027-03-10T22:00:00", True),  # night is night
    ],
)
def test_off_hours(at: str, fires: bool) -> None:
    when = datetime.fromisoformat(at).replace(tzinfo=CHINA)
    watch = Watch(RULES)
    assert ids(watch.feed(0, when.astimezone(UTC), entry(0))) == ["off-hours"] * fires
    assert watch.unknown == (at == "2027-03-10T10:00:00")
    assert watch.feed(1, when, entry(1, operator=SYSTEM)) == []


def test_one_evening_is_one_finding() -> None:
    evening = datetime(2026, 3, 11, 19, tzinfo=CHINA)
    assert ids(found(*every(600, 12, evening), *every(600, 12, evening + timedelta(days=1)))) == ["off-hours"] * 2


def test_a_year_that_the_file_names() -> None:
    named = "[years.2027]\nholidays = [2027-03-10]\nworkdays = [2027-03-13]\n\n[[rules]]"
    rules = Rules.parse(SHIPPED.replace("[[rules]]", named, 1))
    for day, works in (("2027-03-10", False), ("2027-03-11", True), ("2027-03-13", True), ("2027-03-14", False)):
        assert is_working_day(date.fromisoformat(day), rules.years) is works
        assert is_working_day(date.fromisoformat(day)) is None


def test_refusals_in_a_row() -> None:
    """Eight; one opening in between begins anew, and what had to wait is neither."""
    refused = every(600, 20, code="CONSENT_NONE")
    (finding,) = found(*refused)
    assert (finding.rule.id, finding.last, len(finding.entries)) == ("refusals", 7, 8)
    assert found(*refused[:7], (NOON + timedelta(hours=2), entry(7)), *every(600, 7, NOON, code="CONSENT_NONE")) == []
    assert found(*every(600, 20, code="NOT_ADMITTED")) == []
    waited = [refused[n] if n % 2 else (at, entry(n, code="NOT_ADMITTED")) for n, (at, _) in enumerate(refused[:16])]
    assert ids(found(*waited)) == ["refusals"]
    assert "refusals" not in ids(found(*every(86_400 / 6.9, 20, code="CONSENT_NONE")))  # a few a day are no run
    assert "refusals" in ids(found(*every(86_400 / 7, 20, code="CONSENT_NONE")))


def test_refusals_of_a_system() -> None:
    assert found(*every(1, 499, operator=SYSTEM, code="CONSENT_NONE")) == []
    (finding,) = found(*every(1, 1_500, operator=SYSTEM, code="AGREEMENT_ENDED"))
    assert (finding.rule.id, finding.count, len(finding.entries)) == ("refusals-of-a-system", 500, MAX_EVIDENCE)


def test_use_without_a_case() -> None:
    """Of purposes that have cases; what was refused was no use."""
    fields: dict[str, Any] = {"purpose": "service-counter"}
    assert ids(found((NOON, entry(0, **fields)), (NOON, entry(1, **fields)))) == ["no-case"]
    assert ids(found((NOON, entry(0, case=" ", **fields)))) == ["no-case"]
    for one in (
        entry(0, case="2026-0311", **fields),
        entry(0, code="CONSENT_NONE", **fields),
        entry(0, operator=SYSTEM, **fields),
        entry(0, purpose="tax-registration"),
    ):
        assert found((NOON, one)) == []


def test_a_dormant_operator() -> None:
    """Back after 180 days, a system, too; 179 are a long leave; who was never seen is new."""
    for days, fires in ((180, ["dormant"]), (179, [])):
        later = NOON + timedelta(days=days, minutes=5)
        findings = found((NOON, entry(0, operator=SYSTEM)), (later, entry(1, operator=SYSTEM)))
        assert ids(findings) == fires
    (finding,) = found((NOON, entry(0)), (NOON + timedelta(days=197), entry(1)))
    assert finding.entries == (entry(0).leaf_hash, entry(1).leaf_hash)


def test_a_finding_has_no_rule_about_it() -> None:
    body = {"consumer": CONSUMER, "operator": CLERK, "subjects": [], "sections": []}
    night = NOON + timedelta(hours=12)
    assert [found((night, logged(kind, 0, body))) for kind in ("Finding", "Voided", "Revision")] == [[]] * 3


ACTS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 30, 3_600, 90_000, 190 * 86_400]),
        st.integers(0, 40),
        st.sampled_from(["PERMIT", "CONSENT_NONE", "NOT_ADMITTED"]),
        st.sampled_from([CLERK, "clerk-8", SYSTEM]),
        st.integers(1, 70),
    ),
    max_size=12,
)


@settings(max_examples=15, deadline=None)
@given(ACTS)
def test_a_restart_between_any_two_entries_changes_nothing_and_memory_is_bounded(acts: Any) -> None:
    """Put away as JSON after each entry and taken back, the watch finds the same; nothing grows beyond the rules."""
    whole, at, number = Watch(RULES), NOON, 0
    stored: dict[tuple[str, str], str] = {}
    for seconds, subject, code, operator, times in acts:
        for _ in range(times):
            at += timedelta(seconds=seconds / times)
            one = entry(number, operator=operator, subject=subject + number % 31, code=code)
            fresh = Watch(RULES)
            for who, document in stored.items():
                fresh.remember(who, json.loads(document))
            assert fresh.feed(number, at, one) == whole.feed(number, at, one)
            assert fresh.changed == {(CONSUMER, operator)}
            stored |= {who: json.dumps(fresh.remembered(who)) for who in fresh.changed}
            number += 1
    for document in stored.values():
        kept = {rule: len(seen) for rule, (_, seen) in json.loads(document).items()}
        assert all(kept.get(rule.id, 0) <= getattr(rule, "times", 1) for rule in RULES.rules)


def test_all_but_the_latest_operators_leave_the_memory() -> None:
    watch = Watch(RULES)
    for n in range(100):
        watch.feed(n, NOON, entry(n, operator=f"clerk-{n}"))
    watch.put_away(10)
    assert [n for n in range(100) if watch.knows((CONSUMER, f"clerk-{n}"))] == list(range(90, 100))
    assert watch.changed == set()


def test_the_demo_s_systems_are_systems() -> None:
    for department in DEPARTMENTS:
        rules = RULES.about(department.uscc, department.wanted.operator)
        assert [rule.id for rule in rules] == ["refusals-of-a-system", "dormant"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("times = 60 ", "times = 0 "),
        ("times = 60 ", "times = 1001 "),
        ("times = 60 ", "time = 60 "),
        ('kind = "BURST"', 'kind = "BURSTS"'),
        ('severity = "NOTICE"', 'severity = "notice"'),
        ("opens = 07:30:00", 'opens = "morning"'),
        ('id = "refusals"', 'id = "burst"'),
        ('"NOT_ADMITTED"', '"NOT_A_CODE"'),
        ("[[rules]]", "[[rules"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(old: str, new: str) -> None:
    assert old in SHIPPED
    with pytest.raises(Malformed, match="CONFIG_INVALID: supervision rules"):
        Rules.parse(SHIPPED.replace(old, new, 1))
