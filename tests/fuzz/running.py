"""schemathesis against a running gateway: all checks, requests signed, in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bus.gateway.openapi import PATH
from tests.fuzz.known import Known
from tests.report import ROOT

CONFIG = Path(__file__).with_name("schemathesis.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What came of it: `report` is schemathesis's own JSON, `output` what it said to people.

    `answered` are the statuses that well-formed requests of each operation got, and how often.
    """

    exit_code: int
    report: dict[str, Any]
    output: str
    answered: dict[str, dict[str, int]]


async def fuzz(gateway: str, tls_authority: Path, known: Known, folder: Path, *, seed: int, options: list[str]) -> Run:
    """Runs to its end. `options` bound it (`--max-examples`, `--max-time`)."""
    file, report, answered = folder / "known.json", folder / "report.json", folder / "answered.json"
    known.save(file)
    environment = os.environ | {"DEPTBUS_FUZZ": str(file), "SCHEMATHESIS_HOOKS": "tests.fuzz.hooks"}
    arguments = [
        *("--config-file", str(CONFIG), "run", gateway + PATH, "--checks", "all", "--seed", str(seed)),
        *("--tls-verify", str(tls_authority)),
        *("--report-json-path", str(report), "--generation-database", "none", "--no-color", *options),
    ]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", *arguments),
        cwd=folder,  # it keeps a cache where it is
        env=environment | {"PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return Run(
        exit_code=process.returncode,
        report=json.loads(report.read_text("utf-8")) if report.exists() else {},
        output=output.decode(errors="replace"),
        answered=json.loads(answered.read_text("utf-8")) if answered.exists() else {},
    )
