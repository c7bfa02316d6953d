"""Verified login tokens are cached, and the cache changes no answer."""

import pytest

from auth.errors import InvalidToken, TokenExpired
from auth.keys import KeyRing
from auth.tokens import LEEWAY_S, MOST_REMEMBERED, LoginTokens, Principal
from tests.unit.auth.test_tokens import NOW, OTHER, RING, SECRET, WHO, Clock, encode, forged, sign


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(clock: Clock) -> LoginTokens:
    return LoginTokens(RING, now=clock)


@pytest.fixture
def decoded(tokens: LoginTokens, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the tokens as they are decoded."""
    seen: list[str] = []
    decode = tokens._decode

    def counting(token: str) -> object:
        seen.append(token)
        return decode(token)

    monkeypatch.setattr(LoginTokens, "_decode", lambda self, token: counting(token))
    return seen


def test_a_token_is_decoded_once(tokens: LoginTokens, decoded: list[str]) -> None:
    token = tokens.issue(WHO, auth_time=NOW)
    assert [tokens.verify(token) for _ in range(5)] == [WHO] * 5
    assert decoded == [token]


def test_a_cached_token_expires_to_the_second(tokens: LoginTokens, clock: Clock) -> None:
    token = tokens.issue(WHO, auth_time=NOW)
    assert tokens.verify(token) == WHO
    clock.now = NOW + tokens.ttl_s + LEEWAY_S - 0.001
    assert tokens.verify(token) == WHO
    clock.now = NOW + tokens.ttl_s + LEEWAY_S
    for _ in range(3):
        with pytest.raises(TokenExpired):
            tokens.verify(token)


def test_an_expired_token_takes_no_place(tokens: LoginTokens, clock: Clock) -> None:
    token = tokens.issue(WHO, auth_time=NOW)
    clock.now = NOW + 10_000
    with pytest.raises(TokenExpired):
        tokens.verify(token)
    assert tokens._verified == {}


def test_a_cached_token_is_not_valid_before_its_time(tokens: LoginTokens, clock: Clock) -> None:
    """After the clock is set back, a verified token is in the future again."""
    token = tokens.issue(WHO, auth_time=NOW)
    assert tokens.verify(token) == WHO
    clock.now = NOW - LEEWAY_S - 1
    with pytest.raises(InvalidToken):
        tokens.verify(token)
    clock.now = NOW
    assert tokens.verify(token) == WHO


def test_the_cache_is_bounded_and_keeps_the_latest(tokens: LoginTokens, decoded: list[str]) -> None:
    issued = [tokens.issue(Principal(WHO.uid, f"{n:020x}", (), 1), auth_time=NOW) for n in range(MOST_REMEMBERED + 50)]
    for token in issued:
        tokens.verify(token)
    assert len(tokens._verified) == MOST_REMEMBERED
    decoded.clear()
    for token in issued[50:]:
        tokens.verify(token)
    assert decoded == []
    assert tokens.verify(issued[0]).sid == f"{0:020x}"  # evicted, but not refused


def test_refused_tokens_are_not_cached(tokens: LoginTokens) -> None:
    good = tokens.issue(WHO, auth_time=NOW)
    for bad in ("", "x", good + "x", forged(claims={"iss": "another"}), forged(header={"alg": "none"}), good[:-8]):
        with pytest.raises(InvalidToken):
            tokens.verify(bad)
    assert tokens._verified == {}


@pytest.mark.parametrize("position", [-1, -2, -20])
def test_a_signature_that_differs_in_one_character_is_not_the_cached_one(tokens: LoginTokens, position: int) -> None:
    """RFC 4648 section 3.5: the last character of base64 has spare bits, so several encode one signature."""
    token = tokens.issue(WHO, auth_time=NOW)
    assert tokens.verify(token) == WHO
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    at = len(token) + position
    for char in alphabet.replace(token[at], ""):
        with pytest.raises(InvalidToken):
            tokens.verify(token[:at] + char + token[at + 1 :])
    assert tokens.verify(token) == WHO


def test_another_payload_with_a_cached_signature_is_refused(tokens: LoginTokens) -> None:
    token = tokens.issue(WHO, auth_time=NOW)
    tokens.verify(token)
    head, _, signature = token.split(".")
    other = forged(claims={"sub": "u" + "z" * 20}).split(".")[1]
    with pytest.raises(InvalidToken):
        tokens.verify(f"{head}.{other}.{signature}")


def test_a_ring_without_the_key_does_not_accept_what_another_ring_verified(tokens: LoginTokens, clock: Clock) -> None:
    """A removed secret: rings of two processes, or of two starts, share nothing."""
    token = tokens.issue(WHO, auth_time=NOW)
    assert tokens.verify(token) == WHO
    rotated = LoginTokens(KeyRing([OTHER], "login-token"), now=clock)
    with pytest.raises(InvalidToken):
        rotated.verify(token)
    assert LoginTokens(KeyRing([OTHER, SECRET], "login-token"), now=clock).verify(token) == WHO


def test_an_unsigned_copy_of_a_cached_token_is_refused(tokens: LoginTokens) -> None:
    token = tokens.issue(WHO, auth_time=NOW)
    tokens.verify(token)
    head, payload, _ = token.split(".")
    for copy in (f"{head}.{payload}.", sign(head, payload, secret=b"another"), f"{head}.{payload}.{encode(b'0' * 32)}"):
        with pytest.raises(InvalidToken):
            tokens.verify(copy)
