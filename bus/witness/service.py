"""The witness's HTTP: `POST /add-checkpoint`, and what it cosigned last for whoever compares (C2SP tlog-witness)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path

import structlog
from fastapi import FastAPI, Request, Response

from bus import metrics
from bus.bodies import body_of
from bus.tlog.note import Algorithm, NoteSigner, Verifier
from bus.tlog.witness import MAX_BODY_BYTES, SIZE_TYPE, Stale, Witness, status_of
from bus.witness.store import Store
from schemas.errors import Code, DeptbusError, Misuse, Refused

_TEXT = "text/plain; charset=utf-8"
_CACHE = {"Cache-Control": "max-age=5"}

log = structlog.get_logger()


def open_witness(folder: Path, name: str, logs: Iterable[Verifier]) -> tuple[Witness, Store]:
    """A witness from its folder: `witness.key` and `witness.sqlite`, made at the first start.

    The caller closes the store. Raises `Misuse` (CONFIG_INVALID) if the record is gone and the key is not: with an
    empty memory that key would cosign whatever a log shows it now, and everybody believes that it remembers.
    """
    key, record = folder / "witness.key", folder / "witness.sqlite"
    if key.exists() and not record.exists():
        raise Misuse(
            Code.CONFIG_INVALID,
            f"{record} is gone: bring it back, or move {key} away to be a new witness by another key",
        )
    store = Store(record)  # before the key: a crash between the two leaves nothing to be misled by
    try:
        signer = NoteSigner.load(key) if key.exists() else NoteSigner.create(key, name, Algorithm.COSIGNATURE_V1)
    except BaseException:
        store.close()
        raise
    return Witness(signer, logs, store), store


def create_app(witness: Witness, store: Store) -> FastAPI:
    """The application. Anyone may call it: what counts is the log's signature."""
    app = FastAPI(title="deptbus witness", version="1", docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(DeptbusError)
    async def refuse(_: Request, error: DeptbusError) -> Response:
        if isinstance(error, Stale):
            # As a header: a media type that begins with `text/` would get a charset, and clients compare it.
            return Response(f"{error.size}\n", status_code=status_of(error), headers={"Content-Type": SIZE_TYPE})
        return Response(f"{error.detail}\n", status_code=status_of(error), media_type=_TEXT)

    @app.post("/add-checkpoint")
    async def add_checkpoint(request: Request) -> Response:
        """A checkpoint and its proof in, the cosignature's line out."""
        try:
            with metrics.outcome(metrics.WITNESSED):
                body = await body_of(request, MAX_BODY_BYTES)
                line = await asyncio.to_thread(witness.add_checkpoint, body, int(time.time()))
        except DeptbusError as exc:
            # A log that shows two histories is what a witness is for: the line that says so must not be overlooked.
            level = log.error if exc.code is Code.PROOF_INVALID else log.info
            level("checkpoint_refused", code=exc.code.value, detail=exc.detail)
            raise
        return Response(line, media_type=_TEXT)

    @app.get("/{origin_hash}/checkpoint")
    async def checkpoint(origin_hash: str) -> Response:
        """The last checkpoint of a log that was cosigned here."""
        note = await asyncio.to_thread(store.note, origin_hash)
        if note is None:
            raise Refused(Code.NOT_FOUND, "no checkpoint of such a log was cosigned here")
        return Response(note, media_type=_TEXT, headers=_CACHE)

    return app
