"""`deptbus topics`: topics, access rules, quotas and users at Kafka, as catalogue and agreements say."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from bus import db, keeper
from bus import topics as topics_
from bus.access import Changes
from bus.kafkaadmin import administrator
from deploy.home import Home, HomeOption, Stack
from deploy.output import Json, command, emit, table
from schemas.catalogue import Catalogue

_COLUMNS = ("", "what")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is not as it should be: of topics `{topic, setting, found, wanted}`, and of who may do what."""

    topics: list[dict[str, str]]
    access: Changes | None

    def rows(self) -> list[tuple[str, str]]:
        """For people."""
        made = [_topic(one) for one in self.topics]
        return made if self.access is None else [*made, *self.access.rows()]

    def to_json(self) -> dict[str, Any]:
        """`access` is null for a Kafka that is spoken to in clear: it has no users to part."""
        return {"topics": self.topics, "access": None if self.access is None else self.access.to_json()}


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    topics = typer.Typer(
        help="Kafka's topics, access rules (ACL), quotas and users, from catalogue and agreements.",
        no_args_is_help=True,
    )
    app.add_typer(topics, name="topics")

    @command(topics, name="plan")
    async def plan_(home: HomeOption = None, json: Json = False) -> None:
        """Show what `apply` would do."""
        _show(await _plan(Home.find(home).stack()), "to do", as_json=json)

    @command(topics)
    async def apply(
        replication: Annotated[int | None, typer.Option(help="Copies (default: 3, or one a broker).")] = None,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Make it so: add what is missing, then take away what nobody is meant to have. May be repeated.

        Left to a person: users (`deptbus org add` makes one), and partitions of a topic that exists.
        """
        stack = Home.find(home).stack()
        plan = await _plan(stack)
        async with AsyncExitStack() as opened:
            connection = await db.connect(stack.postgres)
            opened.push_async_callback(connection.close)
            known = await keeper.departments(connection, keeper.today())
            await topics_.apply_catalogue(
                stack.administrator, Catalogue.load(), [one.uscc for one in known], replication=replication
            )
            if plan.access is not None:
                admin = await opened.enter_async_context(administrator(stack.administrator))
                await admin.apply(plan.access)
        _show(plan, "done", as_json=json)

    @command(topics, name="check")
    async def check_(home: HomeOption = None, json: Json = False) -> None:
        """Find drift: what is missing, and what somebody added or changed. Exit 1 on any."""
        plan = await _plan(Home.find(home).stack())
        _show(plan, "differences", as_json=json)
        raise typer.Exit(1 if plan.rows() else 0)


async def _plan(stack: Stack) -> Plan:
    catalogue, cluster = Catalogue.load(), stack.administrator
    async with AsyncExitStack() as opened:
        connection = await db.connect(stack.postgres)
        opened.push_async_callback(connection.close)
        known = await keeper.departments(connection, keeper.today())
        wrong = await topics_.differences(cluster, catalogue, [one.uscc for one in known])
        if cluster.login is None:
            return Plan(topics=wrong, access=None)
        admin = await opened.enter_async_context(administrator(cluster))
        return Plan(topics=wrong, access=await keeper.compare(admin, connection, catalogue))


def _topic(one: dict[str, str]) -> tuple[str, str]:
    if one["setting"] == "topic":
        return "create", f"topic {one['topic']}"
    what = f"{one['setting']} of topic {one['topic']}: {one['wanted']} for {one['found'] or 'nothing'}"
    return "by hand" if one["setting"] == "partitions" else "set", what


def _show(plan: Plan, title: str, *, as_json: bool) -> None:
    rows = plan.rows()
    emit(plan.to_json(), as_json=as_json, human=lambda: table(f"{len(rows)} {title}", _COLUMNS, rows))
