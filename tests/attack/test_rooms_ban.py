"""A ban that races mints: no mint succeeds after it, and no peer is left (CWE-362, CWE-367).

A token minted before the ban is valid until it expires; therefore the policy sets its lifetime (docs/policy.md).
"""

from __future__ import annotations

import asyncio
import threading

import pytest

from tests.e2e.checks import assert_problem
from tests.e2e.people import arrive, ask, at_once, calls_since, join, mint, new_room, newcomers, peers, statuses, strike
from tests.e2e.volley import post
from tests.servers import Installation, wait_until


async def test_after_the_answer_to_a_ban_no_mint_succeeds_and_no_peer_is_left(target: Installation) -> None:
    """A ban during 200 mints on two workers, while the user is in the room with five devices."""
    owner, mallory, mira = await arrive(target, "host", "member", "member")
    room = await asyncio.to_thread(new_room, target, owner)
    for number in range(5):
        token = mint(target, mallory, room).json()["token"]
        assert join(target, token, f"{room}-{number}").status_code == 200
    assert join(target, mint(target, mira, room).json()["token"], f"{room}-mira").status_code == 200
    before = target.upstream_calls()
    minting = post(f"/api/rooms/{room}/token", {}, token=mallory.token)
    path = f"/api/rooms/{room}/members/{mallory.id}"
    banning = post(path, {"relation": "banned"}, token=owner.token).replace(b"POST ", b"PUT ", 1)
    # Every connection is open before the first byte is sent, so that the ban really races the mints.
    answers = await at_once(target, *[minting] * 100, banning, *[minting] * 100)
    ban = answers.pop(100)
    assert (ban.status, ban.json()["removed"]) == (200, 5)
    assert set(statuses([*answers])) <= {200, 404}
    assert statuses([*answers]).count(200) > 0
    assert statuses([*await at_once(target, *[minting] * 20)]) == [404] * 20
    assert peers(target, room) == {f"{room}-mira"}
    asked = calls_since(target, before)
    assert asked[0]["path"].endswith(f"/active-rooms/{room}/peers")
    assert f"user_id={mallory.id}" in asked[0]["query"]
    removed = [call["body"]["peer_id"] for call in asked if call["path"].endswith("/remove-peers")]
    assert sorted(removed) == [f"{room}-{number}" for number in range(5)]
    assert_problem(await asyncio.to_thread(mint, target, mallory, room), 404, "not_found")


@pytest.mark.parametrize("lowered", ["banned", "participant"])
def test_registry_is_written_before_100ms_is_called(target: Installation, lowered: str) -> None:
    """While 100ms is still listing the peers, the banned user gets no more tokens."""
    owner, carl = newcomers(target, "host", "member")
    room = new_room(target, owner)
    path = f"/rooms/{room}/members/{carl.id}"
    assert ask(target, owner, "PUT", path, {"relation": "cohost"}).status_code == 200
    token = mint(target, carl, room, role="host").json()["token"]
    assert join(target, token, f"{room}-carl").status_code == 200
    strike(target, "delay=3", match=f"/v2/active-rooms/{room}")
    before, answers = target.upstream_calls(), []
    lowering = threading.Thread(target=lambda: answers.append(ask(target, owner, "PUT", path, {"relation": lowered})))
    lowering.start()
    wait_until(lambda: bool(calls_since(target, before)), "100ms is asked for the peers")
    refused = mint(target, carl, room, role="host")
    assert refused.status_code == (404 if lowered == "banned" else 403)
    assert answers == []
    lowering.join()
    assert (answers[0].status_code, answers[0].json()["removed"]) == (200, 1)
    assert peers(target, room) == set()


async def test_racing_ban_by_cohost_and_promotion_by_owner_are_atomic(target: Installation) -> None:
    """A cohost bans a viewer while the owner promotes them: the ban may come first, but never second."""
    owner, carl, mira = await arrive(target, "host", "member", "member")
    room = await asyncio.to_thread(new_room, target, owner)
    path = f"/rooms/{room}/members"
    assert ask(target, owner, "PUT", f"{path}/{carl.id}", {"relation": "cohost"}).status_code == 200
    for _ in range(20):
        assert ask(target, owner, "PUT", f"{path}/{mira.id}", {"relation": "viewer"}).status_code == 200
        promoting, banning = await asyncio.gather(
            asyncio.to_thread(ask, target, owner, "PUT", f"{path}/{mira.id}", {"relation": "cohost"}),
            asyncio.to_thread(ask, target, carl, "DELETE", f"{path}/{mira.id}"),
        )
        assert promoting.status_code == 200
        assert banning.status_code in (204, 403)
        shown = ask(target, mira, "GET", f"/rooms/{room}").json()
        assert shown["room"]["relation"] == "cohost", (banning.status_code, shown)
