"""Signed notes: the standard's own example, one byte changed anywhere, and what no parser may take."""

from __future__ import annotations

from base64 import b64encode
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from bus.tlog.note import (
    MAX_SIGNATURES,
    MAX_TIME,
    Algorithm,
    Note,
    NoteSigner,
    Signature,
    Verifier,
    parse,
    verified,
)
from schemas.errors import Code, Malformed, Misuse, Refused

# C2SP signed-note.md, "Example".
SPEC_VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
SPEC_NOTE = (
    "This is an example message.\n\n— example.com/foo "
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
).encode()
LINE = SPEC_NOTE.decode().splitlines(keepends=True)[-1]
TEXT = "example.com/log\n3\nRcCI1Nk56ZcSmIEfIn0SleqtV7uvrlXNccFx595Iwl0=\n"

# Characters that a note may hold: everything of Unicode but surrogates and control characters below U+0020.
CHARACTERS = st.characters(codec="utf-8").filter(lambda c: c >= " ")
NAMES = st.text(CHARACTERS.filter(lambda c: c != "+" and not c.isspace()), min_size=1, max_size=12)
TEXTS = st.lists(st.text(CHARACTERS, max_size=12), max_size=5).map(lambda lines: "\n".join([*lines, ""]) or "\n")
SIGNATURES = st.builds(Signature, NAMES, st.binary(min_size=4, max_size=4), st.binary(min_size=1, max_size=100))
NOTES = st.builds(Note, TEXTS, st.lists(SIGNATURES, min_size=1, max_size=20).map(tuple))


def _signer(algorithm: Algorithm = Algorithm.ED25519, name: str = "example.com/log", seed: int = 7) -> NoteSigner:
    return NoteSigner(name, Ed25519PrivateKey.from_private_bytes(bytes([seed] * 32)), algorithm)


def test_the_standards_example_verifies_and_no_changed_bit_of_it_does() -> None:
    verifier = Verifier.from_vkey(SPEC_VKEY)
    note = parse(SPEC_NOTE)
    assert verifier.vkey == SPEC_VKEY
    assert note.encode() == SPEC_NOTE
    assert verified(note, [verifier]) == (verifier,)
    for at in range(len(SPEC_NOTE) * 8):
        changed = bytearray(SPEC_NOTE)
        changed[at // 8] ^= 1 << at % 8
        try:
            # Of a changed name or key id nothing is known: the key has not signed, which is as good as refused.
            assert verified(parse(bytes(changed)), [verifier]) == (), f"bit {at}"
        except (Malformed, Refused):
            continue


@given(NOTES)
def test_parse_is_the_inverse_of_encode(note: Note) -> None:
    assert parse(note.encode()) == note


@given(st.one_of(st.binary(max_size=300), st.tuples(st.binary(max_size=60), st.just(SPEC_NOTE)).map(b"".join)))
def test_what_parses_is_written_back_byte_for_byte_and_nothing_else_escapes(data: bytes) -> None:
    with suppress(Malformed):
        assert parse(data).encode() == data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text\n",
        b"text\n\n",
        SPEC_NOTE[:-1],
        SPEC_NOTE + b"\n",
        SPEC_NOTE.replace(b"\n", b"\r\n"),
        SPEC_NOTE.replace(b"This", b"Th\tis"),
        SPEC_NOTE.replace(b"This", b"Th\xffis"),
        SPEC_NOTE.replace("— ".encode(), b"- "),
        SPEC_NOTE.replace(b"/foo ", b"/foo  "),
        SPEC_NOTE.replace(b"/foo", b"/f+oo"),
        SPEC_NOTE.replace(b"/foo", "/f\u00a0oo".encode()),
        SPEC_NOTE.replace(b"aQM=", b"aQN="),  # the same bytes in another spelling
        SPEC_NOTE.replace(b"aQM=", b"aQM"),
        SPEC_NOTE.replace(b"Uw2Q", b"Uw 2Q"),
        b"text\n\n" + "— example.com/foo AAAAAA==\n".encode(),  # a key id without a signature
        b"text\n\n" + LINE.encode() * (MAX_SIGNATURES + 1),
        b"a" * 1_000_001 + SPEC_NOTE,
    ],
)
def test_what_is_not_a_note_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed) as refused:
        parse(data)
    assert refused.value.code in (Code.NOTE_INVALID, Code.SIGNATURE_INVALID)


def test_unknown_signatures_are_carried_and_ignored_and_a_known_keys_bad_one_refuses_the_note() -> None:
    signer, other = _signer(), _signer(name="example.com/other")
    # The same name with another key, the same key id with another name: neither is the known key.
    strangers = tuple(Signature(f"example.com/{n}", signer.verifier.key_id, b"?" * 64) for n in range(16))
    note = Note(TEXT, (*strangers, signer.sign(TEXT), _signer(seed=8).sign(TEXT)))
    assert verified(parse(note.encode()), [signer.verifier, other.verifier]) == (signer.verifier,)
    assert verified(note, [other.verifier]) == ()
    forged = Signature(signer.verifier.name, signer.verifier.key_id, b"?" * 64)
    with pytest.raises(Refused) as refused:
        verified(Note(TEXT, (signer.sign(TEXT), forged)), [signer.verifier])
    assert refused.value.code is Code.SIGNATURE_INVALID


def test_a_new_signature_takes_the_place_of_the_same_keys_older_one() -> None:
    log, witness = _signer(), _signer(Algorithm.COSIGNATURE_V1, "example.com/w")
    note = Note(TEXT, (log.sign(TEXT),)).signed(witness.sign(TEXT, 1)).signed(witness.sign(TEXT, 2))
    assert [one.name for one in note.signatures] == ["example.com/log", "example.com/w"]
    assert witness.verifier.verify(TEXT, note.signatures[1]) == 2


def test_a_cosignature_states_its_time_and_holds_for_no_other() -> None:
    # tlog-cosignature: the message is a header line, the time's line and the checkpoint's text.
    witness = _signer(Algorithm.COSIGNATURE_V1)
    signature = witness.sign(TEXT, 1_679_315_147)
    assert len(signature.signature) == 72
    assert witness.verifier.verify(TEXT, signature) == 1_679_315_147
    assert witness.verifier.key_id != _signer().verifier.key_id  # one key never stands for two kinds of statement
    later = (1_679_315_148).to_bytes(8, "big") + signature.signature[8:]
    far = (MAX_TIME + 1).to_bytes(8, "big") + signature.signature[8:]
    for changed in (later, far, signature.signature[:-1], signature.signature + b"?", b"?"):
        with pytest.raises(Refused):
            witness.verifier.verify(TEXT, Signature(signature.name, signature.key_id, changed))
    with pytest.raises(Misuse):
        witness.sign(TEXT)


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "example.com/foo",
        SPEC_VKEY.replace("530d903a", "530D903A"),
        SPEC_VKEY.replace("530d903a", "530d903b"),
        SPEC_VKEY.replace("foo", "bar"),
        SPEC_VKEY + "\n",
        SPEC_VKEY[:-4],
        # Type 0x02, ECDSA, of the right length.
        "example.com/foo+530d903a+" + b64encode(b"\x02" + bytes(32)).decode(),
    ],
)
def test_a_verifier_key_is_taken_to_the_letter(vkey: str) -> None:
    with pytest.raises(Malformed):
        Verifier.from_vkey(vkey)


def test_a_key_file_is_private_never_written_over_and_shown_by_nothing(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "log.key"
    signer = NoteSigner.create(path, "例.example/日志", Algorithm.COSIGNATURE_V1)
    assert path.stat().st_mode & 0o777 == 0o600
    assert NoteSigner.load(path).verifier == signer.verifier == Verifier.from_vkey(signer.verifier.vkey)
    secret = path.read_text("utf-8").rstrip("\n").rpartition("+")[2]
    assert secret not in repr(signer)
    with pytest.raises(Misuse):
        NoteSigner.create(path, "example.com/log")
    for damaged in ("", "PRIVATE+KEY+", path.read_text("utf-8").replace("例", "列"), "PRIVATE+KEY+a+00000000+AQ=="):
        other = tmp_path / "damaged.key"
        other.write_text(damaged, "utf-8")
        with pytest.raises(Misuse) as refused:
            NoteSigner.load(other)
        assert secret not in str(refused.value)
        assert refused.value.__cause__ is None
