"""The services that the routes call, by name and type."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, TypeAlias

import msgspec
from litestar.di import NamedDependency
from litestar.params import FromPath, HeaderParameter

from auth.accounts import Accounts
from auth.service_keys import ServiceKeys
from auth.sessions import Grant, Sessions
from auth.tokens import LoginTokens, Principal
from auth.users import User
from gateway.accounts.actor import Actor
from gateway.accounts.admin import UserAdmin
from gateway.accounts.exchange import Exchange
from gateway.accounts.limits import UserLimits
from gateway.accounts.logins import Logins
from gateway.accounts.password_change import PasswordChange
from gateway.accounts.registration import Registration
from gateway.accounts.service_keys import KeyAdmin
from gateway.audit import Audit
from gateway.hms.client import HmsClient
from gateway.hms.tokens import HmsTokens
from gateway.http.context import Call
from gateway.http.cookies import FIELD, RefreshCookies
from gateway.http.cursors import Cursors
from gateway.http.login_throttle import Throttle
from gateway.metering.budgets import Budgets
from gateway.metering.intake import Intake, SecretCheck
from gateway.metering.webhooks import Webhooks
from gateway.metrics.monitor import Monitor
from gateway.outgoing.control import Outgoing
from gateway.overview.forecast import Forecasts
from gateway.overview.live import Live
from gateway.overview.presence import Presence
from gateway.overview.totals import Totals
from gateway.policy.live import PolicyInForce
from gateway.redis.topology import AnyStore
from gateway.rooms.change import RoomControl
from gateway.rooms.create import RoomCreation
from gateway.rooms.guest_accounts import GuestBook
from gateway.rooms.invites import RoomInvites
from gateway.rooms.membership import Membership
from gateway.rooms.registry import Rooms
from gateway.rooms.relations import Members
from gateway.rooms.room import Caller
from gateway.routes.schemas import LoggedIn, RoomId, UserRef
from gateway.usage.feed import Feed
from gateway.usage.reports import Reports
from gateway.usage.subjects import Subjects
from limits.derived import Derived
from limits.limiter import Limiter


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """One object per process, injected into every handler. `report_...` have a connection that delays no decision."""

    store: AnyStore
    report_store: AnyStore
    policy: PolicyInForce
    audit: Audit
    limiter: Limiter
    derived: Derived
    accounts: Accounts
    sessions: Sessions
    tokens: LoginTokens
    keys: ServiceKeys
    throttle: Throttle
    cookies: RefreshCookies
    password_change: PasswordChange
    registration: Registration
    logins: Logins
    exchange: Exchange
    user_admin: UserAdmin
    user_limits: UserLimits
    key_admin: KeyAdmin
    rooms: Rooms
    creation: RoomCreation
    control: RoomControl
    members: Members
    membership: Membership
    invites: RoomInvites
    guests: GuestBook
    budgets: Budgets
    hms: HmsClient
    hms_tokens: HmsTokens
    cursors: Cursors
    report_accounts: Accounts
    subjects: Subjects
    report_audit: Audit
    reports: Reports
    totals: Totals
    presence: Presence
    forecasts: Forecasts
    live: Live
    secret_check: SecretCheck
    intake: Intake
    webhooks: Webhooks
    outgoing: Outgoing
    feed: Feed
    feed_source: str
    monitor: Monitor | None
    openapi_document: Callable[[], bytes]

    def caller(self, request: Call) -> Caller:
        """Return a caller as someone who acts on the room of the path."""
        _, relation = request.auth.room()
        is_operator = "rooms:end-any" in self.policy.of(request.user).permissions(request.user.roles)
        return Caller(request.user.uid, relation or "", is_operator)

    def logged_in(self, grant: Grant, user: User, *, by_cookie: bool) -> tuple[LoggedIn, Mapping[str, str]]:
        """Return the JSON of a login, and the header fields that go with it: in cookie mode the refresh token."""
        login = LoggedIn.of(grant, user, self.tokens)
        if not by_cookie:
            return login, {}
        login.refresh_token = msgspec.UNSET
        return login, self.cookies.kept(grant)

    def actor(self, principal: Principal) -> Actor:
        """Return a caller as an administrator under the current policy."""
        return Actor.of(principal, self.policy.of(principal))


Injected: TypeAlias = NamedDependency[Services]
"""The type of a handler's parameter `services`."""

# Here and not in `schemas`: the command line imports that one, and starts 0.1 s faster without Litestar.
RoomInPath: TypeAlias = FromPath[RoomId]
UserInPath: TypeAlias = FromPath[UserRef]
CookieMode: TypeAlias = Annotated[
    str | None,
    HeaderParameter(
        name=FIELD,
        description="`cookie`: for browsers, if GATEWAY_COOKIES is on. The refresh token is in a cookie that scripts "
        "cannot read, and not in the body.",
    ),
]
