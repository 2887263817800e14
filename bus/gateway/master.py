"""The master key: every key that a gateway stores is wrapped under it, and it is stored nowhere in the clear.

`master.json` in the keys' folder says who keeps it (a *provider*) and holds it wrapped by that one. A gateway gets it
at its start from a passphrase's file or a token, or it is locked until two of three officers unlock it.

    master.json       {generation, provider: {kind, ...}, wrapped, chain, back}
    locked/<id>.pub   of a locked gateway: the key, of this process only, to seal the master key to
    locked/<id>.key   the master key for that one, removed as it is taken

A rotation makes the next generation. Until it is over, `chain` is the new key under the old one, so that no running
gateway is locked by it, and `back` the old one under the new: a crash in the middle loses no stored key.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from bus import hpke
from bus.pki import stamp, write_private
from schemas.errors import Code, DeptbusError, Misuse, Refused, Unavailable

KEY_BYTES = 32
COST = 2**17  # scrypt's N with r = 8: 128 MiB and some 0.4 s a guess, for a passphrase that a person chose
COST_RANDOM = 2**14  # of 32 random bytes nobody guesses
OFFICERS = 3
_NONCE_BYTES = 12
_GENERATION_BYTES = 4
_LOCKED = "locked"
_HANDOVER = b"deptbus/1 master key\n"


class Provider(Protocol):
    """Who keeps the master key: only the same provider unwraps what it wrapped. A KMS is one more of these."""

    def about(self) -> dict[str, Any]:
        """What `master.json` says of it: `kind`, and what it needs to be found again. No secret."""

    def wrap(self, key: bytes) -> bytes:
        """32 bytes, wrapped."""

    def unwrap(self, wrapped: bytes) -> bytes:
        """Raises `Refused` (KEYS_UNOPENABLE)."""

    def renewed(self) -> Provider:
        """The same, for the next generation of the master key."""


class Passphrase:
    """A passphrase, stretched with scrypt (RFC 7914). `file` is where gateways read it at their start, if they do."""

    def __init__(self, text: str, *, file: str = "", salt: bytes = b"", cost: int = COST) -> None:
        self._text, self._file, self._cost = text, file, cost
        self._salt = salt or secrets.token_bytes(16)
        self._key = stretch(text, self._salt, cost)

    def renewed(self) -> Passphrase:
        """With a new salt."""
        return Passphrase(self._text, file=self._file, cost=self._cost)

    def about(self) -> dict[str, Any]:
        """Kind, file, salt and cost."""
        return {"kind": "passphrase", "file": self._file, "salt": self._salt.hex(), "cost": self._cost}

    def wrap(self, key: bytes) -> bytes:
        """AES-256-GCM under the stretched passphrase."""
        return _encrypt(self._key, key, b"passphrase")

    def unwrap(self, wrapped: bytes) -> bytes:
        """Raises `Refused` (KEYS_UNOPENABLE): another passphrase."""
        return _decrypt(self._key, wrapped, b"passphrase", "the passphrase is not the one of this master key")


class PassphraseFile(Passphrase):
    """A passphrase that no person knows, in a file. Each generation has another one, and the one before is destroyed:
    a copy of the keys' folder, in which is everything but the passphrase, is worthless from then on.

    While a rotation is under way the file has a line for each, the newest first: a crash loses none that is needed, and
    the next rotation destroys what it left. The file is as good as the key to who reads it: it belongs in another
    folder than the keys, out of their backups.
    """

    def __init__(self, path: Path, *, file: str, cost: int, salt: bytes = b"") -> None:
        """Raises `Misuse` (CONFIG_INVALID)."""
        self._path, self._texts = path, _lines(path)
        super().__init__(self._texts[0], file=file, salt=salt, cost=cost)

    def renewed(self) -> PassphraseFile:
        """Another passphrase, and those of before behind it."""
        write_private(self._path, "\n".join([secrets.token_urlsafe(KEY_BYTES), *self._texts]).encode())
        return PassphraseFile(self._path, file=self._file, cost=self._cost)

    def unwrap(self, wrapped: bytes) -> bytes:
        """With whichever it was wrapped under. Raises `Refused` (KEYS_UNOPENABLE)."""
        for text in self._texts[1:]:
            with suppress(Refused):
                return Passphrase(text, salt=self._salt, cost=self._cost).unwrap(wrapped)
        return super().unwrap(wrapped)

    def destroy(self) -> None:
        """Those that were in the file when this was read: what came since stays."""
        left = [text for text in _lines(self._path) if text not in self._texts]
        if left:
            with replaced(self._path):
                write_private(self._path, "\n".join(left).encode())
        else:
            destroy(self._path)


class Officers:
    """Any two of three officers' passphrases. There is no secret sharing: an unlocking key is wrapped for each pair.

    The key of a pair is HKDF-SHA-256 over both stretched passphrases, in the order of the officers' names.
    """

    def __init__(self, unlocking: bytes, about: dict[str, Any]) -> None:
        self._unlocking = unlocking
        self._about = about

    @classmethod
    def appoint(cls, passphrases: Mapping[str, str], cost: int = COST) -> Officers:
        """Three officers by name. Raises `Misuse`: not three, or two with one passphrase."""
        if len(passphrases) != OFFICERS or len(set(passphrases.values())) != OFFICERS or not all(passphrases):
            raise Misuse(
                Code.CONFIG_INVALID, "there are three officers, each with a name and a passphrase of their own"
            )
        unlocking = secrets.token_bytes(KEY_BYTES)
        salts = {name: secrets.token_bytes(16) for name in sorted(passphrases)}
        keys = {name: stretch(passphrases[name], salt, cost) for name, salt in salts.items()}
        pairs = [
            {"officers": [a, b], "wrapped": _encrypt(_of_pair(keys[a], keys[b]), unlocking, f"{a}\n{b}".encode()).hex()}
            for a, b in combinations(keys, 2)
        ]
        named = [{"name": name, "salt": salt.hex()} for name, salt in salts.items()]
        return cls(unlocking, {"kind": "officers", "cost": cost, "officers": named, "pairs": pairs})

    @classmethod
    def unlock(cls, about: Mapping[str, Any], passphrases: Mapping[str, str]) -> Officers:
        """With two of them. Raises `Refused` (KEYS_UNOPENABLE), which does not say whose passphrase is wrong."""
        a, b = sorted(passphrases) if len(passphrases) == 2 else ("", "")
        salts = {one["name"]: bytes.fromhex(one["salt"]) for one in about["officers"]}
        pair = next((one for one in about["pairs"] if one["officers"] == [a, b]), None)
        if pair is None:
            raise Refused(Code.KEYS_UNOPENABLE, f"two of the officers unlock: {', '.join(sorted(salts))}")
        key = _of_pair(*(stretch(passphrases[name], salts[name], about["cost"]) for name in (a, b)))
        refusal = "the two passphrases do not unlock: one of them, or both, are not these officers'"
        return cls(_decrypt(key, bytes.fromhex(pair["wrapped"]), f"{a}\n{b}".encode(), refusal), dict(about))

    def renewed(self) -> Officers:
        """The same officers, whose passphrases open copies of before, too: against that, three are appointed anew."""
        return self

    def about(self) -> dict[str, Any]:
        """Kind, cost, the officers with their salts, the wrappings for pairs."""
        return self._about

    def wrap(self, key: bytes) -> bytes:
        """AES-256-GCM under the unlocking key."""
        return _encrypt(self._unlocking, key, b"officers")

    def unwrap(self, wrapped: bytes) -> bytes:
        """Raises `Refused` (KEYS_UNOPENABLE)."""
        return _decrypt(self._unlocking, wrapped, b"officers", "the officers' key is not the one of this master key")


class Master:
    """The master key of a folder, as one process holds it: locked until `unlock`. Never in `repr`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._keys: dict[int, bytes] = {}
        self._seen: tuple[int, int, int] | None = None
        self._said: dict[str, Any] = {}
        self._mailbox: hpke.PrivateKey | None = None
        self._provider: Provider | None = None

    @classmethod
    def create(cls, folder: Path, provider: Provider) -> Master:
        """The first generation. Raises `Misuse` (STATE_INVALID) if there is one."""
        if (folder / "master.json").exists():
            raise Misuse(Code.STATE_INVALID, f"{folder} has a master key already: rotate it, or change who keeps it")
        made = cls(folder)
        key = secrets.token_bytes(KEY_BYTES)
        made._write(1, provider, key)
        made._keys[1] = key
        return made

    @property
    def about(self) -> dict[str, Any]:
        """`master.json` as it stands now. Raises `Misuse` (CONFIG_INVALID) if it is not there."""
        file = self._folder / "master.json"
        try:
            seen = stamp(file)
            if seen is None or seen != self._seen:
                self._said = json.loads(file.read_text("utf-8"))
                self._seen = seen
        except (OSError, ValueError) as exc:
            raise Misuse(Code.CONFIG_INVALID, f"{file}: no master key; `deptbus up` makes one") from exc
        return self._said

    @property
    def generation(self) -> int:
        """Of the key that new ones are wrapped under."""
        return int(self.about["generation"])

    @property
    def locked(self) -> bool:
        """Whether this process lacks the key."""
        return self.generation not in self._keys

    def key(self) -> bytes:
        """The newest generation. Raises `Unavailable` (KEYS_LOCKED)."""
        return self._key(self.generation)

    def unlock(self, provider: Provider) -> None:
        """Raises `Refused` (KEYS_UNOPENABLE)."""
        self._keys[self.generation] = provider.unwrap(bytes.fromhex(self.about["wrapped"]))
        self.refresh()
        self._provider = provider

    def refresh(self) -> None:
        """Follows rotations, and waits for officers if the key is not here. Cheap: asks for two files."""
        self._follow()
        if self.locked:
            self._await_officers(self.generation)

    def _follow(self) -> None:
        said = self.about
        generation = int(said["generation"])
        before = self._keys.get(generation - 1)
        if generation not in self._keys and before is not None and said["chain"]:
            self._keys[generation] = _decrypt(before, bytes.fromhex(said["chain"]), b"chain", "the chain is broken")
        now = self._keys.get(generation)
        if now is not None:
            self._keys = {generation: now}  # once the rotation is over, nothing is wrapped under older ones
            if said["back"]:
                self._keys[generation - 1] = _decrypt(now, bytes.fromhex(said["back"]), b"back", "the way is broken")

    def seal(self, name: str, plain: bytes) -> bytes:
        """`generation ‖ nonce ‖ ciphertext`, bound to a name. Raises `Unavailable` (KEYS_LOCKED)."""
        generation = self.generation
        return generation.to_bytes(_GENERATION_BYTES) + _encrypt(self._key(generation), plain, name.encode())

    def open(self, name: str, data: bytes) -> bytes:
        """Raises `Unavailable` (KEYS_LOCKED), or `Misuse` (DATA_CORRUPT) for what was not sealed for this name."""
        key = self._key(int.from_bytes(data[:_GENERATION_BYTES]))
        try:
            return _decrypt(key, data[_GENERATION_BYTES:], name.encode(), "")
        except Refused as exc:
            raise Misuse(
                Code.DATA_CORRUPT, f"{name} is not as it was stored: restore it from the keys' backup"
            ) from exc

    def same_again(self) -> Provider:
        """Who keeps it now, for the next generation: with a new salt, or a new key of the token."""
        provider = self._provider
        if provider is None:
            raise Unavailable(Code.KEYS_LOCKED, "who keeps the master key is not known here: unlock it first")
        return provider.renewed()

    def rotate(self, provider: Provider) -> None:
        """The next generation, kept by `provider`, under which the caller wraps anew what is stored.

        Raises `Misuse` (STATE_INVALID) while the rotation before is not over.
        """
        if self.about["chain"]:
            raise Misuse(Code.STATE_INVALID, "the rotation before is not over: wrap again, then end it")
        generation, old, new = self.generation, self.key(), secrets.token_bytes(KEY_BYTES)
        back = _encrypt(new, old, b"back")
        self._write(generation + 1, provider, new, chain=_encrypt(old, new, b"chain"), back=back)
        self._keys[generation + 1] = new
        self._provider = provider

    def end_rotation(self) -> None:
        """Forgets the old generation: what was not wrapped anew is lost, and so is what only an old key opens."""
        said = {**self.about, "chain": "", "back": ""}
        write_private(self._folder / "master.json", json.dumps(said, indent=2).encode())
        self._keys = {self.generation: self.key()}

    def hand_over(self) -> int:
        """Gives the key to every locked gateway of this folder; returns how many wait for it."""
        waiting = sorted((self._folder / _LOCKED).glob("*.pub"))
        for file in waiting:
            with suppress(OSError, DeptbusError):  # it has ended meanwhile, or somebody wrote what is no key
                sealed = hpke.PublicKey(file.read_bytes()).seal(self.key(), _HANDOVER)
                write_private(file.with_suffix(".key"), sealed)
        return len(waiting)

    def _key(self, generation: int) -> bytes:
        if generation not in self._keys:
            self._follow()
        try:
            return self._keys[generation]
        except KeyError:
            raise Unavailable(
                Code.KEYS_LOCKED,
                "the gateway's keys are locked: two officers unlock them, for gateways with `deptbus keys unlock`, for "
                "a command with its --officer",
            ) from None

    def _await_officers(self, generation: int) -> None:
        folder = self._folder / _LOCKED
        if self._mailbox is None:
            folder.mkdir(exist_ok=True, mode=0o700)
            self._mailbox = hpke.PrivateKey.generate()
            write_private(folder / f"{self._mailbox.id.hex()}.pub", self._mailbox.public)
        sealed = folder / f"{self._mailbox.id.hex()}.key"
        if sealed.exists():
            with suppress(DeptbusError):  # not for this process: anybody who writes here could do that
                self._keys[generation] = self._mailbox.open(sealed.read_bytes(), _HANDOVER)
            sealed.unlink()
            sealed.with_suffix(".pub").unlink(missing_ok=True)
            self._mailbox = None

    def _write(self, generation: int, provider: Provider, key: bytes, chain: bytes = b"", back: bytes = b"") -> None:
        said = {
            "generation": generation,
            "provider": provider.about(),
            "wrapped": provider.wrap(key).hex(),
            "chain": chain.hex(),
            "back": back.hex(),
        }
        write_private(self._folder / "master.json", json.dumps(said, ensure_ascii=False, indent=2).encode())


def stretch(passphrase: str, salt: bytes, cost: int) -> bytes:
    """scrypt (RFC 7914), r = 8, p = 1, 32 bytes."""
    return Scrypt(salt=salt, length=KEY_BYTES, n=cost, r=8, p=1).derive(passphrase.encode())


def alone(folder: Path, about: Mapping[str, Any]) -> Provider | None:
    """The provider that `master.json` names, if it needs no person. Raises `Misuse` (CONFIG_INVALID)."""
    match about["kind"]:
        case "pkcs11":
            from bus.gateway.token import Token  # comes with an extra

            return Token.named(about)
        case "passphrase" if about["file"]:
            file, salt = about["file"], bytes.fromhex(about["salt"])
            return PassphraseFile(folder / file, file=file, salt=salt, cost=about["cost"])
    return None


@contextmanager
def replaced(path: Path) -> Iterator[None]:
    """Overwrites what the file was before, once another has its name: best effort, as journals and SSDs undo it."""
    try:
        descriptor = os.open(path, os.O_WRONLY)
    except FileNotFoundError:
        yield
        return
    try:
        yield
        if path.stat().st_ino != os.fstat(descriptor).st_ino:
            _blank(descriptor)
    finally:
        os.close(descriptor)


def destroy(path: Path) -> None:
    """Overwritten and unlinked, if it is there: best effort, as above."""
    with suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_WRONLY)
        try:
            _blank(descriptor)
        finally:
            os.close(descriptor)
        path.unlink()


def _blank(descriptor: int) -> None:
    os.pwrite(descriptor, bytes(os.fstat(descriptor).st_size), 0)
    os.fsync(descriptor)


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, ValueError) as exc:
        raise Misuse(Code.CONFIG_INVALID, f"{path}: the master key's passphrase cannot be read") from exc
    return [line.strip() for line in lines if line.strip()] or [""]


def _of_pair(first: bytes, second: bytes) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, None, b"deptbus/1 officers").derive(first + second)


def _encrypt(key: bytes, plain: bytes, bound_to: bytes) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, b"deptbus/1 stored\n" + bound_to)


def _decrypt(key: bytes, data: bytes, bound_to: bytes, refusal: str) -> bytes:
    try:
        return AESGCM(key).decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], b"deptbus/1 stored\n" + bound_to)
    except (InvalidTag, ValueError) as exc:
        raise Refused(Code.KEYS_UNOPENABLE, refusal) from exc
