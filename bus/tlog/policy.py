"""Whom to believe: the logs, the witnesses (见证方), and how many of them it takes (C2SP tlog-policy).

A file of lines, which verifiers of other projects read as well::

    log <vkey> [<url>]
    witness <name> <vkey> [<url>]
    group <name> all|any|<k> <name>...
    quorum <name>|none
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from bus.tlog.note import Algorithm, Verifier
from schemas.errors import Code, Malformed, Misuse

MAX_BYTES = 64 * 1024  # the standard asks for 32 logs, witnesses and groups at least
NONE = "none"

_BLANKS = re.compile("[ \t]+")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
_THRESHOLD = re.compile("[1-9][0-9]{0,3}")


@dataclass(frozen=True, slots=True)
class Log:
    """A log whose checkpoints count. `url` is where it is read, empty if the file does not say."""

    verifier: Verifier
    url: str = ""


@dataclass(frozen=True, slots=True)
class Witness:
    """A witness by the name that the quorum knows. `url` is what `add-checkpoint` stands behind, empty if not said."""

    name: str
    verifier: Verifier
    url: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Witnesses or groups defined before it, of which `threshold` must have cosigned."""

    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy, its lines in the file's order. `quorum` is a witness's or a group's name, or `none`."""

    logs: tuple[Log, ...] = ()
    witnesses: tuple[Witness, ...] = ()
    groups: tuple[Group, ...] = ()
    quorum: str = NONE


def satisfied(policy: Policy, cosigners: Collection[Verifier]) -> bool:
    """Whether the quorum is among the keys that have signed: `bus.tlog.note.verified`'s answer."""
    if policy.quorum == NONE:
        return True
    there = {witness.name for witness in policy.witnesses if witness.verifier in cosigners}
    for group in policy.groups:  # a group's members are defined before it
        if sum(member in there for member in group.members) >= group.threshold:
            there.add(group.name)
    return policy.quorum in there


def parse(data: bytes) -> Policy:
    """A policy from a file's bytes. Raises `Misuse` (CONFIG_INVALID) with the line's number and what is wrong there.

    Bytes above ASCII are opaque, as the standard has it: no name equals another by looking like it.
    """
    if len(data) > MAX_BYTES:
        raise Misuse(Code.CONFIG_INVALID, f"a policy has at most {MAX_BYTES} bytes")
    *lines, rest = data.decode("utf-8", "surrogateescape").split("\n")
    if rest:
        raise Misuse(Code.CONFIG_INVALID, f"policy line {len(lines) + 1} does not end in a newline: is the file whole?")
    read = _Reader()
    for number, line in enumerate(lines, 1):
        try:
            read.line(line)
        except Malformed as exc:
            raise Misuse(Code.CONFIG_INVALID, f"policy line {number}: {exc.detail}") from exc
    if read.quorum is None:
        raise Misuse(Code.CONFIG_INVALID, "the policy has no quorum line: say `quorum none` to ask for no witness")
    return Policy(tuple(read.logs), tuple(read.witnesses), tuple(read.groups), read.quorum)


@dataclass(slots=True)
class _Reader:
    """What the lines so far have defined. A bad line raises `Malformed`; the caller knows its number."""

    logs: list[Log] = field(default_factory=list)
    witnesses: list[Witness] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    quorum: str | None = None
    free: dict[str, bool] = field(default_factory=dict)  # the names defined, and whether no group has them yet

    def line(self, line: str) -> None:
        if _CONTROL.search(line):
            raise _wrong("it has a control character")
        words = _BLANKS.split(line.strip(" \t"))
        if not words[0] or words[0].startswith("#"):
            return
        kinds: dict[str, Callable[[list[str]], None]] = {
            "log": self._log,
            "witness": self._witness,
            "group": self._group,
            "quorum": self._quorum,
        }
        if words[0] not in kinds:
            raise _wrong("it begins with none of log, witness, group, quorum")
        kinds[words[0]](words[1:])

    def _log(self, words: list[str]) -> None:
        if len(words) not in (1, 2):
            raise _wrong("a log is `log <vkey> [<url>]`")
        verifier = _key(words[0], Algorithm.ED25519, "a log")
        if any(verifier.key == one.verifier.key for one in self.logs):
            raise _wrong("a line before has the same log's key")
        self.logs.append(Log(verifier, *words[1:]))

    def _witness(self, words: list[str]) -> None:
        if len(words) not in (2, 3):
            raise _wrong("a witness is `witness <name> <vkey> [<url>]`")
        verifier = _key(words[1], Algorithm.COSIGNATURE_V1, "a witness")
        if any(verifier.key == one.verifier.key for one in self.witnesses):
            raise _wrong("a line before has the same witness's key")
        self._define(words[0])
        self.witnesses.append(Witness(words[0], verifier, *words[2:]))

    def _group(self, words: list[str]) -> None:
        if len(words) < 3:
            raise _wrong("a group is `group <name> all|any|<k> <name>...`")
        name, said, *members = words
        for member in members:
            if member not in self.free:
                raise _wrong(f"{_shown(member)} is not defined on a line before")
            if not self.free[member]:
                raise _wrong(f"{_shown(member)} is in a group already: a witness counts in one way")
            self.free[member] = False
        if said not in ("all", "any") and not _THRESHOLD.fullmatch(said):
            raise _wrong("how many is `all`, `any` or a number from 1")
        threshold = len(members) if said == "all" else 1 if said == "any" else int(said)
        if threshold > len(members):
            raise _wrong(f"{threshold} of {len(members)} can never be there")
        self._define(name)
        self.groups.append(Group(name, threshold, tuple(members)))

    def _quorum(self, words: list[str]) -> None:
        if len(words) != 1:
            raise _wrong("a quorum is `quorum <name>`")
        if self.quorum is not None:
            raise _wrong("there is a quorum line already")
        if words[0] != NONE and words[0] not in self.free:
            raise _wrong(f"{_shown(words[0])} is not defined on a line before")
        self.quorum = words[0]

    def _define(self, name: str) -> None:
        if name == NONE or name in self.free:
            raise _wrong(f"the name {_shown(name)} is taken")
        self.free[name] = True


def _key(text: str, algorithm: Algorithm, whose: str) -> Verifier:
    verifier = Verifier.from_vkey(text)
    if verifier.algorithm is not algorithm:
        raise _wrong(f"{whose}'s key has signature type {algorithm:#04x}, not {verifier.algorithm:#04x}")
    return verifier


def _shown(name: str) -> str:
    """A name may hold any bytes; an error is text."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")[:80]


def _wrong(detail: str) -> Malformed:
    return Malformed(Code.CONFIG_INVALID, detail)
