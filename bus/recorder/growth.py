"""How the log grows: a poll of the topic in; bundles, tiles and terms out. Pure.

The leaves are the topic's values in offset order, unparsed: no later version of this software changes the tree. What
cannot be an entry of C2SP tlog-tiles (absent, empty, above 65,535 bytes) is skipped and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from struct import Struct

from bus import merkle, terms
from bus.audit import Entry
from bus.terms import LISTED, Word
from bus.tlog import tiles
from bus.tlog.tiles import MAX_ENTRY_BYTES, WIDTH, Edge, Tile
from consent.decide import CHINA

EntryOf = Callable[[bytes], Entry | None]
Where = tuple[date, int]  # a day, and the number of a bundle
Terms = dict[Where, dict[int, int]]  # in each, every term's bits

EMPTY = Edge()
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BITS_BYTES = WIDTH // 8
# A head without flags, a row of four fields behind their lengths, the end ('Binary Format' of PostgreSQL's COPY).
_COPY_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_ROW = Struct(f"!h iq ii ii ii{_BITS_BYTES}s").pack
_COPY_END = b"\xff\xff"
_COPY_EPOCH = date(2000, 1, 1).toordinal()
_KNOWN_TERMS = 100_000  # words with few values: every operator of a province, some 20 MiB
_known_terms: dict[Word, int] = {}


@dataclass(frozen=True, slots=True)
class Message:
    """A value of the topic. `time` is the broker's."""

    offset: int
    time: datetime
    value: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """All that growing needs to know. `opened` and `open_bytes` are of the bundle on the edge, if it has entries."""

    edge: Edge = EMPTY
    logged_at: datetime = EPOCH
    opened: date = date.min
    open_bytes: int = 0


@dataclass(slots=True)
class Bundle:
    """What is new in a bundle. A bundle that had entries before goes on: its arrays are appended to."""

    number: int
    opened: date
    starts: list[int] = field(default_factory=list)
    logged_at: list[datetime] = field(default_factory=list)
    entries: bytearray = field(default_factory=bytearray)


@dataclass(slots=True)
class Growth:
    """What is to be written, in one transaction."""

    state: State
    bundles: list[Bundle]
    tiles: Mapping[Tile, bytes]
    terms: Terms
    words: set[Word]
    skipped: int
    erasures: list[Entry] = field(default_factory=list)
    ends: list[Entry] = field(default_factory=list)


def grow(state: State, messages: Iterable[Message], entry_of: EntryOf | None) -> Growth:
    """The log after these messages. `entry_of` gives the entries that can be found, None for what means nothing."""
    bundles: list[Bundle] = []
    leaves: list[bytes] = []
    found: Terms = {}
    words: set[Word] = set()
    skipped = 0
    at, logged_at = state.edge.size, state.logged_at
    opened, size = state.opened, state.open_bytes
    for message in messages:
        value = message.value
        if not value or len(value) > MAX_ENTRY_BYTES:
            skipped += 1
            continue
        logged_at = max(logged_at, message.time)  # a leader with a clock that is behind does not turn the log's back
        day = day_of(logged_at)
        number, place = divmod(at, WIDTH)
        if place == 0:
            opened, size = day, 0
        if not bundles or place == 0:
            bundles.append(Bundle(number, opened))
        bundle = bundles[-1]
        bundle.starts.append(size + 2)
        bundle.logged_at.append(logged_at)
        bundle.entries += len(value).to_bytes(2) + value
        size += 2 + len(value)
        leaves.append(merkle.leaf_hash(value))
        entry = entry_of(value) if entry_of is not None else None
        if entry is not None:
            _index(entry, terms.bit(place), found.setdefault((day, number), {}), words)
        at += 1
    edge, changed = tiles.grow(state.edge, leaves)
    after = State(edge=edge, logged_at=logged_at, opened=opened, open_bytes=size)
    return Growth(state=after, bundles=bundles, tiles=changed, terms=found, words=words, skipped=skipped)


def _index(entry: Entry, bit: int, found: dict[int, int], listed: set[Word]) -> None:
    for word in terms.words(entry):
        if word[0] in LISTED:
            listed.add(word)
            term = _known_terms.get(word)
            if term is None:
                if len(_known_terms) >= _KNOWN_TERMS:
                    _known_terms.clear()
                term = _known_terms[word] = terms.term(word)
        else:
            term = terms.term(word)
        found[term] = found.get(term, 0) | bit


def copied(found: Terms) -> bytes:
    """Rows of `log_term` (term, day, bundle, bits) as COPY reads them in PostgreSQL's binary format.

    There are seven an entry: through a driver's own encoding they cost as much as all hashing.
    """
    rows = [_COPY_HEAD]
    for (day, bundle), bits_of in found.items():
        days = day.toordinal() - _COPY_EPOCH
        rows += [
            _COPY_ROW(4, 8, term, 4, days, 4, bundle, 4 + _BITS_BYTES, WIDTH, bits.to_bytes(_BITS_BYTES))
            for term, bits in sorted(bits_of.items())
        ]
    return b"".join((*rows, _COPY_END))


def day_of(time: datetime) -> date:
    """The civil day in China."""
    return time.astimezone(CHINA).date()


def months(grown: Growth) -> set[date]:
    """The first days of the months that the rows need: of an idle log a bundle may span a year."""
    days = {bundle.opened for bundle in grown.bundles} | {day for day, _ in grown.terms}
    return {day.replace(day=1) for day in days}
