"""The caller of a request, by its credential: a login token, or a service key, which acts for itself or for a user."""

from dataclasses import dataclass, field
from typing import Any

from litestar.types import Scope

from auth.accounts import Accounts
from auth.errors import InvalidToken, RefusedKey, UnknownUser
from auth.key_texts import PREFIX
from auth.names import UID
from auth.service_keys import ServiceKey, ServiceKeys
from auth.tokens import LoginTokens, Principal
from gateway.audit import NO_USER, Audit
from gateway.http.context import context_of
from gateway.http.login_throttle import Throttle
from gateway.http.problems import CHALLENGE, Problem
from gateway.policy.scopes import ACT, ROLE
from gateway.text import FieldError

ACT_AS = "X-Act-As"
_FORM = "The Authorization header must be: Bearer, one space, the login token."
_REFUSED_ONCE_PER_S = 60  # a backend that does not know of a revocation repeats its request
_MOST_REMEMBERED = 10_000  # users for whom keys act


class StaleCaller(InvalidToken):
    """What this process remembers of a service key or a user holds no more."""

    def __init__(self) -> None:
        super().__init__("The service key, or the user for whom it acts, has just changed. Repeat the request.")


@dataclass(repr=False, eq=False)
class Callers:
    """Finds out who a request is from.

    What it remembers of keys and users is confirmed by the guards of the decision on the request (`Sessions.guards`).
    """

    _tokens: LoginTokens
    _keys: ServiceKeys
    _accounts: Accounts
    _throttle: Throttle
    _audit: Audit
    _users: dict[str, Principal] = field(default_factory=dict)

    def login(self, scope: Scope) -> Principal | None:
        """Return the caller whose login token a request has; None for a service key, or if X-Act-As names a user.

        Raises: InvalidToken, TokenExpired, or Problem without a credential
        """
        headers: Any = scope["headers"]  # a list
        fields = dict(headers)  # in C: a loop over all fields took 1 % of a mint
        if b"x-act-as" in fields:
            return None
        credential = _bearer(fields.get(b"authorization")) if len(fields) == len(headers) else bearer_of(scope)
        return None if credential.startswith(PREFIX) else self._tokens.verify(credential)

    async def identify(self, scope: Scope) -> tuple[Principal, Problem | FieldError | None]:
        """Return any caller, and why they may not act for the user whom they name; then they act for themselves.

        Raises: as `login`
        """
        credential, named = bearer_of(scope), _values(scope, b"x-act-as")
        if not credential.startswith(PREFIX):
            return self._tokens.verify(credential), _lacks_scope("Only a service key acts for another user")
        key = await self._verify(credential, context_of(scope).client)
        own = Principal(key.id, "", (ROLE,), 0, key)
        if not named:
            return own, None
        if len(named) > 1:
            return own, FieldError(ACT_AS, "must be given once")
        if ACT not in key.scopes:
            return own, _lacks_scope("This service key does not act for users")
        return await self._for_user(own, key, named[0].decode("latin-1"))

    async def identify_anew(self, scope: Scope, caller: Principal) -> tuple[Principal, Problem | FieldError | None]:
        """Do the same for a caller of whom something has changed since it was remembered."""
        if caller.key is not None:
            self._keys.forget(caller.key.id)
        self._users.pop(caller.uid, None)
        return await self.identify(scope)

    async def _verify(self, credential: str, address: str) -> ServiceKey:
        try:
            key = await self._keys.verify(credential, address)
        except RefusedKey as error:
            if error.why != "malformed":  # whoever sends such texts has never seen a key
                self._audit.note(
                    "key.refused",
                    by=NO_USER,
                    subject=error.key_id,
                    origin=self._throttle.origin(address),
                    once_per_s=_REFUSED_ONCE_PER_S,
                    why=error.why,
                )
            raise
        self._keys.note_use(key)
        return key

    async def _for_user(
        self, own: Principal, key: ServiceKey, uid: str
    ) -> tuple[Principal, Problem | FieldError | None]:
        known = self._users.get(uid)
        if known is None:
            try:
                user = await self._accounts.get(uid) if UID.fullmatch(uid) else None
            except UnknownUser:
                user = None
            if user is None:
                return own, FieldError(ACT_AS, "must be the id of a user; there is no such user")
            if not user.is_active:
                return own, Problem(403, "forbidden", f"The user of {ACT_AS} is disabled.")
            known = Principal(uid, "", user.roles, user.ver)
            if len(self._users) >= _MOST_REMEMBERED:
                self._users.pop(next(iter(self._users)))
            self._users[uid] = known
        return Principal(uid, "", known.roles, known.ver, key), None


def _lacks_scope(text: str) -> Problem:
    return Problem(403, "forbidden", f"{text}: {ACT_AS} needs the scope {ACT}.", missing_permission=ACT)


def _values(scope: Scope, field: bytes) -> list[bytes]:
    return [value for name, value in scope["headers"] if name == field]


def _bearer(value: bytes | None) -> str:
    if value is None:
        raise Problem(401, "invalid_token", "Log in first: the Authorization header is missing.", headers=CHALLENGE)
    scheme, _, credential = value.decode("latin-1").partition(" ")
    if scheme.lower() != "bearer" or not credential:
        raise InvalidToken(_FORM)
    return credential


def login_token_of(scope: Scope) -> str:
    """Return the login token of a request that is not admitted. Raises: as `bearer_of`; Problem for a service key"""
    credential = bearer_of(scope)
    if credential.startswith(PREFIX):
        raise Problem(403, "forbidden", "A service key must not do this: it takes a login.")
    return credential


def bearer_of(scope: Scope) -> str:
    """Return the bearer's credential of a request (RFC 6750, header only).

    Raises: InvalidToken, or Problem without an Authorization header
    """
    values = _values(scope, b"authorization")
    if len(values) > 1:
        raise InvalidToken(_FORM)
    return _bearer(values[0] if values else None)
