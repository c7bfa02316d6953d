"""The accounts of people who log in at an identity provider, and the provider's sessions that have ended.

An identity is an issuer and a subject. Its account is found by that alone: a name or an e-mail address never leads to
an account that was there before.
"""

import asyncio
import base64
import contextlib
import hashlib
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import replace

from . import Execute
from .accounts import FREE, Accounts
from .errors import ChangedMeanwhile, UnknownUser, UserExists
from .federation import MOST_LIFETIME_S, MOST_LOGOUT_AGE_S, Identity, Logout
from .names import suggested_name
from .sessions import ABSOLUTE_MS, Sessions
from .users import ExternalId, User, mapped_text, new_user, number_of, text_of, with_mapped

_REMEMBERED_S = MOST_LIFETIME_S + 600  # longer than any token issued before is accepted
# KEYS 1 mark. ARGV 1 epoch s of a logout, 2 s to keep it. A logout that arrives late does not undo a later one.
_MARK = """
local was = tonumber(redis.call('GET', KEYS[1]) or 0) or 0
redis.call('SET', KEYS[1], string.format('%.0f', math.max(was, tonumber(ARGV[1]))), 'EX', ARGV[2])
"""


class Identities:
    """Finds, creates and logs out accounts of identities. `write` sends what must be on disk before it counts."""

    def __init__(self, execute: Execute, accounts: Accounts, sessions: Sessions, *, write: Execute) -> None:
        self._execute = execute
        self._accounts = accounts
        self._sessions = sessions
        self._write = write

    async def find(self, who: ExternalId) -> User | None:
        """Return the account of an identity."""
        uid = text_of(await self._execute("GET", who.claim))
        try:
            return await self._accounts.get(uid) if uid else None
        except UnknownUser:  # it was deleted, and a crash kept the identity from becoming free
            await self._write("EVAL", FREE, 1, who.claim, uid)
            return None

    async def add(self, identity: Identity, display_name: str) -> tuple[User, bool]:
        """Create the account of an identity; return it and True, or the one that the identity has by now and False.

        The identity is claimed last, in one step that only one caller can win. All callers try the same names in the
        same order, so an account that a crash left unclaimed is found under its name and claimed.
        """
        rights = {"identity": identity.id, "mapped": identity.roles, "mapped_s": identity.issued_s}
        for name in _names(identity):
            user = new_user(name, display_name, identity.roles, **rights)
            try:
                await self._accounts.insert(user)
            except UserExists:
                holder = await self._holder(name)
                if holder is None or holder.identity != identity.id:
                    continue
                owns = await self.claim(holder, identity.id)
                return holder if owns else await self._owner(identity.id), False
            owns = await self.claim_new(user, identity.id)
            return user if owns else await self._owner(identity.id), owns
        raise UserExists("No user name is free.")  # the last three are random

    async def claim(self, user: User, who: ExternalId) -> bool:
        """Give an identity to its account, unless another account has it; tell whether this one has it."""
        if await self._write("SET", who.claim, user.id, "NX"):
            return True
        return text_of(await self._execute("GET", who.claim)) == user.id

    async def claim_new(self, user: User, who: ExternalId) -> bool:
        """Give an identity to a new account; remove the account if another one has it, or if this fails."""
        owns = False
        try:
            owns = await self.claim(user, who)
        finally:
            if not owns:
                await self._accounts.undo_insert(user)
        return owns

    async def map_roles(self, user: User, mapped: Sequence[str], mapped_s: int, *, ends_password: bool = False) -> User:
        """Replace the roles that an identity provider gave a user; those that an administrator gave stay.

        Earlier tokens are void if that changes the user's roles; otherwise the disk is not awaited. `ends_password`:
        the password, and every session, end with the change. Raises: UnknownUser, ChangedMeanwhile
        """
        now = replace(user, roles=with_mapped(user, mapped), mapped=tuple(mapped), mapped_s=mapped_s)
        words: tuple[str, ...] = ("roles", " ".join(now.roles), "mapped", mapped_text(now))
        is_same = set(now.roles) == set(user.roles)
        write, voiding = (self._execute, "nothing") if is_same else (self._write, "tokens")
        if ends_password:
            words, write, voiding = (*words, "password", ""), self._write, "sessions"
        ver = await self._accounts.change_fields(user.id, *words, mark=user.mark, voiding=voiding, write=write)
        if ver is None:
            raise ChangedMeanwhile
        return now if is_same else await self._accounts.get(user.id)

    async def _owner(self, who: ExternalId) -> User:
        """Return the account that was faster. Raises: UnknownUser, if it was deleted since"""
        return await self._accounts.get(text_of(await self._execute("GET", who.claim)))

    async def _holder(self, name: str) -> User | None:
        try:
            return await self._accounts.find(name)
        except UnknownUser:
            return None

    async def has_ended(self, identity: Identity) -> bool:
        """Tell whether the provider has logged the person out since the token was issued."""
        marks = await asyncio.gather(*(self._execute("GET", key) for key in _marks(identity.id, identity.sid)))
        return any(identity.issued_s <= number_of(mark) for mark in marks if mark)

    async def follow(self, identity: Identity, uid: str) -> None:
        """Remember whose a session of the provider is, for a logout token that names nothing else."""
        if identity.sid:
            key = identity.id.key("xs:1", identity.sid)
            await self._execute("SET", key, uid, "EX", ABSOLUTE_MS // 1000)

    async def end(self, logout: Logout) -> tuple[str, int] | None:
        """End the sessions that a logout token is about; return whose, and how many. None: the token was used before.

        If it fails, the provider can send the token again.
        """
        who = ExternalId(logout.provider.name, logout.provider.issuer, logout.subject)
        used = who.key("lt:1", logout.jti)
        if not await self._execute("SET", used, "", "NX", "EX", 2 * MOST_LOGOUT_AGE_S):
            return None
        try:
            return await self._end(who, logout)
        except BaseException:
            with contextlib.suppress(Exception):
                await asyncio.shield(self._execute("DEL", used))
            raise

    async def _end(self, who: ExternalId, logout: Logout) -> tuple[str, int]:
        """End sessions, after writing what has ended: one that is being opened meanwhile finds it (`has_ended`)."""
        marked = _marks(who, logout.sid)[-1]
        _, by_subject, by_session = await asyncio.gather(
            self._execute("EVAL", _MARK, 1, marked, logout.issued_s, _REMEMBERED_S),
            self._execute("GET", who.claim),
            self._execute("GET", who.key("xs:1", logout.sid)),
        )
        uid = text_of(by_subject if logout.subject else by_session)
        ended = await self._sessions.end_external(uid, lambda ext: _concerns(logout, ext)) if uid else 0
        return uid, ended


def ext_of(identity: Identity) -> str:
    """Return what a session says of the provider's session that it follows from."""
    return f"{identity.provider.name}|{identity.sid}"


def _concerns(logout: Logout, ext: str) -> bool:
    """Tell whether a logout ends a session. One of whose session at the provider nothing is known ends with any."""
    provider, _, sid = ext.partition("|")
    return provider == logout.provider.name and (not logout.sid or not sid or sid == logout.sid)


def _marks(who: ExternalId, sid: str) -> list[str]:
    """Return the keys under which it is written that a subject, or one session, was logged out: most specific last."""
    return [who.key("xe:1", f"\0{who.subject}"), *([who.key("xe:1", sid)] if sid else [])]


def _names(identity: Identity) -> Iterator[str]:
    """Yield user names for an identity: its own, one with an end that only this identity has, and random ones."""
    name = suggested_name(identity.name)
    yield name
    yield f"{name}-{_suffix(identity.id.claim.encode())}"
    for _ in range(3):
        yield f"{name}-{_suffix(secrets.token_bytes(16))}"


def _suffix(seed: bytes) -> str:
    return base64.b32encode(hashlib.sha256(seed).digest()).decode().lower()[:8]
