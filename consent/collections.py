"""Once only (只提交一次): may a form ask for these elements, or does the bus have them already?

Three rules, the strictest first. A cancelled proof (取消的证明事项) is not asked for. What a department can get by
sharing is not collected again (国务院令第716号 第七条, 优化营商环境条例 第三十七条). A proof (证明) that no list keeps
is not asked for either (清单之外无证明, 优化营商环境条例 第四十四条); plain data that nobody shares may be.

Pure: the catalogue, who provides what, and which agreements are in force come in.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Annotated
from unicodedata import normalize

import msgspec

from consent.purposes import TREE
from schemas.catalogue import Catalogue, Item, ShareClass
from schemas.errors import Code, Malformed


class Kind(StrEnum):
    """What a form asks for: a paper that somebody else issued (证明材料), or something to be filled in (数据项)."""

    PROOF = "PROOF"
    DATA = "DATA"


class Verdict(StrEnum):
    """What is known of an element."""

    ON_BUS = "ON_BUS"  # 可共享获取
    KEPT = "KEPT"  # 保留的证明事项
    CANCELLED = "CANCELLED"  # 取消的证明事项
    UNLISTED = "UNLISTED"  # 清单之外


class How(StrEnum):
    """What the asking department has to do before it can fetch a section."""

    NOTHING = "no agreement needed"  # 无条件共享
    AGREED = "agreement in force"
    APPLY = "apply for an agreement"


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """One thing that a form asks for, by standard key, field name or Chinese name."""

    name: str
    kind: Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """`department` is who asks, by credit code; `holder` whom the form is about, PERSON or ORGANISATION.

    `region` is the GB/T 2260 prefix that the holders belong to; empty if that is not known: then any provider counts.
    """

    name: str
    department: str
    purpose: str
    holder: str
    region: str
    elements: tuple[Element, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A department that issues an item, and where: a GB/T 2260 prefix, or empty for the whole country."""

    department: str
    region: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an element is in the catalogue. `field` is empty where it is the whole section of a licence asked for."""

    item: str
    zh: str
    section: str
    field: str
    share: ShareClass


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A place that the form's department can have opened; `how` says what that takes."""

    place: Place
    how: How


class Proof(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An entry of a list of proofs (证明事项清单).

    `names` is what forms call it. `basis` is the article that keeps or cancels it, `source` where that was read; not
    `verified` if nobody has. `purposes` are those that it is kept or cancelled for, none meaning all: a list speaks
    of single matters (事项), so not of what lies inside of them. `instead` says how the fact is established without it
    (替代方式).
    """

    names: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    basis: Annotated[str, msgspec.Meta(min_length=1)]
    source: Annotated[str, msgspec.Meta(min_length=1)]
    verified: bool
    purposes: tuple[str, ...] = ()
    instead: str = ""


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    kept: tuple[Proof, ...] = ()
    cancelled: tuple[Proof, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Proofs:
    """The two lists, 保留证明事项清单 and 取消证明事项清单, by every name of an entry."""

    kept: Mapping[str, tuple[Proof, ...]]
    cancelled: Mapping[str, tuple[Proof, ...]]

    @staticmethod
    @cache
    def shipped() -> Proofs:
        """The lists that come with the software: few entries, those whose basis could be read."""
        return Proofs.parse((resources.files("consent") / "proofs.toml").read_bytes())

    @classmethod
    def parse(cls, data: bytes) -> Proofs:
        """The lists of a TOML file, UTF-8. Raises `Malformed` (CONFIG_INVALID): where, and what was expected."""
        try:
            read = msgspec.convert(tomllib.loads(data.decode()), _File)
        except (ValueError, msgspec.ValidationError, RecursionError) as exc:
            raise _invalid(str(exc)) from exc
        for proof in (*read.kept, *read.cancelled):
            if not all(proof.names):
                raise _invalid("an entry has an empty name")
            if unknown := set(proof.purposes) - TREE.keys():
                raise _invalid(f"{proof.names[0]}: unknown purpose {min(unknown)}, see consent/purposes.toml")
        return cls(kept=_by_name(read.kept), cancelled=_by_name(read.cancelled))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was found for an element. `code` is PERMIT if the form may ask for it, else why not.

    `sources` are all places that the name may mean, whatever the verdict; `proof` is the entry that a KEPT or CANCELLED
    one is by.
    """

    element: str
    kind: Kind
    verdict: Verdict
    may_ask: bool
    code: Code
    sources: tuple[Source, ...]
    proof: Proof | None


Index = Mapping[str, tuple[Place, ...]]


def index(catalogue: Catalogue) -> Index:
    """The places of every name in the catalogue: items by name and Chinese name, fields by name, that, and key.

    A section that is not shared (不予共享) is in none: what stands only there cannot be got by sharing.
    """
    places: dict[str, dict[Place, None]] = {}
    for item in catalogue.items.values():
        for names, place in _places(item):
            for name in filter(None, map(spelt, names)):
                places.setdefault(name, {})[place] = None
    return MappingProxyType({name: tuple(found) for name, found in places.items()})


def spelt(name: str) -> str:
    """A name as it is compared: Unicode's NFKC, so that full-width letters and brackets are no other name."""
    return normalize("NFKC", name)


def offers(
    form: Form, catalogue: Catalogue, providers: Mapping[str, Collection[Provider]]
) -> Mapping[str, tuple[Provider, ...]]:
    """Who provides what the form's department could fetch about the form's holders, by item.

    `providers` are those of the published items: an item that nobody issues is on no bus. What the department issues
    itself for the form's region begins with its own forms, and is no source for them.
    """
    found: dict[str, tuple[Provider, ...]] = {}
    for item, all_of in providers.items():
        near = tuple(one for one in all_of if not form.region or form.region.startswith(one.region))
        if (
            near
            and _about(catalogue.item(item), form.holder)
            and all(one.department != form.department for one in near)
        ):
            found[item] = near
    return found


def check(
    form: Form, places: Index, proofs: Proofs, offered: Collection[str], agreed: Collection[tuple[str, str]]
) -> tuple[Answer, ...]:
    """An answer for each of the form's elements, in its order.

    `places` is the `index` of the catalogue, `offered` the items of `offers`, `agreed` the (item, section) that an
    agreement in force opens for the form's department and purpose.
    """
    return tuple(_answer(one, form.purpose, places, proofs, offered, agreed) for one in form.elements)


def _answer(
    element: Element,
    purpose: str,
    places: Index,
    proofs: Proofs,
    offered: Collection[str],
    agreed: Collection[tuple[str, str]],
) -> Answer:
    """The lists count for data, too: a proof does not become another thing by being called data."""
    name = spelt(element.name)
    sources = tuple(Source(place=at, how=_how(at, agreed)) for at in places.get(name, ()) if at.item in offered)
    kept, cancelled = (_listed(one, name, purpose) for one in (proofs.kept, proofs.cancelled))
    proof = None
    if cancelled is not None:
        verdict, code, proof = Verdict.CANCELLED, Code.PROOF_CANCELLED, cancelled
    elif sources:
        verdict, code = Verdict.ON_BUS, Code.ELEMENT_SHARED
    elif kept is not None:
        verdict, code, proof = Verdict.KEPT, Code.PERMIT, kept
    else:
        verdict, code = Verdict.UNLISTED, Code.PERMIT if element.kind is Kind.DATA else Code.PROOF_UNLISTED
    return Answer(
        element=element.name,
        kind=element.kind,
        verdict=verdict,
        may_ask=code is Code.PERMIT,
        code=code,
        sources=sources,
        proof=proof,
    )


def _listed(proofs: Mapping[str, tuple[Proof, ...]], name: str, purpose: str) -> Proof | None:
    return next((one for one in proofs.get(name, ()) if not one.purposes or purpose in one.purposes), None)


def _how(place: Place, agreed: Collection[tuple[str, str]]) -> How:
    if place.share is ShareClass.UNCONDITIONAL:
        return How.NOTHING
    return How.AGREED if (place.item, place.section) in agreed else How.APPLY


def _about(item: Item, holder: str) -> bool:
    """Whether the item's records have holders of that kind. Where each entry has its own id type, they may."""
    return any(rule.role == "HOLDER" and (rule.id_type or rule.kind == holder) for rule in item.subject_rules)


def _places(item: Item) -> Iterable[tuple[tuple[str, ...], Place]]:
    """Every place of an item that is shared, with its names."""
    shared = {name: one.share for name, one in item.sections.items() if one.share is not ShareClass.NONE}
    for section, share in shared.items():
        yield (item.name, item.zh), Place(item=item.name, zh=item.zh, section=section, field="", share=share)
    for field in item.schema.fields.values():
        if field.section in shared:
            yield (
                (field.name, field.zh, field.key),
                Place(
                    item=item.name,
                    zh=field.zh,
                    section=field.section,
                    field=field.name,
                    share=shared[field.section],
                ),
            )


def _by_name(proofs: Iterable[Proof]) -> Mapping[str, tuple[Proof, ...]]:
    found: dict[str, tuple[Proof, ...]] = {}
    for proof in proofs:
        for name in dict.fromkeys(map(spelt, proof.names)):
            found[name] = (*found.get(name, ()), proof)
    return MappingProxyType(found)


def _invalid(what: str) -> Malformed:
    return Malformed(Code.CONFIG_INVALID, f"lists of proofs: {what}")
