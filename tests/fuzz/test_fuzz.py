"""The short run of what `make fuzz` does for half an hour; and that nothing which reads foreign bytes is left out."""

from __future__ import annotations

import ast
import random
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from schemas.divisions import Divisions
from schemas.errors import Code, DeptbusError, Malformed
from tests.fuzz.drawn import at_random, by_hypothesis, known
from tests.fuzz.left_out import LEFT_OUT
from tests.fuzz.limits import Limits
from tests.fuzz.target import ROOT
from tests.fuzz.targets import TARGETS

SECONDS = 0.08  # of a target and a way to make inputs
ROOMS = ("schemas", "consent", "bus", "adapters", "deploy")
SEED = 20261127
# What reads foreign bytes or texts: functions of these names, and those that call one of these.
NAMES = ("parse", "decode", "load", "from_")
READERS = {
    *("json.loads", "msgspec.json.decode", "msgspec.convert", "tomllib.loads", "yaml.load", "csv.reader"),
    *("csv.DictReader", "openpyxl.load_workbook", "zipfile.ZipFile", "b64decode", "urlsafe_b64decode", "jwt.decode"),
    *("x509.load_der_x509_certificate", "x509.load_pem_x509_certificate", "load_pem_private_key", "bytes.fromhex"),
    "datetime.fromisoformat",
}


def _functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function of the packages, as `bus/session.py parse` or `bus/pki.py Signer.load`."""
    for room in ROOMS:
        for file in sorted((ROOT / room).rglob("*.py")):
            yield from _inside(ast.parse(file.read_text("utf-8")), f"{file.relative_to(ROOT)} ")


def _inside(node: ast.AST, at: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield from _inside(child, f"{at}{child.name}.")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield at + child.name, child
            yield from _inside(child, f"{at}{child.name}.<locals>.")
        else:
            yield from _inside(child, at)


def _reads(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    if function.name.lstrip("_").startswith(NAMES):
        given = function.args.args + function.args.kwonlyargs
        return bool({"bytes", "str", "Path", "Any"} & {ast.unparse(one.annotation) for one in given if one.annotation})
    return any(isinstance(one, ast.Call) and ast.unparse(one.func) in READERS for one in _own(function))


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """What a function does itself: a function inside of it is one of its own."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
            yield from _own(child)


@cache
def _reached() -> frozenset[str]:
    """What the targets' own inputs come to."""
    found: set[str] = set()

    def look(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(f"{ROOT}/"):
            found.add(f"{Path(code.co_filename).relative_to(ROOT)} {code.co_qualname}")

    Divisions.load.cache_clear()  # read once a process: else it would count or not by which test came first
    for target in TARGETS.values():
        for data in (*target.seeds(), *target.regressions().values()):
            sys.setprofile(look)
            try:
                with suppress(DeptbusError):
                    target.run(data)
            finally:
                sys.setprofile(None)
    return frozenset(found)


def test_whatever_reads_foreign_bytes_is_fuzzed_or_says_why_not() -> None:
    """A new parser is given a target, or a reason in `left_out.py`; a reason goes when there is a target."""
    readers = {name for name, function in _functions() if _reads(function)}
    unreached = readers - _reached()
    named = {name if name in LEFT_OUT else name.partition(" ")[0] for name in unreached}
    assert named - LEFT_OUT.keys() == set(), f"give it a target, or a reason why none: {sorted(unreached)}"
    assert LEFT_OUT.keys() - named == set(), "it is fuzzed, or gone: no reason is needed"


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_takes_what_is_good(name: str) -> None:
    """Else only refusals were tried."""

    def taken(data: bytes) -> bool:
        try:
            TARGETS[name].run(data)
        except DeptbusError:
            return False
        return True

    assert any(map(taken, TARGETS[name].seeds()))


@pytest.mark.parametrize("name", TARGETS)
def test_only_the_projects_own_errors_escape_in_bounded_time_and_memory(name: str) -> None:
    target = TARGETS[name]
    with Limits() as limits:
        tally = known(target, limits)
        tally.merge(at_random(target, limits, seconds=SECONDS, chance=random.Random(SEED)))
        tally.merge(by_hypothesis(target, limits, seconds=SECONDS, number=SEED))
    assert tally.findings == {}


def test_what_no_input_may_do_is_found() -> None:
    """Another error, a second of computing, memory that runs out: also where the code makes a refusal of it."""

    def goes_on(_: bytes) -> None:
        end = time.process_time() + 30
        while time.process_time() < end:
            pass

    def grows(_: bytes) -> None:
        try:
            bytearray(1024**3)
        except MemoryError as exc:
            raise Malformed(Code.RECORD_TOO_LARGE, "it does not fit") from exc

    def refuses(_: bytes) -> None:
        raise Malformed(Code.RECORD_MALFORMED, "it is none")

    with Limits() as limits:
        found = [limits.run("target", call, b"x") for call in (bytes.decode, goes_on, grows, refuses)]
        found.append(limits.run("target", bytes.decode, b"\xff"))
    what = [one and one.what.partition(" at ")[0] for one in found]
    assert what == [None, "over 1 s", "MemoryError", None, "UnicodeDecodeError"]
