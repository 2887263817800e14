"""What a figure depends on: the commit and the machine that it was measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

_CODE = Path(__file__).resolve().parent


def machine() -> dict[str, Any]:
    """What a figure depends on."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    memory = next((line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), "0")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_mib": int(memory) // 1024,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }


def commit() -> str:
    """The commit, with `+` if the tree differs from it; `none` outside a repository."""
    head = _git("rev-parse", "--short=12", "HEAD") or "none"
    return head + ("+" if _git("status", "--porcelain") else "")


def _git(*arguments: str) -> str:
    """What git says; nothing where there is no git, or no repository."""
    try:
        return subprocess.run(
            ["git", *arguments], cwd=_CODE, capture_output=True, text=True, check=False
        ).stdout.strip()
    except OSError:
        return ""


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text("utf-8").splitlines()
    except OSError:
        return []
