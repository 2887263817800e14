"""An explanation is the decision, told to the end: same codes, same documents; and sentences that a clerk can read."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from string import Formatter
from uuid import UUID

import pytest
from hypothesis import given, settings

from consent.explain import Explanation, Names, explain, said
from consent.model import Access, Agreement, Consent, Mandate, Power, RecordFacts, Scope
from consent.rules import RULES
from schemas.catalogue import Section
from schemas.errors import Code
from tests.consent.sound import (
    AGREEMENT,
    BY_DUTY,
    CONSUMER,
    FACTS,
    PLAIN,
    PROVIDER,
    SEALS,
    SECTIONS,
    STATISTICS,
    Case,
    by_window,
    with_access,
    with_agreement,
    with_consent,
    with_facts,
)
from tests.consent.test_decide import TABLE
from tests.consent.test_laws import CASES

NAMES = Names(departments={CONSUMER: "税务局", PROVIDER: "市场监督管理局"})


def explained(case: Case) -> Explanation:
    return explain(case.item, case.access, case.sections, case.record, case.facts, case.now, names=NAMES)


@settings(max_examples=300, deadline=None)
@given(CASES)
def test_what_is_explained_is_what_is_decided(case: Case) -> None:
    """Codes, words and what the permits rest on; a refusal always has its miss, a permit never."""
    found = explained(case)
    assert found.decision == case.decide()
    for one in found.sections:
        assert (one.miss is None) == (one.code is Code.PERMIT)
        assert one.miss is None or (one.miss.en and one.miss.zh)


@pytest.mark.parametrize(("code", "why", "case"), TABLE, ids=[f"{code}: {why}" for code, why, _ in TABLE])
def test_each_refusal_is_told_in_whole_sentences(code: Code, why: str, case: Case) -> None:
    """Filled to the last field, the rule's own code, and never a pseudonym."""
    for one in explained(case).sections:
        assert one.code is code
        assert one.miss is not None
        for sentence in (one.miss.en, one.miss.zh):
            assert sentence, why
            assert not re.search(r"[{}]|frozenset|None|<|[0-9a-f]{32}", sentence), sentence


def test_a_clerk_reads_names_and_every_rule_of_the_nearest_candidate() -> None:
    """The rule that was broken, what would have been right, and what else would not have been."""
    case = with_agreement(purposes=frozenset({SEALS, STATISTICS}), sections=frozenset({"other"}))
    (one,) = explained(case).sections
    assert one.miss is not None
    assert one.miss.rule.name == "agreement-purpose"
    assert "印章刻制备案（seal-registration）、" in one.miss.zh
    assert "不含 税务登记（tax-registration）" in one.miss.zh
    assert "not tax-registration (税务登记)" in one.miss.en
    broken = [check.rule.name for check in one.decided.checks if not check.kept]
    assert broken == ["agreement-purpose", "agreement-section"]
    assert {check.rule.name for check in one.decided.checks} >= {rule.name for rule in RULES.agreement}
    (none,) = explained(with_facts(agreements=())).sections
    assert none.miss is not None
    assert none.miss.zh.startswith(f"税务局（{CONSUMER}） 与 市场监督管理局（{PROVIDER}） 之间没有")


def test_several_candidates_are_all_told() -> None:
    """The nearest one decides; on demand the others are shown beside it."""
    far = replace(AGREEMENT, regions=frozenset({"35"}))
    near = replace(AGREEMENT, id=UUID(int=77), duties=frozenset())
    case = Case(access=BY_DUTY, sections=(PLAIN,), facts=replace(FACTS, agreements=(far, near), consents=()))
    (one,) = explained(case).sections
    assert one.miss is not None
    assert one.miss.rule.name == "duty-named"
    assert [candidate.basis for candidate in one.others] == [(far,)]
    assert len(one.to_json(checks=True)["candidates"]) == 2
    assert one.to_json(checks=False)["candidates"] == []


def test_values_that_are_not_there_say_so() -> None:
    assert said("valid_until", None, zh=True) == "无期限"
    assert said("regions", frozenset(), zh=False) == "everywhere"
    assert said("regions", frozenset({"3304"}), zh=True) == "嘉兴市（3304）"
    assert said("grounds", frozenset({"CONSENT"}), zh=False).startswith("CONSENT (")
    assert said("duties", frozenset(), zh=True) == "无"


def test_templates_name_fields_of_the_question_only() -> None:
    """What a sentence may read is closed: a field of a document or of the request, never further into it."""
    kinds = {
        "access": Access,
        "record": RecordFacts,
        "agreement": Agreement,
        "power": Power,
        "mandate": Mandate,
        "consent": Consent,
        "scope": Scope,
        "section": Section,
    }
    for rule in RULES:
        for template in (rule.en, rule.zh):
            for _, name, spec, conversion in Formatter().parse(template):
                if name is None or name == "name":
                    continue
                of, _, what = name.partition(".")
                assert what in {one.name for one in fields(kinds[of])}, (rule.name, name)
                assert not spec
                assert conversion is None
                assert what not in {"subject", "subjects", "holders"}, (rule.name, name)


@pytest.mark.parametrize(
    "case", [Case(sections=tuple(SECTIONS)), by_window(), with_access(agent="agent-8"), with_consent()]
)
def test_the_json_has_one_shape(case: Case) -> None:
    for one in explained(case).to_json(checks=True):
        assert set(one) == {"section", "code", "rests_on", "miss", "candidates"}
        assert bool(one["rests_on"]) == (one["code"] == "PERMIT") == (one["miss"] is None)
