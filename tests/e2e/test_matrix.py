"""Every gateway role x relation x room x action over real HTTP, against a table written by hand."""

from __future__ import annotations

import itertools

import httpx
import pytest

from tests.e2e.checks import assert_problem
from tests.e2e.people import Person, newcomers
from tests.servers import Installation

RELATIONS = ("owner", "cohost", "participant", "viewer", "banned", "none")
ROOMS = tuple(itertools.product(("open", "invited"), ("enabled", "disabled")))

# The order of the columns: read the room, mint a token, mint one as host, rename the room, lock or unlock it, end it,
# remove a user from it, list its members, change a member, ban them, make an invite, list invites, revoke one.
# `y` is success, `-` 403, `!` 403 for the 100ms role, `?` 404 as if there were no such room, `x` 409: it is locked.
ACTIONS = (
    "read", "mint", "host", "rename", "lock", "end", "remove",
    "members", "change", "ban", "invite", "invites", "revoke",
)  # fmt: skip
NOTHING, NO_ROOM = "-------------", "?????????????"
IN_CHARGE, IN_CHARGE_LOCKED = "yyyyyyyyyyyyy", "yxxyyyyyyyyyy"
TAKES_PART, TAKES_PART_LOCKED = "yy!----------", "yxx----------"
STAFF_IN_CHARGE = "y--yyyyyyyyyy"  # an operator's relation to a room counts, but they get no join token
STAFF = "y---yyyy---yy"
STAFF_BANNED = "?--??????????"

# role -> relation -> (open enabled, open disabled, invited enabled, invited disabled)
PEOPLE = {
    "owner": (IN_CHARGE, IN_CHARGE_LOCKED, IN_CHARGE, IN_CHARGE_LOCKED),
    "cohost": (IN_CHARGE, IN_CHARGE_LOCKED, IN_CHARGE, IN_CHARGE_LOCKED),
    "participant": (TAKES_PART, TAKES_PART_LOCKED, TAKES_PART, TAKES_PART_LOCKED),
    "viewer": (TAKES_PART, TAKES_PART_LOCKED, TAKES_PART, TAKES_PART_LOCKED),
    "banned": (NO_ROOM, NO_ROOM, NO_ROOM, NO_ROOM),
    "none": (TAKES_PART, TAKES_PART_LOCKED, NO_ROOM, NO_ROOM),
}
OFFICE = {
    "owner": (STAFF_IN_CHARGE,) * 4,
    "cohost": (STAFF_IN_CHARGE,) * 4,
    "participant": (STAFF,) * 4,
    "viewer": (STAFF,) * 4,
    "banned": (STAFF_BANNED,) * 4,
    "none": (STAFF,) * 4,
}
TABLE = {
    "guest": PEOPLE | {"none": (NO_ROOM,) * 4},  # an open room is not open to guests
    "member": PEOPLE,
    "host": PEOPLE,
    "operator": OFFICE,
    "admin": OFFICE,
    "gone": dict.fromkeys(RELATIONS, (NOTHING,) * 4),  # a role that the policy does not have
}
SUCCESS = dict(zip(ACTIONS, (200, 200, 200, 200, 200, 202, 200, 200, 200, 204, 201, 200, 404), strict=True))
REFUSED = {
    "-": (403, "forbidden"),
    "!": (403, "role_not_allowed"),
    "?": (404, "not_found"),
    "x": (409, "room_disabled"),
}
NO_INVITE = "The room has no such invite."  # the answer to users who may revoke one

Place = tuple[str, str, str]  # relation, access, enabled or disabled


@pytest.fixture(scope="module")
def people(installation: Installation) -> dict[str, Person]:
    return dict(zip(TABLE, newcomers(installation, *TABLE), strict=True))


@pytest.fixture(scope="module")
def rooms(installation: Installation, people: dict[str, Person]) -> dict[Place, str]:
    """A room of hanna's for each relation and state; every user has that relation to it."""
    made = {}
    with installation.client_of("hanna") as hanna, installation.valkey.client() as redis:
        for relation, (access, state) in itertools.product(RELATIONS, ROOMS):
            room = hanna.post("/api/rooms", json={"name": "Matrix", "access": access}).json()["room"]["id"]
            if state == "disabled":
                assert hanna.patch(f"/api/rooms/{room}", json={"enabled": False}).status_code == 200
            if relation not in ("owner", "none"):
                redis.hset(f"rr:1:{{{room}}}", mapping={person.id: relation for person in people.values()})
            made[relation, access, state] = room
    return made


@pytest.mark.parametrize("role", TABLE)
def test_answer_to_every_action_on_every_room_matches_the_table(
    installation: Installation, people: dict[str, Person], rooms: dict[Place, str], role: str
) -> None:
    me = people[role]
    [other] = newcomers(installation, "member")
    wrong = []
    with installation.client(me.token) as client, installation.valkey.client() as redis:
        for (relation, access, state), room in rooms.items():
            if relation == "owner":
                redis.hset(f"rm:1:{{{room}}}", "owner", me.id)
            row = TABLE[role][relation][ROOMS.index((access, state))]
            for action, expected in zip(ACTIONS, row, strict=True):
                answer = act(client, action, room, other, enabled=state == "enabled")
                if not is_expected(answer, action, expected):
                    wrong.append((relation, access, state, action, expected, answer.status_code, answer.text))
    assert wrong == []


@pytest.mark.parametrize("role", TABLE)
def test_unknown_room_is_answered_like_one_without_a_relation(
    installation: Installation, people: dict[str, Person], rooms: dict[Place, str], role: str
) -> None:
    """A user who cannot see a room learns nothing from the refusal: same status, same fields, same text."""
    [other] = newcomers(installation, "member")
    for action, expected in zip(ACTIONS, TABLE[role]["banned"][0], strict=True):
        documents = []
        for room in ("f" * 24, "not-a-room", rooms["banned", "open", "enabled"]):
            with installation.client(people[role].token) as client:
                answer = act(client, action, room, other, enabled=True)
            status, code = REFUSED[expected]
            documents.append(assert_problem(answer, status, code) | {"request_id": "", "instance": ""})
        assert documents[0] == documents[1] == documents[2], action


def act(client: httpx.Client, action: str, room: str, other: Person, *, enabled: bool) -> httpx.Response:
    path = f"/api/rooms/{room}"
    match action:
        case "read":
            return client.get(path)
        case "mint":
            return client.post(f"{path}/token", json={})
        case "host":
            return client.post(f"{path}/token", json={"role": "host"})
        case "rename":
            return client.patch(path, json={"name": "Matrix"})
        case "lock":
            return client.patch(path, json={"enabled": enabled})
        case "end" | "remove":
            return client.post(f"{path}/{action}", json={"user": other.id} if action == "remove" else {})
        case "members":
            return client.get(f"{path}/members")
        case "change":
            return client.put(f"{path}/members/{other.id}", json={"relation": "viewer"})
        case "ban":
            return client.delete(f"{path}/members/{other.id}")
        case "invite":
            return client.post(f"{path}/invites", json={})
        case "invites":
            return client.get(f"{path}/invites")
    return client.delete(f"{path}/invites/{'0' * 64}")


def is_expected(answer: httpx.Response, action: str, expected: str) -> bool:
    if action == "revoke" and (expected == "y") != (NO_INVITE in answer.text):
        return False
    if expected == "y":
        return answer.status_code == SUCCESS[action]
    status, code = REFUSED[expected]
    if answer.status_code == status:
        assert_problem(answer, status, code)
    return answer.status_code == status
