"""A target: a parser with inputs that it takes, and the ways in which many of them are put together."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "tests/vectors"
REGRESSIONS = Path(__file__).with_name("regressions")

Call = Callable[[bytes], object]
Seeds = Callable[[], Iterable[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """`run` takes any bytes: it returns, or raises what refuses them. An AssertionError says that a law does not hold.

    `seeds` are what fuzzing begins with; at least one of them is accepted. `drawn` makes inputs of the right shape,
    where bytes that are changed at random seldom have it.
    """

    name: str
    run: Call
    seeds: Seeds
    drawn: Callable[[], st.SearchStrategy[bytes]] | None = None

    def regressions(self) -> Mapping[str, bytes]:
        """What was found once, by name."""
        return {file.name: file.read_bytes() for file in sorted((REGRESSIONS / self.name).glob("*"))}


def chosen(*calls: tuple[Call, Seeds]) -> tuple[Call, Seeds]:
    """One target of several: an input's first byte says which one the rest is for."""

    def run(data: bytes) -> object:
        return calls[data[0] % len(calls)][0](data[1:]) if data else None

    def seeds() -> Iterator[bytes]:
        for number, (_, of) in enumerate(calls):
            for seed in of():
                yield bytes([number]) + seed

    return run, seeds


@cache
def vectors(kind: str, field: str = "value") -> Sequence[bytes]:
    """A field of every vector of a format, the good ones first."""
    files = sorted((VECTORS / kind).glob("*.json"), key=lambda file: (not file.name.startswith("ok"), file.name))
    read = (json.loads(file.read_text("utf-8")) for file in files)
    return [bytes.fromhex(one[field]) for one in read if field in one]


def text(data: bytes) -> str:
    """As a text that came through JSON, YAML or a decoder: without half a surrogate pair."""
    return data.decode("utf-8", "replace")


def of_json(take: Callable[[Any], object]) -> Call:
    """What takes a document that a JSON parser has read already."""

    def run(data: bytes) -> object:
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            return None
        return take(document)

    return run


def as_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


@cache
def scratch() -> Path:
    """A folder of this process's own."""
    folder = tempfile.mkdtemp(prefix="deptbus-fuzz-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def in_file(name: str, take: Callable[[Path], object]) -> Call:
    """What takes a file."""

    def run(data: bytes) -> object:
        file = scratch() / name
        file.write_bytes(data)
        return take(file)

    return run


def in_folder(name: str, good: Callable[[Path], None], take: Callable[[Path], object]) -> tuple[Call, Seeds]:
    """What takes a folder of files that `good` writes: an input is a file's name, a line break and its bytes."""

    @cache
    def made() -> tuple[Path, Mapping[str, bytes]]:
        folder = scratch() / name
        folder.mkdir()
        good(folder)
        return folder, {file.name: file.read_bytes() for file in sorted(folder.iterdir())}

    def run(data: bytes) -> object:
        folder, files = made()
        said, _, content = data.partition(b"\n")
        file = folder / next((one for one in files if one.encode() == said), min(files))
        file.write_bytes(content)
        try:
            return take(folder)
        finally:
            file.write_bytes(files[file.name])

    def seeds() -> Iterator[bytes]:
        for one, data in made()[1].items():
            yield one.encode() + b"\n" + data

    return run, seeds
