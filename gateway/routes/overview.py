"""/api/admin/overview, live, status, budgets, denials: what the whole installation does, for the operator's page."""

import time
from collections import Counter
from datetime import date, datetime
from typing import Annotated

import msgspec
from litestar import get
from litestar.params import QueryParameter
from msgspec import Meta

from auth.users import User
from gateway import __version__
from gateway.http.access import needs
from gateway.http.callers import bearer_of
from gateway.http.context import Call
from gateway.http.dispatch import EventStream
from gateway.metering.webhooks import WebhookState
from gateway.overview.forecast import Forecast
from gateway.overview.heartbeat import Worker
from gateway.overview.points import Point, Sums
from gateway.overview.status import HmsState, status_of
from gateway.overview.totals import Range, total_of
from gateway.routes.schemas import Day, Instant, TimeZone, iso
from gateway.routes.services import Injected
from gateway.usage.query import span_of_days, today_in
from gateway.usage.rows import minutes_of
from limits.periods import zone_of

_From = Annotated[date | None, QueryParameter(name="from", description="First day; by default 29 days before `to`.")]
_To = Annotated[date | None, QueryParameter(description="Last day; by default today in the time zone of the policy.")]
_Limit = Annotated[str, Meta(description="Name of the limit or quota.")]
_Action = Annotated[str, Meta(description="What was denied, e.g. `tokens.mint`; other requests are `api`.")]
_Count = Annotated[int, Meta(description="Denied requests.")]


class Overview(msgspec.Struct):
    range: Annotated[Range, Meta(description="As asked for.")]
    step_s: Annotated[
        int | None, Meta(description="Seconds in a step, 86,400 if it is a day; null: a step is a month.")
    ]
    time_zone: Annotated[str, Meta(description="Time zone of days and months; steps of minutes are in UTC.")]
    currency: Annotated[str | None, Meta(description="Currency of `money`; null if the policy has no prices.")]
    points: Annotated[list[Point], Meta(description="One per step, the oldest first; also those without any use.")]
    totals: Annotated[Sums, Meta(description="Sums of all points.")]
    people_now: Annotated[int, Meta(description="How many people are in rooms; a second device counts again.")]
    rooms_now: Annotated[int, Meta(description="How many rooms anybody is in.")]


class WorkerNow(msgspec.Struct):
    """A worker process that has said in the last 15 s that it is alive."""

    host: Annotated[str, Meta(description="Name of its machine or container.")]
    pid: Annotated[int, Meta(description="Its process id there.")]
    version: Annotated[str, Meta(description="Version of the gateway.")]
    started_at: Annotated[Instant, Meta(description="When it started.")]
    seen_at: Annotated[Instant, Meta(description="When it last said so; every 5 s.")]
    lag_ms: Annotated[int, Meta(description="How late its event loop was at most in 5 s; requests wait as long.")]
    redis: Annotated[
        str, Meta(description="Its connection to Redis: `closed` works, `open` fails at once, or `half-open`.")
    ]
    upstream: Annotated[str, Meta(description="Its connection to 100ms, in the same words.")]
    leads: Annotated[bool | None, Meta(description="Whether it performs the chores of metering; null: not known.")]


class RedisNow(msgspec.Struct):
    server: Annotated[str, Meta(description="`Redis` or `Valkey`.")]
    version: Annotated[str, Meta(description="Its version; empty if it does not say.")]
    answered_in_ms: Annotated[float, Meta(description="How long a round trip to it just took.")]
    memory_bytes: Annotated[int, Meta(description="Memory that it uses; of a cluster, that of all masters.")]
    most_memory_bytes: Annotated[int | None, Meta(description="Memory that it may use; null without a limit.")]
    aof: Annotated[bool | None, Meta(description="Whether it has an append-only file; null if it does not say.")]
    aof_ok: Annotated[bool | None, Meta(description="Whether its last write succeeded; null if it does not say.")]
    silent: Annotated[list[str], Meta(description="Masters of a cluster that do not answer, as `host:port`.")]


class UpstreamNow(msgspec.Struct):
    state: Annotated[str, Meta(description="The worst that a worker has: `closed` works, `half-open`, `open` fails.")]
    last_answer_at: Annotated[Instant | None, Meta(description="When 100ms last answered a worker; null: never.")]
    last_failure_at: Annotated[Instant | None, Meta(description="When it last did not, or with 5xx; null: never.")]


class WebhooksNow(msgspec.Struct):
    enabled: Annotated[bool, Meta(description="Whether webhooks of 100ms are taken.")]
    last_at: Annotated[Instant | None, Meta(description="When the last event came; null: never.")]
    lag_ms: Annotated[int, Meta(description="How long the last events waited at most.")]
    waiting: Annotated[int, Meta(description="Events that are stored and not processed yet.")]
    dead_letters: Annotated[int, Meta(description="Events that could not be understood and are kept.")]


class Status(msgspec.Struct):
    version: Annotated[str, Meta(description="Version of the worker that answers.")]
    workers: Annotated[
        list[WorkerNow] | None, Meta(description="Of all machines; the one that started first first; null: not known.")
    ]
    redis: Annotated[RedisNow, Meta(description="Redis.")]
    upstream: Annotated[
        UpstreamNow | None, Meta(description="100ms, as the last calls of all workers went; null: not known.")
    ]
    webhooks: Annotated[WebhooksNow | None, Meta(description="Webhooks of 100ms; null: not known.")]


class BudgetNow(msgspec.Struct):
    """A budget of minutes: what is used of it, and what will be at the end of its period."""

    scope: Annotated[str, Meta(description="Whose minutes: a `user`'s own, all in the rooms of an `owner`, or `all`.")]
    user_id: Annotated[str, Meta(description="Id of the user or owner; empty if `scope` is `all`.")]
    username: Annotated[str, Meta(description="Name of the user; empty if the account was deleted.")]
    name: Annotated[str, Meta(description="Name of the budget in the policy.")]
    unit: Annotated[str, Meta(description="What `amount`, `used` and `forecast` count; always `minutes`.")]
    amount: Annotated[int, Meta(description="Units per period.")]
    used: Annotated[float, Meta(description="Units used so far, to two decimals.")]
    used_percent: Annotated[float, Meta(description="The same as a percentage of `amount`, to one decimal.")]
    forecast: Annotated[float, Meta(description="Units used at the end, if it goes on as since the period began.")]
    runs_out_at: Annotated[Instant | None, Meta(description="When it will then be spent; null: not in this period.")]
    period: Annotated[str, Meta(description="`day`, `week` or `month`.")]
    time_zone: Annotated[str, Meta(description="Time zone in which periods begin and end.")]
    ends_at: Annotated[Instant, Meta(description="When the period ends.")]
    on_exhausted: Annotated[str, Meta(description="`refuse`: no join tokens any more; `end`: rooms end, too.")]
    shadow: Annotated[bool, Meta(description="True: it is counted but denies nothing yet.")]


class BudgetsNow(msgspec.Struct):
    items: Annotated[
        list[BudgetNow], Meta(description="Those of the installation, then those with the largest share used.")
    ]


class DayDenials(msgspec.Struct):
    """How often a limit denied an action on a day."""

    date: Day
    limit: _Limit
    action: _Action
    count: _Count


class LimitDenials(msgspec.Struct):
    limit: _Limit
    count: _Count


class ActionDenials(msgspec.Struct):
    action: _Action
    count: _Count


class Denials(msgspec.Struct, rename={"from_": "from"}):
    from_: Annotated[str, Meta(description="First day of the report.")]
    to: Annotated[str, Meta(description="Last day of the report.")]
    time_zone: TimeZone
    total: _Count
    limits: Annotated[list[LimitDenials], Meta(description="By limit, the most first.")]
    actions: Annotated[list[ActionDenials], Meta(description="By action, the most first.")]
    items: Annotated[list[DayDenials], Meta(description="By day, then by action and limit; only days with denials.")]


@get("/api/admin/overview", opt=needs("usage.read-any"))
async def overview(
    services: Injected,
    range_: Annotated[
        Range | None,
        QueryParameter(
            name="range",
            description="How far back, in steps of a minute, of five minutes, of days or of months; by default `24h`.",
        ),
    ] = None,
) -> Overview:
    """Return requests by outcome and time in rooms of the whole installation over time, and who is online now."""
    wanted, prices = range_ or "24h", services.policy.now.prices
    zone = services.policy.zone()
    series = await services.totals.series(wanted, datetime.now(zone_of(zone)))
    people, rooms = await services.presence.now()
    points = [Point.of_step(step, prices) for step in series.points]
    totals = Sums.of(total_of(series.points), prices)
    currency = prices.currency if prices else None
    return Overview(wanted, series.step_s, zone, currency, points, totals, people, rooms)


@get("/api/admin/live", opt=needs("usage.read-any", refuses=("busy",)), media_type="text/event-stream")
async def live(request: Call, services: Injected) -> EventStream:
    """Send events (`text/event-stream`) while things change: `overview`, at most every two seconds.

    Their data is JSON: `people_now`, `rooms_now`, `points` (the minute before and this one, as in the overview),
    `webhooks_waiting`, `webhook_lag_ms`, `dead_letters`. A comment every 15 s shows that the connection is alive. The
    event `end` tells its `reason` in the end: `token_expired`, `session_ended`, `forbidden` or `unavailable`. A process
    has at most 50 streams, and 10 of one user.
    """
    return EventStream(services.live.follow(request.user, bearer_of(request.scope)))


@get("/api/admin/status", opt=needs("usage.read-any"))
async def status(services: Injected) -> Status:
    """Return the health of the installation: workers, Redis, 100ms and its webhooks.

    While a master of a cluster is lost, `redis.silent` names it, and what it has is not known.
    """
    store = services.report_store
    found = await status_of(store.execute, store.now_ms, store.each, services.webhooks)
    return Status(
        __version__,
        None if found.workers is None else [_worker(one, found.leader) for one in found.workers],
        RedisNow(
            found.redis.server,
            found.redis.version,
            round(found.redis.answered_ms, 2),
            found.redis.memory,
            found.redis.most_memory or None,
            found.redis.has_aof,
            found.redis.writes_aof,
            found.redis.silent,
        ),
        None if found.hms is None else _upstream(found.hms),
        None if found.webhooks is None else _webhooks(found.webhooks, enabled=services.secret_check.is_set),
    )


@get("/api/admin/budgets", opt=needs("usage.read-any"))
async def budgets(
    request: Call,
    services: Injected,
    limit: Annotated[int, QueryParameter(ge=1, le=200, description="How many budgets to return at most.")] = 20,
) -> BudgetsNow:
    """Return the budgets of minutes that are nearest to their end, with a forecast; empty if the policy has none.

    Of users and owners, the 200 with the most minutes in a period are looked at.
    """
    found = await services.forecasts.nearest(limit, time.time_ns() // 1000)
    users = await services.report_accounts.several([one.subject for one in found if one.scope != "all"])
    services.audit.note_reading("budgets", by=request.user.uid)
    ending = services.policy.now.ending
    return BudgetsNow([_budget(one, users.get(one.subject), ends=one.state.name in ending) for one in found])


@get("/api/admin/denials", opt=needs("usage.read-any"))
async def denials(services: Injected, from_: _From = None, to: _To = None) -> Denials:
    """Return how many requests of all users were denied, by limit, action and day."""
    first, last = span_of_days(from_, to, today_in(services.policy.zone()))
    zones = await services.reports.zones_of((first, last))
    found = await services.totals.denials((first, last))
    limits, actions = Counter[str](), Counter[str]()
    for one in found:
        limits[one.limit] += one.count
        actions[one.action] += one.count
    return Denials(
        first.isoformat(),
        last.isoformat(),
        zones.text,
        limits.total(),
        [LimitDenials(*pair) for pair in limits.most_common()],
        [ActionDenials(*pair) for pair in actions.most_common()],
        [DayDenials(one.day.isoformat(), one.limit, one.action, one.count) for one in found],
    )


def _worker(one: Worker, leader: str | None) -> WorkerNow:
    started_at, seen_at = iso(one.started_ms / 1000), iso(one.at_ms / 1000)
    states = one.vitals.redis, one.vitals.hms
    leads = None if leader is None else leader == f"{one.host}:{one.pid}"
    return WorkerNow(one.host, one.pid, one.version, started_at, seen_at, one.lag_ms, *states, leads)


def _upstream(hms: HmsState) -> UpstreamNow:
    return UpstreamNow(hms.state, _instant(hms.answered_ms), _instant(hms.failed_ms))


def _webhooks(state: WebhookState, *, enabled: bool) -> WebhooksNow:
    return WebhooksNow(enabled, _instant(state.last_ms), state.lag_ms, state.waiting, state.dead_letters)


def _budget(one: Forecast, user: User | None, *, ends: bool) -> BudgetNow:
    state, quota = one.state, one.state.quota
    return BudgetNow(
        scope=one.scope,
        user_id="" if one.scope == "all" else one.subject,
        username=user.username if user else "",
        name=state.name,
        unit="minutes",
        amount=state.amount,
        used=minutes_of(state.counted),
        used_percent=round(one.share * 100, 1),
        forecast=minutes_of(one.expected_s),
        runs_out_at=None if one.runs_out_us is None else iso(one.runs_out_us / 1_000_000),
        period=quota.period,
        time_zone=quota.zone,
        ends_at=iso(state.ends_us / 1_000_000),
        on_exhausted="end" if ends else "refuse",
        shadow=quota.shadow,
    )


def _instant(at_ms: int | None) -> str | None:
    return None if at_ms is None else iso(at_ms / 1000)
