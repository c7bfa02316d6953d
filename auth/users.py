"""The row of one account in Redis, `u:1:{uid}`, and what is read from it.

A row that somebody damaged never stops a request with an internal error: what cannot be read gives no rights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .errors import UnknownUser

FIELDS = ("username", "display_name", "roles", "status", "ver", "created_ms", "changes")


@dataclass(frozen=True, slots=True)
class User:
    """One account. `id` is opaque plain ASCII; `ver` counts the changes that made older tokens void.

    `mark` is another text after each change of password, roles or status, even one that is undone: what was decided on
    one mark is not done on another. A link to set a password is bound to it, so that the link outlives neither a
    promotion of its user beyond what its maker may touch, nor a disabling because it leaked.
    """

    id: str
    username: str
    display_name: str
    roles: tuple[str, ...]
    status: str
    ver: int
    created_ms: int
    mark: str = "0"

    @property
    def is_active(self) -> bool:
        return self.status == "active"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a password is verified against; without a user where no account has the name."""

    user: User | None = None
    hash: str | None = field(default=None, repr=False)


def key_of(uid: str) -> str:
    return f"u:1:{{{uid}}}"


def user_of(uid: str, row: Sequence[bytes | None]) -> User:
    """Return the user of a row of `FIELDS`. Raises: UnknownUser"""
    if row[0] is None:
        raise UnknownUser(f"There is no user {uid!r}.")
    return any_user_of(uid, row)


def any_user_of(uid: str, row: Sequence[bytes | None]) -> User:
    """Return the user of a row of `FIELDS`, also of one whose account was deleted and has no name any more."""
    username, display_name, roles, status = map(text_of, row[:4])
    ver, created_ms, changes = map(number_of, row[4:])
    # A version that cannot be read becomes 0, which no session and no token is of.
    return User(
        id=uid,
        username=username,
        display_name=display_name,
        roles=tuple(roles.split()),
        status=status,
        ver=ver,
        created_ms=created_ms,
        mark=str(changes),
    )


def text_of(word: bytes | None) -> str:
    """Return a word of Redis as text. What is not UTF-8 becomes U+FFFD: no status, role or password hash of ours."""
    return word.decode("utf-8", "replace") if word else ""


def number_of(word: bytes | None, *, damaged: int = 0) -> int:
    """Return a word of Redis as a number: 0 if there is none, `damaged` if it is no decimal number of a sane length."""
    if word is None:
        return 0
    return int(word) if word.isdigit() and len(word) < 20 else damaged
