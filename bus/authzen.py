"""OpenID AuthZEN, Authorization API 1.0: how a decision is asked for, whatever decides.

An `Evaluator` decides; here requests are read, a batch's defaults and semantic applied, searches paged, errors worded.
A denial is an answer (200, `decision: false`); a status of 400 and above carries no decision.

Sources: Authorization API 1.0 (openid.net/specs/authorization-api-1_0.html), its certification scenario, and the
obligations profile, of which there are drafts only: contexts and metadata name the one that they follow.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from hashlib import sha256
from itertools import pairwise, takewhile
from typing import Any, NoReturn, Protocol, TypeVar

import msgspec
import structlog
from fastapi import APIRouter, Request, Response

from bus import metrics
from schemas.errors import Code, DeptbusError, Malformed, Misuse

MAX_EVALUATIONS = 100  # a call leaves one durable record of its answers: `bus.gateway.evaluating` has room for so many
MAX_PAGE = MAX_EVALUATIONS  # so that a page's results can be asked about again in one call
OBLIGATIONS_PROFILE = "authzen-obligations-profile-1_0-draft-1"
_METADATA_CACHED = "public, max-age=3600"  # the paths change with the software only
_BASE_URL = re.compile(r"https://[A-Za-z0-9.:\[\]-]+")
# What an obligation of a type must say for an enforcement point to be able to comply.
_OBLIGED: Mapping[str, tuple[str, ...]] = {
    "step-up": ("acr_value",),
    "notification": ("to", "body"),
    "session_termination": ("subject",),
    "custom": (),
}

T = TypeVar("T")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """A subject or a resource. `id` is unique for its type."""

    type: str
    id: str
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What the subject would do."""

    name: str
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """May `subject` do `action` to `resource` in these circumstances? Properties are the caller's word."""

    subject: Entity
    action: Action
    resource: Entity
    context: Mapping[str, Any] = field(default_factory=dict)


class Semantic(StrEnum):
    """How far a batch is decided: all of it, or in order up to and with the first denial or the first permit."""

    EXECUTE_ALL = "execute_all"
    DENY_ON_FIRST_DENY = "deny_on_first_deny"
    PERMIT_ON_FIRST_PERMIT = "permit_on_first_permit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Questions in the order asked, with the top-level defaults filled in. One that is no question holds why not."""

    items: tuple[Evaluation | Malformed, ...]
    semantic: Semantic


class Kind(StrEnum):
    """What a search looks for."""

    SUBJECT = "subject"
    RESOURCE = "resource"
    ACTION = "action"


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Which subjects, resources or actions would be permitted: at most `limit` of those whose name comes after `after`.

    A name is the id of a subject or resource, or an action's name; names are ordered by code point (in PostgreSQL:
    `COLLATE "C"`). `evaluation` lacks the one that is looked for. `digest` is what a page's token is bound to.
    """

    kind: Kind
    evaluation: Evaluation
    digest: bytes
    limit: int = MAX_PAGE
    after: str = ""

    def candidate(self, name: str) -> Evaluation:
        """The question that this search asks of one name."""
        asked = self.evaluation
        match self.kind:
            case Kind.SUBJECT:
                return replace(asked, subject=replace(asked.subject, id=name))
            case Kind.RESOURCE:
                return replace(asked, resource=replace(asked.resource, id=name))
            case Kind.ACTION:
                return replace(asked, action=replace(asked.action, name=name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A decision, and what the caller should know with it (see `answer_context`)."""

    decision: bool
    context: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A page of a search: permitted names, ascending, and whether there may be `more` after them.

    `after` is the last name that was looked at, if that is not the page's last: whoever bounds how much is looked at
    for a page can give one that is short, or empty.
    """

    names: tuple[str, ...]
    more: bool
    after: str = ""
    context: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Obligation:
    """What the caller must do for the decision to stand, be it a permit or a denial.

    Raises `Misuse` (VALUE_INVALID) for a type that the profile does not know and for one that lacks what its type
    needs: nobody could comply with it, and all would have to deny.
    """

    id: str
    type: str
    properties: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.type not in _OBLIGED:
            raise Misuse(Code.VALUE_INVALID, f"an obligation is one of {', '.join(_OBLIGED)}")
        if missing := [name for name in _OBLIGED[self.type] if not isinstance(self.properties.get(name), str)]:
            raise Misuse(Code.VALUE_INVALID, f"an obligation {self.type} needs a text for {', '.join(missing)}")


class Evaluator(Protocol):
    """What decides, for one caller. Each call is one HTTP request: it makes one record, durable before it returns.

    What is raised instead of an answer ends the whole request: `DeptbusError` with its status, anything else with 500.
    """

    async def evaluate(self, evaluations: Sequence[Evaluation], semantic: Semantic) -> Sequence[Answer]:
        """The answers in that order, as far as `semantic` goes (`up_to` cuts them): the others were not decided.

        At least one evaluation is asked. An evaluation that cannot be decided is a denial whose context says why.
        """
        ...

    async def search(self, search: Search) -> Found:
        """One page. A type or an id that is not known finds nothing and is no error."""
        ...


def up_to(answers: Iterable[Answer], semantic: Semantic) -> list[Answer]:
    """The answers that a batch of this semantic gives. Takes no more of them than it gives."""
    last = {Semantic.DENY_ON_FIRST_DENY: False, Semantic.PERMIT_ON_FIRST_PERMIT: True}.get(semantic)
    taken = []
    for answer in answers:
        taken.append(answer)
        if answer.decision is last:
            break
    return taken


def search_among(search: Search, names: Iterable[str], permits: Callable[[Evaluation], bool]) -> Found:
    """The page of a search among `names` that can all be held at once: each is decided on as if it were asked alone."""
    page: list[str] = []
    for name in sorted(set(names)):
        if name > search.after and permits(search.candidate(name)):
            if len(page) == search.limit:
                return Found(names=tuple(page), more=True)
            page.append(name)
    return Found(names=tuple(page), more=False)


def answer_context(
    *,
    reason_admin: Mapping[str, str] | None = None,
    reason_user: Mapping[str, str] | None = None,
    obligations: Sequence[Obligation] = (),
) -> dict[str, Any]:
    """An answer's `context`, under the names that the specification's examples and the obligations profile use.

    Reasons are sentences by code, such as `{"403": "…"}`: one for those who run the system, one for the person before
    it. Raises `Misuse` (VALUE_INVALID) when two obligations have one id.
    """
    context: dict[str, Any] = {}
    if reason_admin:
        context["reason_admin"] = dict(reason_admin)
    if reason_user:
        context["reason_user"] = dict(reason_user)
    if obligations:
        if len({one.id for one in obligations}) < len(obligations):
            raise Misuse(Code.VALUE_INVALID, "two obligations of one decision have the same id")
        context["obligations_profile"] = OBLIGATIONS_PROFILE
        context["obligations"] = [
            {"id": one.id, "type": one.type, "properties": dict(one.properties)} for one in obligations
        ]
    return context


def parse_evaluation(document: Any) -> Evaluation:
    """A request of the Access Evaluation API. Fields not known are ignored. Raises `Malformed` (REQUEST_MALFORMED)."""
    return _evaluation(_object(document), {})


def parse_evaluations(document: Any) -> Evaluation | Batch:
    """A request of the Access Evaluations API; without `evaluations`, or with none in it, it is a single one.

    A default stands in for a whole member that an item lacks, never for a part of one. A fault in the defaults or
    around the items raises `Malformed` (REQUEST_MALFORMED, REQUEST_TOO_LARGE); a fault in an item stays in the item.
    """
    body = _object(document)
    items = _optional(body, "evaluations", list)
    if not items:
        return _evaluation(body, {})
    if len(items) > MAX_EVALUATIONS:
        raise Malformed(Code.REQUEST_TOO_LARGE, f"at most {MAX_EVALUATIONS} evaluations at once: ask in several calls")
    defaults = {name: part(body) for name, part in _PARTS.items() if name in body}
    semantic = _optional(_optional(body, "options", dict) or {}, "evaluations_semantic", str, "options.")
    if semantic is not None and semantic not in list(Semantic):
        _refuse(f"options.evaluations_semantic is one of {', '.join(Semantic)}")
    return Batch(
        items=tuple(_item(item, defaults) for item in items), semantic=Semantic(semantic or Semantic.EXECUTE_ALL)
    )


def parse_search(document: Any, kind: Kind) -> Search:
    """A request of a Search API. Raises `Malformed` (REQUEST_MALFORMED).

    The searched entity's `id`, and the whole `action` of an action search, are ignored. A `limit` above `MAX_PAGE` gets
    pages of that size. With a token all else must be as before; the limit may be left out.
    """
    body = _object(document)
    evaluation = Evaluation(
        subject=_entity(body, "subject", searched=kind is Kind.SUBJECT),
        action=Action(name="") if kind is Kind.ACTION else _action(body),
        resource=_entity(body, "resource", searched=kind is Kind.RESOURCE),
        context=_context(body),
    )
    search = Search(kind=kind, evaluation=evaluation, digest=_digest(kind, evaluation))
    page = _optional(body, "page", dict) or {}
    _optional(page, "properties", dict, "page.")
    limit = _optional(page, "limit", int, "page.")
    if limit is not None:
        if limit < 0:
            _refuse("page.limit is negative")
        search = replace(search, limit=min(limit, MAX_PAGE))
    token = _optional(page, "token", str, "page.")
    return search if token is None else _resumed(search, token, limited=limit is not None)


def metadata(base_url: str, *, obligations: Sequence[str] = ()) -> dict[str, Any]:
    """What `GET /.well-known/authzen-configuration` says of the decision point at `base_url`.

    `obligations` are the types that it may issue. Raises `Misuse` (CONFIG_INVALID) unless `base_url` is `https` with
    nothing but a host and port: callers compare it with the one they know, character for character.
    """
    if not _BASE_URL.fullmatch(base_url):
        raise Misuse(Code.CONFIG_INVALID, "a decision point's base URL is https:// and a host, without a path, ? or #")
    said: dict[str, Any] = {"policy_decision_point": base_url}
    said |= {parameter: base_url + path for parameter, (path, _) in _ENDPOINTS.items()}
    if obligations:
        said |= {"supported_obligations": list(obligations), "obligations_profile": OBLIGATIONS_PROFILE}
    return said


def create_router(
    admit: Callable[[Request], Awaitable[tuple[Evaluator, bytes]]],
    status_of: Callable[[DeptbusError], int],
    *,
    base_url: str | None = None,
    obligations: Sequence[str] = (),
) -> APIRouter:
    """The HTTPS binding: the five endpoints, and the open metadata document if there is a `base_url` to put into it.

    `admit` says who decides for a request's caller and gives its body, which it has bounded; it raises what it refuses
    (REQUEST_UNSIGNED, …). `status_of` gives an error's status. An error's body is its text, as the binding has it.
    `X-Request-ID` comes back on every answer. The call is counted here, errors included.
    """
    router = APIRouter()

    def serve(path: str, parse: Callable[[Any], Evaluation | Batch | Search]) -> None:
        async def answer(request: Request) -> Response:
            evaluator, body = await admit(request)
            if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                _refuse("Content-Type is application/json")
            return _json(await _ask(evaluator, _read(body, parse)))

        async def endpoint(request: Request) -> Response:
            outcome = "ok"
            try:
                response = await answer(request)
            except DeptbusError as error:
                outcome = error.code.value
                response = _error(error.code, error.detail, status_of(error))
            except Exception:
                log.exception("authzen_defect", route=path)
                outcome = Code.UNDECIDABLE.value
                response = _error(Code.UNDECIDABLE, "a defect of the decision point: no decision is given", 500)
            metrics.REQUESTS.labels(route=path, outcome=outcome).inc()
            return _identified(request, response)

        router.add_api_route(path, endpoint, methods=["POST"], name=path)

    for path, parse in _ENDPOINTS.values():
        serve(path, parse)

    if base_url is not None:
        said = metadata(base_url, obligations=obligations)

        @router.get("/.well-known/authzen-configuration")
        async def configuration(request: Request) -> Response:
            """Where the endpoints are."""
            response = _json(said)
            response.headers["Cache-Control"] = _METADATA_CACHED
            return _identified(request, response)

    return router


async def _ask(evaluator: Evaluator, asked: Evaluation | Batch | Search) -> dict[str, Any]:
    """The answer's body. An evaluator that does not keep to its contract is a defect: no decision of it gets out."""
    match asked:
        case Evaluation():
            (answer,) = await evaluator.evaluate([asked], Semantic.EXECUTE_ALL)
            return _answer(answer)
        case Batch():
            return {"evaluations": [_answer(one) for one in await _decide(evaluator, asked)]}
        case Search():
            found = await evaluator.search(asked)
            return _page(asked, found)


async def _decide(evaluator: Evaluator, batch: Batch) -> list[Answer]:
    """An item that is no question is a denial of its own; the evaluator is asked only what the semantic lets matter."""
    items: Iterable[Evaluation | Malformed] = batch.items
    if batch.semantic is Semantic.DENY_ON_FIRST_DENY:
        items = takewhile(lambda item: isinstance(item, Evaluation), items)
    asked = [item for item in items if isinstance(item, Evaluation)]
    decided = iter(await evaluator.evaluate(asked, batch.semantic) if asked else ())
    given = (_fault(item) if isinstance(item, Malformed) else next(decided) for item in batch.items)
    answers = up_to(given, batch.semantic)  # too few decided: the generator's StopIteration is a RuntimeError
    if next(decided, None) is not None:
        raise RuntimeError("the evaluator decided more than it was to")
    return answers


def _fault(error: Malformed) -> Answer:
    return Answer(decision=False, context={"error": {"status": 400, "message": error.detail}})


def _answer(answer: Answer) -> dict[str, Any]:
    return {"decision": answer.decision, **({"context": answer.context} if answer.context else {})}


def _page(search: Search, found: Found) -> dict[str, Any]:
    """`page` first: a caller can show progress while it reads."""
    names, shown = found.names, (search.after, *found.names)
    ascending = all(one < other for one, other in pairwise(shown))
    rest = replace(search, after=max(found.after, shown[-1]))
    if not ascending or len(names) > search.limit or (found.more and search.limit and rest.after == search.after):
        raise RuntimeError("the evaluator's page is not what was asked for")
    return {
        "page": {"next_token": _token(rest) if found.more else "", "count": len(names)},
        **({"context": found.context} if found.context else {}),
        "results": [_result(search, name) for name in names],
    }


def _result(search: Search, name: str) -> dict[str, str]:
    match search.kind:
        case Kind.SUBJECT:
            return {"type": search.evaluation.subject.type, "id": name}
        case Kind.RESOURCE:
            return {"type": search.evaluation.resource.type, "id": name}
        case Kind.ACTION:
            return {"name": name}


def _token(search: Search) -> str:
    """Where the next page begins, bound to the query. No secret: who forges one gets another page of what it asks."""
    position = f"{search.limit}:{search.after}".encode()
    return urlsafe_b64encode(sha256(search.digest + position).digest()[:16] + position).decode()


def _resumed(search: Search, token: str, *, limited: bool) -> Search:
    try:
        limit, _, after = urlsafe_b64decode(token.encode())[16:].decode().partition(":")
        resumed = replace(search, limit=int(limit), after=after)
    except ValueError:
        resumed = search
    if not (_token(resumed) == token and 0 <= resumed.limit <= MAX_PAGE) or (limited and resumed.limit != search.limit):
        _refuse("page.token belongs to another query or limit, or is not from here: ask again without it")
    return resumed


def _digest(kind: Kind, evaluation: Evaluation) -> bytes:
    text = json.dumps([kind, evaluation], sort_keys=True, default=_fields)
    return sha256(text.encode()).digest()


def _fields(value: Entity | Action | Evaluation) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}


def _item(value: Any, defaults: Mapping[str, Any]) -> Evaluation | Malformed:
    try:
        return _evaluation(_object(value), defaults)
    except Malformed as error:
        return error


def _evaluation(fields: Mapping[str, Any], defaults: Mapping[str, Any]) -> Evaluation:
    return Evaluation(
        **{
            name: defaults[name] if name in defaults and name not in fields else part(fields)
            for name, part in _PARTS.items()
        }
    )


def _entity(fields: Mapping[str, Any], name: str, *, searched: bool = False) -> Entity:
    entity = _required(fields, name, dict)
    return Entity(
        type=_required(entity, "type", str, f"{name}."),
        id="" if searched else _required(entity, "id", str, f"{name}."),
        properties=_optional(entity, "properties", dict, f"{name}.") or {},
    )


def _action(fields: Mapping[str, Any]) -> Action:
    action = _required(fields, "action", dict)
    return Action(
        name=_required(action, "name", str, "action."),
        properties=_optional(action, "properties", dict, "action.") or {},
    )


def _context(fields: Mapping[str, Any]) -> dict[str, Any]:
    return _optional(fields, "context", dict) or {}


_PARTS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "subject": lambda fields: _entity(fields, "subject"),
    "action": _action,
    "resource": lambda fields: _entity(fields, "resource"),
    "context": _context,
}
# The metadata's name of an endpoint, its default path, and what reads its body.
_ENDPOINTS: Mapping[str, tuple[str, Callable[[Any], Evaluation | Batch | Search]]] = {
    "access_evaluation_endpoint": ("/access/v1/evaluation", parse_evaluation),
    "access_evaluations_endpoint": ("/access/v1/evaluations", parse_evaluations),
    "search_subject_endpoint": ("/access/v1/search/subject", lambda document: parse_search(document, Kind.SUBJECT)),
    "search_resource_endpoint": ("/access/v1/search/resource", lambda document: parse_search(document, Kind.RESOURCE)),
    "search_action_endpoint": ("/access/v1/search/action", lambda document: parse_search(document, Kind.ACTION)),
}
_WORDS: Mapping[type, str] = {dict: "an object", list: "an array", str: "a string", int: "an integer"}


def _object(value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        _refuse("a request, and each of its evaluations, is a JSON object")
    return value


def _required(fields: Mapping[str, Any], name: str, kind: type[T], where: str = "") -> T:
    value = _optional(fields, name, kind, where)
    if value is None:
        _refuse(f"{where}{name} is missing")
    return value


def _optional(fields: Mapping[str, Any], name: str, kind: type[T], where: str = "") -> T | None:
    """None if it is not there. A null is there, and of the wrong type; so is a boolean where an integer belongs."""
    if name not in fields:
        return None
    value = fields[name]
    if type(value) is not kind:
        _refuse(f"{where}{name} is not {_WORDS[kind]}")
    return value


def _refuse(detail: str) -> NoReturn:
    raise Malformed(Code.REQUEST_MALFORMED, detail)


def _read(body: bytes, parse: Callable[[Any], Evaluation | Batch | Search]) -> Evaluation | Batch | Search:
    """Strict JSON (I-JSON, RFC 7493), so that nobody on the way can have read another question out of it."""
    try:
        msgspec.json.decode(body)  # refuses what is no UTF-8, half a surrogate pair, numbers beyond a double
        return parse(json.loads(body.decode(), object_pairs_hook=_members))
    except RecursionError as exc:
        raise Malformed(Code.REQUEST_MALFORMED, "the body is nested too deeply") from exc
    except ValueError as exc:
        raise Malformed(Code.REQUEST_MALFORMED, "the body is no JSON text in UTF-8") from exc


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        _refuse("a name comes twice in one object of the body")
    return members


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def _error(code: Code, detail: str, status: int) -> Response:
    return Response(f"{code}: {detail}", status_code=status, media_type="text/plain")


def _identified(request: Request, response: Response) -> Response:
    if (identifier := request.headers.get("x-request-id")) is not None:
        response.headers["X-Request-ID"] = identifier
    return response
