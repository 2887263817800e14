"""Is an export of a log, or a proof, what the log's key has signed? Offline, and pure: files come from a function.

The checkpoint's root says what the hashes on the tree's right edge must be, those what each full tile must be, down to
the leaves, and those what each entry must be. So whatever was changed, what stands above it is known to be good, and
the place can be named. Memory does not grow with the log: a tile a level, and one bundle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bus import merkle
from bus.tlog import checkpoint, note, policy, tiles
from bus.tlog import proof as tlog_proof
from bus.tlog.checkpoint import Checkpoint
from bus.tlog.note import Verifier
from bus.tlog.policy import Policy
from bus.tlog.tiles import ENTRIES, FULL_BYTES, HASH_BYTES, HEIGHT, WIDTH, Edge, Tile
from schemas.errors import Code, DeptbusError, Malformed, Refused

CHECKPOINT = "checkpoint"
_NOTHING = bytes(HASH_BYTES)

Read = Callable[[str], bytes | None]  # a file of the export by its path in it; None: there is none
Advance = Callable[[int, int], None]  # so many bundles of so many


def signed(data: bytes, log: Verifier, whom: Policy | None = None, name: str = CHECKPOINT) -> Checkpoint:
    """The checkpoint in a note that the log's key has signed, and the policy's quorum of witnesses, if one is given.

    `name` is what the sentences call it. Raises `Malformed` (NOTE_INVALID), `Malformed` or `Refused`
    (SIGNATURE_INVALID).
    """
    try:
        found = note.parse(data)
        at = checkpoint.parse(found.text)
        by_log = note.verified(found, [log])
        cosigners = note.verified(found, [witness.verifier for witness in whom.witnesses] if whom else [])
    except DeptbusError as exc:
        raise type(exc)(exc.code, f"{name}: {exc.detail}") from exc
    if not by_log or at.origin != log.name:
        raise Refused(
            Code.SIGNATURE_INVALID, f"{name} is of {at.origin} and not signed by {log.vkey}: another key has signed it"
        )
    if whom is not None and not policy.satisfied(whom, cosigners):
        names = ", ".join(one.name for one in cosigners) or "nobody"
        raise Refused(
            Code.SIGNATURE_INVALID,
            f"{name} lacks cosignatures: the policy asks for {whom.quorum}, and of its witnesses {names} has signed",
        )
    return at


def verify_proof(data: bytes, log: Verifier, leaf: bytes | None = None, whom: Policy | None = None) -> Checkpoint:
    """The checkpoint under which a `.tlog-proof`'s entry is in the log; `leaf` is the leaf hash of what it must be.

    Raises `Malformed` or `Refused`: PROOF_INVALID, NOTE_INVALID, SIGNATURE_INVALID.
    """
    found = tlog_proof.parse(data)
    at = signed(found.note, log, whom, "the proof's checkpoint")
    tlog_proof.verify(found, leaf, log)
    if leaf is not None and found.extra is not None and merkle.leaf_hash(found.extra) != leaf:
        raise Refused(Code.PROOF_INVALID, "the entry that the proof carries (`extra`) is not the one that it proves")
    return at


def verify_tree(
    read: Read, log: Verifier, *, whom: Policy | None = None, since: bytes | None = None, advance: Advance | None = None
) -> Checkpoint:
    """The checkpoint of an export of which every file is good. `since` is an older checkpoint that it must go on from.

    Raises `Malformed` or `Refused` for the first thing that is wrong: LOG_TAMPERED names the file and the entry or hash
    in it; SIGNATURE_INVALID, NOTE_INVALID the checkpoint; LOG_FORK that it does not go on from `since`.
    """
    data = read(CHECKPOINT)
    if data is None:
        raise _tampered(f"{CHECKPOINT} is missing: the export was not finished, or it was taken away")
    at = signed(data, log, whom)
    older = None if since is None else signed(since, log, name="the older checkpoint")
    if older is not None and older.size > at.size:
        raise Refused(
            Code.LOG_FORK,
            f"{CHECKPOINT} states {at.size} entries, and there were {older.size} before: it is an older one, or "
            "entries were taken back",
        )
    tree = _Tree(read, at)
    tree.check_nothing_beyond()
    tree.check_edge()
    tree.check_bundles(advance or (lambda done, of: None))
    if older is not None and older.size:
        _check_goes_on(read, older, at)
    return at


def _check_goes_on(read: Read, older: Checkpoint, newer: Checkpoint) -> None:
    """By the tree's tiles, which are good."""
    ranges = tiles.consistency(older.size, newer.size)
    there = {tile: _read_any(read, tile, newer.size) for tile in tiles.tiles_for(ranges)}
    proof = tiles.hashes(ranges, there)
    try:
        merkle.verify_consistency(older.size, newer.size, older.root, newer.root, proof)
    except DeptbusError as exc:
        raise Refused(
            Code.LOG_FORK,
            f"the first {older.size} entries of {newer.origin} are not those of the older checkpoint: two histories "
            "were signed",
        ) from exc


class _Tree:
    """Looks through one export. Tiles that were found good are kept, one a level."""

    def __init__(self, read: Read, at: Checkpoint) -> None:
        self._read = read
        self._at = at
        self._edge = Edge(0)
        self._good: dict[int, tuple[int, bytes]] = {}

    def check_nothing_beyond(self) -> None:
        """An older checkpoint in the place of the newest would otherwise hide what came after."""
        edge = Tile(ENTRIES, self._at.size // WIDTH)
        for width in range(self._at.size % WIDTH + 1, WIDTH + 1):
            if self._read(tiles.path(edge, width)) is not None:
                raise _tampered(
                    f"{CHECKPOINT} states {self._at.size} entries, and {tiles.path(edge, width)} has more: an older "
                    "checkpoint stands in its place, or the export was not finished"
                )

    def check_edge(self) -> None:
        """The partial tiles give the signed root."""
        size = self._at.size
        there = {tile: self._file(tile, tiles.partial_width(size, tile.level)) for tile in tiles.edge_tiles(size)}
        self._edge = Edge.of(size, there)
        if self._edge.root() == self._at.root:
            return
        made = {tile: self._made(tile) for tile in there}
        if Edge.of(size, made).root() == self._at.root:  # what they are made of is good, so they are not
            for tile, hashes in there.items():
                _compare(tile, hashes, made[tile])
        raise _tampered(f"{CHECKPOINT} is signed for another tree: the hashes of its {size} entries give another root")

    def check_bundles(self, advance: Advance) -> None:
        """Every entry is the one that the tree holds at its place, and every tile on the way is good."""
        size = self._at.size
        of = -(-size // WIDTH)
        for number in range(of):
            self._check_bundle(number, self._hashes(Tile(0, number)))
            advance(number + 1, of)

    def _hashes(self, tile: Tile) -> bytes:
        """A tile's hashes, good ones: of a full tile the hash that stands above it is known."""
        if tile.number == self._at.size >> (HEIGHT * (tile.level + 1)):
            return self._edge.tails[tile.level]
        number, hashes = self._good.get(tile.level, (-1, b""))
        if number == tile.number:
            return hashes
        above = Tile(tile.level + 1, tile.number // WIDTH)
        place = tile.number % WIDTH
        root = self._hashes(above)[place * HASH_BYTES : (place + 1) * HASH_BYTES]
        hashes = self._file(tile, WIDTH)
        if tiles.perfect_root(hashes) != root:
            made = self._made(tile)
            if tiles.perfect_root(made) == root:
                _compare(tile, hashes, made)
            raise _tampered(f"{tiles.path(tile)} is not the tile whose hash stands at {place} in {tiles.path(above)}")
        self._good[tile.level] = (tile.number, hashes)
        return hashes

    def _check_bundle(self, number: int, leaves: bytes) -> None:
        width = len(leaves) // HASH_BYTES
        name = tiles.path(Tile(ENTRIES, number), width)
        data = self._read(name)
        if data is None:
            raise _tampered(f"{name} is missing")
        try:
            hashes = [merkle.leaf_hash(entry) for entry in tiles.split_bundle(data)]
        except Malformed as exc:
            raise _tampered(f"{name}: {exc.detail}") from exc
        wanted = [leaves[at : at + HASH_BYTES] for at in range(0, len(leaves), HASH_BYTES)]
        if hashes != wanted:
            raise _tampered(f"{name}, {_difference(hashes, wanted, number * WIDTH)}")

    def _made(self, tile: Tile) -> bytes:
        """The tile as the files below it make it; zeroes stand for what they lack."""
        width = min(WIDTH, (self._at.size >> (HEIGHT * tile.level)) - tile.number * WIDTH)
        if tile.level == 0:
            data = self._read(tiles.path(Tile(ENTRIES, tile.number), width)) or b""
            try:
                made = b"".join(map(merkle.leaf_hash, tiles.split_bundle(data)))
            except Malformed:
                made = b""
        else:
            below = (self._read(tiles.path(Tile(tile.level - 1, tile.number * WIDTH + n))) for n in range(width))
            made = b"".join(tiles.perfect_root(one) if one and len(one) == FULL_BYTES else _NOTHING for one in below)
        return made[: width * HASH_BYTES].ljust(width * HASH_BYTES, _NOTHING[:1])

    def _file(self, tile: Tile, width: int) -> bytes:
        name = tiles.path(tile, width)
        data = self._read(name)
        if data is None:
            raise _tampered(f"{name} is missing")
        if len(data) != width * HASH_BYTES:
            raise _tampered(f"{name} has {len(data)} bytes, not {width} hashes of {HASH_BYTES}")
        return data


def _difference(hashes: Sequence[bytes], wanted: Sequence[bytes], first: int) -> str:
    """What was done to a bundle: its first entry that is not the tree's."""
    at = next((n for n, pair in enumerate(zip(hashes, wanted, strict=False)) if pair[0] != pair[1]), None)
    if at is None:
        at = min(len(hashes), len(wanted))
    if len(hashes) < len(wanted):
        return f"entry {first + at}: it was removed, the bundle has {len(hashes)} entries of {len(wanted)}"
    if len(hashes) > len(wanted):
        return f"entry {first + at}: it was added, the bundle has {len(hashes)} entries where {len(wanted)} belong"
    if hashes[at] in wanted:
        return f"entry {first + at}: entry {first + wanted.index(hashes[at])} stands in its place, they were swapped"
    return f"entry {first + at}: it was changed, its hash is not the tree's"


def _compare(tile: Tile, is_: bytes, should: bytes) -> None:
    """Names the first hash that is not what it is made of. Raises `Malformed` (LOG_TAMPERED)."""
    for at in range(0, len(should), HASH_BYTES):
        if is_[at : at + HASH_BYTES] != should[at : at + HASH_BYTES]:
            name = tiles.path(tile, len(should) // HASH_BYTES)
            what = "entry" if tile.level == 0 else "tile"
            place = tile.number * WIDTH + at // HASH_BYTES
            raise _tampered(f"{name}, hash {at // HASH_BYTES}: it was changed, it is not the hash of {what} {place}")


def _read_any(read: Read, tile: Tile, size: int) -> bytes:
    width = min(WIDTH, (size >> (HEIGHT * tile.level)) - tile.number * WIDTH)
    return read(tiles.path(tile, width)) or b""


def _tampered(what: str) -> Malformed:
    return Malformed(Code.LOG_TAMPERED, what)
