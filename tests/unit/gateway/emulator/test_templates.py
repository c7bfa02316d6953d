"""Templates and roles of the emulator."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from litestar.types import ASGIApp

from gateway.emulator.app import create_app
from tests.unit.gateway.local_100ms import KEY, SECRET, TEMPLATE, client_for

PRIVILEGES = {"endRoom", "removeOthers", "mute", "unmute", "changeRole", "sendRoomState", "pollRead", "pollWrite"}
PRIVILEGES |= {"browserRecording", "rtmpStreaming", "hlsStreaming"}


async def test_the_seeded_template_has_a_guest_without_and_a_host_with_all_permissions(
    client: httpx.AsyncClient,
) -> None:
    reply = await client.get(f"/v2/templates/{TEMPLATE}")
    assert reply.status_code == 200
    template = reply.json()
    assert (template["id"], template["_id"], template["name"]) == (TEMPLATE, TEMPLATE, "default")
    assert {"customerId", "roles", "settings", "destinations", "createdAt", "updatedAt"} <= template.keys()
    guest, host = template["roles"]["guest"], template["roles"]["host"]
    assert guest["publishParams"]["allowed"] == ["audio", "video"]
    assert guest["permissions"] == dict.fromkeys(PRIVILEGES, False)
    assert host["permissions"] == dict.fromkeys(PRIVILEGES, True)
    listed = (await client.get("/v2/templates")).json()
    assert listed == {"limit": 10, "data": [template], "last": TEMPLATE}


async def test_another_configured_template_is_added_to_the_state(tmp_path: Path) -> None:
    def app_with(template_id: str) -> ASGIApp:
        return create_app(access_key=KEY, app_secret=SECRET, template_id=template_id, state=tmp_path / "state.json")

    app_with("a" * 24)
    async with client_for(app=app_with("b" * 24)) as client:
        names = {template["id"]: template["name"] for template in (await client.get("/v2/templates")).json()["data"]}
        assert names == {"a" * 24: "default", "b" * 24: f"default-{'b' * 24}"}
        assert (await client.post("/v2/rooms", json={})).json()["template_id"] == "b" * 24


async def test_a_created_template_gets_defaults_and_keeps_unknown_keys(client: httpx.AsyncClient) -> None:
    roles = {"viewer": {"videoAlwaysEnabled": True, "publishParams": {"allowed": ["audio"]}}, "none": {}}
    reply = await client.post("/v2/templates", json={"name": "My one", "roles": roles, "plugins": {"x": 1}})
    assert reply.status_code == 200
    template = reply.json()
    assert template["plugins"] == {"x": 1}
    viewer = template["roles"]["viewer"]
    assert (viewer["name"], viewer["videoAlwaysEnabled"]) == ("viewer", True)
    assert viewer["publishParams"] == {"allowed": ["audio"], "audio": {"bitRate": 32, "codec": "opus"}}
    # Streaming and recording are granted unless a template denies them.
    granted = {name for name, value in template["roles"]["none"]["permissions"].items() if value}
    assert granted == {"browserRecording", "rtmpStreaming", "hlsStreaming"}
    assert (await client.get(f"/v2/templates/{template['id']}")).json() == template
    room = (await client.post("/v2/rooms", json={"template_id": template["id"]})).json()
    assert (room["template_id"], room["template"]) == (template["id"], "My one")


async def test_creating_a_template_under_an_existing_name_overwrites_it(client: httpx.AsyncClient) -> None:
    reply = await client.post("/v2/templates", json={"name": "default", "roles": {"solo": {}}})
    assert (reply.json()["id"], list(reply.json()["roles"])) == (TEMPLATE, ["solo"])
    assert len((await client.get("/v2/templates")).json()["data"]) == 1


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"name": "no/slash"}, "template name may contain only a-z, A-Z, 0-9, space and - . _ :"),
        ({"name": 1}, "Expected `str`, got `int` - at `$.name`"),
        ({"roles": {"r": {"priority": 6}}}, "Expected `int` <= 5 - at `$.roles[...].priority`"),
        ({"settings": {"region": "moon"}}, "Invalid enum value 'moon' - at `$.settings.region`"),
    ],
)
async def test_an_invalid_template_is_a_400(unchanged: httpx.AsyncClient, body: dict[str, Any], detail: str) -> None:
    reply = await unchanged.post("/v2/templates", json=body)
    assert reply.status_code == 400
    assert reply.json() == {"code": 400, "message": "Invalid body param", "details": [f"Invalid body param: {detail}"]}


async def test_a_role_is_created_replaced_and_renamed_through_its_path(client: httpx.AsyncClient) -> None:
    path = f"/v2/templates/{TEMPLATE}/roles"
    created = await client.post(f"{path}/co host", json={"priority": 3})
    assert (created.status_code, created.json()["name"], created.json()["priority"]) == (200, "co host", 3)
    replaced = (await client.post(f"{path}/co host", json={"maxPeerCount": 2})).json()
    assert (replaced["priority"], replaced["maxPeerCount"]) == (1, 2)
    renamed = await client.post(f"{path}/co host", json={"name": "cohost"})
    assert renamed.json()["name"] == "cohost"
    assert (await client.get(f"{path}/cohost")).json() == renamed.json()
    gone = await client.get(f"{path}/co host")
    assert (gone.status_code, gone.json()) == (
        404,
        {"code": 404, "message": "Role not found", "details": ["not found"]},
    )


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"name": "host"}, "role name is taken in this template"),
        ({"name": ""}, "Expected `str` of length >= 1 - at `$.name`"),
        ({"maxPeerCount": -2}, "Expected `int` >= -1 - at `$.maxPeerCount`"),
        ({"publishParams": {"audio": {"bitRate": 8}}}, "Expected `int` >= 16 - at `$.publishParams.audio.bitRate`"),
        ({"publishParams": {"allowed": ["smell"]}}, "Invalid enum value 'smell' - at `$.publishParams.allowed[0]`"),
        ({"permissions": {"mute": "yes"}}, "Expected `bool`, got `str` - at `$.permissions[...]`"),
    ],
)
async def test_an_invalid_role_is_a_400(unchanged: httpx.AsyncClient, body: dict[str, Any], detail: str) -> None:
    reply = await unchanged.post(f"/v2/templates/{TEMPLATE}/roles/guest", json=body)
    assert reply.status_code == 400
    assert reply.json() == {"code": 400, "message": "Invalid body param", "details": [f"Invalid body param: {detail}"]}


async def test_role_names_are_case_sensitive(unchanged: httpx.AsyncClient) -> None:
    reply = await unchanged.get(f"/v2/templates/{TEMPLATE}/roles/Guest")
    assert reply.status_code == 404
    assert reply.json() == {"code": 404, "message": "Role not found", "details": ["not found"]}


async def test_an_unknown_template_is_a_404_in_every_call(unchanged: httpx.AsyncClient) -> None:
    path = f"/v2/templates/{'f' * 24}"
    for reply in (
        await unchanged.get(path),
        await unchanged.get(f"{path}/roles/guest"),
        await unchanged.post(f"{path}/roles/guest", json={}),
    ):
        assert reply.status_code == 404
        assert reply.json() == {"code": 404, "message": "Template not found", "details": ["not found"]}


async def test_an_update_overwrites_the_whole_template(client: httpx.AsyncClient) -> None:
    before = (await client.get(f"/v2/templates/{TEMPLATE}")).json()
    body = {"roles": {"solo": {"maxPeerCount": 3}}, "plugins": {"x": 1}}
    reply = await client.post(f"/v2/templates/{TEMPLATE}", json=body)
    assert reply.status_code == 200
    after = reply.json()
    assert (after["id"], after["name"], after["createdAt"]) == (TEMPLATE, "default", before["createdAt"])
    assert (list(after["roles"]), after["plugins"]) == (["solo"], {"x": 1})
    assert (await client.get(f"/v2/templates/{TEMPLATE}")).json() == after
    renamed = (await client.post(f"/v2/templates/{TEMPLATE}", json={"name": "other"})).json()
    assert (renamed["name"], renamed["roles"], "plugins" in renamed) == ("other", {}, False)


async def test_an_invalid_update_is_refused(client: httpx.AsyncClient) -> None:
    await client.post("/v2/templates", json={"name": "taken"})
    taken = await client.post(f"/v2/templates/{TEMPLATE}", json={"name": "taken"})
    assert (taken.status_code, taken.json()["details"]) == (400, ["Invalid body param: template name is taken"])
    assert (await client.post(f"/v2/templates/{TEMPLATE}", json={"name": "a/b"})).status_code == 400
    unknown = await client.post(f"/v2/templates/{'f' * 24}", json={})
    assert (unknown.status_code, unknown.json()["message"]) == (404, "Template not found")
    assert list((await client.get(f"/v2/templates/{TEMPLATE}")).json()["roles"]) == ["guest", "host"]


async def test_a_deleted_role_cannot_be_deleted_again(client: httpx.AsyncClient) -> None:
    path = f"/v2/templates/{TEMPLATE}/roles/guest"
    reply = await client.delete(path)
    assert (reply.status_code, reply.content) == (204, b"")
    again = await client.delete(path)
    assert (again.status_code, again.json()) == (
        404,
        {"code": 404, "message": "Role not found", "details": ["not found"]},
    )
    assert list((await client.get(f"/v2/templates/{TEMPLATE}")).json()["roles"]) == ["host"]
