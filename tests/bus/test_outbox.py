"""The outbox: what `stage` returned for is on disk whole, whatever happens to the process, and nothing else is."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from bus.outbox import LicenceState, Outbox, Sealed
from schemas.errors import Code, Malformed, Misuse, Unavailable
from tests.disks import filled, small_disk

__all__ = ["small_disk"]

ROOT = Path(__file__).parents[2]
KILLS = 8


def sealed(number: int, size: int = 100) -> Sealed:
    """A record of its number: the same in every process."""
    seed = number.to_bytes(32, "big")
    return Sealed(
        topic="licence.business-licence",
        key=seed,
        value=random.Random(number).randbytes(size),
        headers=(("a", seed[-2:]), ("b", b""), ("a", b"\x00\xff")),
        leaf_hash=b"leaf" + seed,
        licence=b"licence" + seed,
        sequence=number + 1,
        record=UUID(int=number),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "outbox.sqlite"


def state(number: int, digest: bytes = b"", note: str = "") -> LicenceState:
    """What the outbox knows of a licence once `sealed(number)` was staged."""
    one = sealed(number)
    return LicenceState(sequence=one.sequence, digest=digest, leaf_hash=one.leaf_hash, record=one.record, note=note)


def test_what_is_staged_comes_back_as_it_was(path: Path) -> None:
    """Byte for byte and in order, also after the file was closed; the licence's state beside it."""
    records = [sealed(number) for number in (3, 1, 2)]
    with Outbox(path) as outbox:
        outbox.stage(records, {records[0].leaf_hash: b"digest"}, {records[0].leaf_hash: "17"})
        assert outbox.pending() == records
    with Outbox(path) as outbox:
        assert outbox.pending() == records
        assert outbox.licence(records[0].licence) == state(3, b"digest", "17")
        assert outbox.licence(records[1].licence) == state(1)
        assert outbox.licence(b"another") is None


def test_done_forgets_the_bytes_and_keeps_the_state(path: Path) -> None:
    """So that the licence is known when it comes again. What is not there is no fault: done may come twice."""
    with Outbox(path) as outbox:
        outbox.stage([sealed(1), sealed(2)])
        for _ in range(2):
            outbox.done([sealed(1).leaf_hash, b"unknown"])
            assert outbox.pending() == [sealed(2)]
        assert outbox.licence(sealed(1).licence) == state(1)


def test_a_new_version_takes_the_place_of_the_state(path: Path) -> None:
    """One state a licence; both records wait."""
    newer = replace(sealed(1), leaf_hash=b"newer", sequence=9)
    with Outbox(path) as outbox:
        outbox.stage([sealed(1)])
        outbox.stage([newer])
        assert outbox.pending() == [sealed(1), newer]
        found = outbox.licence(sealed(1).licence)
        assert found is not None
        assert (found.sequence, found.leaf_hash) == (9, b"newer")


def test_a_batch_is_staged_whole_or_not_at_all(path: Path) -> None:
    """The last of three is known already: none of the others is staged, and the outbox goes on."""
    with Outbox(path) as outbox:
        outbox.stage([sealed(1)])
        with pytest.raises(sqlite3.IntegrityError):
            outbox.stage([sealed(2), sealed(3), sealed(1)])
        assert outbox.pending() == [sealed(1)]
        assert outbox.licence(sealed(2).licence) is None
        outbox.stage([sealed(2)])
        assert outbox.pending() == [sealed(1), sealed(2)]


def test_only_its_owner_reads_it(path: Path) -> None:
    """The file names firms' licences."""
    with Outbox(path):
        assert path.stat().st_mode & 0o077 == 0
        assert path.parent.stat().st_mode & 0o077 == 0


def test_one_owner_only(path: Path) -> None:
    """The second is refused, in another process or in this one, until the first is gone."""
    with Outbox(path):
        with pytest.raises(Misuse) as refused:
            Outbox(path)
        assert refused.value.code is Code.STATE_INVALID
        program = f"from pathlib import Path; from bus.outbox import Outbox; Outbox(Path({str(path)!r}))"
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert "STATE_INVALID" in done.stderr
    with Outbox(path):
        pass


def test_another_version_is_refused_and_left_alone(path: Path) -> None:
    """By an older software as by a newer; and the file can be opened by the right one afterwards."""
    with Outbox(path) as outbox:
        outbox.stage([sealed(1)])
    for version, fits in ((2, False), (1, True)):
        with sqlite3.connect(path) as raw:
            raw.execute(f"PRAGMA user_version={version}")
        raw.close()
        if fits:
            with Outbox(path) as outbox:
                assert outbox.pending() == [sealed(1)]
        else:
            with pytest.raises(Misuse) as refused:
                Outbox(path)
            assert refused.value.code is Code.DATA_VERSION


@pytest.mark.parametrize("content", [b"x" * 4096, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_file_that_is_none_is_corrupt(path: Path, content: bytes) -> None:
    """Said so, not overwritten, and no lock is left."""
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    for _ in range(2):
        with pytest.raises(Malformed) as refused:
            Outbox(path)
        assert refused.value.code is Code.DATA_CORRUPT
    assert path.read_bytes() == content


# Stages and forgets for ever. What is printed was returned: "+ 7 3" is 'records 7 to 9 are staged', "- 7" 'done'.
CHILD = textwrap.dedent(
    """
    import random, sys
    from pathlib import Path
    from bus.outbox import Outbox
    from tests.bus.test_outbox import sealed
    first, chance = int(sys.argv[2]), random.Random(int(sys.argv[3]))
    with Outbox(Path(sys.argv[1])) as outbox:
        waiting = [int.from_bytes(one.key) for one in outbox.pending()]
        print("ready", flush=True)
        while True:
            count = chance.randint(1, 5)
            outbox.stage([sealed(number, 3_000) for number in range(first, first + count)])
            print("+", first, count, flush=True)
            waiting += range(first, first + count)
            first += count
            while len(waiting) > 6:
                number = waiting.pop(chance.randrange(len(waiting)))
                print("?", number, flush=True)
                outbox.done([sealed(number).leaf_hash])
                print("-", number, flush=True)
    """
)


def test_what_was_staged_survives_kill_9(path: Path) -> None:
    """At random moments: what was returned as staged is there byte for byte, what was done is gone, batches are whole.

    (That it survives a loss of power, too, is SQLite's `synchronous=FULL`; a killed process cannot show it.)
    """
    chance = random.Random(1)
    staged: set[int] = set()
    next_number = 0
    for turn in range(KILLS):
        said = _killed(path, next_number, turn, chance.uniform(0.0, 0.15))
        batches = [range(first, first + count) for sign, first, count in said if sign == "+"]
        staged |= {number for batch in batches for number in batch}
        asked = {first for sign, first, _ in said if sign == "?"}
        staged -= {first for sign, first, _ in said if sign == "-"}
        in_doubt = asked & staged  # asked to be forgotten, and killed before the answer
        with Outbox(path) as outbox:
            pending = outbox.pending()
            found = {int.from_bytes(one.key) for one in pending}
            assert [sealed(number, 3_000) for number in sorted(found)] == pending
            # The last batch may have been committed just before it could be said: then whole, with its states.
            unsaid = found - staged
            last_said = max((batch.stop for batch in batches), default=next_number)
            end = last_said + len(unsaid)
            assert unsaid == set(range(last_said, end))
            assert staged - in_doubt <= found
            for number in range(end):
                assert outbox.licence(sealed(number).licence) is not None
            assert outbox.licence(sealed(end).licence) is None
        staged, next_number = found, end
    assert next_number > KILLS


def _killed(path: Path, first: int, seed: int, seconds: float) -> list[tuple[str, int, int]]:
    """What a child said until it was killed."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), str(first), str(seed)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    with child:
        assert child.stdout.readline() == "ready\n"
        time.sleep(seconds)
        child.send_signal(signal.SIGKILL)
        lines = child.stdout.read().splitlines(keepends=True)
    words = [line.split() for line in lines if line.endswith("\n")]
    return [(sign, int(rest[0]), int(rest[1]) if len(rest) > 1 else 0) for sign, *rest in words]


def test_a_full_disk_is_said_and_nothing_is_staged(small_disk: Path) -> None:
    """The batch is refused whole; what was staged before stays; with room again it goes on."""
    with Outbox(small_disk / "outbox.sqlite") as outbox:
        outbox.stage([sealed(0)])
        filler = small_disk / "filler"
        filler.write_bytes(bytes(300_000))
        batch = [sealed(number, 60_000) for number in range(1, 12)]
        for _ in range(2):
            with pytest.raises(Unavailable) as refused:
                outbox.stage(batch)
            assert refused.value.code is Code.DISK_FULL
            assert outbox.pending() == [sealed(0)]
            assert outbox.licence(batch[0].licence) is None
        filler.unlink()
        outbox.stage(batch[:2])
        assert outbox.pending() == [sealed(0), *batch[:2]]


def test_a_full_disk_at_the_start(small_disk: Path) -> None:
    """Is said with the same code, and no lock is left."""
    with filled(small_disk):
        for _ in range(2):
            with pytest.raises(Unavailable) as refused:
                Outbox(small_disk / "outbox.sqlite")
            assert refused.value.code is Code.DISK_FULL
    with Outbox(small_disk / "outbox.sqlite") as outbox:
        outbox.stage([sealed(1)])
