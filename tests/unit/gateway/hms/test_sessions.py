"""How the client reads sessions: the shapes of the samples, and what is missing from some of them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from gateway.hms import calls
from gateway.hms.client import HmsClient
from gateway.hms.errors import HmsUnreachable
from gateway.hms.replies import HmsSession, HmsStay
from tests.unit.gateway.upstream import ROOM, Upstream

SESSION = "a" * 24
BEGUN_MS = 1_700_000_000_000  # 2023-11-14T22:13:20Z


def session(**changes: Any) -> dict[str, Any]:
    return {
        "id": SESSION, "room_id": ROOM, "active": False, "customer_id": "c", "peers": {},
        "created_at": "2023-11-14T22:13:20Z", "updated_at": "2023-11-14T22:33:20.5Z",
    } | changes  # fmt: skip


async def test_a_session_is_read_with_everybody_who_was_in_it(hms: HmsClient, upstream: Upstream) -> None:
    peers = {
        "p1": {"id": "p1", "user_id": "u1", "role": "host", "joined_at": "2023-11-14T22:13:20.0159Z"},
        "p2": {"joined_at": "2023-11-14T22:13:21Z", "left_at": "2023-11-14T22:14:00.25Z", "user_id": None},
        "clocks of 100ms disagree": {"joined_at": "2023-11-14T22:13:21Z", "left_at": "2023-11-14T22:13:20Z"},
        "never joined": {"joined_at": "0001-01-01T00:00:00Z"},
        "before 1970": {"joined_at": "1900-01-01T00:00:00Z"},
        "no object": None,
    }
    upstream.says(200, session(peers=peers, active=True))
    assert await hms.get_session(SESSION) == HmsSession(
        SESSION, ROOM, True, BEGUN_MS, BEGUN_MS + 1_200_500,
        (
            HmsStay("p1", "u1", "host", BEGUN_MS + 15, None),
            HmsStay("p2", "", "", BEGUN_MS + 1000, BEGUN_MS + 40_250),
            HmsStay("clocks of 100ms disagree", "", "", BEGUN_MS + 1000, BEGUN_MS + 1000),
        ),
    )  # fmt: skip


@pytest.mark.parametrize("peers", [None, {}, [], 1])
async def test_a_session_may_have_no_peers(hms: HmsClient, upstream: Upstream, peers: object) -> None:
    upstream.says(200, session(peers=peers))
    found = await hms.get_session(SESSION)
    assert found is not None
    assert found.stays == ()


async def test_peers_in_an_array_are_read(hms: HmsClient, upstream: Upstream) -> None:
    """api-reference/Sessions/object describes an array."""
    upstream.says(200, session(peers=[{"id": "p1", "joined_at": "2023-11-14T22:13:20Z"}, {}, 1]))
    found = await hms.get_session(SESSION)
    assert found is not None
    assert [stay.peer_id for stay in found.stays] == ["p1"]


async def test_an_unknown_session_is_none(hms: HmsClient, upstream: Upstream) -> None:
    upstream.says(404, {"code": 404, "message": "session not found"})
    assert await hms.get_session(SESSION) is None


@pytest.mark.parametrize("changes", [{"id": "b" * 24}, {"room_id": "../rooms"}, {"created_at": None}])
async def test_something_else_than_the_session_is_unusable(
    hms: HmsClient, upstream: Upstream, changes: dict[str, Any]
) -> None:
    upstream.says(200, session(**changes))
    with pytest.raises(HmsUnreachable, match="unusable"):
        await hms.get_session(SESSION)


async def test_a_session_may_be_larger_than_other_answers(hms: HmsClient, upstream: Upstream) -> None:
    upstream.says(200, session(unknown="x" * calls.MOST_REPLY_BYTES))
    assert await hms.get_session(SESSION) is not None


async def test_a_list_of_sessions_continues_until_a_page_is_short(hms: HmsClient, upstream: Upstream) -> None:
    full = {"data": [session() for _ in range(100)], "last": SESSION}
    upstream.says_in_turn(httpx.Response(200, json=full), httpx.Response(200, json={"data": None, "last": "x"}))
    span = {"after_ms": BEGUN_MS + 1, "before_ms": BEGUN_MS + 86_400_000}
    page, start = await hms.list_sessions(active=False, **span)
    assert (len(page), start) == (100, SESSION)
    assert await hms.list_sessions(active=False, **span, start=start) == ([], "")
    assert dict(upstream.requests[1].url.params) == {
        "active": "false", "after": "2023-11-14T22:13:20.001Z", "before": "2023-11-15T22:13:20.000Z", "limit": "100",
        "start": SESSION,
    }  # fmt: skip


async def test_a_list_that_does_not_advance_ends(hms: HmsClient, upstream: Upstream) -> None:
    upstream.says(200, {"data": [session() for _ in range(100)], "last": SESSION})
    _, following = await hms.list_sessions(active=True, after_ms=0, before_ms=1, start=SESSION)
    assert following == ""
