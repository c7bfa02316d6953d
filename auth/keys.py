"""Keys derived from the gateway's secret, one per purpose, so that no two uses share a key."""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field

_SALT = b"100ms gateway v1"


def hkdf(secret: bytes, *, salt: bytes, info: bytes, length: int = 32) -> bytes:
    """Derive a key with HKDF-SHA256 (RFC 5869)."""
    pseudo_random_key = hmac.digest(salt, secret, hashlib.sha256)
    block, output = b"", b""
    for counter in range(1, -(-length // 32) + 1):
        block = hmac.digest(pseudo_random_key, block + info + bytes([counter]), hashlib.sha256)
        output += block
    return output[:length]


@dataclass(frozen=True, slots=True)
class Key:
    """One derived key; `kid` names the secret it is derived from and reveals nothing about it."""

    kid: str
    secret: bytes = field(repr=False)


class KeyRing:
    """The keys of one purpose, newest first: the first signs, all verify. During a rotation there are several."""

    def __init__(self, secrets: Sequence[str], purpose: str) -> None:
        if not secrets:
            raise ValueError("a key ring needs at least one secret")
        self._keys = [
            Key(
                kid=hkdf(secret.encode(), salt=_SALT, info=b"kid", length=6).hex(),
                secret=hkdf(secret.encode(), salt=_SALT, info=purpose.encode()),
            )
            for secret in secrets
        ]
        self._by_kid = {key.kid: key for key in self._keys}

    @property
    def signing(self) -> Key:
        return self._keys[0]

    def find(self, kid: object) -> Key | None:
        return self._by_kid.get(kid) if isinstance(kid, str) else None

    def mac(self, message: str) -> str:
        """Return the signing key's MAC of a message, 128 bits as hex."""
        return self._mac(self.signing, message)

    def check(self, message: str, mac: str) -> bool:
        """Tell in constant time whether any key of the ring made this MAC."""
        given = mac.encode("utf-8", "surrogatepass")
        # No early exit: timing must not reveal which of the secrets matched.
        return sum([hmac.compare_digest(self._mac(key, message).encode(), given) for key in self._keys]) > 0

    @staticmethod
    def _mac(key: Key, message: str) -> str:
        return hmac.digest(key.secret, message.encode(), hashlib.sha256)[:16].hex()
