"""`deptbus adapter check` and `deptbus adapter run`: a department's export, looked at or fed."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack, suppress
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import typer

from adapters import config
from adapters.config import Department
from adapters.feed import Feed, Result, plan
from bus.outbox import Outbox
from bus.publisher import Publisher
from deploy.home import Home, HomeOption
from deploy.output import Json, command, emit, err, facts
from schemas.catalogue import Catalogue
from schemas.errors import Code, Misuse

_POLL_SECONDS = 2.0  # how soon a new or changed file is seen
MAX_FILES = 10_000  # of a watched folder: more are an archive, not an inbox

Declaration = Annotated[str, typer.Argument(help="A department's .toml, or the name of one that comes with deptbus.")]
Export = Annotated[Path, typer.Argument(help="The export; for `run` also a folder of them.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    adapter = typer.Typer(help="A department's export: check it, feed it.", no_args_is_help=True)
    app.add_typer(adapter, name="adapter")

    @command(adapter)
    def check(declaration: Declaration, export: Export, json: Json = False) -> None:
        """Say what a feed into an empty bus would do. Publishes nothing, needs no stack."""
        catalogue = Catalogue.load()
        result, _ = plan(export, _load(declaration, catalogue), catalogue)
        _show(export, result, as_json=json)

    @command(adapter)
    async def run(
        declaration: Declaration,
        export: Export,
        home: HomeOption = None,
        once: Annotated[bool, typer.Option("--once", help="Feed what is there and end, instead of watching.")] = False,
        json: Json = False,
    ) -> None:
        """Feed an export, or a folder of them. Damaged rows go to quarantine/; without --once it goes on watching."""
        catalogue, where = Catalogue.load(), Home.find(home)
        department = _load(declaration, catalogue)
        kafka = where.stack().kafka
        identities = {name: where.identity(name) for name in sorted(set(department.issuers.values()))}
        async with AsyncExitStack() as opened:
            issuers: dict[str, tuple[Publisher, Outbox]] = {}
            for name, identity in identities.items():
                outbox = opened.enter_context(Outbox(where.path / "outbox" / f"{name}.sqlite"))
                publisher = Publisher(identity, kafka, catalogue, outbox=outbox)
                issuers[name] = (await opened.enter_async_context(publisher), outbox)
            aside = where.path / "quarantine" / f"{department.name}.jsonl"
            await _feed_all(Feed(department, catalogue, issuers.__getitem__, aside), export, once=once, as_json=json)


async def _feed_all(feed: Feed, export: Path, *, once: bool, as_json: bool) -> None:
    """Each file when it is new or has changed. SIGINT and SIGTERM end it: what is staged is sent at the next start."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    seen: dict[Path, tuple[int, int]] = {}
    fed: dict[Path, tuple[int, int]] = {}
    with suppress(asyncio.CancelledError):
        while True:
            now = await asyncio.to_thread(_files, export)
            for path, state in now.items():
                # A file that still grows is fed once it stood still between two looks; `--once` takes it as it is.
                if once or (seen.get(path) == state != fed.get(path)):
                    _show(path, await feed.run(path), as_json=as_json)
                    fed[path] = state
            if once:
                return
            seen, fed = now, {path: state for path, state in fed.items() if path in now}
            await asyncio.sleep(_POLL_SECONDS)


def _files(export: Path) -> dict[Path, tuple[int, int]]:
    """The exports that are there, in the order of their names, with size and time. Raises `Misuse`."""
    if not export.exists():
        raise Misuse(Code.SOURCE_INVALID, f"{export}: no such file or folder")
    entries = sorted(export.iterdir()) if export.is_dir() else [export]
    files = [path for path in entries if path.is_file() and not path.name.startswith((".", "~$"))]
    if len(files) > MAX_FILES:
        raise Misuse(Code.SOURCE_INVALID, f"{export}: more than {MAX_FILES} files: move those that are done")
    return {path: ((stat := path.stat()).st_size, stat.st_mtime_ns) for path in files}


def _load(declaration: str, catalogue: Catalogue) -> Department:
    """A path that ends in .toml, or the name of a packaged declaration."""
    if declaration.endswith(".toml"):
        return config.load(Path(declaration), catalogue)
    if not declaration.replace("-", "").isalnum():
        raise Misuse(Code.CONFIG_INVALID, f"{declaration}: neither a .toml file nor a name of letters and hyphens")
    with resources.as_file(resources.files("adapters") / "departments" / f"{declaration}.toml") as path:
        return config.load(path, catalogue)


def _show(path: Path, result: Result, *, as_json: bool) -> None:
    document: dict[str, Any] = {"file": str(path)} | result.to_json()
    if not as_json and result.quarantined:
        err.print(f"{result.quarantined} rows quarantined: mend them and feed them again", markup=False)
    brief = {name: value for name, value in document.items() if name != "outcomes"}
    emit(document, as_json=as_json, human=lambda: facts("Export", brief))
