"""How the log grows: a poll of the topic in; bundles, tiles and terms out. Pure.

The leaves are the topic's values in offset order, unparsed: no later version of this software changes the tree. What
cannot be an entry of C2SP tlog-tiles (absent, empty, above 65,535 bytes) is skipped and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from bus import merkle, terms
from bus.audit import Entry
from bus.terms import LISTED, Word
from bus.tlog import tiles
from bus.tlog.tiles import MAX_ENTRY_BYTES, WIDTH, Edge, Tile
from consent.decide import CHINA

EntryOf = Callable[[bytes], Entry | None]
Term = tuple[int, date, int]  # number of the word, day, number of the bundle

EMPTY = Edge()
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
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
    terms: dict[Term, int]
    words: set[Word]
    skipped: int


def grow(state: State, messages: Iterable[Message], entry_of: EntryOf | None) -> Growth:
    """The log after these messages. `entry_of` gives the entries that can be found, None for what means nothing."""
    bundles: list[Bundle] = []
    leaves: list[bytes] = []
    found: dict[Term, int] = {}
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
            _index(entry, (day, number), terms.bit(place), found, words)
        at += 1
    edge, changed = tiles.grow(state.edge, leaves)
    after = State(edge=edge, logged_at=logged_at, opened=opened, open_bytes=size)
    return Growth(state=after, bundles=bundles, tiles=changed, terms=found, words=words, skipped=skipped)


def _index(entry: Entry, where: tuple[date, int], bit: int, found: dict[Term, int], listed: set[Word]) -> None:
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
        key = (term, *where)
        found[key] = found.get(key, 0) | bit


def day_of(time: datetime) -> date:
    """The civil day in China."""
    return time.astimezone(CHINA).date()


def months(bundles: Sequence[Bundle]) -> set[date]:
    """The first days of the months that these rows need."""
    days = {bundle.opened for bundle in bundles}
    days |= {day_of(time) for bundle in bundles for time in (bundle.logged_at[0], bundle.logged_at[-1])}
    return {day.replace(day=1) for day in days}
