"""`deptbus backup`, `restore`: the database, and apart from it the keys."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from deploy import backup as backup_
from deploy.home import Home, HomeOption
from deploy.output import Json, command, emit, facts

_Server = Annotated[str | None, typer.Option(help="The bus's PostgreSQL (DSN) if it is not the local stack's.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""

    @command(app)
    async def backup(
        folder: Annotated[Path, typer.Argument(help="A new folder for the database's copy.")],
        keys: Annotated[
            Path | None, typer.Option(help="Another one for the keys' copy: kept elsewhere, and never with the other.")
        ] = None,
        postgres: _Server = None,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Copy the database while everything runs, and apart from it the keys. The fork guard is in neither."""
        where = Home.find(home)
        if keys is not None:
            backup_.back_up_keys(where, keys, folder)
        made = await backup_.back_up(postgres or where.stack().postgres, folder)
        emit(asdict(made), as_json=json, human=lambda: facts(f"Backup in {folder}", asdict(made)))

    @command(app)
    async def restore(
        folder: Annotated[Path, typer.Argument(help="What `deptbus backup` made.")],
        keys: Annotated[Path | None, typer.Option(help="The keys' copy, into a home that has none.")] = None,
        postgres: _Server = None,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Put a copy of the database in the place of the one that is there. The bus must be stopped.

        What came since is read from the topics when it starts again: until the log is where it was, no key is released.
        """
        where = Home.find(home)
        backup_.Backup.load(folder)  # before anything is touched
        if keys is not None:
            backup_.put_keys_back(where, keys)
        async with AsyncExitStack() as stack:
            if postgres is None:
                postgres = await stack.enter_async_context(backup_.own_server(where))
            made = await backup_.put_back(postgres, folder)
        emit(asdict(made), as_json=json, human=lambda: facts("Restored", asdict(made)))
