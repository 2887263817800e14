"""`deptbus catalogue`: what travels."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from deploy.output import Json, command, emit, table
from schemas.catalogue import Catalogue, Item


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    catalogue = typer.Typer(help="The catalogue (资源目录): items, sections, fields.", no_args_is_help=True)
    app.add_typer(catalogue, name="catalogue")

    @command(catalogue, name="list")
    def list_(json: Json = False) -> None:
        """Show every item and how far each section is shared."""
        document = [_brief(item) for item in Catalogue.load().items.values()]
        rows = [
            (one["item"], one["zh"], ", ".join(f"{s}: {c}" for s, c in one["sections"].items())) for one in document
        ]
        emit(document, as_json=json, human=lambda: table("Catalogue", ("item", "", "sections"), rows))

    @command(catalogue)
    def show(item: Annotated[str, typer.Argument(help="An item of `catalogue list`.")], json: Json = False) -> None:
        """Show an item's fields: English and Chinese name, standard key, section, sensitivity."""
        found = Catalogue.load().item(item)
        fields = [
            {"name": f.name, "zh": f.zh, "key": f.key, "section": f.section, "sensitivity": f.sensitivity}
            for f in found.schema.fields.values()
        ]
        document = _brief(found) | {"schema": found.schema.digest.hex(), "fields": fields}
        rows = [list(field.values()) for field in fields]
        columns = ("field", "element", "key", "section", "sensitivity")
        emit(document, as_json=json, human=lambda: table(f"{found.name} {found.zh}", columns, rows))


def _brief(item: Item) -> dict[str, Any]:
    return {
        "item": item.name,
        "zh": item.zh,
        "type_code": item.type_code,
        "topic": item.topic,
        "identified_by": list(item.identifying),
        "sections": {name: section.share.value for name, section in item.sections.items()},
    }
