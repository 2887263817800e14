"""A form as a request has it, and the lists of proofs that a bus has of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bus.gateway.collections import MAX_ELEMENTS, CollectionBody, form_of
from consent.collections import Element, Kind, Proofs
from deploy.bootstrap import Bus
from schemas.errors import Code, Malformed, Refused

TAX = "12350600400000018P"
FORM = {"form": "税务登记表", "purpose": "tax-registration", "holder": "ORGANISATION", "region": "330411"}
LISTS = """
[[kept]]
names = ["场所证明"]
basis = "a"
source = "b"
verified = true
"""


def test_a_form_is_whose_request_it_is() -> None:
    """Data first, then proofs, each in its order."""
    form = form_of(TAX, CollectionBody(**FORM, proofs=["p"], elements=["b", "a"]))
    assert (form.department, form.name, form.region) == (TAX, "税务登记表", "330411")
    assert form.elements == (
        Element(name="b", kind=Kind.DATA),
        Element(name="a", kind=Kind.DATA),
        Element(name="p", kind=Kind.PROOF),
    )


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({}, Code.REQUEST_TOO_LARGE),
        ({"elements": [f"e{one}" for one in range(MAX_ELEMENTS)], "proofs": ["p"]}, Code.REQUEST_TOO_LARGE),
        ({"elements": ["a", "\uff41"]}, Code.REQUEST_MALFORMED),
        ({"elements": ["a"], "proofs": ["a"]}, Code.REQUEST_MALFORMED),
        ({"elements": [""]}, Code.REQUEST_MALFORMED),
        ({"elements": ["长" * 101]}, Code.REQUEST_MALFORMED),
        ({"elements": ["a\n"]}, Code.REQUEST_MALFORMED),
        ({"elements": ["a"], "form": ""}, Code.REQUEST_MALFORMED),
        ({"elements": ["a"], "purpose": "curiosity"}, Code.REQUEST_MALFORMED),
        ({"elements": ["a"], "holder": "FIRM"}, Code.REQUEST_MALFORMED),
        ({"elements": ["a"], "region": "330"}, Code.REGION_UNKNOWN),
        ({"elements": ["a"], "region": "٣٣"}, Code.REGION_UNKNOWN),
        ({"elements": ["证明 11010519491231002X"]}, Code.PERSONAL_ID),
    ],
)
def test_what_is_no_form_is_refused(changed: dict[str, Any], code: Code) -> None:
    with pytest.raises((Malformed, Refused)) as refused:
        form_of(TAX, CollectionBody(**{**FORM, **changed}))
    assert refused.value.code is code


def test_a_bus_has_lists_of_its_own(tmp_path: Path) -> None:
    """They count instead of those that come with the software; a file that is not quite one stops the gateway."""
    bus = Bus(folder=tmp_path, origin="o", operator="p", region="33")
    assert bus.proofs() is Proofs.shipped()
    (tmp_path / "proofs.toml").write_text(LISTS, "utf-8")
    assert set(bus.proofs().kept) == {"场所证明"}
    assert not bus.proofs().cancelled
    (tmp_path / "proofs.toml").write_bytes(b"[[keeped]]")
    with pytest.raises(Malformed, match="keeped"):
        bus.proofs()
