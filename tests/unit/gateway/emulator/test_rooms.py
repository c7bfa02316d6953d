"""Rooms of the emulator, from the view of a client of 100ms."""

import asyncio
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.emulator import wire
from gateway.emulator.app import create_app
from gateway.emulator.state import StateError, Workspace
from tests.unit.gateway.local_100ms import KEY, SECRET, TEMPLATE, client_for

OLD = {"region": "in", "created_at": "2024-01-01T00:00:00Z", "template_id": TEMPLATE}


def write_state(path: Path, rooms: list[dict[str, Any]]) -> Path:
    template = {"id": TEMPLATE, "created_at": "2024-01-01T00:00:00Z", "updated_at": "2024-01-01T00:00:00Z"}
    template["body"] = {"name": "default", "roles": {}}  # type: ignore[assignment]
    path.write_text(json.dumps({"version": 1, "rooms": rooms, "templates": [template]}))
    return path


async def test_an_empty_object_creates_a_room_with_a_generated_name(client: httpx.AsyncClient) -> None:
    reply = await client.post("/v2/rooms", json={})
    assert reply.status_code == 200
    room = reply.json()
    assert re.fullmatch("[0-9a-f]{24}", room["id"])
    assert len(room["name"]) == 36
    assert room["enabled"] is True
    assert (room["template_id"], room["template"], room["region"]) == (TEMPLATE, "default", "auto")
    assert room["recording_source_template"] is True


async def test_creating_an_existing_name_in_other_case_updates_that_room(client: httpx.AsyncClient) -> None:
    first = (await client.post("/v2/rooms", json={"name": "Weekly.1", "description": "a", "region": "eu"})).json()
    reply = await client.post("/v2/rooms", json={"name": "wEEKLY.1", "description": "b"})
    assert reply.status_code == 200
    second = reply.json()
    assert second["id"] == first["id"]
    assert (second["description"], second["region"]) == ("b", "eu")
    assert second["created_at"] == first["created_at"]
    assert len((await client.get("/v2/rooms")).json()["data"]) == 1


async def test_a_create_with_the_name_of_a_disabled_room_leaves_it_disabled(client: httpx.AsyncClient) -> None:
    room = (await client.post("/v2/rooms", json={"name": "shut"})).json()
    await client.post(f"/v2/rooms/{room['id']}", json={"enabled": False})
    again = (await client.post("/v2/rooms", json={"name": "shut"})).json()
    assert (again["id"], again["enabled"]) == (room["id"], False)


async def test_concurrent_creates_under_one_name_give_one_room(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    async with client_for(path) as client:
        names = ["same"] * 10 + [f"own-{n}" for n in range(20)]
        replies = await asyncio.gather(*(client.post("/v2/rooms", json={"name": name}) for name in names))
    assert {reply.status_code for reply in replies} == {200}
    assert len({reply.json()["id"] for reply in replies[:10]}) == 1
    assert sorted(room["name"] for room in json.loads(path.read_text())["rooms"]) == sorted(set(names))


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"name": "has space"}, "room name may contain only a-z, A-Z, 0-9 and . - : _"),
        ({"name": "naïve"}, "room name may contain only a-z, A-Z, 0-9 and . - : _"),
        ({"name": "line\n"}, "room name may contain only a-z, A-Z, 0-9 and . - : _"),
        ({"name": ""}, "room name may contain only a-z, A-Z, 0-9 and . - : _"),
        ({"name": 5}, "Expected `str`, got `int` - at `$.name`"),
        ({"name": None}, "Expected `str`, got `null` - at `$.name`"),
        ({"region": "EU"}, "region must be one of eu, in, us, auto"),
        ({"template_id": "f" * 24}, "template not found"),
        ({"template": "default"}, "template is not supported, use template_id"),
        ({"template": None}, "template is not supported, use template_id"),
        ({"size": 2501}, "room size greater than 2500"),
        ({"size": 20001, "large_room": True}, "room size greater than 20000"),
        ({"size": -1}, "room size less than 0"),
        ({"size": True}, "Expected `int`, got `bool` - at `$.size`"),
        ({"max_duration_seconds": 119}, "max_duration_seconds less than 120"),
        ({"max_duration_seconds": 43201}, "max_duration_seconds greater than 43200"),
        ({"webhook": {}}, "Object missing required field `url` - at `$.webhook`"),
        (
            {"recording_info": {"enabled": True, "upload_info": {"type": "s3"}}},
            "Object missing required field `location` - at `$.recording_info.upload_info`",
        ),
        (
            {"recording_info": {"upload_info": {"type": "ftp", "location": "b"}}},
            "Invalid enum value 'ftp' - at `$.recording_info.upload_info.type`",
        ),
        ([], "Expected `object`, got `array`"),
    ],
)
async def test_an_invalid_create_is_a_400_and_creates_nothing(
    unchanged: httpx.AsyncClient, body: Any, detail: str
) -> None:
    reply = await unchanged.post("/v2/rooms", json=body)
    assert reply.status_code == 400
    assert reply.json() == {"code": 400, "message": "Invalid body param", "details": [f"Invalid body param: {detail}"]}
    assert (await unchanged.get("/v2/rooms")).json() == {"limit": 10, "data": [], "last": ""}


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b'{"name": "\xff"}', b'{"unknown":' * 20_000])
async def test_a_body_that_is_not_json_is_a_400(unchanged: httpx.AsyncClient, raw: bytes) -> None:
    reply = await unchanged.post("/v2/rooms", content=raw, headers={"content-type": "application/json"})
    assert reply.status_code == 400
    assert reply.json() == {"code": 400, "message": "Invalid body", "details": ["body is not valid JSON"]}


async def test_json_under_another_content_type_is_a_400(unchanged: httpx.AsyncClient) -> None:
    reply = await unchanged.post("/v2/rooms", content=b"{}", headers={"content-type": "text/plain"})
    assert reply.status_code == 400
    assert reply.json() == {
        "code": 400,
        "message": "Invalid content type",
        "details": ["content type must be application/json"],
    }


@pytest.mark.parametrize(
    "body",
    [
        {"size": 2500, "max_duration_seconds": 120, "region": "us"},
        {"size": 20000, "large_room": True, "max_duration_seconds": 43200},
        {"size": 0, "name": "A-z.0:9_", "unknown": 1, "description": "zażółć"},
    ],
)
async def test_values_at_the_documented_bounds_and_unknown_fields_are_accepted(
    client: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    created = await client.post("/v2/rooms", json=body)
    assert created.status_code == 200
    listed = (await client.get("/v2/rooms")).json()["data"][0]
    known = {key: value for key, value in body.items() if key != "unknown"}
    assert {key: listed[key] for key in known} == known
    assert "unknown" not in listed


async def test_each_endpoint_replies_with_its_own_fields(client: httpx.AsyncClient) -> None:
    shared = {"id", "name", "enabled", "description", "customer_id", "template_id", "template", "region"}
    shared |= {"created_at", "updated_at"}
    created = (await client.post("/v2/rooms", json={"name": "a"})).json()
    path = f"/v2/rooms/{created['id']}"
    assert set(created) == shared | {"app_id", "recording_source_template"}
    assert set((await client.get(path)).json()) == shared | {"recording_source_template"}
    listed = {"recording", "recording_source_template", "key", "large_room", "size", "max_duration_seconds"}
    assert set((await client.get("/v2/rooms")).json()["data"][0]) == shared | listed
    updated = {"customer", "recording_source_template", "enabled_source_template", "max_duration_seconds", "polls"}
    assert set((await client.post(path, json={"description": "b"})).json()) == shared | updated
    toggled = {"customer", "recording", "recording_source_template", "enabled_source_template", "large_room"}
    disabled = (await client.post(path, json={"enabled": False})).json()
    assert set(disabled) == shared | toggled
    assert (disabled["template_id"], disabled["template"], disabled["recording"]) == ("", "", None)


async def test_only_an_update_returns_recording_credentials(client: httpx.AsyncClient) -> None:
    upload = {"type": "s3", "location": "bucket"}
    secret = upload | {"credentials": {"key": "k", "secret": "s"}}
    created = (await client.post("/v2/rooms", json={"recording_info": {"enabled": True, "upload_info": secret}})).json()
    path = f"/v2/rooms/{created['id']}"
    assert created["recording_info"] == {"enabled": True, "upload_info": upload}
    assert (await client.get(path)).json()["recording_info"] == {"enabled": True, "upload_info": upload}
    assert (await client.get("/v2/rooms")).json()["data"][0]["recording"] == {"enabled": True, "upload_info": upload}
    updated = (await client.post(path, json={"description": "x"})).json()
    assert updated["recording_info"]["upload_info"] == secret


async def test_an_update_changes_only_the_sent_fields(client: httpx.AsyncClient) -> None:
    room = (await client.post("/v2/rooms", json={"name": "a", "description": "old", "size": 7})).json()
    hook = {"url": "https://hooks.example/x", "headers": {"x-secret": "1"}}
    body = {"region": "eu", "polls": ["p1"], "webhook": hook, "template_id": "ignored"}
    reply = await client.post(f"/v2/rooms/{room['id']}", json=body)
    assert reply.status_code == 200
    changed = reply.json()
    assert (changed["region"], changed["polls"], changed["webhook"]) == ("eu", ["p1"], hook)
    listed = (await client.get("/v2/rooms")).json()["data"][0]
    assert (listed["name"], listed["description"], listed["size"]) == ("a", "old", 7)
    assert listed["template_id"] == TEMPLATE


async def test_a_size_is_checked_against_the_large_room_flag_of_the_room(client: httpx.AsyncClient) -> None:
    room = (await client.post("/v2/rooms", json={"large_room": True, "size": 5000})).json()
    assert (await client.post(f"/v2/rooms/{room['id']}", json={"size": 9000})).status_code == 200
    reply = await client.post(f"/v2/rooms/{room['id']}", json={"large_room": False})
    assert reply.status_code == 400
    assert reply.json()["details"] == ["Invalid body param: room size greater than 2500"]
    assert (await client.get("/v2/rooms")).json()["data"][0]["size"] == 9000


async def test_renaming_a_room_frees_its_old_name(client: httpx.AsyncClient) -> None:
    room = (await client.post("/v2/rooms", json={"name": "old"})).json()
    await client.post(f"/v2/rooms/{room['id']}", json={"name": "new"})
    assert (await client.post("/v2/rooms", json={"name": "OLD"})).json()["id"] != room["id"]
    assert (await client.post("/v2/rooms", json={"name": "NEW"})).json()["id"] == room["id"]


async def test_renaming_to_the_name_of_another_room_updates_that_room(client: httpx.AsyncClient) -> None:
    one = (await client.post("/v2/rooms", json={"name": "one"})).json()
    two = (await client.post("/v2/rooms", json={"name": "two"})).json()
    reply = (await client.post(f"/v2/rooms/{two['id']}", json={"name": "ONE", "description": "taken over"})).json()
    assert (reply["id"], reply["description"]) == (one["id"], "taken over")
    assert (await client.get(f"/v2/rooms/{two['id']}")).json()["name"] == "two"


@pytest.mark.parametrize("room_id", ["f" * 24, "nonsense", "with%20space"])
async def test_an_unknown_room_is_a_404(unchanged: httpx.AsyncClient, room_id: str) -> None:
    for reply in (
        await unchanged.get(f"/v2/rooms/{room_id}"),
        await unchanged.post(f"/v2/rooms/{room_id}", json={"enabled": False}),
    ):
        assert reply.status_code == 404
        assert reply.json() == {"code": 404, "message": "Room not found", "details": ["not found"]}


async def test_a_disabled_room_is_listed_only_on_request_and_can_be_enabled_again(client: httpx.AsyncClient) -> None:
    room = (await client.post("/v2/rooms", json={})).json()
    reply = await client.post(f"/v2/rooms/{room['id']}", json={"enabled": False})
    assert (reply.status_code, reply.json()["enabled"]) == (200, False)
    assert (await client.get("/v2/rooms")).json()["data"] == []
    assert [r["id"] for r in (await client.get("/v2/rooms?enabled=false")).json()["data"]] == [room["id"]]
    assert (await client.post(f"/v2/rooms/{room['id']}", json={"enabled": True})).json()["enabled"] is True
    assert len((await client.get("/v2/rooms?enabled=true")).json()["data"]) == 1


async def test_pages_are_newest_first_and_the_final_page_has_a_last(client: httpx.AsyncClient) -> None:
    ids = [(await client.post("/v2/rooms", json={})).json()["id"] for _ in range(25)]
    first = (await client.get("/v2/rooms")).json()
    assert (first["limit"], first["last"]) == (10, ids[15])
    second = (await client.get("/v2/rooms", params={"start": first["last"], "limit": 10})).json()
    third = (await client.get("/v2/rooms", params={"start": second["last"]})).json()
    assert third["last"] == ids[0]
    assert [room["id"] for page in (first, second, third) for room in page["data"]] == ids[::-1]
    beyond = (await client.get("/v2/rooms", params={"start": third["last"]})).json()
    assert beyond == {"limit": 10, "data": [], "last": ""}


async def test_a_list_is_filtered_by_name_template_and_inclusive_times(tmp_path: Path) -> None:
    days = {"1": "2024-01-01T00:00:00.5Z", "2": "2024-01-02T00:00:00Z", "3": "2024-01-03T00:00:00.000000001Z"}
    rooms = [OLD | {"id": f"{n * 24}", "name": f"Room-{n}", "created_at": at} for n, at in days.items()]
    async with client_for(write_state(tmp_path / "s.json", rooms)) as client:

        async def names(**query: str) -> list[str]:
            return [room["name"][-1] for room in (await client.get("/v2/rooms", params=query)).json()["data"]]

        assert await names() == ["3", "2", "1"]
        assert await names(name="rOOM-2") == ["2"]
        assert await names(name="room") == []
        assert await names(template_id=TEMPLATE) == ["3", "2", "1"]
        assert await names(template_id="f" * 24) == []
        assert await names(after="2024-01-02T00:00:00.000Z") == ["3", "2"]
        assert await names(before="2024-01-02T00:00:00.000Z") == ["2", "1"]
        assert await names(before="2024-01-03T00:00:00.000Z") == ["2", "1"]
        assert await names(after="2024-01-01T00:00:00.500Z", before="2024-01-01T00:00:00.500Z") == ["1"]


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("limit=9", "limit must be between 10 and 100"),
        ("limit=101", "limit must be between 10 and 100"),
        ("limit=ten", "limit must be between 10 and 100"),
        ("enabled=undefined", "enabled must be true or false"),
        ("after=2024-01-01T00:00:00Z", "after must be YYYY-MM-DDTHH:mm:ss.sssZ"),
        ("before=2024-13-01T00:00:00.000Z", "before must be YYYY-MM-DDTHH:mm:ss.sssZ"),
        ("start=" + "f" * 24, "start is not the last of any page"),
    ],
)
async def test_an_invalid_query_is_a_400(unchanged: httpx.AsyncClient, query: str, detail: str) -> None:
    reply = await unchanged.get(f"/v2/rooms?{query}")
    assert reply.status_code == 400
    assert reply.json() == {
        "code": 400,
        "message": "Invalid query param",
        "details": [f"Invalid query param: {detail}"],
    }


@pytest.mark.parametrize(
    ("digits", "text"), [(0, "18Z"), (1, "18Z"), (2, "18.08Z"), (4, "18.082Z"), (8, "18.082Z"), (9, "18.082000001Z")]
)
def test_fractions_are_truncated_without_trailing_zeros(digits: int, text: str) -> None:
    assert wire.timestamp(1_700_000_058_082_000_001, digits) == f"2023-11-14T22:14:{text}"


async def test_timestamps_differ_in_length_between_rooms_but_not_between_replies(client: httpx.AsyncClient) -> None:
    rooms = [(await client.post("/v2/rooms", json={})).json() for _ in range(40)]
    assert len({len(room["created_at"]) for room in rooms}) > 4
    for room in rooms:
        assert (await client.get(f"/v2/rooms/{room['id']}")).json()["created_at"] == room["created_at"]
    assert {room["updated_at"] for room in (await client.get("/v2/rooms")).json()["data"]} == {"0001-01-01T00:00:00Z"}


async def test_rooms_survive_a_restart_in_a_file_only_the_owner_can_read(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    async with client_for(path) as client:
        room = (await client.post("/v2/rooms", json={"name": "kept", "size": 3})).json()
        before = (await client.get("/v2/rooms")).json()
        templates = (await client.get("/v2/templates")).json()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert SECRET not in path.read_text()
    async with client_for(path) as client:
        assert (await client.get("/v2/rooms")).json() == before
        assert (await client.get("/v2/templates")).json() == templates
        assert (await client.post("/v2/rooms", json={"name": "KEPT"})).json()["id"] == room["id"]
    assert os.listdir(tmp_path) == ["state.json"]


async def test_a_change_is_in_the_file_before_its_reply(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    async with client_for(path) as client:
        for number in range(5):
            await client.post("/v2/rooms", json={})
            assert len(json.loads(path.read_text())["rooms"]) == number + 1


async def test_a_failed_write_is_a_500_and_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    async with client_for(path) as client:
        before = path.read_bytes()
        with monkeypatch.context() as broken:
            broken.setattr("gateway.files.os.fsync", _no_space)
            reply = await client.post("/v2/rooms", json={"name": "a"})
        assert reply.status_code == 500
        assert reply.json() == {"code": 500, "message": "Internal server error"}
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == ["state.json"]
        assert (await client.post("/v2/rooms", json={"name": "a"})).status_code == 200


def _no_space(_: int) -> None:
    raise OSError(28, "No space left on device")


async def test_a_cancelled_save_still_finishes_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    workspace = Workspace(KEY, path)
    cancelled = asyncio.create_task(workspace.save())
    await asyncio.sleep(0)
    cancelled.cancel()
    await workspace.save()
    assert cancelled.cancelled()
    kept = ("rooms", "templates", "codes", "sessions")
    assert json.loads(path.read_text()) == {"version": 1} | {key: [] for key in kept}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"version": 2, "rooms": [], "templates": []}',
        '{"version": 1, "rooms": [{"id": "x"}], "templates": []}',
        '{"version": 1, "rooms": [], "templates": [{"id": "a", "created_at": "", "updated_at": "", "body": {}}]}',
    ],
)
def test_a_damaged_state_file_prevents_the_start_with_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(content)
    with pytest.raises(StateError) as refusal:
        create_app(access_key=KEY, app_secret=SECRET, template_id=TEMPLATE, state=path)
    assert str(path) in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1
    assert path.read_text() == content


@pytest.mark.parametrize(
    "rooms",
    [
        [OLD | {"id": "1", "name": "a"}, OLD | {"id": "1", "name": "b"}],
        [OLD | {"id": "1", "name": "a"}, OLD | {"id": "2", "name": "A"}],
        [OLD | {"id": "1", "name": "a", "template_id": "gone"}],
        [OLD | {"id": "1", "name": "a", "created_at": "yesterday"}],
    ],
)
def test_an_inconsistent_state_file_is_refused(tmp_path: Path, rooms: list[dict[str, Any]]) -> None:
    path = write_state(tmp_path / "state.json", rooms)
    with pytest.raises(StateError, match="cannot be used"):
        create_app(access_key=KEY, app_secret=SECRET, template_id=TEMPLATE, state=path)


def test_an_unwritable_state_path_prevents_the_start(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="cannot be written"):
        create_app(access_key=KEY, app_secret=SECRET, template_id=TEMPLATE, state=tmp_path / "no" / "state.json")


@pytest.mark.parametrize("missing", ["access_key", "app_secret", "template_id"])
def test_an_empty_credential_prevents_the_start(missing: str) -> None:
    given: dict[str, Any] = {"access_key": KEY, "app_secret": SECRET, "template_id": TEMPLATE} | {missing: ""}
    with pytest.raises(ValueError, match="needs an access key"):
        create_app(**given, state=None)
