"""The keys of an identity provider, fetched over HTTPS and kept.

Many requests share one fetch. Keys are fetched again while the old ones serve, and the old ones serve for a day if the
provider cannot be reached. A token with a key that is not known yet starts a fetch, but not more than one in 30 s:
anyone can send tokens that name keys.
"""

import asyncio
import ipaddress
import logging
import math
import re
import time
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from .errors import KeysUnavailable
from .jws import Malformed, read_object
from .key_sets import BadKeySet, KeySet, PublicKey, read_key_set

log = logging.getLogger("auth")

FRESH_S = 600.0  # older keys are fetched again in the background,
AWAITED_S = 1200.0  # and these before the next token is verified: a provider may have withdrawn one
STALE_S = 86_400.0
COOL_DOWN_S = 30.0
RETRY_S = 5.0  # after a failed fetch
DISCOVERY = "/.well-known/openid-configuration"
_MOST_URL = 2000

Fetch = Callable[[str], Awaitable[bytes]]
"""Returns the document of a URL: https, or http on this machine. Follows no redirect; bounded in time and size."""


class FetchFailed(Exception):
    """A document could not be fetched. The text says why."""


async def fetch_keys(fetch: Fetch, issuer: str, jwks: str) -> KeySet:
    """Return the keys at a URL, or without one those that discovery finds. Raises: FetchFailed, BadKeySet"""
    return read_key_set(await fetch(jwks or await _discover(fetch, issuer)))


async def _discover(fetch: Fetch, issuer: str) -> str:
    """Return the address of the keys (OpenID Connect Discovery 1.0 section 4). Raises: FetchFailed"""
    try:
        found = read_object(await fetch(issuer.removesuffix("/") + DISCOVERY))
    except Malformed as error:
        raise FetchFailed(f"the discovery document is {error}") from None
    if found.get("issuer") != issuer:  # section 4.3: it must be equal
        raise FetchFailed("the discovery document is of another issuer")
    url = found.get("jwks_uri")
    if not isinstance(url, str) or not is_safe_url(url, like=issuer):
        raise FetchFailed("the discovery document names no https:// address of keys")
    return url


class RemoteKeys:
    """The keys at `jwks`, or where the issuer's discovery document says. `clock` returns seconds."""

    def __init__(self, fetch: Fetch, issuer: str, jwks: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._issuer = issuer
        self._jwks = jwks
        self._clock = clock
        self._keys: KeySet | None = None
        self._fetched_at = self._tried_at = self._asked_at = -math.inf
        self._failure = ""  # why the last fetch failed
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, kid: str | None) -> PublicKey | None:
        """Return the key of an id, None if the provider does not have it. Raises: KeysUnavailable"""
        age_s = self._clock() - self._fetched_at
        if is_awaited := self._keys is None or (age_s > AWAITED_S and not self._failure):
            await self._refresh()
        elif age_s > FRESH_S:
            self.refresh_soon()
        found = self._known(kid)
        if found is None and not is_awaited and self._may_ask():
            await self._refresh(at_once=True)
            found = self._known(kid)
        if found is None and self._failure:
            raise KeysUnavailable
        return found

    def refresh_soon(self, *, at_once: bool = False) -> None:
        """Start to fetch the keys, unless that is under way or has just failed."""
        is_due = (at_once and not self._failure) or self._clock() - self._tried_at >= RETRY_S
        if self._fetching is None and is_due:
            self._tried_at = self._clock()
            self._fetching = asyncio.create_task(self._load())

    async def close(self) -> None:
        """End what is under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)

    async def _refresh(self, *, at_once: bool = False) -> None:
        self.refresh_soon(at_once=at_once)
        if self._fetching is not None:
            await asyncio.shield(self._fetching)  # whoever stops waiting does not stop the others' fetch

    def _may_ask(self) -> bool:
        """Tell whether to wait for new keys because of an unknown one: a fetch is under way, or may start again."""
        now = self._clock()
        if self._fetching is None and now - self._asked_at < COOL_DOWN_S:
            return False
        self._asked_at = now
        return True

    def _known(self, kid: str | None) -> PublicKey | None:
        """Raises: KeysUnavailable"""
        if self._keys is None or self._clock() - self._fetched_at > STALE_S:
            raise KeysUnavailable
        return self._keys.find(kid)

    async def _load(self) -> None:
        try:
            self._keys = await fetch_keys(self._fetch, self._issuer, self._jwks)
            self._fetched_at = self._clock()
            failure = ""
        except (FetchFailed, BadKeySet) as error:
            failure = str(error)
        except Exception as error:  # the next token tries again
            log.exception("the keys of %s were not read", self._issuer)
            failure = type(error).__name__
        finally:
            self._fetching = None
        if failure and failure != self._failure:
            log.error("the keys of %s cannot be used: %s", self._issuer, failure)
        elif self._failure and not failure:
            log.warning("the keys of %s can be used again", self._issuer)
        self._failure = failure


class FixedKeys:
    """Keys from a file of the operator."""

    def __init__(self, keys: KeySet) -> None:
        self._keys = keys

    async def find(self, kid: str | None) -> PublicKey | None:
        return self._keys.find(kid)


def is_safe_url(url: str, *, like: str = "http:") -> bool:
    """Tell whether keys may come from an address: by https, or by http from this machine if `like` begins so too."""
    if not re.fullmatch(r"[!-\[\]-~]+", url) or len(url) > _MOST_URL:
        return False
    try:
        parts = urlsplit(url)
        has_host, _ = bool(parts.hostname), parts.port
    except ValueError:
        return False
    if not has_host or "@" in parts.netloc or "#" in url:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and like.startswith("http:") and _is_here(parts.hostname))


def _is_here(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
