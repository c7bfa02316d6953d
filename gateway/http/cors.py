"""CORS: pages of other origins that may call the API and read its responses (Fetch standard, "CORS protocol")."""

import re
from collections.abc import Iterable, Sequence

Headers = list[tuple[bytes, bytes]]

EXPOSED_HEADERS = (
    "Idempotency-Replayed",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "WWW-Authenticate",
    "X-Request-Id",
)
_PREFLIGHT_LASTS_S = 600  # removing an origin from the list should take effect soon
_ALLOWED_HEADERS = b"authorization, content-type, idempotency-key"
_EXPOSED = (b"access-control-expose-headers", ", ".join(EXPOSED_HEADERS).encode())


class Cors:
    """The header fields that allow a listed origin. Others get none, so their browser withholds the response.

    With `cookies`, pages of allowed origins may also send the header field that asks for cookie mode.
    """

    def __init__(self, origins: Sequence[str], *, cookies: bool = False) -> None:
        allowed = _ALLOWED_HEADERS + (b", x-gateway-session" if cookies else b"")
        self._preflight: Headers = [
            (b"access-control-allow-methods", b"GET, HEAD, POST, PUT, PATCH, DELETE"),
            (b"access-control-allow-headers", allowed),
            (b"access-control-max-age", str(_PREFLIGHT_LASTS_S).encode()),
        ]
        self._any = "*" in origins
        # A port written `*` matches digits only, never the rest of a host name.
        patterns = [re.escape(origin).replace(r"\*", "[0-9]{1,5}") for origin in origins if origin != "*"]
        self._listed = re.compile("|".join(patterns).encode()) if patterns else None

    def lists(self, origin: bytes) -> bool:
        """Tell whether an origin is listed; `*` lists none."""
        return self._listed is not None and self._listed.fullmatch(origin) is not None

    def fields(self, origin: bytes | None) -> Headers:
        """Return the fields of every response to this origin; None means a request without an Origin."""
        if self._any:  # never with credentials: the standard forbids them together with `*`
            return [(b"access-control-allow-origin", b"*"), _EXPOSED]
        if self._listed is None:
            return []
        # Also for refused origins, or a cache would serve one origin's response to another.
        fields: Headers = [(b"vary", b"Origin")]
        if origin is not None and self.lists(origin):
            fields += [
                (b"access-control-allow-origin", origin),
                (b"access-control-allow-credentials", b"true"),
                _EXPOSED,
            ]
        return fields

    def preflight(self, method: str, headers: Iterable[tuple[bytes, bytes]], fields: Headers) -> Headers | None:
        """Return the fields that answer a preflight of an allowed origin, beside `fields`; None for any other request.

        They describe the API, not this address, so a page can read the 404 or 405 of its call.
        """
        if method != "OPTIONS" or not any(name == b"access-control-allow-origin" for name, _ in fields):
            return None
        asked = any(name == b"access-control-request-method" for name, _ in headers)
        return self._preflight if asked else None


def origin_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """Return the Origin of a request; None if there is none or more than one."""
    values = [value for name, value in headers if name == b"origin"]
    return values[0] if len(values) == 1 else None
