"""`deptbus demo`: the main job, at a glance."""

from __future__ import annotations

import json as json_
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from bus.pki import write_private
from deploy.commands.stack import start_detached
from deploy.commands.trail import COLUMNS, row
from deploy.demo import run
from deploy.demo.departments import DEPARTMENTS, MARKET
from deploy.home import Home, HomeOption
from deploy.output import Json, command, emit, err, out, table
from deploy.report import commit, machine
from deploy.stack.supervisor import stop_running
from schemas.errors import Code, Refused

_ZH = {d.name: f"{d.name} {d.zh}" for d in DEPARTMENTS} | {MARKET.name: f"{MARKET.name} {MARKET.zh}"}
_NAMES = {d.uscc: _ZH[d.name] for d in (*DEPARTMENTS, MARKET)}


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @command(app)
    async def demo(
        home: HomeOption = None,
        keep: Annotated[bool, typer.Option("--keep", help="Leave the bus up afterwards.")] = False,
        report: Annotated[Path, typer.Option(help="Where the figures go.")] = Path("build/demo.json"),
        json: Json = False,
    ) -> None:
        """Run the main job: an export of 2,000 lines, four departments, consents, withdrawals, and the auditor."""
        started = time.monotonic()
        where = Home((home or Home.find().path / "demo").absolute())
        await stop_running(where)
        where = run.fresh(where.path)
        with Progress(
            SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=err, disable=json
        ) as progress:
            step = progress.add_task("Starting the bus (the first time fetches Kafka, about 20 s)")
            stack = await start_detached(where, quiet=True)
            try:
                found = await run.demo(where, stack, lambda text: progress.update(step, description=text))
            finally:
                if not keep:
                    progress.update(step, description="Stopping the bus")
                    await stop_running(where)
        found["seconds_with_start"] = round(time.monotonic() - started, 1)
        wrong = run.differences(found, run.sample()[1])
        figures = {name: value for name, value in found.items() if name not in ("outcomes", "story")}
        document = {"commit": commit(), "machine": machine(), "seed": None, **figures}
        report.parent.mkdir(parents=True, exist_ok=True)
        write_private(report, (json_.dumps(document, ensure_ascii=False, indent=2) + "\n").encode())
        emit(document, as_json=json, human=lambda: show(found))
        if keep and not json:
            err.print(f"The bus is still up: export DEPTBUS_HOME={where.path}")
        if wrong:
            raise Refused(Code.VALUE_INVALID, f"{len(wrong)} figures are not as expected: " + "; ".join(wrong[:10]))
        if not json:
            out.print(f"[bold green]Every figure is as expected.[/] Figures: {report}")


def show(found: dict[str, Any]) -> None:
    """The figures of a demo as tables."""
    table(
        "The export of market regulation (市场监管)",
        ("lines", "published", "changes", "duplicates", "quarantined"),
        [[found[name] for name in ("lines", "published", "changes", "duplicates", "quarantined")]],
    )
    table(
        "Quarantined, by reason",
        ("reason", "lines"),
        sorted(found["quarantined_by_reason"].items(), key=lambda item: -item[1]),
    )
    table(
        "What each department opened and issued",
        ("department", "opened", "certificates"),
        [[_ZH[d.name], found["opened"].get(d.name, 0), found["certificates"].get(d.name, 0)] for d in DEPARTMENTS],
    )
    table("Refused to the bank (银行)", ("code", "times"), list(found["refused"].items()))
    table(
        f"Who opened the data of {found['story']['firm']}",
        COLUMNS,
        [row(entry, _NAMES) for entry in found["story"]["entries"]],
    )
    full, paced = found["latency_ms"], found["latency_ms_paced"]
    table(
        "From a licence to the last certificate of its firm",
        ("", "p50", "p99"),
        [
            ["at full feed", f"{full['p50']} ms", f"{full['p99']} ms"],
            ["at 20 firms a second", f"{paced['p50']} ms", f"{paced['p99']} ms"],
        ],
    )
    table(
        "Counted again from Kafka and PostgreSQL",
        ("audit entries", "lost", "twice", "opened without an entry", "findings of supervision"),
        [
            [
                found[name]
                for name in ("audit_entries", "lost", "duplicated", "releases_without_audit", "supervision_findings")
            ]
        ],
    )
