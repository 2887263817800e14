"""What somebody wrote is shown, stored and logged as text: no terminal, log reader, spreadsheet or browser runs it.

Spreadsheets: tests/bus/test_tables.py. Browsers: tests/bus/test_evidence.py. Databases: `test_bus`.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from rich.console import Console

from bus.logs import json_line, shown
from deploy import output
from deploy.output import emit, facts, fail, table
from schemas.errors import Code, Refused

HOSTILE = (
    "\x1b]0;taken\x07",  # a window's title
    "\x1b[2J\x1b[1;1H",  # a cleared screen
    "\x9b31m",  # the same escape in one character (C1)
    "[red]admitted[/red]",  # markup of the library that draws tables
    "[/nothing]",
    "[link=http://192.0.2.1]here[/link]",
    "line\r\n2026-01-01 admitted",
    "\u202egnp.exe",  # text that turns round
    "zero\u200bwidth",
    "\u2028next",
    "\x00",
    "a\x08\x08\x08b",
)
OBEYED = [chr(n) for n in (*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0), 0x200B, 0x2028, 0x202E)]
LOGGING = """
import logging, sys, structlog
from bus.logs import configure
configure("test")
text = sys.stdin.buffer.read().decode()
structlog.get_logger().warning("refused", detail=text, half=chr(0xd800))
logging.getLogger("aiokafka").warning("a library says %s", text)
try:
    raise ValueError(text)
except ValueError:
    structlog.get_logger().exception("failed")
"""


def harmless(text: str) -> bool:
    return not any(one in text for one in OBEYED)


def test_a_log_line_stays_one_line_of_json() -> None:
    """Ours, a library's, and a traceback's; Chinese stays readable."""
    text = "".join(HOSTILE) + '\n{"event":"admitted"}\n张三'
    done = subprocess.run(
        [sys.executable, "-c", LOGGING], input=text.encode(), capture_output=True, check=True, timeout=60
    )
    lines = done.stderr.decode().removesuffix("\n").split("\n")
    assert [json.loads(line)["event"].split(" ")[0] for line in lines] == ["refused", "a", "failed"]
    assert json.loads(lines[0])["detail"] == text
    assert "张三" in lines[0]
    assert all(map(harmless, lines))


@pytest.mark.parametrize("text", HOSTILE)
def test_a_terminal_shows_what_it_would_obey(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In a table's title, heading and cells, in facts, in a sentence, in an error from elsewhere, and in JSON."""
    emit({"name": text}, as_json=True)
    said = capsys.readouterr().out
    assert json.loads(said) == {"name": text}
    assert harmless(said)
    table(text, ["name"], [[text], [{"name": [text]}]])
    facts(text, {text: text})
    output.out.print(text, markup=False)
    with pytest.raises(BaseException, match="1"):
        fail(Refused(Code.REQUEST_FORBIDDEN, text))
    said = "".join(capsys.readouterr())
    assert harmless(said)
    visible = shown(text).split("\n")[-1].strip()
    assert said.count(visible) >= 6, said


def test_colours_are_still_drawn() -> None:
    """What is ours is styled: only others' text is not."""
    drawn = Console(force_terminal=True, color_system="standard").render_str("[green]yes[/]")
    assert [span.style for span in drawn.spans] == ["green"]
    assert [span.style for span in output.out.render_str("[green]yes[/]").spans] == ["green"]


def test_line_breaks_and_chinese_blanks_stay() -> None:
    assert shown("一\n\t二\u3000三") == "一\n\t二\u3000三"
    assert json.loads(json_line({"名称": "一\n二"})) == {"名称": "一\n二"}
