"""The registry of rooms, on fakeredis and with a 100ms that only records its calls."""

import asyncio
import itertools
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from gateway.hms.errors import HmsUnreachable
from gateway.hms.replies import HmsRoom
from gateway.policy.actions import BANNED
from gateway.policy.file import load_policy
from gateway.policy.live import PolicyInForce
from gateway.rooms.registry import Rooms, upstream_name
from gateway.rooms.room import NewRoom, Room
from limits.limiter import Limiter
from tests.fake_redis import fake_redis

Execute = Callable[..., Awaitable[Any]]

OWNER, STRANGER = "u" + "a" * 20, "u" + "b" * 20
TEMPLATE = "89abcdef0123456789abcdef"
POLICY = PolicyInForce(replace(load_policy(), template_ids={"default": TEMPLATE}))
NEW = NewRoom("Große Besprechung", "about", "open", "default")


class FakeHms:
    """Issues room ids in sequence."""

    def __init__(self) -> None:
        self.created: list[dict[str, Any]] = []
        self.error: Exception | None = None

    async def create_room(self, **asked: Any) -> HmsRoom:
        if self.error:
            raise self.error
        self.created.append(asked)
        return HmsRoom(f"{len(self.created):024x}", asked["name"], True)


class Counting:
    """Forwards and records commands."""

    def __init__(self, execute: Execute) -> None:
        self._execute = execute
        self.commands: list[tuple[Any, ...]] = []

    async def __call__(self, *words: Any) -> Any:
        self.commands.append(words)
        return await self._execute(*words)


@pytest.fixture
def execute() -> Counting:
    return Counting(fake_redis().execute_command)


@pytest.fixture
def hms() -> FakeHms:
    return FakeHms()


@pytest.fixture
def rooms(execute: Counting, hms: FakeHms) -> Rooms:
    return Rooms(execute, hms, Limiter(execute), POLICY)  # type: ignore[arg-type]


async def create(rooms: Rooms, uid: str, new: NewRoom, *, lease: str) -> Room:
    """Create a room under a new name at 100ms, as the use case does."""
    room, is_new = await rooms.create(uid, new, lease=lease, upstream=upstream_name(new.name))
    assert is_new
    return room


async def place(execute: Execute, created_ms: int, room: Room, uid: str = OWNER) -> None:
    """Move a room to another time, in every list."""
    await execute("HSET", f"rm:1:{{{room.id}}}", "created_ms", created_ms)
    for key in (f"ur:1:{{{uid}}}", "ra:1"):
        await execute("ZADD", key, created_ms, room.id)


async def pages(rooms: Rooms, uid: str | None, size: int) -> list[list[str]]:
    """Return the ids of every page of a list."""
    seen: list[list[str]] = []
    before: tuple[int, str] | None = None
    while True:
        found, before = await rooms.page(uid, before=before, size=size)
        seen.append([room.id for room in found])
        if before is None:
            return seen
        assert len(seen) < 100


async def ids(rooms: Rooms, uid: str | None, size: int) -> list[str]:
    return list(itertools.chain(*await pages(rooms, uid, size)))


# --- creating ---


async def test_a_new_room_is_registered_with_its_owner(rooms: Rooms, execute: Counting) -> None:
    room = await create(rooms, OWNER, NEW, lease="l")
    found = await rooms.find(room.id, OWNER)
    assert found is not None
    assert (found.room, found.relation) == (room, "owner")
    assert (room.name, room.description, room.access) == (NEW.name, NEW.description, NEW.access)
    assert (room.template, room.owner_id, room.enabled) == (NEW.template, OWNER, True)
    for key in (f"ur:1:{{{OWNER}}}", "ra:1"):
        assert await execute("ZSCORE", key, room.id) == room.created_ms


async def test_100ms_gets_a_generated_name_and_the_policys_settings(rooms: Rooms, hms: FakeHms) -> None:
    room = await create(rooms, OWNER, replace(NEW, size=7), lease="l")
    [asked] = hms.created
    assert re.fullmatch(r"grosse-besprechung\.[0-9a-z]{26}|groe-besprechung\.[0-9a-z]{26}", asked.pop("name"))
    assert asked == {
        "description": "about",
        "template_id": TEMPLATE,
        "region": "auto",
        "size": 7,
        "max_duration_s": 43_200,
    }
    found = await rooms.find(room.id, OWNER)
    assert found is not None
    assert (found.room.size, found.people) == (7, 0)


async def test_a_room_is_found_with_the_people_in_it_if_asked(rooms: Rooms, execute: Counting) -> None:
    room = await create(rooms, OWNER, NEW, lease="l")
    await execute("HSET", f"op:1:{{{room.id}}}", "1:peer", "a stay", "2:peer", "another")
    for asked, people, commands in ((True, 2, 3), (False, 0, 2)):
        execute.commands.clear()
        found = await rooms.find(room.id, OWNER, people=asked)
        assert found is not None
        assert (found.people, len(execute.commands)) == (people, commands)  # the script that charges is the fourth


async def test_rooms_of_the_same_name_are_different_rooms(rooms: Rooms, hms: FakeHms) -> None:
    made = await asyncio.gather(*(create(rooms, OWNER, NEW, lease="l") for _ in range(20)))
    assert len({room.id for room in made}) == 20
    assert len({asked["name"] for asked in hms.created}) == 20


async def test_the_users_own_name_is_kept_unchanged(rooms: Rooms) -> None:
    name = "  Tea & <b>cake</b> 🍰 \u202e"
    room = await create(rooms, OWNER, replace(NEW, name=name), lease="l")
    found = await rooms.find(room.id, OWNER)
    assert found is not None
    assert found.room.name == name


async def test_a_room_that_100ms_did_not_create_is_not_registered(
    rooms: Rooms, hms: FakeHms, execute: Counting
) -> None:
    hms.error = HmsUnreachable("x")
    with pytest.raises(HmsUnreachable):
        await create(rooms, OWNER, NEW, lease="l")
    assert await execute("DBSIZE") == 0


async def test_a_room_that_could_not_be_registered_is_an_error(hms: FakeHms) -> None:
    async def broken(*_: Any) -> Any:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await Rooms(broken, hms, Limiter(broken), POLICY).create(OWNER, NEW, lease="l", upstream="n.1")  # type: ignore[arg-type]


# --- finding ---


async def test_a_user_without_a_relation_finds_a_room_with_none(rooms: Rooms) -> None:
    room = await create(rooms, OWNER, NEW, lease="l")
    found = await rooms.find(room.id, STRANGER)
    assert found is not None
    assert (found.room, found.relation) == (room, None)


@pytest.mark.parametrize("relation", ["cohost", "participant", "viewer", BANNED])
async def test_a_stored_relation_is_found(rooms: Rooms, execute: Counting, relation: str) -> None:
    room = await create(rooms, OWNER, NEW, lease="l")
    await execute("HSET", f"rr:1:{{{room.id}}}", STRANGER, relation)
    found = await rooms.find(room.id, STRANGER)
    assert found is not None
    assert found.relation == found.facts.relation == relation


async def test_an_owner_stays_owner_whatever_relation_is_stored(rooms: Rooms, execute: Counting) -> None:
    room = await create(rooms, OWNER, NEW, lease="l")
    await execute("HSET", f"rr:1:{{{room.id}}}", OWNER, "viewer")
    found = await rooms.find(room.id, OWNER)
    assert found is not None
    assert found.relation == "owner"


async def test_the_facts_of_a_room_are_those_that_a_decision_needs(rooms: Rooms, execute: Counting) -> None:
    room = await create(rooms, OWNER, replace(NEW, access="invited"), lease="l")
    await execute("HSET", f"rm:1:{{{room.id}}}", "enabled", "0")
    found = await rooms.find(room.id, STRANGER)
    assert found is not None
    assert (found.facts.access, found.facts.enabled, found.facts.template) == ("invited", False, "default")


@pytest.mark.parametrize(
    "room_id",
    [
        "",
        "abc",
        "0" * 23,
        "0" * 25,
        "A" * 24,
        "g" * 24,
        "0" * 24 + "\n",
        " " + "0" * 23,
        "..%2f" + "0" * 19,
        "{" + "0" * 22 + "}",
        "٠" * 24,
        "0" * 24 + "/" + "0" * 24,
        "\ud800" * 24,
    ],
)
async def test_a_malformed_room_id_reaches_neither_redis_nor_100ms(
    rooms: Rooms, execute: Counting, hms: FakeHms, room_id: str
) -> None:
    assert await rooms.find(room_id, OWNER) is None
    assert execute.commands == []
    assert hms.created == []


async def test_an_unregistered_room_is_not_found_and_100ms_is_not_called(rooms: Rooms, hms: FakeHms) -> None:
    await create(rooms, OWNER, NEW, lease="l")
    hms.error = AssertionError("100ms was called")
    assert await rooms.find("f" * 24, OWNER) is None


async def test_a_find_issues_two_commands_in_one_turn(rooms: Rooms, execute: Counting) -> None:
    room = await create(rooms, OWNER, NEW, lease="l")
    issued: list[str] = []

    def sent(*words: Any) -> Awaitable[Any]:
        issued.append(words[0])
        return asyncio.ensure_future(execute(*words))

    rooms._execute = sent
    finding = rooms.find(room.id, OWNER)
    assert issued == ["HMGET", "HGET"]  # neither waited for the other
    assert await finding


# --- enlisting ---


async def test_an_open_room_is_added_once_to_the_list_of_a_user_who_joins_it(rooms: Rooms, execute: Counting) -> None:
    room = await create(rooms, OWNER, NEW, lease="l")
    found = await rooms.find(room.id, STRANGER)
    assert found is not None
    await rooms.enlist(found, STRANGER)
    entered = await execute("ZSCORE", f"ur:1:{{{STRANGER}}}", room.id)
    await rooms.enlist(found, STRANGER)
    assert await execute("ZSCORE", f"ur:1:{{{STRANGER}}}", room.id) == entered
    execute.commands.clear()
    await rooms.enlist(found, STRANGER)
    assert execute.commands == []  # so that only a user's first mint in a room takes a second round trip


# --- listing ---


async def test_a_list_has_the_users_own_rooms_newest_first(rooms: Rooms, execute: Counting) -> None:
    mine = [await create(rooms, OWNER, NEW, lease="l") for _ in range(5)]
    for n, room in enumerate(mine):
        await place(execute, 1_800_000_000_000 + n, room)
    theirs = await create(rooms, STRANGER, NEW, lease="l")
    assert await pages(rooms, OWNER, 10) == [[room.id for room in reversed(mine)]]
    assert await pages(rooms, STRANGER, 10) == [[theirs.id]]
    assert sorted(await ids(rooms, None, 4)) == sorted(room.id for room in [*mine, theirs])


async def test_an_empty_list_is_one_empty_page(rooms: Rooms) -> None:
    assert await pages(rooms, OWNER, 10) == [[]]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 11, 12, 13, 100])
async def test_paging_lists_rooms_of_one_millisecond_completely_and_once(
    rooms: Rooms, execute: Counting, size: int
) -> None:
    made = [await create(rooms, OWNER, NEW, lease="l") for _ in range(12)]
    for n, room in enumerate(made):  # seven of one millisecond between others
        await place(execute, 1_800_000_000_000 + (n if n < 3 else 5 if n < 10 else n), room)
    seen = await pages(rooms, OWNER, size)
    assert list(itertools.chain(*seen)) == sorted((room.id for room in made), reverse=True)
    assert all(len(page) == size for page in seen[:-1])
    assert 0 < len(seen[-1]) <= size


async def test_a_room_created_between_two_pages_does_not_move_others(rooms: Rooms, execute: Counting) -> None:
    made = [await create(rooms, OWNER, NEW, lease="l") for _ in range(4)]
    for n, room in enumerate(made):
        await place(execute, 1_800_000_000_000 + n, room)
    first, before = await rooms.page(OWNER, before=None, size=2)
    await place(execute, 1_900_000_000_000, await create(rooms, OWNER, NEW, lease="l"))
    second, _ = await rooms.page(OWNER, before=before, size=2)
    assert [room.id for room in first + second] == [room.id for room in reversed(made)]


async def test_a_listed_room_that_no_longer_exists_is_omitted_without_hiding_others(
    rooms: Rooms, execute: Counting
) -> None:
    made = [await create(rooms, OWNER, NEW, lease="l") for _ in range(6)]
    for n, room in enumerate(made):
        await place(execute, 1_800_000_000_000 + n, room)
    for gone in (made[2], made[3], made[5]):
        await execute("DEL", f"rm:1:{{{gone.id}}}")
    for size in (1, 2, 3, 6):
        assert await ids(rooms, OWNER, size) == [made[4].id, made[1].id, made[0].id]


# --- the name at 100ms ---


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Weekly Sync", "weekly-sync"),
        ("  A  b  ", "a-b"),
        ("Café Zoë", "cafe-zoe"),
        ("ﬁnal １２", "final-12"),
        ("a.b_c/d\\e:f", "a-b-c-d-e-f"),
        ("../../etc/passwd", "etc-passwd"),
        ("<script>alert(1)</script>", "script-alert-1-script"),
        ("---", "room"),
        ("", "room"),
        ("名前", "room"),
        ("🍰", "room"),
        ("\ud800\udfff", "room"),
        ("\0\n", "room"),
        ("x" * 100, "x" * 40),
        ("x" * 39 + " y", "x" * 39),
        ("ẞ" * 3 + "ok", "ok"),
    ],
)
def test_the_upstream_name_is_a_readable_slug_and_a_ulid(name: str, slug: str) -> None:
    made, _, ulid = upstream_name(name).rpartition(".")
    assert made == slug
    assert re.fullmatch(r"[0-9a-hjkmnp-tv-z]{26}", ulid)


def test_the_upstream_name_has_only_characters_that_100ms_allows() -> None:
    for code in [*range(0x3000), 0xD800, 0xFEFF, 0xFFFF, 0x1F370, 0x10FFFF]:
        assert re.fullmatch(r"[a-z0-9.-]{28,67}", upstream_name(f"a{chr(code)}b{chr(code)}")), hex(code)


def test_every_upstream_name_is_unique() -> None:
    assert len({upstream_name("same") for _ in range(5000)}) == 5000
