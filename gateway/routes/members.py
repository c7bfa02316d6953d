"""/api/rooms/{id}/members: the relations of users to a room."""

from typing import Annotated, Literal

import msgspec
from litestar import delete, get, put
from litestar.params import JSONBody
from msgspec import Meta

from auth.users import User
from gateway.http.access import needs
from gateway.http.context import Call
from gateway.http.cursors import PageCursor, PageSize
from gateway.policy.actions import BANNED
from gateway.routes import schemas as shapes
from gateway.routes.services import Injected, RoomInPath, Services, UserInPath
from gateway.text import FieldError

_UPSTREAM = ("upstream_error", "upstream_timeout", "upstream_busy")


class SetMember(msgspec.Struct, forbid_unknown_fields=True):
    relation: Annotated[
        Literal["owner", "cohost", "participant", "viewer", "banned"],
        Meta(description="`owner` hands the room over; `banned` also removes the user.", examples=["cohost"]),
    ]


class Member(msgspec.Struct):
    """A user's relation to a room."""

    user_id: shapes.UserId
    username: Annotated[str, Meta(description="Name of the user; empty if the account was deleted.")]
    display_name: shapes.DisplayName
    relation: shapes.Relation


class MemberList(msgspec.Struct):
    members: Annotated[list[Member], Meta(description="The owner first.")]
    next_cursor: shapes.NextCursor | None


class MemberSet(msgspec.Struct):
    member: Annotated[Member, Meta(description="The member's current state.")]
    removed: Annotated[int, Meta(description="How many peers of the user were removed from the session.")]


@get("/api/rooms/{room_id:str}/members", opt=needs("members.read"))
async def list_members(
    room_id: RoomInPath, request: Call, services: Injected, limit: PageSize = 100, cursor: PageCursor = None
) -> MemberList:
    """List all users with a stored relation, including banned ones. Others who may join are not listed."""
    found, _ = request.auth.room()
    after = 0
    if cursor:
        of, place = services.cursors.open("members", cursor)
        if of != room_id:
            raise FieldError("cursor", "is not a cursor of this list")
        after = int(place)
    members = await services.members.all(found.room)
    shown = members[after : after + limit]
    users = await services.accounts.several([uid for uid, _ in shown])
    following = services.cursors.seal("members", room_id, after + limit) if len(members) > after + limit else None
    return MemberList([_member(uid, relation, users.get(uid)) for uid, relation in shown], following)


@put(
    "/api/rooms/{room_id:str}/members/{user:str}",
    opt=needs("members.change", refuses=("not_found", "busy", *_UPSTREAM)),
)
async def set_member(
    room_id: RoomInPath, user: UserInPath, data: JSONBody[SetMember], request: Call, services: Injected
) -> MemberSet:
    """Give a user a relation to a room. `owner` hands the room over, `banned` bans the user.

    Users who lose a 100ms role are removed from the session and may join again in a role they have.
    """
    target, removed = await _change(request, services, user, data.relation)
    return MemberSet(_member(target.id, data.relation, target), removed)


@delete(
    "/api/rooms/{room_id:str}/members/{user:str}",
    opt=needs("members.change", refuses=("not_found", "busy", *_UPSTREAM)),
    status_code=204,
)
async def ban_member(room_id: RoomInPath, user: UserInPath, request: Call, services: Injected) -> None:
    """Ban a user: they get no more join tokens and are removed. A token they already have is valid until it expires."""
    await _change(request, services, user, BANNED)


async def _change(request: Call, services: Services, user: str, wanted: str) -> tuple[User, int]:
    found, _ = request.auth.room()
    return await services.membership.change(found.room, user, wanted, by=services.caller(request))


def _member(uid: str, relation: str, user: User | None) -> Member:
    if user is None:
        return Member(uid, "", "", relation)
    return Member(uid, user.username, user.display_name, relation)
