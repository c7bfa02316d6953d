"""The header fields for each origin. Look-alike origins are in tests/attack/test_cors.py."""

from __future__ import annotations

import pytest

from gateway.http.cors import Cors, origin_of

LISTED = Cors(["https://app.example.com", "http://localhost:*"])


def names(cors: Cors, origin: bytes | None) -> set[bytes]:
    return {name for name, _ in cors.fields(origin)}


def test_a_star_allows_every_origin_without_credentials() -> None:
    """Fetch standard, "CORS protocol and credentials": `*` with credentials grants nothing."""
    for origin in (b"https://evil.example", b"null", None):
        fields = dict(Cors(["*"]).fields(origin))
        assert fields[b"access-control-allow-origin"] == b"*"
        assert b"access-control-allow-credentials" not in fields


@pytest.mark.parametrize("origin", [b"https://app.example.com", b"http://localhost:5173"])
def test_a_listed_origin_is_echoed_and_may_send_credentials(origin: bytes) -> None:
    fields = dict(LISTED.fields(origin))
    assert fields[b"access-control-allow-origin"] == origin
    assert fields[b"access-control-allow-credentials"] == b"true"
    assert fields[b"vary"] == b"Origin"


@pytest.mark.parametrize("origin", [None, b"null", b"https://evil.example", b"https://app.example.com\n", b""])
def test_any_other_origin_gets_only_vary(origin: bytes | None) -> None:
    assert names(LISTED, origin) == {b"vary"}


def test_without_a_list_no_header_is_added() -> None:
    assert Cors([]).fields(b"https://app.example.com") == []


def test_only_an_options_request_of_an_allowed_origin_with_a_method_is_a_preflight() -> None:
    asks = [(b"access-control-request-method", b"POST")]
    listed, other = LISTED.fields(b"https://app.example.com"), LISTED.fields(b"null")
    assert LISTED.preflight("OPTIONS", asks, listed)
    assert LISTED.preflight("OPTIONS", [], listed) is None
    assert LISTED.preflight("POST", asks, listed) is None
    assert LISTED.preflight("OPTIONS", asks, other) is None


def test_two_origin_headers_count_as_none() -> None:
    assert origin_of([(b"origin", b"a"), (b"x", b"y")]) == b"a"
    assert origin_of([(b"origin", b"a"), (b"origin", b"b")]) is None
    assert origin_of([]) is None
