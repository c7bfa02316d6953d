"""The calls of the API as values: method, path, body, and what they answer."""

import uuid
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from gateway.client import shapes

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """One call; its answer is decoded as `answers`.

    `repeatable`: executing it twice is harmless, so it is repeated after a 503 too, and while its first attempt runs.
    `shown` replaces the path in errors if the path contains a secret.
    """

    method: str
    path: str
    answers: Any
    body: Any = None
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    repeatable: bool = False
    shown: str = ""

    @property
    def name(self) -> str:
        return f"{self.method} {self.shown or self.path}"


def get(path: str, answers: type[T], **query: Any) -> Call[T]:
    """Return a call that only reads."""
    given = {name: str(value) for name, value in query.items() if value is not None}
    return Call(method="GET", path=path, answers=answers, query=given, repeatable=True)


def any_call(method: str, path: str, *, body: Any, query: dict[str, Any] | None) -> Call[Any]:
    """Return a call that has no method of its own. A path begins with `/api/`."""
    if not path.startswith("/api/"):
        raise ValueError("the path must begin with /api/")
    given = {name: str(value) for name, value in (query or {}).items() if value is not None}
    return Call(method=method.upper(), path=path, answers=Any, body=body, query=given, repeatable=method == "GET")


def login(username: str, password: str) -> Call[shapes.Tokens]:
    body = {"username": username, "password": password}
    return Call(method="POST", path="/api/auth/login", answers=shapes.Tokens, body=body)


def exchange(token: str) -> Call[shapes.Tokens]:
    return Call(method="POST", path="/api/auth/exchange", answers=shapes.Tokens, body={"token": token})


def refresh(refresh_token: str) -> Call[shapes.Tokens]:
    body = {"refresh_token": refresh_token}
    return Call(method="POST", path="/api/auth/refresh", answers=shapes.Tokens, body=body, repeatable=True)


def logout(refresh_token: str, scope: str) -> Call[None]:
    body = {"refresh_token": refresh_token, "scope": scope}
    return Call(method="POST", path="/api/auth/logout", answers=None, body=body, repeatable=True)


def me() -> Call[shapes.UserAnswer]:
    return get("/api/auth/me", shapes.UserAnswer)


def register(username: str, password: str, display_name: str | None, invite: str | None) -> Call[shapes.UserAnswer]:
    body = given(username=username, password=password, display_name=display_name, invite=invite)
    return Call(method="POST", path="/api/auth/register", answers=shapes.UserAnswer, body=body)


def create_room(idempotency_key: str | None, **room: Any) -> Call[shapes.RoomAnswer]:
    """Without a key a new one is made, so that a repetition of this call creates no second room."""
    headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
    return Call(
        method="POST",
        path="/api/rooms",
        answers=shapes.RoomAnswer,
        body=given(**room),
        headers=headers,
        repeatable=True,
    )


def room_page(cursor: str | None) -> Call[shapes.RoomPage]:
    return get("/api/rooms", shapes.RoomPage, limit=100, cursor=cursor)


def room(room_id: str) -> Call[shapes.RoomAnswer]:
    return get(f"/api/rooms/{part(room_id)}", shapes.RoomAnswer)


def update_room(room_id: str, **changes: Any) -> Call[shapes.RoomAnswer]:
    return Call(method="PATCH", path=f"/api/rooms/{part(room_id)}", answers=shapes.RoomAnswer, body=given(**changes))


def end_room(room_id: str, *, lock: bool, reason: str | None) -> Call[shapes.Ended]:
    body = given(lock=lock, reason=reason)
    return Call(method="POST", path=f"/api/rooms/{part(room_id)}/end", answers=shapes.Ended, body=body)


def mint_token(room_id: str, role: str | None) -> Call[shapes.JoinToken]:
    path = f"/api/rooms/{part(room_id)}/token"
    return Call(method="POST", path=path, answers=shapes.JoinToken, body=given(role=role), repeatable=True)


def member_page(room_id: str, cursor: str | None) -> Call[shapes.MemberPage]:
    return get(f"/api/rooms/{part(room_id)}/members", shapes.MemberPage, limit=100, cursor=cursor)


def set_member(room_id: str, user: str, relation: str) -> Call[shapes.MemberAnswer]:
    path = f"/api/rooms/{part(room_id)}/members/{part(user)}"
    return Call(method="PUT", path=path, answers=shapes.MemberAnswer, body={"relation": relation})


def ban_member(room_id: str, user: str) -> Call[None]:
    return Call(method="DELETE", path=f"/api/rooms/{part(room_id)}/members/{part(user)}", answers=None)


def create_invite(room_id: str, **terms: Any) -> Call[shapes.InviteMade]:
    path = f"/api/rooms/{part(room_id)}/invites"
    return Call(method="POST", path=path, answers=shapes.InviteMade, body=given(**terms))


def invites(room_id: str) -> Call[shapes.InviteList]:
    return get(f"/api/rooms/{part(room_id)}/invites", shapes.InviteList)


def revoke_invite(room_id: str, invite_id: str) -> Call[None]:
    return Call(method="DELETE", path=f"/api/rooms/{part(room_id)}/invites/{part(invite_id)}", answers=None)


def accept_invite(code: str) -> Call[shapes.RoomAnswer]:
    path = f"/api/invites/{part(code)}/accept"
    return Call(method="POST", path=path, shown="/api/invites/{code}/accept", answers=shapes.RoomAnswer, body={})


def usage() -> Call[shapes.Usage]:
    return get("/api/usage", shapes.Usage)


def given(**fields: Any) -> dict[str, Any]:
    """Return the fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None}


def part(text: str) -> str:
    """Return one part of a path, escaped. Raises: ValueError"""
    if text in ("", ".", ".."):  # not escaped, and would change the path
        raise ValueError("an id must not be empty")
    return quote(text, safe="")
