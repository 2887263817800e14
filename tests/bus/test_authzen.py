"""AuthZEN over HTTP: the certification scenario with its fixture, and what the protocol promises of any evaluator.

The scenario's requests are in openid/authzen, certification/authorization-api-1_0-scenario.md; numbers are sections.
"""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from bus import authzen
from bus.authzen import (
    MAX_EVALUATIONS,
    MAX_PAGE,
    Answer,
    Evaluation,
    Evaluator,
    Found,
    Kind,
    Obligation,
    Search,
    Semantic,
    answer_context,
    create_router,
    metadata,
    search_among,
    up_to,
)
from schemas.errors import Code, DeptbusError, Malformed, Misuse, Refused, Unavailable

BASE = "https://pdp.example"
EVALUATION, EVALUATIONS = "/access/v1/evaluation", "/access/v1/evaluations"
SEARCHES = {kind: f"/access/v1/search/{kind}" for kind in Kind}
PATHS = (EVALUATION, EVALUATIONS, *SEARCHES.values())

Json = dict[str, Any]

# The scenario's fixture.
SUBJECTS: dict[str, Json] = {"alice": {}, "bob": {"role": "admin"}}
RESOURCES: dict[str, Json] = {"record-1": {"status": "active"}, "record-2": {"status": "archived"}}
ACTIONS = ("read", "write", "delete")


def permits(asked: Evaluation) -> bool:
    """The scenario's policy: what the caller says of an entity goes before what is known of it."""
    subject, action, resource = asked.subject, asked.action, asked.resource
    if (subject.type, resource.type) != ("user", "record"):
        return False
    if subject.id not in SUBJECTS or resource.id not in RESOURCES:
        return False
    admin = {**SUBJECTS[subject.id], **subject.properties}.get("role") == "admin"
    archived = {**RESOURCES[resource.id], **resource.properties}.get("status") == "archived"
    match action.name:
        case "read":
            return True
        case "write":
            return admin if archived else not admin
        case "delete":
            return not archived and action.properties.get("soft") is True
    return False


class Fixture:
    """The policy as an evaluator that remembers what it was made to decide."""

    def __init__(self) -> None:
        self.decided: list[list[Evaluation]] = []

    async def evaluate(self, evaluations: Sequence[Evaluation], semantic: Semantic) -> Sequence[Answer]:
        answers = up_to((Answer(decision=permits(one)) for one in evaluations), semantic)
        self.decided.append(list(evaluations[: len(answers)]))
        return answers

    async def search(self, search: Search) -> Found:
        asked = search.evaluation
        match search.kind:
            case Kind.SUBJECT:
                return search_among(search, SUBJECTS if asked.subject.type == "user" else (), permits)
            case Kind.RESOURCE:
                return search_among(search, RESOURCES if asked.resource.type == "record" else (), permits)
            case Kind.ACTION:
                return search_among(search, ACTIONS, permits)


def status_of(error: DeptbusError) -> int:
    """A host's own table; a gateway's is longer."""
    known = {Code.REQUEST_UNSIGNED: 401, Code.REQUEST_TOO_LARGE: 413, Code.POSTGRES_UNAVAILABLE: 503}
    return known.get(error.code, 403 if isinstance(error, Refused) else 400)


def application(evaluator: Evaluator | Exception) -> FastAPI:
    """`evaluator` for who says that it is the enforcement point; an error instead of one is what admitting raises."""

    async def admit(request: Request) -> tuple[Evaluator, bytes]:
        if request.headers.get("authorization") != "Bearer pep":
            raise Refused(Code.REQUEST_UNSIGNED, "say who you are")
        if isinstance(evaluator, Exception):
            raise evaluator
        return evaluator, await request.body()

    app = FastAPI()
    app.include_router(create_router(admit, status_of, base_url=BASE, obligations=["notification"]))
    return app


APP = application(Fixture())


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Defects are logged with their traceback: rendered for a terminal, it takes longer than the tests."""
    with capture_logs():
        yield


def send(
    path: str,
    body: bytes,
    *,
    app: FastAPI = APP,
    content_type: str = "application/json",
    authorization: str = "Bearer pep",
    request_id: bytes | None = None,
) -> httpx.Response:
    headers = {"authorization": authorization.encode(), "content-type": content_type.encode()}
    if request_id is not None:
        headers["x-request-id"] = request_id

    async def exchange() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE) as client:
            raw = [(name.encode(), value) for name, value in headers.items()]
            return await client.post(path, content=body, headers=httpx.Headers(raw))

    return asyncio.run(exchange())


def ask(path: str, document: Any, app: FastAPI = APP) -> Any:
    """What is answered with 200."""
    response = send(path, json.dumps(document).encode(), app=app)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return response.json()


def refused(path: str, document: Any) -> str:
    """The words of a 400."""
    response = send(path, json.dumps(document).encode())
    assert response.status_code == 400, response.text
    assert response.text.startswith("REQUEST_MALFORMED: ")
    return response.text


def user(name: str, **properties: Any) -> Json:
    return {"type": "user", "id": name} | ({"properties": properties} if properties else {})


def record(name: str, **properties: Any) -> Json:
    return {"type": "record", "id": name} | ({"properties": properties} if properties else {})


def do(name: str, **properties: Any) -> Json:
    return {"name": name} | ({"properties": properties} if properties else {})


def question(subject: Json, action: Json, resource: Json, **more: Any) -> Json:
    return {"subject": subject, "action": action, "resource": resource, **more}


ALICE_READS = question(user("alice"), do("read"), record("record-1"))
CIRCUMSTANCES = {"time": "2025-06-27T18:03-07:00", "ip": "192.168.1.1"}


@pytest.mark.parametrize(
    ("document", "decision"),
    [  # 2.4 of the fixture: the eight decisions that a certification looks at
        (ALICE_READS, True),
        (question(user("alice"), do("write"), record("record-1")), True),
        (question(user("bob"), do("read"), record("record-1")), True),
        (question(user("bob"), do("write"), record("record-1")), False),
        (question(user("alice"), do("write"), record("record-2", status="archived")), False),
        (question(user("bob", role="admin"), do("write"), record("record-2", status="archived")), True),
        (question(user("alice"), do("delete", soft=True), record("record-1")), True),
        (question(user("alice"), do("delete", soft=False), record("record-1")), False),
    ],
)
@pytest.mark.parametrize("path", [EVALUATION, EVALUATIONS])
def test_pinned_decisions(path: str, document: Json, decision: bool) -> None:
    """With context and without, with fields from the future, again and again, and as a batch that names no items."""
    for one in (document, document | {"context": CIRCUMSTANCES}, document | {"foo": "bar", "future": {"nested": True}}):
        assert ask(path, one) == {"decision": decision}
    assert ask(path, document | {"evaluations": []}) == {"decision": decision}


def test_properties_that_nobody_asked_for() -> None:
    subject = user("alice", department="Sales", role="manager") | {"future": 1}
    resource = record("record-1", status="active", owner="bob")
    assert ask(EVALUATION, question(subject, do("read", method="GET"), resource)) == {"decision": True}


def without(document: Json, *path: str) -> Json:
    name, *rest = path
    if rest:
        return document | {name: without(document[name], *rest)}
    return {other: value for other, value in document.items() if other != name}


def with_(document: Json, value: Any, *path: str) -> Json:
    name, *rest = path
    return document | {name: with_(document.get(name, {}), value, *rest) if rest else value}


REQUIRED = (
    *(("subject",), ("action",), ("resource",)),
    *(("subject", "type"), ("subject", "id"), ("action", "name"), ("resource", "type"), ("resource", "id")),
)
OBJECTS = (
    *(("subject",), ("action",), ("resource",), ("context",)),
    *(("subject", "properties"), ("action", "properties"), ("resource", "properties")),
)
NO_OBJECTS: tuple[Any, ...] = ("alice", 1, None, True, [{}])
NO_STRINGS: tuple[Any, ...] = (123, None, True, 1.5, {}, ["alice"])
WRONG = [
    *(pytest.param(without(ALICE_READS, *path), id="no " + ".".join(path)) for path in REQUIRED),
    *(
        pytest.param(with_(ALICE_READS, value, *path), id=f"{'.'.join(path)}={value}")
        for path in OBJECTS
        for value in NO_OBJECTS
    ),
    *(
        pytest.param(with_(ALICE_READS, value, *path), id=f"{'.'.join(path)}={value}")
        for path in REQUIRED[3:]
        for value in NO_STRINGS
    ),
]


@pytest.mark.parametrize("document", WRONG)
def test_a_fault_in_a_question(document: Json) -> None:
    """400 alone or as a batch's default, with the place in words; in a batch's item a denial of that item alone."""
    said = refused(EVALUATION, document)
    assert refused(EVALUATIONS, document) == said
    assert any(name in said for name in ("subject", "action", "resource", "context"))
    answered = ask(EVALUATIONS, {"evaluations": [ALICE_READS, document, ALICE_READS]})["evaluations"]
    assert [one["decision"] for one in answered] == [True, False, True]
    assert answered[1]["context"]["error"] == {"status": 400, "message": said.removeprefix("REQUEST_MALFORMED: ")}


@pytest.mark.parametrize("path", PATHS)
def test_a_body_that_is_no_request(path: str) -> None:
    """The same question is in each of them: how it is written is what is wrong."""
    text = json.dumps(ALICE_READS)
    for body in (
        b"",
        b"{",
        b"[]",
        b'"alice"',
        b"null",
        text[:-1].encode(),
        (text + "{}").encode(),
        text.encode("utf-16"),
        b"\xef\xbb\xbf" + text.encode(),
        text.replace("alice", "\\ud800").encode(),
        text.replace("alice", "\\udc00").encode(),
        text.encode().replace(b"alice", b"\xff"),
        (text[:-1] + ', "x": NaN}').encode(),
        (text[:-1] + ', "x": 1e999}').encode(),
        (text[:-1] + ', "x": %s}' % ("1" * 5_000)).encode(),
        (text[:-1] + ', "action": {"name": "read"}}').encode(),  # whose action counts?
        (text[:-1] + ', "\\u0061ction": {"name": "read"}}').encode(),
        (text[:-1] + ', "x": ' + "[" * 100_000 + "]" * 100_000 + "}").encode(),
        with_nested(50_000).encode(),
    ):
        response = send(path, body)
        assert (response.status_code, response.text[:19]) == (400, "REQUEST_MALFORMED: "), body[:80]
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""):
        assert send(path, text.encode(), content_type=content_type).status_code == 400
    for content_type in ("application/json; charset=utf-8", "Application/JSON"):
        assert send(path, text.encode(), content_type=content_type).status_code == 200


def with_nested(depth: int) -> str:
    return json.dumps(with_(ALICE_READS, 0, "context", "deep")).replace("0", '{"a":' * depth + "0" + "}" * depth, 1)


def test_nesting_up_to_what_is_too_deep() -> None:
    """No depth is read and then fails further in."""
    for depth in range(500, 1_100, 20):
        for path in PATHS:
            assert send(path, with_nested(depth).encode()).status_code in (200, 400)


def test_request_id() -> None:
    """Back on each answer, as it came: on errors, too."""
    ours = "bfe9eb29-ab87 ~é".encode("latin-1")
    body = json.dumps(ALICE_READS).encode()
    for path in PATHS:
        for response in (
            send(path, body, request_id=ours),
            send(path, b"", request_id=ours),
            send(path, body, authorization="", request_id=ours),
            send(path, body, app=application(RuntimeError("x")), request_id=ours),
        ):
            assert (b"x-request-id", ours) in response.headers.raw
        assert "x-request-id" not in send(path, body).headers


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (Refused(Code.REQUEST_UNSIGNED, "not yours"), 401, "REQUEST_UNSIGNED: not yours"),
        (Refused(Code.REQUEST_FORBIDDEN, "not for you"), 403, "REQUEST_FORBIDDEN: not for you"),
        (Malformed(Code.REQUEST_TOO_LARGE, "too much"), 413, "REQUEST_TOO_LARGE: too much"),
        (Unavailable(Code.POSTGRES_UNAVAILABLE, "away"), 503, "POSTGRES_UNAVAILABLE: away"),
        (ValueError("secret"), 500, "UNDECIDABLE: a defect of the decision point: no decision is given"),
    ],
)
def test_errors_are_strings(error: Exception, status: int, text: str) -> None:
    for path in PATHS:
        response = send(path, json.dumps(ALICE_READS).encode(), app=application(error))
        assert (response.status_code, response.text) == (status, text)
        assert response.headers["content-type"].startswith("text/plain")


def test_who_does_not_say_who_it_is_learns_nothing() -> None:
    for body in (json.dumps(ALICE_READS).encode(), b""):
        assert send(EVALUATION, body, authorization="").status_code == 401


def decisions(document: Json) -> list[bool]:
    return [one["decision"] for one in ask(EVALUATIONS, document)["evaluations"]]


def test_batches() -> None:
    """3.2 of the scenario: in order, with defaults of whole members and none of parts."""
    alice, bob = user("alice"), user("bob", role="admin")
    active, archived = record("record-1", status="active"), record("record-2", status="archived")
    actions = [{"action": do("read")}, {"action": do("write")}]
    assert decisions({"subject": bob, "resource": record("record-1"), "evaluations": actions}) == [True, False]
    assert decisions(
        {"subject": alice, "action": do("write"), "evaluations": [{"resource": active}, {"resource": archived}]}
    ) == [True, False]
    assert decisions(
        {"action": do("write"), "resource": archived, "evaluations": [{"subject": alice}, {"subject": bob}]}
    ) == [False, True]
    assert decisions({"evaluations": [ALICE_READS, question(user("bob"), do("write"), active)]}) == [True, False]
    assert decisions(question(alice, do("write"), active, evaluations=[{}, {"resource": archived}])) == [True, False]
    # An item's resource without an id is not made whole by the default's; nor are an item's properties.
    assert decisions(question(alice, do("read"), active, evaluations=[{"resource": {"type": "record"}}])) == [False]
    soft = do("delete", soft=True)
    assert decisions(question(alice, soft, active, evaluations=[{}, {"action": do("delete")}])) == [True, False]
    # 3.4.1
    body = {"subject": alice, "action": do("read"), "evaluations": [{"resource": active}, {}, 7, [], None]}
    assert decisions(body | {"options": {"evaluations_semantic": "execute_all", "other": 1}}) == [True] + [False] * 4


def test_a_context_is_inherited_whole() -> None:
    evaluator = Fixture()
    items: list[Json] = [{}, {"context": {"source": "own"}}, {"context": {}}]
    ask(EVALUATIONS, ALICE_READS | {"context": CIRCUMSTANCES, "evaluations": items}, application(evaluator))
    assert [one.context for one in evaluator.decided[0]] == [CIRCUMSTANCES, {"source": "own"}, {}]


def test_a_fault_around_the_items() -> None:
    values: tuple[Any, ...] = ({}, "x", None, 0)
    for value in values:
        assert "evaluations" in refused(EVALUATIONS, ALICE_READS | {"evaluations": value})
    one = ALICE_READS | {"evaluations": [{}]}
    faulty: tuple[Any, ...] = ("x", None, [], {"evaluations_semantic": 1}, {"evaluations_semantic": None})
    for options in faulty:
        assert "options" in refused(EVALUATIONS, one | {"options": options})
    for semantic in ("", "EXECUTE_ALL", "deny_on_first_permit"):
        said = refused(EVALUATIONS, one | {"options": {"evaluations_semantic": semantic}})
        assert "execute_all, deny_on_first_deny, permit_on_first_permit" in said
    complete = {"evaluations": [ALICE_READS]}
    for default in ({"subject": "alice"}, {"action": {"name": 1}}, {"resource": {"type": "record"}}, {"context": 1}):
        refused(EVALUATIONS, complete | default)


def test_a_batch_is_bounded() -> None:
    assert decisions(ALICE_READS | {"evaluations": [{}] * MAX_EVALUATIONS}) == [True] * MAX_EVALUATIONS
    response = send(EVALUATIONS, json.dumps(ALICE_READS | {"evaluations": [{}] * (MAX_EVALUATIONS + 1)}).encode())
    assert (response.status_code, response.text[:18]) == (413, "REQUEST_TOO_LARGE:")


ITEMS = st.sampled_from(
    [ALICE_READS, question(user("bob"), do("write"), record("record-1")), without(ALICE_READS, "action")]
)


@given(st.lists(ITEMS, min_size=1, max_size=8), st.sampled_from(Semantic))
@settings(max_examples=150, deadline=None)
def test_semantics(items: list[Json], semantic: Semantic) -> None:
    """A batch answers as its items do alone, up to where it ends, and decides nothing that it does not answer."""
    evaluator = Fixture()
    body = {"evaluations": items, "options": {"evaluations_semantic": semantic}}
    answered = [one["decision"] for one in ask(EVALUATIONS, body, application(evaluator))["evaluations"]]
    alone = [one is ALICE_READS for one in items]
    stop = {"deny_on_first_deny": False, "permit_on_first_permit": True}.get(semantic)
    end = alone.index(stop) + 1 if stop in alone else len(alone)
    assert answered == alone[:end]
    sent = [authzen.parse_evaluation(one) for one in items[:end] if "action" in one]
    assert [one for call in evaluator.decided for one in call] == sent
    assert len(evaluator.decided) == (1 if sent else 0)  # one call, one record


def results(kind: Kind, document: Json) -> list[str]:
    """The names on a search's only page, in the shape that its kind has."""
    answered = ask(SEARCHES[kind], document)
    assert list(answered) == ["page", "results"]
    names = [one["name" if kind is Kind.ACTION else "id"] for one in answered["results"]]
    assert answered["page"] == {"next_token": "", "count": len(names)}
    shape = {Kind.SUBJECT: {"type": "user"}, Kind.RESOURCE: {"type": "record"}, Kind.ACTION: {}}[kind]
    key = "name" if kind is Kind.ACTION else "id"
    assert answered["results"] == [shape | {key: name} for name in names]
    return names


WHO = question({"type": "user"}, do("read"), record("record-1"))
WHAT = question(user("alice"), do("read"), {"type": "record"})
HOW = {"subject": user("alice"), "resource": record("record-1")}
SEARCHED = {Kind.SUBJECT: WHO, Kind.RESOURCE: WHAT, Kind.ACTION: HOW}


def test_searches() -> None:
    """S1 to S6 of the fixture, and 4.2.3, 4.3.3: an id of the searched entity says nothing."""
    archived, admin = record("record-2", status="archived"), user("bob", role="admin")
    assert results(Kind.SUBJECT, WHO) == ["alice", "bob"]
    assert results(Kind.RESOURCE, WHAT) == ["record-1", "record-2"]
    assert results(Kind.ACTION, HOW) == ["read", "write"]
    assert results(Kind.SUBJECT, question({"type": "user"}, do("write"), archived)) == ["bob"]
    assert results(Kind.RESOURCE, question(admin, do("write"), {"type": "record"})) == ["record-2"]
    assert results(Kind.ACTION, {"subject": admin, "resource": archived}) == ["read", "write"]
    allowed: tuple[Json, ...] = (
        *({"context": CIRCUMSTANCES}, {"future": 1}),
        *({"page": {}}, {"page": {"properties": {"sort": "id"}}}),
    )
    for kind, document in SEARCHED.items():
        for more in allowed:
            assert results(kind, document | more) == results(kind, document)
    for ignored in ("alice", "nobody", "", 7, None):
        assert results(Kind.SUBJECT, with_(WHO, ignored, "subject", "id")) == ["alice", "bob"]
        assert results(Kind.RESOURCE, with_(WHAT, ignored, "resource", "id")) == ["record-1", "record-2"]
        assert results(Kind.ACTION, HOW | {"action": ignored}) == ["read", "write"]


def test_what_is_not_known_is_not_found() -> None:
    for kind, document in SEARCHED.items():
        for member in ("subject", "resource"):
            if (member, kind) not in (("subject", Kind.SUBJECT), ("resource", Kind.RESOURCE)):
                assert ask(SEARCHES[kind], with_(document, "nonexistent", member, "id"))["results"] == []
            assert ask(SEARCHES[kind], with_(document, "spaceship", member, "type"))["results"] == []
        if "action" in document:
            assert ask(SEARCHES[kind], document | {"action": do("fly")})["results"] == []


@pytest.mark.parametrize("kind", Kind)
def test_a_fault_in_a_search(kind: Kind) -> None:
    document = SEARCHED[kind]
    for path in REQUIRED:
        if path[0] in document and path != (kind, "id"):
            refused(SEARCHES[kind], without(document, *path))
            for value in NO_STRINGS if len(path) == 2 else NO_OBJECTS:
                refused(SEARCHES[kind], with_(document, value, *path))
    for path in OBJECTS:
        if kind is not Kind.ACTION or path[0] != "action":
            for value in NO_OBJECTS:
                refused(SEARCHES[kind], with_(document, value, *path))
    for page in (
        *NO_OBJECTS,
        *({"limit": limit} for limit in (-1, 1.5, "1", None, True)),
        *({"token": token} for token in ("", "x", "%%%", 1, None)),
        *({"properties": properties} for properties in NO_OBJECTS),
    ):
        assert "page" in refused(SEARCHES[kind], document | {"page": page})


SUBJECT = st.builds(user, st.sampled_from([*SUBJECTS, "carol"])) | st.builds(
    lambda name, role: user(name, role=role), st.sampled_from([*SUBJECTS]), st.sampled_from(["admin", "manager"])
)
RESOURCE = st.builds(record, st.sampled_from([*RESOURCES, "record-3"])) | st.builds(
    lambda name, status: record(name, status=status),
    st.sampled_from([*RESOURCES]),
    st.sampled_from(["active", "archived"]),
)
ACTION = st.sampled_from([*map(do, ACTIONS), do("delete", soft=True), do("fly")])


@given(st.sampled_from(Kind), SUBJECT, ACTION, RESOURCE, st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_a_search_finds_what_evaluations_permit(
    kind: Kind, subject: Json, action: Json, resource: Json, limit: int
) -> None:
    """Page by page, whatever the page's size: each candidate that is permitted when asked alone, once, no other."""
    asked = question(subject, action, resource)
    names = {Kind.SUBJECT: list(SUBJECTS), Kind.RESOURCE: list(RESOURCES), Kind.ACTION: list(ACTIONS)}[kind]
    if kind is Kind.ACTION:
        alone = [question(subject, do(name), resource) for name in names]
    else:
        alone = [with_(asked, name, kind.value, "id") for name in names]
    permitted = [name for name, one in zip(names, alone, strict=True) if ask(EVALUATION, one)["decision"]]
    found, page = [], {"limit": limit}
    for _ in names:  # no more pages than names
        answered = ask(SEARCHES[kind], asked | {"page": page})
        found += [one["name" if kind is Kind.ACTION else "id"] for one in answered["results"]]
        assert answered["page"]["count"] == len(answered["results"]) <= limit
        if not answered["page"]["next_token"]:
            break
        page = {"token": answered["page"]["next_token"]}  # as the specification's example has it: without the limit
    assert found == sorted(permitted)


def first_token(limit: int = 1) -> str:
    token = ask(SEARCHES[Kind.SUBJECT], WHO | {"page": {"limit": limit}})["page"]["next_token"]
    assert token
    return str(token)


def test_a_token_belongs_to_its_query() -> None:
    token = first_token()
    path = SEARCHES[Kind.SUBJECT]
    for same in (WHO, with_(WHO, "x", "subject", "id"), WHO | {"future": 1}, dict(reversed(WHO.items()))):
        for page in ({"token": token}, {"token": token, "limit": 1}):
            assert [one["id"] for one in ask(path, same | {"page": page})["results"]] == ["bob"]
    for other in (
        WHO | {"action": do("write")},
        WHO | {"action": do("read", method="GET")},
        WHO | {"resource": record("record-2")},
        WHO | {"context": CIRCUMSTANCES},
        with_(WHO, "robot", "subject", "type"),
    ):
        assert "another query" in refused(path, other | {"page": {"token": token}})
    assert "another query" in refused(path, WHO | {"page": {"token": token, "limit": 2}})
    for one in (ALICE_READS, question(user(""), do(""), record(""))):  # one body, three questions
        digests = {authzen.parse_search(one, kind).digest for kind in Kind}
        assert len(digests) == len(Kind)


def test_the_order_of_members_makes_no_other_query() -> None:
    told, retold = WHO | {"context": CIRCUMSTANCES}, WHO | {"context": dict(reversed(CIRCUMSTANCES.items()))}
    token = ask(SEARCHES[Kind.SUBJECT], told | {"page": {"limit": 1}})["page"]["next_token"]
    assert [one["id"] for one in ask(SEARCHES[Kind.SUBJECT], retold | {"page": {"token": token}})["results"]] == ["bob"]


def test_a_limit_of_none_and_one_of_too_many() -> None:
    answered = ask(SEARCHES[Kind.SUBJECT], WHO | {"page": {"limit": 0}})
    assert (answered["results"], answered["page"]["count"]) == ([], 0)
    assert answered["page"]["next_token"]  # there is more: it was not asked for
    for limit in (MAX_PAGE, MAX_PAGE + 1, 10**30):
        assert results(Kind.SUBJECT, WHO | {"page": {"limit": limit}}) == ["alice", "bob"]
        assert authzen.parse_search(WHO | {"page": {"limit": limit}}, Kind.SUBJECT).limit == MAX_PAGE


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda data: urlsafe_b64encode(data).decode()))
@settings(max_examples=150, deadline=None)
def test_a_token_from_elsewhere(token: str) -> None:
    with pytest.raises(Malformed):
        authzen.parse_search(WHO | {"page": {"token": token}}, Kind.SUBJECT)


@pytest.mark.parametrize("position", ["-1:", f"{MAX_PAGE + 1}:", "01:alice", " 1:alice", "1", "1_0:alice", ":alice"])
def test_a_forged_token_lifts_no_bound(position: str) -> None:
    """Anybody can compute one; a page's size still holds."""
    digest = authzen.parse_search(WHO, Kind.SUBJECT).digest
    data = position.encode()
    forged = urlsafe_b64encode(sha256(digest + data).digest()[:16] + data).decode()
    refused(SEARCHES[Kind.SUBJECT], WHO | {"page": {"token": forged}})


def test_a_token_that_was_changed() -> None:
    token = first_token()
    data = bytearray(urlsafe_b64decode(token))
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1
        refused(SEARCHES[Kind.SUBJECT], WHO | {"page": {"token": urlsafe_b64encode(changed).decode()}})
    for other in (token + "=", token + "\n", " " + token, token[:-1], token + "é"):
        refused(SEARCHES[Kind.SUBJECT], WHO | {"page": {"token": other}})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["subject", "action", "resource", "context", "type", "id", "name", "properties", "evaluations"]
            )
            | st.sampled_from(["options", "evaluations_semantic", "page", "limit", "token"]),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)


READERS: list[Callable[[Any], Any]] = [authzen.parse_evaluation, authzen.parse_evaluations]
READERS += [partial(authzen.parse_search, kind=kind) for kind in Kind]


@given(JSON)
@settings(max_examples=200, deadline=None)
def test_whatever_comes_is_read_or_malformed(document: Any) -> None:
    for read in READERS:
        with suppress(Malformed):
            read(document)


class Unruly:
    """An evaluator that does not keep to what it promised."""

    def __init__(self, answers: Sequence[Answer] = (), found: Found | None = None) -> None:
        self.answers = answers
        self.found = found

    async def evaluate(self, evaluations: Sequence[Evaluation], semantic: Semantic) -> Sequence[Answer]:
        return self.answers

    async def search(self, search: Search) -> Found:
        assert self.found is not None
        return self.found


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("semantic", Semantic)
def test_answers_that_do_not_fit_the_questions_get_out_to_nobody(count: int, semantic: Semantic) -> None:
    decision = semantic is Semantic.DENY_ON_FIRST_DENY  # such that the two asked are both to be decided
    app = application(Unruly([Answer(decision=decision)] * count))
    body = ALICE_READS | {"evaluations": [{}, {}], "options": {"evaluations_semantic": semantic}}
    assert send(EVALUATIONS, json.dumps(body).encode(), app=app).status_code == 500
    if count != 1:
        assert send(EVALUATION, json.dumps(ALICE_READS).encode(), app=app).status_code == 500


def test_an_answer_after_the_end_gets_out_to_nobody() -> None:
    app = application(Unruly([Answer(decision=False), Answer(decision=True)]))
    body = ALICE_READS | {"evaluations": [{}, {}], "options": {"evaluations_semantic": "deny_on_first_deny"}}
    assert send(EVALUATIONS, json.dumps(body).encode(), app=app).status_code == 500


@pytest.mark.parametrize(
    ("names", "more"), [(("b", "a"), False), (("a", "a"), False), (("",), False), (("a", "b", "c"), False), ((), True)]
)
def test_a_page_that_was_not_asked_for_gets_out_to_nobody(names: tuple[str, ...], more: bool) -> None:
    """It would repeat or leave out names, or let a caller turn pages for ever."""
    app = application(Unruly(found=Found(names=names, more=more)))
    for kind, document in SEARCHED.items():
        body = json.dumps(document | {"page": {"limit": 2}}).encode()
        assert send(SEARCHES[kind], body, app=app).status_code == 500


def test_what_an_answer_says_with_its_decision() -> None:
    """Reasons as the specification's example has them, obligations as the profile's."""
    obligation = Obligation(id="o-1", type="notification", properties={"to": "auditor", "body": "opened at night"})
    context = answer_context(
        reason_admin={"403": "rule C076E82F"}, reason_user={"403": "Not for this purpose."}, obligations=[obligation]
    )
    app = application(Unruly([Answer(decision=False, context=context)]))
    assert ask(EVALUATION, ALICE_READS, app) == {
        "decision": False,
        "context": {
            "reason_admin": {"403": "rule C076E82F"},
            "reason_user": {"403": "Not for this purpose."},
            "obligations_profile": "authzen-obligations-profile-1_0-draft-1",
            "obligations": [
                {"id": "o-1", "type": "notification", "properties": {"to": "auditor", "body": "opened at night"}}
            ],
        },
    }
    app = application(Unruly(found=Found(names=(), more=False, context={"entry": "00"})))
    assert ask(SEARCHES[Kind.ACTION], HOW, app)["context"] == {"entry": "00"}
    with pytest.raises(Misuse, match="same id"):
        answer_context(obligations=[obligation, obligation])


@pytest.mark.parametrize(
    ("kind", "properties"),
    [
        ("audit_log", {}),
        ("step-up", {"amr_values": ["mfa"]}),
        ("notification", {"to": "auditor"}),
        ("session_termination", {"subject": 7}),
    ],
)
def test_an_obligation_that_nobody_could_comply_with(kind: str, properties: Json) -> None:
    with pytest.raises(Misuse):
        Obligation(id="o-1", type=kind, properties=properties)


def test_discovery() -> None:
    """Of what there is, and open: whoever has to sign requests finds out here where to."""

    async def get(path: str, **headers: str) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(APP), base_url=BASE) as client:
            return await client.get(path, headers=headers)

    response = asyncio.run(get("/.well-known/authzen-configuration", **{"x-request-id": "7"}))
    said = response.json()
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert (response.headers["x-request-id"], response.headers["cache-control"]) == ("7", "public, max-age=3600")
    assert said.pop("policy_decision_point") == BASE
    assert said.pop("supported_obligations") == ["notification"]
    assert said.pop("obligations_profile") == "authzen-obligations-profile-1_0-draft-1"
    assert set(said) == {"access_evaluation_endpoint", "access_evaluations_endpoint"} | {
        f"search_{kind}_endpoint" for kind in Kind
    }
    assert sorted(url.removeprefix(BASE) for url in said.values()) == sorted(PATHS)
    for url in said.values():
        assert send(url, b"{}").status_code == 400  # it is there, and reads
    assert "supported_obligations" not in metadata(BASE)


@pytest.mark.parametrize(
    "url",
    [
        *("http://pdp.example", "https://", "https://pdp.example/", "https://pdp.example/tenant", "pdp.example", ""),
        *("https://pdp.example?", "https://pdp.example#", "https://a@pdp.example", "https://pdp.example\n"),
    ],
)
def test_a_base_url_that_callers_could_not_compare(url: str) -> None:
    with pytest.raises(Misuse):
        metadata(url)
