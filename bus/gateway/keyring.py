"""A gateway's secret keys: files that only it reads, each wrapped under the master key (`bus/gateway/master.py`).

    pseudonym.key              the root of every item's pseudonym key
    kem/<id>.key               private KEM keys that sessions are sealed to, one a day
    wrap/<YYYY-MM-DD>.<n>.key  wraps the roots of that day's sessions: a tree with a key for each session
    left/<session>-<issuer>.key  what is left of a session's keys after records of it were erased

They live outside every database backup: that is what an erasure rests on. Taking a session's key out of its day's tree
makes its row worthless wherever it is copied; no other session's is touched, so a backup of before is still good for
them.

A file is overwritten before it is unlinked, which a journal or an SSD may undo. What destroys a key for good is the
loss of what wraps it: after `deptbus keys rotate master` nothing that is left opens an older copy of this folder, but
for the passphrases of officers, who are appointed anew for that.

Gateways of one owner share the folder. Whoever writes holds its lock; the others notice within a second (`refresh`).
"""

from __future__ import annotations

import fcntl
import json
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bus import hpke
from bus.gateway.master import Master, Provider, alone, destroy, replaced
from bus.pki import Signer, stamp, write_private
from bus.punctured import Tree
from bus.renewal import follow
from bus.sealing import LEAF_BITS
from bus.trust import BUS_CERTIFICATE, kem_key_value
from schemas.avro import Codec
from schemas.errors import Code, Misuse, Refused, Unavailable

_PARTS = ("kem", "wrap", "left")
_KEY_BYTES = 32
_NONCE_BYTES = 12
_DAY_BITS = 128  # a session's place in its day's tree is half of a SHA-256
_NAME = re.compile(r"\d{4}-\d{2}-\d{2}(?:\.(\d{1,6}))?\Z")
_HASH = {"type": "fixed", "name": "deptbus.v1.Hash", "size": 32}
_NODE = {
    "type": "record",
    "name": "deptbus.v1.Node",
    "fields": [{"name": "depth", "type": "int"}, {"name": "index", "type": "bytes"}, {"name": "node", "type": _HASH}],
}
_NODES = Codec({"type": "array", "items": _NODE}, name="nodes")
_ROOTS = Codec(
    {
        "type": "array",
        "items": {
            "type": "record",
            "name": "deptbus.v1.Root",
            "fields": [
                {"name": "section", "type": "string"},
                {"name": "root", "type": _HASH},
            ],
        },
    },
    name="roots",
)
_LEFT = Codec(
    {
        "type": "array",
        "items": {
            "type": "record",
            "name": "deptbus.v1.Left",
            "fields": [
                {"name": "section", "type": "string"},
                {"name": "nodes", "type": {"type": "array", "items": _NODE}},
            ],
        },
    },
    name="left",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lives:
    """How long KEM keys are used and kept. One key a day; the newest always outlives a session by hours."""

    kem: timedelta = timedelta(hours=36)
    renew_before: timedelta = timedelta(hours=12)
    destroy_after: timedelta = timedelta(hours=1)  # the recorder has read every session of the key's time by then


class Keyring:
    """The folder's keys. Never in logs, errors or `repr`."""

    def __init__(self, folder: Path, signer: Signer, master: Master, lives: Lives | None = None) -> None:
        self.signer = signer
        self.master = master
        self.lives = lives or Lives()
        self._folder = folder
        for part in _PARTS:
            (folder / part).mkdir(parents=True, exist_ok=True, mode=0o700)
        self._kem: dict[bytes, hpke.PrivateKey] = {}
        self._wrap: dict[str, tuple[tuple[int, int, int] | None, Tree | None, bytes]] = {}
        self._pseudonym_root = b""

    def check(self) -> None:
        """Raises `Unavailable` (KEYS_LOCKED): nothing can be opened until the master key is there."""
        if self.master.locked:
            self.master.key()

    @property
    def pseudonym_root(self) -> bytes:
        """32 bytes, made once. Raises `Unavailable` (KEYS_LOCKED)."""
        if not self._pseudonym_root:
            if not (self._folder / "pseudonym.key").exists():
                with self._lock():
                    if not (self._folder / "pseudonym.key").exists():
                        self._store("pseudonym.key", secrets.token_bytes(_KEY_BYTES))
            self._pseudonym_root = self._stored("pseudonym.key")
        return self._pseudonym_root

    def refresh(self) -> set[str]:
        """Follows what other processes did to the folder; returns the wrapping keys that are not what they were.

        What was unwrapped with one of these is to be forgotten.
        """
        self.master.refresh()
        for key_id in [one for one in self._kem if not self._kem_file(one).exists()]:
            del self._kem[key_id]
        changed = {name for name, (seen, _, _) in self._wrap.items() if stamp(self._wrap_file(name)) != seen}
        for name in changed:
            del self._wrap[name]
        return changed

    # KEM keys

    @property
    def kem_ids(self) -> list[bytes]:
        """The ids of the KEM keys that are there now; another gateway may have made one since."""
        return [bytes.fromhex(path.stem) for path in (self._folder / "kem").glob("*.key")]

    def kem(self, key_id: bytes) -> hpke.PrivateKey | None:
        """A private KEM key by its id; None if this gateway never held it or it is destroyed."""
        file = self._kem_file(key_id)
        if key_id not in self._kem and file.exists():
            with suppress(FileNotFoundError):  # destroyed in this very moment
                self._kem[key_id] = hpke.PrivateKey(self._stored(f"kem/{file.name}"))
        return self._kem.get(key_id)

    def current_kem(self, now: datetime) -> bytes | None:
        """The `bus.certificates` value of the newest key; None if it does not last long enough, or somebody wants
        another one now."""
        try:
            about = json.loads((self._folder / "kem" / "current.json").read_text("ascii"))
        except FileNotFoundError:
            return None
        lasts = datetime.fromisoformat(about["not_after"]) - now > self.lives.renew_before
        value = bytes.fromhex(about["value"])
        # It falls with the key that signed it; who has not taken up a renewed one yet must not undo what others did.
        follow(self.signer, "gateway")
        return value if lasts and BUS_CERTIFICATE.decode(value)["body"][1]["signer"] == self.signer.id else None

    def renew_kem(self, now: datetime) -> bytes:
        """The `bus.certificates` value of the newest key, made now if none lasts long enough.

        The private key is on disk before the public one is known to anybody: no session is sealed to a lost key.
        """
        with self._lock():
            current = self.current_kem(now)
            if current is not None:
                return current
            key = hpke.PrivateKey.generate()
            self._store(f"kem/{key.id.hex()}.key", key.private_bytes())
            begin = now.astimezone(UTC).replace(microsecond=0)
            end = begin + self.lives.kem
            value = kem_key_value(key.public, self.signer.uscc, "GATEWAY", begin, end, self.signer)
            about = {"not_after": end.isoformat(), "value": value.hex()}
            write_private(self._folder / "kem" / "current.json", json.dumps(about).encode())
        return value

    def rotate_kem(self) -> None:
        """New sessions are sealed to another key as soon as a gateway has noticed: within a second."""
        with self._lock():
            (self._folder / "kem" / "current.json").unlink(missing_ok=True)

    def destroy_kem(self, key_id: bytes) -> None:
        """Nothing that was sealed to it opens again."""
        self._kem.pop(key_id, None)
        with self._lock():
            destroy(self._kem_file(key_id))

    # Sessions' roots

    def wrap(self, roots: Mapping[str, bytes], session: bytes, issuer: str, day: str) -> tuple[str, bytes]:
        """`(name of the wrapping key, wrapped roots)`, under the newest key of a day (YYYY-MM-DD).

        Bound to the session: a row cannot be moved to another. The caller stores it and then asks `stands`.
        """
        name = self._newest(day) or self.rotate_wrapping(day)
        nonce = secrets.token_bytes(_NONCE_BYTES)
        plain = _ROOTS.encode([{"section": section, "root": root} for section, root in roots.items()])
        return name, nonce + self._wrapping(name, session, issuer).encrypt(nonce, plain, session + issuer.encode())

    def unwrap(self, name: str, wrapped: bytes, session: bytes, issuer: str) -> dict[str, bytes]:
        """Raises `Refused` (SESSION_ERASED) if the wrapping key is gone or does not open these roots."""
        try:
            plain = self._wrapping(name, session, issuer).decrypt(
                wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], session + issuer.encode()
            )
        except (InvalidTag, FileNotFoundError) as exc:
            raise Refused(Code.SESSION_ERASED, f"the session's keys of {name[:10]} cannot be opened any more") from exc
        return {entry["section"]: entry["root"] for entry in _ROOTS.decode(plain)}

    def stands(self, name: str) -> bool:
        """Whether a wrapping key is there, and none of its day came after it."""
        return name == self._newest(name[:10])

    def outdated(self) -> list[str]:
        """Wrapping keys that a newer one of their day is to replace."""
        names = {path.stem for path in (self._folder / "wrap").glob("*.key")}
        return sorted(name for name in names if _NAME.match(name) and not self.stands(name))

    def rotate_wrapping(self, day: str) -> str:
        """A new wrapping key of a day: its name. Gateways wrap that day's sessions again and destroy the former."""
        with self._lock():
            newest = _NAME.match(self._newest(day))
            name = f"{day}.{int(newest[1] or 0) + 1 if newest else 1}"
            self._store_tree(name, Tree.whole(_DAY_BITS, secrets.token_bytes(_KEY_BYTES)))
        return name

    def destroy_wrapping(self, name: str) -> None:
        """Once nothing that is needed is wrapped under it. A backup of before has nothing of that day any more."""
        with self._lock():
            self._wrap.pop(name, None)
            destroy(self._wrap_file(name))

    # Erasure

    def left(self, session: bytes, issuer: str) -> dict[str, Tree] | None:
        """What is left of a session's sections, if records of it were erased: then its row counts no more."""
        try:
            data = self._stored(_left_name(session, issuer))
        except FileNotFoundError:
            return None
        return {one["section"]: _tree(LEAF_BITS, one["nodes"]) for one in _LEFT.decode(data)}

    def puncture(self, name: str, session: bytes, issuer: str, sections: Mapping[str, Tree]) -> None:
        """Keeps what is left of a session, and takes its key out of its day's tree.

        A crash between the two leaves both: what is left is what counts, and the next call takes the key out.
        """
        with self._lock():
            before = self._folder / _left_name(session, issuer)
            value = [{"section": section, "nodes": _nodes(tree)} for section, tree in sections.items()]
            with replaced(before):
                self._store(_left_name(session, issuer), _LEFT.encode(value))
            tree = self._tree(name)
            if tree is None:
                raise Misuse(Code.STATE_INVALID, f"the wrapping key {name} is of before there were trees: rotate it")
            less = tree.without(_point(session, issuer))
            if less is not tree:
                with replaced(self._wrap_file(name)):
                    self._store_tree(name, less)

    # The master key

    @property
    def folder(self) -> Path:
        """Where the keys are."""
        return self._folder

    def rotate_master(self, provider: Provider) -> None:
        """The next generation of the master key, and every stored key under it.

        `master.end_rotation` ends the old one, when running gateways have noticed. What a crash left is ended first.
        """
        if self.master.about["chain"]:
            self.rewrap()
            self.master.end_rotation()
        with self._lock():
            self.master.rotate(provider)
        self.rewrap()

    def rewrap(self) -> None:
        """Every stored key, under the newest generation of the master key."""
        stored = [self._folder / "pseudonym.key"]  # the signing key beside it is no key of these
        for part in _PARTS:
            stored += sorted((self._folder / part).glob("*.key"))
        for path in stored:
            name = path.relative_to(self._folder).as_posix()
            with self._lock(), suppress(FileNotFoundError), replaced(path):
                self._store(name, self._stored(name))

    def adopt(self) -> None:
        """Wraps the keys of before there was a master key, which lie here in the clear."""
        with self._lock():
            for path in [*sorted(self._folder.glob("*/*.key")), self._folder / "pseudonym.key"]:
                if path.exists() and path.stat().st_size in (_KEY_BYTES, hpke.PRIVATE_BYTES):
                    name, raw = path.relative_to(self._folder).as_posix(), path.read_bytes()
                    with replaced(path):
                        self._store(name, raw)

    def status(self) -> dict[str, Any]:
        """What is in the folder, as `deptbus keys status` shows it: names and numbers, nothing secret."""
        about = self.master.about
        return {
            "owner": self.signer.uscc,
            "provider": about["provider"]["kind"],
            "officers": [one["name"] for one in about["provider"].get("officers", ())],
            "generation": about["generation"],
            "locked": self.master.locked,
            "kem": sorted(one.hex() for one in self.kem_ids),
            "wrapping": sorted(path.stem for path in (self._folder / "wrap").glob("*.key")),
            "punctured_sessions": sum(1 for _ in (self._folder / "left").glob("*.key")),
        }

    def _kem_file(self, key_id: bytes) -> Path:
        return self._folder / "kem" / f"{key_id.hex()}.key"

    def _wrap_file(self, name: str) -> Path:
        if not _NAME.match(name):  # it comes from a row
            raise Refused(Code.SESSION_ERASED, "the row names no wrapping key")
        return self._folder / "wrap" / f"{name}.key"

    def _newest(self, day: str) -> str:
        names = [match for path in (self._folder / "wrap").glob(f"{day}*.key") if (match := _NAME.match(path.stem))]
        return max(names, key=lambda one: int(one[1] or 0))[0] if names else ""

    def _wrapping(self, name: str, session: bytes, issuer: str) -> AESGCM:
        tree = self._tree(name)
        if tree is None:  # of before there were trees: one key for all of that day
            return AESGCM(self._wrap[name][2])
        try:
            return AESGCM(tree.node(_point(session, issuer)))
        except Refused as exc:
            raise FileNotFoundError from exc

    def _tree(self, name: str) -> Tree | None:
        file = self._wrap_file(name)
        seen = stamp(file)
        known = self._wrap.get(name)
        if known is None or known[0] != seen:
            data = self._stored(f"wrap/{name}.key")
            known = (seen, None, data) if "." not in name else (seen, _tree(_DAY_BITS, _NODES.decode(data)), b"")
            self._wrap[name] = known
        return known[1]

    def _store_tree(self, name: str, tree: Tree) -> None:
        self._wrap.pop(name, None)
        self._store(f"wrap/{name}.key", _NODES.encode(_nodes(tree)))

    def _store(self, name: str, plain: bytes) -> None:
        write_private(self._folder / name, self.master.seal(name, plain))

    def _stored(self, name: str) -> bytes:
        try:
            return self.master.open(name, (self._folder / name).read_bytes())
        except Misuse:  # overwritten while it was read: another process has put a newer one in its place
            return self.master.open(name, (self._folder / name).read_bytes())

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One writer at a time in all processes, under the newest master key."""
        with (self._folder / ".lock").open("ab") as held:
            fcntl.flock(held, fcntl.LOCK_EX)  # ends with the process
            self.master.refresh()
            yield


def open_keyring(folder: Path, signer: Signer, lives: Lives | None = None) -> Keyring:
    """The folder's keys; locked if their master key needs officers, or a token that is away. Raises `Misuse`."""
    master = Master(folder)
    provider = alone(folder, master.about["provider"])
    if provider is not None:
        with suppress(Unavailable):
            master.unlock(provider)
    return Keyring(folder, signer, master, lives)


def _point(session: bytes, issuer: str) -> int:
    return int.from_bytes(sha256(session + issuer.encode()).digest()[: _DAY_BITS // 8])


def _left_name(session: bytes, issuer: str) -> str:
    return f"left/{session.hex()}-{issuer}.key"


def _nodes(tree: Tree) -> list[dict[str, Any]]:
    return [
        {"depth": depth, "index": index.to_bytes(_DAY_BITS // 8), "node": node}
        for (depth, index), node in sorted(tree.nodes.items())
    ]


def _tree(bits: int, nodes: list[dict[str, Any]]) -> Tree:
    return Tree(bits, {(one["depth"], int.from_bytes(one["index"])): one["node"] for one in nodes})
