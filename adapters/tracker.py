"""Who used a person's data, in the shape of Estonia's data tracker (Andmejälgija), for a portal's own machine.

Source: e-gov/AJ, `doc/spetsifikatsioonid/dumonitor-openapi.yaml` 2.1.0 (MIT): `GET /v2/findUsage`, `/v2/usagePeriod`,
`/v2/heartbeat`. There a person's code stands in the URL. On the bus ids stand in signed bodies only, never in a URL,
which proxies log and a request's signature here does not cover. So this is no route of a gateway: it runs beside the
portal's system, on loopback, and turns each question into the portal's signed `POST /v1/subjects/usages:query`. No URL
is logged here. Whoever reaches the port asks as the portal: what stands before it (there, an X-Road security server)
lets in who may.

A user code is a citizen number, or a firm's credit code; before it may stand `CN`, as X-Road puts a country. The log
keeps whom was asked about and by which portal; who asked at the portal (`X-Road-UserId`, which may be another whom the
subject let act) the portal keeps: a citizen number never stands in the log.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import FastAPI, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError

from bus.client import GatewayClient
from schemas.errors import Code, DeptbusError, Malformed, Misuse
from schemas.identifiers import parse_citizen_number, parse_uscc

COUNTRY = "CN"
LIMIT = 1_000
PAGE = 1_000
MOST = 100_000  # usages of a subject that are counted: a firm that is opened each hour for eleven years has so many

UserId = Annotated[str, Header(alias="X-Road-UserId", min_length=1)]
UserCode = Annotated[str, Query(alias="userCode")]
PeriodStart = Annotated[str | None, Query(alias="periodStart")]
PeriodEnd = Annotated[str | None, Query(alias="periodEnd")]
Offset = Annotated[int, Query(ge=0, le=2**31 - 1)]
Limit = Annotated[int, Query(ge=0, le=2**31 - 1)]


def create_app(client: GatewayClient) -> FastAPI:
    """The application. `client` signs as the portal."""
    app = FastAPI(title="Data tracker", version="2.1.0", docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(DeptbusError)
    async def refuse(_: Request, error: DeptbusError) -> Response:
        """400 for what was asked wrongly, 500 for the rest: the document has no others."""
        return _json(
            {"code": error.code.value, "detail": error.detail}, 400 if isinstance(error, Malformed | Misuse) else 500
        )

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> Response:
        """Names the parameter, never its value."""
        names = ", ".join(sorted({str(one["loc"][-1]) for one in error.errors()}))
        return _json({"code": Code.REQUEST_MALFORMED.value, "detail": f"missing or not understood: {names}"}, 400)

    @app.get("/v2/findUsage")
    async def find_usage(
        user: UserId,
        user_code: UserCode,
        start: PeriodStart = None,
        end: PeriodEnd = None,
        offset: Offset = 0,
        limit: Limit = LIMIT,
    ) -> Response:
        """The subject's usages in the log's order; those that were taken back are none."""
        asked = {"subject": _subject(user_code), "since": _time(start), "until": _time(end), "limit": PAGE}
        usages = await _all(client, asked)
        shown = [_usage(one) for one in usages[offset : offset + limit]]
        return _json({"totalUsages": len(usages), "usages": shown})

    @app.get("/v2/usagePeriod")
    async def usage_period() -> Response:
        """Since when the log can tell; it has no end but now, so that is left out."""
        since = (await client.post_json("/v1/subjects/usages:period", {}))["since"]
        return _json({"periodStart": _written(datetime.now(UTC) if since is None else datetime.fromisoformat(since))})

    @app.get("/v2/heartbeat")
    async def heartbeat() -> Response:
        """Whether the bus answers this portal."""
        try:
            await client.post_json("/v1/subjects/usages:period", {})
        except DeptbusError as exc:
            return _json({"status": "FAIL", "message": f"{exc.code.value}: {exc.detail}"})
        return _json({"status": "OK", "message": "the bus answers"})

    return app


async def _all(client: GatewayClient, asked: dict[str, Any]) -> list[dict[str, Any]]:
    """Every usage: `totalUsages` counts also those that are not shown."""
    found: list[dict[str, Any]] = []
    after: int | None = -1
    while after is not None:
        page = await client.post_json("/v1/subjects/usages:query", asked | {"after": after})
        found += [one for one in page["usages"] if not one["voided"]]
        after = page["next"]
        if len(found) > MOST:
            raise Malformed(Code.REQUEST_TOO_LARGE, f"more than {MOST} usages: ask for a shorter period")
    return found


def _usage(one: dict[str, Any]) -> dict[str, str]:
    """The bus knows a department's systems by one name, the department's."""
    to = one["onward_to_name"] or one["onward_to"]
    more = f"（转提供 {to}）" if to else f"（批量使用决定，共 {one['set']['size']} 条）" if one["set"] else ""
    return {
        "logtime": _written(datetime.fromisoformat(one["logged_at"])),
        "action": f"{one['purpose_zh'] or one['purpose']}: {one['item_zh'] or one['item']}{more}",
        "receiverCode": one["receiver"],
        "receiverName": one["receiver_name"],
        "receiverSystem": one["receiver_name"] or one["receiver"],
    }


def _subject(code: str) -> dict[str, str]:
    """Whom a user code names. The code is not repeated in what is said about it."""
    number = code.removeprefix(COUNTRY)
    for kind, parse in (("PERSON", parse_citizen_number), ("ORGANISATION", parse_uscc)):
        try:
            return {"kind": kind, "id": parse(number)}
        except Malformed:
            continue
    raise Malformed(Code.REQUEST_MALFORMED, "a user code is a citizen number or a credit code, maybe behind CN")


def _time(text: str | None) -> str | None:
    """A `date-time` of RFC 3339, as the bus takes it."""
    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        when = None
    if when is None or when.tzinfo is None:
        raise Malformed(Code.REQUEST_MALFORMED, "periodStart and periodEnd are times such as 2026-01-31T10:20:30Z")
    return when.isoformat()


def _written(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _json(value: Any, status: int = 200) -> Response:
    data = json.dumps(value, ensure_ascii=False)
    return Response(data, status_code=status, media_type="application/json", headers={"Cache-Control": "no-store"})
