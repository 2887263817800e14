"""The Go programs, built once a session."""

from __future__ import annotations

import pytest

from tests.go.programs import Programs
from tests.tools import tool


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return Programs.build(tool("go"), tmp_path_factory.mktemp("go"))
