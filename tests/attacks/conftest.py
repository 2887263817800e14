"""The bus of the integration tests: one stack a session."""

from __future__ import annotations

from tests.integration.conftest import place, world

__all__ = ["place", "world"]
