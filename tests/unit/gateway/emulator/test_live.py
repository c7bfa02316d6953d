"""Sessions and the events that report them."""

import asyncio
from typing import Any

import msgspec
import pytest

from gateway.emulator import wire
from gateway.emulator.errors import ApiError
from gateway.emulator.live import Joining, LiveRooms, PeerChanges
from gateway.emulator.records import Room, Template
from gateway.emulator.state import Workspace
from gateway.emulator.tokens import AppClaims
from tests.unit.gateway.local_100ms import TEMPLATE

ROOM = "a" * 24


class Stage:
    """One room, with a record of its events."""

    def __init__(self, **room: Any) -> None:
        self.workspace = Workspace("key", None)
        now = self.workspace.now()
        roles = {name: {"publishParams": {}} for name in ("guest", "host")}
        body = {"name": "t", "roles": roles}
        self.workspace.templates[TEMPLATE] = Template(id=TEMPLATE, created_at=now, updated_at=now, body=body)
        self.workspace.put_room(Room(id=ROOM, name="r", template_id=TEMPLATE, region="auto", created_at=now, **room))
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self.live = LiveRooms(self.workspace, lambda room, kind, data: self.seen.append((kind, data)))

    async def join(self, peer_id: str, role: str = "guest") -> None:
        await self.live.join(AppClaims(ROOM, role, f"u-{peer_id}"), Joining(peer_id=peer_id, name="N", metadata="M"))

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.seen]


R = {"room_id", "room_name", "template_id"}
P = {"peer_id", "user_id", "user_name", "user_data", "role", "type"}
IN = {"session_id", "session_started_at"}


async def test_events_of_a_session_have_their_documented_fields() -> None:
    stage = Stage()
    await stage.join("p1")
    await stage.join("p2")
    await stage.live.update_peer(ROOM, "p1", PeerChanges(role="host"))
    await stage.live.remove(ROOM, peer_id="p2", role="", reason="noise")
    await stage.live.leave("p1", "client request")
    assert [(kind, data.keys()) for kind, data in stage.seen] == [
        ("session.open.success", R | IN),
        ("peer.join.success", R | P | IN | {"joined_at"}),
        ("peer.join.success", R | P | IN | {"joined_at"}),
        ("role.change.success", R | (P - {"type"}) | IN | {"joined_at", "previous_role", "role_changed_at"}),
        ("peer.leave.success", R | P | IN | {"joined_at", "left_at", "duration", "reason", "message"}),
        ("peer.leave.success", R | P | IN | {"joined_at", "left_at", "duration", "reason", "message"}),
        ("session.close.success", R | IN | {"session_stopped_at", "session_duration"}),
    ]
    change, kick, leave, close = (data for _, data in stage.seen[3:])
    assert (change["previous_role"], change["role"]) == ("guest", "host")
    assert (kick["reason"], kick["message"], kick["user_data"]) == ("peer kicked", "noise", "M")
    assert (leave["reason"], leave["message"], leave["role"]) == ("client request", "", "host")
    assert close["session_duration"] == 0
    assert wire.instant_ns(leave["joined_at"]) <= wire.instant_ns(leave["left_at"])
    assert leave["left_at"] == close["session_stopped_at"]


async def test_events_of_a_room_that_is_ended_and_locked() -> None:
    stage = Stage()
    await stage.join("p1")
    await stage.join("p2")
    await stage.live.end(ROOM, lock=True, reason="over")
    assert stage.kinds()[3:] == [
        "room.end.success",
        "peer.leave.success",
        "peer.leave.success",
        "session.close.success",
    ]
    end, leave = stage.seen[3][1], stage.seen[4][1]
    assert end.keys() == R | IN | {"peer_id", "user_id", "user_name", "role", "lock_room", "reason", "source"}
    assert (end["lock_room"], end["reason"], end["source"], end["peer_id"]) == (True, "over", "api", "")
    assert (leave["reason"], leave["message"]) == ("server removed peer", "over")
    assert stage.workspace.rooms[ROOM].enabled is False


async def test_events_of_failures() -> None:
    stage = Stage()
    with pytest.raises(ApiError):
        await stage.join("p0", role="nobody")
    with pytest.raises(ApiError):
        await stage.live.end(ROOM, lock=False, reason="")
    await stage.join("p1")
    with pytest.raises(ApiError):
        await stage.join("p1")
    await stage.live.leave("p1", "client request")
    with pytest.raises(ApiError):
        await stage.live.leave("p1", "client request")
    with pytest.raises(ApiError):
        await stage.live.leave("never seen", "client request")
    failures = [(kind, data) for kind, data in stage.seen if kind.endswith("failure")]
    assert [kind for kind, _ in failures] == [
        "peer.join.failure",
        "room.end.failure",
        "peer.join.failure",
        "peer.leave.failure",
    ]
    refused, end, twice, stray = (data for _, data in failures)
    assert refused.keys() == R | P | {"joined_at", "error_message"}
    assert (refused["error_message"], refused["joined_at"]) == ("role not allowed", "0001-01-01T00:00:00Z")
    assert (end["error_code"], end["error_message"]) == (404, "session not found")
    assert twice["error_message"] == "duplicate peer id"
    assert (stray["error_message"], stray["duration"], "session_id" in stray) == ("peer not joined", 0, False)


async def test_a_change_to_a_full_role_emits_a_failure() -> None:
    stage = Stage()
    stage.workspace.templates[TEMPLATE].roles["host"]["maxPeerCount"] = 1
    await stage.join("p1", role="host")
    await stage.join("p2")
    with pytest.raises(ApiError, match="role limit reached"):
        await stage.live.update_peer(ROOM, "p2", PeerChanges(role="host"))
    kind, data = stage.seen[-1]
    assert kind == "role.change.failure"
    assert (data["role"], data["error_message"]) == ("host", "role limit reached")
    assert "previous_role" not in data


async def test_a_session_ends_after_its_maximum_duration() -> None:
    stage = Stage(max_duration_seconds=0.05)
    await stage.join("p1")
    await asyncio.sleep(0.2)
    assert stage.kinds()[2:] == ["peer.leave.success", "session.close.success"]
    with pytest.raises(ApiError, match="session not found"):
        stage.live.session_in(ROOM)
    await stage.join("p1")  # the next session has its full duration
    assert stage.live.session_in(ROOM).active


async def test_the_timer_of_an_ended_session_does_not_end_the_next_one() -> None:
    stage = Stage()
    await stage.join("p1")
    timer = stage.live._ends[ROOM]
    await stage.live.leave("p1", "client request")
    assert timer.cancelled()
    await stage.join("p1")
    assert not stage.live._ends[ROOM].cancelled()


async def test_closing_ends_every_session_without_events() -> None:
    stage = Stage()
    await stage.join("p1")
    session = stage.live.session_in(ROOM)
    emitted = len(stage.seen)
    await stage.live.close()
    assert (session.active, session.connected(), len(stage.seen)) == (False, [], emitted)
    assert wire.instant_ns(session.peers["p1"].left_at or "") >= wire.instant_ns(session.created_at)


async def test_a_rejoin_under_the_same_id_replaces_the_first_entry() -> None:
    stage = Stage()
    await stage.join("p1")
    await stage.join("p2")
    await stage.live.leave("p1", "client request")
    first = stage.live.session_in(ROOM).peers["p1"]
    await stage.join("p1")
    again = stage.live.session_in(ROOM).peers["p1"]
    assert first.left_at is not None
    assert again.left_at is None
    assert msgspec.structs.asdict(again)["joined_at"] != first.joined_at
