"""`deptbus topics`: the topics that the catalogue asks for."""

from __future__ import annotations

from typing import Annotated

import typer

from bus import topics as topics_
from bus.transport import Cluster
from deploy.home import Home, HomeOption
from deploy.output import Json, command, emit, err, table
from schemas.catalogue import Catalogue


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    topics = typer.Typer(help="Kafka topics, from the catalogue.", no_args_is_help=True)
    app.add_typer(topics, name="topics")

    @command(topics)
    async def apply(
        kafka: Annotated[str | None, typer.Option(help="HOST:PORT (default: the running stack's).")] = None,
        replication: Annotated[int | None, typer.Option(help="Copies (default: 3, or one a broker).")] = None,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Create the topics that are missing. Those that exist are left as they are."""
        cluster = Cluster(servers=kafka) if kafka else Home.find(home).stack().administrator
        created = await topics_.apply_catalogue(cluster, Catalogue.load(), replication=replication)
        emit({"created": created}, as_json=json, human=lambda: err.print(f"created: {', '.join(created) or 'none'}"))

    @command(topics, name="check")
    async def check_(
        kafka: Annotated[str | None, typer.Option(help="HOST:PORT (default: the running stack's).")] = None,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Compare the cluster's topics with the catalogue's. Exit 1 on any difference."""
        cluster = Cluster(servers=kafka) if kafka else Home.find(home).stack().administrator
        wrong = await topics_.differences(cluster, Catalogue.load())
        columns = ("topic", "setting", "is", "should be")
        rows = [[one[name] for name in ("topic", "setting", "found", "wanted")] for one in wrong]
        emit(wrong, as_json=json, human=lambda: table(f"{len(wrong)} differences", columns, rows))
        raise typer.Exit(1 if wrong else 0)
