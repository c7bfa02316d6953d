"""Relations to a room over HTTP: changes, hand-over, removals; lists of rooms."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.e2e.checks import assert_problem
from tests.e2e.people import Person, ask, calls_since, join, mint, new_room, newcomers, peers, strike
from tests.servers import Installation

CAST = ("host", "member", "member", "member")


def put(where: Installation, who: Person, room: str, member: str, relation: str) -> httpx.Response:
    return ask(where, who, "PUT", f"/rooms/{room}/members/{member}", {"relation": relation})


def relations(where: Installation, who: Person, room: str) -> list[tuple[str, str]]:
    shown = ask(where, who, "GET", f"/rooms/{room}/members").json()["members"]
    return [(one["user_id"], one["relation"]) for one in shown]


@pytest.fixture(scope="module")
def cast(installation: Installation) -> list[Person]:
    """A host and three members."""
    return newcomers(installation, *CAST)


@pytest.fixture
def room(installation: Installation, cast: list[Person]) -> str:
    """An invited room of the host; the first member is its cohost, the second a participant."""
    room = new_room(installation, cast[0], access="invited")
    for member, relation in zip(cast[1:3], ("cohost", "participant"), strict=True):
        assert put(installation, cast[0], room, member.id, relation).status_code == 200
    return room


def test_members_are_listed_with_names_in_pages(installation: Installation, cast: list[Person], room: str) -> None:
    owner, cohost, member, _ = cast
    every = ask(installation, owner, "GET", f"/rooms/{room}/members").json()
    assert every["next_cursor"] is None
    assert {(one["username"], one["relation"]) for one in every["members"]} == {
        (owner.name, "owner"), (cohost.name, "cohost"), (member.name, "participant"),
    }  # fmt: skip
    seen, cursor = [], ""
    while cursor is not None:
        path = f"/rooms/{room}/members?limit=1" + (f"&cursor={cursor}" if cursor else "")
        page = ask(installation, cohost, "GET", path).json()
        seen += page["members"]
        cursor = page["next_cursor"]
    assert seen == every["members"]
    another = new_room(installation, owner)
    first = ask(installation, owner, "GET", f"/rooms/{room}/members?limit=1").json()["next_cursor"]
    foreign = ask(installation, owner, "GET", f"/rooms/{another}/members?cursor={first}")
    assert_problem(foreign, 400, "invalid_request", field="cursor")


def test_member_list_fails_while_accounts_cannot_be_read(
    installation: Installation, cast: list[Person], room: str
) -> None:
    """An outage must not look as if all members had been deleted."""
    owner, cohost, *_ = cast
    key = f"u:1:{{{cohost.id}}}"
    with installation.valkey.client() as redis:
        redis.rename(key, f"{key}.away")
        gone = ask(installation, owner, "GET", f"/rooms/{room}/members").json()["members"]
        redis.set(key, "not a hash")
        broken = ask(installation, owner, "GET", f"/rooms/{room}/members")
        redis.rename(f"{key}.away", key)
    assert [one["username"] for one in gone if one["user_id"] == cohost.id] == [""]
    assert broken.status_code >= 500


# actor -> target -> which of owner, cohost, participant, viewer, banned they may give: y or 403
@pytest.mark.parametrize(
    ("actor", "target", "may"),
    [
        ("owner", "cohost", "-yyyy"),  # not owner: a member may not create rooms (400)
        ("owner", "participant", "-yyyy"),
        ("owner", "stranger", "-yyyy"),
        ("cohost", "owner", "-----"),
        ("cohost", "participant", "--yyy"),
        ("cohost", "stranger", "--yyy"),
        ("participant", "owner", "-----"),
        ("participant", "cohost", "-----"),
        ("participant", "stranger", "-----"),
    ],
)
def test_relations_can_be_given_according_to_the_table(
    installation: Installation, cast: list[Person], room: str, actor: str, target: str, may: str
) -> None:
    people = dict(zip(("owner", "cohost", "participant", "stranger"), cast, strict=True))
    before = relations(installation, cast[0], room)
    for relation, allowed in zip(("owner", "cohost", "participant", "viewer", "banned"), may, strict=True):
        answer = put(installation, people[actor], room, people[target].id, relation)
        if allowed == "y":
            assert answer.status_code == 200, (relation, answer.text)
            assert answer.json()["member"]["relation"] == relation
        elif actor == "owner":
            assert_problem(answer, 400, "invalid_request", field="relation")
        else:
            assert_problem(answer, 403, "forbidden")
    if "y" not in may:
        assert relations(installation, cast[0], room) == before


def test_users_cannot_change_their_own_relation(installation: Installation, cast: list[Person], room: str) -> None:
    for who in cast[:2]:
        for relation in ("owner", "cohost", "viewer", "banned"):
            assert_problem(put(installation, who, room, who.id, relation), 403, "forbidden")
            assert_problem(put(installation, who, room, who.name, relation), 403, "forbidden")
        assert_problem(ask(installation, who, "DELETE", f"/rooms/{room}/members/{who.id}"), 403, "forbidden")


def test_unknown_user_does_not_become_a_member(installation: Installation, cast: list[Person], room: str) -> None:
    for nobody in ("u" + "a" * 20, "nobody-at-all"):
        assert_problem(put(installation, cast[0], room, nobody, "viewer"), 404, "not_found")
    assert_problem(put(installation, cast[0], room, cast[3].id, "admin"), 400, "invalid_request", field="relation")


def test_room_is_handed_over_only_to_a_user_who_may_own_one(
    installation: Installation, cast: list[Person], room: str
) -> None:
    heir, staff, guest = newcomers(installation, "host", "operator", "guest")
    for nobody in (cast[2], staff, guest):
        answer = put(installation, cast[0], room, nobody.id, "owner")
        assert_problem(answer, 400, "invalid_request", field="relation")
    assert put(installation, cast[0], room, heir.name, "owner").status_code == 200
    assert relations(installation, heir, room)[0] == (heir.id, "owner")
    assert (cast[0].id, "cohost") in relations(installation, heir, room)
    assert_problem(put(installation, cast[0], room, cast[2].id, "cohost"), 403, "forbidden")
    assert_problem(put(installation, cast[0], room, heir.id, "banned"), 403, "forbidden")
    assert put(installation, heir, room, cast[0].id, "banned").status_code == 200
    assert_problem(ask(installation, cast[0], "GET", f"/rooms/{room}"), 404, "not_found")


def test_demotion_removes_all_peers_and_the_next_token_has_the_lower_role(
    installation: Installation, cast: list[Person], room: str
) -> None:
    owner, cohost, member, _ = cast
    token = mint(installation, cohost, room, role="host").json()["token"]
    for number in range(3):
        assert join(installation, token, f"{room}-{number}").status_code == 200
    assert join(installation, mint(installation, member, room).json()["token"], f"{room}-member").status_code == 200
    answer = put(installation, owner, room, cohost.id, "participant")
    assert (answer.status_code, answer.json()["removed"]) == (200, 3)
    assert peers(installation, room) == {f"{room}-member"}
    assert_problem(mint(installation, cohost, room, role="host"), 403, "role_not_allowed")
    assert mint(installation, cohost, room).json()["role"] == "guest"


def test_demotion_without_removal_at_100ms_is_in_force_audited_and_repeatable(
    installation: Installation, cast: list[Person], room: str
) -> None:
    owner, cohost, *_ = cast
    assert join(installation, mint(installation, cohost, room).json()["token"], f"{room}-1").status_code == 200
    strike(installation, "status=400", match=f"/v2/active-rooms/{room}")
    answer = ask(installation, owner, "DELETE", f"/rooms/{room}/members/{cohost.id}")
    assert "The relation has changed nevertheless" in assert_problem(answer, 502, "upstream_error")["detail"]
    assert_problem(mint(installation, cohost, room), 404, "not_found")
    with installation.valkey.client() as redis:
        entries = [fields[b"entry"].decode() for _, fields in redis.xrevrange("audit:1", count=20)]  # type: ignore[union-attr]
    assert any("member.banned" in entry and room in entry and cohost.id in entry for entry in entries)
    assert ask(installation, owner, "DELETE", f"/rooms/{room}/members/{cohost.id}").status_code == 204
    assert peers(installation, room) == set()


def test_repeated_demotion_completes_the_removal_at_100ms(
    installation: Installation, cast: list[Person], room: str
) -> None:
    owner, cohost, *_ = cast
    token = mint(installation, cohost, room, role="host").json()["token"]
    assert join(installation, token, f"{room}-1").status_code == 200
    strike(installation, "status=400", match=f"/v2/active-rooms/{room}")
    assert_problem(put(installation, owner, room, cohost.id, "viewer"), 502, "upstream_error")
    assert peers(installation, room) == {f"{room}-1"}
    again = put(installation, owner, room, cohost.id, "viewer")
    assert (again.status_code, again.json()["removed"]) == (200, 1)
    assert peers(installation, room) == set()


def test_setting_the_same_relation_removes_no_one_in_an_allowed_role(
    installation: Installation, cast: list[Person], room: str
) -> None:
    """A page that saves twice, or a client that repeats a request after a lost answer, must not end a call."""
    owner, _, member, _ = cast
    assert join(installation, mint(installation, member, room).json()["token"], f"{room}-member").status_code == 200
    for relation in ("participant", "viewer", "viewer"):
        answer = put(installation, owner, room, member.id, relation)
        assert (answer.status_code, answer.json()["removed"]) == (200, 0)
    assert peers(installation, room) == {f"{room}-member"}


def test_demotion_that_cannot_be_audited_still_removes_the_user(
    installation: Installation, cast: list[Person], room: str
) -> None:
    """The relation is written before its entry: without the entry the answer is an error, but the user is removed."""
    owner, cohost, *_ = cast
    assert join(installation, mint(installation, cohost, room).json()["token"], f"{room}-1").status_code == 200
    with installation.valkey.client() as redis:
        redis.rename("audit:1", "aside")
        redis.set("audit:1", "no stream")
        try:
            answer = ask(installation, owner, "DELETE", f"/rooms/{room}/members/{cohost.id}")
        finally:
            redis.rename("aside", "audit:1")
    assert_problem(answer, 503, "unavailable")
    assert peers(installation, room) == set()
    assert_problem(mint(installation, cohost, room), 404, "not_found")


def test_promotion_and_a_change_between_equals_do_not_call_100ms(
    installation: Installation, cast: list[Person], room: str
) -> None:
    before = installation.upstream_calls()
    for relation in ("viewer", "participant", "cohost"):
        assert put(installation, cast[0], room, cast[2].id, relation).status_code == 200
    assert calls_since(installation, before) == []


# --- lists ---


def test_pages_miss_no_room_while_rooms_are_created(installation: Installation) -> None:
    [host] = newcomers(installation, "host")
    old = [new_room(installation, host) for _ in range(20)]
    seen: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        making = pool.submit(lambda: [new_room(installation, host) for _ in range(20)])
        cursor = ""
        while cursor is not None:
            page = ask(installation, host, "GET", "/rooms?limit=3" + (f"&cursor={cursor}" if cursor else "")).json()
            seen += [one["id"] for one in page["rooms"]]
            cursor = page["next_cursor"]
        made = making.result()
    assert len(seen) == len(set(seen))
    assert set(old) <= set(seen) <= set(old) | set(made)
    assert [one for one in seen if one in old] == old[::-1]
    every = ask(installation, host, "GET", "/rooms?limit=100").json()["rooms"]
    assert {one["id"] for one in every} == set(old) | set(made)


def test_operators_list_the_rooms_that_a_user_owns_page_by_page(installation: Installation) -> None:
    host, heir, otto = newcomers(installation, "host", "host", "operator")
    kept, given = [new_room(installation, host) for _ in range(3)], new_room(installation, host)
    joined = new_room(installation, heir)
    assert mint(installation, host, joined).status_code == 200  # puts it into their list
    assert put(installation, host, given, heir.id, "owner").status_code == 200

    def owned(owner: str) -> list[tuple[str, str]]:
        found, cursor = [], ""
        while cursor is not None:
            more = f"&cursor={cursor}" if cursor else ""
            page = ask(installation, otto, "GET", f"/rooms?owner={owner}&limit=2{more}").json()
            found += [(one["id"], one["owner"]) for one in page["rooms"]]
            cursor = page["next_cursor"]
        return found

    assert owned(host.id) == owned(host.name.upper()) == [(room, host.name) for room in reversed(kept)]
    assert sorted(owned(heir.id)) == sorted([(given, heir.name), (joined, heir.name)])
    assert owned(f"u{'a' * 20}") == []
    assert_problem(ask(installation, otto, "GET", "/rooms?owner=nobody-at-all"), 400, "invalid_request", field="owner")
    for owner in (host.id, heir.id, "nobody-at-all"):
        refused = assert_problem(ask(installation, host, "GET", f"/rooms?owner={owner}"), 403, "forbidden")
        assert refused["missing_permission"] == "rooms:read-any"
    assert all("owner" not in room for room in ask(installation, host, "GET", "/rooms").json()["rooms"])
