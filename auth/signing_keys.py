"""Keys that sign access tokens so that others can verify them: ES256 with P-256, or EdDSA with Ed25519.

They are PEM blocks (RFC 7468) of one text, and are published as a key set (RFC 7517). A key's `kid` is its thumbprint
(RFC 7638), so the same key has the same name everywhere. The first private key signs. All keys verify: the next one is
published before it signs, and of an old one only the public half is kept.
"""

import hashlib
import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

KINDS = ("es256", "ed25519")
MOST_KEYS = 16
MOST_CHARS = 64 * 1024
_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,40})-----.*?-----END \1-----", re.DOTALL)
_REMARK = re.compile(r"^# (made|retired) ([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z)$", re.MULTILINE)
# The Ed25519 points of small order, without the sign of x. OpenSSL verifies with such a public key, and anyone can make
# signatures that are valid for it, without a private key (Chalkias et al., "Taming the many EdDSAs", 2020, table 6).
_SMALL_ORDER = frozenset(
    bytes.fromhex(text)
    for text in (
        "00" * 32,
        "01" + "00" * 31,
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    )
)

PublicKey: TypeAlias = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class BadSigningKeys(ValueError):
    """A text holds no usable keys. The message is one line and repeats nothing of the text."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key, with `algorithm` as the only one it is used with. Without `private` it verifies only."""

    kid: str
    algorithm: str
    jwk: dict[str, str] = field(repr=False)
    public: PublicKey = field(repr=False)
    private: PrivateKey | None = field(default=None, repr=False)
    made: datetime | None = None
    retired: datetime | None = None


@dataclass(frozen=True, slots=True)
class SigningKeys:
    """The keys of an installation, and the `iss` of the tokens that they sign."""

    keys: tuple[SigningKey, ...]
    issuer: str

    @property
    def first(self) -> SigningKey | None:
        """The key that signs; None if all of them only verify."""
        return next((key for key in self.keys if key.private is not None), None)

    def find(self, kid: object) -> SigningKey | None:
        return next((key for key in self.keys if key.kid == kid), None)


def read_keys(text: str) -> tuple[SigningKey, ...]:
    """Read the keys of a PEM text, in their order. Raises: BadSigningKeys"""
    if len(text) > MOST_CHARS:
        raise BadSigningKeys(f"it is longer than {MOST_CHARS // 1024} KiB")
    keys = tuple(_blocks(text))
    if not keys:
        raise BadSigningKeys("it has no key in PEM, such as `gateway keys signing new` writes")
    if len(keys) > MOST_KEYS:
        raise BadSigningKeys(f"it has more than {MOST_KEYS} keys")
    if len({key.kid for key in keys}) < len(keys):
        raise BadSigningKeys("it has the same key twice")
    return keys


def read_file(path: Path) -> tuple[SigningKey, ...]:
    """Read the keys of a file. Raises: BadSigningKeys"""
    try:
        with path.open(encoding="ascii") as file:
            text = file.read(MOST_CHARS + 1)
    except OSError as error:
        raise BadSigningKeys(f"the file cannot be read: {error.strerror}") from None
    except ValueError:
        raise BadSigningKeys("the file is not PEM") from None
    return read_keys(text)


def write_keys(keys: Sequence[SigningKey]) -> str:
    """Return keys as a PEM text that `read_keys` reads."""
    parts = ["# Keys of access tokens, by `gateway keys signing`: the first private key signs, all of them verify.\n"]
    for key in keys:
        for name, at in (("made", key.made), ("retired", key.retired)):
            parts.append(f"# {name} {at:%Y-%m-%dT%H:%M:%SZ}\n" if at else "")
        if key.private is None:
            pem = key.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        else:
            pem = key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        parts.append(pem.decode())
    return "".join(parts)


def make_key(kind: str, now: datetime) -> SigningKey:
    """Return a new key of one of `KINDS`."""
    private = ec.generate_private_key(ec.SECP256R1()) if kind == "es256" else ed25519.Ed25519PrivateKey.generate()
    return replace(_key_of(private), made=now)


def kind_of(key: SigningKey) -> str:
    """Return which of `KINDS` a key is."""
    return "es256" if key.algorithm == "ES256" else "ed25519"


def rotated(keys: Sequence[SigningKey], kind: str, now: datetime, keep: timedelta) -> tuple[SigningKey, ...]:
    """Return keys of which the next private one signs, with a new one after it.

    The old one verifies for as long as `keep`; what was retired before that is dropped.
    """
    private = [key for key in keys if key.private is not None]
    following = private[1:] or [make_key(kind, now)]
    return (*following, make_key(kind, now), *stopped([*private[:1], *_verifying(keys, now, keep)], now))


def stopped(keys: Sequence[SigningKey], now: datetime) -> tuple[SigningKey, ...]:
    """Return keys that only verify: their private halves are gone."""
    return tuple(replace(key, private=None, retired=key.retired or now) for key in keys)


def _verifying(keys: Sequence[SigningKey], now: datetime, keep: timedelta) -> list[SigningKey]:
    return [key for key in keys if key.private is None and (key.retired or now) > now - keep]


def _blocks(text: str) -> Iterator[SigningKey]:
    end = 0
    for block in _BLOCK.finditer(text):
        label, remarks, end = block[1], dict(_REMARK.findall(text, end, block.start())), block.end()
        if label != "EC PARAMETERS":  # `openssl ecparam -genkey` puts the name of the curve before the key
            key = _key_of(_load(label, block[0].encode()))
            yield replace(key, made=_time(remarks.get("made")), retired=_time(remarks.get("retired")))
    if "-----BEGIN" in _BLOCK.sub("", text):
        raise BadSigningKeys("it has a PEM block that is not complete")


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise BadSigningKeys("a key was made or retired at a time that does not exist") from None


def _load(label: str, pem: bytes) -> object:
    if label == "ENCRYPTED PRIVATE KEY" or b"ENCRYPTED" in pem:
        raise BadSigningKeys("it has an encrypted private key; the gateway has no password for it")
    try:
        if label in ("PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"):
            return load_pem_private_key(pem, password=None)
        if label == "PUBLIC KEY":
            return load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BadSigningKeys(f"it has a {label} that cannot be read") from None
    raise BadSigningKeys(f"it has a {label}; keys are in PKCS #8 (PRIVATE KEY) or SEC 1 (EC PRIVATE KEY)")


def _key_of(loaded: object) -> SigningKey:
    """Return a loaded key with its names. Raises: BadSigningKeys, unless it is of a kind that signs tokens"""
    private = loaded if isinstance(loaded, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) else None
    public = private.public_key() if private else loaded
    if isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1):
        return _named("ES256", ECAlgorithm.to_jwk(public, as_dict=True), public, private)
    if isinstance(public, ed25519.Ed25519PublicKey):
        if has_small_order(public):
            raise BadSigningKeys("it has an Ed25519 public key of small order, for which anyone can sign")
        return _named("EdDSA", OKPAlgorithm.to_jwk(public, as_dict=True), public, private)
    raise BadSigningKeys(f"it has a key of the kind {_kind(public)}; it must be EC on P-256, or Ed25519")


def has_small_order(key: ed25519.Ed25519PublicKey) -> bool:
    """Tell whether anyone can make signatures for a key."""
    point = key.public_bytes_raw()
    return point[:31] + bytes([point[31] & 0x7F]) in _SMALL_ORDER  # without the sign of x


def _named(algorithm: str, jwk: dict[str, Any], public: PublicKey, private: PrivateKey | None) -> SigningKey:
    # All members of these keys are required ones, so the thumbprint is over the whole (RFC 7638, RFC 8037 section 2).
    canonical = json.dumps(jwk, sort_keys=True, separators=(",", ":")).encode()
    kid = urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=").decode()
    return SigningKey(kid, algorithm, jwk | {"kid": kid, "use": "sig", "alg": algorithm}, public, private)


def _kind(key: object) -> str:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC on {key.curve.name}"
    return re.sub(r"(Public|Private)Key$", "", type(key).__name__).strip("_")
