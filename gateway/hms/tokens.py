"""100ms tokens (100ms docs: get-started, security and tokens). They are signed locally, without a call to 100ms."""

import base64
import hashlib
import hmac
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

BACKDATE_S = 10  # 100ms documents no leeway on nbf; its own SDK back-dates by the same
MANAGEMENT_TTL_S = 3600
_RENEW_BEFORE_S = 300

# `{"alg":"HS256","typ":"JWT"}`. Signed here (RFC 7515, section 3.1) and not by PyJWT, which encodes the header and
# checks the key anew for each token: a token takes 21 us instead of 45.
_HEADER = b"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"

# The characters that the 100ms web client can decode. It uses `atob`, which accepts neither UTF-8 nor `-` and `_`. Of
# ASCII only ? > ~ encode to those two.
_PLAIN = re.compile(r"[ -=@-}]*")


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A token that lets one user join one room in one role until `expires_at` (epoch seconds)."""

    token: str = field(repr=False)
    jti: str
    expires_at: int


class HmsTokens:
    """Signs with the 100ms app secret. `now` returns epoch seconds."""

    def __init__(self, access_key: str, app_secret: str, *, now: Callable[[], float] = time.time) -> None:
        self._access_key = access_key
        self._mac = hmac.new(app_secret.encode(), digestmod=hashlib.sha256)  # a copy takes 2 us, a new one 4
        self._now = now
        self._management = ""
        self._management_from = self._management_renew_at = 0.0

    def management_token(self) -> str:
        """Return a management token that is valid for at least five more minutes, cached where possible."""
        now = self._now()
        if not self._management_from <= now < self._management_renew_at:  # before: the clock was set back
            self._management, _, expires_at = self._sign({"type": "management"}, MANAGEMENT_TTL_S)
            self._management_from, self._management_renew_at = int(now), expires_at - _RENEW_BEFORE_S
        return self._management

    def join_token(self, *, room_id: str, user_id: str, role: str, ttl_s: int) -> JoinToken:
        """Sign an app token with the documented claims. Raises ValueError if the web client cannot decode them."""
        if not _PLAIN.fullmatch(room_id + user_id + role):
            raise ValueError("room_id, user_id and role must be plain ASCII without ? > ~")
        claims = {"room_id": room_id, "user_id": user_id, "role": role, "type": "app"}
        return JoinToken(*self._sign(claims, ttl_s))

    def _sign(self, claims: dict[str, str], ttl_s: int) -> tuple[str, str, int]:
        now = int(self._now())
        jti = _uuid4()
        times = {"iat": now - BACKDATE_S, "nbf": now - BACKDATE_S, "exp": now + ttl_s}
        payload = {"access_key": self._access_key, **claims, "version": 2, "jti": jti, **times}
        signed = _HEADER + b"." + _base64url(msgspec.json.encode(payload))
        mac = self._mac.copy()
        mac.update(signed)
        token = signed + b"." + _base64url(mac.digest())
        return token.decode(), jti, now + ttl_s


def _uuid4() -> str:
    """Return a random UUID (RFC 9562, version 4) as text, as `uuid.uuid4` does in 7 us; this takes 2."""
    drawn = os.urandom(16).hex()
    variant = "89ab"[int(drawn[16], 16) & 3]
    return f"{drawn[:8]}-{drawn[8:12]}-4{drawn[13:16]}-{variant}{drawn[17:20]}-{drawn[20:]}"


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
