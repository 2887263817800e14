"""`python -m tests.attacks`: the matrix as a table and as build/attacks.json. With `--run`, all tests that it names."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import asdict

from deploy.output import table
from tests.attacks.matrix import load
from tests.report import ROOT, write_report


def main() -> int:
    """The table, the file, the exit code of the tests."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", action="store_true", help="run the tests that the matrix names, first")
    arguments = parser.parse_args()
    attacks, begun, status = load(), time.monotonic(), None
    if arguments.run:
        vectors = "tests/bus/test_vectors.py::test_vector"
        nodes = dict.fromkeys([node for one in attacks for node in one.tests] + [vectors])
        status = subprocess.run([sys.executable, "-m", "pytest", "-q", *nodes], cwd=ROOT, check=False).returncode
    for group in dict.fromkeys(one.group for one in attacks):
        rows = [
            (one.attack, ", ".join(one.codes) or one.outcome, one.where, "\n".join((*one.tests, *one.vectors[:2])))
            for one in attacks
            if one.group == group
        ]
        table(group, ("attack", "refused with", "where", "tried by"), rows)
    write_report(
        "attacks",
        seconds=time.monotonic() - begun,
        exit_status=status,
        attacks=[asdict(one) for one in attacks],
    )
    return status or 0


if __name__ == "__main__":
    sys.exit(main())
