"""Forged, foreign and misused tokens against real routes: 401 each, never a 500, and nobody is asked for a key."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import time
import uuid
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import httpx
import jwt
import pytest

from auth.keys import Key, KeyRing
from gateway.hms.tokens import HmsTokens
from tests.e2e.checks import assert_problem
from tests.servers import HOST, NO_TLS, Installation

ROUTES = [("GET", "/api/auth/me"), ("GET", "/api/usage"), ("POST", "/api/rooms")]


def encode(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


class Forge:
    """Makes tokens as one who knows everything but what the case denies him."""

    def __init__(self, target: Installation) -> None:
        self.login = target.log_in("hanna")
        self.genuine = str(self.login["access_token"])
        self.key: Key = KeyRing([target.env["GATEWAY_SECRET"]], "login-token").signing
        self.header = {"alg": "HS256", "kid": self.key.kid, "typ": "at+jwt"}
        self.claims: dict[str, Any] = jwt.decode(self.genuine, options={"verify_signature": False})

    def sign(
        self, header: dict[str, Any], claims: object = None, *, key: bytes | None = None, digest: Any = hashlib.sha256
    ) -> str:
        content = self.claims if claims is None else claims
        return self.sign_raw(json.dumps(header).encode(), json.dumps(content).encode(), key=key, digest=digest)

    def sign_raw(self, header: bytes, payload: bytes, *, key: bytes | None = None, digest: Any = hashlib.sha256) -> str:
        signed = f"{encode(header)}.{encode(payload)}"
        return f"{signed}.{encode(hmac.digest(key or self.key.secret, signed.encode(), digest))}"


@pytest.fixture(scope="module")
def forge(target: Installation) -> Forge:
    return Forge(target)


def assert_refused(target: Installation, token: str, *, code: str = "invalid_token") -> None:
    for method, path in ROUTES:
        with target.client() as client:
            headers = {"Authorization": b"Bearer " + token.encode()}
            answer = client.request(method, path, headers=headers, json={} if method == "POST" else None)
        assert_problem(answer, 401, code)
        assert token not in answer.text


def test_forge_makes_tokens_that_pass_when_nothing_is_wrong(target: Installation, forge: Forge) -> None:
    """The control of this file: else a refusal might be the forger's mistake."""
    token = forge.sign(forge.header)
    assert token.split(".")[1] != forge.genuine.split(".")[1] or token == forge.genuine
    with target.client(token) as client:
        assert client.get("/api/auth/me").status_code == 200


# RFC 8725 sections 2.1 and 3.1: the key says which algorithm, not the token. CVE-2015-9235 (jsonwebtoken),
# CVE-2018-1000531 (prime-jwt), CVE-2020-28042 (ServiceStack, empty signature); case variants: Insomnia Security's
# advisory on Auth0's Authentication API, 2020-04-16.
@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", "", None, 0, [], ["HS256"], {"HS256": 1}])
def test_unsigned_token_is_refused(target: Installation, forge: Forge, algorithm: object) -> None:
    head = encode(json.dumps(forge.header | {"alg": algorithm}).encode())
    payload = encode(json.dumps(forge.claims).encode())
    for signature in ("", encode(b"x"), forge.genuine.split(".")[2]):
        assert_refused(target, f"{head}.{payload}.{signature}")
    assert_refused(target, f"{head}.{payload}")


# RFC 8725 section 3.1: exactly the algorithm that the key is for, though the signature is right.
@pytest.mark.parametrize(
    ("algorithm", "digest"),
    [
        ("HS512", hashlib.sha512),
        ("HS384", hashlib.sha384),
        ("hs256", hashlib.sha256),
        ("RS256", hashlib.sha256),
        ("ES256", hashlib.sha256),
        ("PS256", hashlib.sha256),
        ("EdDSA", hashlib.sha256),
        ("HS256 ", hashlib.sha256),
    ],
)
def test_other_algorithm_is_refused(target: Installation, forge: Forge, algorithm: str, digest: Any) -> None:
    assert_refused(target, forge.sign(forge.header | {"alg": algorithm}, digest=digest))


# RFC 8725 section 3.10: `kid` is not to be trusted as a path, a query or a pointer.
@pytest.mark.parametrize(
    "kid",
    [
        "../../../../dev/null",
        "/dev/null",
        "' OR '1'='1",
        "x' UNION SELECT 'key';--",
        "unknown",
        "",
        "*",
        None,
        0,
        True,
        ["a"],
        {"a": 1},
        "x" * 2000,
        "http://127.0.0.1/key",
    ],
    ids=lambda kid: repr(kid)[:30],
)
@pytest.mark.parametrize("key", [b"", b"\x00", b"key"])
def test_kid_leads_nowhere(target: Installation, forge: Forge, kid: object, key: bytes) -> None:
    signed = forge.sign(forge.header | {"kid": kid}, key=key or b"\x00" * 32)
    with target.client() as client:
        headers = {"Authorization": b"Bearer " + signed.encode()}
        assert_problem(client.get("/api/auth/me", headers=headers), 401, "invalid_token")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A server that would notice if anybody came for a key."""
    with socket.socket() as server:
        server.bind((HOST, 0))
        server.listen()
        server.settimeout(0.3)
        yield server


# RFC 8725 section 3.10 and RFC 7515 section 10: no key out of the token (CVE-2018-0114, node-jose), and no request
# forged by one (SSRF).
@pytest.mark.parametrize("name", ["jku", "x5u", "jwk", "x5c", "x5t"])
def test_header_brings_no_key_and_sends_nobody_for_one(
    target: Installation, forge: Forge, listener: socket.socket, name: str
) -> None:
    url = f"http://{HOST}:{listener.getsockname()[1]}/keys"
    mine = {"kty": "oct", "k": encode(b"attacker" * 4), "alg": "HS256", "kid": "mine"}
    value = {"jwk": mine, "x5c": [url], "x5t": "x"}.get(name, url)
    # With the right key, so that the header alone is what is wrong; then with the attacker's own.
    assert_refused(target, forge.sign(forge.header | {name: value}))
    assert_refused(target, forge.sign(forge.header | {name: value, "kid": "mine"}, key=b"attacker" * 4))
    with pytest.raises(TimeoutError):
        listener.accept()


# RFC 7515 section 4.1.11 (crit; CVE-2026-32597 of PyJWT is of this kind), RFC 7797 (b64), RFC 8725 section 3.6 (zip).
@pytest.mark.parametrize(
    "extra",
    [{"crit": ["exp"]}, {"crit": ["b64"], "b64": False}, {"b64": False}, {"zip": "DEF"}, {"cty": "JWT"}, {"x": 1}],
    ids=str,
)
def test_header_fields_of_others_are_refused(target: Installation, forge: Forge, extra: dict[str, Any]) -> None:
    assert_refused(target, forge.sign(forge.header | extra))


# RFC 8725 section 3.11: the type says what the token is for.
@pytest.mark.parametrize("kind", ["JWT", "AT+JWT", "application/at+jwt", "id+jwt", "", None])
def test_token_of_another_type_is_refused(target: Installation, forge: Forge, kind: object) -> None:
    assert_refused(target, forge.sign(forge.header | {"typ": kind}))


@pytest.mark.parametrize("name", ["alg", "kid", "typ"])
def test_header_that_lacks_a_field_is_refused(target: Installation, forge: Forge, name: str) -> None:
    assert_refused(target, forge.sign({key: value for key, value in forge.header.items() if key != name}))


# RFC 7519 section 4: each claim is there, and of its type; RFC 8725 sections 3.8 and 3.9: issuer and audience.
@pytest.mark.parametrize(
    "change",
    [
        {"iss": "https://evil.example"},
        {"iss": ["hms-gateway"]},
        {"aud": "another"},
        {"aud": ["hms-gateway"]},
        {"aud": None},
        {"sub": 7},
        {"sub": ""},
        {"sub": "u" + "a" * 20},
        {"sub": "*"},
        {"sub": "}:x"},
        {"sid": "0" * 20},
        {"sid": ""},
        {"sid": "*"},
        {"sid": ["a"]},
        {"roles": "admin"},
        {"roles": [1]},
        {"roles": {"admin": 1}},
        {"ver": "1"},
        {"ver": True},
        {"ver": 1.0},
        {"exp": "99999999999"},
        {"exp": 1e12},
        {"exp": True},
        {"exp": None},
        {"nbf": 99_999_999_999},
        {"iat": 99_999_999_999},
        {"iat": "now"},
        {"jti": 1},
        {"auth_time": None},
    ],
    ids=str,
)
def test_claim_out_of_order_is_refused(target: Installation, forge: Forge, change: dict[str, Any]) -> None:
    """Signed with the right key: a second line behind the signature."""
    assert_refused(target, forge.sign(forge.header, forge.claims | change))


@pytest.mark.parametrize("name", ["iss", "aud", "sub", "sid", "roles", "ver", "jti", "iat", "nbf", "exp", "auth_time"])
def test_claim_left_out_is_refused(target: Installation, forge: Forge, name: str) -> None:
    assert_refused(target, forge.sign(forge.header, {key: value for key, value in forge.claims.items() if key != name}))


def test_other_version_and_old_expiry_ask_for_a_refresh(target: Installation, forge: Forge) -> None:
    assert_refused(target, forge.sign(forge.header, forge.claims | {"ver": 2}), code="token_expired")
    past = {"exp": int(time.time()) - 11}
    assert_refused(target, forge.sign(forge.header, forge.claims | past), code="token_expired")


@pytest.mark.parametrize("payload", [b"[]", b"null", b'"x"', b"1", b"", b"{", b"\xff", b"[" * 2000, b'{"exp":1e999}'])
def test_payload_that_is_no_claims_is_refused(target: Installation, forge: Forge, payload: bytes) -> None:
    assert_refused(target, forge.sign_raw(json.dumps(forge.header).encode(), payload))


@pytest.mark.parametrize("header", [b"[]", b"null", b'"HS256"', b"", b"{", b"\xff", b"[" * 2500, b'{"a":' * 500])
def test_header_that_is_no_object_is_refused(target: Installation, forge: Forge, header: bytes) -> None:
    assert_refused(target, forge.sign_raw(header, json.dumps(forge.claims).encode()))


# RFC 7515 section 2 (no padding), RFC 4648 section 3.5 (one spelling per value): a block list or a cache by token text
# must not be passed by respelling the token.
def test_respelled_token_is_refused(target: Installation, forge: Forge) -> None:
    head, payload, signature = forge.genuine.split(".")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    same_bytes = alphabet[alphabet.index(signature[-1]) ^ 1]
    assert encode(base64.urlsafe_b64decode(signature[:-1] + same_bytes + "=")) == signature
    for token in (
        f"{head}.{payload}.{signature}=",
        f"{head}=.{payload}=.{signature}=",
        f"{head}==.{payload}.{signature}",
        f"{head}.{payload}.{signature[:-1]}{same_bytes}",
        f"{head}.{payload}.{signature}.",
        f".{head}.{payload}.{signature}",
        f"{head}..{payload}.{signature}",
        f"{head}.{payload}.{signature}\u00e4",
        f"{head}.{payload}\t.{signature}",
        f"{head[:-1]}+{payload}/.{signature}",
        f"{head}.{payload}.",
        f"{head}.{payload}.{signature[:-2]}",
        f"{head}.{payload}.{signature} x",
        f" {forge.genuine}",
    ):
        assert_refused(target, token)


# RFC 7516: five parts are a JWE; RFC 7515 section 7.2: the JSON serialisations (CVE-2022-3102 of jwcrypto let one kind
# pass for the other).
def test_other_serialisations_are_refused(target: Installation, forge: Forge) -> None:
    head, payload, signature = forge.genuine.split(".")
    jwe_head = encode(b'{"alg":"dir","enc":"A128GCM"}')
    assert_refused(target, f"{jwe_head}..{encode(b'iv')}.{payload}.{signature}")
    assert_refused(target, f"{head}.{payload}.{signature}.{payload}.{signature}")
    flat = {"protected": head, "payload": payload, "signature": signature}
    for document in (flat, {"payload": payload, "signatures": [{"protected": head, "signature": signature}]}):
        assert_refused(target, json.dumps(document, separators=(",", ":")))
        assert_refused(target, encode(json.dumps(document).encode()))


def test_keys_of_other_purposes_sign_no_login_token(target: Installation, forge: Forge) -> None:
    """Neither the secret itself, nor a key derived from it for another use, nor the 100ms secret (RFC 8725, 3.5)."""
    secret = target.env["GATEWAY_SECRET"]
    keys = [secret.encode(), target.env["HMS_APP_SECRET"].encode(), b""]
    keys += [KeyRing([secret], purpose).signing.secret for purpose in ("refresh", "cursor", "throttle")]
    keys.append(KeyRing([target.env["HMS_APP_SECRET"]], "login-token").signing.secret)
    for key in keys:
        assert_refused(target, forge.sign(forge.header, key=key or b"\x00" * 32))


# RFC 8725 section 3.12 (mutually exclusive validation), RFC 9700 section 2.2: a token of one kind is none of another.
def test_tokens_of_other_kinds_are_no_login_tokens(target: Installation, forge: Forge) -> None:
    hms = HmsTokens(target.env["HMS_APP_ACCESS_KEY"], target.env["HMS_APP_SECRET"])
    uid = forge.login["user"]["id"]
    assert_refused(target, forge.login["refresh_token"])
    assert_refused(target, hms.management_token())
    assert_refused(target, hms.join_token(room_id="0" * 24, user_id=uid, role="host", ttl_s=600).token)
    with target.client(forge.genuine) as client:
        room = client.post("/api/rooms", json={}).json()["room"]["id"]
        assert_refused(target, client.post(f"/api/rooms/{room}/token", json={}).json()["token"])
    # A 100ms token that carries our claims as well.
    both = forge.claims | {"access_key": target.env["HMS_APP_ACCESS_KEY"], "type": "app", "version": 2}
    assert_refused(target, jwt.encode(both, target.env["HMS_APP_SECRET"], headers={"kid": forge.key.kid}))


def test_login_token_is_no_refresh_token_and_opens_nothing_at_100ms(target: Installation, forge: Forge) -> None:
    with target.client() as client:
        for token in (forge.genuine, str(uuid.uuid4())):
            answer = client.post("/api/auth/refresh", json={"refresh_token": token})
            assert_problem(answer, 400, "invalid_grant")
    headers = {"Authorization": f"Bearer {forge.genuine}"}
    for path in ("/v2/rooms", "/init?peer_id=p"):
        assert (
            httpx.get(f"{target.emulator_url}{path}", headers=headers, verify=NO_TLS, trust_env=False).status_code
            == 401
        )


# RFC 6750 section 5.3: tokens in addresses end up in logs and histories. The forms of sections 2.2 and 2.3 are not
# offered.
def test_token_counts_in_the_header_only(target: Installation, forge: Forge) -> None:
    with target.client() as client:
        for name in ("access_token", "token", "authorization", "bearer"):
            assert_problem(client.get("/api/auth/me", params={name: forge.genuine}), 401, "invalid_token")
            cookie = client.get("/api/auth/me", headers={"Cookie": f"{name}={forge.genuine}"})
            assert_problem(cookie, 401, "invalid_token")
        assert_problem(client.post("/api/rooms", json={"access_token": forge.genuine}), 401, "invalid_token")
        form = client.post("/api/rooms", data={"access_token": forge.genuine})
        assert_problem(form, 401, "invalid_token")


# RFC 9110 section 5.3: Authorization is no list; two of them are read differently by a proxy and by us.
def test_two_authorization_headers_are_refused(target: Installation, forge: Forge) -> None:
    good, bad = f"Bearer {forge.genuine}", "Bearer x"
    for first, second in ((good, bad), (bad, good), (good, good), (good, "")):
        connection = HTTPConnection(HOST, target.port, timeout=5)
        connection.putrequest("GET", "/api/auth/me")
        connection.putheader("Authorization", first)
        connection.putheader("Authorization", second)
        connection.endheaders()
        answer = connection.getresponse()
        assert answer.status == 401
        assert json.loads(answer.read())["code"] == "invalid_token"
        connection.close()


# Litestar's own JWTAuth takes `Basic <jwt>` (verified on 2.25); RFC 6750 section 2.1: the scheme is Bearer.
@pytest.mark.parametrize(
    "value",
    ["Basic {}", "{}", "Token {}", "JWT {}", "Bearer", "Bearer  {}", "Bearer\t{}", "Bearer,{}", "Bearer={}"],
)
def test_other_schemes_are_refused(target: Installation, forge: Forge, value: str) -> None:
    with target.client() as client:
        answer = client.get("/api/auth/me", headers={"Authorization": value.format(forge.genuine)})
    assert_problem(answer, 401, "invalid_token")


def test_name_and_password_in_a_basic_header_log_nobody_in(target: Installation) -> None:
    with target.client() as client:
        answer = client.get("/api/auth/me", auth=("hanna", target.passwords["hanna"]))
    assert_problem(answer, 401, "invalid_token")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_scheme_is_read_in_any_case(target: Installation, forge: Forge, scheme: str) -> None:
    """RFC 9110 section 11.1."""
    with target.client() as client:
        answer = client.get("/api/auth/me", headers={"Authorization": f"{scheme} {forge.genuine}"})
    assert answer.status_code == 200
