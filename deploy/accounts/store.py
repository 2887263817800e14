"""Accounts in one SQLite file (0600): names, Argon2id hashes, codes that wait for their exchange, signing keys.

A password is made here and given to the caller once; nobody can read it again. Failures are counted by account and by
address, and forgotten after a while; until then nobody, right password or not, gets in.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from joserfc.jwk import ECKey

from bus.db import queries
from schemas.errors import Code, Malformed, Misuse, Unavailable

# OWASP's first choice for Argon2id, some 30 ms: a password of our making has 79 bits, whatever a guess costs.
MEMORY_KIB, PASSES, LANES = 19 * 1024, 2, 1
GROUPS, GROUP = 4, 4  # a password: 16 letters and digits that nobody confuses, 79 bits
LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
SHORTEST = 12  # characters of a password that somebody chose
LONGEST = 200
FAILURES_SECONDS = 900
ACCOUNT_FAILURES = 5
ADDRESS_FAILURES = 20
MAX_FAILURES = 10_000  # rows
CODE_SECONDS = 60
KEYS = 2  # the one that signs, and the one before
_VERSION = 1
_BUSY_SECONDS = 5.0

SQL = queries(Path(__file__).with_name("store.sql"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Who can log in. `subject` is what tokens call her: random, and no name."""

    name: str
    subject: str
    suspended: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """What a code stands for."""

    subject: str
    redirect_uri: str
    challenge: str
    nonce: str


class Store:
    """Blocking; calls may come from any thread, and from several processes."""

    def __init__(self, path: Path) -> None:
        """Opens or makes the file. Raises `Misuse` (DATA_VERSION), `Malformed` (DATA_CORRUPT) or `Unavailable`."""
        self._path = path
        self._turn = threading.Lock()
        with self._errors():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.touch(0o600)
            self._db = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            self._db.executescript(SQL["settings"])
            version = self._db.execute(SQL["version"]).fetchone()[0]
            if version not in (0, _VERSION):
                raise Misuse(Code.DATA_VERSION, f"{path} is of version {version}; this software writes {_VERSION}")
            self._db.executescript(SQL["create"])
        if not self.signing_keys():
            self.rotate()

    def close(self) -> None:
        """Lets go of the file."""
        self._db.close()

    # Accounts

    def add(self, name: str, password: str | None = None) -> str:
        """A new account, and its password: the one given, else a new one. Raises `Misuse` or `Malformed`."""
        if not (0 < len(name) <= 64 and name.isascii() and name.replace("-", "").isalnum()):
            raise Misuse(Code.CONFIG_INVALID, "an account's name has letters, digits and hyphens, at most 64")
        chosen = _chosen(password)
        values = (name, secrets.token_hex(16), _hash(chosen), int(time.time()))
        if not self._execute("add", *values):
            raise Misuse(
                Code.STATE_INVALID, f"there is an account {name}: `deptbus accounts reset` renews its password"
            )
        return chosen

    def reset(self, name: str, password: str | None = None) -> str:
        """A new password for an account, which may log in again. Raises `Misuse` (NOT_FOUND)."""
        chosen = _chosen(password)
        if not self._execute("set_password", _hash(chosen), name):
            raise Misuse(Code.NOT_FOUND, f"there is no account {name}")
        self._execute("succeeded", f"account:{name}")
        return chosen

    def suspend(self, name: str) -> None:
        """It logs in no more. Raises `Misuse` (NOT_FOUND)."""
        if not self._execute("suspend", name):
            raise Misuse(Code.NOT_FOUND, f"there is no account {name}")

    def accounts(self) -> list[Account]:
        """All of them, by name."""
        return [
            Account(name=name, subject=subject, suspended=bool(suspended))
            for name, subject, suspended, _ in self._fetch("accounts")
        ]

    def subject(self, name: str) -> str:
        """What tokens call an account. Raises `Misuse` (NOT_FOUND)."""
        for account in self.accounts():
            if account.name == name:
                return account.subject
        raise Misuse(Code.NOT_FOUND, f"there is no account {name}: `deptbus accounts add`")

    # Logging in

    def may_try(self, name: str, address: str) -> bool:
        """Whether neither the account nor the address has failed too often."""
        self._execute("forget_failures", int(time.time()))
        who = (f"account:{name}", f"address:{address}")
        return not self._fetch("failures", ACCOUNT_FAILURES, ADDRESS_FAILURES, *who)[0][0]

    def proven(self, name: str, password: str, address: str) -> str | None:
        """The subject whose password this is; else a failure is counted. As slow for a name that nobody has."""
        found = self._fetch("password", name)
        subject, known, suspended = found[0] if found else ("", _nobody(), True)
        if _verify(password, known) and not suspended:
            self._execute("succeeded", f"account:{name}")
            return str(subject)
        until = int(time.time()) + FAILURES_SECONDS
        for who in (f"account:{name}", f"address:{address}"):
            self._execute("failed", who, until)
        self._execute("bound_failures", MAX_FAILURES)
        return None

    def grant(self, granted: Granted) -> str:
        """A code for it, for a minute and one exchange."""
        code, now = secrets.token_urlsafe(32), int(time.time())
        self._execute("forget_codes", now)
        fields = (granted.subject, granted.redirect_uri, granted.challenge, granted.nonce, now + CODE_SECONDS)
        self._execute("put_code", sha256(code.encode()).digest(), *fields)
        return code

    def take(self, code: str) -> Granted | None:
        """What a code stands for, once; nothing if the account was suspended since."""
        found = self._fetch("take_code", sha256(code.encode()).digest())
        if not found or found[0][4] <= time.time() or not self._fetch("is_good", found[0][0]):
            return None
        subject, redirect_uri, challenge, nonce, _ = found[0]
        return Granted(subject=subject, redirect_uri=redirect_uri, challenge=challenge, nonce=nonce)

    # Keys

    def signing_keys(self) -> list[ECKey]:
        """The one that signs first, then the one before it."""
        return [ECKey.import_key(json.loads(private)) for _, private in self._fetch("keys", KEYS)]

    def rotate(self) -> None:
        """A new key signs; the one before is still published, older ones are gone."""
        kid = secrets.token_hex(8)
        key = ECKey.generate_key("P-256", {"kid": kid, "use": "sig", "alg": "ES256"}, private=True)
        self._execute("put_key", kid, json.dumps(key.as_dict(private=True)))
        self._execute("drop_keys", KEYS)

    def _execute(self, name: str, *values: Any) -> int:
        with self._turn, self._errors():
            return self._db.execute(SQL[name], values).rowcount

    def _fetch(self, name: str, *values: Any) -> list[Any]:
        with self._turn, self._errors():
            return self._db.execute(SQL[name], values).fetchall()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.OperationalError) as exc:
            raise Unavailable(Code.DISK_FULL, f"{self._path} could not be read or written ({exc})") from exc
        except sqlite3.DatabaseError as exc:
            raise Malformed(Code.DATA_CORRUPT, f"{self._path} holds no accounts ({exc})") from exc


def _chosen(password: str | None) -> str:
    if password is None:
        return "-".join("".join(secrets.choice(LETTERS) for _ in range(GROUP)) for _ in range(GROUPS))
    if not SHORTEST <= len(password) <= LONGEST:
        raise Malformed(Code.VALUE_INVALID, f"a password has {SHORTEST} to {LONGEST} characters")
    return password


def _hash(password: str) -> str:
    return _argon(secrets.token_bytes(16)).derive_phc_encoded(password.encode())


def _verify(password: str, known: str) -> bool:
    try:
        Argon2id.verify_phc_encoded(password.encode(), known)
    except InvalidKey:
        return False
    return True


def _argon(salt: bytes) -> Argon2id:
    return Argon2id(salt=salt, length=32, iterations=PASSES, lanes=LANES, memory_cost=MEMORY_KIB)


@cache
def _nobody() -> str:
    return _hash(secrets.token_urlsafe(32))
