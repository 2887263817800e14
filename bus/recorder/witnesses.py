"""Asking the witnesses of a policy to cosign the log's checkpoints: all at once, within a bound, whoever is away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import httpx
import structlog

from bus import metrics
from bus.tlog.checkpoint import Checkpoint, parse_size
from bus.tlog.note import Note, Signature
from bus.tlog.policy import Policy, Witness
from bus.tlog.witness import SIZE_TYPE, Submission
from bus.transport import UNPACKED, answer_of
from schemas.errors import Code, DeptbusError, Malformed, Refused

ANSWER_SECONDS = 5.0  # a witness checks one signature and writes one row
MAX_ANSWER_BYTES = 64 * 1024

log = structlog.get_logger()


class Witnesses:
    """The witnesses of a policy that say where they are. One call of `cosign` at a time.

    What it knows of them is only a guess at where each stands: whoever stands elsewhere says so, and is followed.
    """

    def __init__(
        self,
        policy: Policy,
        http: httpx.AsyncClient,
        proof: Callable[[int, int], Awaitable[list[bytes]]],
        seconds: float = ANSWER_SECONDS,
    ) -> None:
        """`proof(old, new)` is the log's consistency proof between two sizes; the caller closes the client."""
        self._witnesses = [one for one in policy.witnesses if one.url]
        self._http = http
        self._proof = proof
        self._seconds = seconds
        self._sizes = {one.name: 0 for one in self._witnesses}
        for one in self._witnesses:
            metrics.WITNESS_UP.labels(witness=one.name).set(0)

    async def cosign(self, note: Note, checkpoint: Checkpoint) -> list[Signature]:
        """The cosignatures that came within the bound, each verified, in the policy's order.

        Raises nothing for a witness that is away, refuses or answers nonsense: the metrics and the log say it.
        """
        asked = await asyncio.gather(*(self._one(witness, note, checkpoint) for witness in self._witnesses))
        return [signature for signature in asked if signature is not None]

    async def _one(self, witness: Witness, note: Note, checkpoint: Checkpoint) -> Signature | None:
        try:
            async with asyncio.timeout(self._seconds):
                signature = await self._ask(witness, note, checkpoint)
            outcome = "ok"
        except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError) as exc:
            signature, outcome = None, "away"
            log.info("witness_away", witness=witness.name, error=type(exc).__name__)
        except DeptbusError as exc:
            signature, outcome = None, exc.code.value
            log.warning("witness_refused", witness=witness.name, code=exc.code.value, detail=exc.detail)
        metrics.COSIGNED.labels(witness=witness.name, outcome=outcome).inc()
        metrics.WITNESS_UP.labels(witness=witness.name).set(outcome == "ok")
        return signature

    async def _ask(self, witness: Witness, note: Note, checkpoint: Checkpoint) -> Signature:
        status, kind, body = await self._post(witness, note, checkpoint)
        if status == 409 and kind == SIZE_TYPE:
            size = parse_size(_text(body).removesuffix("\n"))
            if size > checkpoint.size:
                # A witness never goes back. Either it was shown more by another signer of this log, or this is old.
                raise Refused(Code.STATE_INVALID, f"it has cosigned {size} entries, more than {checkpoint.size}")
            self._sizes[witness.name] = size
            status, kind, body = await self._post(witness, note, checkpoint)
        if status != 200:
            raise Refused(Code.REQUEST_FORBIDDEN, f"it answered {status}: {_text(body)[:200]!r}")
        signature = _cosignature(witness, note, _text(body))
        self._sizes[witness.name] = checkpoint.size
        return signature

    async def _post(self, witness: Witness, note: Note, checkpoint: Checkpoint) -> tuple[int, str, bytes]:
        """Status, content type and body of the answer."""
        old = min(self._sizes[witness.name], checkpoint.size)
        proof = await self._proof(old, checkpoint.size) if old else []
        request = Submission(old, tuple(proof), note).encode()
        url = witness.url.rstrip("/") + "/add-checkpoint"
        async with self._http.stream("POST", url, content=request, headers=UNPACKED, timeout=self._seconds) as response:
            body = await answer_of(response, MAX_ANSWER_BYTES)
        return response.status_code, response.headers.get("Content-Type", "").partition(";")[0], body


def _cosignature(witness: Witness, note: Note, lines: str) -> Signature:
    """The witness's own among the lines of an answer; others are not asked for. Raises `DeptbusError`."""
    if not lines.endswith("\n"):
        raise Malformed(Code.NOTE_INVALID, "its answer is no signature lines")
    for line in lines[:-1].split("\n"):
        signature = Signature.from_line(line)
        if (signature.name, signature.key_id) == (witness.verifier.name, witness.verifier.key_id):
            witness.verifier.verify(note.text, signature)
            return signature
    raise Refused(Code.SIGNATURE_INVALID, f"its answer is not signed by {witness.verifier.vkey}")


def _text(body: bytes) -> str:
    return body.decode("utf-8", "replace")
