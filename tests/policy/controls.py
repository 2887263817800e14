"""`make controls`: every rule is held by a case. Takes out one rule after the other: a case must notice.

Writes build/controls.json; exits 1 if a rule could be taken out unnoticed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from consent.cases import Case
from consent.rules import RULES, Rules
from deploy.commands.policy import cases_of, files
from deploy.output import table
from schemas.catalogue import Catalogue
from schemas.errors import Code

HERE = Path(__file__).parent
OUT = HERE.parents[1] / "build" / "controls.json"


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


def main() -> int:
    """The table, the file, the exit code."""
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
    document = {"cases": len(cases), "rules": {name: dict(failing) for name, failing in found.items()}}
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", "utf-8")
    return 0 if all(found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
