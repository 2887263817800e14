"""The log as files over HTTP (C2SP tlog-tiles), who may fetch the entries, and proofs (C2SP tlog-proof).

Checkpoints and hash tiles are open: they say how much was logged, and nothing about whom. What is served of a tile is
the beginning of its row, so a width that was once right stays right: files never change, caches may keep them.
"""

from __future__ import annotations

import secrets
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import asyncpg
import msgspec
from msgspec import Meta

from bus import audit, terms, tilestore
from bus.audit import Entry
from bus.db import queries
from bus.gateway import control, trail
from bus.gateway.embargoes import Connect, LogReading
from bus.gateway.shapes import CheckpointAnswer, Count, Hash, Time
from bus.gateway.trail import Published
from bus.httpsig import Signed
from bus.people.logins import IDLE
from bus.tlog import checkpoint, note, tiles
from bus.tlog.checkpoint import Checkpoint
from bus.tlog.proof import TlogProof
from bus.tlog.tiles import HASH_BYTES, HEIGHT, WIDTH, Tile
from bus.trust import Trust
from schemas.errors import Code, Malformed, Refused

TOKEN_LIFE = timedelta(hours=1)
TOKEN_BYTES = 32
MAX_PROOFS = 1_000
BUNDLES = "log:bundles"  # what a `Reading` says of a token
PROOFS = "audit/proofs"

SQL = queries(Path(__file__).with_name("logfiles.sql"))


class TokenBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /v1/audit/tokens`: nothing to say."""


class ProofsBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /v1/audit/proofs`: entries by leaf hash, in hex; 1 to 1,000."""

    entries: Annotated[list[Hash], Meta(min_length=1, max_length=MAX_PROOFS)]


class TokenAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A bearer's token for the log's entry bundles."""

    token: str
    expires_at: Time


class ProofAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """An entry's place in the log and its `.tlog-proof`."""

    entry: Hash
    index: Count
    proof: str


class ProofsAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Proofs at one checkpoint, whose signed note is `note`; `certificates` (DER, Base64) are those of the entries'
    signers that this gateway knows, for who cannot read them from Kafka.
    """

    checkpoint: CheckpointAnswer
    note: str
    proofs: list[ProofAnswer]
    certificates: list[str]


class LogFiles:
    """What a gateway serves of the log, over its connections."""

    def __init__(self, connect: Connect, log_reading: LogReading, trust: Trust) -> None:
        self._connect = connect
        self._log_reading = log_reading
        self._trust = trust

    # Files

    async def checkpoint(self, region: str) -> bytes:
        """The newest signed note. Raises `Refused` (NOT_FOUND) for another region's log, `Unavailable`."""
        async with self._connect("reading the checkpoint") as connection:
            return (await _of(connection, region)).note

    async def cosigned(self, region: str) -> bytes:
        """The newest note that witnesses have signed. Raises `Refused` (NOT_FOUND) until there is one."""
        async with self._connect("reading the checkpoint") as connection:
            found = (await _of(connection, region)).cosigned
        if found is None:
            raise Refused(Code.NOT_FOUND, "no witness has cosigned a checkpoint of this log yet")
        return found

    async def tile(self, region: str, path: str) -> bytes:
        """Hashes that the newest checkpoint covers. Raises `Refused` (NOT_FOUND), `Malformed` (REQUEST_MALFORMED)."""
        tile, width = tiles.parse_path(f"tile/{path}")
        async with self._connect("reading a tile") as connection:
            await _check_covered(connection, region, tile, width)
            found = (await tilestore.read_tiles(connection, [tile])).get(tile, b"")
        return found[: width * HASH_BYTES]

    async def bundle(self, region: str, path: str, authorization: str) -> bytes:
        """Entries that the newest checkpoint covers, for a bearer of an auditor's token.

        Raises as `tile`, and `Refused` (REQUEST_UNSIGNED, REQUEST_EXPIRED). No fetch is an entry of its own: reading
        the log would make the log that is being read grow, without end. Handing out the token was the reading.
        """
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Refused(
                Code.REQUEST_UNSIGNED, "entries need `Authorization: Bearer <token>`: see POST /v1/audit/tokens"
            )
        tile, width = tiles.parse_path(f"tile/entries/{path}")
        async with self._connect("reading a bundle") as connection:
            if not await connection.fetchval(SQL["may_read"], _hash(token), IDLE):
                raise Refused(
                    Code.REQUEST_EXPIRED, "no such token, or its hour, its session or its holder's right is over"
                )
            await _check_covered(connection, region, tile, width)
            rows = await tilestore.bundles(connection, tile.number, tile.number)
        entries, starts = rows[0]["entries"], rows[0]["starts"]
        return bytes(entries if width == len(starts) else entries[: starts[width] - 2])

    # The right to the entries

    async def issue_token(self, signed: Signed, body: TokenBody) -> Any:
        """A token for the entry bundles, in the log as a reading of them before it is handed out.

        A person's is worth nothing when her session is over.
        """
        async with self._connect("issuing a token") as connection:
            if not await control.is_auditor(connection, signed.caller.uscc):
                raise Refused(Code.REQUEST_FORBIDDEN, f"{signed.caller.uscc} is no auditor: the log is not for all")
        await self._log_reading(signed, _request(signed), "", BUNDLES, [], 0)
        token = secrets.token_urlsafe(TOKEN_BYTES)
        async with self._connect("issuing a token") as connection:
            await connection.execute(SQL["drop_tokens"])
            session = signed.signature if signed.person else None
            fields = (_hash(token), signed.caller.uscc, TOKEN_LIFE, session)
            expires_at = await connection.fetchval(SQL["add_token"], *fields)
        return {"token": token, "expires_at": expires_at.isoformat()}

    # Proofs

    async def proof(self, signed: Signed, entry: bytes) -> bytes:
        """One entry's proof as a file. Raises `Refused` (NOT_FOUND) until a checkpoint covers it."""
        _, _, (one,) = await self._prove(signed, [entry])
        return one.encode()

    async def proofs(self, signed: Signed, body: ProofsBody) -> Any:
        """Many entries' proofs, all at one checkpoint, or none."""
        wanted = [leaf_hash(text) for text in body.entries]
        at, signed_note, found = await self._prove(signed, wanted)
        return {
            "checkpoint": at.to_json(),
            "note": signed_note.decode(),
            "proofs": [
                {"entry": entry.hex(), "index": one.index, "proof": one.encode().decode()}
                for entry, one in zip(wanted, found, strict=True)
            ],
            "certificates": self._certificates(one.extra for one in found if one.extra is not None),
        }

    def _certificates(self, values: Iterable[bytes]) -> list[str]:
        """The signers' of these entries."""
        known = (self._trust.known(signer) for signer in sorted({audit.parse(value)[0].signer for value in values}))
        return [b64encode(one.der).decode() for one in known if one is not None]

    async def _prove(self, signed: Signed, wanted: Sequence[bytes]) -> tuple[Checkpoint, bytes, list[TlogProof]]:
        """Proofs at one checkpoint: the cosigned one if it covers them all.

        An auditor and the parties of an entry are given its bytes, too, and that is a reading.
        """
        caller = signed.caller.uscc
        async with self._connect("proving entries") as connection:
            auditor = await control.is_auditor(connection, caller)
            published = await trail.published(connection)
            places = await _places(connection, wanted, published)
            missing = [entry.hex() for entry in wanted if entry not in places]
            if missing:
                raise Refused(
                    Code.NOT_FOUND,
                    f"no published checkpoint covers an entry {missing[0]}: one that is new is covered in a second or "
                    "two, ask again",
                )
            covers = max(index for index, _ in places.values()) < published.cosigned_size
            data = published.cosigned if covers and published.cosigned is not None else published.note
            at = checkpoint.parse(note.parse(data).text)
            paths = await _paths(connection, {index for index, _ in places.values()}, at.size)
        found, shown = [], 0
        for hash_ in wanted:
            index, entry = places[hash_]
            may = auditor or ("party", caller) in terms.words(entry)
            shown += may
            found.append(TlogProof(index, paths[index], data, entry.value if may else None))
        if shown:
            await self._log_reading(signed, _request(signed), "", PROOFS, [], shown)
        return at, data, found


def leaf_hash(text: str) -> bytes:
    """From its hex. Raises `Malformed` (REQUEST_MALFORMED)."""
    try:
        digest = bytes.fromhex(text)  # which passes over blanks
    except ValueError as exc:
        raise Malformed(Code.REQUEST_MALFORMED, "a leaf hash is 64 hex digits") from exc
    if len(digest) != HASH_BYTES or len(text) != 2 * HASH_BYTES:
        raise Malformed(Code.REQUEST_MALFORMED, "a leaf hash is 64 hex digits")
    return digest


async def _of(connection: asyncpg.Connection, region: str) -> Published:
    published = await trail.published(connection)
    if published.origin.rpartition("/log/")[2] != region:
        raise Refused(Code.NOT_FOUND, f"the log here is {published.origin}")
    return published


async def _check_covered(connection: asyncpg.Connection, region: str, tile: Tile, width: int) -> None:
    """Raises `Refused` (NOT_FOUND) unless the newest checkpoint covers all of it, and some of it is still served."""
    published = await _of(connection, region)
    end, bits = tile.number * WIDTH + width, HEIGHT * max(tile.level, 0)
    if end > published.size >> bits:
        raise Refused(Code.NOT_FOUND, f"a log of {published.size} entries has no {tiles.path(tile, width)}")
    if end << bits <= published.minimum:
        raise Refused(Code.NOT_FOUND, f"entries below {published.minimum} are not served any more")


async def _places(
    connection: asyncpg.Connection, wanted: Sequence[bytes], published: Published
) -> Mapping[bytes, tuple[int, Entry]]:
    """Of each entry that the checkpoint covers and that is served, its first place and itself."""
    numbers = [terms.term(("entry", hash_.hex())) for hash_ in wanted]
    indices = {
        row["bundle"] * WIDTH + place
        for row in await connection.fetch(SQL["entry_rows"], numbers)
        for place in terms.places(int.from_bytes(row["bits"].bytes))
    }
    found: dict[bytes, tuple[int, Entry]] = {}
    for stored in await tilestore.entries(
        connection, sorted(n for n in indices if published.minimum <= n < published.size)
    ):
        entry = audit.parse(stored.value)[0]
        found.setdefault(entry.leaf_hash, (stored.index, entry))
    return found


async def _paths(connection: asyncpg.Connection, indices: set[int], size: int) -> Mapping[int, tuple[bytes, ...]]:
    ranges = {index: tiles.inclusion(index, size) for index in indices}
    wanted = sorted(tiles.tiles_for(one for of_entry in ranges.values() for one in of_entry))
    there = await tilestore.read_tiles(connection, wanted)
    return {index: tuple(tiles.hashes(of_entry, there)) for index, of_entry in ranges.items()}


def _request(signed: Signed) -> bytes:
    """The group of the entry: a GET has no body whose digest would tell one request from another."""
    return sha256(signed.signature).digest()[:16]


def _hash(token: str) -> bytes:
    """What is stored and looked up. Finding a hash in an index tells nobody how much of a token was right."""
    return sha256(token.encode()).digest()
