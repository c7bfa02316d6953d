"""The main use cases, as users, operators and the seed's client perform them."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import Any

import httpx
import jwt
import pytest

from tests.servers import NO_TLS, Installation


def init_status(installation: Installation, token: str) -> int:
    """Ask the local 100ms whether it admits a client with this token."""
    url = f"{installation.emulator_url}/init"
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.get(
        url, params={"peer_id": "p"}, headers=headers, timeout=5, verify=NO_TLS, trust_env=False
    ).status_code


@pytest.fixture
def room(installation: Installation) -> dict[str, Any]:
    """A room of hanna's."""
    with installation.client_of("hanna") as client:
        answer = client.post("/api/rooms", json={"name": "Stand-up", "description": "every day"})
    assert answer.status_code == 201, answer.text
    return dict(answer.json()["room"])


def test_login_returns_the_user_and_the_lifetimes(installation: Installation) -> None:
    answer = installation.log_in("hanna")
    assert answer.keys() == {
        "access_token",
        "token_type",
        "expires_in",
        "refresh_token",
        "refresh_expires_in",
        "session_id",
        "user",
    }
    assert answer["token_type"] == "Bearer"
    assert answer["expires_in"] == 600
    assert answer["user"]["username"] == "hanna"
    assert answer["user"]["roles"] == ["host"]
    with installation.client(answer["access_token"]) as client:
        me = client.get("/api/auth/me")
    assert me.status_code == 200
    assert me.json() == {"user": answer["user"], "permissions": ["rooms:create", "rooms:join", "usage:read-own"]}


def test_created_room_belongs_to_the_caller_and_exists_at_100ms(
    installation: Installation, room: dict[str, Any]
) -> None:
    assert room["name"] == "Stand-up"
    assert room["description"] == "every day"
    assert room["access"] == "open"
    assert room["template"] == "default"
    assert room["enabled"] is True
    assert room["owner_id"] == installation.log_in("hanna")["user"]["id"]
    assert abs(datetime.fromisoformat(room["created_at"]).timestamp() - time.time()) < 60
    call = next(call for call in reversed(installation.upstream_calls()) if call["path"] == "/v2/rooms")
    assert call["body"]["name"].startswith("stand-up.")
    assert call["body"]["description"] == "every day"
    assert call["body"]["template_id"] == installation.env["HMS_TEMPLATE_ID"]


@pytest.mark.parametrize("content", [b"", b"{}"])
def test_room_can_be_created_with_an_empty_body(installation: Installation, content: bytes) -> None:
    """The seed's `createRoom()` sends a JSON content type and no body."""
    with installation.client_of("hanna") as client:
        answer = client.post("/api/rooms", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 201, answer.text
    assert answer.json()["success"] is True
    assert answer.json()["room"]["name"]


def test_two_rooms_of_one_name_are_two_rooms(installation: Installation, room: dict[str, Any]) -> None:
    with installation.client_of("hugo") as client:
        other = client.post("/api/rooms", json={"name": room["name"]}).json()["room"]
    assert other["id"] != room["id"]
    with installation.client_of("hanna") as client:
        assert client.get(f"/api/rooms/{room['id']}").json()["room"] == {**room, "relation": "owner"}


@pytest.mark.parametrize(("body", "role"), [({}, "guest"), ({"role": "guest"}, "guest"), ({"role": "host"}, "host")])
def test_owner_gets_a_token_that_100ms_accepts(
    installation: Installation, room: dict[str, Any], body: dict[str, str], role: str
) -> None:
    login = installation.log_in("hanna")
    with installation.client(login["access_token"]) as client:
        answer = client.post(f"/api/rooms/{room['id']}/token", json=body)
    assert answer.status_code == 200, answer.text
    minted = answer.json()
    assert minted.keys() == {"success", "token", "room_id", "role", "user_id", "expires_at"}
    assert minted["success"] is True
    assert (minted["room_id"], minted["role"], minted["user_id"]) == (room["id"], role, login["user"]["id"])
    claims = jwt.decode(minted["token"], installation.env["HMS_APP_SECRET"], algorithms=["HS256"])
    assert claims.keys() == {"access_key", "room_id", "user_id", "role", "type", "version", "jti", "iat", "nbf", "exp"}
    assert claims["exp"] == datetime.fromisoformat(minted["expires_at"]).timestamp()
    assert init_status(installation, minted["token"]) == 200


@pytest.mark.parametrize(
    "change",
    [
        {"access_key": "f" * 24},
        {"room_id": "f" * 24},
        {"user_id": 7},
        {"user_id": ""},
        {"role": "director"},
        {"type": "management"},
        {"version": 1},
        {"exp": 1},
        {"nbf": 99_999_999_999},
        {"iat": 99_999_999_999},
    ],
    ids=str,
)
def test_minted_token_is_refused_with_any_claim_changed(
    installation: Installation, room: dict[str, Any], change: dict[str, Any]
) -> None:
    """Even if signed with the right secret, because 100ms checks each claim. `jti` only names the token."""
    secret = installation.env["HMS_APP_SECRET"]
    with installation.client_of("hanna") as client:
        token = client.post(f"/api/rooms/{room['id']}/token", json={}).json()["token"]
    claims = jwt.decode(token, secret, algorithms=["HS256"])
    assert init_status(installation, jwt.encode(claims, secret)) == 200
    assert init_status(installation, jwt.encode(claims | change, secret)) in (400, 401)
    # Without the secret, no change of any kind passes.
    head, _, signature = token.split(".")
    payload = jwt.encode(claims | change, "x" * 32).split(".")[1]
    assert init_status(installation, f"{head}.{payload}.{signature}") == 401


def test_member_joins_an_open_room_as_guest_and_it_appears_in_their_list(
    installation: Installation, room: dict[str, Any]
) -> None:
    with installation.client_of("mira") as client:
        assert room["id"] not in listed(client)
        answer = client.post(f"/api/rooms/{room['id']}/token", json={})
        assert answer.status_code == 200, answer.text
        assert answer.json()["role"] == "guest"
        assert init_status(installation, answer.json()["token"]) == 200
        assert room["id"] in listed(client)
        assert client.get(f"/api/rooms/{room['id']}").json()["room"]["relation"] == "participant"


def listed(client: httpx.Client) -> list[str]:
    """Return the ids of all rooms a user has listed, page by page."""
    ids: list[str] = []
    cursor = None
    while True:
        page = client.get("/api/rooms", params={"limit": 3} | ({"cursor": cursor} if cursor else {}))
        assert page.status_code == 200, page.text
        ids += [room["id"] for room in page.json()["rooms"]]
        cursor = page.json()["next_cursor"]
        if cursor is None:
            assert len(ids) == len(set(ids))
            return ids


def test_list_pages_through_every_room_newest_first(installation: Installation) -> None:
    with installation.client_of("hugo") as client:
        made = [client.post("/api/rooms", json={"name": f"Room {n}"}).json()["room"]["id"] for n in range(7)]
        assert listed(client)[:7] == made[::-1]
    with installation.client_of("otto") as operator:
        assert set(made) <= set(listed(operator))


def test_usage_shows_limits_and_counts_requests(installation: Installation, room: dict[str, Any]) -> None:
    with installation.client_of("mark") as client:
        before = client.get("/api/usage").json()
        for _ in range(3):
            assert client.post(f"/api/rooms/{room['id']}/token", json={}).status_code == 200
        refused = client.post(f"/api/rooms/{room['id']}/token", json={"role": "host"})
        assert refused.status_code == 403
        after = client.get("/api/usage").json()
    done, had = (usage["usage"]["today"].get("tokens.mint", {"ok": 0, "refused": {}}) for usage in (after, before))
    assert done["ok"] == had["ok"] + 3
    assert done["refused"].get("role_not_allowed", 0) == had["refused"].get("role_not_allowed", 0) + 1
    assert {limit["name"] for limit in after["limits"]} == {"api", "tokens.mint"}


def test_operators_report_and_the_command_line_agree(installation: Installation) -> None:
    with installation.client_of("hanna") as client:
        assert client.get("/api/rooms").status_code == 200
    with installation.client_of("otto") as operator:
        answer = operator.get("/api/admin/usage", params={"user": "hanna"})
        assert answer.status_code == 200, answer.text
        report = answer.json()["items"]
        everybody = operator.get("/api/admin/usage").json()["items"]
    assert {row["username"] for row in report} == {"hanna"}
    assert all(row in everybody for row in report)
    shown = installation.command("usage", "show", "--json", "--user", "hanna")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout) == [{**row, "time_zone": answer.json()["time_zone"]} for row in report]
    assert {row["action"] for row in report} >= {"login", "api"}


class SeedClient:
    """The seed's `HMSServiceClass` (backend-setup-guide.md, step 4), line for line, plus the login token."""

    def __init__(self, base_url: str, token: str) -> None:
        self.base_url = base_url
        self.headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}

    def create_room(self, options: dict[str, Any] | None = None) -> dict[str, Any]:
        # JSON.stringify(undefined) is undefined: fetch then sends no body
        content = b"" if options is None else json.dumps(options).encode()
        return dict(
            httpx.post(
                f"{self.base_url}/rooms", headers=self.headers, content=content, verify=NO_TLS, trust_env=False
            ).json()
        )

    def get_auth_token(self, room_id: str, role: str) -> Any:
        content = json.dumps({"role": role, "userId": f"user_{int(time.time() * 1000)}"}).encode()
        url = f"{self.base_url}/rooms/{room_id}/token"
        return (
            httpx.post(url, headers=self.headers, content=content, verify=NO_TLS, trust_env=False).json().get("token")
        )


@pytest.mark.parametrize("options", [None, {}, {"name": "Talk", "description": "about it"}])
def test_seeds_client_works_with_a_base_url_and_a_login_token(
    installation: Installation, options: dict[str, Any] | None
) -> None:
    login = installation.log_in("hanna")
    seed = SeedClient(f"{installation.url}/api", login["access_token"])
    created = seed.create_room(options)
    assert created["success"] is True
    token = seed.get_auth_token(created["room"]["id"], "host")
    claims = jwt.decode(token, installation.env["HMS_APP_SECRET"], algorithms=["HS256"])
    assert claims["user_id"] == login["user"]["id"]
    assert claims["role"] == "host"
    assert init_status(installation, token) == 200


def test_seeds_client_receives_an_error(installation: Installation) -> None:
    seed = SeedClient(f"{installation.url}/api", "stale")
    answer = seed.create_room()
    assert answer["success"] is False
    assert isinstance(answer["error"], str)
    assert answer["error"]
