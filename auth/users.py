"""The row of one account in Redis, `u:1:{uid}`, and what is read from it.

A damaged row never makes a request fail with an internal error: a field that cannot be read gives no rights.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from . import Execute
from .errors import UnknownUser

FIELDS = (
    "username",
    "display_name",
    "roles",
    "status",
    "ver",
    "created_ms",
    "changes",
    "identity",
    "mapped",
    "voided_s",
)


@dataclass(frozen=True, slots=True)
class ExternalId:
    """Who a person is at an identity provider: its name in the policy, its issuer, and the person's subject there."""

    provider: str
    issuer: str
    subject: str

    @classmethod
    def of(cls, text: str) -> ExternalId | None:
        """Read what `str` wrote; neither names nor issuers contain a bar."""
        parts = text.split("|", 2)
        return cls(*parts) if len(parts) == 3 else None

    def __str__(self) -> str:
        return f"{self.provider}|{self.issuer}|{self.subject}"

    def key(self, stem: str, value: str) -> str:
        """Return the Redis key of something that the issuer identifies by a value."""
        said = f"{self.issuer}\0{value}".encode("utf-8", "surrogatepass")
        return f"{stem}:{hashlib.sha256(said).hexdigest()}"

    @property
    def claim(self) -> str:
        """The Redis key of the account that the person has, whatever the provider is called."""
        return self.key("id:1", self.subject)


@dataclass(frozen=True, slots=True)
class User:
    """One account. `id` is opaque plain ASCII; `ver` counts the changes that made older tokens void.

    `mark` is a new text after each change of password, roles or status, even one that was undone: a decision made on
    one mark is not carried out on another. A link to set a password is bound to it. So it becomes void when its user is
    promoted beyond the reach of its maker, and when an account is disabled because a link leaked.

    `identity` is who they are at an identity provider. `mapped` are those of their roles that its claims gave, as of a
    token issued at `mapped_s`. A provider's token that is not younger than `voided_s` opens no session. Epoch seconds.
    """

    id: str
    username: str
    display_name: str
    roles: tuple[str, ...]
    status: str
    ver: int
    created_ms: int
    mark: str = "0"
    identity: ExternalId | None = None
    mapped: tuple[str, ...] = ()
    mapped_s: int = 0
    voided_s: int = 0

    @property
    def is_active(self) -> bool:
        return self.status == "active"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a password is verified against; without a user if no account has the name."""

    user: User | None = None
    hash: str | None = field(default=None, repr=False)


def new_uid() -> str:
    """Return a new id: 100 random bits in lower-case base32. Refresh tokens are split at dots: it has none."""
    return "u" + base64.b32encode(secrets.token_bytes(13)).decode().lower().rstrip("=")[:20]


def new_user(username: str, display_name: str, roles: Sequence[str], **more: Any) -> User:
    """Return a user who is not stored yet."""
    created_ms = time.time_ns() // 1_000_000
    return User(new_uid(), username, display_name or username, tuple(roles), "active", 1, created_ms, **more)


def key_of(uid: str) -> str:
    return f"u:1:{{{uid}}}"


def words_of(user: User) -> list[str]:
    """Return the fields and values of a new user's row."""
    values = (user.username, user.display_name, " ".join(user.roles), user.status, str(user.ver), str(user.created_ms))
    words = [word for pair in zip(FIELDS, values, strict=False) for word in pair]  # a new user has no `changes`
    return words if user.identity is None else [*words, "identity", str(user.identity), "mapped", mapped_text(user)]


def with_mapped(user: User, mapped: Sequence[str]) -> tuple[str, ...]:
    """Return the roles of a user once an identity provider gives them these; what administrators gave comes first."""
    return tuple(dict.fromkeys([*(role for role in user.roles if role not in user.mapped), *mapped]))


def mapped_text(user: User) -> str:
    """Return the field `mapped` of a user's row."""
    return " ".join([str(user.mapped_s), *user.mapped])


def user_of(uid: str, row: Sequence[bytes | None]) -> User:
    """Return the user of a row of `FIELDS`. Raises: UnknownUser"""
    if row[0] is None:
        raise UnknownUser(f"There is no user {uid!r}.")
    return any_user_of(uid, row)


async def roles_of(execute: Execute, uid: str) -> tuple[str, ...]:
    """Return the present roles of an account, none if it does not exist."""
    return tuple(text_of(await execute("HGET", key_of(uid), "roles")).split())


def any_user_of(uid: str, row: Sequence[bytes | None]) -> User:
    """Return the user of a row of `FIELDS`, even if the account was deleted and has no name any more."""
    username, display_name, roles, status = map(text_of, row[:4])
    ver, created_ms, changes = map(number_of, row[4:7])
    mapped_s, *mapped = text_of(row[8]).split() or [""]
    # A version that cannot be read becomes 0, which no session and no token has.
    return User(
        id=uid,
        username=username,
        display_name=display_name,
        roles=tuple(roles.split()),
        status=status,
        ver=ver,
        created_ms=created_ms,
        mark=str(changes),
        identity=ExternalId.of(text_of(row[7])),
        mapped=tuple(mapped),
        mapped_s=number_of(mapped_s.encode()),
        voided_s=number_of(row[9]),
    )


def text_of(word: bytes | None) -> str:
    """Return a reply of Redis as text. Bytes that are not UTF-8 become U+FFFD, which no status, role or hash has."""
    return word.decode("utf-8", "replace") if word else ""


def number_of(word: bytes | None, *, damaged: int = 0) -> int:
    """Return a reply of Redis as a number: 0 if there is none, `damaged` if it is not a decimal number."""
    if word is None:
        return 0
    return int(word) if word.isdigit() and len(word) < 20 else damaged
