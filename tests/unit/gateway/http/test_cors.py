"""Which origins get which fields. The look-alikes are in tests/attack/test_cors.py."""

from __future__ import annotations

import pytest

from gateway.http.cors import Cors, origin_of

LISTED = Cors(["https://app.example.com", "http://localhost:*"])


def names(cors: Cors, origin: bytes | None) -> set[bytes]:
    return {name for name, _ in cors.fields(origin)}


def test_star_lets_everybody_in_without_credentials() -> None:
    """Fetch standard, "CORS protocol and credentials": `*` with credentials is no permission at all."""
    for origin in (b"https://evil.example", b"null", None):
        fields = dict(Cors(["*"]).fields(origin))
        assert fields[b"access-control-allow-origin"] == b"*"
        assert b"access-control-allow-credentials" not in fields


@pytest.mark.parametrize("origin", [b"https://app.example.com", b"http://localhost:5173"])
def test_listed_origin_is_named_and_gets_credentials(origin: bytes) -> None:
    fields = dict(LISTED.fields(origin))
    assert fields[b"access-control-allow-origin"] == origin
    assert fields[b"access-control-allow-credentials"] == b"true"
    assert fields[b"vary"] == b"Origin"


@pytest.mark.parametrize("origin", [None, b"null", b"https://evil.example", b"https://app.example.com\n", b""])
def test_every_other_answer_only_varies(origin: bytes | None) -> None:
    assert names(LISTED, origin) == {b"vary"}


def test_no_list_adds_nothing() -> None:
    assert Cors([]).fields(b"https://app.example.com") == []


def test_preflight_is_an_options_that_asks_of_somebody_let_in() -> None:
    asks = [(b"access-control-request-method", b"POST")]
    listed, other = LISTED.fields(b"https://app.example.com"), LISTED.fields(b"null")
    assert LISTED.preflight("OPTIONS", asks, listed)
    assert LISTED.preflight("OPTIONS", [], listed) is None
    assert LISTED.preflight("POST", asks, listed) is None
    assert LISTED.preflight("OPTIONS", asks, other) is None


def test_two_origins_are_no_origin() -> None:
    assert origin_of([(b"origin", b"a"), (b"x", b"y")]) == b"a"
    assert origin_of([(b"origin", b"a"), (b"origin", b"b")]) is None
    assert origin_of([]) is None
