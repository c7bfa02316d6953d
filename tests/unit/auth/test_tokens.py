"""Login tokens: issued tokens verify, and nothing else does."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import pytest

from auth.errors import InvalidToken, TokenExpired
from auth.keys import KeyRing
from auth.tokens import AUDIENCE, DEFAULT_TTL_S, ISSUER, LEEWAY_S, MAX_TOKEN_BYTES, LoginTokens, Principal
from gateway.hms.tokens import HmsTokens

SECRET, OTHER = "s" * 20 + "gateway-secret-of-tests", "o" * 20 + "another-secret-of-tests"
RING = KeyRing([SECRET], "login-token")
NOW = 1_800_000_000
WHO = Principal("uabcdefghijklmnopqrst", "0123456789abcdef0123", ("host", "member"), 3)
MISSING = object()


class Clock:
    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def encode(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).decode().rstrip("=")


def decode(segment: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))


def sign(head: str, payload: str, *, secret: bytes = RING.signing.secret, digest: str = "sha256") -> str:
    signature = hmac.digest(secret, f"{head}.{payload}".encode(), digest)
    return f"{head}.{payload}.{encode(signature)}"


def forged(
    header: dict[str, Any] | None = None, claims: dict[str, Any] | None = None, *, text: str | None = None, **how: Any
) -> str:
    """Return a token signed with the real key, with our header and claims except for the given changes."""
    head: dict[str, Any] = {"alg": "HS256", "kid": RING.signing.kid, "typ": "at+jwt"} | (header or {})
    body: dict[str, Any] = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": WHO.uid, "sid": WHO.sid, "roles": list(WHO.roles), "ver": WHO.ver,
        "jti": "a" * 24, "iat": NOW, "nbf": NOW, "exp": NOW + 600, "auth_time": NOW,
    } | (claims or {})  # fmt: skip
    head, body = ({name: value for name, value in part.items() if value is not MISSING} for part in (head, body))
    return sign(encode(json.dumps(head).encode()), encode((text or json.dumps(body)).encode()), **how)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(clock: Clock) -> LoginTokens:
    return LoginTokens(RING, now=clock)


def refused(tokens: LoginTokens, token: str, why: str | None = None) -> None:
    with pytest.raises(InvalidToken, match=why) as caught:
        tokens.verify(token)
    assert not isinstance(caught.value, TokenExpired)
    assert len(token) < 8 or token not in str(caught.value)


# --- issuing ---


def test_an_issued_token_verifies_as_its_principal(tokens: LoginTokens) -> None:
    assert tokens.verify(tokens.issue(WHO, auth_time=NOW - 5)) == WHO


def test_forged_tokens_verify_when_nothing_is_changed(tokens: LoginTokens) -> None:
    assert tokens.verify(forged()) == WHO


def test_an_issued_token_has_exactly_the_specified_header_and_claims(tokens: LoginTokens) -> None:
    head, payload, _ = tokens.issue(WHO, auth_time=NOW - 5).split(".")
    assert decode(head) == {"alg": "HS256", "kid": RING.signing.kid, "typ": "at+jwt"}
    claims = decode(payload)
    assert len(claims.pop("jti")) >= 22
    assert claims == {
        "iss": ISSUER, "aud": AUDIENCE, "sub": WHO.uid, "sid": WHO.sid, "roles": ["host", "member"], "ver": 3,
        "iat": NOW, "nbf": NOW, "exp": NOW + DEFAULT_TTL_S, "auth_time": NOW - 5,
    }  # fmt: skip


def test_every_token_has_a_unique_jti(tokens: LoginTokens) -> None:
    issued = {decode(tokens.issue(WHO, auth_time=NOW).split(".")[1])["jti"] for _ in range(200)}
    assert len(issued) == 200


def test_rotation_keeps_old_tokens_valid_and_signs_with_the_new_secret(clock: Clock) -> None:
    before, during = LoginTokens(KeyRing([OTHER], "login-token"), now=clock), KeyRing([SECRET, OTHER], "login-token")
    rotated = LoginTokens(during, now=clock)
    assert rotated.verify(before.issue(WHO, auth_time=NOW)) == WHO
    assert LoginTokens(RING, now=clock).verify(rotated.issue(WHO, auth_time=NOW)) == WHO
    refused(LoginTokens(RING, now=clock), before.issue(WHO, auth_time=NOW))


# --- time ---


@pytest.mark.parametrize("ttl_s", [-1, 0, 59, 3601])
def test_a_lifetime_beyond_its_bounds_is_refused(ttl_s: int) -> None:
    with pytest.raises(ValueError, match="ttl_s must lie between 60 and 3600"):
        LoginTokens(RING, ttl_s=ttl_s)


def test_a_token_is_valid_until_the_last_moment_of_its_leeway(tokens: LoginTokens, clock: Clock) -> None:
    token = tokens.issue(WHO, auth_time=NOW)
    clock.now = NOW + tokens.ttl_s + LEEWAY_S - 0.001
    assert tokens.verify(token) == WHO


def test_a_token_has_expired_at_the_exact_second_its_leeway_ends(tokens: LoginTokens, clock: Clock) -> None:
    token = tokens.issue(WHO, auth_time=NOW)
    clock.now = NOW + tokens.ttl_s + LEEWAY_S
    with pytest.raises(TokenExpired):
        tokens.verify(token)


@pytest.mark.parametrize("claim", ["nbf", "iat"])
def test_a_token_of_the_future_is_valid_only_within_the_leeway(tokens: LoginTokens, claim: str) -> None:
    assert tokens.verify(forged(claims={claim: NOW + LEEWAY_S})) == WHO
    refused(tokens, forged(claims={claim: NOW + LEEWAY_S + 1}))


def test_an_expired_token_with_a_wrong_signature_is_invalid_not_expired(tokens: LoginTokens) -> None:
    refused(tokens, forged(claims={"exp": NOW - 100}, secret=b"x" * 32))


def test_an_expired_token_with_a_malformed_claim_is_invalid_not_expired(tokens: LoginTokens) -> None:
    refused(tokens, forged(claims={"exp": NOW - 100, "ver": "3"}))


# --- claims ---

CLAIMS = ["iss", "aud", "sub", "sid", "roles", "ver", "jti", "iat", "nbf", "exp", "auth_time"]
TEXTS, NUMBERS = ["iss", "aud", "sub", "sid", "jti"], ["ver", "iat", "nbf", "exp", "auth_time"]


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_token_without_a_required_claim_is_refused(tokens: LoginTokens, claim: str) -> None:
    refused(tokens, forged(claims={claim: MISSING}))


@pytest.mark.parametrize("value", [None, True, 1, 1.5, [], {}, ["hms-gateway"]])
@pytest.mark.parametrize("claim", TEXTS)
def test_a_text_claim_of_another_type_is_refused(tokens: LoginTokens, claim: str, value: object) -> None:
    refused(tokens, forged(claims={claim: value}))


@pytest.mark.parametrize("value", [None, True, False, str(NOW + 60), NOW + 60.0, 1.5, [], {}])
@pytest.mark.parametrize("claim", NUMBERS)
def test_an_integer_claim_of_another_type_is_refused(tokens: LoginTokens, claim: str, value: object) -> None:
    refused(tokens, forged(claims={claim: value}))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1e10", "9" * 2500 + ".5"])
@pytest.mark.parametrize("claim", NUMBERS)
def test_a_number_that_is_not_a_json_integer_is_refused(tokens: LoginTokens, claim: str, number: str) -> None:
    body = decode(forged().split(".")[1])
    text = json.dumps(body | {claim: "HERE"}).replace('"HERE"', number)
    refused(tokens, forged(text=text))


@pytest.mark.parametrize("value", [None, "host", "", {}, {"host": 1}, 1, True, [1], [None], ["host", True], [["host"]]])
def test_roles_that_are_not_a_list_of_texts_are_refused(tokens: LoginTokens, value: object) -> None:
    refused(tokens, forged(claims={"roles": value}))


@pytest.mark.parametrize("claim", ["nbf", "iat"])
def test_a_huge_time_is_refused_and_does_not_crash(tokens: LoginTokens, claim: str) -> None:
    refused(tokens, forged(claims={claim: 10**2000}))


def test_a_hugely_negative_expiry_is_expired_and_does_not_crash(tokens: LoginTokens) -> None:
    with pytest.raises(TokenExpired):
        tokens.verify(forged(claims={"exp": -(10**2000)}))


@pytest.mark.parametrize(("claim", "value"), [("iss", "HMS-GATEWAY"), ("iss", ""), ("aud", "hms"), ("aud", "")])
def test_a_foreign_issuer_or_audience_is_refused(tokens: LoginTokens, claim: str, value: str) -> None:
    refused(tokens, forged(claims={claim: value}))


@pytest.mark.parametrize("text", ["[]", "null", '"text"', "1", "{", "", "{}", "[" * 1400])
def test_a_payload_that_is_not_an_object_of_claims_is_refused(tokens: LoginTokens, text: str) -> None:
    payload = encode(text.encode()) or "AA"
    refused(tokens, sign(forged().split(".")[0], payload))


# --- header (RFC 8725 sections 3.1, 3.8, 3.11; RFC 7515 section 4.1) ---


def test_alg_none_is_refused_with_and_without_a_signature(tokens: LoginTokens) -> None:
    head, payload, signature = forged({"alg": "none"}).split(".")
    for token in (f"{head}.{payload}.{signature}", f"{head}.{payload}.", f"{head}.{payload}", f"{head}.{payload}.AA"):
        refused(tokens, token)


@pytest.mark.parametrize("alg", ["None", "NONE", "HS384", "RS256", "ES256", "hs256", "", None, 256, ["HS256"], MISSING])
def test_an_algorithm_other_than_ours_is_refused(tokens: LoginTokens, alg: object) -> None:
    refused(tokens, forged({"alg": alg}))


def test_hs512_with_the_right_key_is_refused(tokens: LoginTokens) -> None:
    refused(tokens, forged({"alg": "HS512"}, digest="sha512"))


def test_a_signature_by_another_algorithm_than_the_header_names_is_refused(tokens: LoginTokens) -> None:
    refused(tokens, forged(digest="sha512"))


@pytest.mark.parametrize("kid", ["unknown", "", "../../dev/null", None, 1, True, [], {}, MISSING])
def test_a_kid_that_is_unknown_or_not_text_is_refused(tokens: LoginTokens, kid: object) -> None:
    refused(tokens, forged({"kid": kid}))


def test_a_signature_under_the_kid_of_another_key_is_refused(clock: Clock) -> None:
    ring = KeyRing([SECRET, OTHER], "login-token")
    kid = KeyRing([OTHER], "login-token").signing.kid
    refused(LoginTokens(ring, now=clock), forged({"kid": kid}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("crit", []),
        ("crit", ["exp"]),
        ("jku", "https://attacker.example/keys"),
        ("x5u", "https://attacker.example/cert"),
        ("jwk", {"kty": "oct", "k": "AAAA"}),
        ("x5c", ["MIIB"]),
        ("x5t", "AAAA"),
        ("b64", False),
        ("b64", True),
        ("zip", "DEF"),
        ("enc", "A256GCM"),
        ("cty", "JWT"),
        ("anything", None),
    ],
)
def test_a_header_parameter_that_we_never_send_is_refused(tokens: LoginTokens, name: str, value: object) -> None:
    refused(tokens, forged({name: value}))


@pytest.mark.parametrize("typ", ["JWT", "jwt", "AT+JWT", "application/at+jwt", "", None, 1, MISSING])
def test_a_foreign_typ_is_refused(tokens: LoginTokens, typ: object) -> None:
    refused(tokens, forged({"typ": typ}))


@pytest.mark.parametrize("text", ["[]", "null", '"alg"', "1", "{", '["alg","kid","typ"]', "[" * 1400, "\xff"])
def test_a_header_that_is_not_an_object_is_refused(tokens: LoginTokens, text: str) -> None:
    refused(tokens, sign(encode(text.encode("latin-1")), forged().split(".")[1]))


# --- shape ---


def is_the_signature(position: int) -> bool:
    return position == 2


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("padding", ["=", "==", "%3D"])
def test_a_token_with_a_padded_segment_is_refused(tokens: LoginTokens, position: int, padding: str) -> None:
    parts = forged().split(".")
    parts[position] += padding
    # Signed with the padding, so that only the padding can be the reason; refused by us, before PyJWT is called.
    refused(tokens, ".".join(parts) if is_the_signature(position) else sign(parts[0], parts[1]), "malformed")


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_token_with_stray_trailing_bits_is_refused(tokens: LoginTokens, position: int) -> None:
    """RFC 4648 section 3.5: two texts that decode to the same bytes must not both be the token."""
    for filler in ("", " ", "  "):
        head, payload, _ = forged().split(".")
        if position == 0:
            head = encode(json.dumps(decode(head)).encode() + filler.encode())
        if position == 1:
            payload = encode(json.dumps(decode(payload)).encode() + filler.encode())
        parts = sign(head, payload).split(".")
        if len(parts[position]) % 4 == 0:
            continue  # every bit of the last character counts, so there are no stray bits
        assert tokens.verify(".".join(parts)) == WHO
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        segment = parts[position]
        stray = segment[:-1] + alphabet[alphabet.index(segment[-1]) + 1]
        decoded = [base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) for text in (segment, stray)]
        assert decoded[0] == decoded[1]
        parts[position] = stray
        refused(tokens, ".".join(parts) if is_the_signature(position) else sign(parts[0], parts[1]), "malformed")
        return
    pytest.fail("no filler gives this segment spare bits")


@pytest.mark.parametrize("space", [" ", "\n", "\r\n", "\t", "\x00", "\u00a0", "\u200b"])
@pytest.mark.parametrize("place", ["before", "after", "within", "around a dot"])
def test_a_token_with_white_space_anywhere_is_refused(tokens: LoginTokens, space: str, place: str) -> None:
    token = forged()
    spoiled = {
        "before": space + token,
        "after": token + space,
        "within": token[:9] + space + token[9:],
        "around a dot": token.replace(".", f"{space}.", 1),
    }
    refused(tokens, spoiled[place])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda t: "",
        lambda t: ".",
        lambda t: "..",
        lambda t: "...",
        lambda t: t.rpartition(".")[0],
        lambda t: t.rpartition(".")[0] + ".",
        lambda t: "." + t.partition(".")[2],
        lambda t: t.split(".")[0] + ".." + t.split(".")[2],
        lambda t: t + ".",
        lambda t: "." + t,
        lambda t: t + "." + t.split(".")[2],
        lambda t: t + ".AA.AA",
        lambda t: t.replace(".", ""),
    ],
)
def test_anything_but_three_non_empty_segments_is_refused(tokens: LoginTokens, spoil: Callable[[str], str]) -> None:
    refused(tokens, spoil(forged()))


def test_a_five_part_jwe_is_refused(tokens: LoginTokens) -> None:
    head = encode(json.dumps({"alg": "dir", "enc": "A256GCM", "kid": RING.signing.kid, "typ": "at+jwt"}).encode())
    refused(tokens, f"{head}..{encode(b'i' * 12)}.{encode(b'c' * 64)}.{encode(b't' * 16)}")
    refused(tokens, f"{head}.{encode(b'k' * 32)}.{encode(b'i' * 12)}.{encode(b'c' * 64)}.{encode(b't' * 16)}")


def test_a_signed_token_longer_than_4_kib_is_refused(tokens: LoginTokens) -> None:
    assert MAX_TOKEN_BYTES == 4096
    longest = short = forged(claims={"note": ""})
    for size in range(2500, 3200):
        token = forged(claims={"note": "n" * size})
        if len(token) > MAX_TOKEN_BYTES:
            break
        longest = token
    assert len(longest) > len(short)
    assert tokens.verify(longest) == WHO
    assert len(token) <= MAX_TOKEN_BYTES + 4
    refused(tokens, token)


@pytest.mark.parametrize("char", ["é", "ａ", "А", "\ud800", "😀", "+", "/", "%41", "\x7f"])
def test_a_token_with_a_character_outside_base64url_is_refused(tokens: LoginTokens, char: str) -> None:
    head, payload, signature = forged().split(".")
    for token in (f"{char}{head}.{payload}.{signature}", f"{head}.{payload}.{signature[:-1]}{char}"):
        refused(tokens, token)


def test_one_changed_character_at_any_place_is_refused(tokens: LoginTokens) -> None:
    token = forged()
    for at, char in enumerate(token):
        if char != ".":
            refused(tokens, token[:at] + ("A" if char != "A" else "B") + token[at + 1 :])


def test_tokens_signed_for_another_purpose_or_with_the_bare_secret_are_refused(tokens: LoginTokens) -> None:
    refused(tokens, forged(secret=KeyRing([SECRET], "refresh").signing.secret))
    refused(tokens, forged(secret=SECRET.encode()))
    refused(tokens, forged(secret=hashlib.sha256(SECRET.encode()).digest()))
    refused(tokens, forged(secret=b""))


def test_a_100ms_token_is_refused_even_if_signed_with_the_gateways_secret(tokens: LoginTokens, clock: Clock) -> None:
    for secret in (OTHER, SECRET):
        hms = HmsTokens("access-key", secret, now=clock)
        refused(tokens, hms.join_token(room_id="0" * 24, user_id=WHO.uid, role="host", ttl_s=3600).token)
        refused(tokens, hms.management_token())


def test_no_refusal_contains_the_token_in_its_text_or_chain(tokens: LoginTokens) -> None:
    for token in (forged(secret=b"x" * 32), forged({"jku": "u"}), forged(claims={"ver": "3"}), "a.b.c", "x" * 5000):
        with pytest.raises(InvalidToken) as caught:
            tokens.verify(token)
        error: BaseException | None = caught.value
        while error:
            assert token not in str(error)
            error = error.__cause__ or error.__context__
