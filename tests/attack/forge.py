"""Forged login tokens. The forger knows everything, including the key, except what a case withholds."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import jwt

from auth.keys import Key, KeyRing
from tests.e2e.checks import assert_problem
from tests.servers import Installation

ROUTES = [("GET", "/api/auth/me"), ("GET", "/api/usage"), ("POST", "/api/rooms")]


def encode(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


class Forge:
    """Signs any token, by default with the right key."""

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


def assert_refused(target: Installation, token: str, *, code: str = "invalid_token") -> None:
    """Send a token to routes that read, charge nothing and write; check that each answers 401 without repeating it."""
    for method, path in ROUTES:
        with target.client() as client:
            headers = {"Authorization": b"Bearer " + token.encode()}
            answer = client.request(method, path, headers=headers, json={} if method == "POST" else None)
        assert_problem(answer, 401, code)
        assert not token or token not in answer.text
