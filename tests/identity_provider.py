"""An identity provider of the tests: its keys, and the tokens it signs."""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

from auth.federation import LOGOUT_EVENT

AUDIENCE = "video-app"
PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
_CURVES: Mapping[str, ec.EllipticCurve] = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}


def new_key(algorithm: str, *, bits: int = 2048) -> PrivateKey:
    if algorithm in _CURVES:
        return ec.generate_private_key(_CURVES[algorithm])
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, bits)


def encode(part: Any) -> str:
    """Return bytes, or JSON of anything else, as unpadded base64url."""
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@dataclass
class Key:
    """A signing key of a provider."""

    algorithm: str = "ES256"
    kid: str = "key-1"
    private: PrivateKey = field(default_factory=lambda: new_key("ES256"))

    @classmethod
    def new(cls, algorithm: str, kid: str = "key-1") -> Key:
        return cls(algorithm, kid, new_key(algorithm))

    @property
    def jwk(self) -> dict[str, Any]:
        public = get_default_algorithms()[self.algorithm].to_jwk(self.private.public_key(), as_dict=True)
        public.pop("key_ops", None)
        return {**public, "kid": self.kid, "use": "sig", "alg": self.algorithm}

    def sign(self, signed: str) -> bytes:
        return bytes(get_default_algorithms()[self.algorithm].sign(signed.encode(), self.private))


class IdentityProvider:
    """Signs tokens as a provider does. Claims that are None are left out. `now_s` stops its clock."""

    def __init__(self, issuer: str, key: Key | None = None, *, now_s: int = 0) -> None:
        self.issuer = issuer
        self.key = key or Key()
        self._now_s = now_s

    @property
    def jwks(self) -> dict[str, Any]:
        return {"keys": [self.key.jwk]}

    def claims(self, **more: Any) -> dict[str, Any]:
        now = self._now_s or int(time.time())
        usual = {"iss": self.issuer, "aud": AUDIENCE, "sub": "person-1", "iat": now, "exp": now + 3600}
        return {name: value for name, value in (usual | more).items() if value is not None}

    def token(self, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """Return an ID token."""
        head = {"alg": self.key.algorithm, "kid": self.key.kid, "typ": "JWT"} | dict(header or {})
        return self.signed({name: value for name, value in head.items() if value is not None}, self.claims(**claims))

    def logout_token(self, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """Return a logout token (OpenID Connect Back-Channel Logout 1.0 section 2.4)."""
        usual = {"jti": secrets.token_hex(8), "events": {LOGOUT_EVENT: {}}, "exp": self.claims()["iat"] + 120}
        return self.token({"typ": "logout+jwt"} | dict(header or {}), **(usual | claims))

    def signed(self, header: Any, claims: Any) -> str:
        """Return a token with exactly this header and these claims; bytes are taken as they are."""
        signed = f"{encode(header)}.{encode(claims)}"
        return f"{signed}.{encode(self.key.sign(signed))}"

    def table(self, folder: Path, name: str = "people", **more: Any) -> str:
        """Write the keys to a file in a folder; return a table of a policy that names it."""
        file = f"{name}.jwks.json"
        (folder / file).write_text(json.dumps(self.jwks))
        usual = {"issuer": self.issuer, "audience": AUDIENCE, "algorithms": [self.key.algorithm], "jwks_file": file}
        lines = [f"{key} = {json.dumps(value)}" for key, value in (usual | more).items() if not isinstance(value, dict)]
        for key, value in more.items():
            if isinstance(value, dict):
                lines += [f"{key}.{json.dumps(theirs)} = {json.dumps(ours)}" for theirs, ours in value.items()]
        return "\n".join([f"\n[identity.{name}]", *lines, ""])
