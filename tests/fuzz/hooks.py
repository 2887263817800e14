"""What schemathesis needs to know of the gateway: how requests are signed, and some of what a bus has in it.

Loaded by its command line (`SCHEMATHESIS_HOOKS`), in a process of its own; `DEPTBUS_FUZZ` names a file of `Known`.
"""

from __future__ import annotations

import atexit
import json
import os
import random
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import requests
import schemathesis
from hypothesis import strategies as st
from requests.auth import AuthBase
from schemathesis import Case, CheckContext, HookContext, Response
from schemathesis.auths import AuthContext, RequestsAuth
from schemathesis.core.parameters import ParameterLocation

from bus.httpsig import sign
from bus.identity import Identity
from bus.messages import KeyRequest, Read
from schemas.errors import Code
from tests.fuzz.known import Known

answered: dict[str, Counter[int]] = {}

KNOWN_SHARE = 0.8  # of the fields for which something real is known


@cache
def known() -> Known:
    return Known.load(Path(os.environ["DEPTBUS_FUZZ"]))


@cache
def departments() -> list[Identity]:
    return [Identity.load(Path(folder)) for folder in known().departments]


class Signed(AuthBase):
    """Signs what is really sent, as a department, or as the one that keys are asked for."""

    def __init__(self, department: Identity) -> None:
        self._department = department

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        body = request.body or b""
        data = body.encode() if isinstance(body, str) else body
        assert request.url is not None
        assert request.method is not None
        assert isinstance(data, bytes)
        recipients = [one for one in departments() if one.kem.id in data or one.kem.id.hex().encode() in data]
        signer = (recipients or [self._department])[0].department
        request.headers.update(sign(signer, request.method, request.url, data))
        if "/tile/entries/" in request.url:
            request.headers["Authorization"] = f"Bearer {known().token}"
        return request


@schemathesis.auth(refresh_interval=None)
class Signing:
    """Signs every request but those that are sent to see what comes of headers that are wrong.

    The same department for the same case; where there is nothing to say, the auditor, who may do the most.
    """

    def get(self, case: Case[Any], context: AuthContext) -> AuthBase:
        if case.body == {}:
            return Signed(departments()[-1])
        return Signed(random.Random(repr((case.body, case.path_parameters))).choice(departments()))

    def set(self, case: Case[Any], data: AuthBase, context: AuthContext) -> None:
        if case.meta is None or not case.meta.is_negative_at(ParameterLocation.HEADER):
            RequestsAuth[AuthBase](data).set(case, data, context)


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    """Random hashes and codes find nothing: where a request is well formed, most of its words become real ones."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    chance = random.Random(repr((case.body, case.path_parameters)))
    if isinstance(case.body, dict):
        case.body = _real(case.body, chance)
    if case.path_parameters:
        bundles = {"path": "000.p/1"} if "/entries/" in case.operation.path else {}
        case.path_parameters = _real(case.path_parameters, chance) | bundles


def _real(value: Any, chance: random.Random) -> Any:
    if isinstance(value, list):
        return [_real(one, chance) for one in value]
    if not isinstance(value, Mapping):
        return value
    return {
        name: chance.choice(known().values[name])
        if name in known().values and inner is not None and chance.random() < KNOWN_SHARE
        else _real(inner, chance)
        for name, inner in value.items()
    }


@schemathesis.hook
def after_call(context: HookContext, case: Case[Any], response: Response) -> None:
    """Counts what well-formed requests were answered: nobody shall believe that only refusals were tried."""
    if case.meta is not None and case.meta.generation.mode.is_positive:
        answered.setdefault(case.operation.label, Counter())[response.status_code] += 1


@atexit.register
def say() -> None:
    Path(os.environ["DEPTBUS_FUZZ"]).with_name("answered.json").write_text(json.dumps(answered), "utf-8")


@schemathesis.check
def what_fits_is_read(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """A body that the description allows is never refused for its shape."""
    if case.meta is None or not case.meta.generation.mode.is_positive or response.status_code != 400:
        return
    if "json" not in response.headers["content-type"][0]:  # AuthZEN's errors are texts, and its bodies open
        return
    said = response.json()
    shape = said["code"] == Code.REQUEST_MALFORMED and said["detail"].startswith("body: ")
    fraction = "got `float`" in said["detail"]  # 1.0 is an integer to JSON Schema: the document says how it is written
    assert not shape or fraction, f"fits the description, and is refused: {said['detail']}"


def _key_requests() -> st.SearchStrategy[bytes]:
    """Well-formed ones for records that there are."""
    words = known().values
    reads = st.builds(
        Read, st.sampled_from([bytes.fromhex(one) for one in known().claims]), st.sampled_from([(), ("identity",)])
    )
    return st.builds(
        KeyRequest,
        request=st.binary(min_size=16, max_size=16),
        purpose=st.sampled_from(words["purpose"]),
        ground=st.sampled_from(words["ground"]),
        operator=st.just("fuzz"),
        citation=st.sampled_from(words["citation"]),
        case=st.just(""),
        agent=st.none(),
        recipient=st.sampled_from([one.kem.id for one in departments()]),
        reads=st.lists(reads, min_size=1, max_size=3).map(tuple),
    ).map(KeyRequest.encode)


schemathesis.openapi.media_type("application/avro", _key_requests())
