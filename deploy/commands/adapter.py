"""`deptbus adapter`: a department's export fed to the bus, or records of the bus received into its table."""

from __future__ import annotations

import asyncio
import json as json_
import os
import signal
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from adapters import config, receiving
from adapters.config import Department
from adapters.exports import Exports
from adapters.feed import Feed, Result, plan
from adapters.receiving import Receiving
from adapters.sink import PostgresSink
from bus.outbox import Outbox
from bus.publisher import Publisher
from bus.subscriber import Opened, Subscriber
from deploy.home import Home, HomeOption
from deploy.output import command, emit, err, facts
from schemas.catalogue import Catalogue
from schemas.errors import Code, Misuse

SINK_DSN = "DEPTBUS_SINK_DSN"
_POLL_SECONDS = 2.0  # how soon a new or changed file is seen
MAX_FILES = 10_000  # of a watched folder: more are an archive, not an inbox

Declaration = Annotated[str, typer.Argument(help="A department's .toml, or the name of one that comes with deptbus.")]
Input = Annotated[
    Path | None, typer.Option("--input", help="The export, or a folder of them (default: the file's source.path).")
]
Report = Annotated[Path | None, typer.Option("--json", help="Write the result there as JSON; '-' is stdout.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    adapter = typer.Typer(
        help="A department's own system joins: feed its export, fill its table.", no_args_is_help=True
    )
    app.add_typer(adapter, name="adapter")

    @command(adapter)
    def check(declaration: Declaration, input_: Input = None, report: Report = None) -> None:
        """Say what a feed into an empty bus would do. Publishes nothing, needs no stack."""
        catalogue = Catalogue.load()
        department = config.load(_path(declaration), catalogue)
        export = _export(department, input_)
        result, _ = plan(export, department, catalogue)
        _show(export, result, report)

    @command(adapter)
    async def run(
        declaration: Declaration,
        input_: Input = None,
        once: Annotated[bool, typer.Option("--once", help="Do what is there and end, instead of going on.")] = False,
        report: Report = None,
        metrics_port: Annotated[int | None, typer.Option(help="Serve /metrics, /healthz and /readyz there.")] = None,
        home: HomeOption = None,
    ) -> None:
        """Feed an export, or receive into a table, as the file declares. Damaged rows go to quarantine/ in the home."""
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        catalogue, where, path = Catalogue.load(), Home.find(home), _path(declaration)
        if receiving.is_receiving(path):
            work = _receive(where, receiving.load(path, catalogue), catalogue, once=once, report=report)
        else:
            work = _feed(where, config.load(path, catalogue), catalogue, input_, once=once, report=report)
        # A stop is no error: what is staged is sent, and what is not committed handed over again, at the next start.
        with suppress(asyncio.CancelledError):
            if metrics_port is not None:
                from deploy.probes import Served, probes, serve  # a server, only if it is wanted

                work = serve(Served(probes(_running), metrics_port), work=work)
            await work


async def _running() -> None:
    """An adapter waits for engines that are away by itself: ready as long as it runs."""


async def _feed(
    where: Home, department: Department, catalogue: Catalogue, given: Path | None, *, once: bool, report: Path | None
) -> None:
    export = _export(department, given)
    kafka = where.stack().kafka
    async with AsyncExitStack() as opened:
        issuers: dict[str, tuple[Publisher, Outbox]] = {}
        for name in sorted(set(department.issuers.values())):
            identity = where.identity(name)
            outbox = opened.enter_context(Outbox(where.path / "outbox" / f"{name}.sqlite"))
            publisher = Publisher(identity, kafka, catalogue, outbox=outbox)
            issuers[name] = (await opened.enter_async_context(publisher), outbox)
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        progress = opened.enter_context(Progress(*columns, console=err, transient=True))
        bar = progress.add_task("reading", total=None)
        aside = where.path / "quarantine" / department.name
        feed = Feed(
            department,
            catalogue,
            issuers.__getitem__,
            aside,
            Exports(where.path / "outbox" / f"{department.name}.exports.json"),
            on_batch=lambda result: progress.update(bar, completed=result.lines),
        )
        await _feed_all(feed, export, once=once, report=report)


async def _feed_all(feed: Feed, export: Path, *, once: bool, report: Path | None) -> None:
    """Each file when it is new or has changed."""
    seen: dict[Path, tuple[int, int]] = {}
    fed: dict[Path, tuple[int, int]] = {}
    while True:
        now = await asyncio.to_thread(_files, export)
        for path, state in now.items():
            # A file that still grows is fed once it stood still between two looks; `--once` takes it as it is.
            if once or (seen.get(path) == state != fed.get(path)):
                _show(path, await feed.run(path), report)
                fed[path] = state
        if once:
            return
        seen, fed = now, {path: state for path, state in fed.items() if path in now}
        await asyncio.sleep(_POLL_SECONDS)


async def _receive(where: Home, declared: Receiving, catalogue: Catalogue, *, once: bool, report: Path | None) -> None:
    dsn = os.environ.get(SINK_DSN)
    if not dsn:
        raise Misuse(Code.CONFIG_INVALID, f"set {SINK_DSN} to your own PostgreSQL: a password has no place in a file")
    stack = where.stack()
    refused: Counter[str] = Counter()
    written = 0
    async with PostgresSink(dsn, declared.table, declared.columns) as sink:
        subscriber = Subscriber(
            where.identity(declared.department),
            stack.kafka,
            stack.gateways,
            catalogue,
            group=f"{declared.department}-{declared.name}",
            items=[declared.item],
            wanted=declared.wanted,
            offsets=await sink.offsets(),
        )

        async def write(batch: Sequence[Opened]) -> None:
            nonlocal written
            await sink.write(batch)
            written += len(batch)
            refused.update(code.value for one in batch for code in set(one.refused.values()))

        if once:
            await subscriber.drain(write)
        else:
            await subscriber.run(write)
    document = {"table": declared.table, "written": written, "refused": dict(refused)}
    _emit(document, report, "Received")


def _export(department: Department, given: Path | None) -> Path:
    if given is None and not department.source.path:
        raise Misuse(Code.SOURCE_INVALID, "say where the export is: --input, or source.path in the department's file")
    return given or Path(department.source.path)


def _files(export: Path) -> dict[Path, tuple[int, int]]:
    """The exports that are there, in the order of their names, with size and time. Raises `Misuse`."""
    if not export.exists():
        raise Misuse(Code.SOURCE_INVALID, f"{export}: no such file or folder")
    entries = sorted(export.iterdir()) if export.is_dir() else [export]
    files = [path for path in entries if path.is_file() and not path.name.startswith((".", "~$"))]
    if len(files) > MAX_FILES:
        raise Misuse(Code.SOURCE_INVALID, f"{export}: more than {MAX_FILES} files: move those that are done")
    return {path: ((stat := path.stat()).st_size, stat.st_mtime_ns) for path in files}


def _path(declaration: str) -> Path:
    """A path that ends in .toml, or the name of a packaged declaration."""
    if declaration.endswith(".toml"):
        return Path(declaration)
    if not declaration.replace("-", "").isalnum():
        raise Misuse(Code.CONFIG_INVALID, f"{declaration}: neither a .toml file nor a name of letters and hyphens")
    with resources.as_file(resources.files("adapters") / "departments" / f"{declaration}.toml") as path:
        return path


def _show(path: Path, result: Result, report: Path | None) -> None:
    if report is None and result.quarantined:
        err.print(f"{result.quarantined} rows quarantined: mend them and feed them again", markup=False)
    _emit({"file": str(path)} | result.to_json(), report, "Export")


def _emit(document: dict[str, Any], report: Path | None, title: str) -> None:
    """The whole document to `report`; what fits on a screen for people."""
    brief = {name: value for name, value in document.items() if name != "outcomes"}
    if report is not None and str(report) != "-":
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(json_.dumps(document, ensure_ascii=False, indent=2) + "\n", "utf-8")
    emit(document, as_json=str(report) == "-", human=lambda: facts(title, brief))
