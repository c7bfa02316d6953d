"""The audit trail: who did what to whom, in one Redis stream of bounded length and age, without secrets or tokens.

An entry names users by id and an address by a MAC, so that entries of a deleted account identify no person. The address
itself is in the log line with the same request id.
"""

import json
import logging
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from auth.accounts import Accounts
from auth.key_texts import KEY_ID
from gateway.logs import event, request_id, service_key, to_json
from gateway.text import FieldError, no_such

log = logging.getLogger("gateway.audit")

STREAM = "audit:1"
MOST_ENTRIES = 100_000
KEEP_S = 400 * 86_400  # as long as the usage counters
CLI = "cli"
NO_USER = ""
_TRIM_EVERY_S = 600.0
_MOST_SCANNED = 10_000  # entries read for one page; a short page then says where the next begins
_CHUNK = 1000
_DENIED_ONCE_PER_S = 60  # an attacker must not fill the trail with repetitions
_REFUSED_ONCE_PER_S = 60
_READ_ONCE_PER_S = 60  # a page that polls is one reader
_MOST_REMEMBERED = 10_000
ACTION = r"[a-z][a-z._-]{0,40}"
Facts = dict[str, str | int]
"""What an entry says, beside its action: `by`, `subject` and details."""

ACTIONS = (
    "account.registered", "budget.reached", "code.refused", "denied", "exchange.refused", "guest.accepted",
    "invite.accepted", "invite.made", "invite.revoked", "key.created", "key.refused", "key.revoked", "key.rotated",
    "limits.lift", "limits.override", "limits.reset", "login", "login.blocked", "login.failed", "logout",
    "logout.refused", "member.banned", "member.changed", "minutes.corrected", "minutes.unconfirmed",
    "password.changed", "password.refused", "password.set", "peer.removed", "refresh.reused", "room.adopted",
    "room.changed", "room.created", "room.end_failed", "room.ended", "room.found_empty", "room.locked",
    "session.ended", "throttled", "token.minted", "usage.read", "usage.reconciled", "user.created", "user.deleted",
    "user.disabled", "user.enabled", "user.invite_revoked", "user.invited", "user.password_link", "user.renamed",
    "user.roles", "user.session_ended", "user.sessions_ended", "webhooks.replayed", "webhooks.tested",
)  # fmt: skip
"""Every action; docs/security.md says what some of them mean."""
_KINDS = {action[:at] for action in ACTIONS for at, char in enumerate(action) if char == "."}
PLACE = re.compile(r"[0-9]{1,15}-[0-9]{1,15}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One event. `by` is the id of a user or a service key, `cli`, or empty without a login.

    `subject` is the id of the user or key whom it concerns. The detail `key` is the service key that acted for `by`.
    """

    id: str
    at_ms: int
    action: str
    by: str
    subject: str
    request_id: str
    details: dict[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Filter:
    """Selects entries of the trail: by or about a user (id), of an action or a kind of actions, in a span of time.

    `action` is a whole action or its beginning, such as `login`. `after` is the id of an entry, which is excluded.
    """

    user: str | None = None
    action: str | None = None
    first_ms: int = 0
    last_ms: int | None = None
    after: str | None = None

    def admits(self, entry: Entry) -> bool:
        """Tell whether the user and the action of an entry match."""
        if self.user is not None and self.user not in (entry.by, entry.subject):
            return False
        return self.action is None or entry.action == self.action or entry.action.startswith(f"{self.action}.")


EVERYTHING = Filter()


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a request: its address, only for the log line, and a MAC of the address, for the trail."""

    address: str
    source: str


class Audit:
    """Writes entries, to the stream and as log lines, and reads them. `post` sends a command without waiting.

    `announce` returns the command that stores the event of an entry for outgoing webhooks, if it has one.
    """

    def __init__(
        self,
        execute: Callable[..., Awaitable[Any]],
        post: Callable[..., None] | None = None,
        announce: Callable[[str, Facts], tuple[Any, ...] | None] | None = None,
    ) -> None:
        self._execute = execute
        self._post = post
        self._announce = announce
        self._trimmed_at = 0.0
        self._seen: dict[tuple[Any, ...], float] = {}

    async def record(self, action: str, *, by: str, subject: str, **details: str | int) -> None:
        """Write one entry and wait for it. If this raises StoreError, what must be audited must not be done."""
        for words in self._commands(action, {"by": by, "subject": subject, **details}):
            await self._execute(*words)

    def note(
        self,
        action: str,
        *,
        by: str,
        subject: str = "",
        origin: Origin | None = None,
        once_per_s: float = 0,
        **details: str | int,
    ) -> None:
        """Write one entry with the next flush, without waiting; the same one only once in `once_per_s`, if given."""
        if origin is not None:
            details = {"source": origin.source, **details}
        if once_per_s and self._is_repeated((action, by, subject, *details.values()), once_per_s):
            return
        facts: Facts = {"by": by, "subject": subject, **details}
        commands = self._commands(action, facts, origin.address if origin else "")
        if self._post is not None:
            for words in commands:
                self._post(*words)
            now = time.monotonic()
            if now - self._trimmed_at > _TRIM_EVERY_S:
                self._trimmed_at = now
                self._post("XTRIM", STREAM, "MINID", "~", int((time.time() - KEEP_S) * 1000))

    def denied(
        self, uid: str, code: str, attempted: str, *, room: str = "", subject: str | None = None, why: str = ""
    ) -> None:
        """Note that a user was denied an action, once a minute. `subject` is whom it concerns, by default this user."""
        said: dict[str, Any] = {name: text for name, text in (("why", why), ("room", room)) if text}
        whom = uid if subject is None else subject
        self.note("denied", by=uid, subject=whom, once_per_s=_DENIED_ONCE_PER_S, code=code, attempted=attempted, **said)

    def refused_code(self, kind: str, origin: Origin) -> None:
        """Note that an address tried an invalid code; once a minute for the same address."""
        self.note("code.refused", by=NO_USER, origin=origin, once_per_s=_REFUSED_ONCE_PER_S, kind=kind)

    def note_reading(self, report: str, *, by: str, subject: str = "") -> None:
        """Note that a user read the usage of others; the same report once a minute."""
        self.note("usage.read", by=by, subject=subject, once_per_s=_READ_ONCE_PER_S, report=report)

    async def page(
        self, wanted: Filter = EVERYTHING, *, before: str | None = None, size: int = 100
    ) -> tuple[list[Entry], str | None]:
        """Return entries, newest first, older than `before`, and the id before which the next page begins, if any."""
        newest = f"({before}" if before else (str(wanted.last_ms) if wanted.last_ms is not None else "+")
        oldest = f"({wanted.after}" if wanted.after else str(wanted.first_ms)
        found: list[Entry] = []
        scanned = 0
        while scanned < _MOST_SCANNED:
            chunk = await self._execute("XREVRANGE", STREAM, newest, oldest, "COUNT", _CHUNK)
            for place, words in chunk:
                newest = f"({place.decode()}"
                entry = _entry(place.decode(), words)
                if wanted.admits(entry):
                    found.append(entry)
                    if len(found) == size:
                        return found, entry.id
            scanned += len(chunk)
            if len(chunk) < _CHUNK:
                return found, None
        return found, newest[1:]

    def _commands(self, action: str, facts: Facts, address: str = "") -> list[tuple[Any, ...]]:
        """Log an entry; return the commands that store it and, if it is one that operators' systems want, its event."""
        if (key := service_key.get()) and key != facts["by"]:
            facts = facts | {"key": key}
        event(log, action, facts | ({"address": address} if address else {}))
        text = to_json({"action": action} | facts | {"request_id": request_id.get()})
        words = ("XADD", STREAM, "MAXLEN", "~", MOST_ENTRIES, "*", "entry", text)
        announcement = self._announce(action, facts) if self._announce else None
        return [words] if announcement is None else [words, announcement]

    def _is_repeated(self, key: tuple[Any, ...], once_per_s: float) -> bool:
        now = time.monotonic()
        if now < self._seen.get(key, 0.0):
            return True
        if len(self._seen) >= _MOST_REMEMBERED:
            self._seen.clear()
        self._seen[key] = now + once_per_s
        return False


def _entry(place: str, words: list[bytes]) -> Entry:
    data = json.loads(words[1])
    known = {name: str(data.pop(name, "")) for name in ("action", "by", "subject", "request_id")}
    return Entry(id=place, at_ms=int(place.partition("-")[0]), details=data, **known)


def check_action(action: str) -> None:
    """Check that an action, or a kind of actions such as `login`, exists. Raises: FieldError"""
    if action not in ACTIONS and action not in _KINDS:
        raise FieldError("action", no_such("action", action, [*ACTIONS, *sorted(_KINDS)], "docs/security.md"))


async def party(accounts: Accounts, user: str) -> str:
    """Return the id that the trail uses for a user given by name or id, deleted or not. Raises: UnknownUser"""
    if user == CLI or KEY_ID.fullmatch(user):  # the command line, even if a user has that name
        return user
    return await accounts.id_of(user)
