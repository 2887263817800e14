"""Signed notes: a text and the signatures under it (C2SP signed-note v1.0.0, tlog-cosignature v1.0.1).

Checkpoints of logs travel as notes. Of the signature types two are spoken here: Ed25519 over the text, which logs use,
and the timestamped cosignature, which witnesses (见证方) use over a checkpoint. What others add is carried and ignored.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from bus.pki import write_private
from schemas.errors import Code, Malformed, Misuse, Refused

MAX_BYTES = 1_000_000  # of an encoded note, as golang.org/x/mod/sumdb/note bounds it
MAX_SIGNATURES = 64  # the standard asks for 16 at least
MAX_TIME = 2**63 - 1  # of a cosignature, POSIX seconds

_KEY_ID_BYTES = 4
_KEY_BYTES = 32
_SIGNATURE_BYTES = 64
_TIME_BYTES = 8
_MARK = "\u2014 "  # the em dash that begins a signature line
_PRIVATE = "PRIVATE+KEY+"  # golang.org/x/mod/sumdb/note's encoding of a signer


class Algorithm(IntEnum):
    """What kind of signature a key makes: the standard's signature type byte."""

    ED25519 = 0x01
    COSIGNATURE_V1 = 0x04


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line. `key_id` is 4 bytes; `signature` is 64 bytes of Ed25519, 72 of a cosignature, or another's.

    Raises `Malformed` (NOTE_INVALID) for a name or lengths that no line can carry.
    """

    name: str
    key_id: bytes
    signature: bytes

    def __post_init__(self) -> None:
        _check_name(self.name)
        if len(self.key_id) != _KEY_ID_BYTES or not self.signature:
            raise Malformed(Code.NOTE_INVALID, "a note's signature is a key id of 4 bytes and a signature")

    @property
    def line(self) -> str:
        """`— <name> <base64 of key id ‖ signature>\\n`."""
        return f"{_MARK}{self.name} {b64encode(self.key_id + self.signature).decode()}\n"

    @classmethod
    def from_line(cls, line: str) -> Signature:
        """From a line without its newline.

        Raises `Malformed`: NOTE_INVALID, or SIGNATURE_INVALID if all that is wrong is how the signature is spelt.
        """
        if not line.startswith(_MARK):
            raise Malformed(Code.NOTE_INVALID, "a signature line begins with an em dash and a space")
        name, _, encoded = line.removeprefix(_MARK).partition(" ")
        try:
            data = strict_base64(encoded)
        except Malformed as exc:
            raise Malformed(Code.SIGNATURE_INVALID, f"a signature is {exc.detail}") from exc
        return cls(name, data[:_KEY_ID_BYTES], data[_KEY_ID_BYTES:])


@dataclass(frozen=True, slots=True)
class Note:
    """A text that ends in a newline, and 1 to 64 signatures. `parse` and `encode` are each other's inverse.

    Raises `Malformed` (NOTE_INVALID) for what could not be encoded. Nothing is verified: `verified` does that.
    """

    text: str
    signatures: tuple[Signature, ...]

    def __post_init__(self) -> None:
        if not self.text.endswith("\n"):
            raise Malformed(Code.NOTE_INVALID, "a note's text ends in a newline")
        _check_characters(self.text)
        if not 1 <= len(self.signatures) <= MAX_SIGNATURES:
            raise Malformed(Code.NOTE_INVALID, f"a note has 1 to {MAX_SIGNATURES} signatures")

    def encode(self) -> bytes:
        """The note as it travels: UTF-8."""
        return (self.text + "\n" + "".join(one.line for one in self.signatures)).encode()

    def signed(self, *more: Signature) -> Note:
        """The note with more signatures; a new one takes the place of an older one of the same key."""
        new = {(one.name, one.key_id) for one in more}
        kept = tuple(one for one in self.signatures if (one.name, one.key_id) not in new)
        return Note(self.text, kept + more)


def parse(data: bytes) -> Note:
    """A note from its bytes.

    Raises `Malformed` (NOTE_INVALID, SIGNATURE_INVALID) for anything that `Note.encode` would not write.
    """
    if len(data) > MAX_BYTES:
        raise Malformed(Code.NOTE_INVALID, f"a note has at most {MAX_BYTES} bytes")
    try:
        whole = data.decode()
    except UnicodeDecodeError as exc:
        raise Malformed(Code.NOTE_INVALID, "a note is UTF-8") from exc
    # The text may hold empty lines itself: the last one is where the signatures begin.
    text, mark, lines = whole.rpartition("\n\n")
    if not mark or not lines.endswith("\n"):
        raise Malformed(Code.NOTE_INVALID, "a note is a text, an empty line and signature lines")
    found = lines[:-1].split("\n", MAX_SIGNATURES)  # no more than one too many is looked at
    return Note(text + "\n", tuple(map(Signature.from_line, found[: MAX_SIGNATURES + 1])))


@dataclass(frozen=True, slots=True)
class Verifier:
    """A key that is known: its name, what it signs, and the 32 bytes of its Ed25519 public key."""

    name: str
    algorithm: Algorithm
    key: bytes

    def __post_init__(self) -> None:
        _check_name(self.name)
        if len(self.key) != _KEY_BYTES:
            raise Malformed(Code.NOTE_INVALID, f"an Ed25519 public key has {_KEY_BYTES} bytes")

    @property
    def key_id(self) -> bytes:
        """`SHA-256(name ‖ newline ‖ type ‖ key)[:4]`: with the name it finds the key, it proves nothing."""
        return sha256(self.name.encode() + b"\n" + bytes([self.algorithm]) + self.key).digest()[:_KEY_ID_BYTES]

    @property
    def vkey(self) -> str:
        """`<name>+<hex of the key id>+<base64 of type ‖ key>`: how keys are handed over."""
        return f"{self.name}+{self.key_id.hex()}+{b64encode(bytes([self.algorithm]) + self.key).decode()}"

    @classmethod
    def from_vkey(cls, text: str) -> Verifier:
        """Raises `Malformed` (NOTE_INVALID) unless it is, to the letter, the vkey of a key that is spoken here."""
        verifier = cls(*_key_material(text, "a verifier key is <name>+<key id>+<base64 of type and key>"))
        if verifier.vkey != text:
            raise Malformed(Code.NOTE_INVALID, f"the verifier key of {verifier.name} has another key's id")
        return verifier

    def verify(self, text: str, signature: Signature) -> int | None:
        """The time that a cosignature states, POSIX seconds; nothing for a plain signature.

        Raises `Refused` (SIGNATURE_INVALID) if it is not this key's over this text.
        """
        if (signature.name, signature.key_id) != (self.name, self.key_id):
            raise Refused(Code.SIGNATURE_INVALID, f"the note is signed by {signature.name}, not by {self.vkey}")
        time, signed, message = None, signature.signature, text.encode()
        if self.algorithm is Algorithm.COSIGNATURE_V1:
            time, signed = int.from_bytes(signed[:_TIME_BYTES], "big"), signed[_TIME_BYTES:]
            message = _cosigned(text, time)
        # Longer or shorter ones fail here, before the library sees them.
        if len(signed) != _SIGNATURE_BYTES or (time or 0) > MAX_TIME:
            raise Refused(Code.SIGNATURE_INVALID, f"the signature of {self.name} is not of its key's kind")
        try:
            Ed25519PublicKey.from_public_bytes(self.key).verify(signed, message)
        except (InvalidSignature, ValueError) as exc:
            raise Refused(Code.SIGNATURE_INVALID, f"the signature of {self.name} does not hold for this note") from exc
        return time


def verified(note: Note, verifiers: Iterable[Verifier]) -> tuple[Verifier, ...]:
    """Those of the known keys that have signed the note. Empty: nobody that is known has, so trust nothing in it.

    Signatures of unknown keys are ignored. Raises `Refused` (SIGNATURE_INVALID) if a known key's does not hold.
    """
    known: dict[tuple[str, bytes], list[Verifier]] = {}
    for verifier in verifiers:
        known.setdefault((verifier.name, verifier.key_id), []).append(verifier)
    found: dict[Verifier, None] = {}
    for signature in note.signatures:
        for verifier in known.get((signature.name, signature.key_id), ()):
            verifier.verify(note.text, signature)
            found[verifier] = None
    return tuple(found)


class NoteSigner:
    """A private key with its name and kind. `repr` shows the public half alone."""

    __slots__ = ("_key", "verifier")

    def __init__(self, name: str, key: Ed25519PrivateKey, algorithm: Algorithm = Algorithm.ED25519) -> None:
        self._key = key
        self.verifier = Verifier(name, algorithm, key.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"NoteSigner({self.verifier.vkey})"

    def sign(self, text: str, time: int = 0) -> Signature:
        """A signature over the text; a cosignature states `time`, POSIX seconds, and the text is a checkpoint's.

        Raises `Misuse` (NOTE_INVALID) for a cosignature without a time.
        """
        if self.verifier.algorithm is Algorithm.COSIGNATURE_V1:
            if not 0 < time <= MAX_TIME:
                raise Misuse(Code.NOTE_INVALID, f"a cosignature of {self.verifier.name} states when it was made")
            signed = time.to_bytes(_TIME_BYTES, "big") + self._key.sign(_cosigned(text, time))
        else:
            signed = self._key.sign(text.encode())
        return Signature(self.verifier.name, self.verifier.key_id, signed)

    @classmethod
    def create(cls, path: Path, name: str, algorithm: Algorithm = Algorithm.ED25519) -> NoteSigner:
        """A new key in a new file (0600), in the encoding of golang.org/x/mod/sumdb/note.

        Raises `Misuse` (CONFIG_INVALID) if the file is there: a key is never written over.
        """
        if path.exists():
            raise Misuse(Code.CONFIG_INVALID, f"{path}: a key is there already; use it, or move it away")
        key = Ed25519PrivateKey.generate()
        signer = cls(name, key, algorithm)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(path, signer._encoded().encode())
        return signer

    @classmethod
    def load(cls, path: Path) -> NoteSigner:
        """Raises `Misuse` (CONFIG_INVALID) if the file is missing or not a key; nothing of it is repeated."""
        try:
            text = path.read_text("utf-8")
            name, algorithm, secret = _key_material(text.removeprefix(_PRIVATE).rstrip("\n"), "no key of a signer")
            signer = cls(name, Ed25519PrivateKey.from_private_bytes(secret), algorithm)
        except (OSError, ValueError, Malformed):
            raise Misuse(Code.CONFIG_INVALID, f"{path}: no readable key that signs notes") from None
        if text != signer._encoded():
            raise Misuse(Code.CONFIG_INVALID, f"{path}: name, id and key do not belong together")
        return signer

    def _encoded(self) -> str:
        verifier = self.verifier
        secret = b64encode(bytes([verifier.algorithm]) + self._key.private_bytes_raw()).decode()
        return f"{_PRIVATE}{verifier.name}+{verifier.key_id.hex()}+{secret}\n"


def strict_base64(text: str) -> bytes:
    """Standard base64 (RFC 4648 §4) in its one canonical form: padded, no stray bits, nothing between.

    Raises `Malformed` (NOTE_INVALID).
    """
    try:
        data = b64decode(text, validate=True)
    except ValueError as exc:
        raise Malformed(Code.NOTE_INVALID, "not base64") from exc
    if b64encode(data).decode() != text:
        raise Malformed(Code.NOTE_INVALID, "not the canonical form of base64")
    return data


def _cosigned(text: str, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def _key_material(text: str, sentence: str) -> tuple[str, Algorithm, bytes]:
    """Name, kind and key of `<name>+<key id>+<base64>`; the caller compares the id."""
    parts = text.split("+", 2)  # base64 has the sign as well
    data = strict_base64(parts[2]) if len(parts) == 3 else b""
    if not data:
        raise Malformed(Code.NOTE_INVALID, sentence)
    try:
        return parts[0], Algorithm(data[0]), data[1:]
    except ValueError as exc:
        raise Malformed(Code.NOTE_INVALID, f"the key's signature type {data[0]:#04x} is not spoken here") from exc


def _check_name(name: str) -> None:
    if not name or "+" in name or any(map(str.isspace, name)):
        raise Malformed(Code.NOTE_INVALID, "a key's name is not empty and holds neither spaces nor '+'")
    _check_characters(name)


def _check_characters(text: str) -> None:
    if any(character < " " and character != "\n" for character in text):
        raise Malformed(Code.NOTE_INVALID, "a note holds no control characters but newlines")
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise Malformed(Code.NOTE_INVALID, "a note is UTF-8") from exc
