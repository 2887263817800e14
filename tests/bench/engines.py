"""Where the benches find Kafka and PostgreSQL."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

ENGINES = "DEPTBUS_BENCH_ENGINES"


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """A running Kafka (`host:port`) and PostgreSQL (DSN of a database that may create others)."""

    kafka: str
    postgres: str


def engines() -> Engines:
    """The engines that the file named by DEPTBUS_BENCH_ENGINES describes: JSON `{kafka, postgres}`."""
    path = os.environ.get(ENGINES)
    if not path:
        raise SystemExit(f"{ENGINES} is not set: it names a JSON file with kafka and postgres")
    found = json.loads(Path(path).read_text("utf-8"))
    return Engines(kafka=found["kafka"], postgres=found["postgres"])
