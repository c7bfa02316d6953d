"""A Redis user with exactly the rights of docs/deploy.md, which forbid CONFIG, is enough for everything."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import httpx
import pytest

from tests.e2e.commands import assert_done, parsed
from tests.e2e.policies import roomy
from tests.servers import HOST, NO_TLS, Installation, Valkey, wait_until

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "deploy.md").read_text()
CONNECTING = {"CLIENT|SETINFO", "SELECT"}  # sent by redis-py
BY_THE_DOCTOR = {"CONFIG"}


def rules() -> list[str]:
    """Return the words of the page's ACL SETUSER that follow the name of the user."""
    lines = PAGE[PAGE.index("    ACL SETUSER gateway ") :].partition("\n\n")[0]
    return lines.split()[3:]


def allowed() -> set[str]:
    return {word[1:].upper() for word in rules() if word.startswith("+")}


class Guarded(Valkey):
    """A Valkey that the gateway reaches as the user of the page."""

    password = secrets.token_urlsafe(24)

    @property
    def url(self) -> str:
        return f"redis://gateway:{self.password}@{HOST}:{self.port}/0"

    def start(self) -> None:
        super().start()
        with self.client() as client:
            words = [word.replace("PASSWORD", self.password) for word in rules()]
            client.execute_command("ACL", "SETUSER", "gateway", *words)
            client.acl_log_reset()


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("acl")
    own = Installation(folder, policy=roomy(), valkey=Guarded(folder))
    own.env |= {"HMS_WEBHOOK_SECRET": secrets.token_urlsafe(48), "GATEWAY_METRICS_TOKEN": secrets.token_urlsafe(48)}
    own.env["EMULATOR_WEBHOOK_URL"] = f"{own.url}/hooks/100ms"
    own.env["EMULATOR_WEBHOOK_HEADER"] = f"X-Gateway-Webhook-Secret={own.env['HMS_WEBHOOK_SECRET']}"
    own.env["GATEWAY_ARCHIVE"] = f"sqlite:///{folder}/usage.db"
    with own:
        own.add_users(hanna="host", mira="member", ada="admin")
        yield own


def test_the_user_of_the_page_can_do_the_whole_job(at: Installation) -> None:
    users_and_rooms(at)
    reports(at)
    commands(at)
    with at.valkey.client() as client:
        refused = {entry["object"] for entry in client.acl_log()}
    assert refused == {"config|get"}, "that of the doctor, and nothing that the gateway does by itself"


def users_and_rooms(at: Installation) -> None:
    """Log in, meet in a room, invite, block, and let the local 100ms report the minutes."""
    ada, hanna, mira = (at.log_in(name) for name in ("ada", "hanna", "mira"))
    with at.client() as client:
        renewed = client.post("/api/auth/refresh", json={"refresh_token": mira["refresh_token"]})
        assert renewed.status_code == 200
    with at.client(hanna["access_token"]) as host, at.client(renewed.json()["access_token"]) as member:
        created = host.post("/api/rooms", json={"name": "Standup"}, headers={"Idempotency-Key": "standup-1"})
        room = created.json()["room"]["id"]
        token = member.post(f"/api/rooms/{room}/token").json()["token"]
        control = {"verify": NO_TLS, "trust_env": False, "timeout": 15}
        hms = httpx.Client(base_url=f"{at.emulator_url}/emulator/", **control)  # type: ignore[arg-type]
        with hms:
            peer = hms.post("peers", json={"token": token}).json()["id"]
            time.sleep(1.1)  # minutes are counted in whole seconds
            hms.delete(f"peers/{peer}")
        with at.valkey.client() as redis:
            counters = f"uc:1:{{{mira['user']['id']}}}:all"
            wait_until(lambda: redis.hexists(counters, "minutes.ok"), "the minutes are counted")
        invite = host.post(f"/api/rooms/{room}/invites", json={"relation": "viewer"}).json()
        assert member.post(f"/api/invites/{invite['code']}/accept").status_code == 200
        assert host.put(f"/api/rooms/{room}/members/mira", json={"relation": "banned"}).status_code == 200
        assert member.post(f"/api/rooms/{room}/token").status_code == 404
        assert host.post(f"/api/rooms/{room}/end", json={"lock": True}).is_success
        assert host.get("/api/rooms").json()["rooms"]
        assert host.get("/api/auth/sessions").status_code == 200
        assert host.post("/api/auth/logout", json={"scope": "all"}).status_code == 204
    assert ada["user"]["roles"] == ["admin"]


def reports(at: Installation) -> None:
    """Read everything that administrators can read."""
    with at.client() as client:
        description = client.get("/openapi.json").json()
    paths = [path for path in description["paths"] if path.startswith("/api/") and "{" not in path]
    with at.client_of("ada") as admin:
        for path in paths:
            if path != "/api/admin/live":  # a stream without an end
                assert admin.get(path).status_code in (200, 400, 405), path
    with at.client(at.env["GATEWAY_METRICS_TOKEN"]) as prometheus:
        assert "gateway_redis_up 1.0" in prometheus.get("/metrics").text


def commands(at: Installation) -> None:
    for words in (
        "users add nina --role member --no-password",
        "users disable mira",
        "limits show hanna",
        "limits override hanna --block --for 1h --reason test",
        "usage top",
        "usage rebuild",
        "audit tail",
        "archive update",
    ):
        assert_done(at.command(*words.split()), at.env)
    found = {
        one["check"]: (one["status"], one["text"]) for one in parsed(at.command("doctor", "--json"), at.env)["checks"]
    }
    text = "the server does not report it; with `appendfsync everysec` a crash loses at most one second"
    assert found["appendfsync"] == ("WARN", text)
    assert {name for name, (status, _) in found.items() if status != "ok"} == {"appendfsync"}


def used(folder: Path) -> set[str]:
    """Return every word of the code that may be a command of Redis."""
    found: set[str] = set()
    for path in folder.rglob("*"):
        if path.suffix in (".py", ".lua"):
            text = path.read_text()
            found |= {word.upper() for word in re.findall(r"call\(\s*'(\w+)'", text)}
            found |= set(re.findall(r'"([A-Z]{3,})"', text)) if path.suffix == ".py" else set()
    return found


def test_the_page_allows_exactly_the_commands_of_the_code(at: Installation) -> None:
    with at.valkey.client() as client:
        known = {name.upper() for name in client.command()}
    code = set().union(*(used(ROOT / folder) for folder in ("auth", "limits", "gateway"))) & known
    connection = used(ROOT / "gateway" / "redis") & known
    assert allowed() - CONNECTING <= code
    others = [path for path in (ROOT / "gateway").iterdir() if path.is_dir() and path.name != "redis"]
    outside = set().union(*(used(path) for path in (*others, ROOT / "auth", ROOT / "limits"))) & known
    assert outside - BY_THE_DOCTOR <= allowed()
    assert {"EVALSHA", "WAITAOF"} <= connection & allowed()


def test_the_page_allows_exactly_the_keys_of_the_gateway() -> None:
    patterns = [word[1:] for word in rules() if word.startswith("~")]
    page = (ROOT / "docs" / "architecture.md").read_text()
    keys = {
        key for row in re.findall(r"^\| (`[a-z]+:1.*?) \|", page, re.MULTILINE) for key in re.findall(r"`([^`]+)`", row)
    }
    assert len(keys) > 50
    for key in keys:
        assert any(fnmatchcase(key, pattern) for pattern in patterns), key
    for pattern in patterns:
        assert any(fnmatchcase(key, pattern) for key in keys), pattern
