"""Signs outgoing webhooks as standardwebhooks.com specifies (version 1.0.0), with HMAC-SHA256."""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping

PREFIX = "whsec_"
LEAST_BYTES, MOST_BYTES = 24, 64  # of a key, as the specification says
ENDPOINT = r"[a-z][a-z0-9_-]{0,31}"  # the name of an endpoint
_RULE = f"must be {PREFIX} and {LEAST_BYTES} to {MOST_BYTES} random bytes in base64"


def sign(keys: Iterable[bytes], message_id: str, at_s: int, body: bytes) -> str:
    """Return the value of `webhook-signature`: one signature for each key, so that receivers can change theirs."""
    signed = f"{message_id}.{at_s}.".encode() + body
    digests = (hmac.digest(key, signed, hashlib.sha256) for key in keys)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


def read_secrets(text: str) -> Mapping[str, tuple[bytes, ...]]:
    """Return the keys of each endpoint from a list `name=whsec_...,name=whsec_...`. Raises: ValueError, secretless"""
    keys: dict[str, tuple[bytes, ...]] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, is_pair, secret = part.partition("=")
        if not is_pair or not re.fullmatch(ENDPOINT, name):
            raise ValueError(f"must be a comma-separated list such as billing={PREFIX}..., by the names of endpoints")
        key = _key(name, secret)
        if any(key in others for others in keys.values()):
            raise ValueError(f"lists the secret of {name} twice; each endpoint needs its own")
        keys[name] = (*keys.get(name, ()), key)
    return keys


def _key(name: str, secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not secret.startswith(PREFIX) or not LEAST_BYTES <= len(key) <= MOST_BYTES:
        raise ValueError(f"the secret of {name} {_RULE}")
    if len(set(key)) < 10:  # of 24 random bytes, 23 differ on average
        raise ValueError(f"the secret of {name} is not random; it {_RULE}")
    return key
