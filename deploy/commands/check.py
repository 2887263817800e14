"""`deptbus check`: lost, twice, or opened without an entry?"""

from __future__ import annotations

import typer

from deploy import check as checking
from deploy.home import Home, HomeOption
from deploy.output import Json, command, emit, err, facts
from schemas.catalogue import Catalogue


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @command(app)
    async def check(home: HomeOption = None, json: Json = False) -> None:
        """Count again from Kafka and PostgreSQL themselves, believing no counter. Exit 1 if anything is wrong."""
        stack = Home.find(home).stack()
        with err.status("Reading every topic" if not json else ""):
            found = await checking.check(stack.administrator, stack.postgres, Catalogue.load())
        document = found.to_json()
        brief = {name: value for name, value in document.items() if name != "examples"}
        brief |= {name: "\n".join(places) for name, places in document["examples"].items() if places}
        emit(document, as_json=json, human=lambda: facts("The bus, counted again", brief))
        raise typer.Exit(0 if found.good else 1)
