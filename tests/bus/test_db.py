"""Where PostgreSQL may be, and how it is spoken to there. What it does is tested on a real one, everywhere."""

from __future__ import annotations

import pytest

from bus.db import check_dsn
from schemas.errors import Code, Misuse


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://u:p@127.0.0.1:5432/d",
        "postgresql://u:p@localhost/d",
        "postgresql://u:p@[::1]:5432/d",
        "postgresql://u:p@/d?host=/run/postgresql",
        "postgresql://u:p@db.example:5432/d?sslmode=verify-full&sslrootcert=/etc/ca.pem",
    ],
)
def test_here_or_verified(dsn: str) -> None:
    check_dsn(dsn)


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://u:p@db.example:5432/d",
        "postgresql://u:p@10.0.0.5/d?sslmode=require",  # encrypted to whoever answers
        "postgresql://u:p@127.0.0.1,db.example/d",
        "postgresql://u:p@127.0.0.1/d?host=db.example",
        "postgresql://u:p@db.example/d?sslmode=verify-full&sslmode=disable",
        "postgresql://u:p@[::1/d",
    ],
)
def test_over_a_network_only_verified(dsn: str) -> None:
    with pytest.raises(Misuse) as caught:
        check_dsn(dsn)
    assert caught.value.code is Code.CONFIG_INVALID
    assert "u:p" not in str(caught.value)
