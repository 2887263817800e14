"""`deptbus catalogue`: what travels, who issues it, and how an item gets into the catalogue and out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from bus.client import GatewayClient
from consent.lifecycle import Act
from consent.model import DataClass, EntryState
from deploy.commands import documents
from deploy.commands.documents import Reason
from deploy.commands.options import As, acting
from deploy.home import Home, HomeOption
from deploy.output import Json, command, emit, facts, table
from schemas.catalogue import Catalogue, Item
from schemas.errors import Code, Misuse

Asker = Annotated[
    str | None,
    typer.Option("--as", help="Ask the bus as this department; without it: what the software has."),
]
Which = Annotated[str, typer.Argument(help="An item of the catalogue, or an entry's id.")]

_STANDING = (EntryState.PUBLISHED, EntryState.REVIEWED, EntryState.DRAFT)
_LISTED = ("item", "state", "class", "sections", "provider by region", "update", "format", "from", "until")


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    catalogue = typer.Typer(
        help="The catalogue (资源目录): items, sections, fields; drafted, reviewed, published, retired.",
        no_args_is_help=True,
    )
    app.add_typer(catalogue, name="catalogue")

    @command(catalogue, name="list")
    async def list_(department: Asker = None, home: HomeOption = None, json: Json = False) -> None:
        """Show every item: how far each section is shared, and on the bus its state, providers and dates."""
        if department is None:
            document = [_brief(item) for item in Catalogue.load().items.values()]
            brief = [(one["item"], one["zh"], _shares(one["sections"])) for one in document]
            emit(document, as_json=json, human=lambda: table("Catalogue", ("item", "", "sections"), brief))
            return
        async with acting(Home.find(home), department) as client:
            found = await client.post_json("/v1/catalogue:list", {})
        emit(found, as_json=json, human=lambda: table("Catalogue", _LISTED, [_row(one) for one in found]))

    @command(catalogue)
    async def show(item: Which, department: Asker = None, home: HomeOption = None, json: Json = False) -> None:
        """Show an item's fields: English and Chinese name, standard key, section, sensitivity; on the bus its life."""
        if department is None:
            found = Catalogue.load().item(item)
            fields = [
                {"name": f.name, "zh": f.zh, "key": f.key, "section": f.section, "sensitivity": f.sensitivity}
                for f in found.schema.fields.values()
            ]
            document = _brief(found) | {"schema": found.schema.digest.hex(), "fields": fields}
            emit(document, as_json=json, human=lambda: _fields(f"{found.name} {found.zh}", fields))
            return
        async with acting(Home.find(home), department) as client:
            entry = await _entry(client, item, [*_STANDING, EntryState.RETIRED])
            shown = await client.post_json("/v1/catalogue:show", {"id": entry["id"]})
        emit(shown, as_json=json, human=lambda: _show(shown))

    @command(catalogue)
    async def add(
        department: As,
        item: Annotated[str, typer.Argument(help="An item that the software has: `catalogue list`.")],
        update: Annotated[str, typer.Option(help="How often it is updated (更新周期), such as REALTIME.")],
        valid_from: Annotated[str, typer.Option("--from", help="First day, YYYY-MM-DD.")],
        valid_until: Annotated[str | None, typer.Option("--until", help="Last day, inclusive.")] = None,
        format_: Annotated[str, typer.Option("--format", help="The data's format (数据格式).")] = "Avro",
        data_class: Annotated[DataClass, typer.Option(help="数据分级.")] = DataClass.GENERAL,
        home: HomeOption = None,
        json: Json = False,
    ) -> None:
        """Draft an entry (编制); the operator reviews and publishes it."""
        body = {
            "item": item,
            "format": format_,
            "update": update,
            "data_class": data_class,
            "valid_from": valid_from,
            "valid_until": valid_until,
        }
        async with acting(Home.find(home), department) as client:
            made = await client.post_json("/v1/catalogue", body)
        emit(made, as_json=json, human=lambda: facts("Entry", made))

    @command(catalogue)
    async def review(item: Which, department: As, home: HomeOption = None, json: Json = False) -> None:
        """Accept a draft (审核), as the operator."""
        await _act(Home.find(home), department, item, Act.REVIEW, [EntryState.DRAFT], as_json=json)

    @command(catalogue, name="return")
    async def return_(item: Which, department: As, reason: Reason, home: HomeOption = None, json: Json = False) -> None:
        """Give a reviewed draft back (退回), as the operator."""
        states = [EntryState.REVIEWED]
        await _act(Home.find(home), department, item, Act.RETURN, states, reason, as_json=json)

    @command(catalogue)
    async def publish(item: Which, department: As, home: HomeOption = None, json: Json = False) -> None:
        """Publish a reviewed draft (发布), as the operator: records may travel. The item's former entry is retired."""
        await _act(Home.find(home), department, item, Act.PUBLISH, [EntryState.REVIEWED], as_json=json)

    @command(catalogue, name="retire", hidden=True)
    @command(catalogue)
    async def end(
        item: Which, department: As, reason: Reason = "", home: HomeOption = None, json: Json = False
    ) -> None:
        """Retire an entry (停用): from now on no record of the item is admitted. A draft may be its department's."""
        await _act(Home.find(home), department, item, Act.RETIRE, _STANDING, reason, as_json=json)


async def _act(
    where: Home, department: str, which: str, act: Act, states: Sequence[EntryState], reason: str = "", *, as_json: bool
) -> None:
    async with acting(where, department) as client:
        entry = await _entry(client, which, states)
        body = {"id": entry["id"], "act": act, "reason": reason}
        done = await client.post_json("/v1/catalogue:act", body)
    emit(done, as_json=as_json, human=lambda: facts("Entry", done))


async def _entry(client: GatewayClient, which: str, states: Sequence[EntryState]) -> dict[str, Any]:
    """The entry of this id; else the item's entry in the first of these states that one is in."""
    found: list[dict[str, Any]] = await client.post_json("/v1/catalogue:list", {})
    named = [one for one in found if which in (one["id"], one["item"])]
    for one in named:
        if one["id"] == which:
            return one
    for state in states:
        for one in named:
            if one["state"] == state:
                return one
    wanted = " or ".join(state.lower() for state in states)
    raise Misuse(Code.NOT_FOUND, f"the catalogue has no entry of {which} that is {wanted}: see `catalogue list`")


def _row(one: Mapping[str, Any]) -> list[Any]:
    defined = one["defined"] or {"zh": "", "sections": []}
    return [
        f"{one['item']} {defined['zh']}",
        one["state"],
        one["data_class"],
        _shares({section["name"]: section["share"] for section in defined["sections"]}),
        _providers(one),
        one["update"],
        one["format"],
        one["valid_from"],
        one["valid_until"],
    ]


def _shares(sections: Mapping[str, str]) -> str:
    return ", ".join(f"{name}: {share}" for name, share in sections.items())


def _providers(one: Mapping[str, Any]) -> str:
    said = (
        f"{provider['region'] or 'everywhere'}: {provider['name']}{'' if provider['by_law'] else ' (delegated)'}"
        for provider in one["providers"]
    )
    return "\n".join(said)


def _fields(title: str, fields: Sequence[Mapping[str, Any]]) -> None:
    table(title, ("field", "element", "key", "section", "sensitivity"), [list(field.values()) for field in fields])


def _show(entry: Mapping[str, Any]) -> None:
    defined = entry["defined"]
    said = {name: value for name, value in entry.items() if name not in ("defined", "acts", "providers")}
    facts("Entry", said | {"providers": _providers(entry)})
    if defined is not None:
        rows = [
            [section[name] for name in ("name", "share", "conditions", "sensitive")] for section in defined["sections"]
        ]
        table("Sections", ("section", "shared", "conditions or legal basis", "sensitive"), rows)
        _fields(f"{entry['item']} {defined['zh']}", defined["elements"])
    documents.show_acts(entry["acts"])


def _brief(item: Item) -> dict[str, Any]:
    return {
        "item": item.name,
        "zh": item.zh,
        "type_code": item.type_code,
        "topic": item.topic,
        "identified_by": list(item.identifying),
        "sections": {name: section.share.value for name, section in item.sections.items()},
    }
