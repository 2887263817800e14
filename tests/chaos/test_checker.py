"""What the checker says of a log, beside one that is as it should be."""

from __future__ import annotations

import base64
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus.tlog.note import Note, NoteSigner
from tests.chaos.checker import WIDTH, Growing, StoredLog

LOG = NoteSigner("log.example/bus", Ed25519PrivateKey.generate())
THIEF = NoteSigner("log.example/bus", Ed25519PrivateKey.generate())
ENTRIES = [str(number).encode() for number in range(WIDTH + 7)]


@pytest.fixture
def tree() -> Growing:
    grown = Growing()
    for entry in ENTRIES:
        grown.add(sha256(b"\x00" + entry).digest())
    return grown


@pytest.fixture
def log(tree: Growing) -> StoredLog:
    return StoredLog(tree, LOG.verifier.vkey)


def _note(tree: Growing, size: int, signer: NoteSigner = LOG, root: bytes | None = None) -> bytes:
    text = f"log.example/bus\n{size}\n{base64.b64encode(root or tree.root(size)).decode()}\n"
    return Note(text, (signer.sign(text),)).encode()


def _compared(log: StoredLog, tree: Growing, note: bytes, before: int = 0, **other: object) -> list[str]:
    """A checkpoint and all of the log, or with something in it `other`."""
    size = len(ENTRIES)
    bundles = [b"".join(len(e).to_bytes(2) + e for e in ENTRIES[at : at + WIDTH]) for at in range(0, size, WIDTH)]
    stored = {
        "size": size,
        "root": tree.root(size),
        "tiles": {(level, n): tree.tile(level, n, size) for level, n in ((0, 0), (0, 1), (1, 0))},
        "bundles": dict(enumerate(bundles)),
    }
    return log.served(note, before) + log.compare(**(stored | other))  # type: ignore[arg-type]


def test_a_log_as_its_topic_says(log: StoredLog, tree: Growing) -> None:
    """Nothing to say, however often it is looked at."""
    assert [_compared(log, tree, _note(tree, size)) for size in (200, 263, 263)] == [[], [], []]
    assert (log.checkpoint, log.checkpoints) == (263, 2)


def test_what_is_not_as_the_topic_says(log: StoredLog, tree: Growing) -> None:
    """Each by its name."""
    note = _note(tree, 263)
    assert _compared(log, tree, note, root=tree.root(262)) == ["the log's root at 263 is another"]
    log = StoredLog(tree, LOG.verifier.vkey)
    assert _compared(log, tree, note, bundles={0: b""}) == ["bundle 0 is another", "bundle 1 is another"]
    log = StoredLog(tree, LOG.verifier.vkey)
    assert _compared(log, tree, note, tiles={(0, 0): tree.tile(0, 0, 263)}) == [
        "tile 0/1 is another",
        "tile 1/0 is another",
    ]
    assert _compared(log, tree, note, size=255, root=tree.root(255)) == ["the log shrank from 263 to 255"]


def test_checkpoints(log: StoredLog, tree: Growing) -> None:
    """A checkpoint that went back, one of another history, and ones that the log never signed."""
    assert log.served(_note(tree, 200), 0) == []
    assert log.served(_note(tree, 100), 200) == ["a checkpoint of 100 after one of 200"]
    assert log.served(_note(tree, 263, THIEF), 200) == ["a checkpoint's signature does not hold"]
    assert log.served(_note(tree, 200, root=bytes(32)), 200) == []  # until the topic is read, nobody knows
    assert _compared(log, tree, _note(tree, 263), 200) == ["a signed checkpoint of 200 has another root"]


def test_two_are_read_at_once(log: StoredLog, tree: Growing) -> None:
    """A checkpoint that was read before a larger one, and is looked at after it, did not go back."""
    assert log.served(_note(tree, 263), 0) == []
    assert _compared(log, tree, _note(tree, 200), 0) == []
    assert log.checkpoint == 263
