"""How things look in JSON: the answers of more than one route, and of the commands' `--json`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

import msgspec

from auth.sessions import Grant
from auth.tokens import LoginTokens
from auth.users import User as Account
from gateway.rooms.room import Room as RegisteredRoom
from limits.policy import US_PER_S, Decision


class User(msgspec.Struct):
    """Somebody who is logged in."""

    id: str
    username: str
    display_name: str
    roles: list[str]

    @classmethod
    def of(cls, user: Account) -> User:
        return cls(user.id, user.username, user.display_name, list(user.roles))


class LoggedIn(msgspec.Struct):
    """An access token for the `Authorization` header, and the refresh token that gets the next; lives in seconds."""

    access_token: str
    token_type: Literal["Bearer"]
    expires_in: int
    refresh_token: str
    refresh_expires_in: int
    session_id: str
    user: User

    def __repr__(self) -> str:
        return "LoggedIn(...)"

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


class Room(msgspec.Struct):
    """A room; `id` is 100ms's, `name` its owner's. `relation` is the caller's, where the answer is about one room."""

    id: str
    name: str
    description: str
    access: str
    template: str
    owner_id: str
    enabled: bool
    created_at: str
    relation: str | msgspec.UnsetType | None = msgspec.UNSET

    @classmethod
    def of(cls, room: RegisteredRoom) -> Room:
        return cls(
            id=room.id,
            name=room.name,
            description=room.description,
            access=room.access,
            template=room.template,
            owner_id=room.owner_id,
            enabled=room.enabled,
            created_at=iso(room.created_ms / 1000),
        )


class LimitNow(msgspec.Struct):
    """A limit as it stands: `remaining` requests at once; all of the burst again at `full_again_at`."""

    name: str
    rate: str
    burst: int
    remaining: int
    full_again_at: str
    full_again_in_s: float
    shadow: bool


class QuotaNow(msgspec.Struct):
    """A quota as it stands in its current period, which ends at `full_again_at`."""

    name: str
    counter: str
    period: str
    time_zone: str
    amount: int
    used: int
    remaining: int
    full_again_at: str
    full_again_in_s: float
    shadow: bool


class LeaseNow(msgspec.Struct):
    """How many of something are held at once, of how many."""

    name: str
    most: int
    held: int


class LimitsNow(msgspec.Struct):
    """Everything that limits a user, as it stands."""

    limits: list[LimitNow]
    quotas: list[QuotaNow]
    leases: list[LeaseNow]
    blocked_until: str | None

    @classmethod
    def of(cls, decision: Decision) -> LimitsNow:
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
        return cls(limits, quotas, leases, until)


def iso(epoch_s: float) -> str:
    """Return an instant as RFC 3339 in UTC, with milliseconds."""
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
