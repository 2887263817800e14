"""A gateway's secret keys, as files that only it reads. They live outside every database backup.

    pseudonym.key          the root of every item's pseudonym key
    kem/<id>.key           private KEM keys that sessions are sealed to, one a day
    wrap/<YYYY-MM-DD>.key  wraps the roots of that day's sessions

Gateways of one operator share the folder: files are made once, by rename without overwriting.
"""

from __future__ import annotations

import json
import os
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bus import hpke
from bus.pki import Signer, write_private
from bus.trust import kem_key_value
from schemas.avro import Codec
from schemas.errors import Code, Misuse, Refused

KEM_LIFE = timedelta(hours=36)
KEM_RENEW_BEFORE = timedelta(hours=12)  # one key a day; the newest always outlives a session by hours
_KEY_BYTES = 32
_NONCE_BYTES = 12
_ROOTS = Codec(
    {
        "type": "array",
        "items": {
            "type": "record",
            "name": "deptbus.v1.Root",
            "fields": [
                {"name": "section", "type": "string"},
                {"name": "root", "type": {"type": "fixed", "name": "Hash", "size": 32}},
            ],
        },
    },
    name="roots",
)


class Keyring:
    """The folder's keys. Never in logs, errors or `repr`."""

    def __init__(self, folder: Path, signer: Signer) -> None:
        self.signer = signer
        self._folder = folder
        for part in ("kem", "wrap"):
            (folder / part).mkdir(parents=True, exist_ok=True, mode=0o700)
        self._kem: dict[bytes, hpke.PrivateKey] = {}
        self._wrap: dict[str, AESGCM] = {}
        self.pseudonym_root = _make_once(folder / "pseudonym.key")

    @property
    def kem_ids(self) -> list[bytes]:
        """The ids of the KEM keys that are there now; another gateway may have made one since."""
        for path in (self._folder / "kem").glob("*.key"):
            key_id = bytes.fromhex(path.stem)
            if key_id not in self._kem:
                self._kem[key_id] = hpke.PrivateKey(path.read_bytes())
        return list(self._kem)

    def kem(self, key_id: bytes) -> hpke.PrivateKey | None:
        """A private KEM key by its id; None if this gateway never held it or it is destroyed."""
        if key_id not in self._kem:
            _ = self.kem_ids
        return self._kem.get(key_id)

    def renew_kem(self, now: datetime) -> bytes:
        """The `bus.certificates` value of the newest key, made now if none lasts long enough.

        The private key is on disk before the public one is known to anybody: no session is sealed to a lost key.
        """
        current = self._folder / "kem" / "current.json"
        if current.exists():
            about = json.loads(current.read_text("ascii"))
            if datetime.fromisoformat(about["not_after"]) - now > KEM_RENEW_BEFORE:
                return bytes.fromhex(about["value"])
        key = hpke.PrivateKey.generate()
        write_private(self._folder / "kem" / f"{key.id.hex()}.key", key.private_bytes())
        begin = now.astimezone(UTC).replace(microsecond=0)
        value = kem_key_value(key.public, self.signer.uscc, "GATEWAY", begin, begin + KEM_LIFE, self.signer)
        about = {"not_after": (begin + KEM_LIFE).isoformat(), "value": value.hex()}
        write_private(current, json.dumps(about).encode())
        return value

    def wrap(self, roots: dict[str, bytes], session: bytes, issuer: str, created_at: datetime) -> tuple[str, bytes]:
        """`(name of the wrapping key, wrapped roots)`. Bound to the session: a row cannot be moved to another."""
        day = f"{created_at.astimezone(UTC):%Y-%m-%d}"
        nonce = secrets.token_bytes(_NONCE_BYTES)
        plain = _ROOTS.encode([{"section": name, "root": root} for name, root in roots.items()])
        return day, nonce + self._wrapping(day, make=True).encrypt(nonce, plain, session + issuer.encode())

    def unwrap(self, day: str, wrapped: bytes, session: bytes, issuer: str) -> dict[str, bytes]:
        """Raises `Refused` (SESSION_ERASED) if the wrapping key is gone or does not open these roots."""
        try:
            plain = self._wrapping(day, make=False).decrypt(
                wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], session + issuer.encode()
            )
        except (InvalidTag, OSError) as exc:
            raise Refused(Code.SESSION_ERASED, f"the session's keys of {day} cannot be opened any more") from exc
        return {entry["section"]: entry["root"] for entry in _ROOTS.decode(plain)}

    def _wrapping(self, day: str, *, make: bool) -> AESGCM:
        if day not in self._wrap:
            path = self._folder / "wrap" / f"{day}.key"
            self._wrap[day] = AESGCM(_make_once(path) if make else path.read_bytes())
        return self._wrap[day]


def _make_once(path: Path) -> bytes:
    """The file's 32 random bytes, made by whoever comes first. A crash leaves the whole file or none."""
    if not path.exists():
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        write_private(temporary, secrets.token_bytes(_KEY_BYTES))
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise Misuse(Code.DATA_CORRUPT, f"{path} does not hold {_KEY_BYTES} bytes: restore it from the keys' backup")
    return key
