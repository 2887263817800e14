"""A person at a terminal and before a browser: commands as she types them, and how she logs in."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html import unescape
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx

from bus.pki import write_private
from bus.transport import client_context
from deploy.commands.options import session_file
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
        with _browser(home) as browser:
            assert browser.get(_answer(browser, url, name, password)).status_code == 200
        said, _ = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    session: dict[str, Any] = json.loads(said)
    return session


def logged_in(home: Home, name: str, password: str) -> dict[str, Any]:
    """The same without a process, and without a port to come back to: in a tenth of the time."""
    gateway = home.stack().gateways[0]
    with _browser(home) as browser:
        redirect = {"redirect_uri": "http://127.0.0.1:4711/"}
        begun = browser.post(f"{gateway}/people/logins", json=redirect).json()
        back = dict(parse_qsl(urlsplit(_answer(browser, begun["url"], name, password)).query))
        said = browser.post(f"{gateway}/people/sessions", json={"handle": begun["handle"], **back})
    assert said.status_code == 200, said.text
    session: dict[str, Any] = said.json()
    write_private(session_file(home), json.dumps({"token": session.pop("token")}).encode())
    return session


def _browser(home: Home) -> httpx.Client:
    return httpx.Client(verify=client_context(home.load_bus().tls_authority), trust_env=False)


def _answer(browser: httpx.Client, url: str, name: str, password: str) -> str:
    """The login page and its form: where the provider sends the browser back to."""
    origin = "{0.scheme}://{0.netloc}".format(urlsplit(url))
    fields = {field: unescape(value) for field, value in _FIELD.findall(browser.get(url).text)}
    form = {**fields, "name": name, "password": password}
    back = browser.post(f"{origin}/authorize", data=form, headers={"Origin": origin})
    assert back.status_code == 303, back.text
    return str(back.headers["location"])
