"""Login tokens: short-lived JWTs of our own (RFC 7519, RFC 9068's `at+jwt`, hardened per RFC 8725).

PyJWT checks the signature and the times. It also accepts padded segments, `zip`, `jku`, any `typ` and an `exp` that is
a string. So a token without exactly the form of ours is refused before or after PyJWT checks it.
"""

import base64
import binascii
import json
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jwt

from .errors import InvalidToken, TokenExpired
from .keys import KeyRing
from .service_keys import ServiceKey
from .signing_keys import SigningKeys

ISSUER = "hms-gateway"  # of tokens that only the gateway can verify; that of others is its public address
AUDIENCE = "hms-gateway"
CLIENT = "hms-gateway"  # RFC 9068 requires a client_id; apps do not have ids of their own
TYPE = "at+jwt"
ALGORITHM = "HS256"
MAX_TOKEN_BYTES = 4096
LEEWAY_S = 10
DEFAULT_TTL_S = 600
LEAST_TTL_S, MOST_TTL_S = 60, 3600
MOST_REMEMBERED = 4096  # verified tokens per process, of about 600 bytes each

_SEGMENT = re.compile(r"[A-Za-z0-9_-]+")
_HEADER_NAMES = frozenset({"alg", "kid", "typ"})  # so crit, jku, x5u, jwk, x5c, b64 and zip are all refused
_CLAIM_TYPES: dict[str, type] = {
    "iss": str, "aud": str, "sub": str, "sid": str, "roles": list, "ver": int,
    "jti": str, "iat": int, "nbf": int, "exp": int, "auth_time": int,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller whose credential is genuine. Its guards check that it still counts (`Sessions.guards`).

    A service key has no session: it acts for itself, with its own id as `uid`, or for the user `uid`.
    """

    uid: str
    sid: str
    roles: tuple[str, ...]
    ver: int
    key: ServiceKey | None = None

    @property
    def is_acting(self) -> bool:
        """Whether a service key acts for a user."""
        return self.key is not None and self.key.id != self.uid


@dataclass(frozen=True, slots=True)
class _Verified:
    """What a genuine token says, and the times between which it is valid, in epoch seconds."""

    principal: Principal
    begins_at: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class _Key:
    """A key with the one algorithm it is used with and the issuer in whose name it signs."""

    kid: str
    algorithm: str
    issuer: str
    material: Any = field(repr=False)  # bytes, or a private key to sign or a public key to verify with


class LoginTokens:
    """Issues and verifies access tokens, which live `ttl_s` (60 s to 1 h). `now` returns epoch seconds.

    They are signed with the first private key of `signing`, and without one with the first key of `ring`. The keys of
    both verify, so that no token loses its validity when the other begins to sign.
    """

    def __init__(
        self,
        ring: KeyRing,
        signing: SigningKeys | None = None,
        *,
        ttl_s: int = DEFAULT_TTL_S,
        now: Callable[[], float] = time.time,
    ) -> None:
        if not LEAST_TTL_S <= ttl_s <= MOST_TTL_S:
            raise ValueError(f"ttl_s must lie between {LEAST_TTL_S} and {MOST_TTL_S}")
        self._ring = ring
        self.signing = signing
        self._now = now
        self._verified: dict[str, _Verified] = {}
        self.ttl_s = ttl_s

    def issue(self, principal: Principal, *, auth_time: int) -> str:
        """Return a signed access token. `auth_time` is when the password was given, epoch seconds."""
        now, key = int(self._now()), self._signing_key()
        claims: dict[str, Any] = {
            "iss": key.issuer,
            "aud": AUDIENCE,
            "sub": principal.uid,
            "sid": principal.sid,
            "roles": list(principal.roles),
            "ver": principal.ver,
            "jti": secrets.token_hex(12),
            "iat": now,
            "nbf": now,
            "exp": now + self.ttl_s,
            "auth_time": auth_time,
        }
        if key.algorithm != ALGORITHM:  # others read it
            claims["client_id"] = CLIENT
        return jwt.encode(claims, key.material, algorithm=key.algorithm, headers={"kid": key.kid, "typ": TYPE})

    def verify(self, token: str) -> Principal:
        """Return the principal of a token.

        A token seen before is not decoded again, but its times are checked. Whether its session is live is checked
        elsewhere, so nothing cached here can go stale. Raises TokenExpired for a genuine one, else InvalidToken.
        """
        verified = self._verified.get(token)
        if verified is None:
            verified = self._decode(token)
            if len(self._verified) >= MOST_REMEMBERED:
                del self._verified[next(iter(self._verified))]  # the oldest entry
            self._verified[token] = verified
        now = self._now()
        if verified.expires_at <= now - LEEWAY_S:
            self._verified.pop(token, None)
            raise TokenExpired("The login token has expired.")
        if verified.begins_at > now + LEEWAY_S:
            raise InvalidToken("The login token is not valid yet.")
        return verified.principal

    def read(self, token: str) -> tuple[Principal, dict[str, Any]]:
        """Return the principal and all claims of a token. Raises: as `verify`"""
        principal = self.verify(token)
        claims: dict[str, Any] = json.loads(_decoded(token.split(".")[1]))
        return principal, claims

    def _signing_key(self) -> _Key:
        signing = self.signing
        if signing is not None and (key := signing.first) is not None and key.private is not None:
            return _Key(key.kid, key.algorithm, signing.issuer, key.private)
        own = self._ring.signing
        return _Key(own.kid, ALGORITHM, ISSUER, own.secret)

    def _verifying_key(self, kid: object) -> _Key | None:
        if (own := self._ring.find(kid)) is not None:
            return _Key(own.kid, ALGORITHM, ISSUER, own.secret)
        if self.signing is not None and (key := self.signing.find(kid)) is not None:
            return _Key(key.kid, key.algorithm, self.signing.issuer, key.public)
        return None

    def _decode(self, token: str) -> _Verified:
        header = _header_of(token)
        key = self._verifying_key(header["kid"])
        if key is None:
            raise InvalidToken("The login token was not issued by this gateway.")
        if header["alg"] != key.algorithm:  # the key decides, not the token
            raise InvalidToken("The login token's header is not one of ours.")
        try:
            claims = jwt.decode(
                token,
                key.material,
                algorithms=[key.algorithm],
                audience=AUDIENCE,
                issuer=key.issuer,
                leeway=LEEWAY_S,
                options={"require": list(_CLAIM_TYPES), "verify_exp": False, "verify_nbf": False, "verify_iat": False},
            )
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise InvalidToken("The login token was not issued by this gateway.") from error
        return _read(claims)


def _read(claims: dict[str, Any]) -> _Verified:
    # `type() is` rather than isinstance: True is an int in Python, but not a version.
    if any(type(claims[name]) is not kind for name, kind in _CLAIM_TYPES.items()):
        raise InvalidToken("The login token has a claim of the wrong type.")
    roles = claims["roles"]
    if not all(type(role) is str for role in roles):
        raise InvalidToken("The login token has a claim of the wrong type.")
    if not (claims["sub"].isascii() and claims["sid"].isascii()):  # Redis commands are bytes
        raise InvalidToken("The login token has a claim that is not one of ours.")
    principal = Principal(claims["sub"], claims["sid"], tuple(roles), claims["ver"])
    return _Verified(principal, max(claims["nbf"], claims["iat"]), claims["exp"])


def _header_of(token: str) -> dict[str, Any]:
    """Return a token's header if token and header have exactly the shape of ours. Raises: InvalidToken"""
    parts = token.split(".") if len(token) <= MAX_TOKEN_BYTES else []
    if len(parts) != 3 or not all(_is_canonical(part) for part in parts):
        raise InvalidToken("The login token is malformed.")
    try:
        header = json.loads(_decoded(parts[0]))
    except (ValueError, RecursionError) as error:
        raise InvalidToken("The login token is malformed.") from error
    if not isinstance(header, dict) or header.keys() != _HEADER_NAMES:
        raise InvalidToken("The login token's header is not one of ours.")
    if header["typ"] != TYPE:
        raise InvalidToken("The login token's header is not one of ours.")
    return header


def _is_canonical(segment: str) -> bool:
    """Tell whether a segment is unpadded base64url with no stray trailing bits (RFC 4648 section 3.5)."""
    if not _SEGMENT.fullmatch(segment):
        return False
    try:
        decoded = _decoded(segment)
    except (ValueError, binascii.Error):
        return False
    return base64.urlsafe_b64encode(decoded).rstrip(b"=").decode() == segment


def _decoded(segment: str) -> bytes:
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
