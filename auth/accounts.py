"""Accounts: who exists, with which roles. docs/architecture.md lists the keys."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Sequence
from importlib.resources import files

from . import Execute
from .errors import BadUsername, Busy, ChangedMeanwhile, InvalidCredentials, UnknownUser, UserExists
from .names import UID, folded, name_key
from .password_policy import PasswordPolicy
from .passwords import DamagedHash, Passwords
from .users import FIELDS, Credentials, ExternalId, User, any_user_of, key_of, new_user, text_of, user_of, words_of

log = logging.getLogger("auth")


FAILURE_FLOOR_S = 0.25  # a refused login takes at least this long, whatever the reason
_FAILURE_JITTER_S = 0.05
_CHANGE = files(__package__).joinpath("change.lua").read_text()
# KEYS 1 a name. ARGV 1 the user who must own the name for it to be freed.
FREE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
# KEYS 1 user. The remaining fields show only that the account existed, and void its tokens.
_ERASE = """
if redis.call('HDEL', KEYS[1], 'username', 'display_name', 'password', 'roles', 'changes',
  'identity', 'mapped', 'login_ms') == 0 then return 0 end
redis.call('HSET', KEYS[1], 'status', 'deleted')
return redis.call('HINCRBY', KEYS[1], 'ver', 1)
"""


def _taken(username: str) -> UserExists:
    return UserExists(f"There is already a user named {username!r}.")


class Accounts:
    """Creates, finds and authenticates users. `write` sends what must be on disk before it counts as done."""

    def __init__(
        self,
        execute: Execute,
        passwords: Passwords | None = None,
        policy: PasswordPolicy | None = None,
        *,
        write: Execute | None = None,
    ) -> None:
        self._execute = execute
        self._write = write or execute
        self._passwords = passwords or Passwords()
        self._policy = policy or PasswordPolicy()
        self._reported: set[str] = set()  # users with a damaged hash, each of whom is logged once

    async def add(
        self,
        username: str,
        password: str | None,
        *,
        roles: Sequence[str],
        display_name: str = "",
        identity: ExternalId | None = None,
    ) -> User:
        """Create an account; without a password, only the `identity` can log in until one is set (`Identities.claim`).

        Raises: UserExists, BadUsername, WeakPassword, Busy
        """
        name_key(username)
        if password is not None:
            await self._policy.check(password, username=username)
        await self._check_free(username)
        hashed = await self._passwords.hash(password) if password is not None else None
        user = new_user(username, display_name, roles, identity=identity)
        await self.insert(user, hashed)
        return user

    async def insert(self, user: User, hashed: str | None = None) -> None:
        """Write a new account under its name.

        The user is written first and the name is claimed second, in one step that only one caller can win: a crash in
        between leaves a row that no name leads to, never a name that leads nowhere. Raises: UserExists, BadUsername
        """
        key = name_key(user.username)
        row = ("HSET", key_of(user.id), *words_of(user), *(("password", hashed) if hashed else ()))
        await self._check_free(user.username)
        # First, because in a cluster the four are on several servers, each with a write of its own.
        await self._execute(*row)
        done = await asyncio.gather(
            self._write(*row),
            self._write("SET", f"un:1:{key}", user.id, "NX"),
            self._write("ZADD", "ui:1", user.created_ms, user.id),
            self._write("ZADD", "ni:1", 0, f"{key}\n{user.id}"),
            return_exceptions=True,
        )
        failure = next((one for one in done if isinstance(one, BaseException)), None)
        if failure is None and done[1]:
            return
        # After a failure the same name can be used again. If undoing fails too, the account may be complete.
        undone = await self.undo_insert(user)
        raise failure or undone or _taken(user.username)

    async def _check_free(self, username: str) -> None:
        """Raises: UserExists"""
        if await self._execute("EXISTS", f"un:1:{name_key(username)}"):
            raise _taken(username)

    async def undo_insert(self, user: User) -> BaseException | None:
        """Remove what a refused or unconfirmed `insert` left, the name first; return the first error, if any."""
        uid, key = user.id, name_key(user.username)
        try:
            await self._execute("EVAL", FREE, 1, f"un:1:{key}", uid)
        except Exception as error:  # noqa: BLE001  a name that leads to no user could never be used again
            return error
        done = await asyncio.gather(
            self._execute("ZREM", "ni:1", f"{key}\n{uid}"),
            self._execute("ZREM", "ui:1", uid),
            self._execute("DEL", key_of(uid)),
            return_exceptions=True,
        )
        return next((one for one in done if isinstance(one, BaseException)), None)

    async def get(self, uid: str) -> User:
        """Raises: UnknownUser"""
        return user_of(uid, await self._execute("HMGET", key_of(uid), *FIELDS))

    async def several(self, uids: Sequence[str]) -> dict[str, User]:
        """Return users by id: deleted ones without a name, and none for an id that no user ever had."""
        rows = await asyncio.gather(*(self._execute("HMGET", key_of(uid), *FIELDS) for uid in uids))
        found = zip(uids, rows, strict=True)
        return {uid: any_user_of(uid, row) for uid, row in found if any(row)}

    async def find(self, username: str) -> User:
        """Find a user by name, in any case. Raises: UnknownUser"""
        uid = await self.find_id(username)
        if uid is None:
            raise UnknownUser(f"There is no user named {username!r}.")
        return await self.get(uid)

    async def find_id(self, username: str) -> str | None:
        """Return the id of the account of a name, in any case; None if there is none."""
        try:
            return text_of(await self._execute("GET", f"un:1:{name_key(username)}")) or None
        except BadUsername:
            return None

    async def lookup(self, user: str) -> User:
        """Find a user by id or by name. Raises: UnknownUser"""
        # What looks like an id is one: an account named like another one's id must not be found instead.
        return await (self.get(user) if UID.fullmatch(user) else self.find(user))

    async def id_of(self, user: str) -> str:
        """Return the id of a user by id, even of a deleted one, or by name. Raises: UnknownUser"""
        return user if UID.fullmatch(user) else (await self.find(user)).id

    async def count(self) -> int:
        return int(await self._execute("ZCARD", "ui:1"))

    async def page(self, *, after: int = 0, size: int = 100) -> tuple[list[User], int | None]:
        """Return users, the oldest first, deleted ones without a name, and where the next page starts, if any."""
        uids = [uid.decode() for uid in await self._execute("ZRANGE", "ui:1", after, after + size)]
        users = await self.several(uids[:size])
        return list(users.values()), after + size if len(uids) > size else None

    async def search(self, prefix: str, *, after: str = "", size: int = 100) -> tuple[list[User], str | None]:
        """Return users whose names begin with a text, in any case, by name, and where the next page starts."""
        begun = folded(prefix)
        start = f"({after}" if after else f"[{begun}"
        end = "+" if not begun else b"(" + begun.encode("utf-8", "surrogatepass") + b"\xff"
        found = await self._execute("ZRANGEBYLEX", "ni:1", start, end, "LIMIT", 0, size + 1)
        places = [place.decode() for place in found]
        users = await self.several([place.rpartition("\n")[2] for place in places[:size]])
        return list(users.values()), places[size - 1] if len(places) > size else None

    async def credentials(self, uid: str | None) -> Credentials:
        """Return what a password is verified against. An unknown name (None) takes the same command."""
        row = await self._execute("HMGET", key_of(uid or "-"), *FIELDS, "password")
        if uid is None or row[0] is None:
            return Credentials()
        return Credentials(user_of(uid, row[:-1]), text_of(row[-1]) or None)

    async def verify(self, credentials: Credentials, password: str) -> User:
        """Return the user of the credentials if the password is right. Raises: InvalidCredentials, Busy

        An unknown user, a disabled one and a wrong password take the same path and the same time, and raise the same
        error.
        """
        loop = asyncio.get_running_loop()
        begun = loop.time()
        user = credentials.user
        if await self._matches(credentials, password) and user and user.is_active:
            return user
        # The floor hides differences of a few milliseconds in argon2; the jitter hides the edge of the floor.
        jitter_s = random.uniform(0, _FAILURE_JITTER_S)  # noqa: S311  blurs a duration, keeps no secret
        await asyncio.sleep(max(0.0, begun + FAILURE_FLOOR_S + jitter_s - loop.time()))
        raise InvalidCredentials(uid=user.id if user else None)

    async def _matches(self, credentials: Credentials, password: str) -> bool:
        try:
            return await self._passwords.verify(password, credentials.hash)
        except DamagedHash:
            uid = credentials.user.id if credentials.user else ""
            if uid not in self._reported:
                self._reported.add(uid)
                log.error("the stored password hash of user %s is damaged: no password matches it; set a new one", uid)
            return False

    async def change_password(self, uid: str, current: str, new: str) -> User:
        """Replace a user's password, after checking the current one. Every session ends; `Sessions.keep` preserves one.

        Raises: UnknownUser, InvalidCredentials, WeakPassword, Busy
        """
        credentials = await self.credentials(uid)
        if credentials.user is None:
            raise UnknownUser(f"There is no user {uid!r}.")
        await self._policy.check(new, username=credentials.user.username)
        user = await self.verify(credentials, current)
        hashed = await self._passwords.hash(new)
        expected = str(credentials.hash)
        ver = await self.change_fields(uid, "password", hashed, expect=expected, mark=user.mark, voiding="sessions")
        if ver is None:
            raise InvalidCredentials(uid=uid)  # the account has changed since the password was verified
        return await self.get(uid)

    async def has_password(self, uid: str) -> bool:
        """Tell whether a user has a password; without one they cannot log in."""
        return bool(await self._execute("HGET", key_of(uid), "password"))

    async def check_password(self, uid: str, new: str) -> None:
        """Check a new password of a user against the policy. Raises: UnknownUser, WeakPassword"""
        await self._policy.check(new, username=(await self.get(uid)).username)

    async def set_password(self, uid: str, new: str, *, mark: str) -> User:
        """Set a password, ending all sessions, if the user's `mark` is still this one. Raises as `change_password`."""
        user = await self.get(uid)
        await self._policy.check(new, username=user.username)
        if user.mark == mark:
            hashed = await self._passwords.hash(new)
            if await self.change_fields(uid, "password", hashed, mark=mark, voiding="sessions") is not None:
                return await self.get(uid)
        raise InvalidCredentials(uid=uid)

    async def renew_hash(self, credentials: Credentials, password: str) -> bool:
        """Replace the hash of a right password if it is weaker than the configured cost; tell whether it was replaced.

        Only the hash that the password matches is replaced, never with one of less memory or fewer passes. No token
        becomes void. If the pool is full, the next login tries again.
        """
        user, stored = credentials.user, credentials.hash
        if user is None or stored is None or not self._passwords.is_outdated(stored):
            return False
        with contextlib.suppress(Busy, DamagedHash, UnknownUser):
            if await self._passwords.verify(password, stored):
                renewed = await self._passwords.hash(password, replacing=stored)
                return (
                    await self.change_fields(user.id, "password", renewed, expect=stored, voiding="nothing") is not None
                )
        return False

    async def change(self, user: User, *, roles: Sequence[str] | None = None, status: str | None = None) -> User:
        """Set roles, status (`active` or `disabled`) or both; None leaves the current value.

        The user's earlier tokens are void at once, and their sessions too if they are disabled. Values that are already
        set are written again and make nothing void: an earlier write may not have been confirmed to be on disk.
        Raises: UnknownUser, ChangedMeanwhile (the account is no longer as `user` says)
        """
        wanted = (user.roles if roles is None else tuple(roles), status or user.status)
        voiding = "tokens" if wanted[1] == "active" else "sessions"
        if wanted == (user.roles, user.status):
            voiding = "nothing"
        words = ("roles", " ".join(wanted[0]), "status", wanted[1])
        if await self.change_fields(user.id, *words, mark=user.mark, voiding=voiding) is None:
            raise ChangedMeanwhile
        return await self.get(user.id)

    async def set_display_name(self, uid: str, display_name: str) -> User:
        """Raises: UnknownUser"""
        user = await self.get(uid)
        await self.change_fields(uid, "display_name", display_name or user.username, voiding="nothing")
        return await self.get(uid)

    async def void_tokens(self, uid: str) -> None:
        """End every session of a user and refuse their access tokens from now on. Raises: UnknownUser"""
        await self.change_fields(uid, voiding="sessions")

    async def erase(self, user: User) -> None:
        """Delete a user's name, password, identity and roles. Their usage stays counted, under an id that says nothing.

        The status becomes `deleted` first and the row goes last: erasing again completes what a crash interrupted.
        Raises: UnknownUser, ChangedMeanwhile (the account is no longer as `user` says)
        """
        if await self.change_fields(user.id, "status", "deleted", mark=user.mark, voiding="sessions") is None:
            raise ChangedMeanwhile
        key = folded(user.username)  # not `name_key`: a name that is older than a rule can be erased too
        frees: list[tuple[str | int, ...]] = [
            ("EVAL", FREE, 1, f"un:1:{key}", user.id),
            ("ZREM", "ni:1", f"{key}\n{user.id}"),
        ]
        if user.identity:
            frees.append(("EVAL", FREE, 1, user.identity.claim, user.id))
        for words in frees:  # before the row is gone: only it says which name to free
            await self._execute(*words)
        await asyncio.gather(*(self._write(*words) for words in (*frees, ("EVAL", _ERASE, 1, key_of(user.id)))))

    async def change_fields(
        self, uid: str, *words: str, expect: str = "*", mark: str = "*", voiding: str, write: Execute | None = None
    ) -> int | None:
        """Change fields; return None if password or mark is no longer the expected one. `voiding`: see the script.

        For this package. Raises: UnknownUser
        """
        ver = int(await (write or self._write)("EVAL", _CHANGE, 1, key_of(uid), expect, mark, voiding, *words))
        if ver == 0:
            raise UnknownUser(f"There is no user {uid!r}.")
        return ver if ver > 0 else None
