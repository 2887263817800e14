"""`deptbus demo`, as a newcomer runs it: every figure as expected, and nothing readable left lying about."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bus import audit
from bus.kafka import everything
from deploy.commands.demo import show
from deploy.home import Home
from schemas.catalogue import Catalogue

ROOT = Path(__file__).parents[2]
EXPORT = ROOT / "deploy" / "demo" / "market-licences.csv"
DEMO_SECONDS = 300
KEYS = {
    "lines", "published", "quarantined", "quarantined_by_reason", "duplicates", "changes", "certificates", "opened",
    "refused", "audit_entries", "releases_without_audit", "lost", "duplicated", "supervision_findings", "latency_ms",
    "latency_ms_paced", "seconds",
}  # fmt: skip


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, dict[str, Any]]]:
    """The demo, its bus left up."""
    home, report = Home(tmp_path_factory.mktemp("demo") / "home"), tmp_path_factory.mktemp("report") / "demo.json"
    try:
        done = _deptbus(home, "demo", "--keep", "--json", "--report", report)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        assert json.loads(done.stdout) == json.loads(report.read_text("utf-8"))
        yield home, json.loads(done.stdout)
    finally:
        _deptbus(home, "down")


def test_every_figure_is_as_expected(demo: tuple[Home, dict[str, Any]]) -> None:
    """What the demo itself compares, said once more here without its own arithmetic."""
    _, found = demo
    assert found.keys() >= KEYS
    assert (found["lines"], found["published"], found["quarantined"], found["duplicates"]) == (2000, 1916, 64, 20)
    assert found["certificates"] == {"tax": 1901, "human-resources": 1901, "public-security": 1901, "bank": 1521}
    assert found["refused"] == {"CONSENT_NONE": 381, "CONSENT_WITHDRAWN": 100}
    assert (found["releases_without_audit"], found["lost"], found["duplicated"]) == (0, 0, 0)
    assert found["supervision_findings"] == 0  # systems at work, whatever the hour
    assert all(found[name][p] > 0 for name in ("latency_ms", "latency_ms_paced") for p in ("p50", "p99"))


def test_people_see_tables_of_it(demo: tuple[Home, dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    """What `deptbus demo` shows without `--json`: each figure, and who opened one firm's data."""
    home, found = demo
    done = _deptbus(home, "audit", "query", "--as", "auditor", "--kind", "Decision", "--limit", "5", "--json")
    entries = json.loads(done.stdout)["entries"]
    show({**found, "story": {"firm": "one firm", "entries": entries}})
    said = capsys.readouterr().out
    assert "Who opened the data of one firm" in said
    assert all(str(found[name]) in said for name in ("lines", "published", "audit_entries"))
    assert {entry["body"]["operator"] for entry in entries} <= set(re.findall(r"[\w-]+", said))


def test_the_engines_say_the_same(demo: tuple[Home, dict[str, Any]]) -> None:
    """`deptbus check` and `deptbus topics check` on what the demo left."""
    home, found = demo
    done = _deptbus(home, "check", "--json")
    assert done.returncode == 0, done.stdout
    counted = json.loads(done.stdout)
    assert counted["records"] == found["published"] + sum(found["certificates"].values())
    done = _deptbus(home, "topics", "check", "--json")
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["topics"] == []


async def test_no_id_and_no_content_is_readable_on_the_bus(demo: tuple[Home, dict[str, Any]]) -> None:
    """Not in a log, not in a metric, not on a topic, not in the trail: credit codes, names, scopes of the export."""
    home, _ = demo
    words = _words()
    stack = home.stack()
    for log in home.logs.iterdir():
        assert not _found(words, log.read_bytes()), log.name
    for url in stack.metrics.values():
        assert not _found(words, httpx.get(url, trust_env=False).content), url
    topics = [*(item.topic for item in Catalogue.load().items.values()), audit.TOPIC, "bus.sessions", "consent.records"]
    async for message in everything(stack.administrator, topics):
        assert not _found(words, (message.key or b"") + message.value), (message.topic, message.offset)


async def test_no_field_of_any_entry_names_a_person(demo: tuple[Home, dict[str, Any]]) -> None:
    """Every text of every entry: no cell of the export, no citizen number, no credit code but the departments'."""
    home, _ = demo
    stack = home.stack()
    departments = set(home.names()) | {home.load_bus().operator}
    with EXPORT.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file))  # damaged lines, too, cell by cell
    cells = {cell.strip() for row in rows for cell in row if len(cell.strip()) > 2}
    kinds: Counter[str] = Counter()
    async for message in everything(stack.administrator, [audit.TOPIC]):
        entry = audit.parse(message.value)[0]
        kinds[entry.kind] += 1
        for field, text in _texts(entry.body):
            assert text not in cells, (entry.kind, field)
            codes = set(re.findall(r"(?<![0-9A-Za-z])(?:\d{17}[\dXx]|[0-9A-Z]{18})(?![0-9A-Za-z])", text))
            assert codes <= departments, (entry.kind, field)
    assert kinds["Decision"] > 7_000
    assert {"Admitted", "Revision", "Reading"} <= kinds.keys()


def _texts(value: Any, field: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a body, and what is text among its bytes, with its field's name."""
    match value:
        case str():
            yield field, value
        case bytes():
            yield field, value.decode("utf-8", "ignore")
        case dict():
            for name, inner in value.items():
                yield from _texts(inner, f"{field}.{name}")
        case list() | tuple():
            for inner in value:
                yield from _texts(inner, field)


def test_one_trace_leads_from_the_publisher_to_the_trail(demo: tuple[Home, dict[str, Any]]) -> None:
    """The record's own id stands in the log lines of recorder, gateway and department."""
    home, _ = demo
    lines = (home.logs / "bank.log").read_text("utf-8").splitlines()
    handed = next(line for line in map(json.loads, lines) if line["event"] == "handed_over")
    for name, event in (("recorder", "admitted"), ("gateway", "released")):
        said = [json.loads(line) for line in (home.logs / f"{name}.log").read_text("utf-8").splitlines()]
        assert any(handed["traces"][0] in line["traces"] for line in said if line["event"] == event), name


def _words() -> re.Pattern[bytes]:
    """Every tenth firm's credit code, name and scope."""
    with EXPORT.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))[::10]
    cells = {row[column] for row in rows for column in ("统一社会信用代码", "企业名称", "经营范围") if row[column]}
    return re.compile(b"|".join(re.escape(cell.encode()) for cell in cells if len(cell) > 4))


def _found(words: re.Pattern[bytes], data: bytes) -> bytes | None:
    match = words.search(data)
    return match and match[0]


def _deptbus(home: Home, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploy.cli", *map(str, arguments), "--home", str(home.path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEMO_SECONDS,
        check=False,
    )
