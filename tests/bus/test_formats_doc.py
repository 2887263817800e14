"""`bus/FORMATS.md` says what the code does: its example's bytes, its schemas, its numbers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bus import audit, cataloguefeed, disclosure, envelope, hpke, messages, proof, sealing, session, trust
from bus.pki import Role
from bus.sealer import SCHEMA_ID
from schemas import item
from schemas.errors import Code

HERE = Path(__file__).parents[2]
PAGE = (HERE / "bus" / "FORMATS.md").read_text("utf-8")
EXAMPLE = json.loads((HERE / "tests" / "vectors" / "example" / "ok.json").read_text("utf-8"))
WIRE = sorted((HERE / "schemas" / "wire").glob("*.avsc"))


def _shown() -> dict[str, str]:
    """What the page's example blocks show: hex in one piece, texts without their quotes."""
    shown: dict[str, str] = {}
    for block in re.findall(r"^```example\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        name = ""
        for line in block.splitlines():
            if not line.startswith(" "):
                name, line = line.split(maxsplit=1)
                assert name not in shown
                shown[name] = ""
            shown[name] += json.loads(line) if line.startswith('"') else line.strip()
    return shown


def test_the_example_shows_the_bytes_of_its_vector() -> None:
    """The vector's bytes are checked against the code in `test_vectors`."""
    shown = _shown()
    fields = {name[len("prefix.") :]: value for name, value in shown.items() if name.startswith("prefix.")}
    assert fields == EXAMPLE["prefix_fields"]
    rest = {name: value for name, value in shown.items() if not name.startswith("prefix.")}
    assert rest == {name: EXAMPLE[name] for name in rest}
    assert {"claims", "value", "secret", "commitment", "body", "checkpoint"} <= rest.keys()


@pytest.mark.parametrize("path", WIRE, ids=lambda path: path.stem)
def test_every_wire_schema_is_printed_as_it_is(path: Path) -> None:
    assert f"```json\n{path.read_text('utf-8').rstrip()}\n```" in PAGE


def test_codes_that_the_page_names_exist() -> None:
    named = set(re.findall(r"\b(?:[A-Z]+_)+[A-Z0-9]+\b", re.sub(r"```.*?```|`[^`]*`", "", PAGE, flags=re.DOTALL)))
    named -= {"USCC_FORM", "_FORM"}
    assert named <= set(Code.__members__), named - set(Code.__members__)


def test_roles() -> None:
    assert dict(re.findall(r"^\| (\w+) \| `(2\.25\.[0-9.]+)` \|", PAGE, re.MULTILINE)) == {
        {"TLS": "TLS"}.get(role.name, role.name.lower()): role.value for role in Role
    }


@pytest.mark.parametrize(
    ("sentence", "value"),
    [
        ("the value has at most 1 MiB", envelope.MAX_VALUE_BYTES == 1024 * 1024),
        ("`size` 1 to 65,536", proof.MAX_BATCH == 65_536),
        ("| at most 64.", envelope.MAX_LIST == 64),
        ("| 1 to 2^62,", envelope.MAX_SEQUENCE == 2**62),
        ("`leaf` 0 to 65,535", sealing.MAX_LEAVES == 65_536),
        ("make a multiple of 64", sealing.PAD_TO == 64),
        ("at most 64 KiB, each", item.MAX_DOCUMENT_BYTES == 64 * 1024),
        ("at most 4,096 bytes", session.MAX_VALUE_BYTES == 4096),
        ("1,168 bytes", session.SEALED_BYTES == 1_168),
        ("within 5 minutes", session.CLOCK_TOLERANCE.total_seconds() == 300),
        ("`created_at` + 1 h", session.MAX_AGE.total_seconds() == 3600),
        ("`not_after` + 24 h", session.LATE_ADMISSION.total_seconds() == 86_400),
        ("values of at most 16 KiB", trust.MAX_VALUE_BYTES == 16 * 1024),
        ("values of at most 64 KiB", cataloguefeed.MAX_VALUE_BYTES == 64 * 1024),
        ("`bus.catalogue`", cataloguefeed.TOPIC == "bus.catalogue"),
        ("1,216 bytes", hpke.PUBLIC_BYTES == 1_216),
        ("KEM 0x647A", hpke.KEM_ID == 0x647A),
        ("at most 8 MiB", messages.MAX_REQUEST_BYTES == 8 * 1024 * 1024),
        ("1 to 1,000 reads", messages.MAX_READS == 1_000),
        ("at most 200 characters", messages.MAX_TEXT == 200),
        ("at most 4 MiB", disclosure.MAX_BYTES == 4 * 1024 * 1024),
        ("1 to 65,535 bytes", audit.MAX_VALUE_BYTES == 65_535),
        ("The schema id is 1,", SCHEMA_ID == 1),
        ("`bus.sessions`", session.TOPIC == "bus.sessions"),
        ("`audit.access`", audit.TOPIC == "audit.access"),
    ],
)
def test_numbers(sentence: str, value: Any) -> None:
    assert value is True
    assert sentence in PAGE
