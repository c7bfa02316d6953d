"""What the gateway answers. Fields of a newer gateway are ignored."""

from datetime import datetime
from typing import Any

from msgspec import Struct, field


class User(Struct, frozen=True):
    """An account. `roles` are those of the gateway's policy."""

    id: str
    username: str
    display_name: str = ""
    roles: tuple[str, ...] = ()


class Tokens(Struct, frozen=True):
    """The answer to a login or a refresh. Its `repr` has no token."""

    access_token: str
    refresh_token: str
    expires_in: int
    session_id: str
    user: User

    def __repr__(self) -> str:
        return f"Tokens(user={self.user!r})"


class Room(Struct, frozen=True):
    """A room. `relation` is the caller's, only in the answer for a single room."""

    id: str
    name: str
    owner_id: str
    enabled: bool
    created_at: datetime
    description: str = ""
    access: str = ""
    template: str = ""
    relation: str | None = None


class JoinToken(Struct, frozen=True):
    """A join token of 100ms, for the SDK in an app. Its `repr` has no token."""

    token: str
    room_id: str
    role: str
    user_id: str
    expires_at: datetime

    def __repr__(self) -> str:
        return f"JoinToken(room_id={self.room_id!r}, role={self.role!r}, user_id={self.user_id!r})"


class Member(Struct, frozen=True):
    """A user with a relation to a room: owner, cohost, participant, viewer or banned."""

    user_id: str
    relation: str
    username: str = ""
    display_name: str = ""


class Invite(Struct, frozen=True):
    """An invite without its code."""

    id: str
    relation: str
    uses_left: int
    expires_at: datetime
    guests: bool = False
    by: str = ""


class InviteMade(Struct, frozen=True):
    """A new invite with its code, which is returned only once."""

    code: str
    invite: Invite


class Ended(Struct, frozen=True):
    """`ended`: a session was running and is being ended. `locked`: further joins are refused."""

    ended: bool
    locked: bool


class RateLimit(Struct, frozen=True):
    """The state of one limit: units left, and seconds until more are. See RateLimit in docs/limits.md."""

    policy: str
    remaining: int
    reset_s: int


class RoomAnswer(Struct, frozen=True):
    """The answer about one room."""

    room: Room


class RoomPage(Struct, frozen=True):
    """A page of rooms."""

    rooms: tuple[Room, ...]
    next_cursor: str | None = None


class MemberAnswer(Struct, frozen=True):
    """The answer to a change of a relation."""

    member: Member


class MemberPage(Struct, frozen=True):
    """A page of members."""

    members: tuple[Member, ...]
    next_cursor: str | None = None


class InviteList(Struct, frozen=True):
    """The invites of a room that can still be used."""

    invites: tuple[Invite, ...]


class UserAnswer(Struct, frozen=True):
    """The answer about one user."""

    user: User


class Usage(Struct, frozen=True):
    """The caller's limits and counters, as docs/api.md describes them."""

    user_id: str
    limits: tuple[dict[str, Any], ...] = ()
    quotas: tuple[dict[str, Any], ...] = ()
    leases: tuple[dict[str, Any], ...] = ()
    blocked_until: datetime | None = None
    usage: dict[str, Any] = field(default_factory=dict)
