"""A witness (见证方): cosigns a log's checkpoints as long as each continues the one before (C2SP tlog-witness v1.0.0).

The rules, without a server. Where the tagged text and what its authors mended since differ, the mended one holds: two
roots of one size are 422 and not 409, whose answer names a size to try again with; an empty log has the empty root; a
trusted key's signature that does not hold is 403 whatever else stands there.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from bus import merkle
from bus.tlog import checkpoint, note
from bus.tlog.checkpoint import Checkpoint
from bus.tlog.note import Note, NoteSigner, Verifier
from schemas.errors import Code, DeptbusError, Malformed, Refused

MAX_PROOF = 63
MAX_BODY_BYTES = 256 * 1024  # a proof, and sixteen signatures of 5 kB, as post-quantum ones are
SIZE_TYPE = "text/x.tlog.size"
HASH_BYTES = 32

_OLD = "old "
_STATUS: Mapping[Code, int] = {
    Code.NOTE_INVALID: 400,
    Code.REQUEST_MALFORMED: 400,
    Code.SIGNATURE_INVALID: 403,
    Code.NOT_FOUND: 404,
    Code.STATE_INVALID: 409,
    Code.REQUEST_TOO_LARGE: 413,
    Code.REQUEST_ENCODED: 415,
    Code.PROOF_INVALID: 422,
}


class Stale(Refused):
    """The log does not know what was cosigned last: `size` entries. It may ask again with a proof from there."""

    def __init__(self, origin: str, size: int) -> None:
        super().__init__(Code.STATE_INVALID, f"the last cosigned checkpoint of {origin} has {size} entries")
        self.size = size


@dataclass(frozen=True, slots=True)
class Submission:
    """What `add-checkpoint` takes: the size that was cosigned last, the proof from there, the signed checkpoint."""

    old: int
    proof: tuple[bytes, ...]
    note: Note

    def encode(self) -> bytes:
        """The request's body."""
        hashes = "".join(f"{b64encode(one).decode()}\n" for one in self.proof)
        return f"{_OLD}{self.old}\n{hashes}\n".encode() + self.note.encode()


class Record(Protocol):
    """What a witness remembers: of each log the last checkpoint that it cosigned, and nothing else."""

    def latest(self, origin: str) -> Checkpoint | None:
        """The last one, or nothing if none ever was."""

    def advance(self, old: Checkpoint | None, new: Checkpoint, note: bytes) -> bool:
        """Puts `new` in the place of `old`, at once or not at all; false if `old` is not the last one any more.

        Durable when it returns true: a cosignature that was given must never be forgotten.
        """


class Witness:
    """Blocking as its record is. Calls may come from any threads at once."""

    def __init__(self, signer: NoteSigner, logs: Iterable[Verifier], record: Record) -> None:
        """`logs` are the keys that are trusted, each for the origin that is its name."""
        self._signer = signer
        self._logs: dict[str, list[Verifier]] = {}
        for log in logs:
            self._logs.setdefault(log.name, []).append(log)
        self._record = record

    @property
    def verifier(self) -> Verifier:
        """The key that cosigns."""
        return self._signer.verifier

    def add_checkpoint(self, body: bytes, time: int) -> str:
        """The cosignature's line. `time` is now, POSIX seconds. The record has the checkpoint when this returns.

        Raises what `status_of` knows: `Malformed` (NOTE_INVALID, PROOF_INVALID, REQUEST_TOO_LARGE), `Refused`
        (NOT_FOUND for an origin, SIGNATURE_INVALID), `Stale`; and what the record raises.
        """
        submission = parse(body)
        new = checkpoint.parse(submission.note.text, extensions=True)
        if new.origin not in self._logs:
            raise Refused(Code.NOT_FOUND, f"this witness does not know the log {new.origin}")
        signed_by = note.verified(submission.note, self._logs[new.origin])
        if not signed_by:
            raise Refused(Code.SIGNATURE_INVALID, f"no key that is trusted for {new.origin} has signed the checkpoint")
        cosignature = self._signer.sign(submission.note.text, time)
        kept = {(one.name, one.key_id) for one in signed_by}
        signatures = tuple(one for one in submission.note.signatures if (one.name, one.key_id) in kept)
        cosigned = Note(submission.note.text, signatures).signed(cosignature).encode()
        while True:
            old = self._record.latest(new.origin)
            check(submission, new, old)
            # What was checked is what is replaced. Lost to another request, the check is made anew, and will say so.
            if self._record.advance(old, new, cosigned):
                return cosignature.line


def check(submission: Submission, new: Checkpoint, latest: Checkpoint | None) -> None:
    """That the submitted checkpoint continues the latest one.

    Raises `Malformed` (NOTE_INVALID, PROOF_INVALID) or `Stale`.
    """
    if submission.old > new.size:
        raise Malformed(Code.NOTE_INVALID, f"the old size {submission.old} is above the checkpoint's, {new.size}")
    if submission.old != (latest.size if latest else 0):
        raise Stale(new.origin, latest.size if latest else 0)
    if new.size == 0 and new.root != merkle.EMPTY_ROOT:
        raise Malformed(Code.PROOF_INVALID, "a checkpoint of size 0 has the root of the empty tree")
    if latest and latest.size:
        merkle.verify_consistency(latest.size, new.size, latest.root, new.root, submission.proof)
    elif submission.proof:
        raise Malformed(Code.PROOF_INVALID, "from size 0 on there is nothing to prove")


def status_of(error: DeptbusError) -> int:
    """The HTTP status that says it; 503 for what is the witness's own trouble."""
    return _STATUS.get(error.code, 503)


def parse(body: bytes) -> Submission:
    """A request's body. Raises `Malformed` (NOTE_INVALID, REQUEST_TOO_LARGE)."""
    if len(body) > MAX_BODY_BYTES:
        raise Malformed(Code.REQUEST_TOO_LARGE, f"the body has more than {MAX_BODY_BYTES} bytes")
    head, mark, signed = body.partition(b"\n\n")
    try:
        first, *hashes = head.decode("ascii").split("\n")
    except UnicodeDecodeError as exc:
        raise Malformed(Code.NOTE_INVALID, "what stands before the checkpoint is ASCII") from exc
    if not mark or not first.startswith(_OLD):
        raise Malformed(Code.NOTE_INVALID, "the body is `old <size>`, proof lines, an empty line and a checkpoint")
    if len(hashes) > MAX_PROOF:
        raise Malformed(Code.NOTE_INVALID, f"a consistency proof has at most {MAX_PROOF} lines")
    proof = tuple(map(note.strict_base64, hashes))
    if any(len(one) != HASH_BYTES for one in proof):
        raise Malformed(Code.NOTE_INVALID, f"a proof's line is a hash of {HASH_BYTES} bytes")
    return Submission(checkpoint.parse_size(first.removeprefix(_OLD)), proof, note.parse(signed))
