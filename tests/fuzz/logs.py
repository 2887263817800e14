"""Targets: the log's notes, checkpoints, proofs, policies and files, as other projects write them, too."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus import merkle
from bus.tlog import checkpoint, note, policy, tiles, verify, witness
from bus.tlog import proof as tlog_proof
from bus.tlog.checkpoint import Checkpoint
from bus.tlog.note import Algorithm, Note, NoteSigner, Verifier
from bus.tlog.proof import TlogProof
from bus.tlog.tiles import ENTRIES, WIDTH, Edge
from bus.tlog.witness import Submission, Witness
from tests.fuzz.target import Target, chosen, in_file, text
from tests.vectors.world import fixed

ORIGIN = "bus.example/log/330000"
SIZE = 300
LOG = NoteSigner(ORIGIN, Ed25519PrivateKey.from_private_bytes(fixed("fuzz log")))
COSIGNER = NoteSigner("witness.example/a", Ed25519PrivateKey.from_private_bytes(fixed("fuzz witness")), Algorithm(4))
LEAVES = [merkle.leaf_hash(b"entry %d" % n) for n in range(SIZE)]
POLICY = f"""# Whom to believe
log {LOG.verifier.vkey} https://bus.example/log
witness a {COSIGNER.verifier.vkey}
group g any a
quorum g
""".encode()


def _signed(size: int) -> Note:
    state = Checkpoint(ORIGIN, size, merkle.root(LEAVES[:size]))
    return Note(state.text, (LOG.sign(state.text), COSIGNER.sign(state.text, 1_750_000_000)))


def _proof(index: int, extra: bytes | None) -> bytes:
    path = merkle.paths(merkle.levels(LEAVES))[index]
    return TlogProof(index, tuple(path), _signed(SIZE).encode(), extra).encode()


@cache
def _files() -> dict[str, bytes]:
    """A good log, as C2SP tlog-tiles names its files."""
    _, made = tiles.grow(Edge(), LEAVES)
    files = {"checkpoint": _signed(SIZE).encode()}
    for tile, width in tiles.widths(SIZE):
        first = tile.number * WIDTH
        entries = [b"entry %d" % n for n in range(first, first + width)]
        files[tiles.path(tile, width)] = tiles.encode_bundle(entries) if tile.level == ENTRIES else made[tile]
    return files


def _note(data: bytes) -> None:
    read = note.parse(data)
    assert read.encode() == data
    state = checkpoint.parse(read.text, extensions=True)
    assert read.text.startswith(state.text)
    note.verified(read, [LOG.verifier, COSIGNER.verifier])


def _tlog_proof(data: bytes) -> None:
    assert tlog_proof.parse(data).encode() == data
    verify.verify_proof(data, LOG.verifier, None, policy.parse(POLICY))


def _policy(data: bytes) -> None:
    policy.satisfied(policy.parse(data), [COSIGNER.verifier])


class _Remembered:
    """Every checkpoint is the first one: what a record keeps is no parser's matter."""

    def latest(self, origin: str) -> Checkpoint | None:
        return None

    def advance(self, old: Checkpoint | None, new: Checkpoint, note: bytes) -> bool:
        return True


_WITNESS = Witness(COSIGNER, [LOG.verifier], _Remembered())


def _submission(data: bytes) -> None:
    assert witness.parse(data).encode() == data
    _WITNESS.add_checkpoint(data, 1_750_000_000)


def _export(data: bytes) -> None:
    """A good log of which one file is another one."""
    names = sorted(_files())
    files = _files() | ({names[data[0] % len(names)]: data[1:]} if data else {})
    verify.verify_tree(files.get, LOG.verifier, whom=policy.parse(POLICY), since=_signed(7).encode())


def _export_seeds() -> Iterator[bytes]:
    for number, name in enumerate(sorted(_files())):
        yield bytes([number]) + _files()[name]


def _path(data: bytes) -> None:
    tile, width = tiles.parse_path(text(data))
    assert tiles.path(tile, width) == text(data)


def _bundle(data: bytes) -> None:
    assert tiles.encode_bundle(tiles.split_bundle(data)) == data


def _vkey(data: bytes) -> None:
    assert Verifier.from_vkey(text(data)).vkey == text(data)


def _signer(file: Path) -> None:
    NoteSigner.load(file)


def _signer_seeds() -> Iterator[bytes]:
    yield LOG._encoded().encode()
    yield COSIGNER._encoded().encode()


_SMALL_RUN, _SMALL_SEEDS = chosen(
    (_path, lambda: (tiles.path(tile, width).encode() for tile, width in tiles.widths(70_000))),
    (_bundle, lambda: (_files()["tile/entries/000"], tiles.encode_bundle([b"", b"a"]))),
    (_vkey, lambda: (LOG.verifier.vkey.encode(), COSIGNER.verifier.vkey.encode())),
    (in_file("note.key", _signer), _signer_seeds),
)

TARGETS = (
    Target(name="note", run=_note, seeds=lambda: (_signed(n).encode() for n in (0, 1, SIZE))),
    Target(name="tlog-proof", run=_tlog_proof, seeds=lambda: (_proof(5, b"entry 5"), _proof(0, None))),
    Target(name="tlog-policy", run=_policy, seeds=lambda: (POLICY, b"quorum none\n")),
    Target(
        name="witness",
        run=_submission,
        seeds=lambda: (Submission(0, (), _signed(SIZE)).encode(), Submission(7, (LEAVES[0],), _signed(9)).encode()),
    ),
    Target(name="log-export", run=_export, seeds=_export_seeds),
    Target(name="tiles-and-keys", run=_SMALL_RUN, seeds=_SMALL_SEEDS),
)
