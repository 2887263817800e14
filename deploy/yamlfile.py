"""Files that people write in YAML: cases and changes of rules."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from schemas.errors import Code, Misuse

MAX_FILE_BYTES = 1024 * 1024  # people write these files; a thousand cases have 400 KiB


def read_yaml(file: Path) -> Any:
    """A file of YAML, or of JSON, which is YAML. Raises `Misuse` (CONFIG_INVALID)."""
    try:
        data = file.read_bytes()
    except OSError as exc:
        raise Misuse(Code.CONFIG_INVALID, f"{file}: {exc.strerror}") from exc
    if len(data) > MAX_FILE_BYTES:
        raise Misuse(Code.CONFIG_INVALID, f"{file}: over {MAX_FILE_BYTES} bytes; divide it")
    try:
        return yaml.load(data.decode(), _Loader)  # noqa: S506  # it is a SafeLoader
    except Exception as exc:  # YAML's own, and whatever a tag's value met: AttributeError, IndexError, KeyError, ...
        raise Misuse(Code.CONFIG_INVALID, f"{file} is no YAML: {' '.join(str(exc).split())}") from exc


class _Loader(yaml.SafeLoader):
    """YAML's own reader takes the last of two equal keys without a word, and builds what holds itself."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """No aliases: a few lines of them stand for more than any memory holds."""
        if self.check_event(yaml.AliasEvent):
            mark = self.get_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "no aliases here: write it twice", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping whose keys are each there once."""
        made = super().construct_mapping(node, deep)
        if len(made) < len(node.value):
            raise yaml.constructor.ConstructorError(None, None, "a key comes twice", node.start_mark)
        return made
