"""Programs that tests use and that a machine may lack."""

from __future__ import annotations

import os
import shutil

import pytest

NO_SKIP = "DEPTBUS_NO_SKIP"  # set in CI: there a missing program fails what it would skip elsewhere


def tool(*names: str) -> str:
    """The path of the first of these programs that is there. Without one the test is skipped, or fails in CI."""
    for name in names:
        if found := shutil.which(name):
            return found
    missing = f"{' or '.join(names)} is not on the PATH"
    if os.environ.get(NO_SKIP):
        pytest.fail(f"{missing}, and {NO_SKIP} says that nothing may be skipped")
    pytest.skip(missing)
