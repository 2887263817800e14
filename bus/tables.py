"""Entries of the log as a table for people: Chinese headings, one row an entry; as CSV and as JSON lines.

An operator's id or a case's number is somebody else's text, and a spreadsheet runs what begins like a formula. So in a
CSV such a cell is led by an apostrophe, and all cells are quoted. OWASP's page 'CSV Injection' names = + - @, tab,
carriage return, line feed and the full-width forms (https://owasp.org/www-community/attacks/CSV_Injection). JSON lines
are for programs, and change nothing.
"""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from consent.decide import CHINA
from consent.law import GROUNDS
from consent.purposes import PURPOSES

BOM = b"\xef\xbb\xbf"  # without it a spreadsheet reads UTF-8 as the machine's own encoding

COLUMNS = (
    "日志序号",
    "入日志时间(北京时间)",
    "事项",
    "使用方",
    "提供方",
    "证照事项",
    "行政区划",
    "开放部分",
    "拒绝部分及代码",
    "用途",
    "依据",
    "法律条款",
    "经办人",
    "代办人",
    "案号",
    "所依规则",
    "记录",
    "说明",
    "条目",
)
KINDS: Mapping[str, str] = {
    "Decision": "使用决定",
    "Admitted": "入库",
    "Conflict": "冲突",
    "Ruling": "裁定",
    "ErasureStarted": "开始清除",
    "ErasureComplete": "清除完成",
    "Voided": "决定作废",
    "Revision": "约定变更",
    "Reading": "查阅",
    "Finding": "监督发现",
    "Impact": "影响告知",
    "Evaluation": "授权评估",
    "SetDecision": "批量使用决定",
    "Due": "期限届满",
}

Row = tuple[str, ...]
Document = Mapping[str, Any]  # an entry as the trail answers it

_FORMULA = frozenset("=+-@\N{MINUS SIGN}")


def row(entry: Document, names: Mapping[str, str]) -> Row:
    """An entry's cells, in the order of `COLUMNS`. `names` are departments' by credit code."""
    body: Document = entry["body"]
    who = _first(body, "consumer", "reader", "recipient", "addressee")
    whose = _first(body, "provider", "grantor", "issuer") or _issuer(body)
    sections = sections_of(body)
    return (
        str(entry["index"]),
        civil(entry["logged_at"]),
        KINDS.get(entry["kind"], entry["kind"]),
        names.get(who, who),
        names.get(whose, whose),
        body.get("item") or "、".join(body.get("items", ())),
        body.get("region", ""),
        _listed(section["name"] for section in sections if section["code"] == "PERMIT"),
        _listed(f"{section['name']}({section['code']})" for section in sections if section["code"] != "PERMIT"),
        PURPOSES.get(body.get("purpose", ""), body.get("purpose", "")),
        GROUNDS.get(body.get("ground", ""), body.get("ground", "")),
        body.get("citation", ""),
        body.get("operator", ""),
        body.get("agent") or "",
        body.get("case", ""),
        _listed(dict.fromkeys(section["rule"] for section in sections if section["rule"])),
        _listed(_records(entry["kind"], body)),
        _said(entry["kind"], body),
        entry["entry"],
    )


def sections_of(body: Document) -> Sequence[Document]:
    """A decision's `name`, `code` and `rule` of each section. A set's are names: it holds what is permitted alone."""
    sections: Sequence[Any] = body.get("sections", ())
    return [{"name": one, "code": "PERMIT", "rule": body["rule"]} if isinstance(one, str) else one for one in sections]


def csv_lines(rows: Iterable[Row]) -> Iterator[bytes]:
    """RFC 4180 in UTF-8 with a byte order mark, the headings first. Safe to open in a spreadsheet."""
    yield BOM + _line(COLUMNS)
    yield from csv_rows(rows)


def csv_rows(rows: Iterable[Row]) -> Iterator[bytes]:
    """More rows of the same file."""
    return map(_line, rows)


def json_lines(entries: Iterable[Document]) -> Iterator[bytes]:
    """An entry a line, as the trail answered it."""
    for entry in entries:
        yield json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def harmless(text: str) -> str:
    """A cell that no spreadsheet takes for a formula: what begins like one, or with a blank, is led by a mark."""
    first = unicodedata.normalize("NFKC", text[:1])
    return f"'{text}" if first in _FORMULA or (first and (first.isspace() or not first.isprintable())) else text


def civil(time: str) -> str:
    """An ISO time in China's civil time, to the millisecond."""
    return datetime.fromisoformat(time).astimezone(CHINA).isoformat(" ", "milliseconds")[:-6]


def _line(cells: Iterable[str]) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerow(map(harmless, cells))
    return out.getvalue().encode()


def _listed(texts: Iterable[str]) -> str:
    return "、".join(texts)


def _records(kind: str, body: Document) -> list[str]:
    """The leaf hashes of the records that an entry is about."""
    match kind:
        case "Conflict":
            return [body["first"], body["second"]]
        case "Ruling":
            return [body["stands"] or ""]
    return [body.get("record", "")]


def _first(body: Document, *names: str) -> str:
    """The first of these fields that says something."""
    return next((text for name in names if (text := body.get(name))), "")


def _issuer(body: Document) -> str:
    """Of a batch: it stands in the origin that the issuer signed."""
    origin = bytes.fromhex(body.get("checkpoint", "")).partition(b"\n")[0].decode().rsplit("/", 3)
    return origin[-3] if len(origin) > 3 else ""


def _said(kind: str, body: Document) -> str:
    """What the other columns do not have."""
    match kind:
        case "Voided":
            return f"{body['entry']}({body['code']})"
        case "Ruling":
            return f"{body['conflict']}:{body['reason']}({body['by']})"
        case "ErasureStarted":
            return f"{body['basis']}({body['by']})"
        case "Revision":
            said = f"{body['kind']} {body['id']}@{body['revision']} {body['act']} {body['state']}"
            return f"{said}:{body['reason']}" if body["reason"] else said
        case "Reading":
            return f"{body['what']},{body['returned']} 条"
        case "Decision":
            return f"转提供 {body['onward_to']}" if body.get("onward_to") else ""
        case "Finding":
            return f"{body['rule']}:{body['detail']}"
        case "Impact":
            return f"{body['operation']}({body['count']} 条)"
        case "Evaluation":
            return f"{body['api']},{len(body['answers'])} 项"
        case "SetDecision":
            return f"{body['count']} 条,根 {body['root']}"
        case "Due":
            return f"{body['kind']} {body['id']} {body['limit']} {body['due']}({body['count']} 条)"
    return ""
