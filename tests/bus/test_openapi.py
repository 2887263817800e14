"""The gateway's description is closed: no object with a field that is not described, no code outside of the list."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from fastapi.routing import APIRoute

from bus.gateway.app import STATUSES, create_app
from bus.gateway.keyring import Keyring
from bus.gateway.master import Master
from bus.gateway.openapi import PATH, document
from bus.gateway.service import Gateway
from bus.pki import CertificateAuthority, Role
from bus.transport import Cluster
from schemas.catalogue import Catalogue
from schemas.errors import Code

USCC = "11330411MB2A00011E"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Gateway:
    """One that never starts: its routes are known before."""
    folder = tmp_path_factory.mktemp("gateway")
    authority = CertificateAuthority.create(folder / "ca", "test", USCC)
    return Gateway(
        keyring=Keyring(folder, authority.issue(Role.GATEWAY, USCC, "gateway"), Master(folder)),
        origin="test",
        authority=authority.signer.der,
        catalogue=Catalogue.load(),
        cluster=Cluster(servers=""),
        dsn="",
    )


@pytest.fixture(scope="module")
def described(gateway: Gateway) -> Any:
    return msgspec.json.decode(msgspec.json.encode(document(gateway.routes(), STATUSES)))


def _schemas(node: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """Every schema in the document, with where it stands."""
    if isinstance(node, dict):
        if "$ref" in node or "type" in node or "anyOf" in node or "enum" in node:
            yield at, node
        for name, inner in node.items():
            yield from _schemas(inner, f"{at}/{name}")
    elif isinstance(node, list):
        for number, inner in enumerate(node):
            yield from _schemas(inner, f"{at}/{number}")


def test_no_object_is_open(described: Any) -> None:
    """An object lists its fields and has no other; a map says what its names and its values are."""
    paths = {path: item for path, item in described["paths"].items() if path != PATH}  # its schema is OpenAPI's own
    parts = {"paths": paths, "schemas": described["components"]["schemas"]}
    open_ = [
        at
        for at, schema in _schemas(parts)
        if schema.get("type") == "object"
        and schema.get("additionalProperties") is not False
        and not ("propertyNames" in schema and schema.get("additionalProperties"))
        and not ("anyOf" in schema and all("$ref" in one for one in schema["anyOf"]))  # an entry's body, by its kind
    ]
    assert open_ == []


def test_every_route_is_described(gateway: Gateway, described: Any) -> None:
    """Also those that are no JSON routes; and nothing is described that is not there."""
    there = {
        (route.path.replace(":path}", "}"), method.lower())
        for route in create_app(gateway, "https://gateway.example").routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }
    assert there == {(path, method) for path, item in described["paths"].items() for method in item}


def test_every_json_route_describes_its_answer(gateway: Gateway, described: Any) -> None:
    """`Any` has an empty schema: whoever adds a route says what it answers."""
    for path in gateway.routes():
        operation = described["paths"][path]["post"]
        for content in (operation["requestBody"]["content"], operation["responses"]["200"]["content"]):
            assert content["application/json"]["schema"], path
        assert operation["summary"], f"{path}: what it calls has no docstring"


def test_refusals_have_codes_of_the_closed_list_and_every_status(described: Any) -> None:
    schemas = described["components"]["schemas"]
    assert schemas["Refusal"]["properties"]["code"] == {"$ref": "#/components/schemas/Code"}
    assert set(schemas["Code"]["enum"]) == set(Code)
    for path, item in described["paths"].items():
        for operation in item.values():
            assert {str(status) for status in STATUSES} <= operation["responses"].keys(), path


def test_it_is_a_document_that_others_can_read(described: Any) -> None:
    """Every reference leads somewhere, every schema is one, every operation has a name of its own."""
    names = [operation["operationId"] for item in described["paths"].values() for operation in item.values()]
    assert len(set(names)) == len(names)
    for name, schema in described["components"]["schemas"].items():
        assert jsonschema_rs.meta.is_valid(schema), name
        jsonschema_rs.validator_for({"$ref": f"#/components/schemas/{name}", "components": described["components"]})
