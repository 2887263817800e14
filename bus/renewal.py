"""A process's own key, followed as its folder has it: renewed without a restart, its end said to ops."""

from __future__ import annotations

import structlog

from bus import metrics
from bus.pki import Signer
from schemas.errors import Misuse

log = structlog.get_logger()


def follow(signer: Signer, role: str) -> bool:
    """Takes up a renewed key, if there is one. Another owner's is left where it is, and ops are told."""
    try:
        renewed = signer.refresh()
    except Misuse as exc:
        log.error("key_not_taken_up", role=role, code=exc.code, detail=exc.detail)
        return False
    if renewed:
        log.info("key_renewed", role=role, certificate=signer.id.hex())
    metrics.CERTIFICATE_EXPIRES.labels(role=role).set(signer.certificate.not_valid_after_utc.timestamp())
    return renewed
