"""Secrets are rotated as docs/operations.md says: nobody is logged out, and the old ones end."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import httpx
import jwt
import pytest

from tests.accounts import finish, office
from tests.e2e.checks import assert_problem
from tests.e2e.commands import assert_failed
from tests.e2e.policies import roomy
from tests.servers import HOST, NO_TLS, Installation


def new() -> str:
    return secrets.token_urlsafe(48)


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    own = Installation(tmp_path_factory.mktemp("rotation"), policy=roomy(), fsync="always")
    own.env |= {"HMS_WEBHOOK_SECRET": new(), "GATEWAY_METRICS_TOKEN": new()}
    with own:
        own.add_users(hanna="host")
        yield own


def restarted(at: Installation, **env: str) -> None:
    at.env |= env
    at.gateway.stop()
    at.start_gateway()


def me(at: Installation, token: str) -> httpx.Response:
    with at.client(token) as client:
        return client.get("/api/auth/me")


def refreshed(at: Installation, session: dict[str, Any]) -> dict[str, Any]:
    with at.client() as client:
        answer = client.post("/api/auth/refresh", json={"refresh_token": session["refresh_token"]})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def hooked(at: Installation, secret: str) -> int:
    """Return the status with which an event of 100ms that has this secret is answered."""
    with at.client() as client:
        event = {"type": "unknown.event", "data": {}}
        return client.post("/hooks/100ms", json=event, headers={"X-Gateway-Webhook-Secret": secret}).status_code


def set_passwords(at: Installation, *rules: str) -> None:
    with at.valkey.client() as client:
        client.execute_command("ACL", "SETUSER", "gateway", "on", "~*", "+@all", *rules)


def url(at: Installation, password: str) -> str:
    return f"redis://gateway:{password}@{HOST}:{at.valkey.port}/0"


def test_gateway_secret_and_those_of_100ms_and_prometheus(at: Installation) -> None:
    old, fresh = at.env["GATEWAY_SECRET"], new()
    hook, new_hook = at.env["HMS_WEBHOOK_SECRET"], new()
    scrape, new_scrape = at.env["GATEWAY_METRICS_TOKEN"], new()
    session, other = at.log_in("hanna"), at.log_in("hanna")

    restarted(at, GATEWAY_SECRET=f"{old},{fresh}", HMS_WEBHOOK_SECRET=f"{new_hook},{hook}")
    ahead = finish(_token(at, fresh))  # of a gateway that has taken the next step already
    assert [me(at, token).status_code for token in (session["access_token"], ahead)] == [200, 200]
    assert [hooked(at, secret) for secret in (hook, new_hook)] == [200, 200]

    restarted(at, GATEWAY_SECRET=f"{fresh},{old}", HMS_WEBHOOK_SECRET=new_hook, GATEWAY_METRICS_TOKEN=new_scrape)
    assert me(at, session["access_token"]).status_code == 200
    session = refreshed(at, session)
    assert [hooked(at, secret) for secret in (hook, new_hook)] == [401, 200]
    assert [_scraped(at, token) for token in (scrape, new_scrape)] == [401, 200]

    restarted(at, GATEWAY_SECRET=fresh)
    assert me(at, session["access_token"]).status_code == 200, "whoever has refreshed stays logged in"
    assert refreshed(at, session)["user"] == session["user"]
    assert_problem(me(at, other["access_token"]), 401, "invalid_token")


async def _token(at: Installation, secret: str) -> str:
    async with office(at.valkey.url, at.env | {"GATEWAY_SECRET": secret}) as them:
        return await them.log_in(await them.accounts.find("hanna"))


def _scraped(at: Installation, token: str) -> int:
    with at.client(token) as prometheus:
        return prometheus.get("/metrics").status_code


def test_the_secret_of_100ms_and_the_password_of_redis(at: Installation) -> None:
    set_passwords(at, ">one")
    restarted(at, REDIS_URL=url(at, "one"))
    session, fresh = at.log_in("hanna"), new()

    set_passwords(at, ">two")
    assert me(at, session["access_token"]).status_code == 200
    at.emulator.stop()
    restarted(at, REDIS_URL=url(at, "two"), HMS_APP_SECRET=fresh)
    at.start_emulator()
    set_passwords(at, "<one")
    with at.valkey.client() as client:  # also for connections that are opened now
        client.execute_command("CLIENT", "KILL", "USER", "gateway")
    with at.client(session["access_token"]) as client:
        client.get("/api/auth/me")  # notices that the connection is closed
        room = client.post("/api/rooms", json={"name": "Standup"}).json()["room"]["id"]
        token = client.post(f"/api/rooms/{room}/token").json()["token"]
    assert jwt.decode(token, fresh, algorithms=["HS256"])["room_id"] == room
    headers = {"Authorization": f"Bearer {token}"}
    init = {"params": {"peer_id": "p"}, "headers": headers, "timeout": 5, "verify": NO_TLS, "trust_env": False}
    assert httpx.get(f"{at.emulator_url}/init", **init).status_code == 200  # type: ignore[arg-type]
    assert_failed(at.command("users", "list", REDIS_URL=url(at, "one")), at.env, "REDIS_URL", "WRONGPASS")
