"""`gateway audit`: the audit trail from the command line."""

import asyncio
import contextlib
import json
import re
from dataclasses import dataclass
from datetime import date
from typing import Any

import click
import msgspec
from rich.table import Table

from auth.accounts import Accounts
from auth.service_keys import ServiceKeys
from gateway.audit import ACTION, EVERYTHING, MOST_ENTRIES, Audit, Entry, Filter, check_action, party
from gateway.cli.connection import every, with_store
from gateway.cli.terminal import CSV, MOMENT, format_option, instant_of, ms_of, print_csv, say, table_of
from gateway.policy.file import load_policy
from gateway.redis.topology import AnyStore
from gateway.rooms.listing import rooms_by_id
from gateway.routes.schemas import iso
from gateway.settings import load_env, policy_path
from gateway.text import FieldError, printable
from gateway.usage.subjects import Subjects, is_subject

_POLL_S = 1.0


@click.group()
def audit() -> None:
    """The audit trail: who did what to whom."""


@audit.command("tail", epilog="Example: gateway audit tail --user ada --since 2h")
@click.option("--user", help="Only entries by or about this user (name or id) or service key (id).")
@click.option("--action", help="Only this action or kind, e.g. login, user, token.minted.")
@click.option("--since", type=MOMENT, help="All entries since then: 2h, 7d (ago), 2026-11-22, 2026-11-22T14:30Z.")
@click.option("--until", type=MOMENT, help="Only entries up to then; the whole day, if it is one.")
@click.option("--lines", type=click.IntRange(1, 10_000), help="How many entries.  [default: 20, or all --since]")
@click.option("--follow", "-f", is_flag=True, help="Keep printing new entries, until Ctrl-C.")
@CSV
@format_option("json", "One JSON object per line.")
def tail(lines: int | None, follow: bool, as_csv: bool, as_json: bool, **selected: Any) -> None:
    """Print the last entries, newest at the end.

    Users, keys and rooms have their names beside their ids. Times are those of `[reports] time_zone` in the policy, and
    so is a time without a zone. CSV and JSON are in UTC.
    """
    if follow and (as_csv or selected["until"]):
        raise click.UsageError("--follow goes with neither --csv nor --until.")
    options = _Selected(**selected)
    zone = load_policy(policy_path(load_env())).time_zone

    async def work(store: AnyStore) -> None:
        accounts = Accounts(store.execute)
        trail, names = Audit(store.execute), _Names(Subjects(accounts, ServiceKeys(store.execute)), store)
        wanted = await _filter(options, zone, accounts)
        newest, _ = await trail.page(size=1)  # where --follow starts, even if no entry matches
        found = await _last(trail, lines or (20 if options.since is None else MOST_ENTRIES), wanted)
        if as_csv:
            print_csv(_table(found, await names.of(found)))
            return
        if not found and not follow:
            say("The audit trail is empty." if wanted == EVERYTHING else "No entry matches.", err=True)
        _print(found, await names.of(found), zone, as_json=as_json)
        shown = {entry.id for entry in found}  # entries made between the two reads are in both
        last = next((entry.id for entry in newest), "0-0")
        while follow:
            await asyncio.sleep(_POLL_S)
            happened = await _since(trail, last)
            last = next((entry.id for entry in happened), last)
            fresh = [entry for entry in happened if entry.id not in shown and wanted.admits(entry)]
            _print(fresh, await names.of(fresh), zone, as_json=as_json)

    with contextlib.suppress(KeyboardInterrupt):
        with_store(work)


@dataclass(frozen=True, slots=True)
class _Selected:
    """The options that choose entries."""

    user: str | None
    action: str | None
    since: date | None
    until: date | None


async def _filter(options: _Selected, zone: str, accounts: Accounts) -> Filter:
    if options.action is not None:
        _check_action(options.action)
    first_ms = 0 if options.since is None else ms_of(options.since, zone)
    last_ms = None if options.until is None else ms_of(options.until, zone, is_end=True)
    if last_ms is not None and first_ms > last_ms:
        raise click.BadParameter("must not be after --until", param_hint="--since")
    uid = None if options.user is None else await party(accounts, options.user)
    return Filter(uid, options.action, max(0, first_ms), last_ms)


def _check_action(action: str) -> None:
    if not re.fullmatch(ACTION, action):
        raise click.BadParameter("must look like login, user or token.minted", param_hint="--action")
    try:
        check_action(action)
    except FieldError as error:
        raise click.BadParameter(error.rule, param_hint="--action") from error


class _Names:
    """The names of users, service keys and rooms by their ids, each asked for once."""

    def __init__(self, subjects: Subjects, store: AnyStore) -> None:
        self._subjects = subjects
        self._store = store
        self._known: dict[str, str] = {}

    async def of(self, entries: list[Entry]) -> dict[str, str]:
        ids = {one for entry in entries for one in (entry.by, entry.subject) if is_subject(one)} - set(self._known)
        found = await self._subjects.several(list(ids))
        self._known |= {one: found[one].username or one if one in found else one for one in ids}
        rooms = {room for entry in entries if (room := _room_of(entry))} - set(self._known)
        named = await rooms_by_id(self._store.execute, rooms)
        self._known |= {room: named[room].name if room in named else room for room in rooms}
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


def _print(newest_first: list[Entry], names: dict[str, str], zone: str, *, as_json: bool) -> None:
    for entry in reversed(newest_first):
        by_name, subject_name = names.get(entry.by, ""), names.get(entry.subject, "")
        if as_json:
            more = {"at": iso(entry.at_ms / 1000), "by_name": by_name, "subject_name": subject_name}
            if room := _room_of(entry):
                more["room_name"] = "" if names[room] == room else names[room]
            click.echo(json.dumps(msgspec.to_builtins(entry) | more))
            continue
        by = _who(entry.by, names) or "(no account)"
        whom = f" -> {_who(entry.subject, names)}" if entry.subject and entry.subject != entry.by else ""
        at = instant_of(entry.at_ms, zone)
        say(printable(f"{at}  {entry.action:19}  {by}{whom}{_details(entry, names)}"))  # a reason is free text


def _table(newest_first: list[Entry], names: dict[str, str]) -> Table:
    rows = []
    for one in reversed(newest_first):
        users = (one.by, names.get(one.by, ""), one.subject, names.get(one.subject, ""))
        rows.append((iso(one.at_ms / 1000), one.action, *users, _details(one, names).strip()))
    return table_of(("At", "Action", "By", "By name", "Subject", "Subject name", "Details"), rows)


def _who(uid: str, names: dict[str, str]) -> str:
    """Return a user's or room's name and id; of a deleted one, which `names` has under the id, the id alone."""
    name = names.get(uid, uid)
    return uid if name == uid else f"{name} ({uid})"


def _room_of(entry: Entry) -> str:
    return str(entry.details.get("room", ""))


def _details(entry: Entry, names: dict[str, str]) -> str:
    texts = {name: str(value) for name, value in entry.details.items()}
    return "".join(f" {name}={_who(text, names) if name == 'room' else text}" for name, text in texts.items())
