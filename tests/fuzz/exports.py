"""Targets: departments' exports, the files that describe them, and the files that a process keeps for itself."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import fields, replace
from functools import cache
from io import BytesIO
from pathlib import Path

import openpyxl

from adapters import config, parsers, receiving, sources
from adapters.config import Department
from adapters.exports import Exports
from adapters.mapping import map_row
from adapters.text import damage, trim
from bus import hpke
from bus.identity import Identity
from bus.people.openid import Registration
from bus.pki import Signer
from bus.transport import Login
from deploy.bootstrap import Bus
from deploy.home import Home, Stack
from schemas.catalogue import Catalogue
from schemas.divisions import Divisions
from schemas.errors import Malformed
from tests.fuzz.target import ROOT, Target, as_json, chosen, in_file, in_folder, scratch, text
from tests.vectors import world

SAMPLE = ROOT / "deploy/demo/market-licences.csv"
DEPARTMENT = ROOT / "adapters/departments/market-regulation.toml"
RECEIVING = ROOT / "adapters/departments/tax-receiving.toml"
ROWS = 12
_PLAIN = {"str": "", "int": 1, "list": [], "dict": {}}


@cache
def _department(**source: str) -> Department:
    found = config.load(DEPARTMENT, Catalogue.load())
    return replace(found, source=replace(found.source, **source))


def _rows(file: Path, department: Department) -> None:
    """Every row, mapped: what is wrong with one is its own."""
    header, rows = sources.rows(file, department)
    for row in rows:
        map_row(row, header, department, Catalogue.load().item(department.item))


def _lines() -> list[str]:
    return SAMPLE.read_text("utf-8-sig").splitlines()[: ROWS + 1]


def _csv(encoding: str) -> Callable[[bytes], object]:
    return in_file(f"{encoding}.csv", lambda file: _rows(file, _department(encoding=encoding)))


def _csv_seeds(encoding: str) -> Callable[[], Iterator[bytes]]:
    def seeds() -> Iterator[bytes]:
        yield "\r\n".join(_lines()).encode(encoding)
        yield ("\n".join(_lines()) + '\n"a\n""b",c\n' + ",".join('"x\ny"' for _ in _lines()[0].split(","))).encode(
            encoding
        )

    return seeds


@cache
def _workbook() -> dict[str, bytes]:
    """The parts of a good one."""
    book, out = openpyxl.Workbook(), BytesIO()
    for line in _lines()[:4]:
        book.worksheets[0].append(line.split(","))
    book.save(out)
    with zipfile.ZipFile(out) as archive:
        return {name: archive.read(name) for name in sorted(archive.namelist())}


def _packed(parts: dict[str, bytes]) -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return out.getvalue()


def _xlsx(data: bytes) -> None:
    """A good workbook of which one part is another; or an archive of these bytes."""
    names = sorted(_workbook())
    number = data[0] % (len(names) + 1) if data else 0
    file = scratch() / "export.xlsx"
    file.write_bytes(_packed(_workbook() | {names[number]: data[1:]}) if number < len(names) else data[1:])
    _rows(file, _department(format="xlsx"))


def _xlsx_seeds() -> Iterator[bytes]:
    for number, data in enumerate(_workbook().values()):
        yield bytes([number]) + data
    yield bytes([len(_workbook())]) + _packed(_workbook())


def _cell(data: bytes) -> None:
    """A day, an amount, a code, a place of a province: each of any text."""
    first, _, second = text(data).partition("\t")
    Divisions.load().find(first, second)
    damage(first)
    for parse in (
        parsers.parse_date,
        parsers.parse_capital,
        parsers.parse_credit_code,
        lambda one: parsers.parse_region(one, second),
    ):
        with suppress(Malformed):
            parse(trim(first))


def _cells() -> Iterator[bytes]:
    yield from (cell.encode() for line in _lines()[1:] for cell in line.split(",")[:8])
    for cell in (
        "二〇一九年九月二十八日",
        "２０１９－９－２８ 00:00:00+08:00",
        "壹佰万元整",
        "人民币1,000.5(万元)",
        "5万美元",
    ):
        yield cell.encode()
    for place in ("浙江\t杭州市西湖区", "北京\t县", "新疆兵团\t石河子", "吉林省\t延边州/延吉", "恩施(shī)\t?！中"):
        yield place.encode()


def _departments(file: Path) -> None:
    if receiving.is_receiving(file):
        receiving.load(file, Catalogue.load())
    else:
        config.load(file, Catalogue.load()).issuer("330411")


def _home(folder: Path) -> None:
    """What `deptbus` keeps: a department's keys, the bus's settings, a running stack, what was fed."""
    kem = hpke.PrivateKey(world.fixed("kem consumer", hpke.PRIVATE_BYTES))
    Identity(
        name="tax",
        uscc=world.CONSUMER,
        origin=world.ORIGIN,
        gateway_owner=world.OPERATOR,
        authority=world.CA.der,
        record=world.RECORD,
        department=world.DEPARTMENT,
        kem=kem,
        pseudonym_keys={world.ITEM: {1: bytes(32)}},
        login=Login(authority="", user="tax", password="not a password"),
    ).save(folder)
    stack = {one.name: _PLAIN[str(one.type).partition("[")[0]] for one in fields(Stack)}
    (folder / "stack.json").write_bytes(as_json(stack))
    (folder / "config.json").write_bytes(as_json({"origin": world.ORIGIN, "operator": world.OPERATOR}))
    Registration(issuer="https://login.example", client_id="bus", client_secret="secret").save(folder / "openid.json")
    (folder / "known.json").write_bytes(as_json([{"id": "a", "size": 5, "digest": "ab"}]))


def _kept(folder: Path) -> None:
    Identity.load(folder)
    Bus.load(folder)
    Home(folder).stack()
    Exports(folder / "known.json")._read()
    Signer.load(folder, "record")
    Registration.load(folder / "openid.json")


_CSV_RUN, _CSV_SEEDS = chosen(*((_csv(one), _csv_seeds(one)) for one in config.ENCODINGS))
_KEPT_RUN, _KEPT_SEEDS = in_folder("home", _home, _kept)

TARGETS = (
    Target(name="csv", run=_CSV_RUN, seeds=_CSV_SEEDS),
    Target(name="xlsx", run=_xlsx, seeds=_xlsx_seeds),
    Target(name="cells", run=_cell, seeds=_cells),
    Target(
        name="department-files",
        run=in_file("department.toml", _departments),
        seeds=lambda: (DEPARTMENT.read_bytes(), RECEIVING.read_bytes()),
    ),
    Target(name="own-files", run=_KEPT_RUN, seeds=_KEPT_SEEDS),
)
