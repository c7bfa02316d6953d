"""/api/rooms/{id}/members: who has which relation to a room."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

import msgspec
from litestar import delete, get, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from auth.accounts import Accounts, User
from auth.errors import UnknownUser
from gateway.audit import Audit
from gateway.http.access import needs
from gateway.http.context import Call
from gateway.http.problems import Problem
from gateway.policy.decide import decide_member
from gateway.policy.live import PolicyInForce
from gateway.policy.model import BANNED
from gateway.rooms.relations import InCharge, Members, NotInCharge, Overtaken
from gateway.routes.services import Services
from gateway.text import FieldError

_UPSTREAM = ("upstream_error", "upstream_timeout", "upstream_busy")
_ATTEMPTS = 3  # to change a relation that somebody else is changing
_LOWERED = "your role in this room has changed"
_OUT = "you have been banned from this room"


class SetMember(msgspec.Struct, forbid_unknown_fields=True):
    relation: Literal["owner", "cohost", "participant", "viewer", "banned"]


class Member(msgspec.Struct):
    """Somebody's relation to a room. No name: the account was deleted."""

    user_id: str
    username: str
    display_name: str
    relation: str


class MemberList(msgspec.Struct):
    members: list[Member]
    next_cursor: str | None


class MemberSet(msgspec.Struct):
    """`removed` peers of the user were thrown out of the running session."""

    member: Member
    removed: int


@get("/api/rooms/{room_id:str}/members", opt=needs("members.read"))
async def list_members(
    room_id: FromPath[str],
    request: Call,
    services: NamedDependency[Services],
    limit: Annotated[int, QueryParameter(ge=1, le=500)] = 100,
    cursor: Annotated[str | None, QueryParameter(max_length=256)] = None,
) -> MemberList:
    """List everybody with a relation of his own, banned ones too, the owner first. Who merely may join is not in it."""
    found, _ = request.auth.room()
    after = 0
    if cursor:
        of, place = services.cursors.open("members", cursor)
        if of != room_id:
            raise FieldError("cursor", "is not a cursor of this list")
        after = int(place)
    everybody = await services.members.all(found.room)
    shown = everybody[after : after + limit]
    users = await asyncio.gather(*(_user(services.accounts, uid) for uid, _ in shown))
    following = services.cursors.seal("members", room_id, after + limit) if len(everybody) > after + limit else None
    listed = [_member(uid, relation, user) for (uid, relation), user in zip(shown, users, strict=True)]
    return MemberList(listed, following)


@put(
    "/api/rooms/{room_id:str}/members/{user:str}",
    opt=needs("members.change", refuses=("not_found", "busy", *_UPSTREAM)),
)
async def set_member(
    room_id: FromPath[str],
    user: FromPath[str],
    data: JSONBody[SetMember],
    request: Call,
    services: NamedDependency[Services],
) -> MemberSet:
    """Give a user (by id or name) a relation; `owner` hands the room over, `banned` throws him out as well.

    Who thereby loses a 100ms role is thrown out of the session, and may join again in a role he has.
    """
    target = await services.accounts.lookup(user)
    if data.relation == "owner":
        removed = await _hand_over(request, services.members, services.policy, services.audit, target)
    else:
        if services.policy.now.guests.role in target.roles:
            await _allowed_to_guests(request, services.members, target, data.relation)
        if data.relation == BANNED:
            _bannable(services.policy, target)
        removed = await _change(request, services.members, services.audit, target, data.relation)
    return MemberSet(_member(target.id, data.relation, target), removed)


@delete(
    "/api/rooms/{room_id:str}/members/{user:str}",
    opt=needs("members.change", refuses=("not_found", "busy", *_UPSTREAM)),
    status_code=204,
)
async def ban_member(
    room_id: FromPath[str],
    user: FromPath[str],
    request: Call,
    services: NamedDependency[Services],
) -> None:
    """Ban a user: no join token is minted for him any more, then he is thrown out. One he has lives until its end."""
    target = await services.accounts.lookup(user)
    _bannable(services.policy, target)
    await _change(request, services.members, services.audit, target, BANNED)


async def _allowed_to_guests(request: Call, members: Members, target: User, wanted: str) -> None:
    """Refuse to make more of a guest than the invite did: a member of other rooms, or a cohost. Raises: Problem"""
    if wanted == "cohost":
        raise FieldError("relation", "a guest is a participant or a viewer")
    found, _ = request.auth.room()
    if wanted != BANNED and await members.relation(found.room, target.id) is None:
        raise FieldError("relation", "a guest has the one room that he was invited to")


def _bannable(policy: PolicyInForce, target: User) -> None:
    """Refuse to ban whoever may end any room: a ban beats every permission, and no room may escape its operators."""
    if "rooms:end-any" in policy.now.permissions(target.roles):
        raise Problem(403, "forbidden", "You may not ban this user.")


async def _change(request: Call, members: Members, audit: Audit, target: User, wanted: str) -> int:
    """Write a relation and its audit entry, then throw out whom it lowers; return how many peers that were.

    Raises:
        Problem: the caller may not do that, or it changed under his hands again and again.
        HmsError: the relation stands, but the user was not thrown out.
    """
    found, relation = request.auth.room()
    room, uid = found.room, request.user.uid
    for _ in range(_ATTEMPTS):
        before = await _allowed(request, members, target, wanted)
        try:
            sparing = await members.set(room, target.id, wanted, before=before, by=InCharge(uid, relation or ""))
        except Overtaken:
            continue
        except NotInCharge as error:
            raise Problem(403, "forbidden", str(error)) from error
        said = {"by": uid, "subject": target.id, "room": room.id, "was": before or "", "now": wanted}
        removed = 0
        try:
            await audit.record("member.banned" if wanted == BANNED else "member.changed", **said)
        finally:  # the relation stands, so he goes whether that is written down or not
            if sparing is not None:
                reason = _OUT if wanted == BANNED else _LOWERED
                removed = await members.remove_peers(room, target.id, reason=reason, sparing=sparing)
        return removed
    raise Problem(503, "busy", "Somebody else is changing this member. Try again.", headers={"Retry-After": "1"})


async def _hand_over(request: Call, members: Members, policy: PolicyInForce, audit: Audit, target: User) -> int:
    found, _ = request.auth.room()
    room, uid = found.room, request.user.uid
    await _allowed(request, members, target, "owner")
    if "rooms:create" not in policy.now.permissions(target.roles) or not target.is_active:
        raise FieldError("relation", "cannot be owner: that takes an active user who may create rooms")
    try:
        lowered = await members.hand_over(room, target.id)
    except NotInCharge as error:
        raise Problem(403, "forbidden", str(error)) from error
    removed = 0
    try:
        await audit.record("member.changed", by=uid, subject=target.id, room=room.id, now="owner")
    finally:  # nobody can repeat a hand-over
        if lowered:
            removed = await members.remove_peers(room, uid, reason=_LOWERED)
    return removed


async def _allowed(request: Call, members: Members, target: User, wanted: str) -> str | None:
    """Return the relation a user has, if the caller may give him another one. Raises: Problem"""
    if target.id == request.user.uid:
        raise Problem(403, "forbidden", "Nobody changes his own relation; hand the room over, or let another do it.")
    found, actor = request.auth.room()
    before = await members.relation(found.room, target.id)
    verdict = decide_member(actor or "", before, wanted)
    if not verdict.allowed:
        raise Problem(403, verdict.code, verdict.reason)
    return before


async def _user(accounts: Accounts, uid: str) -> User | None:
    try:
        return await accounts.get(uid)
    except UnknownUser:
        return None


def _member(uid: str, relation: str, user: User | None) -> Member:
    if user is None:
        return Member(uid, "", "", relation)
    return Member(uid, user.username, user.display_name, relation)
