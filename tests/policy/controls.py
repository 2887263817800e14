"""Every rule is held by a case. Takes out one rule after the other: a case must notice (`make controls`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from consent.cases import Case
from consent.rules import RULES, Rules
from deploy.commands.policy import cases_of, files
from deploy.output import table
from schemas.catalogue import Catalogue
from schemas.errors import Code

HERE = Path(__file__).parent


def all_cases() -> list[tuple[Path, Case]]:
    """The project's own, with their files."""
    catalogue = Catalogue.load()
    return [(file, case) for file in files([HERE]) for case in cases_of(file, catalogue)]


def controls(cases: Sequence[Case]) -> Mapping[str, list[tuple[str, str]]]:
    """For each rule the cases that fail without it, and how: a wrong permit, another code, or a crash."""
    return {rule.name: _failing(cases, RULES.without(rule.name)) for rule in RULES}


def _failing(cases: Sequence[Case], rules: Rules) -> list[tuple[str, str]]:
    found = []
    for case in cases:
        try:
            wrong = case.differences(rules)
        except (AssertionError, AttributeError) as exc:  # what the rule kept from happening
            found.append((case.name, type(exc).__name__))
            continue
        if wrong:
            got = {one.got for one in wrong if one.section in case.expect}
            how = Code.PERMIT if Code.PERMIT in got else min(got, default="other documents")
            found.append((case.name, str(how)))
    return found


def rules_taken_out() -> tuple[Mapping[str, list[tuple[str, str]]], int]:
    """What the cases notice, shown as a table; and how many cases there are."""
    cases = [case for _, case in all_cases()]
    found = controls(cases)
    table(
        f"{len(found)} rules, each taken out: what {len(cases)} cases notice",
        ("rule", "cases that fail", "how", "one of them"),
        [
            (name, len(failing), ", ".join(sorted({how for _, how in failing})), failing[0][0] if failing else "NONE")
            for name, failing in found.items()
        ],
    )
    return found, len(cases)
