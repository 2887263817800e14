"""What an audit entry can be found by: pairs of a dimension and a value, and the number that the index knows each by.

The index holds numbers only (`log_term`). They are hashes cut short, so a hit is compared with the entry's own words
before it is shown: two words of one number show nothing false.

Whoever changes what words an entry has must have the index made anew (a migration that empties the log's tables and
takes the topic's position back): the recorder compares the index with the entries, and would find it changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

from bus.audit import KINDS, Entry
from bus.messages import MAX_TEXT
from bus.tlog.tiles import WIDTH
from consent.law import GROUNDS
from schemas.errors import Code, Misuse
from schemas.identifiers import parse_uscc

Word = tuple[str, str]

# Dimensions with few values: the log keeps a list of them to choose from.
LISTED = frozenset(
    ("kind", "consumer", "provider", "item", "section", "purpose", "ground", "operator", "agent", "decision", "code",
     "region")
)  # fmt: skip
# With many: nobody chooses from a list of them. `party` is a department on either side, `about` another entry.
UNLISTED = frozenset(("party", "case", "rule", "record", "licence", "subject", "request", "entry", "about"))
DIMENSIONS = LISTED | UNLISTED

# What can be asked for: one of these, a division of so many digits, so many bytes in hex, a credit code, or any text.
CHOICES: Mapping[str, tuple[str, ...]] = {
    "kind": KINDS,
    "decision": ("PERMIT", "REFUSE"),
    "code": tuple(code.value for code in Code),
    "ground": tuple(GROUNDS),
}
_DIGITS = (2, 4, 6)
_BYTES = {"record": 32, "licence": 32, "subject": 32, "entry": 32, "about": 32, "request": 16}
_CREDIT_CODES = frozenset(("consumer", "provider", "party"))


def asked(dimension: str, value: str) -> Word:
    """A word that somebody looks for, spelt as entries have it.

    Raises `Misuse` (REQUEST_MALFORMED) or `Malformed` (USCC_*) for a value that no entry can have: an answer of nothing
    would be taken for the truth. The value is not repeated: it may be anything.
    """
    if dimension in CHOICES and value not in CHOICES[dimension]:
        raise Misuse(Code.REQUEST_MALFORMED, f"{dimension} is one of: {', '.join(CHOICES[dimension])}")
    if dimension in _BYTES:
        return dimension, _hex(dimension, value)
    if dimension in _CREDIT_CODES:
        return dimension, parse_uscc(value)
    if dimension == "region" and not (value.isascii() and value.isdigit() and len(value) in _DIGITS):
        raise Misuse(Code.REQUEST_MALFORMED, "region is a division code's first 2, 4 or 6 digits (GB/T 2260)")
    if not 1 <= len(value) <= MAX_TEXT:
        raise Misuse(Code.REQUEST_MALFORMED, f"{dimension} has 1 to {MAX_TEXT} characters")
    return dimension, value


def _hex(dimension: str, value: str) -> str:
    size = _BYTES[dimension]
    try:
        data = bytes.fromhex(value)
    except ValueError:
        data = b""
    if len(data) != size or len(value) != 2 * size:
        raise Misuse(Code.REQUEST_MALFORMED, f"{dimension} is {2 * size} hex digits")
    return data.hex()


def term(word: Word) -> int:
    """The index's number of a word: a signed 64-bit integer, the first eight bytes of its SHA-256."""
    return int.from_bytes(sha256("\x00".join(word).encode()).digest()[:8], signed=True)


def bit(place: int) -> int:
    """The bit of a bundle's entry, 0 to 255, in a row of the index: the first entry has the leftmost."""
    return 1 << (WIDTH - 1 - place)


def places(bits: int) -> list[int]:
    """The entries of a bundle whose bits are set, in order."""
    found = []
    while bits:
        top = bits.bit_length()
        found.append(WIDTH - top)
        bits ^= 1 << (top - 1)
    return found


def words(entry: Entry) -> set[Word]:
    """Everything that an entry can be found by."""
    found = {("kind", entry.kind), ("request", entry.group.hex()), ("entry", entry.leaf_hash.hex())}
    found.update(_BODIES.get(entry.kind, _nothing)(entry.body))
    return found


def _nothing(_: Mapping[str, Any]) -> Iterable[Word]:
    return ()


def _decision(body: Mapping[str, Any]) -> Iterable[Word]:
    yield from _parties(body["consumer"], body["provider"])
    for dimension in ("item", "purpose", "ground", "operator"):
        yield dimension, body[dimension]
    for digits in _DIGITS:  # a province's entries are those of its cities and counties too (GB/T 2260)
        yield "region", body["region"][:digits]
    for dimension in ("agent", "case"):
        if body[dimension]:
            yield dimension, body[dimension]
    yield "record", body["record"].hex()
    yield "licence", body["licence"].hex()
    yield from _subjects(body)
    for section in body["sections"]:
        yield "section", section["name"]
        yield "code", section["code"]
        yield "decision", "PERMIT" if section["code"] == Code.PERMIT else "REFUSE"
        for rule in section["rule"].split():  # an agreement, and the consent besides
            yield "rule", rule


def _admitted(body: Mapping[str, Any]) -> Iterable[Word]:
    """The issuer stands in the origin that it signed (`bus.envelope.batch_origin`)."""
    issuer = body["checkpoint"].partition(b"\n")[0].rsplit(b"/", 3)[-3].decode()
    yield from _parties(None, issuer)


def _conflict(body: Mapping[str, Any]) -> Iterable[Word]:
    yield "record", body["first"].hex()
    yield "record", body["second"].hex()
    yield "code", Code.CONFLICT.value


def _ruling(body: Mapping[str, Any]) -> Iterable[Word]:
    yield "about", body["conflict"].hex()
    if body["stands"] is not None:
        yield "record", body["stands"].hex()


def _erasure(body: Mapping[str, Any]) -> Iterable[Word]:
    yield "record", body["record"].hex()


def _voided(body: Mapping[str, Any]) -> Iterable[Word]:
    yield "about", body["entry"].hex()
    yield "code", body["code"]


def _revision(body: Mapping[str, Any]) -> Iterable[Word]:
    yield from _parties(body["recipient"], body["grantor"])
    yield "party", body["author"]  # also where it is neither: the operator
    for item in body["items"]:
        yield "item", item
    yield "rule", f"{body['kind']}:{body['id']}@{body['revision']}"
    yield from _subjects(body)


def _evaluation(body: Mapping[str, Any]) -> Iterable[Word]:
    """By who asked; by whom and for what it was asked, not as those parties' own: nothing was opened."""
    yield from _parties(body["caller"], None)
    if body["operator"]:
        yield "operator", body["operator"]
    for answer in body["answers"]:
        yield "code", answer["code"]
        for rule in answer["rule"].split():
            yield "rule", rule


def _set_decision(body: Mapping[str, Any]) -> Iterable[Word]:
    """By what a decision is found by; its subjects find it by its root (`about`)."""
    yield from _parties(body["consumer"], body["provider"])
    for dimension in ("item", "purpose", "ground", "operator"):
        yield dimension, body[dimension]
    for digits in _DIGITS:
        if len(body["region"]) >= digits:
            yield "region", body["region"][:digits]
    if body["case"]:
        yield "case", body["case"]
    for section in body["sections"]:
        yield "section", section
    yield "code", Code.PERMIT.value
    yield "decision", "PERMIT"
    yield "about", body["root"].hex()
    for rule in body["rule"].split():
        yield "rule", rule


def _due(body: Mapping[str, Any]) -> Iterable[Word]:
    yield from _parties(body["consumer"], body["provider"])
    if body["item"]:
        yield "item", body["item"]
    yield "rule", f"{body['kind']}:{body['id']}"


def _reading(body: Mapping[str, Any]) -> Iterable[Word]:
    yield from _parties(body["reader"], None)
    if body["operator"]:
        yield "operator", body["operator"]
    yield from _subjects(body)


def _finding(body: Mapping[str, Any]) -> Iterable[Word]:
    """By its rule, its operator, and each entry that it shows as evidence.

    Not by `party`, which is how a department finds its own: whether it is told, an auditor decides.
    """
    yield "consumer", body["consumer"]
    yield "operator", body["operator"]
    yield "rule", f"supervision:{body['rule']}"
    for entry in body["entries"]:
        yield "about", entry.hex()


def _impact(body: Mapping[str, Any]) -> Iterable[Word]:
    """By both sides, by every record and licence that it concerns, and by each entry that it shows as evidence."""
    yield from _parties(body["addressee"], body["issuer"])
    yield "item", body["item"]
    yield "licence", body["licence"].hex()
    for record in (body["record"], *body["opened"], *(one["record"] for one in body["derived"])):
        yield "record", record.hex()
    for one in body["derived"]:
        yield "licence", one["licence"].hex()
    for entry in body["entries"]:
        yield "about", entry.hex()


def _parties(consumer: str | None, provider: str | None) -> Iterable[Word]:
    if consumer:
        yield "consumer", consumer
        yield "party", consumer
    if provider:
        yield "provider", provider
        yield "party", provider


def _subjects(body: Mapping[str, Any]) -> Iterable[Word]:
    for pseudonym in body["subjects"]:
        yield "subject", pseudonym.hex()


_BODIES = {
    "Decision": _decision,
    "Admitted": _admitted,
    "Conflict": _conflict,
    "Ruling": _ruling,
    "ErasureStarted": _erasure,
    "ErasureComplete": _erasure,
    "Voided": _voided,
    "Revision": _revision,
    "Reading": _reading,
    "Finding": _finding,
    "Impact": _impact,
    "Evaluation": _evaluation,
    "SetDecision": _set_decision,
    "Due": _due,
}
