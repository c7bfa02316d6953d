"""Public keys of identity providers: reads key sets (JWK Set, RFC 7517) and PEM, and verifies signatures with them.

A key verifies only what it is for: its type, its curve and its own `alg` decide which algorithms those are, never the
token. Keys that are of no use here are left out, as providers publish keys for encryption beside those for signatures.
A set is refused whole if it is ambiguous or holds something that must be secret.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import Algorithm, get_default_algorithms

from .jws import Malformed, decode_base64url, read_object
from .signing_keys import has_small_order

_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES: dict[str, tuple[str, ec.EllipticCurve, int]] = {
    "P-256": ("ES256", ec.SECP256R1(), 32),
    "P-384": ("ES384", ec.SECP384R1(), 48),
    "P-521": ("ES512", ec.SECP521R1(), 66),
}  # the algorithm (RFC 7518 section 3.4), the curve, and the bytes of a coordinate
ALGORITHMS = frozenset({*_RSA, *(algorithm for algorithm, _, _ in _CURVES.values()), "EdDSA"})
"""All that may be used: asymmetric ones only."""

LEAST_RSA_BITS, MOST_RSA_BITS = 2048, 8192  # a longer one takes milliseconds to verify with
_LEAST_EXPONENT, _MOST_EXPONENT = 65537, 1 << 32
MOST_KEYS = 100
_MOST_KID = 256
# A modulus of Infineon's flawed generator (ROCA, CVE-2017-15361) is a power of 65537 modulo each of these; a random one
# is with a probability of 2**-27.
_ROCA = {
    prime: {pow(65537, n, prime) for n in range(prime)}
    for prime in range(3, 168)
    if all(prime % n for n in range(2, prime))
}
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})  # of RFC 7518 section 6; k is a shared secret

_Verifying = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | Ed25519PublicKey
_IMPLEMENTED: dict[str, Algorithm] = {name: get_default_algorithms()[name] for name in ALGORITHMS}


class BadKeySet(Exception):
    """A key set is refused. The text says why."""


class _Unusable(Exception):
    """A key is left out. The text says why."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key and the algorithms it verifies."""

    algorithms: frozenset[str]
    _key: _Verifying = field(repr=False)

    def verifies(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Tell whether a signature is genuine."""
        if algorithm not in self.algorithms:
            return False
        try:
            return bool(_IMPLEMENTED[algorithm].verify(signed, self._key, signature))
        except (InvalidSignature, ValueError):
            return False


@dataclass(frozen=True)
class KeySet:
    """The usable keys of a provider by their id. `left_out` says why each of the others is not used."""

    keys: Mapping[str, PublicKey]
    left_out: tuple[str, ...] = ()

    def find(self, kid: str | None) -> PublicKey | None:
        """Return the key of an id. A sole key without an id of its own is that of every token."""
        if kid is not None and kid in self.keys:
            return self.keys[kid]
        return self.keys.get("") if len(self.keys) == 1 else None


def read_key_set(content: bytes) -> KeySet:
    """Read a key set, or one public key in PEM. Raises: BadKeySet"""
    if content.lstrip().startswith(b"-----BEGIN"):
        return KeySet({"": _from_pem(content)})
    try:
        listed = read_object(content).get("keys")
    except Malformed as error:
        raise BadKeySet(f"it is {error}") from None
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise BadKeySet("it has no list of keys")
    if len(listed) > MOST_KEYS:
        raise BadKeySet(f"it has more than {MOST_KEYS} keys")
    return _usable(listed)


def _usable(listed: list[dict[str, Any]]) -> KeySet:
    keys: dict[str, PublicKey] = {}
    left_out: list[str] = []
    seen: set[Any] = set()
    for jwk in listed:
        kid = jwk.get("kid", "")
        if not isinstance(kid, str) or len(kid) > _MOST_KID:
            raise BadKeySet("a key's id is not a text of at most 256 characters")
        if kid in seen:
            raise BadKeySet(f"two keys have the id {kid!r}")
        seen.add(kid)
        if jwk.get("kty") == "oct" or _PRIVATE & jwk.keys():
            raise BadKeySet(f"the key {kid!r} must be secret, but is published")
        try:
            keys[kid] = _from_jwk(jwk)
        except _Unusable as error:
            left_out.append(f"{kid or 'a key without an id'}: {error}")
    if "" in keys and len(seen) > 1:  # no token can name it
        del keys[""]
        left_out.append("a key without an id: there are others")
    if not keys:
        raise BadKeySet(f"it has no usable key ({'; '.join(left_out[:3]) or 'it is empty'})")
    return KeySet(keys, tuple(left_out))


def _from_jwk(jwk: Mapping[str, Any]) -> PublicKey:
    """Raises: _Unusable"""
    if jwk.get("use", "sig") != "sig":
        raise _Unusable("is not for signatures")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise _Unusable("is not for verifying")
    read = _READERS.get(str(jwk.get("kty")))
    if read is None:
        raise _Unusable("is of an unknown type")
    try:
        algorithms, key = read(jwk)
    except (Malformed, KeyError, TypeError, ValueError, UnsupportedAlgorithm):
        raise _Unusable("is damaged") from None
    if "alg" in jwk:
        algorithms &= {jwk["alg"]} if isinstance(jwk["alg"], str) else frozenset()
    if not algorithms:
        raise _Unusable("is for another algorithm")
    return PublicKey(algorithms, _checked(key))


def _read_rsa(jwk: Mapping[str, Any]) -> tuple[frozenset[str], _Verifying]:
    n, e = (int.from_bytes(decode_base64url(jwk[name])) for name in ("n", "e"))
    if n.bit_length() > MOST_RSA_BITS:  # before anything computes with it
        raise _Unusable(f"has more than {MOST_RSA_BITS} bits")
    return frozenset(_RSA), rsa.RSAPublicNumbers(e, n).public_key()


def _read_ec(jwk: Mapping[str, Any]) -> tuple[frozenset[str], _Verifying]:
    if jwk.get("crv") not in _CURVES:
        raise _Unusable("is of an unknown curve")
    algorithm, curve, size = _CURVES[jwk["crv"]]
    x, y = decode_base64url(jwk["x"]), decode_base64url(jwk["y"])
    if (len(x), len(y)) != (size, size):  # RFC 7518 section 6.2.1.2
        raise _Unusable("is damaged")
    # Raises ValueError if the point is not on the curve.
    key = ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), curve).public_key()
    return frozenset({algorithm}), key


def _read_okp(jwk: Mapping[str, Any]) -> tuple[frozenset[str], _Verifying]:
    if jwk.get("crv") != "Ed25519":
        raise _Unusable("is of an unknown curve")
    return frozenset({"EdDSA"}), Ed25519PublicKey.from_public_bytes(decode_base64url(jwk["x"]))


_READERS = {"RSA": _read_rsa, "EC": _read_ec, "OKP": _read_okp}


def _from_pem(content: bytes) -> PublicKey:
    if content.count(b"-----BEGIN") > 1:
        raise BadKeySet("it has several keys; a key set (JWKS) gives each its id")
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        raise BadKeySet("it is not a public key in PEM") from None
    try:
        match key:
            case rsa.RSAPublicKey():
                return PublicKey(frozenset(_RSA), _checked(key))
            case ec.EllipticCurvePublicKey():
                named = {curve.name: algorithm for algorithm, curve, _ in _CURVES.values()}
                if key.curve.name in named:
                    return PublicKey(frozenset({named[key.curve.name]}), key)
            case Ed25519PublicKey():
                return PublicKey(frozenset({"EdDSA"}), _checked(key))
    except _Unusable as error:
        raise BadKeySet(f"the key {error}") from None
    raise BadKeySet("the key is neither RSA nor P-256, P-384, P-521 or Ed25519")


def _checked(key: _Verifying) -> _Verifying:
    """Return a key that is strong enough. Raises: _Unusable"""
    if isinstance(key, Ed25519PublicKey) and has_small_order(key):
        raise _Unusable("is weak")
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < LEAST_RSA_BITS:
            raise _Unusable(f"has {key.key_size} bits; {LEAST_RSA_BITS} are the least")
        if key.key_size > MOST_RSA_BITS:
            raise _Unusable(f"has more than {MOST_RSA_BITS} bits")
        n, e = key.public_numbers().n, key.public_numbers().e
        is_odd = n & e & 1
        if not is_odd or not _LEAST_EXPONENT <= e < _MOST_EXPONENT or all(n % one in _ROCA[one] for one in _ROCA):
            raise _Unusable("is weak")
    return key
