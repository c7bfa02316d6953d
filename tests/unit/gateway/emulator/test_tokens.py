"""Management tokens of REST calls and app tokens at `/init`."""

import base64
import json
import time
from typing import Any

import httpx
import pytest

from gateway.emulator.tokens import Verifier
from tests.unit.gateway.local_100ms import KEY, SECRET, TEMPLATE, signed

INIT = {"peer_id": "0b6d6f0e-6c6b-4a53-a0c5-000000000000", "user_agent_v2": '{"os":"web"}'}


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def unsigned(claims: dict[str, Any]) -> str:
    parts = [{"alg": "none", "typ": "JWT"}, claims]
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."


@pytest.fixture
async def client(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """A client without a token."""
    del client.headers["authorization"]
    return client


@pytest.fixture
async def unchanged(unchanged: httpx.AsyncClient) -> httpx.AsyncClient:
    """A client without a token, for tests that change nothing."""
    del unchanged.headers["authorization"]
    return unchanged


@pytest.fixture
async def room_id(client: httpx.AsyncClient) -> str:
    created = await client.post("/v2/rooms", json={}, headers=bearer(signed()))
    return str(created.json()["id"])


def app_token(room: str, **changes: Any) -> str:
    return signed(**({"type": "app", "room_id": room, "role": "guest", "user_id": "u1"} | changes))


LATER = int(time.time()) + 3600
BAD_CLAIMS: list[tuple[dict[str, Any], str]] = [
    ({"secret": "x" * 64}, "signature is invalid"),
    ({"algorithm": "HS512"}, "signing method is invalid"),
    ({"access_key": "other"}, "access_key is invalid"),
    ({"access_key": ...}, "access_key is invalid"),
    ({"version": 1}, "token version must be 2"),
    ({"version": "2"}, "token version must be 2"),
    ({"exp": 1_700_000_000}, "token is expired"),
    ({"exp": ...}, "exp must be an integer"),
    ({"exp": str(LATER)}, "exp must be an integer"),
    ({"nbf": LATER}, "token is not valid yet"),
    ({"iat": LATER}, "token used before issued"),
]


@pytest.mark.parametrize(
    ("changes", "detail"),
    [*BAD_CLAIMS, ({"type": "app"}, "token type must be management"), ({"nbf": ...}, "nbf must be an integer")],
)
async def test_a_bad_management_token_is_a_401_with_the_reason(
    unchanged: httpx.AsyncClient, changes: dict[str, Any], detail: str
) -> None:
    for path in ("/v2/rooms", f"/v2/templates/{TEMPLATE}"):
        reply = await unchanged.get(path, headers=bearer(signed(**changes)))
        assert reply.status_code == 401
        assert reply.json() == {"code": 401, "message": "Token validation error", "details": [detail]}


@pytest.mark.parametrize(
    ("headers", "detail"),
    [
        ({}, "not found"),
        ({"authorization": "Basic eDp5"}, "authorization must be a bearer token"),
        ({"authorization": "Bearer "}, "authorization must be a bearer token"),
        ({"authorization": "Bearer a.b.c"}, "token is malformed"),
        ({"authorization": "Bearer nonsense"}, "token is malformed"),
        (bearer(unsigned({"access_key": KEY, "type": "management", "version": 2})), "signing method is invalid"),
    ],
)
async def test_a_missing_or_malformed_token_is_a_401(
    unchanged: httpx.AsyncClient, headers: dict[str, str], detail: str
) -> None:
    reply = await unchanged.post("/v2/rooms", json={}, headers=headers)
    assert reply.status_code == 401
    assert reply.json() == {"code": 401, "message": "Token validation error", "details": [detail]}


async def test_a_refused_call_changes_nothing(client: httpx.AsyncClient) -> None:
    await client.post("/v2/rooms", json={})
    assert (await client.get("/v2/rooms", headers=bearer(signed()))).json()["data"] == []


@pytest.mark.parametrize(
    ("claim", "ahead_s", "accepted"),
    [("nbf", 0, True), ("nbf", 1, False), ("iat", 0, True), ("iat", 1, False), ("exp", 0, False), ("exp", 1, True)],
)
async def test_times_are_checked_to_the_second_without_leeway(
    unchanged: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, claim: str, ahead_s: int, accepted: bool
) -> None:
    now = 1_800_000_000
    times = {"iat": now - 10, "nbf": now - 10, "exp": now + 10} | {claim: now + ahead_s}
    token = signed(**times)
    monkeypatch.setattr("gateway.emulator.tokens.time.time", lambda: float(now))
    reply = await unchanged.get("/v2/rooms", headers=bearer(token))
    assert (reply.status_code == 200) is accepted


def test_the_repr_of_the_verifier_hides_the_secret() -> None:
    assert SECRET not in repr(Verifier(KEY, SECRET))


async def test_a_valid_app_token_is_admitted(client: httpx.AsyncClient, room_id: str) -> None:
    reply = await client.get("/init", params=INIT, headers=bearer(app_token(room_id)))
    assert reply.status_code == 200
    body = reply.json()
    assert body["endpoint"] == "wss://emulator/ws"
    assert body["rtcConfiguration"] == {"ice_servers": []}
    assert body["config"]["enabledFlags"] == []
    assert {"url", "timeout", "scoreMap"} <= body["config"]["networkHealth"].keys()
    assert reply.headers["access-control-allow-origin"] == "*"


async def test_an_app_token_without_iat_and_nbf_is_admitted(client: httpx.AsyncClient, room_id: str) -> None:
    token = app_token(room_id, iat=..., nbf=...)
    assert (await client.get("/init", params=INIT | {"region": "eu"}, headers=bearer(token))).status_code == 200


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *BAD_CLAIMS,
        ({"type": "management"}, "token type must be app"),
        ({"user_id": 7}, "user_id must be a non-empty string"),
        ({"user_id": ...}, "user_id must be a non-empty string"),
        ({"role": ...}, "role must be a non-empty string"),
        ({"room_id": 1}, "room_id must be a non-empty string"),
    ],
)
async def test_a_bad_app_token_is_a_401_with_code_and_message_only(
    unchanged: httpx.AsyncClient, changes: dict[str, Any], message: str
) -> None:
    reply = await unchanged.get("/init", params=INIT, headers=bearer(app_token("f" * 24, **changes)))
    assert_refused(reply, message)


async def test_an_unknown_role_is_a_401(client: httpx.AsyncClient, room_id: str) -> None:
    for role in ("Guest", "admin"):
        reply = await client.get("/init", params=INIT, headers=bearer(app_token(room_id, role=role)))
        assert_refused(reply, "role is invalid")


def assert_refused(reply: httpx.Response, message: str) -> None:
    assert reply.status_code == 401
    assert reply.headers["content-type"] == "application/json"
    assert reply.json() == {"code": 401, "message": message}
    assert reply.headers["access-control-allow-origin"] == "*"


async def test_a_token_for_an_unknown_room_is_a_400_not_a_404(unchanged: httpx.AsyncClient) -> None:
    reply = await unchanged.get("/init", params=INIT, headers=bearer(app_token("f" * 24)))
    assert reply.status_code == 400
    assert reply.json() == {"code": 400, "message": "invalid room"}


async def test_a_disabled_room_admits_no_client_until_it_is_enabled(client: httpx.AsyncClient, room_id: str) -> None:
    token = bearer(app_token(room_id))
    await client.post(f"/v2/rooms/{room_id}", json={"enabled": False}, headers=bearer(signed()))
    reply = await client.get("/init", params=INIT, headers=token)
    assert reply.status_code == 403
    assert reply.json() == {"code": 403, "message": "room is not active"}
    await client.post(f"/v2/rooms/{room_id}", json={"enabled": True}, headers=bearer(signed()))
    assert (await client.get("/init", params=INIT, headers=token)).status_code == 200


async def test_init_without_a_peer_id_is_a_400(client: httpx.AsyncClient, room_id: str) -> None:
    reply = await client.get("/init", headers=bearer(app_token(room_id)))
    assert reply.status_code == 400
    assert reply.json() == {"code": 400, "message": "peer_id is required"}


async def test_a_browser_may_send_a_preflight_for_init(unchanged: httpx.AsyncClient) -> None:
    preflight = {"origin": "http://localhost:5173", "access-control-request-method": "GET"}
    reply = await unchanged.options("/init", headers=preflight | {"access-control-request-headers": "authorization"})
    assert reply.status_code == 204
    assert reply.headers["access-control-allow-origin"] == "*"
    assert "authorization" in reply.headers["access-control-allow-headers"]


async def test_rest_calls_have_no_cors_headers(unchanged: httpx.AsyncClient) -> None:
    reply = await unchanged.get("/v2/rooms", headers=bearer(signed()) | {"origin": "http://localhost:5173"})
    assert "access-control-allow-origin" not in reply.headers
