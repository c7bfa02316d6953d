"""Whose counters reports read: those of users and of service keys, with their names."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from auth.accounts import Accounts
from auth.errors import UnknownKey, UnknownUser
from auth.key_texts import KEY_ID
from auth.names import UID
from auth.service_keys import ServiceKeys
from auth.users import User

_KEYS_FROM = -1  # the place of the first key; those of users begin at 0


def is_subject(text: str) -> bool:
    """Tell whether a text is the id of a user or of a key."""
    return bool(UID.fullmatch(text) or KEY_ID.fullmatch(text))


@dataclass(frozen=True, slots=True)
class Subject:
    """A user or a service key. Deleted users have no name."""

    id: str
    username: str


class Subjects:
    """Finds users and keys, deleted and revoked ones too: their usage stays counted."""

    def __init__(self, accounts: Accounts, keys: ServiceKeys) -> None:
        self._accounts = accounts
        self._keys = keys

    async def count(self) -> int:
        return sum(await asyncio.gather(self._accounts.count(), self._keys.count()))

    async def find(self, subject: str) -> Subject:
        """Find a user by id or name, deleted ones by id; or a key by id, or by name if it is active.

        Raises: UnknownUser
        """
        if KEY_ID.fullmatch(subject):
            try:
                return _of_key(subject, (await self._keys.get(subject)).name)
            except UnknownKey as error:
                raise UnknownUser(str(error)) from None
        try:
            return _of_user(await self._accounts.lookup(subject))
        except UnknownUser:
            if deleted := (await self._accounts.several([subject])).get(subject):
                return _of_user(deleted)
            try:
                key = await self._keys.find(subject)
            except UnknownKey:
                pass
            else:
                return _of_key(key.id, key.name)
            raise

    async def several(self, ids: Sequence[str]) -> dict[str, Subject]:
        """Return subjects by id, as far as there are any."""
        keys = [one for one in ids if KEY_ID.fullmatch(one)]
        users, found = await asyncio.gather(
            self._accounts.several([one for one in ids if one not in keys]), self._keys.several(keys)
        )
        return {uid: _of_user(user) for uid, user in users.items()} | {
            key_id: _of_key(key_id, key.name) for key_id, key in found.items()
        }

    async def page(self, *, after: int = 0, size: int = 100) -> tuple[list[Subject], int | None]:
        """Return users, then keys, the oldest of each first, and where the next page starts, if any."""
        if after >= 0:
            users, following = await self._accounts.page(after=after, size=size)
            if following is None and await self._keys.count():
                following = _KEYS_FROM
            return [_of_user(user) for user in users], following
        at = _KEYS_FROM - after
        keys = await self._keys.all()
        following = _KEYS_FROM - at - size if len(keys) > at + size else None
        return [_of_key(key.id, key.name) for key in keys[at : at + size]], following


def _of_user(user: User) -> Subject:
    return Subject(user.id, user.username)


def _of_key(key_id: str, name: str) -> Subject:
    return Subject(key_id, name)
