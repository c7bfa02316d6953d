"""Verifies management tokens of REST calls and app tokens of joining clients.

Claims and checks: 100ms docs, get-started/security-and-tokens. Both kinds are HS256 JWTs signed with the UTF-8 bytes of
the app secret. Times are checked without leeway: 100ms documents none, and so a missing back-date is noticed.
"""

import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import jwt
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.types import Guard

from gateway.emulator.errors import ApiError

# PyJWT's time checks would accept "123" as 123. Ours refuse it, as a typed Go decoder does.
_OPTIONS: Any = {f"verify_{claim}": False for claim in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")} | {
    "verify_signature": True
}


class TokenRefusedError(Exception):
    """A token that 100ms would refuse. The text is the reason and may be sent to the client."""


@dataclass(frozen=True, slots=True)
class AppClaims:
    """The claims of an app token about the joining peer."""

    room_id: str
    role: str
    user_id: str


@dataclass(frozen=True, slots=True)
class Verifier:
    """Verifies the tokens of one workspace, and issues the app tokens of room codes."""

    access_key: str
    app_secret: str = field(repr=False)

    def verify_management(self, authorization: str | None) -> None:
        """Check the `Authorization` header of a REST call. Raises: TokenRefusedError"""
        self._claims(authorization, kind="management", times=("iat", "nbf", "exp"))

    def verify_app(self, authorization: str | None) -> AppClaims:
        """Check the `Authorization` header of a joining client. Raises: TokenRefusedError"""
        # `iat` and `nbf` are optional, as in the samples of the web SDK, but are checked if present.
        claims = self._claims(authorization, kind="app", times=("exp",))
        # 100ms refuses a user id that is a number at init (100mslive/100ms-web issue 495).
        for name in ("room_id", "role", "user_id"):
            if not isinstance(claims.get(name), str) or not claims[name]:
                raise TokenRefusedError(f"{name} must be a non-empty string")
        return AppClaims(claims["room_id"], claims["role"], claims["user_id"])

    def issue_app(self, claims: AppClaims, *, ttl_s: int) -> str:
        """Sign an app token that is valid from now on."""
        now_s = int(time.time())
        content = {"access_key": self.access_key, "type": "app", "version": 2, "jti": str(uuid.uuid4())}
        content |= {"room_id": claims.room_id, "role": claims.role, "user_id": claims.user_id}
        return jwt.encode(content | {"iat": now_s, "nbf": now_s, "exp": now_s + ttl_s}, self.app_secret)

    def _claims(self, authorization: str | None, *, kind: str, times: tuple[str, ...]) -> dict[str, Any]:
        claims = self._signed_claims(_bearer(authorization))
        if claims.get("access_key") != self.access_key:
            raise TokenRefusedError("access_key is invalid")
        if claims.get("type") != kind:
            raise TokenRefusedError(f"token type must be {kind}")
        if type(claims.get("version")) is not int or claims["version"] != 2:
            raise TokenRefusedError("token version must be 2")
        _check_times(claims, required=times)
        return claims

    def _signed_claims(self, token: str) -> dict[str, Any]:
        try:
            return jwt.decode(token, self.app_secret, algorithms=["HS256"], options=_OPTIONS)
        except jwt.InvalidSignatureError:
            raise TokenRefusedError("signature is invalid") from None
        except jwt.InvalidAlgorithmError:
            raise TokenRefusedError("signing method is invalid") from None
        except (jwt.InvalidTokenError, RecursionError):
            raise TokenRefusedError("token is malformed") from None


def management_guard(verifier: Verifier) -> Guard:
    """Return the Litestar guard of the REST routes: without a valid token it answers 401 with the documented text."""

    def require_management_token(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        try:
            verifier.verify_management(connection.headers.get("authorization"))
        except TokenRefusedError as refusal:
            raise ApiError(401, "Token validation error", str(refusal)) from None

    return require_management_token


def _bearer(authorization: str | None) -> str:
    if not authorization:
        raise TokenRefusedError("not found")
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise TokenRefusedError("authorization must be a bearer token")
    return token.strip()


def _check_times(claims: dict[str, Any], *, required: tuple[str, ...]) -> None:
    now_s = time.time()
    for name in ("iat", "nbf", "exp"):
        if (name in claims or name in required) and type(claims.get(name)) is not int:
            raise TokenRefusedError(f"{name} must be an integer")
    if claims["exp"] <= now_s:
        raise TokenRefusedError("token is expired")
    if claims.get("nbf", 0) > now_s:
        raise TokenRefusedError("token is not valid yet")
    if claims.get("iat", 0) > now_s:
        raise TokenRefusedError("token used before issued")
