"""The requests of the client about rooms, peers and templates, and how it reads the answers."""

from __future__ import annotations

import json
import logging
from typing import Any

import httpx
import pytest

from gateway.hms.client import HmsClient
from gateway.hms.errors import HmsNotFound, HmsRefused, HmsUnreachable
from gateway.hms.replies import HmsPeer, HmsRole, HmsRoom
from tests.unit.gateway.upstream import NAME, ROOM, TEMPLATE, Upstream, created

PEER, OTHER_PEER = "2a1b6a2e-2c65-44c5-b9c3-8a7cf4ac7a5e", "7f5c3c0e-6a6f-4f4e-8a52-2f54a4bd4c11"
OTHER_ROOM = "f" * 24
NO_SESSION = {"code": 404, "message": "session not found"}
BAD_IDS = ["", "..", "../rooms", "a/b", ROOM.upper(), ROOM + "0", ROOM[:-1], ROOM + "\n", "%2e%2e", ROOM[:-1] + "?"]


def sent(upstream: Upstream) -> tuple[str, str, Any]:
    [request] = upstream.requests
    upstream.requests.clear()
    return request.method, request.url.raw_path.decode(), json.loads(request.content) if request.content else None


# --- rooms ---


async def test_a_room_is_read_with_the_fields_that_adoption_needs(hms: HmsClient, upstream: Upstream) -> None:
    given = {"template_id": TEMPLATE, "created_at": "2023-07-14T07:30:37.97291247Z", "description": "about"}
    upstream.says(200, created(**given, updated_at=None, unknown=[{}]))
    room = await hms.get_room(ROOM)
    assert sent(upstream) == ("GET", f"/v2/rooms/{ROOM}", None)
    assert room is not None
    assert (room.id, room.name, room.enabled, room.template_id) == (ROOM, NAME, True, TEMPLATE)
    assert (room.created_at, room.description) == (pytest.approx(1689319837.97291247), "about")


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00Z", None, "", "yesterday", 5])
@pytest.mark.parametrize("text", ["", None, 5])
async def test_unset_and_malformed_fields_are_not_errors(
    hms: HmsClient, upstream: Upstream, at: object, text: object
) -> None:
    upstream.says(200, created(template_id=text, description=text, created_at=at))
    assert await hms.get_room(ROOM) == HmsRoom(ROOM, NAME, True, "", None)


async def test_an_unknown_room_is_none_and_not_logged(
    hms: HmsClient, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.says(404, {"code": 404, "message": "Room not found", "details": []})
    assert await hms.get_room(ROOM) is None
    assert caplog.records == []


async def test_a_404_without_the_error_body_of_100ms_does_not_mean_an_unknown_room(
    hms: HmsClient, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    """A mistyped HMS_API_URL answers every request with 404: that must not mean "no session was running"."""
    for content in (b"", b"<html>Not Found</html>", b"{}", b"[]", b'{"message": ""}'):
        upstream.says(404, content)
        for call in (hms.get_room(ROOM), hms.end_room(ROOM, reason="", lock=False), hms.list_peers(ROOM, user_id="u")):
            caplog.clear()
            with pytest.raises(HmsRefused) as caught:
                await call
            assert not isinstance(caught.value, HmsNotFound)
            assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_a_room_is_enabled_and_disabled_by_the_documented_field(hms: HmsClient, upstream: Upstream) -> None:
    """api-reference/Rooms/disable-or-enable: the sample's answer has an empty template id."""
    upstream.says(200, created(enabled=False, template_id="", recording=None))
    assert not (await hms.switch_room(ROOM, enabled=False)).enabled
    assert sent(upstream) == ("POST", f"/v2/rooms/{ROOM}", {"enabled": False})
    upstream.says(200, created(enabled=True))
    assert (await hms.switch_room(ROOM, enabled=True)).enabled
    assert sent(upstream) == ("POST", f"/v2/rooms/{ROOM}", {"enabled": True})


@pytest.mark.parametrize("changes", [{"enabled": True}, {"enabled": None}, {"enabled": "false"}, {"id": OTHER_ROOM}])
async def test_a_room_counts_as_disabled_only_if_the_answer_says_so(
    hms: HmsClient, upstream: Upstream, changes: dict[str, Any]
) -> None:
    upstream.says(200, created(**changes))
    with pytest.raises(HmsUnreachable, match="unusable"):
        await hms.switch_room(ROOM, enabled=False)


async def test_an_update_sends_only_the_changed_fields(hms: HmsClient, upstream: Upstream) -> None:
    upstream.says(200, created())
    await hms.update_room(ROOM, description="new")
    assert sent(upstream) == ("POST", f"/v2/rooms/{ROOM}", {"description": "new"})
    upstream.says(404, {"code": 404, "message": "Room not found"})
    with pytest.raises(HmsNotFound):
        await hms.update_room(ROOM, description="new")


async def test_answers_about_another_room_are_refused(hms: HmsClient, upstream: Upstream) -> None:
    upstream.says(200, created(id=OTHER_ROOM))
    for call in (hms.get_room(ROOM), hms.update_room(ROOM, description=""), hms.switch_room(ROOM, enabled=True)):
        with pytest.raises(HmsUnreachable, match="unusable"):
            await call


# --- sessions ---


async def test_the_end_of_a_room_sends_reason_and_lock(hms: HmsClient, upstream: Upstream) -> None:
    upstream.says(200, {"message": "session is ending"})
    assert await hms.end_room(ROOM, reason="over", lock=True) is True
    assert sent(upstream) == ("POST", f"/v2/active-rooms/{ROOM}/end-room", {"reason": "over", "lock": True})


async def test_a_missing_session_is_not_an_error(
    hms: HmsClient, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.says(404, NO_SESSION)
    assert await hms.end_room(ROOM, reason="over", lock=False) is False
    assert await hms.list_peers(ROOM, user_id="u") == ()
    assert await hms.remove_peer(ROOM, PEER, reason="banned") is False
    assert caplog.records == []


async def test_peers_of_other_users_are_left_out(hms: HmsClient, upstream: Upstream) -> None:
    peers = {
        PEER: {"id": PEER, "user_id": "usr 1&role=host", "role": "guest"},
        OTHER_PEER: {"id": OTHER_PEER, "user_id": "usr2"},
        "../chosen by its client": {"user_id": "usr 1&role=host", "joined_at": None},
        "without user": {"id": "x"},
        "no object": None,
        "": {"user_id": "usr 1&role=host"},
    }
    upstream.says(200, {"peers": peers, "unknown": 1})
    assert await hms.list_peers(ROOM, user_id="usr 1&role=host") == (
        HmsPeer(PEER, "usr 1&role=host", "guest"),
        HmsPeer("../chosen by its client", "usr 1&role=host", ""),
        HmsPeer("without user", "", ""),
    )
    assert sent(upstream) == ("GET", f"/v2/active-rooms/{ROOM}/peers?user_id=usr+1%26role%3Dhost", None)
    assert [peer.id for peer in await hms.list_peers(ROOM)] == [*peers][:4]
    assert sent(upstream) == ("GET", f"/v2/active-rooms/{ROOM}/peers", None)


@pytest.mark.parametrize("reply", [{}, {"peers": None}, {"peers": {}}])
async def test_a_session_without_peers_gives_an_empty_tuple(
    hms: HmsClient, upstream: Upstream, reply: dict[str, Any]
) -> None:
    upstream.says(200, reply)
    assert await hms.list_peers(ROOM, user_id="u") == ()


@pytest.mark.parametrize("peers", [[PEER], PEER, 1, True])
async def test_peers_that_are_not_an_object_are_unusable(hms: HmsClient, upstream: Upstream, peers: object) -> None:
    upstream.says(200, {"peers": peers})
    with pytest.raises(HmsUnreachable, match="unusable"):
        await hms.list_peers(ROOM, user_id="u")


async def test_a_removal_names_one_peer_and_never_a_role(hms: HmsClient, upstream: Upstream) -> None:
    """Without a peer id 100ms removes by role (api-reference/active-rooms/remove-peers)."""
    upstream.says(200, {"message": "peer remove request submitted"})
    assert await hms.remove_peer(ROOM, "../odd", reason="banned") is True
    body = {"peer_id": "../odd", "reason": "banned"}
    assert sent(upstream) == ("POST", f"/v2/active-rooms/{ROOM}/remove-peers", body)
    with pytest.raises(ValueError, match="no peer id"):
        await hms.remove_peer(ROOM, "", reason="banned")
    assert upstream.requests == []


@pytest.mark.parametrize("value", BAD_IDS)
async def test_a_malformed_id_never_reaches_a_path(hms: HmsClient, upstream: Upstream, value: str) -> None:
    """CWE-22 in a URL: httpx resolves `..`, and a `?` would cut off the action."""
    upstream.answer = lambda _: httpx.Response(200, json=created())
    for call in (
        hms.get_room(value),
        hms.update_room(value, description=""),
        hms.switch_room(value, enabled=True),
        hms.switch_room(value, enabled=False),
        hms.end_room(value, reason="", lock=True),
        hms.list_peers(value, user_id="u"),
        hms.remove_peer(value, PEER, reason=""),
        hms.get_session(value),
        hms.fetch_template(value),
    ):
        with pytest.raises(ValueError, match="not a 100ms id"):
            await call
    assert upstream.requests == []


# --- templates ---


def role(**permissions: object) -> dict[str, object]:
    return {"name": "r", "permissions": permissions, "priority": 1}


ALL_OFF = {"browserRecording": False, "rtmpStreaming": False, "hlsStreaming": False}
DEFAULTS = ("browserRecording", "rtmpStreaming", "hlsStreaming")


@pytest.mark.parametrize(
    ("given", "privileged_by"),
    [
        (role(**ALL_OFF), ()),
        (role(**ALL_OFF, mute=True, unmute=True, pollRead=True, sendRoomState=True, unknown=True), ()),
        (role(**ALL_OFF, endRoom=True), ("endRoom",)),
        (role(**ALL_OFF, removeOthers=True, changeRole=True), ("removeOthers", "changeRole")),
        (role(**ALL_OFF, endRoom=None, removeOthers=False), ()),
        (role(**ALL_OFF, endRoom="yes"), ("endRoom",)),
        (role(), DEFAULTS),
        (role(hlsStreaming=False, browserRecording=None), ("browserRecording", "rtmpStreaming")),
        ({"permissions": None}, DEFAULTS),
        ({"permissions": []}, DEFAULTS),
        ({}, DEFAULTS),
        (None, DEFAULTS),
    ],
)
async def test_a_role_is_privileged_by_granted_and_by_default_permissions(
    hms: HmsClient, upstream: Upstream, given: object, privileged_by: tuple[str, ...]
) -> None:
    """api-reference/policy/create-template-via-api: three permissions are true unless set."""
    upstream.says(200, {"id": TEMPLATE, "name": "live", "roles": {"Host of 1": given}, "settings": {}})
    template = await hms.fetch_template(TEMPLATE)
    assert (template.id, template.name) == (TEMPLATE, "live")
    assert template.roles == (HmsRole("Host of 1", privileged_by),)
    assert template.role_names == {"Host of 1"}


async def test_another_template_is_refused(hms: HmsClient, upstream: Upstream) -> None:
    upstream.says(200, {"id": ROOM, "roles": {"guest": {}}})
    with pytest.raises(HmsUnreachable, match="unusable"):
        await hms.fetch_template(TEMPLATE)
    upstream.says(404, {"code": 404, "message": "template not found"})
    with pytest.raises(HmsNotFound):
        await hms.fetch_template(TEMPLATE)
