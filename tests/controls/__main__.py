"""`make controls`: nothing stands there for show. Takes out one control after the other; a test must notice.

First the rules of decisions, each by the cases in tests/policy; then the controls of bus/THREATS.md, each in a copy of
the tree by the test that its row names. That test passes with the control and fails, not merely breaks, without it.
Writes build/controls.json; exits 1 if a control could be taken out unnoticed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from deploy.output import err
from tests.controls.copying import copied
from tests.controls.threats import DOCUMENT, Threat, load, patched, with_table
from tests.policy.controls import rules_taken_out
from tests.report import write_report

TEST_SECONDS = 300.0  # a test with a stack of its own, on a busy machine
ALL_SECONDS = 1_800.0
AT_ONCE = 2


def main() -> int:
    """The two parts, the file, the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="only make the table in bus/THREATS.md anew")
    parser.add_argument("--only", nargs="*", help="ids of threats; all if none is given")
    arguments = parser.parse_args()
    threats = [one for one in load() if not arguments.only or one.id in arguments.only]
    if arguments.write:
        DOCUMENT.write_text(with_table(DOCUMENT.read_text("utf-8"), load()), "utf-8")
        return 0
    begun = time.monotonic()
    rules, cases = rules_taken_out()
    with copied() as tree:
        held, said = _test(tree, list(dict.fromkeys(one.test for one in threats)), ALL_SECONDS)
    if held:
        err.print(said[-4_000:], markup=False)
        err.print("a test fails with all controls in place: nothing can be said of them")
        return 1
    with ThreadPoolExecutor(AT_ONCE) as pool:
        rows = list(pool.map(_row, threats))
    unnoticed = [name for name, failing in rules.items() if not failing]
    unnoticed += [row["id"] for row in rows if not row["noticed"]]
    write_report(
        "controls",
        seconds=time.monotonic() - begun,
        cases=cases,
        rules={name: dict(failing) for name, failing in rules.items()},
        threats=rows,
        unnoticed=unnoticed,
    )
    counts = Counter("noticed" if row["noticed"] else "NOT NOTICED" for row in rows)
    err.print(f"{len(rules)} rules, {len(rows)} controls taken out: {dict(counts)}; not noticed: {unnoticed or 'none'}")
    return 1 if unnoticed else 0


def _row(threat: Threat) -> dict[str, Any]:
    """What its test says without the control."""
    begun = time.monotonic()
    with copied() as tree:
        for patch in threat.patches:
            file = tree / patch.file
            file.write_text(patched(file.read_text("utf-8"), patch), "utf-8")
        status, said = _test(tree, [threat.test], TEST_SECONDS)
    noticed = status == 1 and "\nFAILED " in said  # not: could not be collected, or its stack did not start
    err.print(f"{threat.id}: {'noticed' if noticed else 'NOT NOTICED'} ({time.monotonic() - begun:.0f} s)")
    row = {"id": threat.id, "test": threat.test, "noticed": noticed, "seconds": round(time.monotonic() - begun, 1)}
    return row if noticed else row | {"said": said[-2_000:]}


def _test(tree: Path, nodes: Sequence[str], seconds: float) -> tuple[int, str]:
    """pytest's exit status on nodes of the copy, and what it said; -1 if it did not end in time."""
    command = [sys.executable, "-m", "pytest", "-q", "-rf", "--tb=short", *nodes]
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("DEPTBUS_TEST_HOME", None)
    try:
        done = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired as exc:
        return -1, f"{nodes} did not end within {exc.timeout} s"
    return done.returncode, done.stdout + done.stderr


if __name__ == "__main__":
    sys.exit(main())
