"""`gateway audit`: the audit trail from the command line."""

from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import UTC, datetime

import click
import msgspec

from auth.accounts import Accounts
from auth.errors import UnknownUser
from auth.passwords import Passwords
from gateway.audit import CLI, Audit, Entry
from gateway.cli.connection import with_store
from gateway.store import Store

_POLL_S = 1.0


@click.group()
def audit() -> None:
    """The audit trail: who did what to whom."""


@audit.command("tail")
@click.option("--user", help="Only what is by or about this user, by name or id.")
@click.option("--action", help="Only this action or kind, e.g. login, user, token.minted.")
@click.option("--lines", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many entries.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what happens from now on, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def tail(user: str | None, action: str | None, lines: int, follow: bool, as_json: bool) -> None:
    """Print the last entries, the newest at the end."""

    async def work(store: Store) -> None:
        uid = user
        if user is not None and user != CLI:  # a user of that name must not hide what the command line did
            with contextlib.suppress(UnknownUser):  # the id of an account that was deleted still finds its entries
                uid = (await Accounts(store.execute, Passwords()).lookup(user)).id
        trail = Audit(store.execute)
        newest, _ = await trail.page(size=1)  # where to go on from when nothing of that kind has happened yet
        found, _ = await trail.page(user=uid, action=action, size=lines)
        if not found and not follow:
            click.echo(
                "Nothing of that kind has happened yet." if user or action else "Nothing has happened yet.", err=True
            )
        last = next((entry.id for entry in found or newest), "0-0")
        _print(found, as_json=as_json)
        while follow:
            await asyncio.sleep(_POLL_S)
            found = await _since(trail, last, user=uid, action=action)
            last = found[0].id if found else last
            _print(found, as_json=as_json)

    with contextlib.suppress(KeyboardInterrupt):
        with_store(work)


async def _since(trail: Audit, last: str, *, user: str | None, action: str | None) -> list[Entry]:
    """Return everything after an entry, the newest first, however much happened in one second."""
    found: list[Entry] = []
    before = None
    while True:
        page, before = await trail.page(user=user, action=action, after=last, before=before, size=1000)
        found += page
        if before is None:
            return found


def _print(newest_first: list[Entry], *, as_json: bool) -> None:
    for entry in reversed(newest_first):
        if as_json:
            click.echo(json.dumps(msgspec.to_builtins(entry)))
            continue
        at = datetime.fromtimestamp(entry.at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
        whom = f" -> {entry.subject}" if entry.subject and entry.subject != entry.by else ""
        details = "".join(f" {name}={value}" for name, value in entry.details.items())
        text = f"{at} {entry.action:20} {entry.by or '(nobody)'}{whom}{details}"
        click.echo("".join(char if char.isprintable() else "?" for char in text))  # a reason is somebody's own text
