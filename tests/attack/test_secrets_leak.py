"""No secret in any log line, command output or answer, in normal operation and in failures.

OWASP ASVS 5, 16.2.5; OWASP Logging Cheat Sheet, "Data to exclude"; CWE-532, CWE-209.
"""

from __future__ import annotations

import json
import re
import secrets
import traceback
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from auth.errors import InvalidCredentials, InvalidGrant, InvalidToken, UnknownUser
from auth.keys import KeyRing
from auth.sessions import Grant
from auth.signing_keys import SigningKey, SigningKeys, make_key, write_keys
from auth.tokens import LoginTokens, Principal
from auth.users import User
from gateway.hms.tokens import HmsTokens
from gateway.policy.file import built_in_text
from gateway.routes.account import ChangePassword, Register, SetPassword
from gateway.routes.exchange import EndExternal, ExchangeToken
from gateway.routes.login import Login, Logout, Refresh
from gateway.routes.users import CreateUser
from tests.identity_provider import IdentityProvider
from tests.servers import Installation, LockedValkey, wait_until

JWT = re.compile(r"eyJ[\w-]+\.[\w-]+")
GIVING = ("/api/auth/login", "/api/auth/refresh", "/api/auth/exchange")
PROVIDER = IdentityProvider("https://login.example.com")
REFRESH = re.compile(r"v1\.u[a-z2-7]{20}\.[0-9a-f]{20}\.[0-9]+")


@dataclass
class Spoken:
    """All output, and the values that must not be in it."""

    answers: list[httpx.Response] = field(default_factory=list)
    printed: str = ""
    logs: str = ""
    stored: str = ""
    """All keys and values of Redis."""
    never: dict[str, str] = field(default_factory=dict)
    """Values that must not appear anywhere, by description."""
    never_logged: dict[str, str] = field(default_factory=dict)
    """Values that an answer may give to their owner, but that must not be logged or printed."""


class Talk:
    """Sends requests and runs commands, and records the answers."""

    def __init__(self, own: Installation, spoken: Spoken) -> None:
        self.own = own
        self.spoken = spoken

    def ask(self, method: str, path: str, *, token: str | None = None, **request: Any) -> httpx.Response:
        with self.own.client(token) as client:
            answer = client.request(method, path, **request)
        self.spoken.answers.append(answer)
        return answer

    def log_in(self, name: str) -> dict[str, Any]:
        body = {"username": name, "password": self.own.passwords[name]}
        answer = self.ask("POST", "/api/auth/login", json=body)
        self.keep(answer)
        return dict(answer.json())

    def keep(self, answer: httpx.Response) -> None:
        """Record the tokens of an answer as values that no log may contain."""
        for name in ("access_token", "refresh_token", "token"):
            if value := answer.json().get(name):
                self.spoken.never_logged[f"{name} {len(self.spoken.never_logged)}"] = value

    def command(self, *arguments: str, stdin: str = "") -> None:
        done = self.own.command(*arguments, stdin=stdin)
        self.spoken.printed += done.stdout + done.stderr


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Spoken:
    folder = tmp_path_factory.mktemp("leaks")
    valkey = LockedValkey(folder)
    spoken = Spoken()
    people = PROVIDER.table(folder, create_accounts=True, default_role="member")
    own = Installation(folder, workers=2, valkey=valkey, policy=built_in_text() + people)
    own.env |= {"GATEWAY_REGISTRATION": "invite", "GATEWAY_COOKIES": "on"}
    keys = own.sign_tokens("es256", "ed25519")
    with own:
        own.add_users(hanna="host", otto="operator", ada="admin")
        for name in ("GATEWAY_SECRET", "HMS_APP_SECRET", "REDIS_URL"):
            spoken.never[name] = own.env[name]
        spoken.never["Redis password"] = valkey.password
        spoken.never |= {f"{name} of key {text[:4]}": text for key in keys for name, text in private_forms(key)}
        spoken.never |= {f"password of {name}": password for name, password in own.passwords.items()}
        talk = Talk(own, spoken)
        happy_path(talk)
        account_path(talk)
        cookie_path(talk)
        identity_path(talk)
        unhappy_path(talk)
        commands(talk)
        spoken.stored = content_of(valkey)
        outages(talk, valkey)
        own.gateway.stop()
        own.emulator.stop()
        spoken.logs = own.gateway.output() + own.emulator.output()
    spoken.logs += (folder / "valkey.log").read_text()
    return spoken


def private_forms(key: SigningKey) -> list[tuple[str, str]]:
    """Return the lines of a private key in PEM, its number as a JWK has it, and all of it in hexadecimal digits."""
    assert key.private is not None
    lines = [line for line in write_keys([key]).splitlines() if line[0] not in "#-" and len(line) > 40]
    assert lines
    jwk = jwt.get_algorithm_by_name(key.algorithm).to_jwk(key.private, as_dict=True)
    der = key.private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return [*(("PEM", line) for line in lines), ("d", str(jwk["d"])), ("hex", der.hex())]


def happy_path(talk: Talk) -> None:
    login = talk.log_in("hanna")
    refreshed = talk.ask("POST", "/api/auth/refresh", json={"refresh_token": login["refresh_token"]})
    talk.keep(refreshed)
    token = refreshed.json()["access_token"]
    room = talk.ask("POST", "/api/rooms", token=token, json={"name": "Quiet"}).json()["room"]["id"]
    talk.keep(talk.ask("POST", f"/api/rooms/{room}/token", token=token, json={"role": "host"}))
    assert talk.ask("GET", "/.well-known/jwks.json").status_code == 200
    for path in ("/api/auth/me", "/api/rooms", f"/api/rooms/{room}", "/api/usage", "/health/ready"):
        assert talk.ask("GET", path, token=token).status_code == 200
    operator = talk.log_in("otto")["access_token"]
    assert talk.ask("GET", "/api/admin/usage", token=operator).status_code == 200
    assert talk.ask("POST", "/api/auth/logout", token=operator, json={}).status_code == 204


def account_path(talk: Talk) -> None:
    """Use codes of every kind, set and change passwords; then try each code again."""
    admin = talk.log_in("ada")["access_token"]
    invite = json.loads(talk.own.command("users", "invite", "--role", "host", "--uses", "2", "--json").stdout)["invite"]
    first, second, third = (secrets.token_hex(16) for _ in range(3))
    talk.spoken.never |= {"first password of nina": first, "her second": second, "her third": third}
    talk.spoken.never_logged["account invite"] = invite
    body = {"username": "nina", "password": first, "invite": invite}
    for _ in range(2):
        talk.ask("POST", "/api/auth/register", json=body)
    talk.own.passwords["nina"] = first
    login = talk.log_in("nina")
    token = login["access_token"]
    change = {"current_password": first, "new_password": second}
    weak = change | {"new_password": "short"}
    assert talk.ask("POST", "/api/auth/password", token=token, json=weak).status_code == 422
    assert talk.ask("POST", "/api/auth/password", token=token, json=change).status_code == 204
    link = talk.ask("POST", "/api/admin/users/nina/password-link", token=admin)
    talk.keep(link)
    for _ in range(2):
        talk.ask("POST", "/api/auth/password/setup", json={"token": link.json()["token"], "new_password": third})
    talk.own.passwords["nina"] = third
    token = talk.log_in("nina")["access_token"]
    room = talk.ask("POST", "/api/rooms", token=token, json={}).json()["room"]["id"]
    code = talk.ask("POST", f"/api/rooms/{room}/invites", token=token, json={}).json()["code"]
    talk.spoken.never_logged["room invite"] = code
    talk.ask("POST", f"/api/invites/{code}/accept", token=admin, json={})
    talk.ask("POST", f"/api/invites/{code}/accept", json={})
    for path in ("/openapi.json", "/api/admin/users", "/api/admin/audit", "/api/auth/sessions"):
        assert talk.ask("GET", path, token=admin).status_code == 200


def identity_path(talk: Talk) -> None:
    """Exchange tokens of an identity provider, also wrong ones, in both forms; then log out there."""
    tokens = [PROVIDER.token(sid="s"), PROVIDER.token(aud="other"), PROVIDER.token({"alg": "none"})]
    statuses = []
    for number, token in enumerate(tokens):
        talk.spoken.never_logged[f"provider's token {number}"] = token
        answer = talk.ask("POST", "/api/auth/exchange", json={"token": token})
        talk.keep(answer)
        statuses.append(answer.status_code)
        form = {"grant_type": "x", "subject_token": token, "subject_token_type": token}
        assert talk.ask("POST", "/api/auth/exchange", data=form).status_code == 400
    assert statuses == [200, 400, 400]
    logout = PROVIDER.logout_token(sid="s")
    talk.spoken.never_logged["logout token"] = logout
    for status in (200, 400):
        assert talk.ask("POST", "/api/auth/logout/people", data={"logout_token": logout}).status_code == status


def cookie_path(talk: Talk) -> None:
    """Log in, refresh and log out in cookie mode; then send the cookies again, where they are refused."""
    page = {"X-Gateway-Session": "cookie", "Origin": talk.own.url}
    body = {"username": "hanna", "password": talk.own.passwords["hanna"]}
    login = talk.ask("POST", "/api/auth/login", json=body, headers=page)
    cookies = [login.headers["set-cookie"].partition(";")[0]]
    renewed = talk.ask("POST", "/api/auth/refresh", headers=page | {"Cookie": cookies[0]})
    cookies.append(renewed.headers["set-cookie"].partition(";")[0])
    for answer, cookie in zip((login, renewed), cookies, strict=True):
        talk.keep(answer)
        talk.spoken.never_logged[f"cookie {cookie[:40]}"] = cookie.partition("=")[2]
    assert talk.ask("POST", "/api/auth/logout", headers=page | {"Cookie": cookies[1]}).status_code == 204
    foreign = {"Origin": "https://evil.example"}
    for cookie in cookies:
        for more in ({}, foreign):
            assert talk.ask("POST", "/api/auth/refresh", headers=page | {"Cookie": cookie} | more).status_code >= 400


def content_of(valkey: LockedValkey) -> str:
    """Return every key and value of Redis as text; a value of an unknown kind as its repr."""
    readers = {"hash": "hgetall", "string": "get", "zset": "zrange", "stream": "xrange", "set": "smembers"}
    with valkey.client() as client:
        parts = []
        for key in client.scan_iter("*"):
            kind = client.type(key).decode()
            more = (0, -1) if kind == "zset" else ()
            parts.append(f"{key!r} {getattr(client, readers[kind])(key, *more)!r}")
    return "\n".join(parts)


def unhappy_path(talk: Talk) -> None:
    """Put secrets in the wrong place, as people do: wrong fields, names, URLs, malformed bodies."""
    login = talk.log_in("hanna")
    token, password = login["access_token"], talk.own.passwords["hanna"]
    typo = talk.spoken.never["password with a typo"] = secrets.token_urlsafe(18)
    login_json = {"Content-Type": "application/json"}
    bodies: list[bytes] = [
        json.dumps({"username": "hanna", "password": typo}).encode(),
        json.dumps({"username": typo, "password": "x"}).encode(),
        json.dumps({"username": "hanna", "password": [password]}).encode(),
        json.dumps({"username": "hanna", "password": {"value": password}}).encode(),
        json.dumps({"username": "hanna", "passwort": password}).encode(),
        json.dumps({"username": {"hanna": password}, "password": password}).encode(),
        json.dumps({"username": "hanna", "password": password})[:-3].encode(),
        json.dumps({"username": "hanna", "password": password + "x" * 20_000}).encode(),
        json.dumps([password]).encode(),
        json.dumps(password).encode(),
    ]
    for body in bodies:
        assert talk.ask("POST", "/api/auth/login", content=body, headers=login_json).status_code >= 400
    form = {"username": "hanna", "password": password}
    assert talk.ask("POST", "/api/auth/login", data=form).status_code == 415
    # In the URL: the caller's mistake, but the log must not contain it.
    assert talk.ask("GET", "/api/auth/me", params={"access_token": token, "password": password}).status_code == 401
    assert talk.ask("GET", "/api/rooms", token=token, params={"cursor": login["refresh_token"]}).status_code == 400
    for value in (password, login["refresh_token"], token):
        talk.ask("GET", "/api/auth/me", headers={"Authorization": f"Basic {value}"})
        talk.ask("GET", "/api/auth/me", headers={"Authorization": f"Bearer {value}x"})
        talk.ask("POST", "/api/auth/refresh", json={"refresh_token": f"{value}x"})
        talk.ask("POST", "/api/auth/refresh", json={"refresh_token": [value]})
        talk.ask("POST", "/api/rooms", token=token, json={"name": [value], "description": 7})
        talk.ask("POST", "/api/auth/logout", json={"refresh_token": f"{value}x"})
    # A reused refresh token, a limit that denies, a missing permission.
    for _ in range(3):
        answer = talk.ask("POST", "/api/auth/refresh", json={"refresh_token": login["refresh_token"]})
        if answer.status_code == 200:
            talk.keep(answer)
            login = answer.json()
    statuses = [talk.ask("GET", "/api/admin/usage", token=login["access_token"]).status_code for _ in range(70)]
    assert 429 in statuses  # one of the last may be allowed again


def commands(talk: Talk) -> None:
    password = talk.own.passwords["hanna"]
    talk.command("users", "add", "hanna", "--role", "host", stdin=f"{password}\n")
    talk.command("users", "add", "newcomer", "--role", "boss", stdin=f"{password}\n")
    talk.command("users", "add", "newcomer", "--role", "host", stdin=f"newcomer{password}\n")
    talk.command("users", "list", "--json")
    talk.command("users", "show", "hanna")
    talk.command("usage", "show", "--json")
    talk.command("usage", "show", "--user", "nobody")
    talk.command("keys", "signing", "list", "--json")
    talk.command("keys", "signing", "rotate", "--json")
    talk.command("keys", "signing", "new", "signing.pem")  # exists
    talk.command("doctor")
    talk.command("serve", "--port", str(talk.own.port))  # taken


def outages(talk: Talk, valkey: LockedValkey) -> None:
    with valkey.client() as client:
        for key in client.scan_iter("rl:1:*"):
            client.delete(key)
    login = talk.log_in("hanna")
    token = login["access_token"]
    for fault in ("status=401", "status=400", "status=500", "garbage", "reset"):
        talk.own.break_upstream(fault)
        assert talk.ask("POST", "/api/rooms", token=token, json={}).status_code == 502
        talk.own.mend_upstream()
    # Redis has another password: the error about it must not contain ours.
    with valkey.client() as client:
        client.config_set("requirepass", "another-password")
        client.execute_command("CLIENT", "KILL", "TYPE", "NORMAL", "SKIPME", "YES")
    wait_until(lambda: talk.ask("GET", "/api/auth/me", token=token).status_code == 503, "Redis refuses the gateway")
    talk.command("users", "list")
    valkey.kill()
    for _ in range(4):
        body = {"username": "hanna", "password": talk.own.passwords["hanna"]}
        assert talk.ask("POST", "/api/auth/login", json=body).status_code == 503
        assert talk.ask("GET", "/api/auth/me", token=token).status_code == 503
    talk.command("users", "add", "late", "--role", "host", stdin=f"{talk.own.passwords['hanna']}\n")


def test_all_paths_were_exercised(spoken: Spoken) -> None:
    """Otherwise the absence of secrets would prove nothing."""
    assert {answer.status_code for answer in spoken.answers} >= {200, 201, 204, 400, 401, 403, 413, 415, 429, 502, 503}
    assert len(spoken.never) >= 7
    assert len(spoken.never_logged) >= 8
    lines = [json.loads(line) for line in spoken.logs.splitlines() if line.startswith("{")]
    assert {line["level"] for line in lines} >= {"info", "warning", "error", "critical"}
    logged = [answer for answer in spoken.answers if not answer.request.url.path.startswith("/health/")]
    assert sum(line["message"] == "request" for line in lines) >= len(logged)
    assert "hanna" in spoken.printed


def test_no_secret_is_logged_or_printed(spoken: Spoken) -> None:
    for what, value in (spoken.never | spoken.never_logged).items():
        for where, text in (("logs", spoken.logs), ("output", spoken.printed)):
            assert value not in text, f"{what} in {where}"
            # Nor a part that would be useful: the signature, the end.
            assert value[-16:] not in text, f"the end of {what} in {where}"


def test_nothing_that_looks_like_a_token_is_logged_or_printed(spoken: Spoken) -> None:
    """Including management tokens, which no test receives."""
    for text in (spoken.logs, spoken.printed):
        assert JWT.search(text) is None
        assert REFRESH.search(text) is None
        assert "bearer ey" not in text.lower()
        assert "$argon2" not in text


def test_no_answer_contains_a_secret(spoken: Spoken) -> None:
    for answer in spoken.answers:
        said = answer.text + json.dumps(dict(answer.headers))
        for what, value in spoken.never.items():
            assert value not in said, f"{what} in the answer to {answer.request.url.path}"
        assert "$argon2" not in said
        assert "Traceback" not in said
        assert "redis://" not in said


def test_no_answer_contains_a_management_token(spoken: Spoken) -> None:
    tokens = [token for answer in spoken.answers for token in re.findall(r"eyJ[\w-]+\.[\w-]+\.[\w-]+", answer.text)]
    assert len(tokens) >= 5
    for token in tokens:
        claims = jwt.decode(token, options={"verify_signature": False})
        assert claims.get("type", "app") == "app"
        assert ("sid" in claims) != ("room_id" in claims)


def test_tokens_are_returned_only_by_their_own_routes(spoken: Spoken) -> None:
    for answer in spoken.answers:
        path = answer.request.url.path
        if answer.is_success and (path in GIVING or path.endswith(("/token", "/password-link", "/invites"))):
            continue
        for what, value in spoken.never_logged.items():
            # A problem contains the path of the request, and an invite's code is part of that.
            assert value not in answer.text.replace(path, ""), f"{what} in the answer to {path}"


def test_redis_contains_no_secret(spoken: Spoken) -> None:
    """Redis contains argon2 hashes, hashes of codes and MACs, which do not allow a login or registration."""
    assert "hanna" in spoken.stored
    assert spoken.stored.count("$argon2id$") == 4
    for what, value in (spoken.never | spoken.never_logged).items():
        assert value not in spoken.stored, f"{what} in Redis"
    assert JWT.search(spoken.stored) is None
    assert REFRESH.search(spoken.stored) is None


def test_throttles_and_audit_contain_no_address(spoken: Spoken) -> None:
    """Addresses are personal data: only sessions store them, show them to their user, and are deleted with them."""
    for line in spoken.stored.splitlines():
        if not line.startswith("b's:1:"):
            assert "127.0.0.1" not in line


def test_no_repr_or_traceback_contains_a_secret() -> None:
    """CWE-209: a traceback with locals, a debugger and a careless log line all show the repr."""
    secret = "a-secret-of-this-test-0123456789-abcdef"
    ring = KeyRing([secret], "login-token")
    key = make_key("ed25519", datetime.now(UTC))
    user = User("u" + "a" * 20, "ada", "Ada", ("host",), "active", 1, 0)
    shown = [
        KeyRing([secret], "refresh"),
        ring.signing,
        Login(username="ada", password=secret),
        Refresh(refresh_token=secret),
        Logout(refresh_token=secret),
        ExchangeToken(token=secret),
        EndExternal(logout_token=secret),
        Register(username="ada", password=secret, invite=secret),
        ChangePassword(current_password=secret, new_password=secret),
        SetPassword(token=secret, new_password=secret),
        CreateUser(username="ada", roles=["host"], password=secret),
        Grant(Principal(user.id, "0" * 20, ("host",), 1), secret, 1, 1),
        HmsTokens(secret, secret),
        HmsTokens(secret, secret).join_token(room_id="0" * 24, user_id="u", role="guest", ttl_s=60),
        LoginTokens(ring),
        LoginTokens(ring, SigningKeys((key,), "https://gateway.example.com")),
        LoginTokens(ring, SigningKeys((key,), "https://gateway.example.com"))._signing_key(),
        key,
    ]
    for one in shown:
        assert secret not in repr(one)
        assert ring.signing.secret.hex() not in repr(one)
        assert repr(ring.signing.secret) not in repr(one)
        assert "eyJ" not in repr(one)
        assert not any(text in repr(one) for _, text in private_forms(key))
        assert "private" not in repr(one)
    for error in (InvalidToken(), InvalidGrant(), InvalidCredentials(uid="u"), UnknownUser("There is no such user.")):
        assert secret not in "".join(traceback.format_exception(error))
