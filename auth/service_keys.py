"""Service keys: the credentials of backends. docs/keys.md says what they may do."""

import asyncio
import hmac
import ipaddress
import re
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import Execute
from .errors import BadKey, RefusedKey, UnknownKey
from .key_texts import ID_CHARS, KEY, KEY_ID, PREFIX, digest_of, new_id, new_text, read
from .users import number_of, text_of

MOST_KEYS = 1000  # revoked ones included: lists read all of them
MOST_CIDRS = 20
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
USED_EVERY_S = 60.0  # how exactly it is known when a key was last used
_KEEP_REVOKED_MS = 400 * 86_400_000  # as long as its counters: reports name it
_MOST_REMEMBERED = 4096
_FIELDS = (
    "name", "scopes", "status", "created_ms", "created_by", "expires_ms", "cidrs", "mark", "digest", "old_digest",
    "old_until_ms", "used_ms",
)  # fmt: skip
_INDEX = "ki:1"
# KEYS 1 key. ARGV field, value, ... Reply 0 if there is a key of this id already.
_ADD = "if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end redis.call('HSET', KEYS[1], unpack(ARGV)) return 1"
# KEYS 1 key. ARGV 1 ms after which it is forgotten, '' never; then field, value, ... Reply 0 if there is no active key.
# A key that has been revoked can be revoked again: the first time might not have been confirmed to be on disk.
_CHANGE = """
local status = redis.call('HGET', KEYS[1], 'status')
if not status or (status ~= 'active' and ARGV[1] == '') then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
if ARGV[1] ~= '' then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return 1
"""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class ServiceKey:
    """One key without its secret. Times are epoch ms, 0 for never. Without networks it may be used from any address.

    `mark` is a new text after each change, so what is remembered of a key holds as long as its mark does. After a
    rotation the old secret is valid until `old_until_ms`.
    """

    id: str
    name: str
    scopes: frozenset[str]
    status: str
    created_ms: int
    created_by: str
    expires_ms: int
    cidrs: tuple[Network, ...]
    mark: str
    digest: str = field(repr=False)
    old_digest: str = field(repr=False)
    old_until_ms: int
    used_ms: int

    @property
    def guard(self) -> tuple[str, str, str]:
        """The guard that holds while the key is as it is known here."""
        return (key_of(self.id), "mark", self.mark)

    def state(self, now_ms: int) -> str:
        """Return `active`, `expired` or `revoked`."""
        if self.status != "active":
            return "revoked"
        return "expired" if self.expires_ms and now_ms >= self.expires_ms else "active"

    def matches(self, digest: str, now_ms: int) -> bool:
        """Tell in constant time whether a digest is that of the secret, or of the one before while it is valid."""
        is_new = hmac.compare_digest(digest, self.digest)
        is_old = hmac.compare_digest(digest, self.old_digest)
        return is_new or (is_old and now_ms < self.old_until_ms)


@dataclass(frozen=True, slots=True)
class NewKey:
    """The properties of a key to be made. `expires_ms` is epoch ms, 0 for never."""

    name: str
    scopes: Sequence[str]
    expires_ms: int = 0
    cidrs: Sequence[str] = ()


class ServiceKeys:
    """Makes, lists, changes and verifies keys. `write` sends what must be on disk before it counts as done.

    `verify` remembers keys: whoever calls it puts `ServiceKey.guard` into the decision on the request, and calls
    `forget` and `verify` again if the guard did not hold. `post` sends a command without waiting for it.
    """

    def __init__(
        self,
        execute: Execute,
        *,
        write: Execute | None = None,
        post: Callable[..., None] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._execute = execute
        self._write = write or execute
        self._post = post
        self._now = now
        self._known: dict[str, ServiceKey] = {}
        self._noted: dict[str, float] = {}

    def now_ms(self) -> int:
        return int(self._now() * 1000)

    async def add(self, new: NewKey, *, by: str) -> tuple[ServiceKey, str]:
        """Make a key; return it and its text, which is stored nowhere. Raises: BadKey"""
        if not NAME.fullmatch(new.name) or new.name.startswith(PREFIX):
            raise BadKey(
                "name", f"must be 1 to 64 letters, digits, dots, hyphens, underscores; and not begin: {PREFIX}"
            )
        if new.expires_ms and new.expires_ms <= self.now_ms():
            raise BadKey("expires_at", "must lie in the future")
        networks = _networks(new.cidrs)
        await self._check_free(new.name)
        key_id, created_ms = new_id(), self.now_ms()
        text = new_text(key_id)
        scopes, cidrs = " ".join(dict.fromkeys(new.scopes)), " ".join(map(str, networks))
        row = (new.name, scopes, "active", created_ms, by, new.expires_ms, cidrs, _new_mark(), digest_of(text))
        # The index first: a crash in between leaves an id without a key. In a cluster they may be on two servers, and a
        # crash may leave a key that no list shows; its secret was never returned.
        done = await asyncio.gather(
            self._write("ZADD", _INDEX, created_ms, key_id),
            self._write("EVAL", _ADD, 1, key_of(key_id), *_words(zip(_FIELDS, row, strict=False))),
            return_exceptions=True,
        )
        if failure := next((one for one in done if isinstance(one, BaseException)), None):
            await self._undo_add(key_id)  # no one has its secret, and the same name can be used again
            raise failure
        if not done[1]:
            raise RuntimeError("60 random bits have come twice")
        try:  # two that are made at once find each other, and neither stays
            await self._check_free(new.name, but=key_id)
        except BaseException:
            await self._undo_add(key_id)
            raise
        return await self.get(key_id), text

    async def _check_free(self, name: str, *, but: str = "") -> None:
        """Check that there may be one more key, and none of this name beside one. Raises: BadKey"""
        known = [one for one in await self.all() if one.id != but]
        if len(known) >= MOST_KEYS:
            raise BadKey("name", f"there may be {MOST_KEYS} keys, those revoked in the last 400 days included")
        if any(one.name == name and one.status == "active" for one in known):
            raise BadKey("name", f"there is a key named {name!r}; revoke it first, or rotate it")

    async def _undo_add(self, key_id: str) -> None:
        words = (("DEL", key_of(key_id)), ("ZREM", _INDEX, key_id))
        await asyncio.gather(*(self._execute(*one) for one in words), return_exceptions=True)

    async def get(self, key_id: str) -> ServiceKey:
        """Return a key by its id, even if it has been revoked. Raises: UnknownKey"""
        if KEY_ID.fullmatch(key_id) and (key := await self._read(key_id)):
            return key
        raise UnknownKey(f"There is no service key {key_id[:ID_CHARS]!r}.")  # the rest may be a secret

    async def find(self, key: str) -> ServiceKey:
        """Return a key by its id or its whole text, or an active one by its name. Raises: UnknownKey"""
        if key.startswith(PREFIX):
            return await self.get(key[:ID_CHARS] if KEY.fullmatch(key) else key)
        for one in await self.all():
            if one.name == key and one.status == "active":
                return one
        raise UnknownKey(f"There is no active service key named {key!r}.")

    async def all(self) -> list[ServiceKey]:
        """Return all keys, the oldest first, with those revoked in the last 400 days."""
        ids = [word.decode() for word in await self._execute("ZRANGE", _INDEX, 0, -1)]
        found = await self.several(ids)
        return [found[key_id] for key_id in ids if key_id in found]

    async def count(self) -> int:
        """Return how many keys there are, with those revoked in the last 400 days."""
        return int(await self._execute("ZCARD", _INDEX))

    async def several(self, key_ids: Sequence[str]) -> dict[str, ServiceKey]:
        """Return the keys of these ids, as far as there are any."""
        keys = await asyncio.gather(*map(self._read, key_ids))
        return {key.id: key for key in keys if key}

    async def revoke(self, key_id: str) -> None:
        """Refuse a key from the next request on, for good. Raises: UnknownKey"""
        await self._change(key_id, _KEEP_REVOKED_MS, {"status": "revoked"})

    async def rotate(self, key_id: str, *, overlap_s: int = 0) -> str:
        """Give an active key a new secret and return its text; the old one is valid for `overlap_s`. Raises: UnknownKey

        One that was valid from an earlier rotation ends.
        """
        key, text = await self.get(key_id), new_text(key_id)
        changes = {"digest": digest_of(text), "old_digest": key.digest}
        changes["old_until_ms"] = str(self.now_ms() + overlap_s * 1000 if overlap_s else 0)
        await self._change(key_id, "", changes)
        return text

    async def verify(self, text: str, address: str) -> ServiceKey:
        """Return the key of a credential that came from an address. Raises: RefusedKey"""
        (key_id, digest), now_ms = read(text), self.now_ms()
        key = self._known.get(key_id)
        if key is None or not key.matches(digest, now_ms):  # a key that is known may have been rotated elsewhere
            key = await self._load(key_id)
        if key is None:
            raise RefusedKey("The service key is not valid.", why="unknown")
        if not key.matches(digest, now_ms):
            raise RefusedKey("The service key is not valid.", key_id=key.id, why="secret")
        self.check(key, address)
        return key

    def check(self, key: ServiceKey, address: str) -> None:
        """Check that a key is in force and may be used from an address. Raises: RefusedKey"""
        if (state := key.state(self.now_ms())) != "active":
            raise RefusedKey(f"The service key is {state}.", key_id=key.id, why=state)
        if key.cidrs and not _is_within(address, key.cidrs):
            raise RefusedKey("The service key must not be used from this address.", key_id=key.id, why="address")

    def forget(self, key_id: str) -> None:
        """Read a key anew when it is verified next."""
        self._known.pop(key_id, None)

    def note_use(self, key: ServiceKey) -> None:
        """Keep when a key was used, without waiting, at most once a minute."""
        now = self._now()
        if self._post is not None and now - self._noted.get(key.id, 0.0) >= USED_EVERY_S:
            if len(self._noted) >= _MOST_REMEMBERED:
                self._noted.clear()
            self._noted[key.id] = now
            self._post("HSET", key_of(key.id), "used_ms", int(now * 1000))

    async def _load(self, key_id: str) -> ServiceKey | None:
        self.forget(key_id)
        key = await self._read(key_id)
        if key is not None:
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.pop(next(iter(self._known)))
            self._known[key_id] = key
        return key

    async def _read(self, key_id: str) -> ServiceKey | None:
        return _key(key_id, await self._execute("HMGET", key_of(key_id), *_FIELDS))

    async def _change(self, key_id: str, keep_ms: int | str, changes: dict[str, str]) -> None:
        words = _words((changes | {"mark": _new_mark()}).items())
        if not await self._write("EVAL", _CHANGE, 1, key_of(key_id), keep_ms, *words):
            raise UnknownKey(f"There is no active service key {key_id!r}.")
        self.forget(key_id)


def key_of(key_id: str) -> str:
    return f"sk:1:{{{key_id}}}"


def _new_mark() -> str:
    return secrets.token_hex(8)


def _words(pairs: Iterable[tuple[Any, Any]]) -> list[Any]:
    return [word for pair in pairs for word in pair]


def _networks(cidrs: Sequence[str]) -> list[Network]:
    """Return networks in their usual form. Raises: BadKey"""
    if len(cidrs) > MOST_CIDRS:
        raise BadKey("cidrs", f"must be at most {MOST_CIDRS}")
    try:
        return [ipaddress.ip_network(text) for text in dict.fromkeys(cidrs)]
    except ValueError as error:
        raise BadKey("cidrs", f"{error}; write a network such as 203.0.113.0/24 or 2001:db8::/48") from None


def _is_within(address: str, networks: Iterable[Network]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # a local socket has no address
        return False
    return any(parsed in network for network in networks)


def _key(key_id: str, row: Sequence[bytes | None]) -> ServiceKey | None:
    """Return the key of a row; a row without a digest is none. A field that cannot be read gives no rights."""
    name, scopes, status, created_ms, by, expires_ms, cidrs, mark, digest, old_digest, old_until_ms, used_ms = row
    if not digest or not mark:
        return None
    try:
        networks = tuple(ipaddress.ip_network(text) for text in text_of(cidrs).split())
    except ValueError:
        return None
    return ServiceKey(
        key_id,
        text_of(name),
        frozenset(text_of(scopes).split()),
        text_of(status),
        number_of(created_ms),
        text_of(by),
        number_of(expires_ms, damaged=1),
        networks,
        text_of(mark),
        text_of(digest),
        text_of(old_digest),
        number_of(old_until_ms),
        number_of(used_ms),
    )
