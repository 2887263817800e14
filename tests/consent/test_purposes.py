"""The purpose tree: what a broader purpose allows holds for its narrower ones, never the other way round."""

from __future__ import annotations

import csv
from graphlib import CycleError, TopologicalSorter
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consent.purposes import PURPOSES, TREE, ancestors, covers, parse
from schemas.errors import Code, Malformed

ALLOWED = st.frozensets(st.sampled_from(sorted(TREE)))
ONE = st.sampled_from(sorted(TREE))
# The purposes of the Data Privacy Vocabulary 2.3 (W3C DPVCG, dpv/modules/purposes.csv; W3C Software and Document
# License), each with those that are directly broader.
DPV = {
    row["term"]: row["broader"].split()
    for row in csv.DictReader((Path(__file__).with_name("dpv-purposes.csv")).read_text("utf-8").splitlines())
}


def toml(broader: dict[str, str | None]) -> str:
    """A file of purposes with these parents."""
    parts = []
    for one, parent in broader.items():
        lies = f'broader = "{parent}"\n' if parent else ""
        parts.append(
            f'[[purposes]]\nid = "{one}"\nzh = "{one}"\nen = "{one}"\n{lies}'
            'dpv = "https://w3id.org/dpv#Purpose"\nmatch = "broad"\n'
        )
    return "\n".join(parts)


def test_the_tree_is_an_order() -> None:
    """Of all pairs and triples: reflexive, transitive, and narrower never covers broader."""
    inside = {(a, b): covers(frozenset({a}), b) for a, b in product(TREE, TREE)}
    assert all(inside[one, one] for one in TREE)
    for a, b, c in product(TREE, TREE, TREE):
        assert inside[a, c] or not (inside[a, b] and inside[b, c])
    assert [(a, b) for a, b in product(TREE, TREE) if a != b and inside[a, b] and inside[b, a]] == []
    for one, purpose in TREE.items():
        assert ancestors(one)[0] == one
        assert TREE[ancestors(one)[-1]].broader is None
        assert purpose.broader is None or ancestors(one)[1:] == ancestors(purpose.broader)


@pytest.mark.parametrize(
    ("broader", "narrower", "inside"),
    [
        ("business-establishment", "tax-registration", True),
        ("government-service", "tax-registration", True),
        ("government-service", "food-business-permit", True),
        ("policy-benefits", "subsidy-matching", True),
        ("supervision", "random-inspection", True),
        ("business-establishment", "account-opening", False),  # a contract with a bank
        ("account-opening", "credit-assessment", False),
        ("government-service", "supervision", False),  # nobody applied for it
        ("government-service", "statistics", False),
        ("supervision", "statistics", False),
        ("statistics", "supervision", False),  # 统计法 art. 28
        ("business-establishment", "food-business-permit", False),
        ("seal-registration", "tax-registration", False),
    ],
)
def test_what_a_lawyer_would_say(broader: str, narrower: str, inside: bool) -> None:
    """Inside only what is always a case of the broader one."""
    assert covers(frozenset({broader}), narrower) is inside


@given(ALLOWED, ALLOWED, ONE)
def test_more_allowed_covers_no_less(some: frozenset[str], more: frozenset[str], purpose: str) -> None:
    """A set covers what its members cover, each for itself."""
    assert covers(some, purpose) is any(covers(frozenset({one}), purpose) for one in some)
    assert covers(some | more, purpose) is (covers(some, purpose) or covers(more, purpose))


@given(ALLOWED, st.text())
def test_an_unknown_purpose_is_covered_by_itself_alone(allowed: frozenset[str], purpose: str) -> None:
    """Whatever else is allowed."""
    if purpose not in TREE:
        assert ancestors(purpose) == ()
        assert not covers(allowed, purpose)
        assert covers(allowed | {purpose}, purpose)


@given(st.dictionaries(st.sampled_from("abcdef"), st.sampled_from([None, *"abcdef"])))
def test_no_circle_and_nothing_missing(broader: dict[str, str | None]) -> None:
    """A file is read if and only if the standard library can sort it and every parent is in it."""
    try:
        TopologicalSorter({one: [parent] if parent else [] for one, parent in broader.items()}).prepare()
        sound = all(parent is None or parent in broader for parent in broader.values())
    except CycleError:
        sound = False
    if sound:
        assert {one.id: one.broader for one in parse("purposes = []\n" if not broader else toml(broader)).values()} == (
            broader
        )
    else:
        with pytest.raises(Malformed) as refused:
            parse(toml(broader))
        assert refused.value.code is Code.CONFIG_INVALID


@pytest.mark.parametrize(
    "text",
    [
        "",
        "purposes = 1",
        toml({"a": None}) + toml({"a": None}),
        toml({"a": None}).replace("broad", "narrow"),
        toml({"a": None}).replace("zh = ", "name = "),
        toml({"a": None}) + "extra = 1",
        toml({"A": None}),
        toml({"a": None}).replace("https://w3id.org/dpv#", "dpv:"),
        toml({"a": None}).replace('zh = "a"', 'zh = ""'),
        "[[purposes]",
    ],
)
def test_a_file_that_is_not_understood_is_refused(text: str) -> None:
    """As a whole: nothing of it is taken."""
    with pytest.raises(Malformed) as refused:
        parse(text)
    assert refused.value.code is Code.CONFIG_INVALID


def wider(term: str) -> set[str]:
    """A DPV term and all that are broader."""
    found, left = set(), [term]
    while left:
        found.add(at := left.pop())
        left += [one for one in DPV.get(at, ()) if one not in found]
    return found


def test_dpv_terms_are_in_the_vocabulary_and_never_against_the_tree() -> None:
    """A narrower purpose has no term that DPV says is wider than its broader one's."""
    for one in TREE.values():
        term = one.dpv.rpartition("#")[2]
        assert term in DPV
        for above in ancestors(one.id)[1:]:
            other = TREE[above].dpv.rpartition("#")[2]
            assert term == other or term not in wider(other)


def test_names_are_told_apart() -> None:
    """A clerk picks by the Chinese name."""
    assert len(set(PURPOSES.values())) == len(PURPOSES) == len(TREE)
    assert len({one.en for one in TREE.values()}) == len(TREE)
