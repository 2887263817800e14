"""The project's own cases hold, name their article or rule, and miss no rule; a malformed file is refused."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from consent.cases import Case, parse
from consent.decide import decide
from consent.law import LEGAL_GROUNDS, NOTICES
from consent.rules import BY_NAME, RULES
from consent.ruleset import RuleSet
from deploy.cli import app
from deploy.commands.policy import cases_of
from deploy.yamlfile import MAX_FILE_BYTES
from schemas.catalogue import Catalogue
from schemas.errors import Code, Misuse
from tests.policy.controls import HERE, all_cases, controls

CATALOGUE = Catalogue.load()
CASES = all_cases()
EACH = pytest.mark.parametrize("case", [case for _, case in CASES], ids=[f"{f.stem}: {c.name}" for f, c in CASES])
ARTICLE = re.compile(r"第[一二三四五六七八九十百]+条")
SOUND = """
parties: {market: {zh: 市场监管, uscc: 11330411MB2A00011E}, tax: {zh: 税务, uscc: 1132080001400001X7}}
subjects: {firm: {zh: 某公司}}
records: {licence: {item: business-licence, issuer: market, region: "330411", holders: [firm]}}
agreements:
  ours: {provider: market, consumer: tax, item: business-licence, sections: [identity], purposes: [tax-registration],
         grounds: [STATUTORY_DUTY], duties: [x]}
  other: {extends: ours, sections: [business]}
consents:
  given: {recipient: tax, purposes: [tax-registration],
          scopes: [{subject: firm, item: business-licence, sections: [identity]}]}
cases:
  - name: first
    zh: 一
    because: rule duty-named
    now: 2026-03-15
    record: licence
    with: [ours]
    ask: {consumer: tax, purpose: tax-registration, ground: STATUTORY_DUTY, citation: x, sections: [identity]}
    expect: PERMIT
  - {name: second, zh: 二, because: y, extends: first, with: [other], expect: AGREEMENT_SECTION}
"""


@EACH
def test_a_case_comes_out_as_the_lawyer_expects(case: Case) -> None:
    """Section by section."""
    assert case.differences() == ()


@EACH
def test_a_case_names_the_rule_or_the_article_that_decides_it(case: Case) -> None:
    """Of a refusal: the article that its rule has. What was not read in its text says so."""
    refusals = set(case.expect.values()) - {Code.PERMIT}
    rules = [rule for rule in RULES if rule.code in refusals or (rule.code is None and case.record.refusal in refusals)]
    if case.because.startswith("rule "):
        named = BY_NAME[case.because.removeprefix("rule ")]
        assert not refusals or named in rules
        assert named.basis == "deptbus"
        assert case.verified
        return
    law, *_ = case.because.split()
    assert case.verified is any(rule.verified for rule in RULES if rule.basis.startswith(law))
    articles = set(ARTICLE.findall(case.because))
    citations = [rule.basis for rule in rules or RULES]
    citations += [one.citation for one in (*LEGAL_GROUNDS.values(), *NOTICES.values())] if not refusals else []
    assert articles <= {one for text in citations for one in ARTICLE.findall(text)}
    assert articles or not case.verified


@EACH
def test_an_index_of_the_cases_documents_gives_the_same(case: Case) -> None:
    """`RuleSet` leaves out nothing that a permit needs. (What only looks near may be another miss.)"""
    if not all((case.facts.consumer_known, case.facts.index_fresh, case.facts.audit_current)):
        return  # the index says nothing of these
    facts = RuleSet(case.documents).facts(case.access, case.record, used_up=case.facts.used_up)
    decision = decide(case.item, case.access, case.sections, case.record, facts, case.moment)
    suspended = case.facts.consumer_suspended
    assert suspended or decision.permitted == tuple(s for s in case.sections if case.expect[s] is Code.PERMIT)


def test_taking_out_any_rule_is_noticed() -> None:
    """Each is there for something; and most let somebody in who must not."""
    found = controls([case for _, case in CASES])
    assert [name for name, failing in found.items() if not failing] == []
    by_crash = {name for name, failing in found.items() if all(how.endswith("Error") for _, how in failing)}
    assert by_crash <= {"item-known", "section-known"}  # nothing could be said without an item or a section


def test_there_are_cases_enough() -> None:
    """What a lawyer was promised: at least 70, and refusals by at least 25 codes."""
    assert len(CASES) >= 70
    assert len({code for _, case in CASES for code in case.expect.values()} - {Code.PERMIT}) >= 25


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("subjects:", "persons:", "persons: not known here"),
        ("now: 2026", "when: 2026", "case 1, when: not known here"),
        ("citation: x,", "cite: x,", "case 1 (first), ask, cite: not known here"),
        ("duties: [x]", "dutys: [x]", "agreements, ours, dutys: not known here"),
        ("uscc: 11330411MB2A00011E", "code: 1", "parties, market, code: not known here"),
        ('region: "330411"', "region: 330411", "records, licence, region: 330411 cannot be meant"),
        ("record: licence", "record: license", "case 1 (first), record: there is no 'license'"),
        ("with: [ours]", "with: [theirs]", "case 1 (first), with: there is no document 'theirs'"),
        ("with: [ours]", "with: ours", "case 1 (first), with: a list is expected"),
        ("with: [ours]", "with: [ours]\n    but: {other: {superseded: true}}", "case 1 (first), but, other: not known"),
        ("with: [ours]", "with: [ours]\n    but: {ours: {state: OPEN}}", "with, ours, state: 'OPEN' cannot be meant"),
        ("with: [ours]", "with: [ours]\n    used_up: {ours: EMPTY}", "used_up, ours: 'EMPTY' is no code"),
        ("with: [ours]", "with: [ours]\n    bus: {index_fresh: 1}", "bus, index_fresh: true or false"),
        ("with: [ours]", "with: [ours]\n    verified: yes please", "verified: true or false"),
        ("expect: PERMIT", "expect: ALLOW", "case 1 (first), expect: 'ALLOW' is no code"),
        ("expect: PERMIT", "expect: {business: PERMIT}", "case 1 (first), expect: one code"),
        ("because: rule duty-named", 'because: " "', "case 1 (first), because: a text is expected"),
        ("now: 2026-03-15", "now: today", "case 1 (first), now: a day"),
        ("now: 2026-03-15", "now: 2026-03-15T12:00:00", "now: a moment says its zone"),
        ("consumer: tax, purpose", "consumer: taxes, purpose", "ask, consumer: there is no party 'taxes'"),
        ("purpose: tax-registration", "purpose: taxes", "ask, purpose: taxes is no purpose"),
        ("purposes: [tax-registration],\n", "purposes: [taxes],\n", "ours, purposes: taxes is no purpose"),
        (
            "item: business-licence, sections",
            "item: business-license, sections",
            "ours, item: business-license is no item",
        ),
        ("holders: [firm]", "holders: [form]", "licence, holders: there is no subject 'form'"),
        ("extends: ours", "extends: mine", "other, extends: there is no 'mine'"),
        ("extends: ours", "extends: other", "other, extends: 'other' extends itself"),
        ("extends: first", "extends: third", "case 2 (second), extends: there is no case 'third'"),
        ("name: second", "name: first", "case 2 (first), name: another case has this name"),
        ("because: y, ", "", "case 2 (second), because: is missing"),
        ("with: [ours]", "with: [ours]\n    with: [other]", "is no YAML: a key comes twice"),
        ("  given:", "  ours:", "two documents have one name"),
        ("provider: market, ", "", "agreements, ours, provider: is missing"),
        ("- {name: second", "- {name: second: x", "is no YAML"),
        ("because: y", 'because: "\\uDE00"', "half a surrogate pair is no text"),
    ],
)
def test_a_file_that_cannot_be_meant_says_where(old: str, new: str, words: str, tmp_path: Path) -> None:
    """File, case and key: a typo never makes a case green."""
    assert old in SOUND
    with pytest.raises(Misuse) as refused:
        cases_of(_file(tmp_path, SOUND.replace(old, new, 1)), CATALOGUE)
    assert refused.value.code is Code.CONFIG_INVALID
    assert "cases.yaml" in refused.value.detail
    assert words in refused.value.detail


@pytest.mark.parametrize(
    "text", ["", "[]", "7", "cases: []", "cases: {}", "1: 2", "a: &a [*a]", "!!python/object:os.system {}", "\0"]
)
def test_what_is_no_file_of_cases_is_refused(text: str, tmp_path: Path) -> None:
    """Whatever YAML it is; nothing in it is run."""
    with pytest.raises(Misuse):
        cases_of(_file(tmp_path, text), CATALOGUE)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every list and mapping of a document, with each of its keys."""
    inside = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return [(value, key) for key, _ in inside] + [place for _, one in inside for place in _places(one)]


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_whatever_stands_in_a_file_it_is_read_or_refused(data: st.DataObject) -> None:
    """Any value at any place: never another error, which would name nothing."""
    document = yaml.safe_load(SOUND)
    container, key = data.draw(st.sampled_from(_places(document)))
    container[key] = data.draw(
        st.sampled_from([None, True, 7, "", "first", "ours", [], [[]], [{}], {}, {"ours": {}}, {1: 2}])
    )
    with suppress(Misuse):
        parse(document, "cases.yaml", CATALOGUE)


def test_a_file_beyond_its_bound_is_refused(tmp_path: Path) -> None:
    """Before it is parsed; one that is not there or not text is refused, too."""
    with pytest.raises(Misuse, match="divide it"):
        cases_of(_file(tmp_path, SOUND + "#" * MAX_FILE_BYTES), CATALOGUE)
    with pytest.raises(Misuse):
        cases_of(tmp_path / "nowhere.yaml", CATALOGUE)
    (tmp_path / "cases.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(Misuse):
        cases_of(tmp_path / "cases.yaml", CATALOGUE)


def test_the_command_exits_by_what_it_found(tmp_path: Path) -> None:
    """0 all as expected, 1 with what differs, 2 for a file that cannot be meant or a folder without one."""
    assert _run(HERE)[0] == 0
    file = _file(tmp_path, SOUND)
    assert _run(file) == (0, {"files": 1, "cases": 2, "failed": 0, "differences": []})
    _file(tmp_path, SOUND.replace("citation: x,", "citation: z,"))
    code, document = _run(tmp_path)
    assert code == 1
    assert document["failed"] == 1
    assert document["differences"][0] == {
        "file": str(file),
        "case": "first",
        "because": "rule duty-named",
        "section": "identity",
        "expected": "PERMIT",
        "got": "DUTY_NOT_NAMED",
        "rule": "duty-named",
        "basis": BY_NAME["duty-named"].basis,
    }
    human = CliRunner().invoke(app, ["policy", "test", str(file)])
    assert human.exit_code == 1
    _file(tmp_path, SOUND.replace("with: [ours]", "with: [ours]\n    rests_on: [other]"))
    assert [one["section"] for one in _run(tmp_path)[1]["differences"]] == ["rests_on"]
    _file(tmp_path, "cases: 1")
    assert CliRunner().invoke(app, ["policy", "test", str(file)]).exit_code == 2
    file.unlink()
    assert CliRunner().invoke(app, ["policy", "test", str(tmp_path)]).exit_code == 2


def _file(folder: Path, text: str) -> Path:
    file = folder / "cases.yaml"
    file.write_text(text, "utf-8")
    return file


def _run(path: Path) -> tuple[int, Any]:
    done = CliRunner().invoke(app, ["policy", "test", str(path), "--json"])
    return done.exit_code, json.loads(done.stdout)
