"""Proofs that an entry is in the log, as files: C2SP tlog-proof@v1. Pure, and all that an offline check needs.

A proof carries the log's signed checkpoint and the entry's path to its root. Ours carry the entry itself, too, as the
`extra` line: whoever has the file and the log's verifier key needs nothing else.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass

from bus import merkle
from bus.tlog import note
from bus.tlog.checkpoint import Checkpoint
from bus.tlog.checkpoint import parse as parse_checkpoint
from schemas.errors import Code, Malformed, Refused

HEADER = "c2sp.org/tlog-proof@v1"
MAX_BYTES = 2_000_000  # a note of the largest size, an entry of the largest size
MAX_PATH = 63  # sizes are below 2^63
HASH_BYTES = 32


@dataclass(frozen=True, slots=True)
class TlogProof:
    """Where an entry stands: `path` holds 32-byte hashes from the leaf's sibling upward, `note` the checkpoint's bytes.

    `extra` is not authenticated by the format; ours is the entry's bytes, which the leaf hash then authenticates.
    """

    index: int
    path: tuple[bytes, ...]
    note: bytes
    extra: bytes | None = None

    def encode(self) -> bytes:
        """The file's bytes."""
        lines = [HEADER]
        if self.extra is not None:
            lines.append(f"extra {b64encode(self.extra).decode()}")
        lines.append(f"index {self.index}")
        lines += [b64encode(one).decode() for one in self.path]
        return ("\n".join(lines) + "\n\n").encode() + self.note


def parse(data: bytes) -> TlogProof:
    """A proof from its bytes. Raises `Malformed` (PROOF_INVALID) for anything that `TlogProof.encode` would not write.

    The note in it is parsed by `verify`.
    """
    if len(data) > MAX_BYTES:
        raise _invalid(f"a proof has at most {MAX_BYTES} bytes")
    head, mark, signed = data.partition(b"\n\n")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError as exc:
        raise _invalid("the lines before the checkpoint are ASCII") from exc
    if not mark or lines.pop(0) != HEADER:
        raise _invalid(f"the first line is {HEADER}, and an empty line stands before the checkpoint")
    extra = _base64(lines.pop(0)[6:]) if lines and lines[0].startswith("extra ") else None
    word, _, number = lines.pop(0).partition(" ") if lines else ("", "", "")
    if word != "index" or not number.isdigit() or len(number) > 19 or str(int(number)) != number:
        raise _invalid("there is no line `index <n>` where one must stand")
    path = tuple(map(_base64, lines[: MAX_PATH + 1]))
    if len(path) > MAX_PATH or any(len(one) != HASH_BYTES for one in path):
        raise _invalid(f"a path is at most {MAX_PATH} hashes of {HASH_BYTES} bytes")
    return TlogProof(int(number), path, signed, extra)


def verify(proof: TlogProof, leaf: bytes | None, log: note.Verifier) -> Checkpoint:
    """The checkpoint under which the entry is in the log. `leaf` is its leaf hash; without it the entry is `extra`.

    Raises `Malformed` (PROOF_INVALID, NOTE_INVALID) for what is no proof, `Refused` (SIGNATURE_INVALID) for a
    checkpoint that the log's key has not signed, `Refused` (PROOF_INVALID) for an entry that its root does not hold.
    """
    if leaf is None:
        if proof.extra is None:
            raise _invalid("the proof does not carry the entry: say which entry it is about")
        leaf = merkle.leaf_hash(proof.extra)
    signed = note.parse(proof.note)
    if not note.verified(signed, [log]):
        raise Refused(Code.SIGNATURE_INVALID, f"the checkpoint is not signed by {log.vkey}")
    checkpoint = parse_checkpoint(signed.text)
    if checkpoint.origin != log.name:
        raise Refused(Code.SIGNATURE_INVALID, f"the checkpoint is of {checkpoint.origin}, the key of {log.name}")
    if merkle.root_from_path(leaf, proof.index, checkpoint.size, proof.path) != checkpoint.root:
        raise Refused(
            Code.PROOF_INVALID, f"entry {proof.index} of {checkpoint.origin} at size {checkpoint.size} is another one"
        )
    return checkpoint


def _invalid(detail: str) -> Malformed:
    return Malformed(Code.PROOF_INVALID, detail)


def _base64(text: str) -> bytes:
    try:
        return note.strict_base64(text)
    except Malformed as exc:
        raise _invalid("extra and hashes are base64 in its canonical form") from exc
