"""What a call for decisions leaves in the log fits into it, and what a permit obliges to is what its rules say."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from bus import audit
from bus.authzen import MAX_EVALUATIONS, Action, Entity, Evaluation, Kind, Search
from bus.envelope import MAX_LIST
from bus.gateway.evaluating import MAX_RULE_BYTES, Question, Verdict, _obligations, _question
from bus.messages import MAX_TEXT
from bus.pki import Role
from consent.model import (
    Access,
    Agreement,
    Consent,
    Decision,
    Mode,
    Notice,
    SectionDecision,
)
from schemas.errors import Code
from tests.consent import sound
from tests.vectors import world

WORD = "agreement:01972a4f-4c00-7abc-8def-0123456789ab@2147483647"
AGREEMENT = replace(sound.AGREEMENT, max_age=60, data_life=None, onward=frozenset())
CONSENT = replace(sound.CONSENT, data_life=90)


def test_the_longest_entry_of_a_call_fits_into_the_log() -> None:
    """As many answers as there can be, each as long as it can be, by an operator of the longest name."""
    longest = "a" * 64
    access = Access(consumer=world.CONSUMER, purpose=longest, ground="", citation="", case="", operator="证" * MAX_TEXT)
    question = Question(access=access, sections=(longest,), place=(longest, world.ISSUER, "330411"))
    code = max(Code, key=lambda code: len(code.value))
    words = " ".join(f"{WORD[:-10]}{at:010}" for at in range(MAX_LIST))
    decision = Decision(sections=(SectionDecision(longest, code, words),))
    written = [Verdict(code=code, question=question, decision=decision).written()] * MAX_EVALUATIONS
    assert MAX_RULE_BYTES - 60 < len(written[0]["rule"]) <= MAX_RULE_BYTES
    assert set(written[0]["rule"].split()) < set(words.split())  # whole words
    body = {
        "caller": world.CONSUMER,
        "api": "search/resource",
        "operator": access.operator,
        "answers": written,
        "returned": MAX_EVALUATIONS,
        "digest": bytes(32),
        "signer": bytes(32),
        "signature": bytes(64),
    }
    signer = world.signer(Role.GATEWAY, world.OPERATOR)
    (value,) = audit.log_values(signer, "bus.example/" + longest, bytes(16), [("Evaluation", body)], datetime.now(UTC))
    assert audit.parse(value)[0].body["answers"] == written


def test_obligations_are_what_the_rules_say() -> None:
    """Keys, further supply and the time data may be kept, each with its rule; a notice only where one is still due."""

    def said(*rules: Agreement | Consent) -> list[dict[str, object]]:
        decision = Decision(sections=(SectionDecision("identity", Code.PERMIT, ""),), rests_on=rules)
        obligations = list(_obligations(decision))
        assert len({one.id for one in obligations}) == len(obligations)
        assert all(one.type == "custom" for one in obligations)
        return [dict(one.properties) for one in obligations]

    keys = {"action": "discard-keys", "rule": AGREEMENT.word, "after_seconds": 60}
    onward = {"action": "keep-from-others", "rule": AGREEMENT.word, "but_for": []}
    assert said(AGREEMENT) == [keys, onward]
    assert said(AGREEMENT, CONSENT) == [
        keys,
        onward,
        {"action": "delete-data", "rule": CONSENT.word, "after_days": 90},
    ]
    other = replace(AGREEMENT, onward=frozenset({world.ISSUER}), notice=Notice.LATER_EMERGENCY, data_life=30)
    assert said(other) == [
        keys,
        onward | {"but_for": [world.ISSUER]},
        {"action": "tell-the-subject", "rule": other.word, "once": "the emergency is over"},
        {"action": "delete-data", "rule": other.word, "after_days": 30},
    ]


@pytest.mark.parametrize(
    ("context", "mode"), [({}, Mode.STREAM), ({"mode": "QUERY"}, Mode.QUERY), ({"mode": "STREAM"}, Mode.STREAM)]
)
def test_a_question_is_asked_as_of_a_stream_unless_it_says_otherwise(context: dict[str, str], mode: Mode) -> None:
    """As by `POST /v1/keys`: what is permitted here is not refused there."""
    resource = Entity(type="record", id="0a" * 32, properties={"sections": ["identity", "identity", "business"]})
    evaluation = Evaluation(
        subject=Entity(type="department", id=world.CONSUMER),
        action=Action(name="tax-registration"),
        resource=resource,
        context={"operator": "clerk-7", "agent": "", **context},
    )
    question = _question(evaluation)
    assert (question.access.mode, question.access.agent) == (mode, None)
    assert (question.record, question.sections) == (bytes([10]) * 32, ("identity", "business"))
    searched = Search(kind=Kind.RESOURCE, evaluation=evaluation, digest=b"").candidate("0b" * 32)
    assert _question(searched).resource == "0b" * 32
