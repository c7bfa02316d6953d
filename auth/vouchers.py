"""Codes that give one permission for a limited time: an invitation, a link to set a password.

A code is 130 random bits, and only its SHA-256 is stored: reading Redis reveals no code.
Key: `vo:1:<kind>:<hash>`, a hash of `uses` left and `payload`, which expires with the code.
"""

import base64
import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import Execute
from .errors import InvalidVoucher

_CODE = re.compile(r"[a-z2-7]{26}")
# KEYS 1 voucher. ARGV 1 change of the uses left. Reply the payload, or nil: gone, or (for -1) used up.
_SPEND = """
local uses = tonumber(redis.call('HGET', KEYS[1], 'uses'))
if not uses or uses + ARGV[1] < 0 then return nil end
redis.call('HSET', KEYS[1], 'uses', string.format('%.0f', uses + ARGV[1]))
return redis.call('HGET', KEYS[1], 'payload')
"""


@dataclass(frozen=True, slots=True)
class Voucher:
    """What a code permits. `ref` identifies the code without revealing it."""

    ref: str
    payload: Mapping[str, str]
    uses_left: int
    expires_in_s: int


class Vouchers:
    """Issues, reads and spends codes of one kind."""

    def __init__(self, execute: Execute, kind: str) -> None:
        self._execute = execute
        self._kind = kind

    async def issue(self, payload: Mapping[str, str], *, ttl_s: int, uses: int = 1) -> str:
        """Return a new code that may be spent `uses` times within `ttl_s`."""
        code = base64.b32encode(secrets.token_bytes(17)).decode().lower()[:26]
        key, text = self._key(ref_of(code)), json.dumps(dict(payload))
        script = (
            "redis.call('HSET', KEYS[1], 'uses', ARGV[1], 'payload', ARGV[2]) redis.call('EXPIRE', KEYS[1], ARGV[3])"
        )
        await self._execute("EVAL", script, 1, key, uses, text, ttl_s)
        return code

    async def look(self, code: str) -> Voucher:
        """Return the voucher of a code without spending it. Raises: InvalidVoucher"""
        if not _CODE.fullmatch(code):
            raise InvalidVoucher
        voucher = await self.find(ref_of(code))
        if voucher is None or voucher.uses_left < 1:
            raise InvalidVoucher
        return voucher

    async def find(self, ref: str) -> Voucher | None:
        """Return the voucher of a reference, even if it is used up; None if it no longer exists."""
        key = self._key(ref)
        uses, payload = await self._execute("HMGET", key, "uses", "payload")
        ttl_s = int(await self._execute("TTL", key))
        if uses is None or payload is None or ttl_s < 0:
            return None
        return Voucher(ref, json.loads(payload), int(uses), ttl_s)

    async def spend(self, code: str) -> Mapping[str, str]:
        """Use a code once, never more often than it has uses, and return its payload. Raises: InvalidVoucher"""
        payload = await self._change(code, -1)
        if payload is None:
            raise InvalidVoucher
        return dict(json.loads(payload))

    async def give_back(self, code: str) -> None:
        """Undo one use, after what it was spent on has failed."""
        await self._change(code, 1)

    async def revoke(self, ref: str) -> bool:
        """Void a code by its reference; tell whether there was one."""
        return bool(await self._execute("DEL", self._key(ref)))

    async def _change(self, code: str, by: int) -> Any:
        if not _CODE.fullmatch(code):
            return None
        return await self._execute("EVAL", _SPEND, 1, self._key(ref_of(code)), by)

    def _key(self, ref: str) -> str:
        return f"vo:1:{self._kind}:{ref}"


def ref_of(code: str) -> str:
    """Return the reference of a code, for places where the code must not be readable."""
    return hashlib.sha256(code.encode()).hexdigest()[:32]


def short_ref_of(code: str) -> str:
    """Return a short reference of a code, for the audit trail."""
    return ref_of(code)[:12]
