"""The gateway's HTTP interface as a closed OpenAPI 3.1 document.

Built from the routes themselves, so that it cannot say less than they take. Closed: no object has a field that is not
described, every code is one of the list, every status is there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec

from bus.authzen import MAX_EVALUATIONS, Semantic
from bus.gateway.evaluating import (
    ActionsAnswer,
    ConfigurationAnswer,
    DecisionAnswer,
    DecisionsAnswer,
    EntitiesAnswer,
)
from bus.gateway.reading import AdmittedAnswer
from bus.httpsig import Signed
from bus.people.web import EndedAnswer, LoginAnswer, LoginBody, SessionAnswer, SessionBody, WhoAnswer
from schemas.avro import wire_schema
from schemas.errors import Code

PATH = "/openapi.json"
_REF = "#/components/schemas/{name}"
_HEX = "[0-9a-f]"
_INDEX = r"(x[0-9]{3}/)*[0-9]{3}(\.p/[0-9]{1,3})?"  # C2SP tlog-tiles
_JSON, _AVRO, _TEXT, _FILE = "application/json", "application/avro", "text/plain", "application/octet-stream"
_SIGNATURE = ("Signature", "Signature-Input", "Content-Digest")
_SESSION: list[dict[str, list[str]]] = [{"Session": []}, {"Cookie": []}]  # of a person: which paths, her role says
_SIGNED: list[dict[str, list[str]]] = [{name: [] for name in _SIGNATURE}]

_TOKEN: list[dict[str, list[str]]] = [{"Token": []}]


class Route(NamedTuple):
    """A JSON route: what it calls, the body that this takes, and the answer that it returns.

    `body` is a `msgspec.Struct`. `answer` is any type that msgspec makes a JSON schema of: a Struct with
    `forbid_unknown_fields=True`, a dataclass, a list of them. What is returned may be plain dicts of the same shape.
    """

    call: Callable[[Signed, Any], Awaitable[Any]]
    body: Any
    answer: Any


class Refusal(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Why not: a code from the closed list, and a sentence that says what, where and what to do."""

    code: Code
    detail: str


class Probe(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The process runs, or its engines answer."""

    status: str


class RegisteredSchema(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A schema registry's answer: an Avro schema, as a text."""

    schema: str


def document(routes: Mapping[str, Route], statuses: Iterable[int]) -> dict[str, Any]:
    """The whole document. `statuses` are those that a refusal can have."""
    kinds = [Refusal, Probe, RegisteredSchema, AdmittedAnswer]
    kinds += [DecisionAnswer, DecisionsAnswer, EntitiesAnswer, ActionsAnswer, ConfigurationAnswer]
    kinds += [LoginBody, LoginAnswer, SessionBody, SessionAnswer, WhoAnswer, EndedAnswer]
    kinds += [kind for route in routes.values() for kind in (route.body, route.answer)]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    refusal, probe, registered, admitted, *described = schemas
    access, people, described = described[:5], described[5:11], described[11:]
    refusals = {str(status): _answer(HTTPStatus(status).phrase, _JSON, refusal) for status in sorted(statuses)}
    paths = {
        path: {"post": _operation(path, route.call, refusals, _body(_JSON, body), _ok(_JSON, answer))}
        for (path, route), body, answer in zip(routes.items(), described[::2], described[1::2], strict=True)
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "deptbus gateway",
            "version": "1",
            "description": (
                "Every path below /v1 and /access/v1 takes a request signed by RFC 9421; bus/FORMATS.md says how. "
                "A person asks in a session (/people/login) instead, what her role may. "
                "Integers are written without a fraction."
            ),
        },
        "paths": paths
        | _others(refusals, probe, registered, admitted)
        | _access(refusals, *access)
        | _people(refusals, *people),
        "components": {
            "schemas": _closed(components) | _entry_bodies(),
            "securitySchemes": {
                **{name: {"type": "apiKey", "in": "header", "name": name} for name in _SIGNATURE},
                "Session": {"type": "http", "scheme": "bearer", "description": "of POST /people/sessions"},
                "Cookie": {"type": "apiKey", "in": "cookie", "name": "__Host-deptbus"},
                "Token": {"type": "http", "scheme": "bearer", "description": "of POST /v1/audit/tokens"},
            },
        },
    }


def _others(refusals: Mapping[str, Any], probe: Any, registered: Any, admitted: Any) -> dict[str, Any]:
    """What is no JSON route: keys, proofs, the log's files, probes, the schema registry."""
    hash_ = {"type": "string", "pattern": f"^{_HEX}{{64}}$"}
    leaf_hash, entry = _parameter("leaf_hash", hash_), _parameter("entry", hash_)
    region = _parameter("region", {"type": "string"})
    tile = _parameter("path", {"type": "string", "pattern": f"^[0-9]{{1,2}}/{_INDEX}$"})
    bundle = _parameter("path", {"type": "string", "pattern": f"^{_INDEX}$"})
    binary: dict[str, Any] = {"type": "string", "format": "binary"}
    text = {"type": "string"}

    def get(name: str, answers: Any, *parameters: Any, security: Any = ()) -> dict[str, Any]:
        operation = {"operationId": name, "responses": {**answers, **refusals}, "security": list(security)}
        return {"get": operation | ({"parameters": list(parameters)} if parameters else {})}

    def keys(name: str, summary: str) -> dict[str, Any]:
        return {
            "operationId": name,
            "summary": summary,
            "requestBody": {"required": True, "content": {_AVRO: {"schema": binary}}},
            "responses": {**_ok(_AVRO, binary), **refusals},
            "security": _SIGNED,
        }

    return {
        "/v1/keys": {"post": keys("keys", "A KeyRequest in, a Grant out (schemas/wire): the only way to a key.")},
        "/v1/sets/{entry}/keys": {
            "post": keys("keys_of_set", "The same for members of a granted set.") | {"parameters": [entry]}
        },
        "/v1/admitted/{leaf_hash}": get("admitted", _ok(_JSON, admitted), leaf_hash, security=_SIGNED),
        "/v1/audit/proofs/{entry}": get("proof", _ok(_TEXT, text), entry, security=_SIGNED),
        "/log/{region}/checkpoint": get("checkpoint", _ok(_TEXT, text), region),
        "/log/{region}/checkpoint/cosigned": get("cosigned", _ok(_TEXT, text), region),
        "/log/{region}/tile/{path}": get("tile", _ok(_FILE, binary), region, tile),
        "/log/{region}/tile/entries/{path}": get("bundle", _ok(_FILE, binary), region, bundle, security=_TOKEN),
        "/schemas/ids/{number}": get(
            "schema_by_id",
            _ok("application/vnd.schemaregistry.v1+json", registered),
            _parameter("number", {"type": "integer"}),
        ),
        "/healthz": get("healthz", _ok(_JSON, probe)),
        "/readyz": get("readyz", _ok(_JSON, probe)),
        PATH: get("openapi", _ok(_JSON, {"type": "object"})),
    }


def _access(
    refusals: Mapping[str, Any], decision: Any, decisions: Any, entities: Any, actions: Any, configuration: Any
) -> dict[str, Any]:
    """AuthZEN's endpoints. Their requests are open, as it demands: fields that are not known are ignored."""
    said = {
        status: answer | {"content": {_TEXT: {"schema": {"type": "string"}}, **answer["content"]}}
        for status, answer in refusals.items()
    }
    text = {"type": "string"}
    full, searched = _open(type=text, id=text, properties=_open()), _open(type=text, properties=_open())
    action, context = _open(name=text, properties=_open()), _open()
    page = _open(limit={"type": "integer", "minimum": 0}, token=text)
    asked = {"subject": full, "action": action, "resource": full, "context": context}
    one = _open(**asked) | _needs("subject", "action", "resource")
    semantic = {"enum": [semantic.value for semantic in Semantic]}
    item = {
        "description": "An evaluation; members that it lacks are those beside the array. A fault in it denies it alone."
    }
    batch = _open(**asked, evaluations={"type": "array", "items": item, "maxItems": MAX_EVALUATIONS}) | {
        "anyOf": [
            {**_needs("subject", "action", "resource"), "properties": {"evaluations": {"maxItems": 0}}},
            {
                **_needs("evaluations"),
                "properties": {"evaluations": {"minItems": 1}, "options": _open(evaluations_semantic=semantic)},
            },
        ]
    }
    by_subject = _open(subject=searched, action=action, resource=full, context=context, page=page)
    by_resource = _open(subject=full, action=action, resource=searched, context=context, page=page)
    by_action = _open(subject=full, resource=full, context=context, page=page)

    def post(name: str, summary: str, body: Any, answer: Any) -> dict[str, Any]:
        operation = {"operationId": name, "summary": summary, "requestBody": _body(_JSON, body)}
        return {"post": operation | {"responses": {**_ok(_JSON, answer), **said}, "security": _SIGNED}}

    return {
        "/access/v1/evaluation": post("evaluation", "May this department open that?", one, decision),
        "/access/v1/evaluations": post(
            "evaluations", "Several at once; without any in it, a single one.", batch, {"anyOf": [decisions, decision]}
        ),
        "/access/v1/search/subject": post(
            "search_subject", "Which departments may.", by_subject | _needs("subject", "action", "resource"), entities
        ),
        "/access/v1/search/resource": post(
            "search_resource", "What it may.", by_resource | _needs("subject", "action", "resource"), entities
        ),
        "/access/v1/search/action": post(
            "search_action", "What for it may.", by_action | _needs("subject", "resource"), actions
        ),
        "/.well-known/authzen-configuration": {
            "get": {
                "operationId": "authzen_configuration",
                "summary": "Where the endpoints are; 404 of a gateway that was not told its own address.",
                "responses": {**_ok(_JSON, configuration), **refusals},
                "security": [],
            }
        },
    }


def _people(
    refusals: Mapping[str, Any], begin: Any, begun: Any, complete: Any, session: Any, who: Any, ended: Any
) -> dict[str, Any]:
    """Login and logout of people."""

    def said(method: str, name: str, summary: str, answers: Any, body: Any = None, security: Any = ()) -> Any:
        operation = {"operationId": name, "summary": summary, "responses": {**answers, **refusals}}
        operation |= {"security": list(security)} | ({"requestBody": _body(_JSON, body)} if body else {})
        return {method: operation}

    text = {"type": "string"}
    answer = [{"name": name, "in": "query", "schema": text} for name in ("code", "state", "iss", "error")]
    callback = said("get", "people_callback", "The provider's answer to a browser: a session.", _ok(_JSON, who))
    callback["get"]["parameters"] = answer
    away = {"302": {"description": "To the OpenID provider, and back to /people/callback."}}
    return {
        "/people/login": said("get", "people_login", "A browser begins a login.", away),
        "/people/callback": callback,
        "/people/logins": said("post", "people_logins", "A command begins a login.", _ok(_JSON, begun), begin),
        "/people/sessions": said(
            "post", "people_sessions", "A command completes it: a bearer token.", _ok(_JSON, session), complete
        ),
        "/people/me": said("get", "people_me", "Whose session it is.", _ok(_JSON, who), security=_SESSION),
        "/people/logout": said("post", "people_logout", "Ends a session.", _ok(_JSON, ended), security=_SESSION),
    }


def _open(**fields: Any) -> dict[str, Any]:
    """An object that may have more fields than these; entities and actions must have what names them."""
    required = [name for name in ("type", "id", "name") if name in fields]
    shape = {"type": "object", "properties": fields, "propertyNames": {"type": "string"}, "additionalProperties": True}
    return shape | (_needs(*required) if required else {})


def _needs(*names: str) -> dict[str, Any]:
    return {"required": list(names)}


def _operation(path: str, call: Any, refusals: Mapping[str, Any], body: Any, answers: Any) -> dict[str, Any]:
    summary, _, more = (call.__doc__ or "").partition("\n")
    return {
        "operationId": path.removeprefix("/v1/").replace("/", "_").replace(":", "_"),
        "summary": summary.strip(),
        "requestBody": body,
        "responses": {**answers, **refusals},
        "security": _SIGNED,
    } | ({"description": " ".join(more.split())} if more.strip() else {})


def _body(media: str, schema: Any) -> dict[str, Any]:
    return {"required": True, "content": {media: {"schema": schema}}}


def _answer(description: str, media: str, schema: Any) -> dict[str, Any]:
    return {"description": description, "content": {media: {"schema": schema}}}


def _ok(media: str, schema: Any) -> dict[str, Any]:
    return {"200": _answer("OK", media, schema)}


def _parameter(name: str, schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _closed(schema: Any) -> Any:
    """Dataclasses, too, have no other fields than theirs; their bytes are written in hex."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") == "object" and "properties" in schema:
        schema = {"additionalProperties": False} | schema
    if schema == {"type": "string", "contentEncoding": "base64"}:
        return {"type": "string", "pattern": f"^({_HEX}{{2}})*$"}
    return {name: _closed(inner) for name, inner in schema.items()}


def _entry_bodies() -> dict[str, Any]:
    """What an entry of the log says, by its kind: from the Avro schema that it is written with (`audit.plain`)."""
    (body,) = (field["type"] for field in wire_schema("AuditEntry")["fields"] if field["name"] == "body")
    named: dict[str, Any] = {"Id": {"size": 16}}
    return {f"Entry.{kind['name']}": _plain(kind, named) for kind in body}


def _plain(avro: Any, named: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema of an Avro type's values, as `audit.plain` shows them. `named` are the types defined so far."""
    if isinstance(avro, list):
        return {"anyOf": [_plain(one, named) for one in avro]}
    if isinstance(avro, str):
        return dict(_PRIMITIVES[avro]) if avro in _PRIMITIVES else _plain(named[avro], named)
    if "name" in avro:
        named[avro["name"]] = avro
    match avro:
        case {"logicalType": "timestamp-micros"}:
            return {"type": "string", "format": "date-time"}
        case {"type": "array"}:
            return {"type": "array", "items": _plain(avro["items"], named)}
        case {"type": "record"}:
            fields = {field["name"]: _plain(field["type"], named) for field in avro["fields"]}
            shape = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
            return shape | ({"description": avro["doc"]} if "doc" in avro else {})
        case {"size": size}:
            return {"type": "string", "pattern": f"^{_HEX}{{{2 * size}}}$"}
    raise TypeError(f"no JSON is described for {avro}")


_PRIMITIVES: Mapping[str, Mapping[str, Any]] = {
    "null": {"type": "null"},
    "string": {"type": "string"},
    "int": {"type": "integer"},
    "long": {"type": "integer"},
    "boolean": {"type": "boolean"},
    "bytes": {"type": "string", "pattern": f"^({_HEX}{{2}})*$"},
}
