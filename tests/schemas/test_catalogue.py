"""The catalogue: what each item promises, and what its validation refuses."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from schemas.catalogue import Catalogue, Item, ShareClass
from schemas.errors import Code, Malformed, Refused
from schemas.item import ItemSchema

CATALOGUE = Catalogue.load()
ITEMS = Path(__file__).parent.parent.parent / "schemas" / "items"

# Synthetic: the reserved area prefix 999999, and the invented firm and departments of the identifiers' vectors.
FIRM = "91330411MA2B00019F"
DEPARTMENT = "11330411MB2A00011E"
PERSON = "999999199001010016"
LICENCE = "1.2.156.3005.2.11100000MB0143028R001.11330411MB2A00011E.2026000001.001.U"
DAY = date(2026, 3, 1)
HOLDER = {"name": "秀洲测试有限公司", "uscc": FIRM}
COMPLETE: dict[str, dict[str, Any]] = {
    "business-licence": {
        **HOLDER,
        "licence_identifier": LICENCE,
        "type_code": "11100000MB0143028R001",
        "issuer_code": DEPARTMENT,
        "established_on": DAY,
        "registered_capital": Decimal("26270000.50"),
        "capital_currency": "CNY",
        "region": "330411",
        "legal_representative": "张三",
        "representative_id": PERSON,
    },
    "seal-registration": {
        **HOLDER,
        "issued_on": DAY,
        "region": "330411",
        "seal_code": "3304110000001",
        "seal_name": "秀洲测试有限公司",
        "seal_type": "OFFICIAL",
    },
    "tax-registration": {
        **HOLDER,
        "issued_on": DAY,
        "region": "330411",
        "taxpayer_kind": "SMALL_SCALE",
        "taxes": ["增值税"],
    },
    "social-insurance-registration": {**HOLDER, "issued_on": DAY, "pool_region": "330400", "kinds": ["PENSION"]},
    "bank-pre-account": {
        **HOLDER,
        "issued_on": DAY,
        "region": "330411",
        "bank_name": "测试银行",
        "bank_code": "999999999999",
        "reservation_number": "Y1",
        "account_kind": "BASIC",
        "currency": "CNY",
    },
    "food-business-permit": {
        **HOLDER,
        "licence_number": "JY13304110000001",
        "issued_on": DAY,
        "valid_until": date(2031, 2, 28),
        "region": "330411",
        "premises": "秀洲区",
        "business_form": "餐饮服务经营者",
        "food_items": ["热食类食品制售"],
        "inspectors": [],
    },
    "real-estate-certificate": {
        "licence_number": "浙(2026)嘉兴不动产权第0000001号",
        "issued_on": DAY,
        "region": "330411",
        "unit_number": "330411001001GB00001F00010001",
        "location": "秀洲区",
        "right_kind": "国有建设用地使用权/房屋所有权",
        "area": Decimal("89.50"),
        "co_ownership": "SHARES",
        "owners": [
            {"name": "张三", "id_number": PERSON, "id_type": "111", "share": "1/3"},
            {"name": HOLDER["name"], "id_number": FIRM, "id_type": "001", "share": "1/3"},
            {"name": "DOE", "id_number": "E12345678", "id_type": "414", "share": None},
        ],
    },
    "medical-device-ad-approval": {
        **HOLDER,
        "licence_number": "浙械广审(文)第260101-00001号",
        "issued_on": DAY,
        "valid_until": date(2027, 1, 1),
        "region": "330000",
        "product_name": "测试仪",
        "device_registration": "浙械注准20262000001",
        "medium": "TEXT",
    },
}


# Element names of GB/T 36903 that the items use; what a licence's face has beside them begins with KZ_.
STANDARD_KEYS = {
    *("ZZMC", "ZZLXDM", "ZZBH", "ZZBS", "ZZBFJG", "ZZBFJGDM", "ZZBFRQ", "CZZT", "CZZTDM", "CZZTDMLXDM"),
    *("ZZYXQQSRQ", "ZZYXQJZRQ"),
}
ORGANISATIONS = {"001", "099"}
PERSONS = {"111", "114", "115", "118", "119", "120", "122", "411", "412", "413", "414", "511", "516", "999"}


def _item(name: str) -> Item:
    return CATALOGUE.item(name)


def _refusal(item: str, **changes: Any) -> Malformed:
    with pytest.raises(Malformed) as raised:
        _item(item).validate({**COMPLETE[item], **changes})
    return raised.value


@pytest.mark.parametrize("name", list(CATALOGUE.items))
def test_complete_record_is_valid_and_comes_back_from_its_sections(name: str) -> None:
    item = _item(name)
    values = COMPLETE[name]
    item.validate(values)
    encoded = item.schema.encode(values)
    assert list(encoded) == list(item.sections)
    decoded: dict[str, Any] = {}
    for section, data in encoded.items():
        decoded |= item.schema.codecs[section].decode(data)
    assert decoded == {field: values.get(field) for field in item.schema.fields}


@pytest.mark.parametrize("name", list(CATALOGUE.items))
def test_item_carries_what_the_standards_ask(name: str) -> None:
    item = _item(name)
    assert item.topic == f"licence.{name}"
    keys = {field.key for field in item.schema.fields.values()}
    assert {"ZZMC", "ZZLXDM", "ZZBH", "ZZBS", "ZZBFJG", "ZZBFJGDM", "ZZBFRQ"} <= keys
    assert len(keys) == len(item.schema.fields)
    for field in item.schema.fields.values():
        assert field.sensitivity in {"L1", "L2", "L3", "L4"}
        assert field.zh
        assert field.key
        if field.sensitivity == "L4":  # a citizen number stands only where consent is asked separately
            assert item.sections[field.section].sensitive


@pytest.mark.parametrize("name", list(CATALOGUE.items))
def test_every_field_is_described_as_the_standards_do(name: str) -> None:
    """English and Chinese name, a key of GB/T 36903 or KZ_ for the face's own, section, sensitivity: nested, too."""
    document = json.loads(_item(name).schema.document)
    assert document["doc"] == _item(name).zh
    nested = [field for outer in document["fields"] for field in _nested(outer["type"])]
    for field in [*document["fields"], *nested]:
        assert re.fullmatch(r"[a-z][a-z_]*", field["name"])
        assert re.search(r"[\u4e00-\u9fff]", field["zh"])
        assert field["key"] in STANDARD_KEYS or re.fullmatch(r"KZ_[A-Z]+", field["key"])
        assert field["sensitivity"] in {"L1", "L2", "L3", "L4"}
        assert ("section" in field) == (field in document["fields"])
    keys = [field["key"] for field in [*document["fields"], *nested]]
    assert len(set(keys)) == len(keys)
    assert {"CZZT", "CZZTDM"} <= set(keys)


@pytest.mark.parametrize("name", list(CATALOGUE.items))
def test_identifiers_are_checked_where_they_stand(name: str) -> None:
    """Credit codes, citizen numbers, divisions and licence identifiers by their kind; who they are about by L4."""
    for field in _item(name).schema.fields.values():
        expected = {"ZZBS": "licence", "ZZBFJGDM": "uscc", "CZZTDM": "uscc"}.get(field.key)
        if field.key.endswith("ZJHM"):
            expected = "citizen"
            assert field.sensitivity == "L4"
        elif field.key in ("KZ_XZQHDM", "KZ_TCQDM"):
            expected = "division"
        elif field.key.endswith("DWDM"):
            expected = "uscc"
        assert field.identifier == expected, field.name


@pytest.mark.parametrize("name", list(CATALOGUE.items))
def test_what_reaches_a_person_needs_the_separate_consent(name: str) -> None:
    """Names, numbers and phones of handlers, officers and owners stand in sensitive sections."""
    item = _item(name)
    for field in item.schema.fields.values():
        section = item.sections[field.section]
        if re.search(r"(ZJHM|XM|RDH|FDDBR|GYQK|QLR)$", field.key) and field.key not in ("KZ_CBXZ", "KZ_JYXM"):
            assert section.sensitive, field.name
        if section.sensitive:
            assert section.share is ShareClass.CONDITIONAL


@pytest.mark.parametrize("id_type", sorted(ORGANISATIONS | PERSONS))
def test_id_types_are_those_of_the_standard(id_type: str) -> None:
    """持证主体代码类型代码, GB/T 36903 annex A: sixteen, two of them of organisations."""
    number = {"001": FIRM, "111": PERSON}.get(id_type, "E12345678")
    item = _item("real-estate-certificate")
    owner = {"name": "某", "id_number": number, "id_type": id_type, "share": None}
    values = {**COMPLETE[item.name], "owners": [owner]}
    item.validate(values)
    ((_, kind, canonical),) = item.subjects(values)
    assert kind == ("ORGANISATION" if id_type in ORGANISATIONS else "PERSON")
    assert canonical == (number if id_type in ("001", "111") else f"{id_type} {number}")


@pytest.mark.parametrize(
    ("name", "code", "is_sound"),
    [
        ("business-licence", "11100000MB0143028R001", True),
        ("business-licence", "11100000MB0143028R002", False),
        ("real-estate-certificate", "11100000MB03271699001", True),
        ("real-estate-certificate", "11100000MB03271699022", False),
        ("seal-registration", "11100000000013338W011", True),
        ("seal-registration", "11100000000013338W", False),
        ("seal-registration", "营业执照", False),
    ],
)
def test_a_type_code_is_the_items(name: str, code: str, is_sound: bool) -> None:
    """Without a licence identifier that it could differ from, too."""
    values = {**COMPLETE[name], "licence_identifier": None, "type_code": code}
    if is_sound:
        _item(name).validate(values)
        return
    with pytest.raises(Malformed) as refused:
        _item(name).validate(values)
    assert refused.value.code is Code.VALUE_INVALID
    assert "type_code" in refused.value.detail


def _nested(node: Any) -> list[dict[str, Any]]:
    if isinstance(node, list):
        return [field for part in node for field in _nested(part)]
    if not isinstance(node, dict):
        return []
    fields: list[dict[str, Any]] = node.get("fields", [])
    return fields + _nested(node.get("items"))


def test_catalogue_has_the_eight_items() -> None:
    assert set(CATALOGUE.items) == set(COMPLETE)
    licence = _item("business-licence")
    assert len(licence.schema.fields) == 21
    assert licence.schema.sections == ("identity", "business", "representative")
    assert {section.share for section in licence.sections.values()} == {ShareClass.CONDITIONAL}
    assert {item.type_code for item in CATALOGUE.items.values()} == {
        None,
        "11100000MB0143028R001",
        "11100000MB03271699001",
    }


def test_unknown_item_is_refused() -> None:
    with pytest.raises(Refused) as raised:
        CATALOGUE.item("driving-licence")
    assert raised.value.code is Code.ITEM_UNKNOWN


def test_lacking_export_columns_are_no_fault() -> None:
    _item("business-licence").validate({**HOLDER, "established_on": DAY, "region": "330400"})


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("name", None, Code.VALUE_INVALID),
        ("name", 7, Code.VALUE_INVALID),
        ("established_on", datetime(2026, 3, 1, tzinfo=UTC), Code.VALUE_INVALID),
        ("established_on", "2026-03-01", Code.VALUE_INVALID),
        ("registered_capital", 26270000.5, Code.VALUE_INVALID),
        ("registered_capital", True, Code.VALUE_INVALID),
        ("uscc", FIRM.lower(), Code.USCC_FORM),
        ("uscc", "91110000600037342L", Code.USCC_CHECK),
        ("uscc", "11320800MB0000001R", Code.USCC_ORG_CHECK),
        ("representative_id", "110105194912310021", Code.CITIZEN_CHECK),
        ("region", "990000", Code.REGION_UNKNOWN),
        ("region", "", Code.REGION_UNKNOWN),
        ("licence_identifier", LICENCE[:-1] + "A", Code.LICENCE_ID_CHECK),
        ("type_code", "11100000MB03271699001", Code.VALUE_INVALID),
        ("issuer_code", "1132080001400001X7", Code.VALUE_INVALID),
    ],
)
def test_refusal_names_the_field_and_not_the_value(field: str, value: object, code: Code) -> None:
    refused = _refusal("business-licence", **{field: value})
    assert refused.code is code
    assert field in refused.detail
    assert not value or str(value) not in refused.detail


def test_term_ends_after_it_begins() -> None:
    refused = _refusal("business-licence", valid_from=DAY, valid_until=date(2026, 2, 28))
    assert (refused.code, "valid_until" in refused.detail) == (Code.VALUE_INVALID, True)


@pytest.mark.parametrize("number", ["", "JY1\n", "JY1\x00", "e\N{COMBINING ACUTE ACCENT}"])
def test_identifying_field_is_printable_nfc(number: str) -> None:
    assert "licence_number" in _refusal("food-business-permit", licence_number=number).detail


def test_identity_is_in_the_catalogues_order() -> None:
    assert _item("seal-registration").identify(COMPLETE["seal-registration"]) == (FIRM, "3304110000001")
    with pytest.raises(Malformed):
        _item("seal-registration").identify({"uscc": FIRM})


def test_subjects_of_a_firm_and_its_representative() -> None:
    item = _item("business-licence")
    values = COMPLETE["business-licence"]
    holder = ("HOLDER", "ORGANISATION", FIRM)
    assert item.subjects(values) == [holder, ("REPRESENTATIVE", "PERSON", PERSON)]
    assert item.subjects({**values, "representative_id": None}) == [holder]


def test_every_co_owner_is_a_subject_once() -> None:
    values = COMPLETE["real-estate-certificate"]
    expected = [
        ("HOLDER", "PERSON", PERSON),
        ("CO_HOLDER", "ORGANISATION", FIRM),
        ("CO_HOLDER", "PERSON", "414 E12345678"),
    ]
    item = _item("real-estate-certificate")
    assert item.subjects(values) == expected
    assert item.subjects({**values, "owners": values["owners"] * 2}) == expected


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"id_number": "999999199001010017"}, Code.CITIZEN_CHECK),
        ({"id_type": "001"}, Code.USCC_CHECK),
        ({"id_type": "000"}, Code.VALUE_INVALID),
        ({"id_type": "414", "id_number": "e 1"}, Code.VALUE_INVALID),
        ({"id_number": None}, Code.VALUE_INVALID),
    ],
)
def test_owner_without_a_sound_id_is_refused(change: dict[str, Any], code: Code) -> None:
    owner = {"name": "张三", "id_number": PERSON, "id_type": "111", "share": None}
    refused = _refusal("real-estate-certificate", owners=[{**owner, **change}])
    assert refused.code is code
    assert PERSON not in refused.detail


def test_certificate_without_owner_is_refused() -> None:
    assert _refusal("real-estate-certificate", owners=[]).code is Code.VALUE_INVALID


def test_older_version_stays_readable(tmp_path: Path) -> None:
    items = shutil.copytree(ITEMS, tmp_path / "items")
    old = (items / "tax-registration.1.avsc").read_bytes()
    (items / "tax-registration.2.avsc").write_bytes(old.replace(b"\xe7\xa8\x8e\xe7\xa7\x8d", b"\xe7\xa8\x8e"))
    item = Catalogue.read(items).item("tax-registration")
    first = _item("tax-registration").schema.digest
    assert set(item.schemas) == {first, item.schema.digest}
    assert item.schema.digest != first


def _without(line: str) -> Callable[[str], str]:
    return lambda text: "\n".join(one for one in text.splitlines() if not one.startswith(line))


@pytest.mark.parametrize(
    "change",
    [
        _without("identifying"),
        _without("zh"),
        _without("conditions"),
        lambda text: text.replace("[sections.taxation]", "[sections.other]"),
        lambda text: text.replace('"CONDITIONAL"', '"MAYBE"'),
        lambda text: text.replace('identifying = ["uscc"]', 'identifying = ["taxes"]'),
        lambda text: text.replace('role = "HOLDER"', 'role = "REPRESENTATIVE"'),
        lambda text: "surplus = 1\n" + text,
        lambda text: text + "[",
    ],
)
def test_item_with_a_wrong_layout_is_refused(tmp_path: Path, change: Callable[[str], str]) -> None:
    items = shutil.copytree(ITEMS, tmp_path / "items")
    facts = items / "tax-registration.toml"
    facts.write_text(change(facts.read_text("utf-8")), "utf-8")
    with pytest.raises(Malformed) as raised:
        Catalogue.read(items)
    assert raised.value.code is Code.CONFIG_INVALID
    assert "tax-registration" in raised.value.detail


@pytest.mark.parametrize(
    ("marked", "code"),
    [
        ("STATE", Code.FIELD_SECRET),
        ("WORK", Code.FIELD_SECRET),
        ("state", Code.CONFIG_INVALID),
        ("", Code.CONFIG_INVALID),
    ],
)
def test_a_secret_field_is_refused_wherever_it_stands(marked: str, code: Code) -> None:
    """Of the document itself, or of a record inside of an array."""
    inner = {"name": "note", "type": "string", "secrecy": marked}
    nested = {"type": "array", "items": {"type": "record", "name": "Entry", "fields": [inner]}}
    for field in (inner | {"section": "a"}, {"name": "entries", "section": "a", "type": nested}):
        document = {"type": "record", "name": "X", "namespace": "x", "fields": [field]}
        with pytest.raises(Malformed) as raised:
            ItemSchema.parse(json.dumps(document).encode())
        assert raised.value.code is code
        assert "note" in raised.value.detail


def test_values_of_the_catalogue_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        _item("business-licence").zh = "其他"  # type: ignore[misc]
