"""An export is good as a whole, or the one thing that was done to it is named; an export that was cut off goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus import logexport, merkle
from bus.tlog import tiles, verify
from bus.tlog.checkpoint import checkpoint_text
from bus.tlog.note import Algorithm, Note, NoteSigner, Signature
from bus.tlog.policy import Policy, Witness
from bus.tlog.proof import TlogProof
from bus.tlog.tiles import ENTRIES, HASH_BYTES, WIDTH, Edge, Tile
from schemas.errors import Code, DeptbusError, Unavailable

ORIGIN = "deptbus.test/log/330000"
SIGNER = NoteSigner(ORIGIN, Ed25519PrivateKey.generate())
LOG = SIGNER.verifier
WITNESS = NoteSigner("witness.test/a", Ed25519PrivateKey.generate(), Algorithm.COSIGNATURE_V1)
SIZE = 70_000  # three levels of tiles: 273 full bundles and one of 112 entries
ENTRIES_ = [f"entry {n}, of a length of its own {'x' * (n % 7)}".encode() for n in range(SIZE)]

Files = dict[str, bytes]


def signed(size: int, root: bytes, signer: NoteSigner = SIGNER, *more: Signature) -> bytes:
    text = checkpoint_text(ORIGIN, size, root)
    return Note(text, (signer.sign(text), *more)).encode()


def log_of(entries: list[bytes], *steps: int) -> Files:
    """The files of a log, as C2SP tlog-tiles names them; `steps` are sizes whose checkpoints are kept beside it."""
    edge, made = Edge(), dict[Tile, bytes]()
    files: Files = {}
    for size in (*steps, len(entries)):
        edge, changed = tiles.grow(edge, [merkle.leaf_hash(entry) for entry in entries[edge.size : size]])
        made |= changed
        files[f"checkpoint {size}"] = signed(size, edge.root())
    for tile, width in tiles.widths(len(entries)):
        if tile.level == ENTRIES:
            first = tile.number * WIDTH
            files[tiles.path(tile, width)] = tiles.encode_bundle(entries[first : first + width])
        else:
            files[tiles.path(tile, width)] = made[tile]
    return files | {"checkpoint": files[f"checkpoint {len(entries)}"]}


GOOD = log_of(ENTRIES_, 1, 300, 65_536)


def refusal(files: Files, **options: bytes | Policy) -> DeptbusError:
    with pytest.raises(DeptbusError) as refused:
        verify.verify_tree(files.get, LOG, **options)  # type: ignore[arg-type]
    return refused.value


def bundle(number: int, change: Callable[[list[bytes]], list[bytes]]) -> Files:
    """The good log with other entries in one bundle."""
    path = next(path for path in GOOD if path.startswith(f"tile/entries/{number:03d}"))
    return GOOD | {path: tiles.encode_bundle(change(tiles.split_bundle(GOOD[path])))}


def flipped(path: str, at: int) -> Files:
    data = GOOD[path]
    return GOOD | {path: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]}


def without(*paths: str) -> Files:
    return {path: data for path, data in GOOD.items() if path not in paths}


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 512, 65_536, SIZE])
def test_a_good_log_is_good(size: int) -> None:
    files = GOOD if size == SIZE else log_of(ENTRIES_[:size])
    seen: list[tuple[int, int]] = []
    at = verify.verify_tree(files.get, LOG, advance=lambda done, of: seen.append((done, of)))
    assert at.size == size
    assert seen == [(n + 1, -(-size // WIDTH)) for n in range(-(-size // WIDTH))]


@pytest.mark.parametrize("since", [1, 300, 65_536, SIZE])
def test_it_goes_on_from_what_was_signed_before(since: int) -> None:
    assert verify.verify_tree(GOOD.get, LOG, since=GOOD[f"checkpoint {since}"]).size == SIZE


def test_entries_that_were_changed_are_named() -> None:
    said = {
        "changed": bundle(7, lambda e: [*e[:20], b"another", *e[21:]]),
        "removed": bundle(7, lambda e: [*e[:20], *e[21:]]),
        "the last removed": bundle(7, lambda e: e[:-1]),
        "added": bundle(273, lambda e: [*e[:20], b"another", *e[20:]]),
        "added to a full one": bundle(7, lambda e: [*e, b"another"]),
        "swapped": bundle(7, lambda e: [*e[:20], e[30], *e[21:30], e[20], *e[31:]]),
        "in the last bundle": bundle(273, lambda e: [*e[:20], b"another", *e[21:]]),
        "a bit of an entry": flipped("tile/entries/007", 400),
    }
    found = {name: refusal(files) for name, files in said.items()}
    assert {error.code for error in found.values()} == {Code.LOG_TAMPERED}
    at = 7 * WIDTH + 20
    assert f"tile/entries/007, entry {at}: it was changed" in found["changed"].detail
    assert f"tile/entries/007, entry {at}: it was removed" in found["removed"].detail
    assert f"tile/entries/007, entry {8 * WIDTH - 1}: it was removed" in found["the last removed"].detail
    assert f"tile/entries/273.p/112, entry {273 * WIDTH + 20}: it was added" in found["added"].detail
    assert found["added to a full one"].detail.startswith("tile/entries/007: ")
    assert f"tile/entries/007, entry {at}: entry {at + 10} stands in its place" in found["swapped"].detail
    assert f"tile/entries/273.p/112, entry {273 * WIDTH + 20}: " in found["in the last bundle"].detail
    assert "tile/entries/007" in found["a bit of an entry"].detail


@pytest.mark.parametrize("path", [p for p in GOOD if p.startswith("tile/") and "entries" not in p and p[-3:] < "010"]
                         + ["tile/0/272", "tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"])  # fmt: skip
def test_every_tile_that_was_changed_is_named_with_its_hash(path: str) -> None:
    last = len(GOOD[path]) // HASH_BYTES - 1
    for at in {0, last}:
        error = refusal(flipped(path, at * HASH_BYTES + 5))
        assert error.code is Code.LOG_TAMPERED
        assert error.detail.startswith(f"{path}, hash {at}: it was changed"), error.detail
    assert refusal(without(path)).detail == f"{path} is missing"
    assert refusal(GOOD | {path: GOOD[path][:-1]}).detail.startswith(f"{path} has ")


def test_a_forger_who_makes_every_tile_anew_is_stopped_by_the_root() -> None:
    forged = log_of([*ENTRIES_[:500], b"forged", *ENTRIES_[501:]]) | {"checkpoint": GOOD["checkpoint"]}
    assert "checkpoint is signed for another tree" in refusal(forged).detail
    # With the upper tiles left as they are, the place is found.
    assert (
        "tile/0/001 is not the tile whose hash stands at 1 in tile/1/000"
        in refusal(GOOD | {path: forged[path] for path in ("tile/entries/001", "tile/0/001")}).detail
    )


def test_checkpoints_that_are_not_the_newest_or_anothers() -> None:
    assert (
        "tile/entries/001 has more: an older checkpoint"
        in refusal(GOOD | {"checkpoint": GOOD["checkpoint 300"]}).detail
    )
    assert "tile/entries/256 has more" in refusal(GOOD | {"checkpoint": GOOD["checkpoint 65536"]}).detail
    assert refusal(without("checkpoint")).detail.startswith("checkpoint is missing")

    # Cut back whole, only who saw more can tell.
    shorter = log_of(ENTRIES_[:300])
    verify.verify_tree(shorter.get, LOG)
    assert refusal(shorter, since=GOOD["checkpoint"]).code is Code.LOG_FORK
    other = log_of([b"forged", *ENTRIES_[1:400]])
    assert refusal(other, since=GOOD["checkpoint 300"]).code is Code.LOG_FORK

    stranger = NoteSigner(ORIGIN, Ed25519PrivateKey.generate())
    root = merkle.root([merkle.leaf_hash(entry) for entry in ENTRIES_])
    error = refusal(GOOD | {"checkpoint": signed(SIZE, root, stranger)})
    assert (error.code, LOG.vkey in error.detail) == (Code.SIGNATURE_INVALID, True)
    text = GOOD["checkpoint"]
    assert refusal(GOOD | {"checkpoint": text.replace(b"\n70000\n", b"\n70001\n")}).code is Code.SIGNATURE_INVALID
    assert refusal(GOOD | {"checkpoint": text[:-5]}).detail.startswith("checkpoint: ")


def test_cosignatures_that_a_policy_asks_for() -> None:
    whom = Policy(witnesses=(Witness("a", WITNESS.verifier),), quorum="a")
    error = refusal(GOOD, whom=whom)
    assert (error.code, "the policy asks for a" in error.detail) == (Code.SIGNATURE_INVALID, True)
    at = verify.signed(GOOD["checkpoint"], LOG)
    cosigned = signed(at.size, at.root, SIGNER, WITNESS.sign(at.text, 1_700_000_000))
    assert verify.verify_tree((GOOD | {"checkpoint": cosigned}).get, LOG, whom=whom) == at


def test_a_proof_shows_the_entry_that_is_meant() -> None:
    index = 500
    made = {tile: GOOD[tiles.path(tile, width)] for tile, width in tiles.widths(SIZE) if tile.level != ENTRIES}
    path = tuple(tiles.hashes(tiles.inclusion(index, SIZE), made))
    leaf, other = merkle.leaf_hash(ENTRIES_[index]), merkle.leaf_hash(b"another")
    bare = TlogProof(index, path, GOOD["checkpoint"])
    full = TlogProof(index, path, GOOD["checkpoint"], ENTRIES_[index])
    assert verify.verify_proof(full.encode(), LOG).size == SIZE
    assert verify.verify_proof(bare.encode(), LOG, leaf).size == SIZE
    forged = TlogProof(index, path, GOOD["checkpoint"], b"another")
    for wrong, meant in ((full, other), (bare, None), (bare, other), (forged, None), (forged, leaf)):
        with pytest.raises(DeptbusError) as refused:
            verify.verify_proof(wrong.encode(), LOG, meant)
        assert refused.value.code is Code.PROOF_INVALID


class Served:
    """A log that is read, and may go away after so many files."""

    def __init__(self, files: Files, until: int = 10**9) -> None:
        self.files = files
        self.left = until
        self.asked: list[str] = []

    async def checkpoint(self) -> bytes:
        return self.files["checkpoint"]

    async def tile(self, path: str) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise Unavailable(Code.GATEWAY_UNAVAILABLE, "away")
        self.asked.append(path)
        return self.files[path]


def exported(folder: Path, served: Served) -> int:
    return asyncio.run(logexport.export(folder, served, LOG, lambda done, of: None)).fetched


def files_in(folder: Path) -> Files:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_an_export_is_the_log_and_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    first, second = log_of(ENTRIES_[:3_000]), log_of(ENTRIES_[:5_000])
    with pytest.raises(Unavailable):
        exported(tmp_path, Served(first, until=20))
    assert not (tmp_path / "checkpoint").exists()
    there = files_in(tmp_path)
    assert there
    (tmp_path / "tile" / "entries" / "001.new").write_bytes(b"half")

    rest = Served(first)
    assert exported(tmp_path, rest) == len(rest.asked)
    assert not there.keys() & set(rest.asked)
    assert files_in(tmp_path) == logs_files(first)
    assert exported(tmp_path, Served(first, until=0)) == 0

    grown = Served(second)
    exported(tmp_path, grown)
    assert files_in(tmp_path) == logs_files(second)
    assert not [path for path in grown.asked if path in first]
    assert verify.verify_tree(files_in(tmp_path).get, LOG, since=first["checkpoint"]).size == 5_000


def test_an_export_keeps_nothing_that_does_not_fit(tmp_path: Path) -> None:
    """A log that serves wrong bytes, a copy that was changed, a log that went back or was forked: each by its name."""
    good = log_of(ENTRIES_[:3_000])

    def refused(served: Files) -> DeptbusError:
        with pytest.raises(DeptbusError) as error:
            exported(tmp_path, Served(served))
        return error.value

    for path in ("tile/entries/002", "tile/0/002", "tile/1/000.p/11", "tile/entries/011.p/184"):
        data = good[path]
        error = refused(good | {path: data[:-1] + bytes([data[-1] ^ 1])})
        assert error.code is Code.LOG_TAMPERED
        assert not (tmp_path / path).exists()
    exported(tmp_path, Served(good))
    before = files_in(tmp_path)
    assert refused(log_of(ENTRIES_[:2_000])).code is Code.LOG_FORK
    assert refused(log_of([*ENTRIES_[:2_999], b"forged", *ENTRIES_[3_000:3_500]])).code is Code.LOG_FORK
    assert files_in(tmp_path) == before
    (tmp_path / "tile/0/002").write_bytes(bytes(8192))
    assert refused(good).detail.startswith("tile/0/002, hash 0 is not that of entry 512")


def logs_files(log: Files) -> Files:
    """What an export of it holds."""
    kept = {path: data for path, data in log.items() if not path.startswith("checkpoint ")}
    return kept | {"log.vkey": f"{LOG.vkey}\n".encode()}
