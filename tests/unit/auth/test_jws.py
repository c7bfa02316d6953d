"""Tokens of others are read in one way only."""

from __future__ import annotations

import pytest

from auth.jws import MOST_TOKEN_BYTES, Malformed, read_jws
from tests.identity_provider import encode

HEADER, CLAIMS, SIGNATURE = encode({"alg": "ES256"}), encode({"iss": "x", "n": 1}), encode(b"signature")


def test_a_token_is_read_into_its_parts() -> None:
    jws = read_jws(f"{HEADER}.{CLAIMS}.{SIGNATURE}")
    assert (jws.header, jws.claims) == ({"alg": "ES256"}, {"iss": "x", "n": 1})
    assert (jws.signed, jws.signature) == (f"{HEADER}.{CLAIMS}".encode(), b"signature")


def test_white_space_in_json_is_allowed() -> None:
    header = encode(b'{"typ":"JWT",\r\n "alg":"HS256"}')
    assert read_jws(f"{header}.{CLAIMS}.{SIGNATURE}").header == {"typ": "JWT", "alg": "HS256"}


def of(header: bytes = b"{}", claims: bytes = b"{}") -> str:
    return f"{encode(header)}.{encode(claims)}.{SIGNATURE}"


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a",
        f"{HEADER}.{CLAIMS}",
        f"{HEADER}.{CLAIMS}.",
        f".{CLAIMS}.{SIGNATURE}",
        f"{HEADER}..{SIGNATURE}",
        f"{HEADER}.{CLAIMS}.{SIGNATURE}.{SIGNATURE}",
        f"{HEADER}.{CLAIMS}.{SIGNATURE}.{SIGNATURE}.{SIGNATURE}",  # five parts: encrypted
        f"{HEADER}=.{CLAIMS}.{SIGNATURE}",
        f" {HEADER}.{CLAIMS}.{SIGNATURE}",
        f"{HEADER}.{CLAIMS}.{SIGNATURE}\n",
        f"{HEADER}.{CLAIMS[:-1]}+.{SIGNATURE}",
        f"{HEADER}.{CLAIMS}.AB",  # stray bits after the last byte
        f"{HEADER}.{CLAIMS}.A",
        f"{HEADER}.{CLAIMS}.é",
        of(b"[]"),
        of(b"1"),
        of(b"{"),
        of(b"{}x"),
        of(b"\xef\xbb\xbf{}"),  # a byte order mark
        of("{}".encode("utf-16")),
        of(b'{"\xff":1}'),
        of(claims=b'{"iss":"a","iss":"b"}'),
        of(claims=rb'{"iss":"a","\u0069ss":"b"}'),
        of(claims=b'{"a":{"b":1,"b":1}}'),
        of(claims=b'{"exp":NaN}'),
        of(claims=b'{"exp":-Infinity}'),
        of(claims=b'{"exp":1%s}' % (b"0" * 5000)),
        of(claims=b'{"a":%s%s}' % (b"[" * 5000, b"]" * 5000)),
    ],
)
def test_everything_else_is_malformed(token: str) -> None:
    with pytest.raises(Malformed):
        read_jws(token)


def test_a_token_has_at_most_16_kib() -> None:
    claims = encode({"a": "x" * 12_000})
    assert read_jws(f"{HEADER}.{claims}.{SIGNATURE}")
    with pytest.raises(Malformed):
        read_jws(f"{HEADER}.{claims}.{'A' * MOST_TOKEN_BYTES}")
