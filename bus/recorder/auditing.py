"""Audit entries as rows: what of an entry can be searched. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import structlog

from bus import audit, metrics
from bus.audit import Entry
from bus.proof import ProofVerifier
from bus.trust import Trust
from schemas.errors import DeptbusError

COLUMNS = (
    "position", "leaf_hash", "time", "kind", "signer", "consumer", "provider", "item", "purpose", "ground", "case_ref",
    "operator", "request", "record", "licence", "permitted", "refused", "value",
)  # fmt: skip

log = structlog.get_logger()


def audit_rows(
    values: Iterable[tuple[int, bytes]], bus: str, trust: Trust, verifier: ProofVerifier
) -> tuple[list[tuple[Any, ...]], list[tuple[bytes, int]]]:
    """Rows of `audit_entry` (in the order of `COLUMNS`) and of `audit_subject`, from (offset, value) pairs.

    An entry whose proof fails means nothing: it gets no row. It stays on the topic, and ops are told.
    """
    rows: list[tuple[Any, ...]] = []
    subjects: list[tuple[bytes, int]] = []
    for position, value in values:
        try:
            entry = audit.parse(value)[0]
            audit.verify(value, bus, trust, verifier, entry.time)
        except DeptbusError as exc:
            metrics.AUDIT_ROWS.labels(kind="refused").inc()
            log.error("audit_entry_refused", code=exc.code, detail=exc.detail, offset=position)
            continue
        metrics.AUDIT_ROWS.labels(kind=entry.kind).inc()
        rows.append(_row(position, entry))
        subjects.extend((pseudonym, position) for pseudonym in dict.fromkeys(entry.body.get("subjects", ())))
    return rows, subjects


def _row(position: int, entry: Entry) -> tuple[Any, ...]:
    body = entry.body
    sections = body.get("sections", ()) if entry.kind == "Decision" else ()
    return (
        position,
        entry.leaf_hash,
        entry.time,
        entry.kind,
        entry.signer,
        body.get("consumer") or body.get("reader") or body.get("recipient"),
        body.get("provider") or body.get("author"),
        body.get("item"),
        body.get("purpose"),
        body.get("ground"),
        body.get("case"),
        body.get("operator"),
        entry.group,
        body.get("record") or body.get("entry"),
        body.get("licence"),
        [s["name"] for s in sections if s["code"] == "PERMIT"],
        [f"{s['name']}={s['code']}" for s in sections if s["code"] != "PERMIT"],
        entry.value,
    )
