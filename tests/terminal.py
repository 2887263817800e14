"""A person at a terminal and before a browser: commands as she types them, and how she logs in."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html import unescape
from typing import Any
from urllib.parse import urlsplit

import httpx

from bus.transport import client_context
from deploy.home import Home

SECONDS = 60
_FIELD = re.compile(r'<input type="hidden" name="([^"]*)" value="([^"]*)">')


def run(home: Home, *arguments: str, stdin: str = "", code: int = 0) -> str:
    """What a command says on stdout."""
    done = subprocess.run(
        [sys.executable, "-m", "deploy.cli", *arguments, "--home", str(home.path)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def log_in(home: Home, name: str, password: str) -> dict[str, Any]:
    """`deptbus login`, with a browser: the session as it shows it. The token is in `session.json`."""
    command = [sys.executable, "-m", "deploy.cli", "login", "--json", "--home", str(home.path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        url = next(word for line in process.stderr for word in line.split() if word.startswith("https://"))
        _browse(home, url, name, password)
        said, _ = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    session: dict[str, Any] = json.loads(said)
    return session


def _browse(home: Home, url: str, name: str, password: str) -> None:
    """The login page, its form, and the way back to the command."""
    origin = "{0.scheme}://{0.netloc}".format(urlsplit(url))
    with httpx.Client(verify=client_context(home.load_bus().tls_authority), trust_env=False) as browser:
        page = browser.get(url)
        fields = {field: unescape(value) for field, value in _FIELD.findall(page.text)}
        form = {**fields, "name": name, "password": password}
        back = browser.post(f"{origin}/authorize", data=form, headers={"Origin": origin})
        assert back.status_code == 303, back.text
        assert browser.get(back.headers["location"]).status_code == 200
