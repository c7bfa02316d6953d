"""`gateway usage reconcile`: corrects past minutes by what 100ms's sessions API says."""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import date, timedelta

import click
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from gateway.audit import CLI, Audit
from gateway.cli.connection import with_store
from gateway.cli.terminal import CSV, DAY, JSON, print_csv, print_json, print_table, progress, say, table_of
from gateway.hms.client import HmsClient, connect
from gateway.hms.errors import HmsBusy
from gateway.hms.replies import HmsSession
from gateway.hms.tokens import HmsTokens
from gateway.metering.accrual import MOST_STAY_MS
from gateway.metering.events import MOST_AGE_MS
from gateway.metering.reconcile import Finding, Reconciliation
from gateway.metering.stays import Stays
from gateway.metering.sweep import EVERY_S
from gateway.policy.effective import policy_of
from gateway.policy.live import PolicyInForce
from gateway.redis.topology import AnyStore
from gateway.settings import Settings, load_env
from gateway.usage.query import Days, today_in
from limits.derived import Derived
from limits.metered import MS_PER_DAY
from limits.periods import day_span

_MOST_DAYS = MOST_AGE_MS // MS_PER_DAY
_MOST_ROWS = 50


@click.command("reconcile", epilog="Example: gateway usage reconcile --from 2026-11-01 --to 2026-11-05")
@click.option("--from", "first", type=DAY, metavar="DAY", required=True, help="First day, at most 35 days ago.")
@click.option("--to", "last", type=DAY, metavar="DAY", help="Last day.  [default: today]")
@CSV
@JSON
def reconcile(first: date, last: date | None, as_csv: bool, as_json: bool) -> None:
    """Correct past minutes by what 100ms says of its sessions.

    Asks 100ms for the sessions of these days, and corrects the minutes that webhooks reported wrong or not at all. It
    may be repeated: only what differs is changed. It makes 30 calls a minute, each for 100 sessions.
    """
    settings = Settings.from_env(load_env())
    policy = PolicyInForce(policy_of(settings))
    days = _days(first, last, today_in(policy.zone()))
    with progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()) as shown:
        task = shown.add_task("Reading sessions")
        findings = _with_reconciliation(settings, policy, days, lambda text: shown.update(task, description=text))
    _print(findings, days, as_json=as_json, as_csv=as_csv)


def _days(first: date, last: date | None, today: date) -> Days:
    last = min(last or today, today)
    if first < today - timedelta(days=_MOST_DAYS):
        raise click.BadParameter(f"must be at most {_MOST_DAYS} days ago", param_hint="--from")
    if first > last:
        raise click.BadParameter("must not be after --to, or in the future", param_hint="--from")
    return first, last


def _with_reconciliation(
    settings: Settings, policy: PolicyInForce, days: Days, report: Callable[[str], None]
) -> list[Finding]:
    zone = policy.zone
    begin, end = (day_span(day, zone()) for day in days)
    # A stay on the first day may belong to a session that began up to twelve hours before.
    span_ms = begin.start_us // 1000 - MOST_STAY_MS, end.end_us // 1000 - 1

    async def work(store: AnyStore) -> list[Finding]:
        derived, audit = Derived(store.execute, store.post, zone=zone), Audit(store.execute)
        stays = Stays(store.execute, derived, zone=zone, calendars=lambda: policy.now.metered_calendars)
        reconciliation = Reconciliation(store.execute, stays, audit, store.now_ms)
        async with connect(settings.hms_api_url) as http:
            hms = HmsClient(http, HmsTokens(settings.hms_app_access_key, settings.hms_app_secret))
            findings = await _replay(hms, reconciliation, span_ms, report)
        derived.flush()
        totals = _totals(findings)
        span = {"first": days[0].isoformat(), "last": days[1].isoformat()}
        await audit.record("usage.reconciled", by=CLI, subject="", **span, **totals)
        return findings

    return with_store(work)


async def _replay(
    hms: HmsClient, reconciliation: Reconciliation, span_ms: tuple[int, int], report: Callable[[str], None]
) -> list[Finding]:
    findings: dict[str, Finding] = {}
    for active in (True, False):  # in this order: a session that ends meanwhile is then in both lists, not in none
        start, more = "", True
        while more:
            page, start = await _page(hms, active, span_ms, start, report)
            for session in page:
                findings[session.id] = await reconciliation.apply(session, by=CLI)
                report(f"{len(findings)} sessions compared")
            if more := bool(start):
                await asyncio.sleep(EVERY_S)
    return list(findings.values())


async def _page(
    hms: HmsClient, active: bool, span_ms: tuple[int, int], start: str, report: Callable[[str], None]
) -> tuple[list[HmsSession], str]:
    while True:
        try:
            return await hms.list_sessions(active=active, after_ms=span_ms[0], before_ms=span_ms[1], start=start)
        except HmsBusy as error:
            report(f"100ms asks to wait {error.retry_after_s} s")
            await asyncio.sleep(error.retry_after_s)


def _totals(findings: list[Finding]) -> dict[str, int]:
    states = Counter(one.state for one in findings)
    return {
        "sessions": len(findings),
        "running": states["running"],
        "stays": sum(one.stays for one in findings),
        "corrected": sum(one.corrected for one in findings),
        "seconds": sum(one.seconds for one in findings),
    }


def _print(findings: list[Finding], days: tuple[date, date], *, as_json: bool, as_csv: bool = False) -> None:
    changed = sorted((one for one in findings if one.corrected), key=lambda one: -abs(one.seconds))
    totals = _totals(findings)
    if as_json:
        print_json(totals | {"changed": changed})
        return
    if as_csv:
        all_rows = (
            (one.room_id, one.session_id, *map(str, (one.stays, one.corrected, one.seconds))) for one in changed
        )
        print_csv(table_of(("Room id", "Session id", "Stays", "Corrected", "Seconds"), all_rows))
        return
    summary = f"Compared {days[0]} to {days[1]}: sessions {totals['sessions']} ({totals['running']} running), "
    summary += f"stays {totals['stays']}. "
    if not changed:
        say(f"{summary}Nothing had to be corrected.")
        return
    # These fit in 80 columns; CSV and JSON have the rest.
    columns = [Column(name, no_wrap=True) for name in ("Room", "Session")]
    columns += [Column(name, no_wrap=True, justify="right") for name in ("Corrected", "Minutes")]
    rows = (
        (one.room_id, one.session_id, f"{one.corrected}/{one.stays}", f"{one.seconds / 60:+.2f}")
        for one in changed[:_MOST_ROWS]
    )
    hidden = len(changed) - _MOST_ROWS
    notes = [f"and {hidden} more sessions; --csv and --json list all of them"] if hidden > 0 else []
    print_table(table_of(columns, rows, title="Corrected sessions"), *notes)
    say(f"{summary}Corrected: stays {totals['corrected']}, minutes {totals['seconds'] / 60:+.2f}.")
