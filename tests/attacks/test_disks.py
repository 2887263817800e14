"""A full disk, wherever the bus itself writes: it is said, what was there stays, and with room again it goes on.

A publisher's outbox is in tests/bus/test_outbox.py and tests/integration/test_publisher.py, engines' disks are in
tests/deploy/test_stack.py and in `make chaos`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bus.gateway.keyring import Keyring
from bus.gateway.master import Master, Passphrase
from bus.pki import CertificateAuthority, Role
from bus.punctured import Tree
from bus.recorder.guard import Guard, Signed
from bus.sealing import LEAF_BITS
from schemas.errors import Code, Unavailable
from tests.disks import filled, small_disk

__all__ = ["small_disk"]

USCC = "11330411MB2A00011E"
NOW = datetime(2026, 3, 1, 8, tzinfo=UTC)
DAY, NEXT_DAY = "2026-03-01", "2026-03-02"
ROOTS = {"identity": bytes(range(32))}
SESSION = bytes(16)
LOGGING = """
import logging, structlog
from bus.logs import configure
configure("test")
for number in range(1_000):
    structlog.get_logger().info("published", number=number)
logging.getLogger("aiokafka").error("a library's")
print("went on")
"""


def full(work: Callable[[], object]) -> None:
    with pytest.raises(Unavailable) as refused:
        work()
    assert refused.value.code is Code.DISK_FULL


def test_a_gateways_keys(small_disk: Path, tmp_path: Path) -> None:
    """No key of which nobody knows, none lost, no record half erased, a master key that opens everything."""
    authority = CertificateAuthority.create(tmp_path / "ca", "test", USCC)
    signer = authority.issue(Role.GATEWAY, USCC, "gateway")
    keyring = Keyring(small_disk, signer, Master.create(small_disk, Passphrase("open sesame", cost=2)))
    kem, root = keyring.renew_kem(NOW), keyring.pseudonym_root
    wrapped = keyring.wrap(ROOTS, SESSION, USCC, DAY)
    left = {name: Tree.whole(LEAF_BITS, one).without(7) for name, one in ROOTS.items()}
    before = sorted(path for path in small_disk.rglob("*"))
    with filled(small_disk):
        full(lambda: keyring.renew_kem(NOW + timedelta(days=1)))
        full(lambda: keyring.wrap(ROOTS, SESSION, USCC, NEXT_DAY))
        full(lambda: keyring.puncture(wrapped[0], SESSION, USCC, left))
        full(lambda: keyring.rotate_master(Passphrase("new", cost=2)))
        assert sorted(path for path in small_disk.rglob("*") if path.name != "filler") == before
        master = Master(small_disk)
        master.unlock(Passphrase("open sesame", salt=bytes.fromhex(master.about["provider"]["salt"]), cost=2))
        started = Keyring(small_disk, signer, master)
        assert started.pseudonym_root == root
        assert started.renew_kem(NOW) == kem
        assert started.unwrap(*wrapped, SESSION, USCC) == ROOTS
    assert keyring.renew_kem(NOW + timedelta(days=1)) != kem
    keyring.puncture(wrapped[0], SESSION, USCC, left)
    assert started.left(SESSION, USCC) == left


async def test_the_logs_guard(small_disk: Path) -> None:
    """It stands where it stood: nothing is signed meanwhile, and nothing twice afterwards."""
    first, then = Signed(0, Signed().root), Signed(5, bytes(32))
    guard = Guard.create(small_disk / "guard.sqlite", "test")
    with filled(small_disk):
        with pytest.raises(Unavailable) as refused:
            await guard.swap(first, then)
        assert refused.value.code is Code.DISK_FULL
        assert await guard.read() == first
    assert await guard.swap(first, then)
    assert await guard.read() == then


def test_logs() -> None:
    """Lines are lost, and nothing else is."""
    with Path("/dev/full").open("wb") as stderr:
        done = subprocess.run([sys.executable, "-c", LOGGING], stdout=subprocess.PIPE, stderr=stderr, check=False)
    assert done.stdout == b"went on\n"
