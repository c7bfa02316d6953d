"""The JSON that several routes and the commands' `--json` share: structs and types of fields."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Literal, Self

import msgspec
from msgspec import Meta

from auth.sessions import Grant
from auth.sessions import Session as Login
from auth.tokens import LoginTokens
from auth.users import User as Account
from gateway.rooms.room import Room as RegisteredRoom
from limits.policy import US_PER_S, Decision

# Types of fields. A field with a narrower meaning has its own description.
Instant = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
Day = Annotated[str, Meta(description="Day, e.g. `2026-11-22`.")]
TimeZone = Annotated[
    str, Meta(description="Time zone of the days, by its IANA name; if it was changed between them, all, with commas.")
]
RoomId = Annotated[str, Meta(description="Id of the room, assigned by 100ms.", examples=["64f0c0ffee64f0c0ffee64f0"])]
UserId = Annotated[str, Meta(description="Id of the user.")]
UserRef = Annotated[str, Meta(description="Id or name of the user.", examples=["hanna"])]
Username = Annotated[str, Meta(description="Name to log in with; not case-sensitive.", examples=["hanna"])]
NewUsername = Annotated[
    Username, Meta(max_length=256, description="3 to 64 characters, no spaces, no slash; unique regardless of case.")
]
DisplayName = Annotated[str, Meta(description="Name shown to people; plain text.", examples=["Hanna"])]
NewDisplayName = Annotated[DisplayName, Meta(max_length=100)]
Password = Annotated[str, Meta(max_length=4096, description="Password.", examples=["correct horse battery staple"])]
NewPassword = Annotated[
    Password, Meta(description="A weak password is refused with `reasons`.", examples=["four glass otters juggle"])
]
Roles = Annotated[list[str], Meta(description="Gateway roles, as the policy defines them.")]
RefreshToken = Annotated[
    str, Meta(description="Gets the next pair of tokens, once. Keep it secret. Not here in cookie mode.")
]
ExpiresAt = Annotated[Instant, Meta(description="When it expires.")]
CreatedAt = Annotated[Instant, Meta(description="When it was created.")]
SessionId = Annotated[str, Meta(description="Id of the session.")]
Relation = Annotated[str, Meta(description="`owner`, `cohost`, `participant`, `viewer` or `banned`.")]
By = Annotated[
    str,
    Meta(description="Id of the user or service key that did it; `cli` for the command line, empty without a login."),
]
NextCursor = Annotated[str, Meta(description="Pass it as `cursor` to get the next page; null on the last page.")]
EXCHANGE_GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"  # RFC 8693
# Always true: clients that were written for the old guide's backend check it.
Success = Annotated[Literal[True], Meta(description="Always true, for clients of the old guide's backend.")]


class Secret(msgspec.Struct):
    """JSON that holds a password or a token; its `repr` does not show them."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"


class User(msgspec.Struct):
    """A user, as they see their own account."""

    id: UserId
    username: Username
    display_name: DisplayName
    roles: Roles

    @classmethod
    def of(cls, user: Account) -> User:
        return cls(user.id, user.username, user.display_name, list(user.roles))


class LoggedIn(Secret):
    """A pair of tokens: one to call the API with, one to get the next pair."""

    access_token: Annotated[str, Meta(description="Goes into the `Authorization` header.")]
    token_type: Annotated[Literal["Bearer"], Meta(description="Always `Bearer`.")]
    expires_in: Annotated[int, Meta(description="Seconds until the access token expires.")]
    refresh_token: RefreshToken | msgspec.UnsetType
    refresh_expires_in: Annotated[int, Meta(description="Seconds until the refresh token expires, if it is not used.")]
    session_id: Annotated[str, Meta(description="Id of this login among the user's sessions.")]
    user: Annotated[User, Meta(description="The user who logged in.")]

    @classmethod
    def of(cls, grant: Grant, user: Account, tokens: LoginTokens) -> LoggedIn:
        return cls(
            access_token=tokens.issue(grant.principal, auth_time=grant.auth_time),
            token_type="Bearer",  # noqa: S106  RFC 6750's name of the scheme
            expires_in=tokens.ttl_s,
            refresh_token=grant.refresh_token,
            refresh_expires_in=grant.refresh_expires_s,
            session_id=grant.principal.sid,
            user=User.of(user),
        )


class Session(msgspec.Struct):
    """A login that has not ended."""

    id: SessionId
    current: Annotated[bool, Meta(description="Whether this request belongs to it.")]
    created_at: CreatedAt
    used_at: Annotated[Instant, Meta(description="When its tokens were last renewed.")]
    expires_at: ExpiresAt
    address: Annotated[str, Meta(description="Client address of the login.")]
    agent: Annotated[str, Meta(description="User-Agent of the login, shortened.")]


class SessionList(msgspec.Struct):
    sessions: Annotated[list[Session], Meta(description="The newest first.")]

    @classmethod
    def of(cls, found: Iterable[Login], current: str) -> SessionList:
        """Return sessions as their reader sees them, whose own session is `current`."""
        return cls(
            [
                Session(
                    id=one.id,
                    current=one.id == current,
                    created_at=iso(one.opened_ms / 1000),
                    used_at=iso(one.used_ms / 1000),
                    expires_at=iso(one.expires_ms / 1000),
                    address=one.address,
                    agent=one.agent,
                )
                for one in found
            ]
        )


class Room(msgspec.Struct):
    """A room at 100ms and what the gateway knows about it."""

    id: RoomId
    name: Annotated[str, Meta(description="Name shown to people; plain text.")]
    description: Annotated[str, Meta(description="Description shown to people; plain text.")]
    access: Annotated[
        str, Meta(description="`open`: all users who may join rooms may join; `invited`: only those with a relation.")
    ]
    template: Annotated[str, Meta(description="Name of a template in the policy.")]
    owner_id: Annotated[str, Meta(description="Id of the user who owns the room.")]
    enabled: Annotated[bool, Meta(description="False: no join tokens are issued and 100ms admits no one.")]
    created_at: CreatedAt
    relation: Annotated[
        str | msgspec.UnsetType | None,
        Meta(
            description="The caller's relation, only in answers about a single room. "
            "Null: a permission, not a relation, gives the caller access."
        ),
    ] = msgspec.UNSET

    owner: Annotated[
        str | msgspec.UnsetType,
        Meta(description="Name of the owner, only in lists for callers with `rooms:read-any`; empty if deleted."),
    ] = msgspec.UNSET

    @classmethod
    def of(cls, room: RegisteredRoom) -> Room:
        texts = (room.name, room.description, room.access, room.template)
        return cls(room.id, *texts, room.owner_id, room.enabled, iso(room.created_ms / 1000))


Remaining = Annotated[int, Meta(description="Units left now.")]
FullAgainAt = Annotated[Instant, Meta(description="When all units are available again, if none is used until then.")]
FullAgainIn = Annotated[float, Meta(description="Seconds until then.")]
Shadow = Annotated[bool, Meta(description="True: it is counted but denies nothing yet.")]


class LimitNow(msgspec.Struct):
    """The current state of a rate limit."""

    name: Annotated[str, Meta(description="Name of the limit in the policy.")]
    rate: Annotated[str, Meta(description="Count per window, e.g. `60/min`.")]
    burst: Annotated[int, Meta(description="Units that can be used at once.")]
    remaining: Remaining
    full_again_at: FullAgainAt
    full_again_in_s: FullAgainIn
    shadow: Shadow


class QuotaNow(msgspec.Struct):
    """The current state of a quota. Its period ends at `full_again_at`."""

    name: Annotated[str, Meta(description="Name of the quota in the policy.")]
    counter: Annotated[
        str,
        Meta(
            description="What is counted, e.g. `tokens.mint`; `minutes`: the user's own, "
            "`owned`: of all people in the rooms that the user owns."
        ),
    ]
    unit: Annotated[
        Literal["requests", "minutes"], Meta(description="What `amount`, `used` and `remaining` count; whole ones.")
    ]
    period: Annotated[str, Meta(description="`day`, `week` or `month`.")]
    time_zone: Annotated[str, Meta(description="Time zone in which periods begin and end.")]
    amount: Annotated[int, Meta(description="Units per period.")]
    used: Annotated[int, Meta(description="Units used in this period.")]
    remaining: Remaining
    full_again_at: FullAgainAt
    full_again_in_s: FullAgainIn
    shadow: Shadow


class LeaseNow(msgspec.Struct):
    """A limit on how many of something exist at once."""

    name: Annotated[str, Meta(description="Name of the lease in the policy.")]
    most: Annotated[int, Meta(description="How many may exist at once.")]
    held: Annotated[int, Meta(description="How many exist now.")]


class LimitsNow(msgspec.Struct):
    """The current state of everything that limits a user."""

    limits: Annotated[list[LimitNow], Meta(description="Rates.")]
    quotas: Annotated[list[QuotaNow], Meta(description="Amounts per calendar period.")]
    leases: Annotated[list[LeaseNow], Meta(description="How many of something may exist at once.")]
    blocked_until: Annotated[Instant | None, Meta(description="When an operator's block ends; null without a block.")]

    @classmethod
    def of(cls, decision: Decision, **more: Any) -> Self:
        """Return the state that a decision found, and the fields that a subclass has beyond it."""
        limits = [
            LimitNow(
                name=state.name,
                rate=state.rate,
                burst=state.burst,
                remaining=state.remaining,
                full_again_at=iso((decision.now_us + state.full_again_us) / US_PER_S),
                full_again_in_s=round(state.full_again_us / US_PER_S, 3),
                shadow=state.limit.shadow,
            )
            for state in decision.limits
        ]
        quotas = [
            QuotaNow(
                name=state.name,
                counter=state.quota.counter,
                unit="minutes" if state.quota.metered else "requests",
                period=state.quota.period,
                time_zone=state.quota.zone,
                amount=state.amount,
                used=state.used,
                remaining=state.remaining,
                full_again_at=iso(state.ends_us / US_PER_S),
                full_again_in_s=round((state.ends_us - decision.now_us) / US_PER_S, 3),
                shadow=state.quota.shadow,
            )
            for state in decision.quotas
        ]
        leases = [LeaseNow(state.name, state.lease.most, state.held) for state in decision.leases]
        until = iso((decision.now_us + decision.block.retry_us) / US_PER_S) if decision.block else None
        return cls(limits, quotas, leases, until, **more)


@lru_cache(maxsize=4096)  # times of rooms recur, and those of tokens within a second: 0.1 us instead of 1.7
def iso(epoch_s: float) -> str:
    """Return an instant as RFC 3339 in UTC, with milliseconds."""
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
