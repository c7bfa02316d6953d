"""`gateway audit`: the audit trail from the command line."""

import asyncio
import contextlib
import json
import re
import time

import click
import msgspec
from rich.table import Table

from auth.accounts import Accounts
from auth.service_keys import ServiceKeys
from gateway.audit import ACTION, ACTIONS, MOST_ENTRIES, Audit, Entry, Filter, party
from gateway.cli.connection import every, with_store
from gateway.cli.terminal import DURATION, print_csv, printable, table_of
from gateway.redis.store import Store
from gateway.routes.schemas import iso
from gateway.usage.subjects import Subjects, is_subject

_POLL_S = 1.0


@click.group()
def audit() -> None:
    """The audit trail: who did what to whom."""


@audit.command("tail")
@click.option("--user", help="Only entries by or about this user (name or id) or service key (id).")
@click.option("--action", help="Only this action or kind, e.g. login, user, token.minted.")
@click.option("--since", "since_s", type=DURATION, help="All entries of this time, e.g. 30min, 2h, 7d.")
@click.option("--lines", type=click.IntRange(1, 10_000), help="How many entries.  [default: 20, or all --since]")
@click.option("--follow", "-f", is_flag=True, help="Keep printing new entries, until Ctrl-C.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def tail(  # noqa: PLR0913  one argument per option
    user: str | None,
    action: str | None,
    since_s: int | None,
    lines: int | None,
    follow: bool,
    as_csv: bool,
    as_json: bool,
) -> None:
    """Print the last entries, newest at the end."""

    _check_action(action)
    if as_csv and (follow or as_json):
        raise click.UsageError("--csv goes with neither --follow nor --json.")
    first_ms = 0 if since_s is None else int((time.time() - since_s) * 1000)
    most = lines or (20 if since_s is None else MOST_ENTRIES)

    async def work(store: Store) -> None:
        accounts = Accounts(store.execute)
        uid = None if user is None else await party(accounts, user)
        trail, names = Audit(store.execute), _Names(Subjects(accounts, ServiceKeys(store.execute)))
        newest, _ = await trail.page(size=1)  # where --follow starts, even if no entry matches
        wanted = Filter(user=uid, action=action, first_ms=first_ms)
        found = await _last(trail, most, wanted)
        if as_csv:
            print_csv(_table(found, await names.of(found)))
            return
        if not found and not follow:
            filtered = user or action or since_s
            click.echo("No entry matches." if filtered else "The audit trail is empty.", err=True)
        _print(found, await names.of(found), as_json=as_json)
        shown = {entry.id for entry in found}  # entries made between the two reads are in both
        last = next((entry.id for entry in newest), "0-0")
        while follow:
            await asyncio.sleep(_POLL_S)
            happened = await _since(trail, last)
            last = next((entry.id for entry in happened), last)
            fresh = [entry for entry in happened if entry.id not in shown and wanted.admits(entry)]
            _print(fresh, await names.of(fresh), as_json=as_json)

    with contextlib.suppress(KeyboardInterrupt):
        with_store(work)


def _check_action(action: str | None) -> None:
    if action is None:
        return
    if not re.fullmatch(ACTION, action):
        raise click.BadParameter("must look like login, user or token.minted", param_hint="--action")
    if action not in ACTIONS and not any(one.startswith(f"{action}.") for one in ACTIONS):
        raise click.BadParameter(f"there is no {action!r}; there are: {', '.join(ACTIONS)}", param_hint="--action")


class _Names:
    """The names of users and service keys by their ids, each asked for once."""

    def __init__(self, subjects: Subjects) -> None:
        self._subjects = subjects
        self._known: dict[str, str] = {}

    async def of(self, entries: list[Entry]) -> dict[str, str]:
        ids = {one for entry in entries for one in (entry.by, entry.subject) if is_subject(one)} - set(self._known)
        found = await self._subjects.several(list(ids))
        self._known |= {one: found[one].username or one if one in found else one for one in ids}
        return self._known


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


def _print(newest_first: list[Entry], names: dict[str, str], *, as_json: bool) -> None:
    for entry in reversed(newest_first):
        at, by_name, subject_name = iso(entry.at_ms / 1000), names.get(entry.by, ""), names.get(entry.subject, "")
        if as_json:
            more = {"at": at, "by_name": by_name, "subject_name": subject_name}
            click.echo(json.dumps(msgspec.to_builtins(entry) | more))
            continue
        by = _who(entry.by, names) or "-"
        whom = f" -> {_who(entry.subject, names)}" if entry.subject and entry.subject != entry.by else ""
        click.echo(printable(f"{at} {entry.action:20} {by}{whom}{_details(entry)}"))  # a reason is free text


def _table(newest_first: list[Entry], names: dict[str, str]) -> Table:
    rows = []
    for one in reversed(newest_first):
        users = (one.by, names.get(one.by, ""), one.subject, names.get(one.subject, ""))
        rows.append((iso(one.at_ms / 1000), one.action, *users, _details(one).strip()))
    return table_of(("At", "Action", "By", "By name", "Subject", "Subject name", "Details"), rows)


def _who(uid: str, names: dict[str, str]) -> str:
    """Return a user's name and id; of a deleted one, whom `names` has under the id, the id alone."""
    name = names.get(uid, uid)
    return uid if name == uid else f"{name} ({uid})"


def _details(entry: Entry) -> str:
    return "".join(f" {name}={value}" for name, value in entry.details.items())
