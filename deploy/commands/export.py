"""`deptbus export`: the bus's Kafka for other people's tools."""

from __future__ import annotations

from typing import Annotated

import typer
import yaml

from bus import db, keeper
from bus import topics as topics_
from deploy import strimzi as strimzi_
from deploy.home import Home, HomeOption
from deploy.output import Json, command, emit
from schemas.catalogue import Catalogue


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    export = typer.Typer(help="Topics and users for other people's tools.", no_args_is_help=True)
    app.add_typer(export, name="export")

    @command(export)
    async def strimzi(
        cluster: Annotated[str, typer.Option(help="The name of Strimzi's Kafka resource.")],
        replication: Annotated[int, typer.Option(min=1, max=32_767, help="Copies of each topic.")] = 3,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Write KafkaTopic and KafkaUser resources (YAML): topics, users, access rules and quotas as of today."""
        catalogue = Catalogue.load()
        connection = await db.connect(Home.find(home).stack().postgres)
        try:
            known = await keeper.departments(connection, keeper.today())
            wanted = await keeper.due(connection, catalogue, keeper.today())
        finally:
            await connection.close()
        shared = topics_.topics(catalogue, single_broker=replication == 1)
        own = [topics_.notices_of(one.uscc) for one in known]
        documents = list(strimzi_.documents([*shared, *own], wanted, cluster, replication))
        text = yaml.safe_dump_all(documents, allow_unicode=True, sort_keys=False)
        emit(documents, as_json=json, human=lambda: typer.echo(text, nl=False))
