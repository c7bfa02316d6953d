"""Verifies tokens of identity providers (OpenID Connect Core 1.0, RFC 7519, hardened per RFC 8725).

A provider is chosen by the exact issuer of the token, its keys come from that provider only, and the key decides which
algorithm may be used. Who a person is, is decided by issuer and subject, never by an e-mail address.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import ForeignTokenRefused
from .jws import Jws, Malformed, read_jws
from .key_sets import KeySet
from .provider_keys import Fetch, FixedKeys, RemoteKeys
from .users import ExternalId

LEEWAY_S = 30  # between the clocks of a provider and ours
MOST_LIFETIME_S = 86_400
MOST_LOGOUT_AGE_S = 600
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
_MOST_CLAIM_CHARS = 255  # of `sub` (OpenID Connect Core section 2), here also of `sid` and `jti`
_MOST_ROLES = 1000
# Parameters that would bring their own key, change what is signed, or must be understood (RFC 7515 section 4.1).
_REFUSED_PARAMETERS = frozenset({"crit", "jku", "jwk", "x5u", "x5c", "b64", "zip", "enc", "epk", "p2s", "p2c", "cty"})
_TYPES = frozenset({"jwt", "at+jwt"})
_LOGOUT_TYPES = frozenset({"jwt", "logout+jwt"})


@dataclass(frozen=True)
class Provider:
    """An identity provider whose tokens are accepted, as the operator describes it.

    `aliases` are other spellings of its issuer. `audience` and `azp`: one of each must be in the token; an empty one is
    not checked, and never are both empty. Keys are `fixed`, or at the URL `jwks`, or where discovery says.
    `roles` translates values of `roles_claim` to roles of ours; claims are names, or paths with dots. `refuses` are
    claims with values that no accepted token has.
    """

    name: str
    issuer: str
    audience: frozenset[str] = frozenset()
    azp: frozenset[str] = frozenset()
    algorithms: frozenset[str] = frozenset({"RS256"})
    jwks: str = ""
    fixed: KeySet | None = None
    aliases: frozenset[str] = frozenset()
    roles_claim: str = ""
    roles: Mapping[str, str] = field(default_factory=dict)
    default_role: str = ""
    name_claims: tuple[str, ...] = ("name",)
    sid_claim: str = "sid"
    refuses: tuple[tuple[str, Any], ...] = ()
    create_accounts: bool = False


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a genuine token is about, and what it says of them. `sid` is the provider's session, empty without one."""

    provider: Provider
    id: ExternalId
    name: str
    roles: tuple[str, ...]
    sid: str
    issued_s: int


@dataclass(frozen=True, slots=True)
class Logout:
    """What a genuine logout token says: a session of the provider has ended, or all of a subject. One may be empty."""

    provider: Provider
    subject: str
    sid: str
    jti: str
    issued_s: int


class Federation:
    """Verifies tokens of the providers that `providers` returns now. `now` returns epoch seconds."""

    def __init__(
        self, providers: Callable[[], Iterable[Provider]], fetch: Fetch, *, now: Callable[[], float] = time.time
    ) -> None:
        self._providers = providers
        self._fetch = fetch
        self._now = now
        self._remote: dict[tuple[str, str], RemoteKeys] = {}

    async def verify(self, token: str) -> Identity:
        """Return who a token is about. Raises: ForeignTokenRefused, KeysUnavailable"""
        jws = _read(token)
        provider = next((one for one in self._providers() if _is_issuer(jws.claims, one)), None)
        if provider is None:
            raise ForeignTokenRefused("issuer")
        try:
            issued_s = self._check(jws, provider, _TYPES)
            if "events" in jws.claims:
                raise _Refused("purpose")
            if "act" in jws.claims:
                raise _Refused("acting")
            for claim, value in provider.refuses:
                if claim_at(jws.claims, claim) == value:
                    raise _Refused("refused_claim")
            subject = _text(jws.claims, "sub")
            sid = _text(jws.claims, provider.sid_claim, may_be_missing=True)
            await self._check_signature(jws, provider)
        except _Refused as refused:
            raise ForeignTokenRefused(str(refused), provider=provider.name) from None
        return Identity(
            provider,
            ExternalId(provider.name, provider.issuer, subject),
            next((one for one in (claim_at(jws.claims, claim) for claim in provider.name_claims) if _is_name(one)), ""),
            _roles(jws.claims, provider),
            sid,
            issued_s,
        )

    async def verify_logout(self, name: str, token: str) -> Logout:
        """Return what a logout token of a provider says (OpenID Connect Back-Channel Logout 1.0 section 2.6).

        Whether it was used before is checked elsewhere. Raises: ForeignTokenRefused, KeysUnavailable
        """
        provider = next((one for one in self._providers() if one.name == name), None)
        if provider is None:
            raise ForeignTokenRefused("issuer")
        try:
            jws = _read(token)
            if not _is_issuer(jws.claims, provider):
                raise _Refused("issuer")
            issued_s = self._check(jws, provider, _LOGOUT_TYPES, is_logout=True)
            events = jws.claims.get("events")
            if not isinstance(events, dict) or not isinstance(events.get(LOGOUT_EVENT), dict):
                raise _Refused("purpose")
            if "nonce" in jws.claims:
                raise _Refused("nonce")
            subject, sid = (_text(jws.claims, claim, may_be_missing=True) for claim in ("sub", "sid"))
            if not subject and not sid:
                raise _Refused("subject")
            logout = Logout(provider, subject, sid, _text(jws.claims, "jti"), issued_s)
            await self._check_signature(jws, provider)
        except _Refused as refused:
            raise ForeignTokenRefused(str(refused), provider=provider.name) from None
        return logout

    def prepare(self) -> None:
        """Start to fetch the keys of all providers that have none yet; forget those of providers that are gone."""
        wanted = {_place(one) for one in self._providers() if one.fixed is None}
        self._remote = {place: keys for place, keys in self._remote.items() if place in wanted}
        for place in wanted - self._remote.keys():
            self._remote[place] = RemoteKeys(self._fetch, *place)
            self._remote[place].refresh_soon()

    async def close(self) -> None:
        """End fetches that are under way."""
        for keys in self._remote.values():
            await keys.close()

    def _check(self, jws: Jws, provider: Provider, types: frozenset[str], *, is_logout: bool = False) -> int:
        """Check everything but signature and purpose; return when the token was issued. Raises: _Refused

        The signature comes last: only a token that would be accepted may make the gateway fetch keys.
        """
        header, claims = jws.header, jws.claims
        if _REFUSED_PARAMETERS & header.keys():
            raise _Refused("header")
        if not _has_type(header, types):
            raise _Refused("type")
        if not _is_one_of(provider.algorithms, header.get("alg")):
            raise _Refused("algorithm")
        _check_audience(claims, provider, checks_azp=not is_logout)
        return self._check_times(claims, is_logout=is_logout)

    def _check_times(self, claims: Mapping[str, Any], *, is_logout: bool) -> int:
        now, issued_s = self._now(), _time(claims, "iat")
        expires_s = issued_s + MOST_LOGOUT_AGE_S if is_logout and "exp" not in claims else _time(claims, "exp")
        begins_s = max(_time(claims, one) for one in ("iat", "nbf", "auth_time") if one in claims)
        if expires_s <= now - LEEWAY_S:
            raise _Refused("expired")
        if begins_s > now + LEEWAY_S:
            raise _Refused("not_yet")
        if not 0 < expires_s - issued_s <= MOST_LIFETIME_S:
            raise _Refused("lifetime")
        if is_logout and issued_s < now - MOST_LOGOUT_AGE_S:
            raise _Refused("expired")
        return issued_s

    async def _check_signature(self, jws: Jws, provider: Provider) -> None:
        """Raises: _Refused, KeysUnavailable"""
        kid = jws.header.get("kid")
        if kid is not None and not isinstance(kid, str):
            raise _Refused("header")
        key = await self._keys_of(provider).find(kid)
        if key is None:
            raise _Refused("unknown_key")
        if not key.verifies(jws.header["alg"], jws.signed, jws.signature):
            raise _Refused("signature")

    def _keys_of(self, provider: Provider) -> RemoteKeys | FixedKeys:
        if provider.fixed is not None:
            return FixedKeys(provider.fixed)
        place = _place(provider)
        return self._remote.setdefault(place, RemoteKeys(self._fetch, *place))


class _Refused(Exception):
    """A token is refused; the text is the reason in one word."""


def _place(provider: Provider) -> tuple[str, str]:
    return provider.issuer, provider.jwks


def _read(token: str) -> Jws:
    try:
        return read_jws(token)
    except Malformed:
        raise ForeignTokenRefused("malformed") from None


def _is_issuer(claims: Mapping[str, Any], provider: Provider) -> bool:
    return _is_one_of({provider.issuer, *provider.aliases}, claims.get("iss"))


def _is_one_of(names: Collection[str], value: Any) -> bool:
    return isinstance(value, str) and value in names


def _has_type(header: Mapping[str, Any], types: frozenset[str]) -> bool:
    """Tell whether `typ` is missing or one of some types (RFC 7515 section 4.1.9: `application/` may be left out)."""
    kind = header.get("typ", "jwt")
    return isinstance(kind, str) and kind.lower().removeprefix("application/") in types


def _check_audience(claims: Mapping[str, Any], provider: Provider, *, checks_azp: bool) -> None:
    """Raises: _Refused"""
    given = claims.get("aud", [])
    audience = [given] if isinstance(given, str) else given
    if not isinstance(audience, list) or not all(isinstance(one, str) for one in audience):
        raise _Refused("audience")
    if provider.audience and provider.audience.isdisjoint(audience):
        raise _Refused("audience")
    if not checks_azp:
        return
    if provider.azp:
        if not _is_one_of(provider.azp, claims.get("azp")):
            raise _Refused("azp")
    elif len(audience) > 1:  # OpenID Connect Core section 3.1.3.7: all of them would have to be trusted
        raise _Refused("audience")


def _time(claims: Mapping[str, Any], claim: str) -> int:
    """Return a time in epoch seconds. Raises: _Refused"""
    value = claims.get(claim)
    if type(value) is not int:  # True is an int in Python, but not a time
        raise _Refused("times")
    return value


def _text(claims: Mapping[str, Any], claim: str, *, may_be_missing: bool = False) -> str:
    """Return a text that can be stored and shown. Raises: _Refused"""
    value = claims.get(claim)
    if value is None and may_be_missing:
        return ""
    if not is_subject(value):
        raise _Refused("subject")
    return str(value)


def is_subject(value: Any) -> bool:
    """Tell whether a value is a text that can be a subject, be stored and be shown."""
    return isinstance(value, str) and 1 <= len(value) <= _MOST_CLAIM_CHARS and value.isprintable()


def claim_at(claims: Mapping[str, Any], path: str) -> Any:
    """Return the claim of a name, or of a path of names with dots; None if there is none."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for name in path.split("."):
        if not isinstance(found, dict):
            return None
        found = found.get(name)
    return found


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _roles(claims: Mapping[str, Any], provider: Provider) -> tuple[str, ...]:
    """Return the roles of ours that the claims give; the default role if they give none."""
    given = claim_at(claims, provider.roles_claim) if provider.roles_claim else None
    names = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    known = [one for one in names[:_MOST_ROLES] if isinstance(one, str) and one in provider.roles]
    roles = dict.fromkeys(provider.roles[one] for one in known)
    return tuple(roles) or ((provider.default_role,) if provider.default_role else ())
