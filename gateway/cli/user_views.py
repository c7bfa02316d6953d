"""How `gateway users` shows accounts, sessions and what a user has used."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from rich.table import Column, Table

from auth.sessions import Session
from auth.users import User
from gateway.accounts.limits import Standing
from gateway.cli.limits import limits_table, notes_on, plain_override
from gateway.cli.terminal import console, minute_of, print_table, say, table_of
from gateway.routes.schemas import LimitsNow, iso
from limits.counters import METERED, Tally, Usage

_INTERNAL = ("mark", "mapped_s", "voided_s")
_STATUS = {
    "disabled": "The account is disabled: its sessions have ended, and no one can log in to it.",
    "deleted": "The account was deleted. What it has used stays counted, under its id only.",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """What `users show` shows; `standing` is None for a deleted user."""

    user: User
    login_ms: int | None
    sessions: list[Session]
    used: Usage
    standing: Standing | None
    zone: str

    @property
    def limits(self) -> dict[str, Any]:
        return msgspec.to_builtins(LimitsNow.of(self.standing.decision)) if self.standing else {}


def plain_user(user: User) -> dict[str, Any]:
    """Return an account for JSON."""
    plain: dict[str, Any] = msgspec.to_builtins(user)
    return {name: value for name, value in plain.items() if name not in _INTERNAL}


def plain_shown(shown: Shown, *, with_sessions: bool) -> dict[str, Any]:
    """Return for JSON what `users show` shows; `sessions` is their number, `logged_in` each of them."""
    overrides = [plain_override(one) for one in shown.standing.overrides] if shown.standing else []
    return {
        **plain_user(shown.user),
        "last_login": iso(shown.login_ms / 1000) if shown.login_ms else None,
        "sessions": len(shown.sessions),
        **({"logged_in": shown.sessions} if with_sessions else {}),
        "usage": shown.used,
        "limits": {**shown.limits, "overrides": overrides},
        "time_zone": shown.zone,
    }


def print_shown(shown: Shown, *, with_sessions: bool) -> None:
    """Print one account, and what is known of it."""
    user = shown.user
    print_table(users_table([user], shown.zone))
    say("")
    if text := _STATUS.get(user.status):
        say(text if user.status == "deleted" else f"{text} `gateway users enable {user.username}` enables it.")
    if user.identity:
        mapped = f"; roles by its claims: {' '.join(user.mapped)}" if user.mapped else ""
        say(f"Logs in at {user.identity.provider} ({user.identity.issuer}) as {user.identity.subject}{mapped}.")
    login = minute_of(shown.login_ms, shown.zone) if shown.login_ms else "none is known"
    say(f"Last login: {login}; sessions: {len(shown.sessions)}.")
    if with_sessions and shown.sessions:
        print_table(sessions_table(shown.sessions, shown.zone, stacked=console().is_terminal))
    say("")
    if shown.standing:
        print_table(limits_table(shown.limits), *notes_on(shown.standing, shown.limits))
        say("")
    _print_used(shown.used, shown.zone)


def users_table(found: Sequence[User], zone: str) -> Table:
    """Return accounts as a table."""
    texts = [Column(name, overflow="fold") for name in ("User", "Roles", "Status")]
    columns = [*texts, Column("Created", no_wrap=True), Column("Id", no_wrap=True)]
    return table_of(
        columns,
        ((one.username, " ".join(one.roles), one.status, minute_of(one.created_ms, zone), one.id) for one in found),
    )


def sessions_table(found: Sequence[Session], zone: str, *, stacked: bool) -> Table:
    """Return sessions as a table; `stacked` has the times of each below each other, for 80 columns."""
    texts = [Column(name, overflow="fold") for name in ("Address", "Client")]
    times = ["Since, last used, until"] if stacked else ["Since", "Last used", "Until"]
    table = table_of([Column("Session", no_wrap=True), *times, *texts])
    for one in found:
        cells = [minute_of(at, zone) for at in (one.opened_ms, one.used_ms, one.expires_ms)]
        table.add_row(one.id, *(["\n".join(cells)] if stacked else cells), one.address, one.agent)
    return table


def _print_used(used: Usage, zone: str) -> None:
    spans = (used.today, used.month, used.total)
    if not any(spans):
        say("Nothing was used yet.")
        return
    columns = [Column(name, justify="right") for name in ("Today", "This month", "In all")]
    print_table(table_of(["Used", *columns], _used_rows(spans)), f"Days and months are those of {zone}.")


def _used_rows(spans: Sequence[dict[str, Tally]]) -> Iterator[tuple[str, ...]]:
    for action in sorted({action for span in spans for action in span}):
        yield (action, *(_done(action, span.get(action, Tally())) for span in spans))
        for outcome in ("denied", "refused"):
            counts = [getattr(span.get(action, Tally()), outcome) for span in spans]
            for reason in sorted({reason for one in counts for reason in one}):
                yield (f"  {outcome}: {reason}", *(str(one.get(reason, 0)) for one in counts))


def _done(action: str, tally: Tally) -> str:
    return f"{tally.ok / 60:.2f} min" if action in METERED else str(tally.ok)
