"""Once only (只提交一次), asked before a form goes out: may it ask for these elements?

A check opens nothing and is about nobody, so it is no entry of the log. It is counted by verdict.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec

from bus import metrics
from bus.db import queries
from bus.gateway.embargoes import Connect
from bus.httpsig import Signed
from bus.messages import check_texts
from consent.collections import Answer, Element, Form, Kind, Proofs, Provider, check, index, offers, spelt
from consent.decide import CHINA
from consent.purposes import TREE, ancestors
from schemas.catalogue import Catalogue
from schemas.errors import Code, Malformed

MAX_ELEMENTS = 200  # a long form has some tens; more is a list being worked through
MAX_NAME = 100  # the longest name of an element is that of a proof with who issues it

SQL = queries(Path(__file__).with_name("collections.sql"))


class CollectionBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/collections:check`: the form's department is who signs the request.

    `elements` is data to be filled in, `proofs` are papers of others (证明材料); both by standard key, field name or
    Chinese name. `holder` is whom the form is about, PERSON or ORGANISATION; `region` where they are, if known.
    """

    form: str
    purpose: str
    holder: str
    elements: list[str] = []
    proofs: list[str] = []
    region: str = ""


class CollectionAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`allowed` if the form may ask for all of its elements, which stand in the order asked, data first.

    `providers` of every item among their sources: credit code, and the division they issue it for, empty for all.
    """

    form: str
    allowed: bool
    elements: tuple[Answer, ...]
    providers: Annotated[
        dict[str, tuple[Provider, ...]],
        msgspec.Meta(extra_json_schema={"propertyNames": {"pattern": "^[a-z][a-z0-9-]{0,63}$"}}),
    ]


class Collections:
    """The check of forms, over a gateway's connections, its catalogue and its lists of proofs."""

    def __init__(self, connect: Connect, catalogue: Catalogue, proofs: Proofs) -> None:
        self._connect = connect
        self._catalogue = catalogue
        self._places = index(catalogue)
        self._proofs = proofs

    async def check(self, signed: Signed, body: CollectionBody) -> CollectionAnswer:
        """An answer for each element. Raises as `form_of`, and `Unavailable`."""
        form = form_of(signed.caller.uscc, body)
        today = datetime.now(CHINA).date()
        async with self._connect("checking a form") as connection:
            issuers = await connection.fetch(SQL["providers"], today)
            agreed = await connection.fetch(
                SQL["agreed"], form.department, list(ancestors(form.purpose)), today, form.region
            )
        providers: dict[str, list[Provider]] = {}
        for row in issuers:
            providers.setdefault(row["item"], []).append(Provider(department=row["uscc"], region=row["region"]))
        offered = offers(form, self._catalogue, providers)
        answers = check(form, self._places, self._proofs, offered, {(row["item"], row["section"]) for row in agreed})
        for one in answers:
            metrics.COLLECTIONS.labels(verdict=one.verdict.value).inc()
        named = {source.place.item for one in answers for source in one.sources}
        return CollectionAnswer(
            form=form.name,
            allowed=all(one.may_ask for one in answers),
            elements=answers,
            providers={item: offered[item] for item in sorted(named)},
        )


def form_of(department: str, body: CollectionBody) -> Form:
    """What a department asks about.

    Raises `Malformed` (REQUEST_MALFORMED, REQUEST_TOO_LARGE, REGION_UNKNOWN), and `Refused` (PERSONAL_ID).
    """
    names = (*body.elements, *body.proofs)
    if not 1 <= len(names) <= MAX_ELEMENTS:
        raise Malformed(Code.REQUEST_TOO_LARGE, f"a form has 1 to {MAX_ELEMENTS} elements and proofs, not {len(names)}")
    check_texts(body.form, *names)
    if not body.form or not all(0 < len(name) <= MAX_NAME for name in names):
        raise Malformed(
            Code.REQUEST_MALFORMED, f"a form has a name, and each element one of 1 to {MAX_NAME} characters"
        )
    if len(set(map(spelt, names))) < len(names):
        raise Malformed(Code.REQUEST_MALFORMED, "an element is named twice")
    if body.purpose not in TREE:
        raise Malformed(Code.REQUEST_MALFORMED, "unknown purpose: see consent/purposes.toml")
    if body.holder not in ("PERSON", "ORGANISATION"):
        raise Malformed(Code.REQUEST_MALFORMED, "holder is PERSON or ORGANISATION")
    if body.region and not (body.region.isascii() and body.region.isdigit() and len(body.region) in (2, 4, 6)):
        raise Malformed(Code.REGION_UNKNOWN, "region is a division prefix of 2, 4 or 6 digits, or empty")
    return Form(
        name=body.form,
        department=department,
        purpose=body.purpose,
        holder=body.holder,
        region=body.region,
        elements=(
            *(Element(name=name, kind=Kind.DATA) for name in body.elements),
            *(Element(name=name, kind=Kind.PROOF) for name in body.proofs),
        ),
    )
