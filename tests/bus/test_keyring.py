"""Stored keys: nothing in the clear, one master key, two of three officers, rotation while others hold the folder."""

from __future__ import annotations

import os
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus import hpke
from bus.gateway.keyring import Keyring, Lives, open_keyring
from bus.gateway.master import Master, Officers, Passphrase, PassphraseFile, alone
from bus.pki import CertificateAuthority, Role, Signer
from bus.punctured import Tree
from bus.sealing import LEAF_BITS, LeafKeys
from schemas.errors import Code, DeptbusError, Misuse, Refused, Unavailable

USCC = "11330411MB2A00011E"
NOW = datetime(2026, 3, 1, 8, tzinfo=UTC)
ROOTS = {"identity": bytes(range(32)), "business": bytes(range(1, 33))}
SESSION = bytes(16)
PASSPHRASES = {"li": "one horse", "wang": "two carts", "zhao": "three wells"}
SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    authority = CertificateAuthority.create(tmp_path_factory.mktemp("ca"), "test", USCC)
    return authority.issue(Role.GATEWAY, USCC, "gateway")


@pytest.fixture
def provider() -> Passphrase:
    return Passphrase("open sesame", cost=2)


@pytest.fixture
def keyring(tmp_path: Path, signer: Signer, provider: Passphrase) -> Keyring:
    signer.save(tmp_path, "gateway")  # it lies in the same folder, as in a bus
    return Keyring(tmp_path, signer, Master.create(tmp_path, provider))


def another(keyring: Keyring, provider: Passphrase | Officers | None = None) -> Keyring:
    """Another process's view of the folder."""
    master = Master(keyring.folder)
    if provider is not None:
        master.unlock(provider)
    return Keyring(keyring.folder, keyring.signer, master)


@given(st.sets(st.integers(0, 2**LEAF_BITS - 1), min_size=1, max_size=8), st.integers(0, 2**LEAF_BITS - 1))
def test_what_is_left_of_a_tree_yields_every_leaf_but_those_taken_out(out: set[int], leaf: int) -> None:
    root = bytes(range(32))
    tree = Tree.whole(LEAF_BITS, root)
    for one in out:
        tree = tree.without(one)
    for one in out:
        with pytest.raises(Refused) as caught:
            tree.node(one)
        assert caught.value.code is Code.RECORD_ERASED
    if leaf not in out:
        assert tree.node(leaf) == LeafKeys(root).node(leaf)
    lost = {(depth, one >> LEAF_BITS - depth) for one in out for depth in range(LEAF_BITS + 1)}
    assert not lost & tree.nodes.keys()  # no node that is left lies above one of them


def test_nothing_is_stored_in_the_clear(keyring: Keyring, provider: Passphrase) -> None:
    """Neither the root, nor a KEM key, nor a day's: all are under the master key, bound to their names."""
    root = keyring.pseudonym_root
    keyring.renew_kem(NOW)
    (key_id,) = keyring.kem_ids
    private = keyring.kem(key_id)
    assert private is not None
    keyring.wrap(ROOTS, SESSION, USCC, "2026-03-01")
    stored = b"".join(path.read_bytes() for path in keyring.folder.rglob("*") if path.is_file())
    for secret in (root, private.private_bytes(), private.private_bytes()[:32], keyring.master.key()):
        assert secret not in stored
    with pytest.raises(Unavailable) as caught:
        _ = another(keyring).pseudonym_root
    assert caught.value.code is Code.KEYS_LOCKED
    (keyring.folder / "pseudonym.key").write_bytes((keyring.folder / "kem" / f"{key_id.hex()}.key").read_bytes())
    with pytest.raises(Misuse):
        _ = another(keyring, provider).pseudonym_root


def test_a_session_whose_key_was_taken_out_of_its_day_opens_from_no_copy_of_its_row(
    keyring: Keyring, provider: Passphrase
) -> None:
    """Another of that day does, in every process; the erased record's leaf is nowhere in what is left."""
    other = b"\x01" * 16
    row = keyring.wrap(ROOTS, SESSION, USCC, "2026-03-01")
    beside = keyring.wrap(ROOTS, other, USCC, "2026-03-01")
    watching = another(keyring, provider)
    assert watching.unwrap(*row, SESSION, USCC) == ROOTS
    left = {name: Tree.whole(LEAF_BITS, root).without(7) for name, root in ROOTS.items()}
    keyring.puncture(row[0], SESSION, USCC, left)
    assert watching.refresh() == {row[0]}
    for one in (keyring, watching, another(keyring, provider)):
        with pytest.raises(Refused) as caught:
            one.unwrap(*row, SESSION, USCC)
        assert caught.value.code is Code.SESSION_ERASED
        assert one.unwrap(*beside, other, USCC) == ROOTS
        kept = one.left(SESSION, USCC)
        assert kept is not None
        assert kept["identity"].node(6) == LeafKeys(ROOTS["identity"]).node(6)
        with pytest.raises(Refused):
            kept["identity"].node(7)
    keyring.puncture(row[0], SESSION, USCC, left)  # again: nothing changes


def test_a_wrapping_key_is_replaced_while_others_wrap(keyring: Keyring, provider: Passphrase) -> None:
    old, wrapped = keyring.wrap(ROOTS, SESSION, USCC, "2026-03-01")
    watching = another(keyring, provider)
    new = keyring.rotate_wrapping("2026-03-01")
    assert (watching.outdated(), watching.stands(old), watching.stands(new)) == ([old], False, True)
    assert watching.wrap(ROOTS, SESSION, USCC, "2026-03-01")[0] == new
    assert watching.unwrap(old, wrapped, SESSION, USCC) == ROOTS
    keyring.destroy_wrapping(old)
    with pytest.raises(Refused):
        watching.unwrap(old, wrapped, SESSION, USCC)


def test_the_master_key_is_replaced_under_a_running_gateway(keyring: Keyring, provider: Passphrase) -> None:
    """It goes on without being told; copies of the folder from before open nothing with the new key."""
    root = keyring.pseudonym_root
    row = keyring.wrap(ROOTS, SESSION, USCC, "2026-03-01")
    before = {path: path.read_bytes() for path in keyring.folder.glob("**/*.key")}
    running = another(keyring, provider)
    keyring.rotate_master(provider.renewed())
    assert running.unwrap(*row, SESSION, USCC) == ROOTS
    running.refresh()
    keyring.master.end_rotation()
    assert (running.pseudonym_root, running.master.locked, running.master.generation) == (root, False, 2)
    for path, data in before.items():
        path.write_bytes(data)
    with pytest.raises(DeptbusError):
        _ = another(keyring, _provider_of(keyring)).pseudonym_root


@pytest.fixture
def filed(tmp_path: Path, signer: Signer) -> Keyring:
    """Keys under a passphrase in a file, as those of the local stack."""
    folder, file = tmp_path / "bus" / "gateway", tmp_path / "unlock" / "one.passphrase"
    folder.mkdir(parents=True)
    file.parent.mkdir()
    file.write_text("made by a machine")
    Master.create(folder, Passphrase("made by a machine", file="../../unlock/one.passphrase", cost=2))
    keyring = open_keyring(folder, signer)
    assert len(keyring.pseudonym_root) == 32
    return keyring


def test_a_copy_of_the_keys_of_before_a_rotation_is_opened_by_nothing_that_is_left(filed: Keyring) -> None:
    """Not even with the passphrase's file as it is then: the copy has its own `master.json`."""
    root, copy = filed.pseudonym_root, filed.folder.parent / "copy"
    shutil.copytree(filed.folder, copy)
    assert open_keyring(copy, filed.signer).pseudonym_root == root
    before = alone(filed.folder, filed.master.about["provider"])
    filed.rotate_master(filed.master.same_again())
    for folder in (copy, filed.folder):  # a gateway that starts meanwhile opens either
        assert open_keyring(folder, filed.signer).pseudonym_root == root
    filed.master.end_rotation()
    assert isinstance(before, PassphraseFile)
    before.destroy()
    assert open_keyring(filed.folder, filed.signer).pseudonym_root == root
    with pytest.raises(Refused) as caught:
        open_keyring(copy, filed.signer)
    assert caught.value.code is Code.KEYS_UNOPENABLE


@pytest.mark.parametrize("died", ["a new passphrase", "a new generation", "the end"])
def test_a_rotation_that_died_leaves_no_passphrase_to_the_one_after_it(filed: Keyring, died: str) -> None:
    """Wherever it died: everything opens, and the next rotation destroys what was left."""
    root = filed.pseudonym_root
    file = filed.folder.parents[1] / "unlock" / "one.passphrase"
    renewed = filed.master.same_again()
    if died != "a new passphrase":
        filed.rotate_master(renewed)
    if died == "the end":
        filed.master.end_rotation()
    assert len(file.read_text().splitlines()) == 2
    again = open_keyring(filed.folder, filed.signer)
    assert again.pseudonym_root == root
    before = alone(filed.folder, again.master.about["provider"])
    again.rotate_master(again.master.same_again())
    again.master.end_rotation()
    assert isinstance(before, PassphraseFile)
    before.destroy()
    assert len(file.read_text().splitlines()) == 1
    assert open_keyring(filed.folder, filed.signer).pseudonym_root == root


def test_a_passphrase_is_destroyed_when_others_keep_the_key(filed: Keyring) -> None:
    before = alone(filed.folder, filed.master.about["provider"])
    filed.rotate_master(Officers.appoint(PASSPHRASES, cost=2))
    filed.master.end_rotation()
    assert isinstance(before, PassphraseFile)
    before.destroy()
    assert not list((filed.folder.parents[1] / "unlock").iterdir())


def test_a_rotation_that_died_in_the_middle_loses_nothing(keyring: Keyring, provider: Passphrase) -> None:
    """The old generation is found through the new one, by who was started since; the next rotation ends both."""
    root = keyring.pseudonym_root
    renewed = provider.renewed()
    keyring.master.rotate(renewed)  # and nothing is wrapped again
    started = another(keyring, renewed)
    assert started.pseudonym_root == root
    started.rotate_master(renewed.renewed())
    started.master.end_rotation()
    assert another(keyring, _provider_of(keyring)).pseudonym_root == root


def _provider_of(keyring: Keyring) -> Passphrase:
    about = keyring.master.about["provider"]
    return Passphrase("open sesame", salt=bytes.fromhex(about["salt"]), cost=about["cost"])


def test_two_of_three_officers_unlock_and_one_does_not(tmp_path: Path, signer: Signer) -> None:
    officers = Officers.appoint(PASSPHRASES, cost=2)
    first = Keyring(tmp_path, signer, Master.create(tmp_path, officers))
    root = first.pseudonym_root
    about = first.master.about["provider"]
    assert not any(word in (tmp_path / "master.json").read_text("utf-8") for word in PASSPHRASES.values())
    for pair in combinations(PASSPHRASES, 2):
        unlocked = another(first, Officers.unlock(about, {name: PASSPHRASES[name] for name in pair}))
        assert unlocked.pseudonym_root == root
    wrong = (
        {"li": PASSPHRASES["li"]},
        {"li": PASSPHRASES["li"], "wang": PASSPHRASES["li"]},
        {"li": PASSPHRASES["li"], "chen": PASSPHRASES["wang"]},
        PASSPHRASES,
    )
    for said in wrong:
        with pytest.raises(Refused) as caught:
            Officers.unlock(about, said)
        assert caught.value.code is Code.KEYS_UNOPENABLE


def test_a_locked_gateway_gets_the_key_from_officers_and_nobody_else_reads_it_on_the_way(
    tmp_path: Path, signer: Signer
) -> None:
    first = Keyring(tmp_path, signer, Master.create(tmp_path, Officers.appoint(PASSPHRASES, cost=2)))
    root = first.pseudonym_root
    waiting = another(first)
    with pytest.raises(Unavailable) as caught:
        waiting.check()
    assert caught.value.code is Code.KEYS_LOCKED
    waiting.refresh()
    two = {name: PASSPHRASES[name] for name in ("li", "zhao")}
    officers = another(first, Officers.unlock(first.master.about["provider"], two))
    assert officers.master.hand_over() == 1
    (sealed,) = (tmp_path / "locked").glob("*.key")
    assert first.master.key() not in sealed.read_bytes()
    waiting.refresh()
    waiting.check()
    assert waiting.pseudonym_root == root
    assert not list((tmp_path / "locked").iterdir())


def test_a_kem_key_is_replaced_at_once_and_destroyed_for_all(keyring: Keyring, provider: Passphrase) -> None:
    first = keyring.renew_kem(NOW)
    assert keyring.renew_kem(NOW + timedelta(hours=1)) == first
    watching = another(keyring, provider)
    (old,) = watching.kem_ids
    assert watching.kem(old) is not None
    keyring.rotate_kem()
    assert watching.current_kem(NOW + timedelta(hours=1)) is None
    assert watching.renew_kem(NOW + timedelta(hours=1)) != first
    keyring.destroy_kem(old)
    watching.refresh()
    assert watching.kem(old) is None
    assert old not in keyring.kem_ids


def test_keys_of_before_are_wrapped_where_they_lie(tmp_path: Path, signer: Signer, provider: Passphrase) -> None:
    """A bus of an earlier version keeps its keys; afterwards none of them is in the clear."""
    kem = hpke.PrivateKey.generate()
    raw = {"pseudonym.key": bytes(range(32)), f"kem/{kem.id.hex()}.key": kem.private_bytes()}
    raw["wrap/2026-02-01.key"] = bytes(range(1, 33))
    for name, data in raw.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    keyring = Keyring(tmp_path, signer, Master.create(tmp_path, provider), Lives())
    keyring.adopt()
    keyring.adopt()
    assert keyring.pseudonym_root == raw["pseudonym.key"]
    assert keyring.kem(kem.id) is not None
    assert all((tmp_path / name).read_bytes() != data for name, data in raw.items())
    assert keyring.outdated() == []
    keyring.rotate_wrapping("2026-02-01")
    assert keyring.outdated() == ["2026-02-01"]


def test_a_token_keeps_the_master_key_and_its_destroyed_key_opens_nothing(
    tmp_path: Path, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SoftHSM: the wrapping key never leaves the token; rotation makes another there."""
    if not SOFTHSM.exists():
        if os.environ.get("DEPTBUS_NO_SKIP"):
            pytest.fail(f"{SOFTHSM} is missing")
        pytest.skip(f"{SOFTHSM} is missing: install softhsm2")
    from bus.gateway.token import Token

    (tmp_path / "tokens").mkdir()
    (tmp_path / "softhsm.conf").write_text(f"directories.tokendir = {tmp_path / 'tokens'}\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path / "softhsm.conf"))
    pin = tmp_path / "pin"
    pin.write_text("56789012")
    make = (
        "softhsm2-util",
        "--init-token",
        "--free",
        "--label",
        "deptbus",
        "--so-pin",
        "12345678",
        "--pin",
        "56789012",
    )
    subprocess.run(make, check=True, capture_output=True)
    token = Token.create(str(SOFTHSM), "deptbus", pin)
    folder = tmp_path / "keys"
    folder.mkdir()
    keyring = Keyring(folder, signer, Master.create(folder, token))
    root = keyring.pseudonym_root
    master = Master(folder)
    master.unlock(Token.named(master.about["provider"]))
    assert Keyring(folder, signer, master).pseudonym_root == root
    said = (folder / "master.json").read_bytes()
    keyring.rotate_master(token.renewed())
    keyring.master.end_rotation()
    token.destroy()
    with pytest.raises(Unavailable):
        token.unwrap(bytes(60))
    assert keyring.pseudonym_root == root
    (folder / "master.json").write_bytes(said)  # a copy of before: the token has no key for it any more
    before = Master(folder)
    with pytest.raises(Unavailable) as caught:
        before.unlock(Token.named(before.about["provider"]))
    assert caught.value.code is Code.KEYS_LOCKED
    pin.write_text("00000000")
    with pytest.raises(Unavailable):
        Token.named(before.about["provider"]).unwrap(bytes(60))
