"""The READMEs: their commands run as they stand, and the two editions say the same."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi.routing import APIRoute

from bus.gateway.app import create_app
from bus.gateway.keyring import Keyring
from bus.gateway.master import Master
from bus.gateway.service import Gateway
from bus.pki import Role
from bus.transport import Cluster
from schemas.catalogue import Catalogue
from tests.vectors import world

ROOT = Path(__file__).parents[2]
ENGLISH = (ROOT / "README.md").read_text("utf-8")
CHINESE = (ROOT / "README.zh-CN.md").read_text("utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
RUN_SECONDS = 400  # some 100 s on two idle cores; more is a command that hangs
# What a newcomer's machine gets; the test that runs this runs in it already.
SETUP = ("make ", ". .venv/bin/activate")


def test_the_editions_have_the_same_headings_and_code() -> None:
    """The Chinese edition follows the English one: the same structure, the same code to the letter."""
    levels = [len(mark) for mark in re.findall(r"^(#+) ", BLOCK.sub("", ENGLISH), re.MULTILINE)]
    assert levels == [len(mark) for mark in re.findall(r"^(#+) ", BLOCK.sub("", CHINESE), re.MULTILINE)]
    blocks = [(kind, _code(text)) for kind, text in BLOCK.findall(ENGLISH) if kind != "mermaid"]
    assert blocks == [(kind, _code(text)) for kind, text in BLOCK.findall(CHINESE) if kind != "mermaid"]
    assert blocks
    links = re.findall(r"\]\(([^)]+)\)", ENGLISH)
    assert {link for link in links if "README" not in link} == {
        link for link in re.findall(r"\]\(([^)]+)\)", CHINESE) if "README" not in link
    }


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^):#]+)\)", ENGLISH + CHINESE))))
def test_every_link_leads_somewhere(link: str) -> None:
    """No dead link inside the repository."""
    assert (ROOT / link).exists()


def test_the_commands_run_as_they_stand(tmp_path: Path) -> None:
    """A reader who types every block in order sees what the page says."""
    script = ["set -euo pipefail"]
    for number, (kind, text) in enumerate(BLOCK.findall(ENGLISH)):
        if kind == "python":
            (tmp_path / f"block-{number}.py").write_text(text, "utf-8")
            script.append(f"python block-{number}.py")
        elif kind == "sh":
            script += [line for line in text.splitlines() if not line.startswith(SETUP)]
    for folder in ("deploy", "adapters"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    tools = Path(sys.executable).parent
    environment = {name: value for name, value in os.environ.items() if name != "DEPTBUS_HOME"}
    environment |= {"PATH": f"{tools}:{environment['PATH']}", "PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run(
            ["bash"],
            input="\n".join(script),
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
    finally:
        # The script's last command stops the stack; a script that failed half-way left it running.
        subprocess.run([tools / "deptbus", "down"], cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    said = done.stdout
    assert "refused: no consent" in said
    assert "refused: withdrawn" in said
    assert "refused: asks for what is there" in said
    assert "Genuine" in said
    assert "辉恒示范有限公司" in said
    assert '"published": 1916' in (tmp_path / "result.json").read_text("utf-8")
    shutil.rmtree(tmp_path / ".deptbus", ignore_errors=True)


def _code(text: str) -> str:
    """A block without its comments: those are translated."""
    return re.sub(r"(^|\s)#.*$|\"\"\".*?\"\"\"", "", text, flags=re.MULTILINE)


def test_the_page_for_http_lists_every_route(tmp_path: Path) -> None:
    """And no other: an agency writes its client from it."""
    app = create_app(
        Gateway(
            keyring=Keyring(tmp_path, world.signer(Role.GATEWAY, world.OPERATOR), Master(tmp_path)),
            origin="",
            authority=world.CA.der,
            catalogue=Catalogue.load(),
            cluster=Cluster(servers=""),
            dsn="",
        ),
        "https://gateway.example",
    )
    paths = [route for route in app.routes if isinstance(route, APIRoute)]
    routes = {f"{method} {route.path}".replace(":path}", "}") for route in paths for method in route.methods or ()}
    page = (ROOT / "bus" / "gateway" / "README.md").read_text("utf-8")
    named = {one.replace("/ids/1", "/ids/{number}") for one in re.findall(r"`((?:GET|POST) /[^`]+)`", page)}
    assert named == routes
