"""Evidence (审计证据): a case's log entries with everything that shows that they are genuine, in one archive. Pure.

The archive stands alone: its page (`index.html`) checks it in a browser without a network, and each proof is a file
that other people's tools read (C2SP tlog-proof). The same input gives the same bytes.
"""

from __future__ import annotations

import io
import json
import zipfile
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from importlib import resources
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from bus import audit, tables
from bus.audit import Entry
from bus.pki import Certificate, Role
from bus.proof import ProofVerifier
from bus.tables import Document, Row
from bus.tlog import note
from bus.tlog import proof as tlog_proof
from bus.tlog.checkpoint import Checkpoint
from bus.tlog.proof import TlogProof
from bus.trust import Trust
from schemas.avro import wire_schema
from schemas.errors import Code, Malformed, Refused

BEIJING = timezone(timedelta(hours=8))
Workbook = Callable[[Sequence[Row], Checkpoint], bytes]
_SCHEMAS = ("LoggedEntry", "AuditEntry")
_ROLES = {Role.GATEWAY: "gateway", Role.RECORDER: "recorder"}
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can state: the archive's bytes depend on no clock
_FILE_MODE = 0o100644 << 16
_UNIX = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceItem:
    """An entry: its index, its bytes as the log has them, its path to the checkpoint's root, when the log took it."""

    index: int
    value: bytes
    path: tuple[bytes, ...]
    logged_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What an archive is about and stands on.

    `checkpoint` is the log's signed note, `log` the key that signed it, `witnesses` keys whose cosignatures are shown;
    `certificates` (DER) holds the entries' signers', `authority` is the bus CA's. `names` explains values to readers:
    {credit code or term: name}. `made_at` is told, and proves nothing.
    """

    case: str
    made_at: datetime
    log: note.Verifier
    checkpoint: bytes
    certificates: Sequence[bytes]
    authority: bytes
    witnesses: Sequence[note.Verifier] = ()
    names: Mapping[str, str] | None = None


def build(case: Case, items: Sequence[EvidenceItem], workbook: Workbook | None = None) -> bytes:
    """The archive (zip). What does not verify does not go into one. `workbook` makes its table an XLSX, too.

    Raises `Refused` (NOT_FOUND) without entries, `Refused` or `Malformed` if an entry, its proof, the checkpoint or a
    certificate is not what it should be.
    """
    if not items:
        raise Refused(Code.NOT_FOUND, f"no entry of the log carries the case {case.case!r}: nothing to show")
    ordered = sorted(items, key=lambda item: item.index)
    proofs = [TlogProof(item.index, item.path, case.checkpoint, item.value) for item in ordered]
    (checkpoint,) = {tlog_proof.verify(proof, None, case.log) for proof in proofs}
    entries, signers = _verified(case, checkpoint.origin.rpartition("/log/")[0], ordered)
    documents = [audit.document(e, item.index, item.logged_at) for item, e in zip(ordered, entries, strict=True)]
    rows = [tables.row(document, case.names or {}) for document in documents]
    files = {
        "README.txt": _readme(case, checkpoint, len(ordered)),
        "index.html": page(_explained(case, entries), proofs, [one.der for one in signers]),
        "entries.json": _entries_json(case, checkpoint, documents),
        "table.csv": b"".join(tables.csv_lines(rows)),
        "keys/log.vkey": f"{case.log.vkey}\n".encode(),
        "certificates/ca.pem": _pem(case.authority),
    }
    if workbook is not None:
        files["table.xlsx"] = workbook(rows, checkpoint)
    files |= {f"keys/witness-{n}.vkey": f"{one.vkey}\n".encode() for n, one in enumerate(case.witnesses, 1)}
    files |= {f"certificates/{_name(one)}-{one.id.hex()[:16]}.pem": _pem(one.der) for one in signers}
    for proof in proofs:
        files[f"entries/{proof.index}.bin"] = proof.extra or b""
        files[f"proofs/{proof.index}.tlog-proof"] = proof.encode()
    return _zip(files)


def page(case: Case, proofs: Sequence[TlogProof], certificates: Sequence[bytes]) -> bytes:
    """The page that checks these proofs: one HTML file that asks no network for anything and is forbidden to."""
    evidence = {
        "case": case.case,
        "made_at": _iso(case.made_at),
        "vkey": case.log.vkey,
        "witnesses": [one.vkey for one in case.witnesses],
        "proofs": [proof.encode().decode() for proof in proofs],
        "certificates": [b64encode(one).decode() for one in certificates],
        "authority": b64encode(case.authority).decode(),
        "roles": {role.value: name for role, name in _ROLES.items()},
        "schemas": {name: wire_schema(name) for name in _SCHEMAS},
        "names": dict(case.names or {}),
    }
    # Inside of a script element only these end it or change how it is read; in JSON they stand in strings alone.
    data = json.dumps(evidence, ensure_ascii=False, sort_keys=True)
    for character in "<>&\u2028\u2029":
        data = data.replace(character, f"\\u{ord(character):04x}")
    html, script, style = (_part(name) for name in ("page.html", "page.js", "page.css"))
    for name, part in (
        ("script-hash", _csp_hash(script)),
        ("style-hash", _csp_hash(style)),
        ("script", script),
        ("style", style),
        ("evidence", data),  # last: what stands in it is nobody's placeholder
    ):
        html = html.replace(f"{{{{{name}}}}}", part, 1)
    return html.encode()


def _part(name: str) -> str:
    return (resources.files("bus") / "evidence_page" / name).read_text("utf-8")


def _csp_hash(text: str) -> str:
    """Content Security Policy Level 3: what the browser compares an inline script or style with."""
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def _verified(case: Case, bus: str, items: Sequence[EvidenceItem]) -> tuple[list[Entry], list[Certificate]]:
    """The entries, each signed by a gateway or a recorder of this bus, and the certificates of those."""
    trust = Trust(case.authority)
    known = {one.id: one for one in map(trust.add_certificate, case.certificates)}
    verifier = ProofVerifier()
    entries = [audit.verify(item.value, bus, trust, verifier) for item in items]
    return entries, [known[signer] for signer in sorted({entry.signer for entry in entries})]


def _explained(case: Case, entries: Sequence[Entry]) -> Case:
    """With the names of what stands in the entries alone: an archive is no directory of the bus."""
    there = {text for entry in entries for text in _texts(entry.body)}
    return replace(case, names={key: name for key, name in (case.names or {}).items() if key in there})


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            yield from _texts(list(value.values()))
        case list() | tuple():
            for inner in value:
                yield from _texts(inner)


def _zip(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = _UNIX
            info.external_attr = _FILE_MODE
            archive.writestr(info, files[name])
    return out.getvalue()


def _name(signer: Certificate) -> str:
    assert signer.role is not None  # it signed an entry
    return _ROLES[signer.role]


def _pem(der: bytes) -> bytes:
    try:
        return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
    except ValueError as exc:
        raise Malformed(Code.CERTIFICATE_INVALID, "the bus CA's certificate cannot be read") from exc


def _iso(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def _entries_json(case: Case, checkpoint: Checkpoint, documents: Sequence[Document]) -> bytes:
    document = {
        "case": case.case,
        "checkpoint": checkpoint.to_json(),
        "entries": documents,
    }
    return (json.dumps(document, ensure_ascii=False, indent=1) + "\n").encode()


def _readme(case: Case, checkpoint: Checkpoint, count: int) -> bytes:
    return (
        _part("README.txt")
        .replace("{{vkey}}", case.log.vkey)
        .replace("{{origin}}", checkpoint.origin)
        .replace("{{size}}", str(checkpoint.size))
        .replace("{{root}}", b64encode(checkpoint.root).decode())
        .replace("{{authority}}", sha256(case.authority).hexdigest())
        .replace("{{made}}", _iso(case.made_at))
        .replace("{{count}}", str(count))
        .replace("{{case}}", "".join(_printable(case.case)))
        .encode()
    )


def _printable(text: str) -> Iterator[str]:
    """No line of the reader's is made by a case number."""
    return (one if one.isprintable() else f"\\u{{{ord(one):x}}}" for one in text)
