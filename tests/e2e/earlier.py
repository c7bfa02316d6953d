"""Version 0.1.0, run from its wheel, and what its users did with it.

The wheel is that of commit 4d37ae2: `git archive 4d37ae2 | tar -x -C FOLDER`, and `hatchling build -t wheel` in it.
"""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx

from tests.servers import HOST, NO_TLS, REPOSITORY, Installation, Service, _answers, free_port

WHEEL = REPOSITORY / "tests" / "data" / "hms_gateway-0.1.0-py3-none-any.whl"
ROLES = {
    "ada": "admin",
    "hanna": "host",
    "mira": "member",
    "mark": "member",
    "dora": "member",
    "pia": "member",
    "nora": "member",
}
MINTS = 5
_NUMBERS = re.compile(r'\{ rate = "[^"]*", burst = [0-9]+ \}')
_QUOTAS = """
[quotas.mints-week]
counter = "tokens.mint"
period = "week"
amount = 100
[quotas.mints-month]
counter = "tokens.mint"
period = "month"
amount = 1000
"""


def settings() -> set[str]:
    """Return the names of the settings of 0.1.0."""
    with zipfile.ZipFile(WHEEL) as wheel:
        code = wheel.read("gateway/settings.py").decode()
    return set(re.findall(r'"(REDIS_URL|(?:HMS|GATEWAY)_[A-Z0-9_]+)"', code))


def policy() -> str:
    """Return the built-in policy of 0.1.0 with few mints for members, two quotas, and limits that no test reaches."""
    with zipfile.ZipFile(WHEEL) as wheel:
        text = wheel.read("gateway/policy.toml").decode()
    text = _NUMBERS.sub('{ rate = "1000000/min", burst = 1000 }', text)  # full again before they are looked at
    mints = re.compile(r'(?<=\[roles\.member\]\n)(.*?tokens\.mint" = )\{.*?\}', re.DOTALL)
    text, changed = mints.subn(rf'\1{{ rate = "{MINTS}/h", burst = {MINTS} }}', text)
    assert changed == 1
    return text + _QUOTAS


class Earlier:
    """A gateway of version 0.1.0 on the Redis and the local 100ms of an installation."""

    def __init__(self, installation: Installation) -> None:
        code = installation.folder / "0.1.0"
        zipfile.ZipFile(WHEEL).extractall(code)
        self._folder = installation.folder
        # It allows at most a second, which is less than tests beside others may need, but all that there is.
        self._env = installation.env | {"PYTHONPATH": str(code), "GATEWAY_REDIS_TIMEOUT_MS": "1000"}
        port = free_port()
        self.url = f"http://{HOST}:{port}"
        log = installation.folder / "0.1.0.log"
        arguments = ["serve", "--port", str(port)]
        self.server = Service(arguments, folder=self._folder, env=self._env, log=log, real=True)

    def start(self) -> None:
        self.server.start()
        self.server.wait_until(lambda: _answers(f"{self.url}/health/ready", 200), "0.1.0 is ready")

    def command(self, *arguments: str, stdin: str = "") -> str:
        """Run a `gateway` command of 0.1.0 and return what it prints."""
        command = [sys.executable, "-m", "gateway", *arguments]
        done = subprocess.run(
            command, cwd=self._folder, env=self._env, input=stdin, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def api(url: str) -> dict[str, Any]:
    """Return the OpenAPI document of a gateway."""
    return dict(httpx.get(f"{url}/openapi.json", timeout=15, verify=NO_TLS, trust_env=False).json())


def ask(url: str, token: str | None, method: str, path: str, **request: Any) -> httpx.Response:
    """Send one request to the API of a gateway."""
    headers = request.pop("headers", {}) | ({"Authorization": f"Bearer {token}"} if token else {})
    return httpx.request(
        method, f"{url}/api{path}", headers=headers, timeout=15, verify=NO_TLS, trust_env=False, **request
    )


def done(answer: httpx.Response) -> Any:
    """Return the JSON of an answer that must be a success."""
    assert answer.is_success, answer.text
    return answer.json() if answer.content else None


@dataclass
class Past:
    """What was done with 0.1.0: ids of users and rooms, logins, codes, and what was seen of it."""

    passwords: dict[str, str] = field(default_factory=lambda: {name: secrets.token_hex(16) for name in ROLES})
    ids: dict[str, str] = field(default_factory=dict)
    logins: dict[str, dict[str, Any]] = field(default_factory=dict)
    rooms: dict[str, str] = field(default_factory=dict)
    codes: dict[str, str] = field(default_factory=dict)
    creates: dict[str, dict[str, Any]] = field(default_factory=dict)
    views: dict[str, Any] = field(default_factory=dict)
    api: dict[str, Any] = field(default_factory=dict)
    day: str = field(default_factory=lambda: datetime.now(UTC).date().isoformat())

    def token(self, name: str) -> str:
        return str(self.logins[name]["access_token"])


def log_in(url: str, past: Past, name: str) -> httpx.Response:
    return ask(url, None, "POST", "/auth/login", json={"username": name, "password": past.passwords[name]})


def live_with(earlier: Earlier) -> Past:
    """Do with 0.1.0 what its users do."""
    past, url = Past(), earlier.url
    earlier.command("users", "add", "ada", "--role", ROLES["ada"], stdin=past.passwords["ada"] + "\n")
    past.logins["ada"] = done(log_in(url, past, "ada"))
    ada = past.token("ada")
    for name, role in list(ROLES.items())[1:]:
        body = {"username": name, "password": past.passwords[name], "roles": [role]}
        past.ids[name] = done(ask(url, ada, "POST", "/admin/users", json=body))["user"]["id"]
        past.logins[name] = done(log_in(url, past, name))
    done(ask(url, ada, "PATCH", "/admin/users/dora", json={"status": "disabled"}))
    done(ask(url, ada, "PUT", "/admin/limits/pia/override", json={"block": True, "lasts_s": 3600, "reason": "spam"}))
    override = {"name": "mints-week", "amount": 500, "lasts_s": 3600, "reason": "exam"}
    done(ask(url, ada, "PUT", "/admin/limits/mira/override", json=override))
    past.codes["password"] = done(ask(url, ada, "POST", "/admin/users/nora/password-link"))["token"]

    hanna = past.token("hanna")
    for name, access in (("open", "open"), ("closed", "invited")):
        body = {"name": name, "description": f"the {name} one", "access": access}
        past.creates[name] = {"json": body, "headers": {"Idempotency-Key": name}}
        past.rooms[name] = done(ask(url, hanna, "POST", "/rooms", **past.creates[name]))["room"]["id"]
    open_room, closed = past.rooms["open"], past.rooms["closed"]
    done(ask(url, hanna, "PUT", f"/rooms/{closed}/members/mira", json={"relation": "cohost"}))
    done(ask(url, hanna, "DELETE", f"/rooms/{open_room}/members/mark"))
    for kind, body in (("users", {"max_uses": 2}), ("guests", {"guests": True, "max_uses": 2})):
        past.codes[kind] = done(ask(url, hanna, "POST", f"/rooms/{closed}/invites", json=body))["code"]
    guest = done(ask(url, None, "POST", f"/invites/{past.codes['guests']}/accept", json={"display_name": "Guest"}))
    past.logins["guest"] = guest["login"]
    for number in range(MINTS + 1):
        answer = ask(url, past.token("mira"), "POST", f"/rooms/{open_room}/token", json={})
        assert answer.status_code == (429 if number == MINTS else 200), answer.text
    return past
