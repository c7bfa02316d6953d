"""Room codes and their exchange for app tokens."""

import re
import time
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from tests.unit.gateway.local_100ms import KEY, SECRET, TEMPLATE, client_for, new_room

FIELDS = {"code", "room_id", "role", "enabled", "created_at", "updated_at"}


@pytest.fixture
async def room_id(client: httpx.AsyncClient) -> str:
    return await new_room(client, name="coded")


async def codes(client: httpx.AsyncClient, room_id: str) -> list[dict[str, Any]]:
    reply = await client.post(f"/v2/room-codes/room/{room_id}")
    assert reply.status_code == 200, reply.text
    assert reply.json().keys() == {"data"}
    return list(reply.json()["data"])


async def test_every_role_gets_one_code(client: httpx.AsyncClient, room_id: str) -> None:
    assert (await client.get(f"/v2/room-codes/room/{room_id}")).json() == {"limit": 10, "data": [], "last": ""}
    made = await codes(client, room_id)
    assert [code["role"] for code in made] == ["guest", "host"]
    for code in made:
        assert code.keys() == FIELDS
        assert re.fullmatch("[a-z]{3}-[a-z]{4}-[a-z]{3}", code["code"])
        assert (code["room_id"], code["enabled"]) == (room_id, True)
    assert await codes(client, room_id) == made
    listed = (await client.get(f"/v2/room-codes/room/{room_id}")).json()
    assert listed == {"limit": 10, "data": made[::-1], "last": made[0]["code"]}


async def test_a_room_has_at_most_100_codes(client: httpx.AsyncClient, room_id: str) -> None:
    path = f"/v2/room-codes/room/{room_id}/role/guest"
    made = [(await client.post(path)).json() for _ in range(100)]
    assert len({code["code"] for code in made}) == 100
    reply = await client.post(path)
    assert reply.status_code == 400
    assert reply.json() == {"code": 400, "message": "a room has at most 100 room codes"}
    page = (await client.get(f"/v2/room-codes/room/{room_id}?limit=60")).json()
    rest = (await client.get(f"/v2/room-codes/room/{room_id}?limit=60&start={page['last']}")).json()
    assert [*page["data"], *rest["data"]] == made[::-1]


async def test_codes_of_a_deleted_role_are_disabled_and_cannot_be_enabled(
    client: httpx.AsyncClient, room_id: str
) -> None:
    guest = (await codes(client, room_id))[0]["code"]
    assert (await client.delete(f"/v2/templates/{TEMPLATE}/roles/guest")).status_code == 204
    await client.post(f"/v2/templates/{TEMPLATE}/roles/viewer", json={})
    assert [code["role"] for code in await codes(client, room_id)] == ["host", "viewer"]
    off = (await client.get(f"/v2/room-codes/room/{room_id}?enabled=false")).json()["data"]
    assert [(code["code"], code["role"]) for code in off] == [(guest, "guest")]
    reply = await client.post("/v2/room-codes/code", json={"code": guest, "enabled": True})
    assert reply.status_code == 403
    assert reply.json() == {"code": 403, "message": "role of the room code does not exist"}


async def test_listing_filters_by_role_and_by_state(client: httpx.AsyncClient, room_id: str) -> None:
    guest, host = await codes(client, room_id)
    await client.post("/v2/room-codes/code", json={"code": host["code"], "enabled": False})

    async def listed(query: str) -> list[str]:
        found = (await client.get(f"/v2/room-codes/room/{room_id}?{query}")).json()["data"]
        return [code["code"] for code in found]

    assert await listed("role=guest") == [guest["code"]]
    assert await listed("enabled=true") == [guest["code"]]
    assert await listed("enabled=false") == [host["code"]]
    assert await listed("role=guest&enabled=false") == []
    assert (await client.get(f"/v2/room-codes/room/{room_id}?enabled=1")).status_code == 400


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"code": "abc-defg-hij", "enabled": False}, 404),
        ({"code": "abc-defg-hij"}, 400),
        ({"enabled": False}, 400),
        ({"code": "abc-defg-hij", "enabled": "false"}, 400),
        ({"code": "abc-defg-hij", "enabled": False, "role": "host"}, 400),
        ([], 400),
    ],
)
async def test_a_bad_toggle_is_refused(unchanged: httpx.AsyncClient, body: Any, status: int) -> None:
    reply = await unchanged.post("/v2/room-codes/code", json=body)
    assert (reply.status_code, reply.json()["code"]) == (status, status)


async def test_calls_for_unknown_and_disabled_rooms_are_refused(client: httpx.AsyncClient, room_id: str) -> None:
    code = (await codes(client, room_id))[0]["code"]
    for path in (f"/v2/room-codes/room/{'f' * 24}", f"/v2/room-codes/room/{'f' * 24}/role/guest"):
        assert (await client.post(path)).status_code == 404
    assert (await client.post(f"/v2/room-codes/room/{room_id}/role/Guest")).json()["message"] == "Role not found"
    await client.post(f"/v2/rooms/{room_id}", json={"enabled": False})
    refusal = {"code": 403, "message": "room is not active"}
    assert (await client.post(f"/v2/room-codes/room/{room_id}")).json() == refusal
    assert (await client.get(f"/v2/room-codes/room/{room_id}")).json() == refusal
    # A code can always be disabled, but enabled only in an enabled room.
    toggled = await client.post("/v2/room-codes/code", json={"code": code, "enabled": False})
    assert (toggled.status_code, toggled.json()["enabled"]) == (200, False)
    assert (await client.post("/v2/room-codes/code", json={"code": code, "enabled": True})).json() == refusal


async def exchange(client: httpx.AsyncClient, content: str) -> httpx.Response:
    """Exchange a code as the web client does, without a token and with its JSON as text."""
    request = client.build_request("POST", "/v2/token", content=content, headers={"content-type": "text/plain"})
    del request.headers["authorization"]
    return await client.send(request)


async def test_a_code_is_exchanged_for_a_24_hour_token_that_init_accepts(
    client: httpx.AsyncClient, room_id: str
) -> None:
    code = (await codes(client, room_id))[1]["code"]
    reply = await exchange(client, f'{{"code": "{code}", "user_id": "whoever"}}')
    assert reply.status_code == 200
    assert reply.headers["access-control-allow-origin"] == "*"
    assert reply.json().keys() == {"token"}
    claims = jwt.decode(reply.json()["token"], SECRET, algorithms=["HS256"])
    assert claims["exp"] - claims["iat"] == 24 * 3600
    assert abs(claims["iat"] - time.time()) < 5
    shown = {name: claims[name] for name in ("access_key", "type", "version", "room_id", "role", "user_id")}
    assert shown == {
        "access_key": KEY,
        "type": "app",
        "version": 2,
        "room_id": room_id,
        "role": "host",
        "user_id": "whoever",
    }
    headers = {"authorization": f"Bearer {reply.json()['token']}"}
    assert (await client.get("/init?peer_id=p", headers=headers)).status_code == 200


async def test_a_browser_may_send_a_preflight_for_an_exchange(unchanged: httpx.AsyncClient) -> None:
    preflight = {"origin": "http://localhost:5173", "access-control-request-method": "POST"}
    reply = await unchanged.options("/v2/token", headers=preflight | {"access-control-request-headers": "content-type"})
    assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (204, "*")
    assert "content-type" in reply.headers["access-control-allow-headers"]


async def test_an_exchange_without_a_user_id_generates_one(client: httpx.AsyncClient, room_id: str) -> None:
    code = (await codes(client, room_id))[0]["code"]
    users = set()
    for _ in range(2):
        token = (await exchange(client, f'{{"code": "{code}"}}')).json()["token"]
        users.add(jwt.decode(token, SECRET, algorithms=["HS256"])["user_id"])
    assert len(users) == 2


async def test_unknown_and_disabled_codes_give_no_token(client: httpx.AsyncClient, room_id: str) -> None:
    guest, host = (code["code"] for code in await codes(client, room_id))
    unknown = await exchange(client, '{"code": "abc-defg-hij"}')
    assert (unknown.status_code, unknown.json()["message"]) == (404, "Room code not found")
    assert unknown.headers["access-control-allow-origin"] == "*"
    await client.post("/v2/room-codes/code", json={"code": guest, "enabled": False})
    disabled = await exchange(client, f'{{"code": "{guest}"}}')
    assert (disabled.status_code, disabled.json()) == (403, {"code": 403, "message": "room code is not active"})
    await client.post(f"/v2/rooms/{room_id}", json={"enabled": False})
    closed = await exchange(client, f'{{"code": "{host}"}}')
    assert (closed.status_code, closed.json()) == (403, {"code": 403, "message": "room is not active"})


@pytest.mark.parametrize("content", ["", "code=abc", "[]", "{}", '{"code": 1}', '{"code": "a", "user_id": 7}'])
async def test_a_malformed_exchange_is_a_400(unchanged: httpx.AsyncClient, content: str) -> None:
    reply = await exchange(unchanged, content)
    assert (reply.status_code, reply.json()["code"]) == (400, 400)


async def test_codes_survive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    async with client_for(path) as client:
        room_id = await new_room(client)
        made = await codes(client, room_id)
        await client.post("/v2/room-codes/code", json={"code": made[0]["code"], "enabled": False})
    async with client_for(path) as client:
        again = await codes(client, room_id)
    assert [code["code"] for code in again] == [code["code"] for code in made]
    assert [code["enabled"] for code in again] == [False, True]


async def test_room_codes_need_a_management_token(client: httpx.AsyncClient, room_id: str) -> None:
    for path in (f"/v2/room-codes/room/{room_id}", f"/v2/room-codes/room/{room_id}/role/guest", "/v2/room-codes/code"):
        assert (await client.post(path, headers={"authorization": ""})).status_code == 401
    assert (await client.get(f"/v2/room-codes/room/{room_id}", headers={"authorization": ""})).status_code == 401
