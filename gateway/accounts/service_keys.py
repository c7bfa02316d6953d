"""Use cases of service keys: who may make, rotate and revoke which, with their audit entries."""

import asyncio
import contextlib
from dataclasses import dataclass, replace

from auth.errors import BadKey
from auth.service_keys import NewKey, ServiceKey, ServiceKeys
from gateway.accounts.actor import Actor
from gateway.audit import Audit
from gateway.policy.scopes import SCOPES
from gateway.text import no_such

MOST_OVERLAP_S = 30 * 86_400


@dataclass(repr=False, eq=False)
class KeyAdmin:
    """Administers keys. Actors neither grant a power that they do not have nor touch a key that has it.

    A key belongs to the installation: it stays in force if the account of its maker ends.
    """

    _keys: ServiceKeys
    _audit: Audit

    async def all(self) -> list[ServiceKey]:
        """Return all keys, the oldest first, with those revoked in the last 400 days."""
        return await self._keys.all()

    async def find(self, key: str) -> ServiceKey:
        """Return a key by its id, or an active one by its name. Raises: UnknownKey"""
        return await self._keys.find(key)

    async def create(self, actor: Actor, new: NewKey) -> tuple[ServiceKey, str]:
        """Make a key; return it and its text, which is shown only once. Raises: BadKey, NotAllowed"""
        scopes = tuple(dict.fromkeys(new.scopes))
        if not scopes:
            raise BadKey("scopes", f"must name at least one of: {', '.join(sorted(SCOPES))}")
        if unknown := sorted(set(scopes) - SCOPES):
            raise BadKey("scopes", no_such("scope", unknown[0], sorted(SCOPES)))
        actor.check_scopes(scopes)
        key, text = await self._keys.add(replace(new, scopes=scopes), by=actor.id)
        said = {"name": key.name, "scopes": " ".join(scopes)}
        try:
            await self._audit.record("key.created", by=actor.id, subject=key.id, **said)
        except BaseException:
            with contextlib.suppress(Exception):  # no key without an entry in the audit trail
                await asyncio.shield(self._keys.revoke(key.id))
            raise
        return key, text

    async def revoke(self, actor: Actor, key: str) -> ServiceKey:
        """Refuse a key from the next request on, for good. Raises: UnknownKey, NotAllowed"""
        one = await self._keys.find(key)
        actor.check_key(one)
        await self._audit.record("key.revoked", by=actor.id, subject=one.id, name=one.name)
        await self._keys.revoke(one.id)
        return one

    async def rotate(self, actor: Actor, key: str, *, overlap_s: int = 0) -> tuple[ServiceKey, str]:
        """Give a key a new secret; the old one is valid for `overlap_s`. Raises: UnknownKey, NotAllowed, BadKey"""
        if not 0 <= overlap_s <= MOST_OVERLAP_S:
            raise BadKey("overlap_s", f"must be from 0 to {MOST_OVERLAP_S}")
        one = await self._keys.find(key)
        actor.check_key(one)
        if one.state(self._keys.now_ms()) == "expired":
            raise BadKey("key", "has expired; make a new one")
        await self._audit.record("key.rotated", by=actor.id, subject=one.id, name=one.name, overlap_s=overlap_s)
        text = await self._keys.rotate(one.id, overlap_s=overlap_s)
        return await self._keys.get(one.id), text
