"""What our code writes, other people's code accepts; what somebody changed, it refuses."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus import envelope, merkle
from bus.recorder.witnesses import Witnesses
from bus.tlog import note, policy, tiles
from bus.tlog.checkpoint import Checkpoint
from bus.tlog.note import Algorithm, Note, NoteSigner
from bus.tlog.proof import TlogProof
from bus.tlog.tiles import ENTRIES, WIDTH, Edge, Tile
from bus.trust import Trust
from tests.go.programs import Programs, batch_proof

VECTORS = Path(__file__).parents[1] / "vectors" / "record"
ORIGIN = "bus.example/log/330000"
SIZE = 66_600  # three levels of tiles, each with a partial one
SIZES = (1, 2, 3, 255, 256, 257, 65_535, 65_536, 65_537, SIZE)


@dataclass(frozen=True, slots=True)
class Log:
    """A log that our code grew, as files in a folder."""

    folder: Path
    entries: list[bytes]
    tiles: dict[Tile, bytes]
    signer: NoteSigner

    @property
    def vkey(self) -> str:
        return self.signer.verifier.vkey

    def checkpoint(self, size: int = SIZE) -> Checkpoint:
        return Checkpoint(ORIGIN, size, Edge.of(size, self.tiles).root())

    def note(self, size: int = SIZE, *cosigners: NoteSigner) -> bytes:
        text = self.checkpoint(size).text
        cosignatures = [one.sign(text, int(time.time())) for one in cosigners]
        return Note(text, (self.signer.sign(text), *cosignatures)).encode()

    def consistency(self, old: int, new: int) -> list[bytes]:
        return tiles.hashes(tiles.consistency(old, new), self.tiles)

    def proof(self, index: int, size: int, *cosigners: NoteSigner) -> TlogProof:
        path = tiles.hashes(tiles.inclusion(index, size), self.tiles)
        return TlogProof(index, tuple(path), self.note(size, *cosigners), self.entries[index])


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    """Grown in uneven steps."""
    folder = tmp_path_factory.mktemp("log")
    entries = [f"entry {n} ".encode() * (n % 5 + 1) for n in range(SIZE)]
    edge, grown = Edge(), dict[Tile, bytes]()
    for size in (1, 256, 300, 1_111, 65_536, SIZE):
        edge, changed = tiles.grow(edge, [merkle.leaf_hash(one) for one in entries[edge.size : size]])
        grown.update(changed)
    made = Log(folder, entries, grown, NoteSigner(ORIGIN, Ed25519PrivateKey.generate()))
    for tile, width in tiles.widths(SIZE):
        begin = tile.number * WIDTH
        bundle = tile.level == ENTRIES
        data = tiles.encode_bundle(entries[begin : begin + width]) if bundle else grown[tile]
        _write(folder / tiles.path(tile, width), data)
    _write(folder / "checkpoint", made.note())
    _write(folder / "log.vkey", f"{made.vkey}\n".encode())
    return made


def test_a_whole_log(programs: Programs, log: Log) -> None:
    assert _both(programs, log) == (True, True)


Damage = Callable[[Log], tuple[str, bytes]]


def _flipped(path: str) -> Damage:
    def damage(log: Log) -> tuple[str, bytes]:
        data = bytearray((log.folder / path).read_bytes())
        data[-1] ^= 1
        return path, bytes(data)

    return damage


def _swapped(log: Log) -> tuple[str, bytes]:
    return "tile/entries/001", tiles.encode_bundle([log.entries[257], log.entries[256], *log.entries[258:512]])


def _of_another_key(log: Log) -> tuple[str, bytes]:
    text = log.checkpoint().text
    return "checkpoint", Note(text, (NoteSigner(ORIGIN, Ed25519PrivateKey.generate()).sign(text),)).encode()


def _of_another_tree(log: Log) -> tuple[str, bytes]:
    text = Checkpoint(ORIGIN, SIZE, bytes(32)).text
    return "checkpoint", Note(text, (log.signer.sign(text),)).encode()


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(_flipped("tile/entries/000"), id="entry"),
        pytest.param(_flipped("tile/0/255"), id="tile"),
        pytest.param(_flipped("tile/1/000"), id="tile above"),
        pytest.param(_flipped("tile/2/000.p/1"), id="tile at the top"),
        pytest.param(_swapped, id="entries swapped"),
        pytest.param(_of_another_key, id="another key"),
        pytest.param(_of_another_tree, id="another root"),
    ],
)
def test_a_damaged_log(programs: Programs, log: Log, damage: Damage) -> None:
    """So that the verifiers' consent above means something."""
    path, data = damage(log)
    with _replaced(log.folder / path, data):
        assert _both(programs, log) == (False, False)


def test_consistency(programs: Programs, log: Log, tmp_path: Path) -> None:
    """Proofs that we make, and proofs that the program makes out of our tiles."""
    for size in SIZES:
        _write(tmp_path / str(size), log.note(size))
    lines = tmp_path / "lines"
    for old, new in pairwise(SIZES):
        pair = (tmp_path / str(old), tmp_path / str(new))
        _write(lines, b"".join(b64encode(one) + b"\n" for one in log.consistency(old, new)))
        for proof in (("--lines", lines), ("--tiles", log.folder)):
            assert programs.verify("consistency", "--key", log.vkey, *proof, *pair).holds
            assert not programs.verify("consistency", "--key", log.vkey, *proof, *reversed(pair)).holds


def test_proofs_of_entries(programs: Programs, log: Log, tmp_path: Path) -> None:
    """Proof files at places where paths have different forms, under a policy of two witnesses."""
    first, second, other = (
        NoteSigner(f"witness.example/{name}", Ed25519PrivateKey.generate(), Algorithm.COSIGNATURE_V1)
        for name in ("w1", "w2", "w3")
    )
    quorum, file = tmp_path / "policy", tmp_path / "entry.tlog-proof"
    lines = [
        f"log {log.vkey}",
        *(f"witness {w.verifier.name} {w.verifier.vkey} http://localhost" for w in (first, second)),
    ]
    lines += [f"group both all {first.verifier.name} {second.verifier.name}", "quorum both"]
    _write(quorum, "\n".join([*lines, ""]).encode())
    keys = ("--key", log.vkey, "--policy", quorum)
    for index, size in ((0, 1), (1, 3), (255, 256), (256, 257), (65_535, 65_536), (300, SIZE), (SIZE - 1, SIZE)):
        made = log.proof(index, size, other, first, second)
        _write(file, made.encode())
        assert programs.verify("proof", *keys, file) == (True, f"entry {index} is in {ORIGIN} of size {size}")
        _write(file, replace(made, extra=b"another entry").encode())
        assert not programs.verify("proof", *keys, file).holds
    for cosigners in ((first, other), (second,)):
        made = log.proof(0, SIZE, *cosigners)
        _write(file, made.encode())
        assert not programs.verify("proof", *keys, file).holds
        cosigned = note.verified(note.parse(made.note), [one.verifier for one in (first, second, other)])
        assert not policy.satisfied(policy.parse(quorum.read_bytes()), cosigned), "and we see it so, too"


def test_batches_of_records(programs: Programs, tmp_path: Path) -> None:
    """The records of our own vectors: their signatures cover checkpoints like the log's."""
    records = [_batch_proof(json.loads(file.read_text("utf-8"))) for file in sorted(VECTORS.glob("ok*.json"))]
    file = tmp_path / "batch.json"
    _write(file, json.dumps(records).encode())
    assert programs.verify("batch", file) == (True, f"{len(records)} records stand under their batches' signatures")
    for name in ("leaf", "signature", "public_key"):
        changed = records[0] | {name: records[0][name][:-1] + ("0" if records[0][name][-1] != "0" else "1")}
        _write(file, json.dumps([*records, changed]).encode())
        assert not programs.verify("batch", file).holds


def _batch_proof(vector: Any) -> dict[str, Any]:
    trust = Trust(bytes.fromhex(vector["authority"]))
    for value in vector["certificates"]:
        trust.add(bytes.fromhex(value))
    record = envelope.parse(bytes.fromhex(vector["value"]))
    return batch_proof(record, trust, vector["origin"], datetime.fromisoformat(vector["broker_time"]))


def test_a_witness(programs: Programs, log: Log) -> None:
    """Its cosignature is good to us, and so are its refusals' statuses: the rules of C2SP tlog-witness."""
    other = Log(log.folder, log.entries, log.tiles, NoteSigner(ORIGIN, Ed25519PrivateKey.generate()))
    stranger = NoteSigner("bus.example/log/000000", Ed25519PrivateKey.generate())
    unknown = Checkpoint(stranger.verifier.name, 3, bytes(32)).text
    fork = Checkpoint(ORIGIN, 257, bytes(32)).text
    forked = Note(fork, (log.signer.sign(fork),)).encode()
    with programs.witness(log.vkey) as witness:

        def add(old: int, signed: bytes, proof: Sequence[bytes] = ()) -> httpx.Response:
            lines = "".join(f"{b64encode(one).decode()}\n" for one in proof)
            return httpx.post(f"{witness.url}/add-checkpoint", content=f"old {old}\n{lines}\n".encode() + signed)

        def cosigns(old: int, new: int) -> None:
            signed = note.parse(log.note(new))
            answer = add(old, signed.encode(), log.consistency(old, new))
            assert answer.status_code == 200, answer.text
            cosignature = note.Signature.from_line(answer.text.removesuffix("\n"))
            made = witness.verifier.verify(signed.text, cosignature)
            assert made is not None
            assert abs(made - time.time()) < 60

        cosigns(0, 256)
        cosigns(256, 256)
        late = add(0, log.note(257))
        assert (late.status_code, late.headers["content-type"], late.text) == (409, "text/x.tlog.size", "256\n")
        assert add(256, forked, log.consistency(256, 257)).status_code == 422
        assert add(256, log.note(257)).status_code == 422
        assert add(256, log.note(255)).status_code == 400
        assert add(256, other.note(257), log.consistency(256, 257)).status_code == 403
        assert add(0, Note(unknown, (stranger.sign(unknown),)).encode()).status_code == 404
        cosigns(256, SIZE)


async def test_a_recorder_and_a_witness(programs: Programs, log: Log) -> None:
    """Our client follows the witness from where it stands, also after it has forgotten where that was."""

    async def proof(old: int, new: int) -> list[bytes]:
        return log.consistency(old, new)

    async with httpx.AsyncClient(trust_env=False) as http:
        with programs.witness(log.vkey) as witness:
            line = f"witness go {witness.verifier.vkey} {witness.url}\nquorum go\n"
            for sizes in ((256, 257, 257), (65_537, SIZE)):
                client = Witnesses(policy.parse(line.encode()), http, proof)
                for size in sizes:
                    signed = note.parse(log.note(size))
                    [cosignature] = await client.cosign(signed, log.checkpoint(size))
                    assert note.verified(signed.signed(cosignature), [witness.verifier]) == (witness.verifier,)


def _both(programs: Programs, log: Log) -> tuple[bool, bool]:
    """What Tessera's fsck and the program say of the folder."""
    fsck = programs.fsck(log.folder.as_uri(), log.folder / "log.vkey")
    return fsck.holds, programs.verify("tree", "--key", log.vkey, log.folder).holds


@contextmanager
def _replaced(path: Path, data: bytes) -> Iterator[None]:
    good = path.read_bytes()
    assert data != good
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(good)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
