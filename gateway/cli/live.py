"""`gateway usage live`: who is in which room now."""

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import click
from rich.console import Group
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from auth.accounts import Accounts
from gateway.audit import CLI, Audit
from gateway.cli.connection import with_store
from gateway.cli.layout import fits, fitted, plain_lines
from gateway.cli.terminal import CSV, JSON, console, print_csv, print_json, say, table_of
from gateway.cli.usage_views import shortened
from gateway.redis.topology import AnyStore
from gateway.text import printable
from gateway.usage.live import LiveRoom, Now, who_is_where

_MOST_ROOMS = 100  # except as CSV, which has no place to say how many there are


@click.command("live", epilog="Example: gateway usage live --every 5")
@click.option(
    "--every", "every_s", type=click.IntRange(1, 3600), default=2, show_default=True, help="Seconds between updates."
)
@click.option("--once", is_flag=True, help="Print it once, as without a terminal.")
@CSV
@JSON
def live(every_s: int, once: bool, as_csv: bool, as_json: bool) -> None:
    """Show who is in which room now, until Ctrl-C."""

    async def read(store: AnyStore) -> Now:
        size = sys.maxsize if as_csv else _MOST_ROOMS
        return await who_is_where(store.execute, Accounts(store.execute), size=size)

    async def work(store: AnyStore) -> None:
        await Audit(store.execute).record("usage.read", by=CLI, subject="", report="live")
        now = await read(store)
        terminal = console()
        if as_csv:
            print_csv(people_table(now, _utc()))
        elif as_json:
            print_json(now)
        elif not terminal.is_terminal:
            _print_plainly(now, _utc())
        elif once:
            terminal.print(live_view(now, _utc(), terminal.width))
        else:
            with Live(
                live_view(now, _utc(), terminal.width), console=terminal, auto_refresh=False, screen=True
            ) as view:
                while True:
                    await asyncio.sleep(every_s)
                    view.update(live_view(await read(store), _utc(), terminal.width), refresh=True)

    with contextlib.suppress(KeyboardInterrupt):
        with_store(work)


def live_view(now: Now, at: datetime, width: int) -> Group:
    """Return who is in which room, for a terminal of this width: ids whole, titles on one line.

    A terminal that is too narrow for a table gets lines: one for each room, and one for each person in it.
    """
    lines: list[Text | Table] = [Text(_title(now, at), no_wrap=True)]
    if now.rooms:
        table = table_of(["Room", "Person", "Role", Column("For", justify="right", no_wrap=True)])
        for room in now.rooms:
            table.add_row(*_cells(room, at))
        lines += [fitted(table, width)] if fits(table, width) else map(Text, _narrow_lines(now, at))
    return Group(*lines, *map(Text, _notes(now)))


def _narrow_lines(now: Now, at: datetime) -> Iterator[str]:
    for room in now.rooms:
        title, *people = [cell.split("\n") for cell in _cells(room, at)]
        yield printable("  ".join(title))
        yield from (printable("  ".join(("", *one))) for one in zip(*people, strict=True))


def people_table(now: Now, at: datetime) -> Table:
    """Return who is in which room with a row for each person and nothing cut, for a file or another program."""
    table = table_of(["Room id", "Room", "Owner id", "Owner", "User id", "User", "Role", "Since", "For"])
    for room in now.rooms:
        of = room.room_id, room.name, room.owner_id, room.owner
        for one in room.people:
            table.add_row(*of, one.user_id, one.username, one.role, one.since, _lasted(one.since, at))
    return table


def _print_plainly(now: Now, at: datetime) -> None:
    table = plain_lines(people_table(now, at)) if now.rooms else []
    say("\n".join([_title(now, at), *table, *_notes(now)]))


def _title(now: Now, at: datetime) -> str:
    people = {0: "No one is", 1: "1 person"}.get(now.all_people, f"{now.all_people} people")
    rooms = "a room" if now.all_rooms == 0 else "1 room" if now.all_rooms == 1 else f"{now.all_rooms} rooms"
    return f"{people} in {rooms} at {at:%Y-%m-%dT%H:%M:%SZ}"


def _notes(now: Now) -> list[str]:
    more = len(now.rooms) < now.all_rooms
    return [f"Shown: {len(now.rooms)} of them, those with the most people."] if more else []


def _cells(room: LiveRoom, at: datetime) -> tuple[str, ...]:
    """Return the cells of a room, with a line for each person."""
    owner = f"of {room.owner or room.owner_id}" if room.owner_id else ""
    title = [shortened(room.name), room.room_id, shortened(owner)]
    names = [shortened(one.username or one.user_id) or "(no id)" for one in room.people]
    roles = [shortened(one.role) for one in room.people]
    lasted = [_lasted(one.since, at) for one in room.people]
    return "\n".join(filter(None, title)), "\n".join(names), "\n".join(roles), "\n".join(lasted)


def _lasted(since: str, at: datetime) -> str:
    minutes = max(0, (at - datetime.fromisoformat(since)) // timedelta(minutes=1))
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"


def _utc() -> datetime:
    return datetime.now(UTC)
