"""Batch proofs: one Ed25519 signature for many records or entries.

The signer signs a C2SP tlog-checkpoint body over the RFC 6962 root of the batch; each record carries its inclusion
path. So the audit log and the records share one verifier.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from bus import merkle
from bus.tlog.checkpoint import checkpoint_text
from schemas.errors import Code, Malformed, Refused

MAX_BATCH = 65_536
SIGNATURE_BYTES = 64
VERIFIED_ROOTS = 4_096  # a partition's worth of recent batches: about 1 MiB


class BatchSigner(Protocol):
    """What signs a batch: `bus.pki.Signer`."""

    @property
    def id(self) -> bytes:
        """H(DER) of the certificate."""

    def sign(self, data: bytes) -> bytes:
        """Ed25519, 64 bytes."""


@dataclass(frozen=True, slots=True)
class Proof:
    """Where a leaf stands in its signed batch. `path` and `signer` are 32-byte hashes, `signature` 64 bytes."""

    index: int
    size: int
    path: tuple[bytes, ...]
    signer: bytes
    signature: bytes

    def to_avro(self) -> tuple[int, int, tuple[bytes, ...], bytes, bytes]:
        """The fields in the schema's order, as the codec takes them."""
        return self.index, self.size, self.path, self.signer, self.signature

    @classmethod
    def from_avro(cls, value: dict[str, Any]) -> Proof:
        """From the decoded Avro record."""
        return cls(value["index"], value["size"], tuple(value["path"]), value["signer"], value["signature"])


def checkpoint_body(origin: str, size: int, root: bytes) -> bytes:
    """What is signed: the text of a C2SP tlog-checkpoint, as the log's own checkpoints are."""
    return checkpoint_text(origin, size, root).encode()


def sign_batch(signer: BatchSigner, origin: str, leaves: Sequence[bytes]) -> list[Proof]:
    """A proof for each of 1 to 65,536 leaf hashes, in their order, under one signature."""
    if not 1 <= len(leaves) <= MAX_BATCH:
        raise Malformed(Code.PROOF_INVALID, f"a batch holds 1 to {MAX_BATCH} leaves, not {len(leaves)}")
    tree = merkle.levels(leaves)
    signature = signer.sign(checkpoint_body(origin, len(leaves), tree[-1][0]))
    return [
        Proof(index, len(leaves), tuple(path), signer.id, signature) for index, path in enumerate(merkle.paths(tree))
    ]


class ProofVerifier:
    """Checks proofs, each distinct signature once.

    The memory of what was verified is bounded and holds only public values. `key_of(signer)` is asked on each call,
    also for a remembered signature: a certificate that was revoked meanwhile counts at once.
    """

    def __init__(self) -> None:
        self._verified: OrderedDict[tuple[bytes, bytes, bytes], None] = OrderedDict()

    def verify(self, proof: Proof, leaf: bytes, origin: str, key_of: Callable[[bytes], Ed25519PublicKey]) -> bytes:
        """The signed checkpoint body.

        Raises `Malformed` (PROOF_INVALID) or `Refused` (SIGNATURE_INVALID, CERTIFICATE_*).
        """
        if not 1 <= proof.size <= MAX_BATCH:
            raise Malformed(Code.PROOF_INVALID, f"a batch holds 1 to {MAX_BATCH} leaves, not {proof.size}")
        if len(proof.signature) != SIGNATURE_BYTES:
            raise Malformed(Code.PROOF_INVALID, f"an Ed25519 signature has {SIGNATURE_BYTES} bytes")
        body = checkpoint_body(origin, proof.size, merkle.root_from_path(leaf, proof.index, proof.size, proof.path))
        key = key_of(proof.signer)
        seen = (proof.signer, proof.signature, body)
        if seen in self._verified:
            self._verified.move_to_end(seen)
            return body
        try:
            key.verify(proof.signature, body)
        except InvalidSignature as exc:
            raise Refused(
                Code.SIGNATURE_INVALID, f"the batch signature over {origin} does not hold for this record"
            ) from exc
        self._verified[seen] = None
        if len(self._verified) > VERIFIED_ROOTS:
            self._verified.popitem(last=False)
        return body
