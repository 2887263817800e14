"""Targets: documents that departments sign, changes and cases of rules, and the files that say how the bus behaves."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from bus.supervision import Memory, Rules, Seen
from consent import cases, changes, law, purposes
from consent.changes import KINDS, changed, published
from consent.collections import Proofs
from consent.ruleset import RuleSet
from deploy.commands import collection
from deploy.yamlfile import read_yaml
from schemas.catalogue import Catalogue
from schemas.errors import DeptbusError
from tests.consent.sound import AGREEMENT, CONSENT, ENTRY, MANDATE, POWER
from tests.fuzz.target import ROOT, Target, as_json, chosen, in_file, in_folder, of_json, text

DOCUMENTS = (AGREEMENT, CONSENT, POWER, MANDATE, ENTRY)
FORM = """form = "开业登记表"
purpose = "tax-registration"
holder = "ORGANISATION"
elements = ["name", "uscc"]
proofs = []
""".encode()
LISTS = ("name", "kind", "id", "end", "state", "revision", "hash", "subject", "scopes", "subjects")


def _document(value: Any) -> None:
    """A stored document of any kind; what is read is written as it was."""
    for kind in KINDS.values():
        try:
            read = kind.from_json(value)
        except DeptbusError:
            continue
        assert read.to_json() == value


def _changes(value: Any) -> None:
    after = changed(DOCUMENTS, changes.parse(value), {AGREEMENT.item: [bytes(32)]})
    RuleSet(published(Catalogue.load().items.values(), after))


def _changes_seeds() -> Iterator[bytes]:
    yield as_json([{"kind": one.kind, "id": str(one.id), "end": True} for one in DOCUMENTS])
    yield as_json([{"kind": one.kind, **_without_id(one.body())} for one in DOCUMENTS])
    yield as_json([{"kind": "agreement", "id": str(AGREEMENT.id), "purposes": ["statistics"]}])


def _without_id(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != "id"}


def _cases(value: Any) -> None:
    for case in cases.parse(value, "file", Catalogue.load()):
        for difference in case.differences():
            as_json(difference.to_json(case))


def _cases_seeds() -> Iterator[bytes]:
    for file in sorted((ROOT / "tests/policy").glob("*.yaml")):
        document = yaml.safe_load(file.read_text("utf-8"))
        yield as_json(changes.plain(document | {"cases": document["cases"][:3]}))


def _yaml(file: Path) -> None:
    """A file of cases, or of changes."""
    read = read_yaml(file)
    if isinstance(read, list):
        _changes(read)
    else:
        _cases(read)


def _yaml_seeds() -> Iterator[bytes]:
    yield yaml.safe_dump(json.loads(next(iter(_changes_seeds()))), allow_unicode=True).encode()
    yield b"- {kind: item, item: tax-registration, valid_from: 2026-03-01}\n"
    yield b"a: &a [1, 2]\nb: *a\nc: {<<: {d: 0x10, e: 1e3, f: ~}, g: 2026-03-01T08:00:00+08:00, h: 'i'}\n"
    bombs = "".join(f"  {n}: &{n} [{', '.join([f'*{before}'] * 9)}]\n" for before, n in pairwise("abcdefghijkl"))
    yield f"- kind: item\n  a: &a [x]\n{bombs}".encode()
    yield b"- !!int '1'\n- !!float '1.5'\n- !!bool 'yes'\n- !!timestamp '2026-03-01'\n- !!binary YQ==\n- !!set {a}\n"
    for file in sorted((ROOT / "tests/policy").glob("*.yaml")):
        data = file.read_text("utf-8")
        start = data.index("cases:\n")
        yield (data[:start] + "\n".join(data[start:].splitlines()[:40])).encode()


def _proofs(data: bytes) -> None:
    Proofs.parse(data)


def _file(room: str, name: str) -> bytes:
    return (resources.files(room) / name).read_bytes()


def _memory(value: Any) -> None:
    read = Memory.from_json(value)
    assert Memory.from_json(read.to_json()).to_json() == read.to_json()


def _memory_seeds() -> Iterator[bytes]:
    memory = Memory(until=datetime(2026, 3, 1, tzinfo=UTC))
    memory.seen.append(Seen(datetime(2026, 3, 1, tzinfo=UTC), 7, bytes(32), b"\x01"))
    yield as_json(memory.to_json())
    yield as_json(Memory().to_json())


def _catalogue(folder: Path) -> None:
    for name in ("business-licence.toml", "business-licence.1.avsc"):
        (folder / name).write_bytes(_file("schemas", f"items/{name}"))


_DOCUMENTS_RUN, _DOCUMENTS_SEEDS = chosen(
    (of_json(_document), lambda: (as_json(one.to_json()) for one in DOCUMENTS)),
    (of_json(_memory), _memory_seeds),
)
_FILES_RUN, _FILES_SEEDS = chosen(
    (lambda data: law.parse(text(data)), lambda: [_file("consent", "law.toml")]),
    (lambda data: purposes.parse(text(data)), lambda: [_file("consent", "purposes.toml")]),
    (_proofs, lambda: [_file("consent", "proofs.toml")]),
    (lambda data: Rules.parse(text(data)), lambda: [_file("bus", "supervision.toml")]),
    (in_file("form.toml", collection._read), lambda: [FORM]),
)
_CATALOGUE_RUN, _CATALOGUE_SEEDS = in_folder("catalogue", _catalogue, Catalogue.read)


def _shuffled(documents: list[Any]) -> st.SearchStrategy[bytes]:
    """Documents in which some values, or the names of some, became others: JSON of the right shape, nearly."""
    leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.sampled_from(_leaves(documents))
    anything = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | _mapped(inner), max_leaves=6)

    goes_on: st.SearchStrategy[Any] = st.integers(0, 3)

    def change(document: Any, chance: st.DataObject) -> Any:
        match document:
            case dict() if document and chance.draw(goes_on):
                name = chance.draw(st.sampled_from(sorted(document, key=str)))
                return document | {name: change(document[name], chance)}
            case list() if document and chance.draw(goes_on):
                at = chance.draw(st.integers(0, len(document) - 1))
                return [*document[:at], change(document[at], chance), *document[at + 1 :]]
        return chance.draw(anything)

    return st.builds(change, st.sampled_from(documents), st.data()).map(as_json)


def _mapped(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.dictionaries(st.sampled_from(LISTS) | st.text(max_size=5), inner, max_size=3)


def _leaves(document: Any) -> list[Any]:
    match document:
        case dict():
            return [leaf for value in document.values() for leaf in _leaves(value)]
        case list():
            return [leaf for value in document for leaf in _leaves(value)]
    return [document]


def _drawn(seeds: Callable[[], Iterator[bytes]]) -> Callable[[], st.SearchStrategy[bytes]]:
    return lambda: _shuffled([json.loads(seed) for seed in seeds()])


TARGETS = (
    Target(
        name="documents",
        run=_DOCUMENTS_RUN,
        seeds=_DOCUMENTS_SEEDS,
        drawn=lambda: _shuffled([one.to_json() for one in DOCUMENTS]).map(lambda data: b"\0" + data),
    ),
    Target(name="changes", run=of_json(_changes), seeds=_changes_seeds, drawn=_drawn(_changes_seeds)),
    Target(name="cases", run=of_json(_cases), seeds=_cases_seeds, drawn=_drawn(_cases_seeds)),
    Target(name="yaml", run=in_file("rules.yaml", _yaml), seeds=_yaml_seeds),
    Target(name="rule-files", run=_FILES_RUN, seeds=_FILES_SEEDS),
    Target(name="catalogue", run=_CATALOGUE_RUN, seeds=_CATALOGUE_SEEDS),
)
