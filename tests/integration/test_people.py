"""People at a gateway: they log in at a provider in a process of its own, ask what their role may, and are stopped."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi import FastAPI

from bus.gateway.app import create_app
from bus.gateway.openapi import document
from bus.gateway.service import Gateway
from bus.httpsig import sign
from bus.identity import Identity
from bus.people.openid import Registration
from bus.people.roles import ROUTES, Role
from bus.people.web import LOGIN, SESSION
from bus.transport import client_context
from deploy.accounts.store import Store
from deploy.stack.child import free_ports
from deploy.stack.tls import TransportAuthority
from schemas.errors import Code
from tests.faults.plant import _until
from tests.integration.bus import Place, World, draft, fresh_firm

BASE = "https://gateway.example"
CALLBACK = f"{BASE}/people/callback"
_FIELD = re.compile(r'<input type="hidden" name="([^"]*)" value="([^"]*)">')


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """A provider's process, and what its operator holds."""

    store: Store
    registration: Registration
    lie: Path

    def http(self) -> httpx.AsyncClient:
        """A browser at the provider."""
        verify = client_context(self.registration.authority)
        return httpx.AsyncClient(base_url=self.registration.issuer, verify=verify, trust_env=False)

    @asynccontextmanager
    async def lying(self, **lie: Any) -> AsyncIterator[None]:
        """Tokens are wrong meanwhile."""
        self.lie.write_text(json.dumps(lie))
        try:
            yield
        finally:
            self.lie.write_text("")

    async def answer(self, url: str, name: str, password: str) -> str:
        """What a browser comes back with, after the page and its form: the redirect's address."""
        async with self.http() as browser:
            page = await browser.get(url)
            assert page.status_code == 200, page.text
            assert "default-src 'none'" in page.headers["content-security-policy"]
            fields = {field: unescape(value) for field, value in _FIELD.findall(page.text)}
            form = {**fields, "name": name, "password": password}
            back = await browser.post("/authorize", data=form, headers={"Origin": self.registration.issuer})
        assert back.status_code == 303, back.status_code
        return str(back.headers["location"])


@pytest.fixture(scope="module")
def accounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Accounts]:
    folder = tmp_path_factory.mktemp("accounts")
    tls = TransportAuthority(folder / "tls")
    (port,) = free_ports(1)
    registration = Registration(
        issuer=f"https://127.0.0.1:{port}",
        client_id="gateway",
        client_secret=secrets.token_urlsafe(16) + "%+:",
        authority=tls.file.read_text("ascii"),
    )
    registration.save(folder / "people.json")
    lie = folder / "lie"
    lie.write_text("")
    made = Accounts(store=Store(folder / "accounts.sqlite"), registration=registration, lie=lie)
    arguments = [
        *(sys.executable, "-m", "tests.integration.liar", lie, "--store", folder / "accounts.sqlite"),
        *("--registration", folder / "people.json", "--redirect-uri", CALLBACK),
        *("--tls", tls.server("accounts"), "--port", str(port)),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(list(map(str, arguments)), stdout=log, stderr=log)

    async def answers() -> None:
        async with made.http() as http:
            await http.get("/keys")

    try:
        asyncio.run(_until(answers))
        yield made
    finally:
        process.terminate()
        process.wait(10)
        made.store.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """A gateway that knows the provider, without the network between."""

    app: FastAPI
    gateway: Gateway
    accounts: Accounts
    world: World

    def browser(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=BASE)

    async def signed(self, identity: Identity, path: str, body: Any) -> Any:
        data = json.dumps(body).encode()
        async with self.browser() as http:
            return await http.post(path, content=data, headers=sign(identity.department, "POST", BASE + path, data))

    async def person(self, identity: Identity, role: Role) -> Someone:
        """A new account that a department appoints."""
        name = f"p-{secrets.token_hex(6)}"
        password = await asyncio.to_thread(self.accounts.store.add, name)
        body = {"subject": self.accounts.store.subject(name), "role": role, "name": name}
        made = await self.signed(identity, "/v1/people", body)
        assert made.status_code == 200, made.text
        return Someone(id=made.json()["id"], name=name, password=password, role=role, department=identity)

    async def token(self, who: Someone) -> str:
        """Logs in as a command does."""
        said = await self.login(who)
        assert said.status_code == 200, said.text
        assert said.json()["person"] == who.id
        return str(said.json()["token"])

    async def login(self, who: Someone, **changed: str) -> httpx.Response:
        """The same, whatever comes of it; `changed` is what comes back otherwise than it was sent."""
        async with self.browser() as http:
            begun = (await http.post("/people/logins", json={"redirect_uri": "http://127.0.0.1:4711/"})).json()
            back = await self.accounts.answer(begun["url"], who.name, who.password)
            return await http.post("/people/sessions", json={"handle": begun["handle"], **query(back), **changed})

    async def ask(self, token: str, path: str, body: Any = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"}
        async with self.browser() as http:
            if body is None:
                return await http.get(path, headers=headers)
            return await http.post(path, json=body, headers=headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Someone:
    """A person with an account."""

    id: str
    name: str
    password: str
    role: Role
    department: Identity


def query(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def refused(answer: httpx.Response, code: Code) -> None:
    assert (code_of(answer), answer.is_error) == (code, True), answer.text


def code_of(answer: httpx.Response) -> str | None:
    """A refusal's; None if it is none."""
    said = answer.json() if answer.is_error else None
    return said.get("code") if isinstance(said, dict) else None


@pytest.fixture
async def door(world: World, place: Place, accounts: Accounts) -> AsyncIterator[Door]:
    gateway = world.gateway(people=accounts.registration)
    async with gateway:
        yield Door(app=create_app(gateway, BASE), gateway=gateway, accounts=accounts, world=world)


async def test_a_browser_logs_in_and_out(door: Door) -> None:
    """A cookie that no other site can use, a token that was never seen before, and an end that is one."""
    tax = await door.world.join()
    officer = await door.person(tax, Role.OFFICER)
    async with door.browser() as browser, door.browser() as other:
        browser.cookies.set(SESSION, "planted", domain="gateway.example")  # session fixation
        away = await browser.get("/people/login")
        assert away.status_code == 302
        back = await door.accounts.answer(away.headers["location"], officer.name, officer.password)
        assert back.startswith(CALLBACK)
        path = back.removeprefix(BASE)
        refused(await other.get(path), Code.LOGIN_STATE)  # without the cookie: another browser
        await other.get("/people/login")
        refused(await other.get(path), Code.LOGIN_STATE)  # with the cookie of another login

        said = await browser.get(path)
        assert said.json() | {"ends_at": ""} == {
            "person": officer.id,
            "name": officer.name,
            "department": tax.uscc,
            "role": "OFFICER",
            "ends_at": "",
        }
        (cookie,) = [one for one in said.headers.get_list("set-cookie") if one.startswith(f"{SESSION}=")]
        assert "planted" not in cookie
        flags = {part.strip().lower() for part in cookie.split(";")[1:]}
        assert {"secure", "httponly", "path=/", "samesite=strict"} <= flags
        assert not any(flag.startswith("domain") for flag in flags)
        assert LOGIN.startswith("__Host-")
        assert SESSION.startswith("__Host-")
        refused(await browser.get(path), Code.LOGIN_STATE)  # the code and its login are spent

        # A form or a script of another site, and one that hides where it is.
        for origin in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {}):
            refused(await browser.post("/v1/agreements:list", json={}, headers=origin), Code.LOGIN_ORIGIN)
            refused(await browser.post("/people/logout", headers=origin), Code.LOGIN_ORIGIN)
        own = {"Origin": BASE}
        assert (await browser.post("/v1/agreements:list", json={}, headers=own)).json() == []
        held = browser.cookies[SESSION]
        assert (await browser.post("/people/logout", headers=own)).json() == {"provider": None}
    async with door.browser() as later:
        later.cookies.set(SESSION, held, domain="gateway.example")
        refused(await later.get("/people/me"), Code.LOGIN_ENDED)
    # What remains is in the log: begun and ended, by her.
    entries = await door.world.found(("kind", "Reading"), ("operator", officer.id), count=2)
    bodies = [one.entry.body for one in entries]
    assert [body["what"] for body in bodies] == ["people/sessions:begin", "people/sessions:end"]
    assert {body["signer"].hex() for body in bodies} == {officer.id}
    assert {body["signature"] for body in bodies} == {sha256(held.encode()).digest()}


async def test_a_provider_that_lies_lets_nobody_in(door: Door) -> None:
    """One wrong thing each, over the provider's own process; then the same person gets in."""
    tax = await door.world.join()
    officer = await door.person(tax, Role.OFFICER)
    lies: Mapping[Code, list[dict[str, Any]]] = {
        Code.ID_TOKEN_ISSUER: [{"claims": {"iss": "https://127.0.0.1:1"}}],
        Code.ID_TOKEN_AUDIENCE: [{"claims": {"aud": "another"}}, {"claims": {"aud": ["gateway", "x"], "azp": "x"}}],
        Code.ID_TOKEN_NONCE: [{"claims": {"nonce": "of another login"}}],
        Code.ID_TOKEN_EXPIRED: [{"claims": {"exp": 1_000_000_000}}, {"claims": {"iat": 1_000_000_000}}],
        Code.ID_TOKEN_SIGNATURE: [{"alg": "none"}, {"alg": "HS256"}],
        Code.ID_TOKEN_INVALID: [{"claims": {"sub": ""}}],
    }
    for code, told in lies.items():
        for lie in told:
            async with door.accounts.lying(**lie):
                refused(await door.login(officer), code)
    refused(await door.login(officer, iss="https://127.0.0.1:1"), Code.ID_TOKEN_ISSUER)
    refused(await door.login(officer, state="of another login"), Code.LOGIN_STATE)
    refused(await door.login(officer, code="made-up"), Code.LOGIN_REFUSED)
    refused(await door.login(officer, handle="made-up"), Code.LOGIN_STATE)
    async with door.browser() as http:
        begun = (await http.post("/people/logins", json={"redirect_uri": "http://127.0.0.1:4711/"})).json()
        denied = {"state": query(begun["url"])["state"], "iss": door.accounts.registration.issuer}
        body = {"handle": begun["handle"], **denied, "error": "access_denied"}
        refused(await http.post("/people/sessions", json=body), Code.LOGIN_REFUSED)
        for uri in ("http://127.0.0.1:4711/x", "http://evil.example/", "https://127.0.0.1:1/"):
            refused(await http.post("/people/logins", json={"redirect_uri": uri}), Code.REQUEST_MALFORMED)
    assert await door.token(officer)


async def test_keys_rotate_while_sessions_live(door: Door) -> None:
    tax = await door.world.join()
    officer = await door.person(tax, Role.OFFICER)
    before = await door.token(officer)
    await asyncio.to_thread(door.accounts.store.rotate)
    assert (await door.ask(before, "/people/me")).json()["person"] == officer.id
    assert (await door.ask(await door.token(officer), "/people/me")).json()["person"] == officer.id
    async with door.accounts.lying(alg="ES384"):  # no key of that name is for that
        refused(await door.login(officer), Code.ID_TOKEN_SIGNATURE)


async def test_a_role_asks_what_its_row_says_and_nothing_else(door: Door) -> None:
    """Every route of the gateway with every role; and what nobody in a session may do is written down here again."""
    world = door.world
    people = [
        await door.person(await world.join(auditor=True), Role.AUDITOR),
        await door.person(await world.join(), Role.OFFICER),
        await door.person(await world.operator(), Role.OPERATOR),
    ]
    routes = document(door.gateway.routes(), [])["paths"]
    signed = [
        (method, path)
        for path, item in routes.items()
        for method, operation in item.items()
        if any("Signature" in one for one in operation["security"])
    ]
    assert len(signed) > 70
    async with door.browser() as http:
        for who in people:
            headers = {"Authorization": f"Bearer {await door.token(who)}"}
            passed = set()
            for method, path in signed:
                answer = await http.request(method, path.format(entry="00" * 32, leaf_hash="00" * 32), headers=headers)
                if path.startswith("/access/"):
                    assert answer.status_code == 403
                elif code_of(answer) != Code.ROLE_FORBIDDEN:
                    passed.add(path)
            assert passed == ROUTES[who.role]
    nobody = ("/v1/keys", "/v1/licences", "/v1/records", "/v1/consents", "/v1/mandates", "/v1/sets")
    granting = ("/v1/people", "/v1/people:resume", "/v1/people:dismiss", "/v1/departments:resume")
    auditors = ("/v1/audit/tokens", "/v1/subjects/usages:query")
    for role in Role:
        assert not [path for path in ROUTES[role] if path.startswith(nobody) or path in granting]
        assert role is Role.AUDITOR or not ROUTES[role] & {*auditors}
    assert not [
        path for path in ROUTES[Role.OPERATOR] if not path.startswith(("/v1/people:", "/v1/departments:", "/v1/op"))
    ]


async def test_an_auditor_reads_as_herself(door: Door) -> None:
    """The entry and the embargo name her, not what she writes; the second person is another one."""
    office = await door.world.join(auditor=True)
    anne, beth = await door.person(office, Role.AUDITOR), await door.person(office, Role.AUDITOR)
    first, second = await door.token(anne), await door.token(beth)
    case = f"case-{secrets.token_hex(4)}"
    asked = {"kind": "Revision", "rule": f"person:{beth.id}@1", "reader": {"investigation": case}}
    await door.world.found(("rule", f"person:{beth.id}@1"))
    found = (await door.ask(first, "/v1/audit/entries:query", asked)).json()["entries"]
    assert [(one["body"]["act"], one["body"]["author"]) for one in found] == [("APPOINT", office.uscc)]
    claimed = {**asked, "reader": {"operator": beth.id, "investigation": case}}
    refused(await door.ask(first, "/v1/audit/entries:query", claimed), Code.REQUEST_FORBIDDEN)
    read = await door.world.found(("kind", "Reading"), ("operator", anne.id), count=2)
    assert read[1].entry.body["what"] == f"audit/entries:query#{case}"
    assert read[1].entry.body["signature"] == sha256(first.encode()).digest()

    embargo = {"investigation": case, "until": "2027-01-01T00:00:00Z"}
    proposed = (await door.ask(second, "/v1/audit/embargoes", embargo)).json()
    assert proposed["proposed_operator"] == beth.id
    refused(await door.ask(second, "/v1/audit/embargoes:confirm", {"id": proposed["id"]}), Code.REQUEST_FORBIDDEN)
    third = await door.token(await door.person(office, Role.AUDITOR))
    confirmed = await door.ask(third, "/v1/audit/embargoes:confirm", {"id": proposed["id"]})
    assert confirmed.json()["confirmed_at"] is not None


async def test_an_auditors_token_for_the_logs_files_ends_with_her_session(door: Door) -> None:
    """Ended, suspended, idle: it was hers while she was there. A fetch is a use of the session."""
    office = await door.world.join(auditor=True)
    anne = await door.person(office, Role.AUDITOR)
    bundle = f"/log/{door.world.place.bus.region}/tile/entries/000.p/1"
    aged = "UPDATE person_session SET seen_at = seen_at - $2::interval WHERE token = $1"

    async def token_of(session: str) -> str:
        return str((await door.ask(session, "/v1/audit/tokens", {})).json()["token"])

    ended, idle, used = [await door.token(anne) for _ in range(3)]
    tokens = [await token_of(one) for one in (ended, idle, used)]
    refused(await door.ask(ended, bundle), Code.REQUEST_EXPIRED)  # the session's own is none
    await door.world.db.execute(aged, sha256(idle.encode()).digest(), timedelta(minutes=15))
    for _ in range(2):
        await door.world.db.execute(aged, sha256(used.encode()).digest(), timedelta(minutes=14))
        assert (await door.ask(tokens[2], bundle)).status_code == 200
    assert (await door.ask(tokens[0], bundle)).status_code == 200
    assert (await door.ask(ended, "/people/logout", {})).status_code == 200
    for one in tokens[:2]:
        refused(await door.ask(one, bundle), Code.REQUEST_EXPIRED)
    await door.signed(office, "/v1/people:suspend", {"id": anne.id, "reason": "left her badge"})
    refused(await door.ask(tokens[2], bundle), Code.REQUEST_EXPIRED)


async def test_an_officer_finds_her_departments_entries_alone(door: Door) -> None:
    tax, other = await door.world.join(), await door.world.join()
    token = await door.token(await door.person(tax, Role.OFFICER))
    theirs = await door.person(other, Role.OFFICER)
    await door.world.found(("rule", f"person:{theirs.id}@1"))
    everything = (await door.ask(token, "/v1/audit/entries:query", {"limit": 1000})).json()["entries"]
    sides = [
        {body.get(name) for name in ("author", "grantor", "reader")} for body in (one["body"] for one in everything)
    ]
    assert sides
    assert all(tax.uscc in side for side in sides)
    listed = (await door.ask(token, "/v1/people:list", {})).json()
    assert {one["department"] for one in listed} == {tax.uscc}


async def test_who_is_suspended_is_out_everywhere_at_once(door: Door) -> None:
    """On another gateway, in the middle of a session, by her department's officer, its key, and who runs the bus."""
    world = door.world
    tax, other, runs = await world.join(), await world.join(), await world.operator()
    officer, colleague = await door.person(tax, Role.OFFICER), await door.person(tax, Role.OFFICER)
    stranger, operator = await door.person(other, Role.OFFICER), await door.person(runs, Role.OPERATOR)
    token, hers, ops = [await door.token(one) for one in (officer, colleague, operator)]

    async def elsewhere(token: str) -> httpx.Response:
        return await world.http.get(
            f"{world.place.gateways[1]}/people/me", headers={"Authorization": f"Bearer {token}"}
        )

    assert (await elsewhere(hers)).status_code == 200
    act = {"id": colleague.id, "reason": "left her badge"}
    refused(await door.ask(token, "/v1/people:suspend", act | {"id": stranger.id}), Code.NOT_FOUND)
    refused(await door.ask(token, "/v1/people:suspend", act | {"reason": ""}), Code.REASON_MISSING)
    assert (await door.ask(token, "/v1/people:suspend", act)).json()["state"] == "SUSPENDED"
    refused(await elsewhere(hers), Code.LOGIN_ENDED)
    refused(await door.login(colleague), Code.PERSON_SUSPENDED)
    refused(await door.ask(token, "/v1/people:resume", act), Code.ROLE_FORBIDDEN)
    refused(await door.ask(ops, "/v1/people:resume", act), Code.ROLE_FORBIDDEN)
    refused(await door.signed(runs, "/v1/people:resume", act), Code.NOT_FOUND)
    refused(await door.signed(other, "/v1/people:resume", act), Code.NOT_FOUND)
    assert (await door.signed(tax, "/v1/people:resume", act)).json()["state"] == "ACTIVE"
    refused(await elsewhere(hers), Code.LOGIN_ENDED)  # that session is over: she logs in anew
    assert (await elsewhere(await door.token(colleague))).status_code == 200

    assert (await door.ask(ops, "/v1/people:suspend", act | {"id": officer.id})).json()["name"] == ""
    refused(await elsewhere(token), Code.LOGIN_ENDED)
    dismissed = await door.signed(tax, "/v1/people:dismiss", act | {"id": officer.id})
    assert dismissed.json()["state"] == "DISMISSED"
    refused(await door.login(officer), Code.PERSON_UNKNOWN)
    entries = await world.found(("rule", f"person:{officer.id}@2"))
    body = entries[0].entry.body
    assert (body["act"], body["author"], body["signer"].hex()) == ("SUSPEND", runs.uscc, operator.id)


async def test_who_runs_the_bus_suspends_departments_and_nothing_else(door: Door) -> None:
    world = door.world
    parties = await world.parties()
    (record,) = await world.publish(parties.provider, draft(fresh_firm()))
    runs, tax = await world.operator(), parties.consumer
    officer, operator = await door.person(tax, Role.OFFICER), await door.person(runs, Role.OPERATOR)
    token, ops = await door.token(officer), await door.token(operator)
    assert await world.codes(tax, record) == [Code.PERMIT]
    act = {"uscc": tax.uscc, "reason": "keys found in the open"}
    refused(await door.ask(token, "/v1/departments:suspend", act), Code.ROLE_FORBIDDEN)
    refused(await door.signed(parties.provider, "/v1/departments:suspend", act), Code.REQUEST_FORBIDDEN)
    assert (await door.ask(ops, "/v1/departments:suspend", act)).json()["suspended"] is True
    assert await world.codes(tax, record) == [Code.CONSUMER_SUSPENDED]
    refused(await door.ask(token, "/people/me"), Code.PERSON_SUSPENDED)
    body = {"subject": "x", "role": "OFFICER", "name": "new"}
    refused(await door.signed(tax, "/v1/people", body), Code.REQUEST_FORBIDDEN)
    refused(await door.ask(ops, "/v1/departments:resume", act), Code.ROLE_FORBIDDEN)
    refused(await door.signed(tax, "/v1/departments:resume", act), Code.REQUEST_FORBIDDEN)
    assert (await door.signed(runs, "/v1/departments:resume", act)).json()["suspended"] is False
    assert await world.codes(tax, record) == [Code.PERMIT]
    metrics = (await door.ask(ops, "/v1/operations:show", {})).json()["metrics"]
    assert "bus_key_release_total" in metrics
    assert {one["name"] for one in (await door.ask(ops, "/v1/people:list", {})).json() if one["id"] == officer.id} == {
        ""
    }


async def test_nobody_appoints_beyond_her_department(door: Door) -> None:
    world = door.world
    tax, office, runs = await world.join(), await world.join(auditor=True), await world.operator()
    for identity, role in (
        (tax, "AUDITOR"),
        (tax, "OPERATOR"),
        (office, "OFFICER"),
        (runs, "AUDITOR"),
        (runs, "OFFICER"),
    ):
        body = {"subject": secrets.token_hex(8), "role": role, "name": "new"}
        refused(await door.signed(identity, "/v1/people", body), Code.REQUEST_FORBIDDEN)
    someone = await door.person(tax, Role.OFFICER)
    again = {"subject": door.accounts.store.subject(someone.name), "role": "AUDITOR", "name": "mine"}
    refused(await door.signed(office, "/v1/people", again), Code.STATE_INVALID)
    password = await asyncio.to_thread(door.accounts.store.add, (name := f"p-{secrets.token_hex(6)}"))
    unknown = Someone(id="", name=name, password=password, role=Role.OFFICER, department=tax)
    refused(await door.login(unknown), Code.PERSON_UNKNOWN)
    # A department that becomes an auditing one has no officers any more.
    token = await door.token(someone)
    await world.db.execute("UPDATE org SET auditor = true WHERE uscc = $1", tax.uscc)
    refused(await door.ask(token, "/people/me"), Code.PERSON_SUSPENDED)


async def test_sessions_end_by_themselves(door: Door) -> None:
    tax = await door.world.join()
    officer = await door.person(tax, Role.OFFICER)
    idle, old, used = [await door.token(officer) for _ in range(3)]
    stored = sha256(idle.encode()).digest(), sha256(old.encode()).digest(), sha256(used.encode()).digest()
    back = (
        "UPDATE person_session SET seen_at = seen_at - $2::interval, ends_at = ends_at - $3::interval WHERE token = $1"
    )
    await door.world.db.execute(back, stored[0], timedelta(minutes=15), timedelta(0))
    await door.world.db.execute(back, stored[1], timedelta(0), timedelta(hours=8))
    await door.world.db.execute(back, stored[2], timedelta(minutes=14), timedelta(hours=7))
    refused(await door.ask(idle, "/people/me"), Code.LOGIN_ENDED)
    refused(await door.ask(old, "/people/me"), Code.LOGIN_ENDED)
    assert (await door.ask(used, "/people/me")).status_code == 200
    refused(await door.ask("made-up", "/people/me"), Code.LOGIN_ENDED)
    held = await door.world.db.fetchval("SELECT count(*) FROM person_session WHERE token = $1", used.encode())
    assert held == 0  # nobody who reads the table gets a session


async def test_guesses_are_counted_by_account(door: Door) -> None:
    """Five, and then the right password gets nobody in; another account's does."""
    tax = await door.world.join()
    guessed, other = await door.person(tax, Role.OFFICER), await door.person(tax, Role.OFFICER)
    async with door.browser() as http:
        begun = (await http.post("/people/logins", json={"redirect_uri": "http://127.0.0.1:4711/"})).json()
    async with door.accounts.http() as browser:
        page = await browser.get(begun["url"])
        fields = {field: unescape(value) for field, value in _FIELD.findall(page.text)} | {"name": guessed.name}
        said = [(await browser.post("/authorize", data=fields | {"password": "wrong"})).status_code for _ in range(6)]
        assert said == [401] * 5 + [429]
        right = await browser.post("/authorize", data=fields | {"password": guessed.password})
        assert right.status_code == 429
        for changed in ({"redirect_uri": "https://evil.example/"}, {"client_id": "another"}):
            assert (await browser.post("/authorize", data=fields | changed)).status_code == 400
        from_elsewhere = await browser.post("/authorize", data=fields, headers={"Origin": "https://evil.example"})
        assert from_elsewhere.status_code == 403
    assert await door.token(other)
