"""`gateway audit`: the audit trail from the command line."""

import asyncio
import contextlib
import json
import re
from datetime import UTC, datetime

import click
import msgspec

from auth.accounts import Accounts
from gateway.audit import ACTION, Audit, Entry, Filter, party
from gateway.cli.connection import every, with_store
from gateway.redis.store import Store

_POLL_S = 1.0


@click.group()
def audit() -> None:
    """The audit trail: who did what to whom."""


@audit.command("tail")
@click.option("--user", help="Only entries by or about this user: name or id.")
@click.option("--action", help="Only this action or kind, e.g. login, user, token.minted.")
@click.option("--lines", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many entries.")
@click.option("--follow", "-f", is_flag=True, help="Keep printing new entries, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def tail(user: str | None, action: str | None, lines: int, follow: bool, as_json: bool) -> None:
    """Print the last entries, newest at the end."""

    if action is not None and not re.fullmatch(ACTION, action):
        raise click.BadParameter("must look like login, user or token.minted", param_hint="--action")

    async def work(store: Store) -> None:
        uid = None if user is None else await party(Accounts(store.execute), user)
        trail = Audit(store.execute)
        newest, _ = await trail.page(size=1)  # where --follow starts, even if no entry matches
        wanted = Filter(user=uid, action=action)
        found = await _last(trail, lines, wanted)
        if not found and not follow:
            click.echo("No entry matches." if user or action else "The audit trail is empty.", err=True)
        _print(found, as_json=as_json)
        shown = {entry.id for entry in found}  # entries made between the two reads are in both
        last = next((entry.id for entry in newest), "0-0")
        while follow:
            await asyncio.sleep(_POLL_S)
            happened = await _since(trail, last)
            last = next((entry.id for entry in happened), last)
            fresh = [entry for entry in happened if entry.id not in shown and wanted.admits(entry)]
            _print(fresh, as_json=as_json)

    with contextlib.suppress(KeyboardInterrupt):
        with_store(work)


async def _last(trail: Audit, lines: int, wanted: Filter) -> list[Entry]:
    """Return the last matching entries, newest first, however far back they are."""
    found: list[Entry] = []
    before = None
    while True:
        page, before = await trail.page(wanted, before=before, size=lines - len(found))
        found += page
        if before is None or len(found) == lines:
            return found


async def _since(trail: Audit, last: str) -> list[Entry]:
    """Return all entries after an entry, newest first."""
    return await every(lambda before: trail.page(Filter(after=last), before=before, size=1000), None)


def _print(newest_first: list[Entry], *, as_json: bool) -> None:
    for entry in reversed(newest_first):
        if as_json:
            click.echo(json.dumps(msgspec.to_builtins(entry)))
            continue
        at = datetime.fromtimestamp(entry.at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
        whom = f" -> {entry.subject}" if entry.subject and entry.subject != entry.by else ""
        details = "".join(f" {name}={value}" for name, value in entry.details.items())
        text = f"{at} {entry.action:20} {entry.by or '-'}{whom}{details}"
        click.echo("".join(char if char.isprintable() else "?" for char in text))  # a reason is free text
