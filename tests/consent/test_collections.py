"""What a form may ask for: one row a case, each with its rule; and the laws that hold for every form."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consent.collections import (
    Answer,
    Element,
    Form,
    How,
    Kind,
    Proofs,
    Provider,
    Verdict,
    check,
    index,
    offers,
)
from consent.purposes import TREE
from schemas.catalogue import Catalogue, ShareClass
from schemas.errors import Code, Malformed

CATALOGUE = Catalogue.load()
PLACES = index(CATALOGUE)
MARKET, TAX, BANK, OTHER = "11330411MB2A00011E", "12350600400000018P", "91330411MA2B00019F", "112106000050000185"
PROVIDERS = {
    "business-licence": (Provider(department=MARKET, region="3304"), Provider(department=OTHER, region="2106")),
    "tax-registration": (Provider(department=TAX, region=""),),
    "bank-pre-account": (Provider(department=BANK, region=""),),
    "medical-device-ad-approval": (Provider(department=OTHER, region=""),),
    "real-estate-certificate": (Provider(department=OTHER, region="33"),),
}
LISTS = Proofs.parse(
    """
    [[kept]]
    names = ["场所使用证明", "营业执照"]
    basis = "某条例 第十条"
    source = "test"
    verified = true
    purposes = ["tax-registration"]

    [[cancelled]]
    names = ["曾用名证明", "注册资本"]
    basis = "某决定"
    source = "test"
    verified = false

    [[cancelled]]
    names = ["健在证明"]
    basis = "某通知"
    source = "test"
    verified = true
    purposes = ["account-opening"]
    """.encode()
)
FORM = Form(
    name="税务登记表",
    department=TAX,
    purpose="tax-registration",
    holder="ORGANISATION",
    region="330411",
    elements=(),
)
D, P = Kind.DATA, Kind.PROOF
AGREED = {("business-licence", "identity")}
ALLOWED = Code.PERMIT


def ask(
    name: str,
    kind: Kind = D,
    form: Form = FORM,
    providers: Mapping[str, Collection[Provider]] = PROVIDERS,
    agreed: Collection[tuple[str, str]] = AGREED,
) -> Answer:
    form = replace(form, elements=(Element(name=name, kind=kind),))
    (answer,) = check(form, PLACES, LISTS, offers(form, CATALOGUE, providers), agreed)
    return answer


def places(answer: Answer) -> set[str]:
    return {f"{one.place.item}.{one.place.section}.{one.place.field}" for one in answer.sources}


@pytest.mark.parametrize(
    ("name", "kind", "verdict", "code"),
    [
        ("企业名称", D, Verdict.ON_BUS, Code.ELEMENT_SHARED),  # by Chinese name
        ("KZ_JYFW", D, Verdict.ON_BUS, Code.ELEMENT_SHARED),  # by standard key
        ("business_scope", D, Verdict.ON_BUS, Code.ELEMENT_SHARED),  # by field
        ("\uff2b\uff3a\uff3fJYFW", D, Verdict.ON_BUS, Code.ELEMENT_SHARED),  # full-width letters
        ("kz_jyfw", D, Verdict.UNLISTED, ALLOWED),  # exact: another key
        ("business-licence", P, Verdict.ON_BUS, Code.ELEMENT_SHARED),  # a licence as a paper
        ("营业执照", P, Verdict.ON_BUS, Code.ELEMENT_SHARED),  # and though it is a kept proof: sharing comes first
        ("食品经营许可证", P, Verdict.UNLISTED, Code.PROOF_UNLISTED),  # in the catalogue, and nobody issues it here
        ("主体业态", D, Verdict.UNLISTED, ALLOWED),  # the same for data
        ("账号", D, Verdict.UNLISTED, ALLOWED),  # 不予共享: there and not to be had
        ("财务软件名称", D, Verdict.UNLISTED, ALLOWED),  # in no catalogue
        ("纳税人名称", D, Verdict.UNLISTED, ALLOWED),  # what the form's department issues itself begins here
        ("坐落", D, Verdict.ON_BUS, Code.ELEMENT_SHARED),  # its holders may be persons or firms
        ("场所使用证明", P, Verdict.KEPT, ALLOWED),
        ("场所使用证明", D, Verdict.KEPT, ALLOWED),
        ("无犯罪记录证明", P, Verdict.UNLISTED, Code.PROOF_UNLISTED),  # 清单之外无证明
        ("曾用名证明", P, Verdict.CANCELLED, Code.PROOF_CANCELLED),
        ("曾用名证明", D, Verdict.CANCELLED, Code.PROOF_CANCELLED),  # calling it data changes nothing
        ("注册资本", D, Verdict.CANCELLED, Code.PROOF_CANCELLED),  # cancelled comes before shared
        ("健在证明", P, Verdict.UNLISTED, Code.PROOF_UNLISTED),  # cancelled for another matter: on no list for this one
    ],
)
def test_each_rule_has_its_verdict(name: str, kind: Kind, verdict: Verdict, code: Code) -> None:
    answer = ask(name, kind)
    assert (answer.verdict, answer.code, answer.may_ask) == (verdict, code, code is ALLOWED)
    assert (answer.proof is not None) == (verdict in (Verdict.KEPT, Verdict.CANCELLED))


def test_a_proof_is_kept_for_its_matters_alone() -> None:
    """Not for another one, nor for the broader one that the matter lies inside of."""
    for purpose in ("account-opening", "business-establishment"):
        answer = ask("场所使用证明", P, replace(FORM, purpose=purpose))
        assert answer.code is Code.PROOF_UNLISTED


def test_a_name_with_several_meanings_gets_all_of_them() -> None:
    """证照持有主体 is in every item; a section that is not shared and an item that nobody issues are left out."""
    bank = replace(FORM, department=BANK)
    assert places(ask("CZZT", form=bank)) == {
        "business-licence.identity.name",
        "tax-registration.registration.name",
        "medical-device-ad-approval.approval.name",
    }
    assert places(ask("开户银行")) == {"bank-pre-account.reservation.bank_name"}  # the tax office's own is NONE
    assert places(ask("营业执照")) == {f"business-licence.{one}." for one in ("identity", "business", "representative")}


@pytest.mark.parametrize(
    ("name", "how", "share"),
    [
        ("企业名称", How.AGREED, ShareClass.CONDITIONAL),
        ("经营范围", How.APPLY, ShareClass.CONDITIONAL),  # the agreement is about another section
        ("产品名称", How.NOTHING, ShareClass.UNCONDITIONAL),
    ],
)
def test_an_answer_says_how_to_get_it(name: str, how: How, share: ShareClass) -> None:
    (source,) = ask(name).sources
    assert (source.how, source.place.share) == (how, share)


def test_only_who_provides_for_the_form_counts() -> None:
    """A provider of another division has nothing about the form's holders; one of a part has not all of them."""
    here, anywhere, province, abroad = (replace(FORM, region=one) for one in ("330411", "", "33", "440300"))
    licence = "business-licence"
    assert offers(here, CATALOGUE, PROVIDERS)[licence] == PROVIDERS[licence][:1]
    assert offers(anywhere, CATALOGUE, PROVIDERS)[licence] == PROVIDERS[licence]
    assert licence not in offers(province, CATALOGUE, PROVIDERS)
    assert licence not in offers(abroad, CATALOGUE, PROVIDERS)
    assert set(offers(replace(here, holder="PERSON"), CATALOGUE, PROVIDERS)) == {"real-estate-certificate"}
    assert licence not in offers(replace(here, department=MARKET), CATALOGUE, PROVIDERS)
    assert licence in offers(replace(here, department=OTHER), CATALOGUE, PROVIDERS)  # it issues elsewhere


ENTRY = '[[kept]]\nnames = ["a"]\nbasis = "b"\nsource = "c"\nverified = true\n'


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"[[kept]", "Expected"),
        (b"\xff", "utf-8"),
        (b"[[preserved]]\n", "preserved"),
        (ENTRY.replace("verified = true\n", "").encode(), "verified"),
        (ENTRY.replace("true", '"yes"').encode(), "bool"),
        (ENTRY.replace('["a"]', "[]").encode(), "length"),
        (ENTRY.replace('"a"', '""').encode(), "empty name"),
        (ENTRY.replace('"b"', '""').encode(), "length"),
        (ENTRY.encode() + b'purposes = ["tax"]\n', "unknown purpose tax"),
        (ENTRY.encode() + b'reason = "d"\n', "reason"),
    ],
)
def test_a_list_that_is_not_quite_one_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(Malformed, match=said) as refused:
        Proofs.parse(data)
    assert refused.value.code is Code.CONFIG_INVALID


def test_the_lists_that_come_with_the_software() -> None:
    """They load, contradict themselves nowhere, and each entry says where it was read."""
    shipped = Proofs.shipped()
    assert shipped.kept
    assert shipped.cancelled
    assert not shipped.kept.keys() & shipped.cancelled.keys()
    assert not (shipped.kept.keys() | shipped.cancelled.keys()) & PLACES.keys()


NAMES = st.sampled_from(sorted({*PLACES, *LISTS.kept, *LISTS.cancelled, "财务软件名称", "无犯罪记录证明"}))
FORMS = st.builds(
    Form,
    name=st.just("form"),
    department=st.sampled_from((MARKET, TAX, BANK, OTHER)),
    purpose=st.sampled_from(sorted(TREE)),
    holder=st.sampled_from(("PERSON", "ORGANISATION")),
    region=st.sampled_from(("", "33", "3304", "330411", "210600")),
    elements=st.lists(st.builds(Element, name=NAMES, kind=st.sampled_from(Kind)), max_size=6).map(tuple),
)
SOME = st.dictionaries(
    st.sampled_from(sorted(CATALOGUE.items)),
    st.lists(
        st.builds(
            Provider, department=st.sampled_from((MARKET, TAX, OTHER)), region=st.sampled_from(("", "33", "2106"))
        ),
        max_size=2,
    ),
)
PAIRS = st.sets(st.sampled_from([(i.name, s) for i in CATALOGUE.items.values() for s in i.sections]))


@given(FORMS, SOME, PAIRS)
def test_the_laws_of_every_answer(
    form: Form, providers: Mapping[str, Collection[Provider]], agreed: set[tuple[str, str]]
) -> None:
    """One answer an element, in order. What may be asked for is neither cancelled nor to be had, and a proof kept."""
    offered = offers(form, CATALOGUE, providers)
    answers = check(form, PLACES, LISTS, offered, agreed)
    assert [(one.element, one.kind) for one in answers] == [(one.name, one.kind) for one in form.elements]
    for one in answers:
        assert one.may_ask == (one.code is Code.PERMIT)
        if one.may_ask:
            assert not one.sources
            assert one.kind is D or one.verdict is Verdict.KEPT
        for source in one.sources:
            place = source.place
            assert CATALOGUE.items[place.item].sections[place.section].share is place.share is not ShareClass.NONE
            assert all(provider.department != form.department for provider in offered[place.item])
            assert (source.how is How.AGREED) <= ((place.item, place.section) in agreed)


@given(FORMS, SOME, PAIRS)
def test_agreements_never_change_what_may_be_asked_for(
    form: Form, providers: Mapping[str, Collection[Provider]], agreed: set[tuple[str, str]]
) -> None:
    """Nor does who provides make a refused element allowed: more sharing is less asking."""
    offered = offers(form, CATALOGUE, providers)
    may = [one.may_ask for one in check(form, PLACES, LISTS, offered, agreed)]
    assert may == [one.may_ask for one in check(form, PLACES, LISTS, offered, ())]
    without = [one.may_ask for one in check(form, PLACES, LISTS, (), agreed)]
    assert all(before or not now for before, now in zip(without, may, strict=True))


@given(FORMS)
def test_calling_it_a_proof_never_helps(form: Form) -> None:
    """A proof is refused wherever data is, and more often."""
    offered = offers(form, CATALOGUE, PROVIDERS)
    data, proofs = (
        check(
            replace(form, elements=tuple(replace(one, kind=kind) for one in form.elements)), PLACES, LISTS, offered, ()
        )
        for kind in (D, P)
    )
    assert all(d.may_ask or not p.may_ask for d, p in zip(data, proofs, strict=True))
