"""Tokens of others as they are written: a JSON Web Signature in compact form (RFC 7515), read strictly.

Nothing here is verified. PyJWT would also accept padded segments, repeated names and NaN, which other readers of the
same token may understand differently (RFC 8725 section 2.4).
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

MOST_TOKEN_BYTES = 16 * 1024
_SEGMENT = re.compile(r"[A-Za-z0-9_-]+")


class Malformed(ValueError):
    """The token is not a JWS of two JSON objects."""


@dataclass(frozen=True, slots=True)
class Jws:
    """A token's parts. `signed` are the bytes that the signature covers."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    signed: bytes
    signature: bytes


def read_jws(token: str) -> Jws:
    """Read a token without verifying it. Raises: Malformed"""
    parts = token.split(".") if len(token) <= MOST_TOKEN_BYTES else []
    if len(parts) != 3:
        raise Malformed("not three parts")
    header, claims, signature = map(decode_base64url, parts)
    signed = token.rpartition(".")[0].encode()
    return Jws(read_object(header), read_object(claims), signed, signature)


def read_object(content: bytes) -> dict[str, Any]:
    """Read a JSON object in UTF-8 in which no object has a name twice. Raises: Malformed"""
    try:
        found = json.loads(content.decode(), object_pairs_hook=_once, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Malformed("not JSON") from error
    if not isinstance(found, dict):
        raise Malformed("not a JSON object")
    return found


def decode_base64url(text: str) -> bytes:
    """Decode unpadded base64url with no stray trailing bits (RFC 4648 section 3.5). Raises: Malformed"""
    if _SEGMENT.fullmatch(text):
        try:
            decoded = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except binascii.Error:
            decoded = b""
        if base64.urlsafe_b64encode(decoded).rstrip(b"=").decode() == text:
            return decoded
    raise Malformed("not base64url")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)
