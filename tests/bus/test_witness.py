"""A witness: every rule of the protocol, what it must never forget, and the process as a log meets it."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from bus import hpke, merkle, metrics
from bus.identity import Identity
from bus.pki import CertificateAuthority, Role
from bus.recorder.witnesses import Witnesses
from bus.tlog import checkpoint, note, policy, tiles
from bus.tlog.checkpoint import Checkpoint
from bus.tlog.note import Algorithm, Note, NoteSigner, Signature, Verifier
from bus.tlog.tiles import Edge
from bus.tlog.witness import MAX_BODY_BYTES, SIZE_TYPE, Stale, Submission, Witness, parse, status_of
from bus.witness.service import open_witness
from bus.witness.store import Store
from deploy.home import Home
from schemas.errors import Code, DeptbusError, Malformed, Misuse

ORIGIN = "deptbus.example/log/330000"
NOW = 1_700_000_000
LEAVES = [merkle.leaf_hash(bytes([n])) for n in range(200)]
_, TILES = tiles.grow(Edge(), LEAVES)


def _signer(name: str, seed: int, algorithm: Algorithm = Algorithm.ED25519) -> NoteSigner:
    return NoteSigner(name, Ed25519PrivateKey.from_private_bytes(bytes([seed] * 32)), algorithm)


LOG, WITNESS = _signer(ORIGIN, 1), _signer("dept.example/witness", 2, Algorithm.COSIGNATURE_V1)


def _state(size: int, origin: str = ORIGIN) -> Checkpoint:
    return Checkpoint(origin, size, merkle.root(LEAVES[:size]))


def _signed(state: Checkpoint, by: NoteSigner = LOG) -> Note:
    return Note(state.text, (by.sign(state.text),))


def _body(old: int, size: int) -> bytes:
    """What an honest log sends."""
    return Submission(old, _proof(old, size), _signed(_state(size))).encode()


def _proof(old: int, size: int) -> tuple[bytes, ...]:
    return tuple(tiles.hashes(tiles.consistency(old, size), TILES))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "witness.sqlite") as opened:
        yield opened


@pytest.fixture
def witness(store: Store) -> Witness:
    return Witness(WITNESS, [LOG.verifier], store)


def _refused(witness: Witness, body: bytes) -> tuple[int, DeptbusError]:
    with pytest.raises(DeptbusError) as refused:
        witness.add_checkpoint(body, NOW)
    return status_of(refused.value), refused.value


def _accepted(witness: Witness, body: bytes) -> None:
    signature = Signature.from_line(witness.add_checkpoint(body, NOW).removesuffix("\n"))
    assert WITNESS.verifier.verify(parse(body).note.text, signature) == NOW


def _conflict(witness: Witness, body: bytes) -> int:
    status, error = _refused(witness, body)
    assert status == 409
    assert isinstance(error, Stale)
    return error.size


def test_a_log_grows_and_every_way_that_is_none_is_refused(witness: Witness, store: Store) -> None:
    """The cases of litewitness's own script, in its order, over a tree of ours."""
    _accepted(witness, _body(0, 1))
    three = _signed(_state(3))
    other = Signature(ORIGIN, LOG.verifier.key_id, LOG.sign("another text\n").signature)
    assert _refused(witness, Submission(1, _proof(1, 3), Note(three.text, (other,))).encode())[0] == 403
    respelt = bytearray(_body(1, 3))
    respelt[-3] += 1  # a bit behind the signature's last byte, which base64 has room for
    assert _refused(witness, bytes(respelt))[0] == 403
    elsewhere = _state(3, "deptbus.example/log/110000")
    assert _refused(witness, Submission(1, _proof(1, 3), _signed(elsewhere)).encode())[0] == 404
    assert _refused(witness, Submission(1, (), three).encode())[0] == 422
    wrong = (*_proof(1, 3)[:-1], bytes(32))
    assert _refused(witness, Submission(1, wrong, three).encode())[0] == 422
    assert store.latest(ORIGIN) == _state(1)
    _accepted(witness, _body(1, 3))
    assert _conflict(witness, _body(1, 5)) == 3
    _accepted(witness, _body(3, 5))
    assert _conflict(witness, Submission(0, (), _signed(_state(5))).encode()) == 5
    assert store.latest(ORIGIN) == _state(5)


def test_a_log_never_gets_back_nor_gets_another_root(witness: Witness, store: Store) -> None:
    _accepted(witness, _body(0, 5))
    assert _conflict(witness, _body(3, 3)) == 5
    assert _conflict(witness, _body(0, 3)) == 5
    assert _refused(witness, Submission(5, (), _signed(_state(3))).encode())[0] == 400
    fork = Checkpoint(ORIGIN, 5, bytes(32))
    assert _refused(witness, Submission(5, (), _signed(fork)).encode())[0] == 422
    assert _refused(witness, Submission(5, (bytes(32),), _signed(_state(5))).encode())[0] == 422
    longer = Checkpoint(ORIGIN, 8, merkle.root([*LEAVES[1:4], *LEAVES[:5]]))
    assert _refused(witness, Submission(5, _proof(5, 8), _signed(longer)).encode())[0] == 422
    _accepted(witness, _body(5, 5))  # the same again: what it stated still holds
    assert store.latest(ORIGIN) == _state(5)


def test_an_empty_log_has_the_empty_root_and_nothing_to_prove(witness: Witness) -> None:
    assert _refused(witness, Submission(0, (), _signed(Checkpoint(ORIGIN, 0, bytes(32)))).encode())[0] == 422
    _accepted(witness, _body(0, 0))
    _accepted(witness, _body(0, 0))
    assert _refused(witness, Submission(0, (bytes(32),), _signed(_state(7))).encode())[0] == 422
    _accepted(witness, _body(0, 7))


def test_whose_signature_counts(witness: Witness, store: Store) -> None:
    """One trusted key is enough, strangers do no harm, and a trusted key's bad signature is one too many."""
    state, stranger = _state(2), _signer(ORIGIN, 9)
    assert _refused(witness, Submission(0, (), _signed(state, stranger)).encode())[0] == 403
    bad = Signature(ORIGIN, LOG.verifier.key_id, bytes(64))
    both = Note(state.text, (bad, LOG.sign(state.text)))
    assert _refused(witness, Submission(0, (), both).encode())[0] == 403
    strangers = tuple(Signature(f"dept.example/w{n}", b"abcd", bytes(72)) for n in range(15))
    text = state.text + "an extension of another's log\n"  # opaque, and cosigned as it is
    note_ = Note(text, (*strangers, LOG.sign(text)))
    _accepted(witness, Submission(0, (), note_).encode())
    kept = store.note(sha256(ORIGIN.encode()).hexdigest())
    assert kept is not None
    assert note.parse(kept).text == text
    assert note.verified(note.parse(kept), [LOG.verifier, WITNESS.verifier]) == (LOG.verifier, WITNESS.verifier)
    assert len(note.parse(kept).signatures) == 2


GOOD = _body(3, 5)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        GOOD.removeprefix(b"old "),
        GOOD.replace(b"old 3", b"old 03"),
        GOOD.replace(b"old 3", b"old  3"),
        GOOD.replace(b"old 3", b"old -3"),
        GOOD.replace(b"old 3", b"old 9223372036854775808"),
        GOOD.replace(b"old 3", "old ３".encode()),
        GOOD.replace(b"old 3\n", b"old 3\nAAAA\n"),
        GOOD.replace(b"old 3\n", b"old 3\n?\n"),
        GOOD.replace(b"old 3\n", b"old 3\n" + (b"A" * 43 + b"=\n") * 64),
        GOOD.replace(b"\n5\n", b"\n05\n"),
        GOOD.replace(b"\n5\n", b"\n\n5\n"),
        GOOD[:-1],
    ],
)
def test_what_is_no_request_is_400(witness: Witness, body: bytes) -> None:
    assert body != GOOD
    assert _refused(witness, body)[0] == 400


def test_too_much_is_413(witness: Witness) -> None:
    assert _refused(witness, _body(0, 1) + bytes(MAX_BODY_BYTES))[0] == 413


@given(st.integers(0, 2**63 - 1), st.lists(st.binary(min_size=32, max_size=32), max_size=63))
def test_a_submission_reads_back(old: int, proof: list[bytes]) -> None:
    submission = Submission(old, tuple(proof), _signed(_state(3)))
    assert parse(submission.encode()) == submission


@given(st.one_of(st.binary(max_size=200), st.integers(0, len(GOOD)).map(lambda at: GOOD[:at] + GOOD[at + 1 :])))
def test_nothing_but_malformed_escapes_the_parser(body: bytes) -> None:
    with suppress(Malformed):
        parse(body)


def test_what_was_cosigned_is_remembered_by_whoever_opens_the_file(tmp_path: Path) -> None:
    running, store = open_witness(tmp_path, "dept.example/witness", [LOG.verifier])
    running.add_checkpoint(_body(0, 5), NOW)
    # No close: a process that is killed does not close either.
    again, other = open_witness(tmp_path, "dept.example/witness", [LOG.verifier])
    assert again.verifier == running.verifier
    assert _conflict(again, _body(0, 3)) == 5
    again.add_checkpoint(_body(5, 8), NOW)
    assert _conflict(running, _body(5, 7)) == 8
    store.close()
    other.close()
    (tmp_path / "witness.sqlite").unlink()
    with pytest.raises(Misuse, match="is gone"):
        open_witness(tmp_path, "dept.example/witness", [LOG.verifier])


def test_of_requests_at_once_one_is_recorded_and_nothing_rolls_back(tmp_path: Path) -> None:
    """The race that the standard describes, between threads and between two processes' connections to one file."""
    stores = [Store(tmp_path / "witness.sqlite") for _ in range(2)]
    witnesses = [Witness(WITNESS, [LOG.verifier], store) for store in stores for _ in range(2)]
    for _ in range(25):
        latest = stores[0].latest(ORIGIN)
        old = latest.size if latest else 0
        together = threading.Barrier(len(witnesses))
        won: list[int] = []
        stale: list[int] = []

        def submit(witness: Witness, size: int, old: int = old) -> None:
            body = _body(old, size)
            together.wait()  # noqa: B023 - the threads end with the round
            try:
                witness.add_checkpoint(body, NOW)
                won.append(size)  # noqa: B023
            except Stale as exc:
                stale.append(exc.size)  # noqa: B023

        threads = [threading.Thread(target=submit, args=(w, old + n)) for n, w in enumerate(witnesses, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert stale == won * 3
        assert stores[1].latest(ORIGIN) == _state(won[0])
    for store in stores:
        store.close()


# The process


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with one department in it, and no stack."""
    where = Home(tmp_path_factory.mktemp("witness"))
    uscc = "11330411MB2A00011E"
    authority = CertificateAuthority.create(where.path / "ca", "deptbus.example", uscc)
    Identity(
        name="market",
        uscc=uscc,
        origin="deptbus.example",
        gateway_owner=uscc,
        authority=authority.signer.der,
        record=authority.issue(Role.RECORD, uscc, "market"),
        department=authority.issue(Role.DEPARTMENT, uscc, "market"),
        kem=hpke.PrivateKey.generate(),
        pseudonym_keys={},
    ).save(where.org_folder("market"))
    return where


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _command(home: Home, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "deploy.cli", "witness", "--as", "market", "--log", LOG.verifier.vkey),
        *("--home", str(home.path), "--json", *more),
    ]


@contextmanager
def _running(home: Home, stop: signal.Signals) -> Iterator[tuple[str, Verifier, str]]:
    """URL, key and metrics' URL of a running witness, which is then stopped in this way."""
    port, metrics_port = _free_port(), _free_port()
    command = _command(home, "--port", str(port), "--metrics-port", str(metrics_port))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            said = json.loads(process.stdout.readline())
            assert said["logs"] == [ORIGIN]
            probes = f"http://127.0.0.1:{metrics_port}"
            deadline = time.monotonic() + 10
            while True:
                with suppress(httpx.TransportError):
                    if httpx.get(f"{said['url']}/none/checkpoint").status_code == 404:
                        break
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield said["url"], Verifier.from_vkey(said["vkey"]), probes
        finally:
            process.send_signal(stop)
            code = process.wait(timeout=10)
    assert code == (0 if stop is signal.SIGTERM else -stop)


async def _proven(old: int, size: int) -> list[bytes]:
    return list(_proof(old, size))


def _cosign(url: str, key: Verifier, *sizes: int) -> list[list[Signature]]:
    """A recorder that asks this witness, and one that is away, about one size after the other."""
    nobody = _signer("away.example", 5, Algorithm.COSIGNATURE_V1).verifier
    lines = (
        f"witness away {nobody.vkey} http://127.0.0.1:{_free_port()}\nwitness market {key.vkey} {url}/\nquorum market\n"
    )

    async def run() -> list[list[Signature]]:
        async with httpx.AsyncClient(trust_env=False) as http:
            witnesses = Witnesses(policy.parse(lines.encode()), http, _proven)
            return [await witnesses.cosign(_signed(_state(size)), _state(size)) for size in sizes]

    return asyncio.run(run())


def _counted(witness: str, outcome: str) -> float:
    return float(metrics.COSIGNED.labels(witness=witness, outcome=outcome)._value.get())


def _up(witness: str) -> float:
    return float(metrics.WITNESS_UP.labels(witness=witness)._value.get())


def test_a_recorder_and_the_process(home: Home) -> None:
    with _running(home, signal.SIGKILL) as (url, key, _):
        now = time.time()
        first, second = _cosign(url, key, 2, 5)
        [signature] = second
        stated = key.verify(_state(5).text, signature)
        assert stated is not None
        assert abs(stated - now) < 60
        assert len(first) == 1
    assert _counted("market", "ok") == _counted("away", "away") == 2
    # Killed right after its answer: it stands where it said it stands, and a log that comes with less is told so.
    with _running(home, signal.SIGTERM) as (url, again, probes):
        assert again == key
        answer = httpx.post(f"{url}/add-checkpoint", content=_body(0, 3))
        assert (answer.status_code, answer.text) == (409, "5\n")
        assert answer.headers["Content-Type"] == SIZE_TYPE
        # A recorder that has just started knows nothing: it asks from 0, is told 5 and goes on from there.
        three, nine = _cosign(url, key, 3, 9)
        assert three == []
        assert (_counted("market", "STATE_INVALID"), _up("market"), _up("away")) == (1, 1, 0)
        served = httpx.get(f"{url}/{sha256(ORIGIN.encode()).hexdigest()}/checkpoint")
        cosigned = note.parse(served.content)
        assert checkpoint.parse(cosigned.text) == _state(9)
        assert note.verified(cosigned, [LOG.verifier, key]) == (LOG.verifier, key)
        assert cosigned.signatures[1:] == tuple(nine)
        assert served.headers["Content-Type"] == "text/plain; charset=utf-8"
        for body, status in ((b"old", 400), (_body(9, 12).replace(b"\n12\n", b"\n13\n"), 403), (bytes(300_000), 413)):
            assert httpx.post(f"{url}/add-checkpoint", content=body).status_code == status
        fork = Submission(9, (), _signed(Checkpoint(ORIGIN, 9, bytes(32)))).encode()
        assert httpx.post(f"{url}/add-checkpoint", content=fork).status_code == 422
        counted = httpx.get(f"{probes}/metrics").text
        for code in ("NOTE_INVALID", "SIGNATURE_INVALID", "REQUEST_TOO_LARGE", "PROOF_INVALID"):
            assert f'bus_witness_requests_total{{outcome="{code}"}} 1.0' in counted
        # A witness by another key than the policy says: its answer is no cosignature.
        assert _cosign(url, WITNESS.verifier, 9) == [[]]
        assert _counted("market", "SIGNATURE_INVALID") == 1


def test_what_the_command_refuses(home: Home) -> None:
    def run(*more: str) -> tuple[int, str]:
        done = subprocess.run(_command(home, *more), capture_output=True, text=True, timeout=30)
        return done.returncode, json.loads(done.stdout)["error"]["code"]

    assert run("--log", WITNESS.verifier.vkey) == (2, Code.CONFIG_INVALID)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert run("--port", str(taken.getsockname()[1])) == (3, Code.PORT_TAKEN)


def test_an_answer_that_does_not_come_is_waited_for_only_so_long() -> None:
    """A witness that takes the request and says nothing, or never stops to speak."""

    async def run() -> tuple[list[Signature], float]:
        async def mute(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                await asyncio.sleep(5)
                writer.close()

        async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
                while True:
                    writer.write(b"x" * 10_000)
                    await writer.drain()

        servers = [await asyncio.start_server(serve, "127.0.0.1", 0) for serve in (mute, endless)]
        lines = ""
        for name, server in zip(("mute", "endless"), servers, strict=True):
            key = _signer(name, len(name), Algorithm.COSIGNATURE_V1).verifier
            lines += f"witness {name} {key.vkey} http://127.0.0.1:{server.sockets[0].getsockname()[1]}\n"
        began = time.monotonic()
        async with httpx.AsyncClient(trust_env=False) as http:
            witnesses = Witnesses(policy.parse((lines + "quorum none\n").encode()), http, _proven, seconds=0.5)
            got = await witnesses.cosign(_signed(_state(3)), _state(3))
        for server in servers:
            server.close()
        return got, time.monotonic() - began

    got, seconds = asyncio.run(run())
    assert got == []
    assert seconds < 3
    assert (_counted("mute", "away"), _counted("endless", "REQUEST_TOO_LARGE")) == (1, 1)
