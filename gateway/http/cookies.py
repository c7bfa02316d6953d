"""Cookie mode: a browser keeps its refresh token in a cookie that no script can read (GATEWAY_COOKIES).

A page asks for it with a header field that a page of another origin cannot send before a preflight has allowed it, so
the field proves that the request is no forgery (OWASP Cross-Site Request Forgery Prevention, "Custom Request Headers").
Without the field no cookie is read or set.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from auth.errors import InvalidGrant
from auth.sessions import Grant
from gateway.http.cors import Cors, origin_of
from gateway.http.problems import Problem
from gateway.setting_values import as_browsers_write
from gateway.text import FieldError

FIELD = "X-Gateway-Session"
# A browser takes a cookie of this prefix only with Secure, Path=/ and no Domain, so no sibling domain can set or read
# it (RFC 6265bis section 4.1.3.2).
NAME = "__Host-gateway-refresh"
_ATTRIBUTES = "Path=/; Secure; HttpOnly; SameSite=Lax"
CLEARED = {"Set-Cookie": f"{NAME}=; Max-Age=0; {_ATTRIBUTES}"}

# Browsers count these hosts as secure, and no other machine can serve a page at them.
_LOOPBACK = re.compile(rb"(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]{1,5})?")
_SAME = (b"same-origin", b"same-site")

Headers = Iterable[tuple[bytes, bytes]]


class RefreshCookies:
    """Decides who may use the cookie, reads it and writes it. `own` is GATEWAY_PUBLIC_URL, empty if it is not set."""

    def __init__(self, *, on: bool, own: str, cors: Cors) -> None:
        self.on = on
        self._own = as_browsers_write("://".join(urlsplit(own)[:2])).encode() if own else None
        self._cors = cors

    def asked(self, value: str | None, headers: Headers) -> bool:
        """Tell whether a request with this value of `FIELD` asks for cookie mode, and check that it may.

        Raises: FieldError; Problem, 403 origin_refused
        """
        if value is None:
            return False
        if value != "cookie":
            raise FieldError(FIELD, "must be: cookie")
        if not self.on:  # ignoring it would hand a refresh token to a script that asked not to get one
            raise FieldError(FIELD, "this gateway sets no cookies (GATEWAY_COOKIES is off)")
        self._check_origin(list(headers))
        return True

    def _check_origin(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Refuse pages of other origins. Raises: Problem

        Origin is in every POST of a browser. Sec-Fetch-Site is not in those of older ones, so only its presence counts.
        """
        origin, hosts = origin_of(headers), [value.lower() for name, value in headers if name == b"host"]
        if any(name == b"sec-fetch-site" and value not in _SAME for name, value in headers):
            raise _refused("Browsers keep no cookie of the gateway for pages of another site. Use tokens there.")
        if origin is not None and (origin == self._own or self._cors.lists(origin) or _is_loopback(origin, hosts)):
            return
        raise _refused(
            "Pages of this origin may not use the gateway's cookie. If it is the gateway's own, GATEWAY_PUBLIC_URL "
            "must be set to it; otherwise GATEWAY_CORS_ORIGINS must list it."
        )

    @staticmethod
    def token(headers: Headers) -> str | None:
        """Return the refresh token of the cookie, None without one. Raises: InvalidGrant, if there are several"""
        pairs = [pair.strip() for name, value in headers if name == b"cookie" for pair in value.split(b";")]
        stem = f"{NAME}=".encode()
        tokens = [pair.removeprefix(stem) for pair in pairs if pair.startswith(stem)]
        if len(tokens) > 1:  # one of them has been planted
            raise InvalidGrant
        return tokens[0].decode("latin-1") if tokens else None

    @staticmethod
    def kept(grant: Grant) -> dict[str, str]:
        """Return the header field that lets the browser keep the refresh token for as long as it is valid."""
        return {"Set-Cookie": f"{NAME}={grant.refresh_token}; Max-Age={grant.refresh_expires_s}; {_ATTRIBUTES}"}


@contextmanager
def cleared_if_void(by_cookie: bool) -> Iterator[None]:
    """Let the answer to a refused refresh token remove the cookie that held it."""
    try:
        yield
    except InvalidGrant as error:
        if not by_cookie:
            raise
        raise Problem(400, "invalid_grant", str(error), headers=CLEARED) from error


def _is_loopback(origin: bytes, hosts: list[bytes]) -> bool:
    """Tell whether a page was served by this gateway at a loopback address, such as the end of an SSH tunnel."""
    host = hosts[0] if len(hosts) == 1 else b""
    return _LOOPBACK.fullmatch(host) is not None and origin in (b"http://" + host, b"https://" + host)


def _refused(detail: str) -> Problem:
    return Problem(403, "origin_refused", detail)
