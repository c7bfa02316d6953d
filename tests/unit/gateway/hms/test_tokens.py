"""100ms tokens: exactly the documented claims, in a form that the 100ms web client can decode."""

import base64
import json
import uuid
from typing import Any

import jwt
import pytest

from gateway.hms.tokens import BACKDATE_S, MANAGEMENT_TTL_S, HmsTokens, JoinToken

KEY, SECRET = "63f0a5b1c2d3e4f5a6b7c8d9", "hms-secret-of-tests-" + "h" * 32
ROOM, USER = "0123456789abcdef01234567", "uabcdefghijklmnopqrst"
NOW = 1_800_000_000
STANDARD_ALPHABET = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")


class Clock:
    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(clock: Clock) -> HmsTokens:
    return HmsTokens(KEY, SECRET, now=clock)


def join(tokens: HmsTokens, **changes: Any) -> JoinToken:
    given: dict[str, Any] = {"room_id": ROOM, "user_id": USER, "role": "guest", "ttl_s": 3600}
    return tokens.join_token(**(given | changes))


def claims_of(token: str) -> dict[str, Any]:
    """Check the signature as 100ms does, and return the claims; the tests check the times."""
    options: Any = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}
    claims: dict[str, Any] = jwt.decode(token, SECRET, algorithms=["HS256"], options=options)
    return claims


def test_a_join_token_has_exactly_the_documented_claims(tokens: HmsTokens) -> None:
    made = join(tokens)
    assert claims_of(made.token) == {
        "access_key": KEY,
        "room_id": ROOM,
        "user_id": USER,
        "role": "guest",
        "type": "app",
        "version": 2,
        "jti": made.jti,
        "iat": NOW - BACKDATE_S,
        "nbf": NOW - BACKDATE_S,
        "exp": NOW + 3600,
    }
    assert made.expires_at == NOW + 3600


def test_a_management_token_has_exactly_the_documented_claims(tokens: HmsTokens) -> None:
    claims = claims_of(tokens.management_token())
    assert uuid.UUID(claims.pop("jti")).version == 4
    assert claims == {
        "access_key": KEY,
        "type": "management",
        "version": 2,
        "iat": NOW - BACKDATE_S,
        "nbf": NOW - BACKDATE_S,
        "exp": NOW + MANAGEMENT_TTL_S,
    }


def test_the_header_matches_the_documentation(tokens: HmsTokens) -> None:
    for token in (join(tokens).token, tokens.management_token()):
        assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}


def test_tokens_are_back_dated_by_ten_seconds_and_use_whole_seconds(tokens: HmsTokens, clock: Clock) -> None:
    clock.now = NOW + 0.999
    claims = claims_of(join(tokens, ttl_s=60).token)
    assert (claims["iat"], claims["nbf"], claims["exp"]) == (NOW - 10, NOW - 10, NOW + 60)
    assert all(type(claims[name]) is int for name in ("iat", "nbf", "exp", "version"))


def test_every_join_token_has_its_own_jti(tokens: HmsTokens) -> None:
    made = [join(tokens) for _ in range(100)]
    assert len({token.jti for token in made}) == len({token.token for token in made}) == 100


def test_the_repr_of_a_join_token_hides_the_token(tokens: HmsTokens) -> None:
    made = join(tokens)
    assert made.token not in f"{made!r} {made}"
    assert made.jti in repr(made)


def test_the_repr_of_the_signer_hides_the_secret(tokens: HmsTokens) -> None:
    assert SECRET not in f"{tokens!r} {tokens}"


# --- the management token is cached ---


def test_the_management_token_is_made_once_and_kept(tokens: HmsTokens, clock: Clock) -> None:
    first = tokens.management_token()
    for elapsed_s in (0, 1, 1000, MANAGEMENT_TTL_S - 301):
        clock.now = NOW + elapsed_s
        assert tokens.management_token() == first


def test_the_management_token_is_renewed_five_minutes_before_it_expires(tokens: HmsTokens, clock: Clock) -> None:
    first = tokens.management_token()
    clock.now = NOW + MANAGEMENT_TTL_S - 300
    second = tokens.management_token()
    assert second != first
    assert claims_of(second)["exp"] == clock.now + MANAGEMENT_TTL_S
    assert tokens.management_token() == second


def test_the_management_token_is_renewed_after_the_clock_was_set_back(tokens: HmsTokens, clock: Clock) -> None:
    """The cached one is not valid yet."""
    clock.now = NOW + 3600
    ahead = tokens.management_token()
    clock.now = NOW
    assert claims_of(ahead)["nbf"] > clock.now
    assert claims_of(tokens.management_token())["nbf"] < clock.now


def test_every_management_token_lasts_at_least_five_more_minutes(tokens: HmsTokens, clock: Clock) -> None:
    for elapsed_s in range(0, 4 * MANAGEMENT_TTL_S, 7):
        clock.now = NOW + elapsed_s + 0.5
        assert claims_of(tokens.management_token())["exp"] >= clock.now + 300


def test_an_expired_token_is_not_returned_after_a_long_pause(tokens: HmsTokens, clock: Clock) -> None:
    first = tokens.management_token()
    clock.now = NOW + 30 * 86_400
    assert tokens.management_token() != first


# --- characters that the 100ms web client can decode ---


def test_atob_can_decode_the_payload_of_every_accepted_role(tokens: HmsTokens) -> None:
    """The client decodes with `atob`: standard alphabet, bytes as Latin-1. base64url must look the same to it."""
    plain = [chr(code) for code in range(0x20, 0x7F) if chr(code) not in "?>~"]
    # Each character at each position modulo three, between neighbours from both ends of the alphabet.
    roles = [before + char + after for char in plain for before in ("", "a", "ab", "}}") for after in ("", "}", " z")]
    for role in roles:
        payload = join(tokens, role=role).token.split(".")[1]
        assert set(payload) <= STANDARD_ALPHABET, role
        decoded = base64.b64decode(payload + "=" * (-len(payload) % 4), validate=True)
        assert decoded.isascii()
        assert json.loads(decoded.decode("latin-1"))["role"] == role


@pytest.mark.parametrize("claim", ["room_id", "user_id", "role"])
@pytest.mark.parametrize("char", ["?", ">", "~", "\x7f", "\n", "\0", "\t", "é", "名", "😀", "\ud800", "\u00a0"])
def test_a_character_that_the_client_cannot_decode_is_refused(tokens: HmsTokens, claim: str, char: str) -> None:
    for value in (char, f"a{char}", f"{char}a", f"a{char}b"):
        with pytest.raises(ValueError, match="plain ASCII"):
            join(tokens, **{claim: value})


def test_the_refused_characters_would_break_the_payload(tokens: HmsTokens) -> None:
    for char in "?>~":
        payloads = [
            base64.urlsafe_b64encode(json.dumps({"r": "a" * shift + char * 2}).encode()).decode() for shift in range(3)
        ]
        assert any({"-", "_"} & set(payload) for payload in payloads), char
