"""Which pages of other origins may call the API and read its answers (Fetch standard, "CORS protocol")."""

from __future__ import annotations

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
_PREFLIGHT_LASTS_S = 600  # an origin that is taken off the list should notice soon
_PREFLIGHT = [
    (b"access-control-allow-methods", b"GET, HEAD, POST, PUT, PATCH, DELETE"),
    (b"access-control-allow-headers", b"authorization, content-type, idempotency-key"),
    (b"access-control-max-age", str(_PREFLIGHT_LASTS_S).encode()),
]
_EXPOSED = (b"access-control-expose-headers", ", ".join(EXPOSED_HEADERS).encode())


class Cors:
    """The header fields that let a listed origin in; every other gets none, and its browser keeps the answer from it.

    Ours and not Litestar's: that one never sees what the edge answers itself, and tells methods to refused origins too.
    """

    def __init__(self, origins: Sequence[str]) -> None:
        self._anybody = "*" in origins
        # A port written `*` stands for digits, not for the rest of a host name.
        patterns = [re.escape(origin).replace(r"\*", "[0-9]{1,5}") for origin in origins if origin != "*"]
        self._listed = re.compile("|".join(patterns).encode()) if patterns else None

    def fields(self, origin: bytes | None) -> Headers:
        """Return what every answer to this origin carries; None is a request without one."""
        if self._anybody:  # never with credentials: the standard forbids it, and nobody was listed
            return [(b"access-control-allow-origin", b"*"), _EXPOSED]
        if self._listed is None:
            return []
        fields: Headers = [(b"vary", b"Origin")]  # also for the others, or a cache would serve them each other's answer
        if origin is not None and self._listed.fullmatch(origin):
            fields += [
                (b"access-control-allow-origin", origin),
                (b"access-control-allow-credentials", b"true"),
                _EXPOSED,
            ]
        return fields

    def preflight(self, method: str, headers: Iterable[tuple[bytes, bytes]], fields: Headers) -> Headers | None:
        """Return what a preflight of an origin let in is told beside `fields`; None if this is no such request.

        It says what the API has, not what this address has: a page may then read the 404 or 405 it gets.
        """
        if method != "OPTIONS" or not any(name == b"access-control-allow-origin" for name, _ in fields):
            return None
        asked = any(name == b"access-control-request-method" for name, _ in headers)
        return _PREFLIGHT if asked else None


def origin_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """Return the Origin of a request; of two, none."""
    values = [value for name, value in headers if name == b"origin"]
    return values[0] if len(values) == 1 else None
