"""Logs: one JSON object a line on stderr. Never a personal id, never key material.

Whatever stands in a log or a table came from somebody: it is shown to whoever reads it, and their terminal obeys none
of it. A line that cannot be written, such as to a full disk, is lost, and the work that it tells of goes on.
"""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from contextlib import suppress
from typing import Any, TextIO, cast

import structlog

# Control characters but for line break and tab, halves of surrogate pairs, and what turns text around, hides in it or
# ends its line (Unicode's Bidi_Control, Default_Ignorable_Code_Point of category Cf, Zl, Zp).
_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def shown(text: str) -> str:
    """The text for people's eyes: what a terminal would obey is written out, as in JSON (`\\u001b`)."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def json_line(document: Any, **options: Any) -> str:
    """JSON on one line, Chinese as it is written, nothing in it that a terminal would obey."""
    return shown(json.dumps(document, ensure_ascii=False, **options))


class _Stderr(io.TextIOBase):
    """stderr as it is now, for as long as it can be written."""

    def __init__(self) -> None:
        self._file = sys.stderr

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._file.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._file.flush()


def configure(process: str, level: int = logging.INFO) -> None:
    """Sets structlog up for a process; libraries' own warnings come in the same form."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(json_line)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Stderr())),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared, processor=structlog.processors.JSONRenderer(json_line)
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
