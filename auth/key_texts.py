"""The text of a service key: `gwk_<id>_<secret><checksum>`.

Its beginning, `gwk_<id>`, names the key and is not secret. The secret is 190 random bits, so a plain SHA-256 of the
text is stored. By the checksum garbage is refused without a question to Redis, and scanners of source code find leaked
keys without false alarms (docs/keys.md).
"""

import base64
import hashlib
import hmac
import re
import secrets
import string
import zlib

from .errors import RefusedKey

PREFIX = "gwk_"
ID_CHARS = 16
KEY_ID = re.compile(r"gwk_[a-z2-7]{12}")
KEY = re.compile(r"(gwk_[a-z2-7]{12})_[0-9A-Za-z]{38}")
_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_SECRET_DIGITS, _CHECK_DIGITS = 32, 6


def new_id() -> str:
    """Return a new id: 60 random bits."""
    return PREFIX + base64.b32encode(secrets.token_bytes(8)).decode().lower()[:12]


def new_text(key_id: str) -> str:
    """Return the text of a new secret of a key."""
    text = f"{key_id}_{''.join(secrets.choice(_DIGITS) for _ in range(_SECRET_DIGITS))}"
    return text + checksum_of(text)


def read(text: str) -> tuple[str, str]:
    """Return the id and the digest of a key. Raises: RefusedKey"""
    match = KEY.fullmatch(text)
    if match is None or not hmac.compare_digest(checksum_of(text[:-_CHECK_DIGITS]), text[-_CHECK_DIGITS:]):
        raise RefusedKey("The service key is malformed.", why="malformed")
    return match[1], digest_of(text)


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def checksum_of(text: str) -> str:
    """Return the CRC-32 of a text as six digits of base 62: 0-9, A-Z, a-z."""
    number, digits = zlib.crc32(text.encode()), ""
    for _ in range(_CHECK_DIGITS):
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits
