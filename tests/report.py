"""`build/<name>.json`: what a target measured, of which commit, on which machine."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deploy.report import commit, machine

ROOT = Path(__file__).resolve().parent.parent


def write_report(name: str, *, seconds: float, seed: int | None = None, **figures: Any) -> dict[str, Any]:
    """Writes the report and returns it."""
    document = {
        "commit": commit(),
        "machine": machine(),
        "seed": seed,
        "seconds": round(seconds, 1),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        **figures,
    }
    folder = ROOT / "build"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", "utf-8")
    return document
