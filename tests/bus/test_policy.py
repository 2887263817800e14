"""Policies: the standard's example decides as it says, and every line that is not one is named by its number."""

from __future__ import annotations

from itertools import product

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bus.tlog.note import Algorithm, NoteSigner, Verifier
from bus.tlog.policy import Policy, parse, satisfied
from schemas.errors import Code, Misuse


def _key(name: str, seed: int, algorithm: Algorithm = Algorithm.COSIGNATURE_V1) -> Verifier:
    return NoteSigner(name, Ed25519PrivateKey.from_private_bytes(bytes([seed] * 32)), algorithm).verifier


NAMES = ("X1", "X2", "X3", "Y1", "Y2", "Y3")
WITNESSES = {name: _key(f"example.com/{name}", seed) for seed, name in enumerate(NAMES, 1)}
LOG = _key("example.com/log", 99, Algorithm.ED25519)
LINES = "".join(f"witness {name} {key.vkey}\n" for name, key in WITNESSES.items())
# tlog-policy.md, "Example policy", with blanks, a comment and URLs where they may stand.
EXAMPLE = f"""log {LOG.vkey} https://log.example.com/
 # 见证方

witness\tX1  {WITNESSES["X1"].vkey} http://127.0.0.1:7380 \t
witness X2 {WITNESSES["X2"].vkey}
witness X3 {WITNESSES["X3"].vkey}
group X-witnesses 2 X1 X2 X3

witness Y1 {WITNESSES["Y1"].vkey}
witness Y2 {WITNESSES["Y2"].vkey}
witness Y3 {WITNESSES["Y3"].vkey}
group Y-witnesses any Y1 Y2 Y3

group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
"""


def test_the_standards_example() -> None:
    policy = parse(EXAMPLE.encode())
    assert [(log.verifier, log.url) for log in policy.logs] == [(LOG, "https://log.example.com/")]
    assert [one.url for one in policy.witnesses] == ["http://127.0.0.1:7380", *[""] * 5]
    for there in product((False, True), repeat=6):
        cosigners = {WITNESSES[name] for name, is_there in zip(NAMES, there, strict=True) if is_there}
        assert satisfied(policy, cosigners | {LOG}) == (sum(there[:3]) >= 2 and any(there[3:]))


def test_a_quorum_is_a_witness_or_none() -> None:
    one = parse((LINES + "quorum Y2\n").encode())
    assert satisfied(one, [WITNESSES["Y2"]])
    assert not satisfied(one, [WITNESSES["Y1"], _key("example.com/Y2", 50)])
    assert satisfied(parse(b"quorum none\n"), [])
    assert parse(b"quorum none\n") == Policy()


def test_names_are_bytes_and_nothing_is_read_into_them() -> None:
    kelvin = "\N{KELVIN SIGN}"
    text = LINES.replace("witness X1", "witness K").replace("witness X2", f"witness {kelvin}")
    policy = parse(f"{text}quorum {kelvin}\n".encode())
    assert satisfied(policy, [WITNESSES["X2"]])
    assert not satisfied(policy, [WITNESSES["X1"]])
    latin = LINES.encode().replace(b"witness X1", b"witness \xff") + b"quorum \xff\n"
    assert satisfied(parse(latin), [WITNESSES["X1"]])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("wtiness Z a", "begins with none"),
        ("witness Z", "`witness <name> <vkey> [<url>]`"),
        ("log", "`log <vkey> [<url>]`"),
        (f"witness Z {LOG.vkey}", "signature type 0x04, not 0x01"),
        (f"log {_key('l', 40).vkey}", "signature type 0x01, not 0x04"),
        (f"witness Z {_key('other.name', 1).vkey}", "same witness's key"),
        (f"witness X1 {_key('z', 41).vkey}", "taken"),
        (f"witness none {_key('z', 41).vkey}", "taken"),
        (f"witness Z {_key('z', 41).vkey[:-1]}", "base64"),
        ("group G all", "`group <name> all|any|<k> <name>...`"),
        ("group G all none", "none is not defined"),
        ("group G all X1 X1", "in a group already"),
        ("group G all G", "G is not defined"),
        ("group G 3 X1 X2", "3 of 2"),
        ("group G 0 X1", "a number from 1"),
        ("group G 01 X1", "a number from 1"),
        ("quorum nobody", "nobody is not defined"),
        ("quorum X1 X2", "`quorum <name>`"),
        ("quorum X1\r", "control character"),
        ("quorum\u00a0X1", "begins with none"),
    ],
)
def test_a_bad_line_is_named_by_its_number(line: str, said: str) -> None:
    with pytest.raises(Misuse) as refused:
        parse(f"{LINES}{line}\nquorum none\n".encode())
    assert refused.value.code is Code.CONFIG_INVALID
    assert refused.value.detail.startswith("policy line 7: ")
    assert said in refused.value.detail


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no quorum line"),
        (b"quorum none", "line 1 does not end"),
        (b"quorum none\nquorum none\n", "line 2: there is a quorum line already"),
        (b"#" * 70_000, "at most"),
        (f"log {LOG.vkey}\nlog {_key('moved.log', 99, Algorithm.ED25519).vkey}\n".encode(), "line 2: a line before"),
        (f"{LINES}group A any X1\ngroup B any X1\nquorum B\n".encode(), "line 8: X1 is in a group already"),
    ],
)
def test_a_bad_file_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(Misuse, match=said):
        parse(data)
