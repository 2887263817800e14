"""How an erased record is looked for: the search finds what is there, and a run that found anything is bad."""

from __future__ import annotations

import secrets
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from schemas.errors import Code
from tests.faults.erasure import Erasure, NotReadable, Search, Tried, _check_readable
from tests.faults.traces import CHUNK, look, of_key, of_process, of_text

KEY = bytes(range(1, 33))
HOLDS = "import os, sys; key = os.urandom(32); print(key.hex(), flush=True); sys.stdin.read()"


class TestSearch:
    @pytest.mark.parametrize("form", of_key("key", KEY)["key"], ids=("raw", "hex", "HEX", "base64", "base64url"))
    @pytest.mark.parametrize("before", [0, 1, CHUNK - 1, CHUNK, CHUNK + 5])
    def test_a_key_is_found_in_every_form_wherever_a_chunk_ends(self, form: bytes, before: int) -> None:
        data = b"x" * before + form + b"y" * 100
        seen = look((data[at : at + CHUNK] for at in range(0, len(data), CHUNK)), of_key("key", KEY))
        assert (seen.bytes, seen.names) == (len(data), frozenset({"key"}))

    def test_what_is_not_adjacent_is_no_find(self) -> None:
        assert not look([KEY[:16], b"", KEY[16:]], of_key("key", KEY)).names
        assert look([KEY[:16], KEY[16:]], of_key("key", KEY)).names

    def test_text_is_found_as_it_is_stored_sent_and_held(self) -> None:
        name = "测试1号公司"
        for data in (name.encode(), name.encode("utf-16-le"), name.encode("ascii", "backslashreplace")):
            assert look([b"..", b"." + data + b"."], of_text("name", name)).names == {"name"}

    def test_a_key_that_another_process_holds_is_found_in_its_memory(self) -> None:
        child = subprocess.Popen([sys.executable, "-c", HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdout is not None
        try:
            held = bytes.fromhex(child.stdout.readline().decode())
            wanted = {"held": [held], "another": [secrets.token_bytes(32)]}
            assert look(of_process(child.pid), wanted).names == {"held"}
        finally:
            child.kill()
            child.communicate()
        with pytest.raises(NotReadable):
            _check_readable(child.pid)


GOOD = Erasure(
    seconds_to_complete=20,
    before=("identity: root",),
    still_running=("identity: root",),
    fresh=(Code.RECORD_ERASED, Code.PERMIT),
    unread=(Code.AUDIT_STALLED,),
    restored=(Code.AUDIT_STALLED, Code.RECORD_ERASED),
    copied_keys=("KEM key", "wrapping key"),
    copied_keys_later=(),
    searches=(Search(place="database", bytes=1, control=("record",), secrets=()),),
    tried=(Tried(place="database", keys=2, neighbour=("identity",), other=("identity",), erased=()),),
)


class TestJudgement:
    def test_good(self) -> None:
        assert GOOD.good

    @pytest.mark.parametrize(
        "wrong",
        [
            {"before": ()},
            {"fresh": (Code.PERMIT, Code.PERMIT)},
            {"fresh": (Code.RECORD_ERASED, Code.RECORD_ERASED)},
            {"unread": ()},
            {"unread": (Code.PERMIT,)},
            {"restored": (Code.AUDIT_STALLED,)},
            {"restored": (Code.PERMIT, Code.RECORD_ERASED)},
            {"copied_keys": ("KEM key",)},
            {"copied_keys_later": ("KEM key",)},
            {"searches": (replace(GOOD.searches[0], control=()),)},
            {"searches": (replace(GOOD.searches[0], secrets=("value: name",)),)},
            {"tried": (replace(GOOD.tried[0], erased=("identity",)),)},
            {"tried": (replace(GOOD.tried[0], neighbour=()),)},
            {"tried": (replace(GOOD.tried[0], other=()),)},
        ],
    )
    def test_bad(self, wrong: dict[str, Any]) -> None:
        assert not replace(GOOD, **wrong).good
