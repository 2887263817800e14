"""`deptbus audit query|counts|story`: what the log says, at a checkpoint."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.text import Text

from bus import tables
from bus.client import Asker
from bus.terms import LISTED, asked
from consent.law import GROUNDS
from consent.purposes import PURPOSES
from deploy.commands.filters import body_of, described, filtered, reader_of
from deploy.commands.options import Caller, asking
from deploy.home import Home, HomeOption
from deploy.output import Json, command, emit, err, out, table
from schemas.errors import Code, Misuse

PAGE = 1_000
BAR = 40  # characters of the longest
COLUMNS = (
    "index",
    "when (UTC)",
    "kind",
    "who",
    "whose",
    "item",
    "what for",
    "ground",
    "operator",
    "opened",
    "refused",
)
_STYLES = {"opened": "bold green", "refused": "bold red", "voided": "bold red", "conflict": "bold red"}


class Format(StrEnum):
    """What a query is written as."""

    TABLE = "table"
    JSONL = "jsonl"
    CSV = "csv"
    XLSX = "xlsx"


def register_trail(audit: typer.Typer) -> None:
    """Adds the commands to the `audit` group."""

    @command(audit)
    @filtered
    async def query(
        department: Caller = None,
        format_: Annotated[Format, typer.Option("--format", help="xlsx and csv have Chinese headings.")] = Format.TABLE,
        file: Annotated[
            Path | None, typer.Option("--out", help="The file to write; csv and jsonl else go out.")
        ] = None,
        everything: Annotated[bool, typer.Option("--all", help="All pages, at the first one's checkpoint.")] = False,
        after: Annotated[int, typer.Option("--after", help="Go on behind this index: the `next` of a page.")] = -1,
        limit: Annotated[int, typer.Option("--limit", help="A page has at most so many entries, 1 to 1,000.")] = 100,
        home: HomeOption = None,
        json: Json = False,
        **given: str | None,
    ) -> None:
        """Ask the trail. An auditor reads everything, a department its own entries; the question is logged, too."""
        where = Home.find(home)
        body = body_of(where, given)
        _check_output(format_, file, json)
        names, entries, page = where.names(), list[dict[str, Any]](), dict[str, Any]()
        with _Output(format_, file, names) as output:
            async with asking(where, department) as client:
                asked_for = body | {"after": after, "limit": PAGE if everything else limit}
                async for page in _pages(client, asked_for, everything, quiet=json):
                    if format_ is Format.TABLE:
                        entries += page["entries"]
                    output.add(page["entries"])
            output.close(page["checkpoint"], described(body))
        if format_ is not Format.TABLE:
            if file is not None:
                document = {"file": str(file), "entries": output.count, "checkpoint": page["checkpoint"]}
                emit(document | {"next": page["next"]}, as_json=json, human=lambda: _written(document))
            return
        title = f"{len(entries)} entries at checkpoint {page['checkpoint']['size']}" + (
            "" if page["next"] is None else f" (go on with --after {page['next']}, or take --all)"
        )
        rows = [row(entry, names) for entry in entries]
        emit(page | {"entries": entries}, as_json=json, human=lambda: table(title, COLUMNS, rows))

    @command(audit)
    @filtered
    async def counts(
        department: Caller = None,
        by: Annotated[str | None, typer.Option("--by", help=f"A day and each {', '.join(sorted(LISTED))}.")] = None,
        home: HomeOption = None,
        json: Json = False,
        **given: str | None,
    ) -> None:
        """Count entries a day (UTC+8), of all that the filters find or of each value of a dimension."""
        where = Home.find(home)
        if by is not None and by not in LISTED:
            raise Misuse(Code.REQUEST_MALFORMED, f"--by is one of: {', '.join(sorted(LISTED))}")
        body = body_of(where, given) | ({} if by is None else {"by": by})
        async with asking(where, department) as client:
            found = await client.post_json("/v1/audit/counts:query", body)
        emit(found, as_json=json, human=lambda: _show_counts(found, by, where.names()))

    @command(audit)
    async def story(
        record: Annotated[str, typer.Argument(help="The record's leaf hash, 64 hex digits.")],
        department: Caller = None,
        reader: Annotated[str | None, typer.Option("--reader", help="Who of the auditor's reads: your own id.")] = None,
        investigation: Annotated[str | None, typer.Option("--investigation", help="What you read for.")] = None,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """What became of one record: admitted, looked up, opened, refused, taken back, disputed, erased."""
        where = Home.find(home)
        body = {"record": asked("record", record)[1]} | reader_of(reader, investigation)
        async with asking(where, department) as client:
            found = await client.post_json("/v1/audit/stories:show", body)
        emit(found, as_json=json, human=lambda: _tell(found, where.names()))


async def _pages(
    client: Asker, body: Mapping[str, Any], everything: bool, *, quiet: bool
) -> AsyncIterator[dict[str, Any]]:
    """Pages, all as true as the first one: what came later is left out."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=err, transient=True, disable=quiet or not everything) as progress:
        bar = progress.add_task("reading the log")
        first: dict[str, Any] | None = None
        after: int | None = body["after"]
        while after is not None:
            page = await client.post_json("/v1/audit/entries:query", {**body, "after": after})
            first = first or page
            size = first["checkpoint"]["size"]
            after = page["next"] if everything else None
            if everything:
                if after is not None and after >= size - 1:
                    after = None
                page["entries"] = [entry for entry in page["entries"] if entry["index"] < size]
                page |= {"checkpoint": first["checkpoint"], "next": after}
            progress.update(bar, total=size, completed=size if after is None else after)
            yield page


class _Output:
    """Where entries go as they come. A file is there when it is whole."""

    def __init__(self, format_: Format, file: Path | None, names: Mapping[str, str]) -> None:
        self._format = format_
        self._file = file
        self._names = names
        self._stream: BinaryIO | None = None
        self._book: Any = None
        self.count = 0

    def __enter__(self) -> _Output:
        if self._format is Format.XLSX:
            from deploy.workbook import TrailBook  # openpyxl comes with an extra

            self._book = TrailBook()
        elif self._format is not Format.TABLE:
            self._stream = sys.stdout.buffer if self._file is None else _private(self._part)
            if self._format is Format.CSV:
                self._stream.writelines(tables.csv_lines([]))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._stream is not None and self._file is not None:
            self._stream.close()
            if kind is not None:
                self._part.unlink(missing_ok=True)

    def add(self, entries: list[dict[str, Any]]) -> None:
        """More of them."""
        self.count += len(entries)
        if self._format is Format.JSONL and self._stream is not None:
            self._stream.writelines(tables.json_lines(entries))
        rows = (tables.row(entry, self._names) for entry in entries)
        if self._format is Format.CSV and self._stream is not None:
            self._stream.writelines(tables.csv_rows(rows))
        if self._book is not None:
            for row in rows:
                self._book.add(row)

    def close(self, checkpoint: Mapping[str, Any], filters: str) -> None:
        """They are all."""
        if self._book is not None and self._file is not None:
            self._book.save(self._file, _about(checkpoint, filters, self.count))
        elif self._stream is not None:
            self._stream.flush()
            if self._file is not None:
                os.fsync(self._stream.fileno())
                self._part.replace(self._file)

    @property
    def _part(self) -> Path:
        assert self._file is not None
        return self._file.with_name(self._file.name + ".new")


def _private(path: Path) -> BinaryIO:
    """A file that only its owner reads."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")


def _about(checkpoint: Mapping[str, Any], filters: str, count: int) -> dict[str, str]:
    return {
        "日志": checkpoint["origin"],
        "检查点(条目数)": str(checkpoint["size"]),
        "检查点(根哈希)": checkpoint["root"],
        "筛选条件": filters,
        "条数": str(count),
        "导出时间(北京时间)": tables.civil(datetime.now(UTC).isoformat()),
    }


def _check_output(format_: Format, file: Path | None, json: bool) -> None:
    if file is None and format_ is Format.XLSX:
        raise Misuse(Code.CONFIG_INVALID, "a workbook needs a file: --out FILE.xlsx")
    if file is not None and format_ is Format.TABLE:
        raise Misuse(Code.CONFIG_INVALID, "--out needs what to write: --format jsonl, csv or xlsx")
    if file is not None and not file.parent.is_dir():
        raise Misuse(Code.CONFIG_INVALID, f"{file.parent}: no such folder to write into")
    if file is None and json and format_ is not Format.TABLE:
        raise Misuse(Code.CONFIG_INVALID, "--json says what was written: give it a file with --out")


def _written(document: Mapping[str, Any]) -> None:
    at = document["checkpoint"]["size"]
    out.print(f"{document['entries']} entries at checkpoint {at} are in {document['file']}", markup=False)


def row(entry: dict[str, Any], names: Mapping[str, str]) -> list[Any]:
    """An entry in a terminal, in the order of `COLUMNS`. `names` are departments' by credit code."""
    body = entry["body"]
    who = body.get("consumer") or body.get("reader") or body.get("recipient") or ""
    whose = body.get("provider") or body.get("grantor") or ""
    purpose, ground = _for(body)
    sections = tables.sections_of(body)
    opened = [s["name"] for s in sections if s["code"] == "PERMIT"]
    refused = [f"{s['name']}={s['code']}" for s in sections if s["code"] != "PERMIT"]
    at = entry["time"][:19].replace("T", " ")
    rest = (body.get("item", ""), purpose, ground, body.get("operator", ""), opened, refused)
    return [entry["index"], at, entry["kind"], names.get(who, who), names.get(whose, whose), *rest]


def _for(body: Mapping[str, Any]) -> tuple[str, str]:
    purpose, ground = body.get("purpose", ""), body.get("ground", "")
    return PURPOSES.get(purpose, purpose), GROUNDS.get(ground, ground)


def _show_counts(found: dict[str, Any], by: str | None, names: Mapping[str, str]) -> None:
    days = found["days"]
    most = max((one["count"] for one in days), default=1)
    columns = ("day (UTC+8)", *([by] if by else []), "entries", "")
    rows = [
        [
            one["day"],
            *([names.get(one["value"], one["value"])] if by else []),
            f"{one['count']:,}",
            "█" * max(round(BAR * one["count"] / most), 1),
        ]
        for one in days
    ]
    table(f"{found['total']:,} entries at checkpoint {found['checkpoint']['size']}", columns, rows)


def _tell(found: dict[str, Any], names: Mapping[str, str]) -> None:
    """A line an event, and what there is to say of it beneath."""
    about = found["record"]
    state = " ".join(filter(None, (about["state"], about.get("status", ""))))
    out.print(f"Record {about['record']}", highlight=False)
    issuer = about.get("issuer", "")
    facts = [about.get("item", ""), f"issued by {names.get(issuer, issuer)}" if issuer else "", state]
    out.print("  " + ", ".join(filter(None, facts)), markup=False, highlight=False)
    for event in found["events"]:
        line = Text(f"{tables.civil(event['logged_at'])[:19]}  ")
        line.append(f"{event['what']:<16}", style=_STYLES.get(event["what"], "bold"))
        line.append(_said(event, names))
        line.append(f"  #{event['index']}", style="dim")
        out.print(line, soft_wrap=True)
    out.print(f"{len(found['events'])} events at checkpoint {found['checkpoint']['size']}, times in UTC+8")


def _said(event: Mapping[str, Any], names: Mapping[str, str]) -> str:
    body = event["body"]
    who = body.get("consumer") or body.get("reader") or body.get("by") or ""
    sections = tables.sections_of(body)
    opened = ", ".join(s["name"] for s in sections if s["code"] == "PERMIT")
    refused = ", ".join(f"{s['name']} {s['code']}" for s in sections if s["code"] != "PERMIT")
    purpose, ground = _for(body)
    version = f"version {event['sequence']} {event['operation']} {event['record']}" if "operation" in event else ""
    parts = [
        names.get(who, who),
        f"to pass on to {names.get(onward, onward)}" if (onward := body.get("onward_to")) else "",
        f"operator {body['operator']}" if body.get("operator") else "",
        f"{'permitted' if onward else 'opened'} {opened}" if opened else "",
        f"refused {refused}" if refused else "",
        " ".join(filter(None, (purpose, ground, body.get("citation", "")))),
        f"case {body['case']}" if body.get("case") else "",
        f"in a set of {body['count']}" if "root" in body else "",
        body.get("what") or body.get("code") or body.get("reason") or body.get("basis") or "",
        version,
    ]
    return "; ".join(filter(None, parts))
