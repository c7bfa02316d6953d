"""Forged login tokens. The forger knows everything, including the key, except what a case withholds."""

from __future__ import annotations

import base64
import hmac
import json
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from auth.keys import KeyRing
from auth.signing_keys import read_file
from auth.tokens import ISSUER
from tests.e2e.checks import assert_problem
from tests.servers import Installation

ROUTES = [("GET", "/api/auth/me"), ("GET", "/api/usage"), ("POST", "/api/rooms")]


def encode(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}


class Forge:
    """Signs any token, by default with the right key: with that of HS256, or with the one that signs for ES256."""

    def __init__(self, target: Installation, algorithm: str) -> None:
        self.login = target.log_in("hanna")
        self.genuine = str(self.login["access_token"])
        self.secret = KeyRing([target.env["GATEWAY_SECRET"]], "login-token").signing
        self.signing = next(key for key in read_file(Path(target.env["GATEWAY_SIGNING_KEY"])) if key.private)
        self.algorithm = algorithm
        self.kid = self.secret.kid if algorithm == "HS256" else self.signing.kid
        self.header = {"alg": algorithm, "kid": self.kid, "typ": "at+jwt"}
        self.claims: dict[str, Any] = jwt.decode(self.genuine, options={"verify_signature": False})
        if algorithm == "HS256":  # as a gateway without a signing key would have issued it
            del self.claims["client_id"]
            self.claims["iss"] = ISSUER
            self.genuine = self.sign(self.header)

    def sign(
        self, header: dict[str, Any], claims: object = None, *, key: bytes | None = None, digest: str = "sha256"
    ) -> str:
        content = self.claims if claims is None else claims
        return self.sign_raw(json.dumps(header).encode(), json.dumps(content).encode(), key=key, digest=digest)

    def sign_raw(self, header: bytes, payload: bytes, *, key: bytes | None = None, digest: str = "sha256") -> str:
        """Sign any bytes; with `key` by HMAC, whatever the algorithm."""
        signed = f"{encode(header)}.{encode(payload)}"
        if key or self.algorithm == "HS256":
            return f"{signed}.{encode(hmac.digest(key or self.secret.secret, signed.encode(), digest))}"
        private = self.signing.private
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        r, s = decode_dss_signature(private.sign(signed.encode(), ec.ECDSA(HASHES[digest])))
        return f"{signed}.{encode(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def assert_refused(target: Installation, token: str, *, code: str = "invalid_token") -> None:
    """Send a token to routes that read, charge nothing and write; check that each answers 401 without repeating it."""
    headers = {"Authorization": b"Bearer " + token.encode()}
    with target.client() as client:
        for method, path in ROUTES:
            answer = client.request(method, path, headers=headers, json={} if method == "POST" else None)
            assert_problem(answer, 401, code)
            assert not token or token not in answer.text
