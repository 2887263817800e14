"""Evidence: the archive, its proofs, and its page in a real browser."""

from __future__ import annotations

import io
import json
import zipfile
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus import audit, evidence, merkle
from bus.evidence import Case, EvidenceItem
from bus.pki import Signer
from bus.tlog import note, proof, tiles
from bus.tlog.checkpoint import Checkpoint
from bus.tlog.note import Algorithm, Note, NoteSigner
from schemas.avro import wire_schema
from schemas.errors import Code, Malformed, Refused
from tests.browser import Browser, Page
from tests.vectors import world

ORIGIN = f"{world.ORIGIN}/log/330000"
CASE = "嘉市监案〔2025〕0001号"
HOSTILE = (
    "</script><script>document.title=\"taken\"</script><img src=x onerror=alert(1)>\u202e=cmd|'/C calc'!A1{{script}}"
)
AT = datetime(2025, 6, 1, 8, 0, 0, 123456, tzinfo=UTC)
OTHERS = 300  # entries of other cases before, so that the paths have tiles of two levels in them

LOG = NoteSigner(ORIGIN, Ed25519PrivateKey.from_private_bytes(world.fixed("key log")))
WITNESS = NoteSigner(
    "witness.example/w1", Ed25519PrivateKey.from_private_bytes(world.fixed("key witness")), Algorithm.COSIGNATURE_V1
)
JUDGED = "['good', 'bad', 'unable'].includes(document.documentElement?.dataset.result)"
OTHER_LOG = NoteSigner(ORIGIN, Ed25519PrivateKey.from_private_bytes(world.fixed("key of somebody else")))


def decision(case: str, operator: str = "clerk-7", **changed: Any) -> tuple[str, dict[str, Any]]:
    return "Decision", {
        "consumer": world.CONSUMER,
        "purpose": "tax-registration",
        "ground": "STATUTORY_DUTY",
        "citation": "税收征收管理法 第十五条",
        "case": case,
        "operator": operator,
        "agent": None,
        "mode": "STREAM",
        "onward_to": "",
        "set_size": 0,
        "record": world.GOOD.leaf_hash,
        "item": world.ITEM,
        "region": "330411",
        "provider": world.ISSUER,
        "licence": world.LICENCE,
        "subjects": [world.HOLDER],
        "sections": [
            {"name": "identity", "code": "PERMIT", "rule": "agreement@1"},
            {"name": "business", "code": "AGREEMENT_SECTION", "rule": ""},
        ],
        "hashes": [world.fixed("the rule's body")],
        "used_up": [{"rule": "agreement:0@1", "code": "RATE_EXCEEDED"}],
        "digest": world.fixed("digest"),
        "signer": world.DEPARTMENT.id,
        "signature": world.fixed("the request's signature", 64),
        "trace": "",
    } | changed


def anything(of: Any) -> Any:
    """A value of a type of a wire schema: never the simplest."""
    match of:
        case [*choices]:
            return anything(choices[-1])
        case {"type": "record", "fields": fields}:
            return {field["name"]: anything(field["type"]) for field in fields}
        case {"type": "array", "items": items}:
            return [anything(items)] * 3
        case {"type": "fixed", "size": size}:
            return world.fixed("anything", size)
        case {"type": "enum", "symbols": symbols}:
            return symbols[-1]
        case {"logicalType": "timestamp-micros"}:
            return AT
        case {"type": inner}:
            return anything(inner)
    named = {"Id": bytes(16), "Hash": world.fixed("hash")}
    plain = {"string": "文字 text", "bytes": bytes(range(200)), "int": -(2**31), "long": 2**63 - 1, "boolean": True}
    return (named | plain)[of]


def logged(label: str, *bodies: tuple[str, dict[str, Any]], by: Signer = world.GATEWAY) -> list[bytes]:
    return audit.log_values(by, world.ORIGIN, world.fixed(label, 16), bodies, AT)


def log_of(values: list[bytes], shown: range, case: str) -> tuple[Case, list[EvidenceItem]]:
    """Evidence out of a log of these entries."""
    edge, grown = tiles.grow(tiles.Edge(), [merkle.leaf_hash(value) for value in values])
    checkpoint = Checkpoint(ORIGIN, edge.size, edge.root())
    signed = Note(checkpoint.text, (LOG.sign(checkpoint.text), WITNESS.sign(checkpoint.text, 1_748_764_800)))
    items = [
        EvidenceItem(
            index=at,
            value=values[at],
            path=tuple(tiles.hashes(tiles.inclusion(at, edge.size), grown)),
            logged_at=AT,
        )
        for at in shown
    ]
    made = Case(
        case=case,
        made_at=AT,
        log=LOG.verifier,
        checkpoint=signed.encode(),
        certificates=[world.GATEWAY.der, world.RECORDER.der],
        authority=world.CA.der,
        witnesses=[WITNESS.verifier],
        names={world.CONSUMER: "杭州市税务局", "tax-registration": "税务登记", "other": "别的部门"},
    )
    return made, items


@cache
def archive_of(case: str) -> tuple[Case, list[EvidenceItem]]:
    """A log of entries of other cases and of this one: three decisions, one taken back."""
    values = logged("others", *(decision("another case") for _ in range(OTHERS)))
    mine = logged("mine", decision(case), decision(case, HOSTILE), decision(case))
    taken_back = logged("mine", ("Voided", {"entry": merkle.leaf_hash(mine[2]), "code": "FACTS_CHANGED"}))
    values += [*mine, *taken_back, *logged("later", decision("another case"))]
    return log_of(values, range(OTHERS, OTHERS + 4), case)


@cache
def files(case: str) -> dict[str, bytes]:
    return unpacked(evidence.build(*archive_of(case)))


def unpacked(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


# The archive


def test_an_archive_is_the_same_whenever_and_in_whatever_order_it_is_made() -> None:
    made, items = archive_of(CASE)
    assert evidence.build(made, items[::-1]) == evidence.build(made, items)


def test_each_proof_verifies_with_its_entry_and_the_log_key_alone() -> None:
    log = note.Verifier.from_vkey(files(CASE)["keys/log.vkey"].decode().strip())
    for at in range(OTHERS, OTHERS + 4):
        parsed = proof.parse(files(CASE)[f"proofs/{at}.tlog-proof"])
        assert parsed.encode() == files(CASE)[f"proofs/{at}.tlog-proof"]
        assert parsed.extra == files(CASE)[f"entries/{at}.bin"]
        assert proof.verify(parsed, None, log).size == OTHERS + 5
        leaf = merkle.leaf_hash(files(CASE)[f"entries/{at}.bin"])
        assert proof.verify(replace(parsed, extra=None), leaf, log).origin == ORIGIN


def test_a_proof_that_is_not_one_says_so() -> None:
    good = proof.parse(files(CASE)[f"proofs/{OTHERS}.tlog-proof"])
    data = good.encode()
    line = data.split(b"\n")[3]
    for broken in (
        data.replace(b"@v1", b"@v2", 1),
        data.replace(b"index 300", b"index 0300", 1),
        data.replace(b"index 300", b"index +300", 1),
        data.replace(b"extra ", b"extra  ", 1),
        data.replace(line, line[:-5] + b"=", 1),
        data.replace(b"\n\n", b"\n", 1),
        data.partition(b"\n\n")[0],
        data.replace(b"\n", b"\r\n"),
        b"",
    ):
        with pytest.raises(Malformed) as malformed:
            proof.parse(broken)
        assert malformed.value.code is Code.PROOF_INVALID
    for other, code in (
        (replace(good, index=301), Code.PROOF_INVALID),
        (replace(good, path=good.path[:-1]), Code.PROOF_INVALID),
        (replace(good, path=(bytes(32), *good.path[1:])), Code.PROOF_INVALID),
        (replace(good, extra=b"another entry"), Code.PROOF_INVALID),
        (replace(good, extra=None), Code.PROOF_INVALID),
        (replace(good, note=good.note.replace(b"\n305\n", b"\n304\n")), Code.SIGNATURE_INVALID),
    ):
        with pytest.raises((Malformed, Refused)) as refused:
            proof.verify(other, None, LOG.verifier)
        assert refused.value.code is code
    with pytest.raises(Refused):
        proof.verify(good, None, OTHER_LOG.verifier)


def test_what_does_not_verify_goes_into_no_archive() -> None:
    made, items = archive_of(CASE)
    wrong = [
        (made, [], Code.NOT_FOUND),
        (made, [replace(items[0], value=items[1].value)], Code.PROOF_INVALID),
        (replace(made, log=OTHER_LOG.verifier), items, Code.SIGNATURE_INVALID),
        (replace(made, certificates=[world.RECORDER.der]), items, Code.CERTIFICATE_UNKNOWN),
    ]
    for case, entries, code in wrong:
        with pytest.raises((Refused, Malformed)) as refused:
            evidence.build(case, entries)
        assert refused.value.code is code


# The page


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as started:
        yield started


Show = Callable[..., Page]


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Show]:
    """Opens a page and waits for its verdict."""
    opened: list[Page] = []

    def show_(html: bytes, *, before: str = "") -> Page:
        file = tmp_path / f"{len(opened)}.html"
        file.write_bytes(html)
        opened.append(browser.open(file, before=before))
        opened[-1].until(f"document.readyState === 'complete' && {JUDGED}")
        return opened[-1]

    yield show_
    for page in opened:
        page.close()


def verdict(page: Page) -> str:
    return str(page.evaluate("document.documentElement.dataset.result"))


def failed(page: Page) -> dict[str, list[str]]:
    """The rows that failed, each with the checks that did."""
    rows: list[list[str]] = page.evaluate(
        "[...document.querySelectorAll('tr[data-status=bad]')].map(r => [r.dataset.index, r.dataset.failed])"
    )
    return {index: checks.split() for index, checks in rows}


def changed(html: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """The page with other evidence in it."""
    begin = html.index(b'id="evidence">') + len(b'id="evidence">')
    end = html.index(b"</script>", begin)
    data = json.loads(html[begin:end])
    change(data)
    text = json.dumps(data)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return html[:begin] + text.encode() + html[end:]


def edited(number: int, change: Callable[[proof.TlogProof], proof.TlogProof]) -> Callable[[dict[str, Any]], None]:
    """Another proof in the place of one."""

    def change_(data: dict[str, Any]) -> None:
        data["proofs"][number] = change(proof.parse(data["proofs"][number].encode())).encode().decode()

    return change_


def test_the_page_verifies_a_case_in_a_browser_without_a_network(show: Show) -> None:
    page = show(files(CASE)["index.html"])
    assert (verdict(page), failed(page)) == ("good", {})
    assert page.evaluate("document.querySelectorAll('tr[data-status=good]').length") == 4
    text = page.evaluate("document.body.innerText")
    for shown in (
        CASE,
        LOG.verifier.vkey,
        "2025-06-01 16:00:00",
        "杭州市税务局",
        "identity: PERMIT",
        "taken back by 303",
    ):
        assert shown in text, shown
    assert "别的部门" not in files(CASE)["index.html"].decode()
    assert "witness.example/w1 2025-06-01T08:00:00" in text
    assert [one["request"]["url"][:7] for one in page.events("Network.requestWillBeSent")] == ["file://"]
    assert page.events("Log.entryAdded") == []
    assert page.events("Runtime.exceptionThrown") == []
    # A script that somebody wrote into it could send nothing, and would not run.
    assert page.evaluate("fetch('https://deptbus.example/').then(() => 'sent', () => 'kept')") == "kept"
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'window.ran = 1'}))")
    assert page.evaluate("window.ran") is None


def test_the_page_checks_with_the_key_that_the_reader_trusts(show: Show) -> None:
    page = show(files(CASE)["index.html"])
    for key, expected in (
        (OTHER_LOG.verifier.vkey, "bad"),
        (f"  {LOG.verifier.vkey} ", "good"),
        ("no key", "bad"),
        (WITNESS.verifier.vkey, "bad"),
        ("", "good"),
    ):
        page.evaluate(f"document.getElementById('trusted').value = {json.dumps(key)}")
        page.evaluate("document.querySelector('#trust button').click()")
        page.until(JUDGED)
        assert verdict(page) == expected, key
        assert (len(failed(page)) == 0) is (expected == "good")


def test_the_page_names_what_was_tampered_with(show: Show) -> None:
    good = files(CASE)["index.html"]
    at = [str(OTHERS + n) for n in range(4)]

    def bit(data: bytes, place: int) -> bytes:
        return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]

    def swap(data: dict[str, Any]) -> None:
        first, second = (proof.parse(one.encode()) for one in data["proofs"][:2])
        data["proofs"][0] = replace(first, extra=second.extra).encode().decode()
        data["proofs"][1] = replace(second, extra=first.extra).encode().decode()

    def other_key(data: dict[str, Any]) -> None:
        data["vkey"] = OTHER_LOG.verifier.vkey

    def resigned(data: dict[str, Any]) -> None:
        """The checkpoint signed by somebody else, whose key the archive shows: only the reader's key tells."""
        for n, text in enumerate(data["proofs"]):
            parsed = proof.parse(text.encode())
            body = note.parse(parsed.note).text
            data["proofs"][n] = replace(parsed, note=Note(body, (OTHER_LOG.sign(body),)).encode()).encode().decode()
        data["witnesses"] = []

    def all_notes(change: Callable[[str], str]) -> Callable[[dict[str, Any]], None]:
        return lambda data: data.update(proofs=[change(text) for text in data["proofs"]])

    signature = b64encode(LOG.verifier.key_id + LOG.sign(note.parse(archive_of(CASE)[0].checkpoint).text).signature)
    broken = b64encode(bit(b64decode(signature), 20))
    cases: list[tuple[str, Callable[[dict[str, Any]], None], dict[str, str]]] = [
        ("a byte of an entry", edited(1, lambda p: replace(p, extra=bit(p.extra or b"", 60))), {at[1]: "inclusion"}),
        (
            "the batch's signature",
            edited(1, lambda p: replace(p, extra=bit(p.extra or b"", len(p.extra or b"") - 1))),
            {at[1]: "inclusion signature"},
        ),
        (
            "a hash of a path",
            edited(2, lambda p: replace(p, path=(*p.path[:2], bytes(32), *p.path[3:]))),
            {at[2]: "inclusion"},
        ),
        ("a path cut short", edited(2, lambda p: replace(p, path=p.path[:-1])), {at[2]: "inclusion"}),
        ("an index", edited(3, lambda p: replace(p, index=OTHERS + 2)), {at[2]: "inclusion"}),
        ("entries swapped", swap, {at[0]: "inclusion", at[1]: "inclusion"}),
        (
            "the checkpoint's signature",
            all_notes(lambda text: text.replace(signature.decode(), broken.decode())),
            dict.fromkeys(at, "checkpoint"),
        ),
        (
            "the checkpoint's size",
            all_notes(lambda text: text.replace("\n305\n", "\n306\n")),
            dict.fromkeys(at, "checkpoint"),
        ),
        ("another key", other_key, dict.fromkeys(at, "checkpoint")),
        ("another signer", resigned, dict.fromkeys(at, "checkpoint")),
        ("another case", lambda data: data.update(case="another"), dict.fromkeys(at, "case")),
        ("no certificates", lambda data: data.update(certificates=[]), dict.fromkeys(at, "signature")),
        (
            "another CA",
            lambda data: data.update(authority=b64encode(world.authority("another ca").der).decode()),
            dict.fromkeys(at, "signature"),
        ),
        ("one entry twice", lambda data: data["proofs"].append(data["proofs"][0]), {at[0]: "twice"}),
        ("no entries", lambda data: data.update(proofs=[]), {}),
    ]
    for name, change, expected in cases:
        page = show(changed(good, change))
        found = failed(page)
        assert verdict(page) == "bad", name
        assert found.keys() == expected.keys(), name
        assert all(set(checks.split()) <= set(found[index]) for index, checks in expected.items()), (name, found)
    assert verdict(show(changed(good, lambda data: None))) == "good"


def test_the_page_reads_every_kind_of_entry(show: Show) -> None:
    """By the schema that it carries: it decodes all that a log may hold, also what carries no case."""
    kinds = wire_schema("AuditEntry")["fields"][-1]["type"]
    values = [
        value for kind in kinds for value in logged(kind["name"], (kind["name"], anything(kind)), by=world.RECORDER)
    ]
    page = show(unpacked(evidence.build(*log_of(values, range(len(kinds)), "文字 text")))["index.html"])
    assert all(checks == ["case"] for checks in failed(page).values())
    text = page.evaluate(
        "document.querySelectorAll('details').forEach(one => { one.open = true }), document.body.innerText"
    )
    for shown in (
        *(kind["name"] for kind in kinds),
        bytes(range(200)).hex(),
        str(-(2**31)),
        "2025-06-01T08:00:00.123456Z",
    ):
        assert shown in text, shown


def test_hostile_text_is_only_shown(show: Show) -> None:
    page = show(files(HOSTILE)["index.html"])
    assert verdict(page) == "good"
    assert page.evaluate("document.title").startswith("审计证据")
    assert page.evaluate("document.querySelectorAll('img, script').length") == 2
    shown = page.evaluate("document.getElementById('case').textContent")
    assert shown == HOSTILE.replace("\u202e", "\\u{202e}")
    assert page.events("Log.entryAdded") == []


def test_a_browser_without_the_cryptography_never_says_good(show: Show) -> None:
    html = files(CASE)["index.html"]
    for before in (
        "Object.defineProperty(window, 'crypto', {value: {}})",
        "SubtleCrypto.prototype.importKey = async () => { throw new DOMException('', 'NotSupportedError') }",
        "SubtleCrypto.prototype.verify = async () => true",
    ):
        page = show(html, before=before)
        assert verdict(page) == "unable"
        assert "✘ 未核验" in page.evaluate("document.getElementById('result').innerText")
