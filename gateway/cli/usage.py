"""`gateway usage`: the counters from the command line."""

import contextlib
import re
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from datetime import date
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
import msgspec
from rich.progress import BarColumn, Progress, TextColumn

from auth.accounts import Accounts
from auth.service_keys import ServiceKeys
from gateway.audit import CLI, Audit
from gateway.cli.connection import with_store
from gateway.cli.failures import CommandError
from gateway.cli.live import live
from gateway.cli.reconcile import reconcile
from gateway.cli.terminal import CSV, DAY, JSON, format_option, print_csv, print_json, progress, say, write
from gateway.cli.usage_views import print_peak, print_report, print_top, top_table
from gateway.files import writing_whole
from gateway.http.problem_codes import STATUS
from gateway.policy.file import load_policy
from gateway.policy.live import PolicyInForce
from gateway.policy.model import Policy
from gateway.redis.topology import AnyStore
from gateway.settings import archive_url, load_env, policy_path
from gateway.text import FieldError, no_such
from gateway.usage.archive import Archive
from gateway.usage.history import History
from gateway.usage.query import (
    COUNTED_ACTIONS,
    GroupBy,
    Query,
    check_reason,
    days_of_period,
    last_settled_day,
    span_of_days,
    today_in,
)
from gateway.usage.reports import METRIC, PERIOD, SHORT, Reports, UsagePage
from gateway.usage.rows import TopRow, UsageDay, UsageRow, Zones
from gateway.usage.subjects import Subjects
from gateway.usage.tables import csv_of, json_of
from limits.counters import ALL, Counters
from limits.derived import Derived

_MOST_SHOWN = 1000  # rows of a table in a terminal; files and JSON have all
_COUNTER = "One is minutes, owned, money, denials, or an action and an outcome, e.g. tokens.mint.ok"
_FILTERS = (
    click.option(
        *("--by", "--group-by", "group_by"),
        type=click.Choice(get_args(GroupBy)),
        help="What a row is about, besides an action.  [default: a user's day; with --user or --room, a day]",
    ),
    click.option("--user", help="Only this user or service key, by name or id."),
    click.option("--room", help="Only this room, by id."),
    click.option("--action", help="Only this action: minutes, owned, tokens.mint, rooms.create, login, api."),
    click.option("--from", "first", type=DAY, metavar="DAY", help="First day.  [default: 29 days before --to]"),
    click.option("--to", "last", type=DAY, metavar="DAY", help="Last day.  [default: today]"),
)


def _filters(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that select the rows of a report."""
    for option in reversed(_FILTERS):
        command = option(command)
    return command


T = TypeVar("T")


@click.group()
def usage() -> None:
    """Usage counters. Their days and months are those of `[reports] time_zone` in the policy."""


@usage.command("show", epilog="Example: gateway usage show --by user --from 2026-11-01")
@_filters
@click.option("--format", "kind", type=click.Choice(["table", "csv", "json"]), hidden=True)  # before there was --csv
@CSV
@JSON
def show_usage(kind: str | None, as_csv: bool, as_json: bool, **selected: Any) -> None:
    """Show what was used, per user and day or as --by says.

    Requests are done, denied by a limit, refused by a rule, or failed in the gateway; the totals are per action.
    Of minutes (time in rooms) and owned (time of everyone in the rooms of a user), what is done is in minutes.
    """
    kind = "json" if as_json else "csv" if as_csv else kind

    async def work(desk: _Desk) -> None:
        query = await _query(desk, _Selected(**selected))
        zones = await desk.reports.zones_of(query.days)
        if kind in ("csv", "json"):
            async for chunk in _encoded(kind, query, desk.reports.pages(query), zones):
                write(chunk)
            sys.stdout.flush()
            return
        rows: list[UsageRow] = []
        async with contextlib.aclosing(desk.reports.pages(query)) as pages:
            async for page, _ in pages:
                rows += page
                if len(rows) > _MOST_SHOWN:
                    break
        if rows:
            print_report(query, rows[:_MOST_SHOWN], zones.text, more=len(rows) > _MOST_SHOWN)
            print_peak(query, await _days(desk.reports, query))
        else:
            say(f"Nothing was used from {query.days[0]} to {query.days[1]} ({zones.text}).")

    _with_reports(work)


@usage.command("export", epilog="Example: gateway usage export --by day --out usage.csv")
@_filters
@click.option("--format", "kind", type=click.Choice(["csv", "json"]), default="csv", hidden=True)  # before --json
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write.  [default: the output]")
@format_option("csv", "Write CSV. This is the default.")
@format_option("json", "Write JSON.")
def export(kind: str, out: Path | None, as_csv: bool, as_json: bool, **selected: Any) -> None:
    """Write usage into a file, however much it is. The file appears only when it is complete."""
    kind = "json" if as_json else "csv" if as_csv else kind

    async def work(desk: _Desk) -> None:
        query = await _query(desk, _Selected(**selected))
        zones = await desk.reports.zones_of(query.days)
        total = await Accounts(desk.store.execute).count() if query.pages_of == "users" else None
        with progress(TextColumn("{task.description}"), BarColumn()) as shown:
            pages = _with_progress(desk.reports.pages(query), shown, total)
            chunks = _encoded(kind, query, pages, zones)
            if out is None:
                async for chunk in chunks:
                    write(chunk)
                sys.stdout.flush()
                return
            with writing_whole(out) as file:
                async for chunk in chunks:
                    file.write(chunk)

    try:
        _with_reports(work)
    except OSError as error:
        if out is None:
            raise
        raise CommandError(f"cannot write {out}: {error.strerror}") from error
    if out is not None:
        say(f"Wrote {out}: {out.stat().st_size:,} bytes.", err=True)


@usage.command("top", epilog="Example: gateway usage top --counter minutes --period 2026-11")
@click.option(
    "--counter",
    default="tokens.mint.ok",
    show_default=True,
    help="minutes, owned, denials, money, or any counter, e.g. api.denied.api.",
)
@click.option("--period", metavar="PERIOD", help="A day (2026-11-22) or month (2026-11).  [default: today]")
@click.option("--limit", "size", type=click.IntRange(1, 100), default=10, show_default=True, help="How many.")
@CSV
@JSON
def top(counter: str, period: str | None, size: int, as_csv: bool, as_json: bool) -> None:
    """Show the users with the highest count of a counter.

    It is that of a day or month, and of one action and outcome, or of minutes, owned, denials or money.
    """
    policy = _policy()
    period = period or today_in(policy.time_zone).isoformat()
    if not re.fullmatch(PERIOD, period):
        raise click.BadParameter("must look like 2026-11-22 or 2026-11", param_hint="--period")
    if not re.fullmatch(METRIC, counter):
        known = [*SHORT, *(f"{action}.{outcome}" for action in COUNTED_ACTIONS for outcome in ("ok", "failed"))]
        rule = f"{no_such('counter', counter, known, 'docs/usage.md')}. {_COUNTER}"
        raise click.BadParameter(rule, param_hint="--counter")
    currency = policy.prices.currency if policy.prices else ""

    async def read(desk: _Desk) -> tuple[list[TopRow], int | None, str]:
        await Audit(desk.store.execute).record("usage.read", by=CLI, subject="", report="top")
        with _as_option():
            zones = await desk.reports.zones_of(days_of_period(period))
            rows = await desk.reports.top(period, counter, size, policy.prices)
            if not rows:
                check_reason(counter, policy, STATUS)
            return rows, await desk.reports.total(period, counter), zones.text

    rows, total, zone = _with_reports(read)
    if as_json:
        print_json([msgspec.to_builtins(row) | {"time_zone": zone} for row in rows])
    elif as_csv:
        print_csv(top_table(rows, currency, counter=counter, period=period, time_zone=zone))
    elif rows:
        print_top(f"{counter}, {period} ({zone})", rows, currency, total=total)
    else:
        say(f"No user has any {counter} in {period} ({zone}).")


@usage.command("rebuild", epilog="Example: gateway usage rebuild --month 2026-11")
@click.option("--month", help="The month, e.g. 2026-11.  [default: this one]")
def rebuild(month: str | None) -> None:
    """Rebuild a month's top lists and totals.

    Takes them from the users' own counters, which are authoritative.
    """
    zone = _policy().time_zone
    month = month or f"{today_in(zone):%Y-%m}"
    if not re.fullmatch(r"[0-9]{4}-(0[1-9]|1[0-2])", month):
        raise click.BadParameter("must look like 2026-11", param_hint="--month")
    with _as_option():
        first, last = days_of_period(month)

    async def work(store: AnyStore) -> int:
        subjects = _subjects(store)
        with progress() as shown:
            task = shown.add_task("Reading users and keys", total=await subjects.count())

            async def everyone() -> AsyncIterator[str]:
                after: int | None = 0
                while after is not None:
                    found, after = await subjects.page(after=after, size=500)
                    for one in found:
                        yield one.id
                        shown.advance(task)

            derived = Derived(store.execute, store.post)
            found = await derived.rebuild(month, everyone(), Counters(store.execute))
            await derived.shorten(first, min(last, last_settled_day(zone)))
            return found

    say(f"The top lists and totals of {month} are rebuilt from {with_store(work)} users and service keys.")


usage.add_command(live)
usage.add_command(reconcile)


class _Desk(msgspec.Struct, frozen=True):
    """What reading a report takes."""

    store: AnyStore
    reports: Reports
    policy: Policy


def _with_reports(work: Callable[[_Desk], Coroutine[Any, Any, T]]) -> T:
    """Run work with reports, as far back as the archive reaches. Raises: SettingsError, StoreError, ArchiveError"""
    url, policy = archive_url(load_env()), _policy()

    async def inner(store: AnyStore) -> T:
        archive = Archive(url) if url else None
        history, derived = History(Counters(store.execute), archive), Derived(store.execute, store.post)
        try:
            zone = PolicyInForce(policy).zone
            return await work(
                _Desk(store, Reports(store.execute, _subjects(store), history, derived, zone=zone), policy)
            )
        finally:
            if archive is not None:
                await archive.close()

    return with_store(inner)


def _policy() -> Policy:
    return load_policy(policy_path(load_env()))


def _subjects(store: AnyStore) -> Subjects:
    return Subjects(Accounts(store.execute), ServiceKeys(store.execute))


class _Selected(msgspec.Struct):
    """The options that choose rows."""

    group_by: GroupBy | None
    user: str | None
    room: str | None
    action: str | None
    first: date | None
    last: date | None


async def _query(desk: _Desk, options: _Selected) -> Query:
    """Return what the options ask for, and note in the audit trail that it was read. Raises UnknownUser."""
    with _as_option():
        days = span_of_days(options.first, options.last, today_in(desk.policy.time_zone))
        uid = (await desk.reports.find_user(options.user)).id if options.user else None
        query = Query(days, options.group_by, uid, options.action, options.room, desk.policy.prices)
    report = "rooms" if "room_id" in query.keys else "users"
    await Audit(desk.store.execute).record("usage.read", by=CLI, subject=uid or "", report=report)
    return query


async def _days(reports: Reports, query: Query) -> list[UsageDay]:
    """Return the days of what a daily report is about: one room, one user, or the whole installation."""
    if not query.is_daily or query.pages_of != "nothing":
        return []
    if query.room:
        return await reports.of_room(query.room, query.days)
    return await reports.of_user(query.user or ALL, query.days)


@contextlib.contextmanager
def _as_option() -> Iterator[None]:
    """Name the option whose value is wrong."""
    try:
        yield
    except FieldError as error:
        rule = error.rule.replace("`to`", "--to").replace("`user`", "--user").replace("`room`", "--room")
        option = "--by" if error.field == "group_by" else f"--{error.field}"
        raise click.BadParameter(rule, param_hint=option) from error


def _encoded(kind: str, query: Query, pages: AsyncIterator[UsagePage], zones: Zones) -> AsyncGenerator[bytes]:
    return csv_of(query, pages, zones) if kind == "csv" else json_of(pages, zones)


async def _with_progress(
    pages: AsyncIterator[UsagePage], shown: Progress, total: int | None
) -> AsyncIterator[UsagePage]:
    """Pass pages on, and show how far they have come: among the users, or else only how many rows there are."""
    task, count = shown.add_task("0 rows", total=total), 0
    async for rows, following in pages:
        yield rows, following
        count += len(rows)
        done = int(following[0]) if following and total is not None and int(following[0]) >= 0 else None
        shown.update(task, description=f"{count:,} rows", completed=done)
