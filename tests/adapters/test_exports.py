"""Which export a file is: read again, grown, mended, or another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.exports import MAX_KNOWN, Exports
from schemas.errors import Code, Malformed


def test_the_same_bytes_are_the_same_export_and_a_grown_file_continues_it(tmp_path: Path) -> None:
    """Under whatever name it comes: what was fed of it is not fed again."""
    exports, file = Exports(tmp_path / "known.json"), tmp_path / "a.csv"
    file.write_bytes(b"header\n1\n2\n")
    first = exports.identify(file)
    assert Exports(tmp_path / "known.json").identify(file) == first
    grown = tmp_path / "b.csv"
    grown.write_bytes(file.read_bytes() + b"3\n")
    assert exports.identify(grown) == first
    assert exports.identify(grown) == first


def test_another_or_a_changed_file_is_a_new_export(tmp_path: Path) -> None:
    """One byte in the middle makes another export; so does a file that became shorter."""
    exports, file = Exports(tmp_path / "known.json"), tmp_path / "a.csv"
    file.write_bytes(b"header\n1\n2\n")
    first = exports.identify(file)
    file.write_bytes(b"header\n9\n2\n")
    assert exports.identify(file) != first
    file.write_bytes(b"header\n1\n")
    assert exports.identify(file) != first


def test_what_is_remembered_is_bounded_and_damage_is_said(tmp_path: Path) -> None:
    """A thousand exports stay known, the oldest goes first; a file that cannot be read is no empty one."""
    exports, file = Exports(tmp_path / "known.json"), tmp_path / "a.csv"
    ids = []
    for number in range(MAX_KNOWN + 1):
        file.write_bytes(b"export %04d" % number)
        ids.append(exports.identify(file))
    assert exports.identify(file) == ids[-1]
    file.write_bytes(b"export 0000")
    assert exports.identify(file) != ids[0]
    (tmp_path / "known.json").write_text("[{", "ascii")
    with pytest.raises(Malformed, match=Code.DATA_CORRUPT):
        exports.identify(file)
