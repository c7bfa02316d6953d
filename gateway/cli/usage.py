"""`gateway usage`: the counters from the command line."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Column

from auth.accounts import Accounts
from gateway.audit import CLI, Audit
from gateway.cli.connection import every, with_store
from gateway.cli.reconcile import reconcile
from gateway.cli.terminal import JSON, print_list, table_of
from gateway.redis.store import Store
from gateway.text import FieldError
from gateway.usage.reports import METRIC, PERIOD, Days, Reports, TopRow, UsageRow, span_of_days
from limits.counters import Counters
from limits.derived import Derived


@click.group()
def usage() -> None:
    """Usage counters."""


@usage.command("show")
@click.option("--user", help="Only this user, by name or id.")
@click.option("--action", help="Only this action: tokens.mint, rooms.create, login, api.")
@click.option(
    "--from", "first", type=click.DateTime(["%Y-%m-%d"]), help="First UTC day.  [default: 30 days up to --to]"
)
@click.option("--to", "last", type=click.DateTime(["%Y-%m-%d"]), help="Last UTC day.  [default: today]")
@JSON
def show_usage(
    user: str | None, action: str | None, first: datetime | None, last: datetime | None, as_json: bool
) -> None:
    """Show usage per user and UTC day: succeeded, denied by a limit, refused by a rule, failed in the gateway."""
    try:
        days = span_of_days(first.date() if first else None, last.date() if last else None)
    except FieldError as error:
        raise click.BadParameter(error.rule, param_hint=f"--{error.field}") from error
    rows = with_store(lambda store: _all_usage(store, days, user, action))
    counts = (Column(name, justify="right") for name in ("Done", "Denied", "Refused", "Failed"))
    table = table_of(("Day", "User", "Action", *counts), map(_cells, rows), title="Usage per user, UTC day and action")
    print_list(rows, table, none=f"Nothing was used from {days[0]} to {days[1]}.", as_json=as_json)


@usage.command("top")
@click.option("--counter", default="tokens.mint.ok", show_default=True, help="Any counter, e.g. api.denied.api.")
@click.option("--period", help="A UTC day (2026-11-22) or month (2026-11).  [default: today]")
@click.option("--limit", "size", type=click.IntRange(1, 100), default=10, show_default=True, help="How many.")
@JSON
def top(counter: str, period: str | None, size: int, as_json: bool) -> None:
    """Show the users with the highest count of one counter on a day or in a month."""
    period = period or datetime.now(UTC).date().isoformat()
    if not re.fullmatch(PERIOD, period):
        raise click.BadParameter("must look like 2026-11-22 or 2026-11", param_hint="--period")
    if not re.fullmatch(METRIC, counter):
        raise click.BadParameter("must be an action and an outcome, e.g. tokens.mint.ok", param_hint="--counter")

    async def read(store: Store) -> list[TopRow]:
        await Audit(store.execute).record("usage.read", by=CLI, subject="", report="top")
        return await _reports(store).top(period, counter, size)

    rows = with_store(read)
    cells = ((row.username or row.user_id, str(row.count)) for row in rows)
    table = table_of(("User", Column("Count", justify="right")), cells, title=f"{counter}, {period}")
    print_list(rows, table, none=f"No user has any {counter} in {period}.", as_json=as_json)


@usage.command("rebuild")
@click.option("--month", help="The UTC month, e.g. 2026-11.  [default: this one]")
def rebuild(month: str | None) -> None:
    """Rebuild a month's top lists from the users' own counters, which are authoritative."""
    month = month or f"{datetime.now(UTC):%Y-%m}"
    if not re.fullmatch(r"[0-9]{4}-(0[1-9]|1[0-2])", month):
        raise click.BadParameter("must look like 2026-11", param_hint="--month")

    async def work(store: Store) -> int:
        accounts = Accounts(store.execute)
        with Progress(transient=True, console=Console(stderr=True)) as progress:
            task = progress.add_task("Reading users", total=await accounts.count())

            async def all_users() -> AsyncIterator[str]:
                after: int | None = 0
                while after is not None:
                    users, after = await accounts.page(after=after, size=500)
                    for user in users:
                        yield user.id
                        progress.advance(task)

            return await Derived(store.execute, store.post).rebuild(month, all_users(), Counters(store.execute))

    click.echo(f"The top lists of {month} are rebuilt from {with_store(work)} users.")


usage.add_command(reconcile)


def _reports(store: Store) -> Reports:
    accounts, derived = Accounts(store.execute), Derived(store.execute, store.post)
    return Reports(accounts, Counters(store.execute), derived)


async def _all_usage(store: Store, days: Days, user: str | None, action: str | None) -> list[UsageRow]:
    uid = (await Accounts(store.execute).lookup(user)).id if user else ""
    await Audit(store.execute).record("usage.read", by=CLI, subject=uid, report="users")
    reports = _reports(store)
    return await every(lambda after: reports.daily(days, user=uid or None, action=action, after=after, size=500), 0)


def _cells(row: UsageRow) -> tuple[str, ...]:
    counts = (row.ok, sum(row.denied.values()), sum(row.refused.values()), row.failed)
    return row.date, row.username, row.action, *map(str, counts)
