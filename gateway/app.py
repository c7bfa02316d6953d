"""The composition root: the only place where the parts are constructed and connected."""

import gateway.redis  # noqa: F401  first, because it decides what redis-py imports

# isort: split
import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import cache

import httpx
import msgspec
from litestar import Litestar
from litestar.di import Provide
from litestar.types import ASGIApp, Scope
from redis.exceptions import RedisError

from auth.accounts import Accounts
from auth.federation import Federation
from auth.identities import Identities
from auth.keys import KeyRing
from auth.passwords import Passwords
from auth.service_keys import ServiceKeys
from auth.sessions import Sessions
from auth.tokens import LoginTokens
from auth.vouchers import Vouchers
from gateway import logs
from gateway.accounts.admin import UserAdmin
from gateway.accounts.exchange import Exchange
from gateway.accounts.limits import UserLimits
from gateway.accounts.logins import Logins
from gateway.accounts.password_change import PasswordChange
from gateway.accounts.registration import Registration
from gateway.accounts.service_keys import KeyAdmin
from gateway.apidoc.openapi import describe
from gateway.audit import Audit
from gateway.fetch import Fetcher
from gateway.hms import client as hms_client
from gateway.hms.client import HmsClient
from gateway.hms.tokens import HmsTokens
from gateway.http.acting import Acting
from gateway.http.admission import Admission
from gateway.http.callers import Callers
from gateway.http.client_address import ClientAddresses
from gateway.http.cookies import RefreshCookies
from gateway.http.cors import Cors
from gateway.http.cursors import Cursors
from gateway.http.dispatch import SERVICES, Dispatch
from gateway.http.edge import Edge
from gateway.http.listeners import OperatorListener
from gateway.http.login_throttle import Throttle
from gateway.http.outcomes import Outcomes
from gateway.http.problems import problem_response
from gateway.metering.budgets import Budgets
from gateway.metering.consumer import Consumer
from gateway.metering.intake import PATH as WEBHOOKS
from gateway.metering.intake import Intake, SecretCheck
from gateway.metering.leader import Chore
from gateway.metering.stays import Stays
from gateway.metering.webhooks import Webhooks
from gateway.metrics.monitor import Monitor, Workload
from gateway.metrics.readings import Reader
from gateway.metrics.slots import claim
from gateway.metrics.tally import Tally
from gateway.outgoing.control import Outgoing
from gateway.outgoing.deliveries import Deliveries
from gateway.outgoing.messages import Announcer
from gateway.outgoing.outbox import Outbox
from gateway.outgoing.sender import Sender
from gateway.overview.forecast import Forecasts
from gateway.overview.heartbeat import Heartbeat, Vitals
from gateway.overview.live import Live
from gateway.overview.presence import Presence
from gateway.overview.totals import Totals
from gateway.policy.effective import policy_of
from gateway.policy.live import PolicyInForce, PolicyReload
from gateway.policy.templates import TemplateWatch
from gateway.redis.store import REPORT_DEADLINE_S, StoreError
from gateway.redis.topology import AnyStore, AnyWrites, Topology, connect, open_store, open_writes
from gateway.rooms.change import RoomControl
from gateway.rooms.create import RoomCreation
from gateway.rooms.guest_accounts import GuestBook
from gateway.rooms.idempotency import Idempotency
from gateway.rooms.invites import RoomInvites
from gateway.rooms.membership import Membership
from gateway.rooms.registry import Rooms
from gateway.rooms.relations import Members
from gateway.routes import description
from gateway.routes.home import home
from gateway.routes.services import Services
from gateway.routes.table import CONSOLE, DOCS, MONITORING, ROUTES
from gateway.settings import Settings
from gateway.traces import recorder as traces
from gateway.upkeep import leader_of
from gateway.usage.archive import Archive
from gateway.usage.feed import Feed
from gateway.usage.history import History
from gateway.usage.reports import Reports
from gateway.usage.rollup import RollUp
from gateway.usage.subjects import Subjects
from gateway.usage.tops import TopLists
from limits.counters import Counters
from limits.derived import Derived
from limits.limiter import Limiter
from limits.overrides import Overrides

log = logging.getLogger("gateway")


def from_env() -> ASGIApp:
    """Make the app from the environment; uvicorn calls this in each worker."""
    settings = Settings.from_env()
    logs.configure(settings.log_format)
    app = create_app(settings, redis=connect(settings.redis_url), http=hms_client.connect(settings.hms_api_url))
    # Modules and routes live as long as the process, so no collection looks at their 100,000 objects again. One every
    # 10,000 new objects instead of 700 takes 0.1 % of the CPU of requests instead of 3.6 %, and 0.2 MiB.
    gc.freeze()
    gc.set_threshold(10_000)
    gc.enable()
    return app


def create_app(settings: Settings, *, redis: Topology, http: httpx.AsyncClient) -> ASGIApp:
    """Join the parts into one ASGI app, which owns and closes `redis` and `http` from here on. Raises: PolicyError"""
    reload = PolicyReload(settings)
    policy = PolicyInForce(policy_of(settings))
    addresses = ClientAddresses(settings.trusted_proxies, settings.address_header)
    recorder = traces.start(settings, addresses.trusts)
    on_send = recorder.sent if recorder else None
    # Reports read a lot at once; on a separate connection they never delay a decision.
    store = open_store(redis, deadline_s=settings.redis_timeout_ms / 1000, on_send=on_send)
    reports = open_store(redis, deadline_s=REPORT_DEADLINE_S, on_send=on_send)
    passwords = Passwords(
        workers=settings.workers, memory_kib=settings.argon2_memory_kib, passes=settings.argon2_passes
    )
    durable, fetcher = open_writes(redis, on_send=recorder.written if recorder else None), Fetcher()
    accounts = Accounts(store.execute, passwords, settings.password_policy, write=durable.execute)
    service_keys = ServiceKeys(store.execute, write=durable.execute, post=store.post)
    refresh_keys = KeyRing(settings.gateway_secrets, "refresh")
    sessions = Sessions(store.execute, refresh_keys)
    tokens = LoginTokens(KeyRing(settings.gateway_secrets, "login-token"), settings.token_keys)
    tally = Tally() if settings.metrics_token else None
    limiter = Limiter(store.execute, zone=policy.zone, on_decision=tally.decided if tally else None)
    counters = Counters(store.execute)
    hms_tokens = HmsTokens(settings.hms_app_access_key, settings.hms_app_secret)
    templates = TemplateWatch(policy)
    hms = HmsClient(http, hms_tokens, on_roles=templates.seen, on_call=[one.called for one in (tally, recorder) if one])
    derived = Derived(reports.execute, store.post, zone=policy.zone)
    overrides = Overrides(store.execute, limiter)
    audit = Audit(store.execute, store.post, Announcer(policy))
    throttle = Throttle(store.execute, limiter, accounts, KeyRing(settings.gateway_secrets, "throttle"), policy, audit)
    registry, idempotency = Rooms(store.execute, hms, limiter, policy), Idempotency(store.execute)
    cors = Cors(settings.cors_origins, cookies=settings.cookies)
    room_members = Members(store.execute, hms, policy)
    links, invites = Vouchers(store.execute, "password"), Vouchers(store.execute, "account")
    room_invites = RoomInvites(store.execute, Vouchers(store.execute, "room"), registry, room_members, accounts, policy)
    guests = GuestBook(store.execute, accounts, sessions, registry, room_members, room_invites)
    report_accounts = Accounts(reports.execute, passwords)
    subjects = Subjects(report_accounts, ServiceKeys(reports.execute))
    secret = SecretCheck(settings.webhook_secrets, settings.webhook_header)
    intake = Intake(store.execute, store.post)
    federation = Federation(lambda: policy.now.identities, fetcher)
    identities = Identities(store.execute, accounts, sessions, write=durable.execute)
    logins = Logins(limiter, derived, sessions, audit)
    stays = Stays(reports.execute, derived, zone=policy.zone, calendars=lambda: policy.now.metered_calendars)
    archive = Archive(settings.archive_url) if settings.archive_url else None
    history = History(Counters(reports.execute), archive)
    webhooks = Webhooks(reports.execute, audit)
    report_budgets = Budgets(reports.execute, Limiter(reports.execute, zone=policy.zone), policy)
    outbox, sender = Outbox(reports.execute), Sender(settings.signing_keys)
    deliveries = Deliveries(outbox, sender, policy, reports.now_ms)
    to_others = Outgoing(outbox, sender, policy, audit)
    monitor = None
    if tally:
        reader = Reader(reports.execute, reports.each, webhooks, to_others, report_budgets, policy)
        workload = Workload((store, reports), hms, passwords)
        monitor = Monitor(settings.metrics_token, claim(workers=settings.workers), tally, reader, workload)
    totals, presence = Totals(reports.execute, history.daily), Presence(reports.execute)
    services = Services(
        store=store,
        report_store=reports,
        accounts=accounts,
        sessions=sessions,
        tokens=tokens,
        keys=service_keys,
        limiter=limiter,
        derived=derived,
        throttle=throttle,
        cookies=RefreshCookies(on=settings.cookies, own=settings.public_url, cors=cors),
        user_limits=UserLimits(accounts, service_keys, limiter, overrides, policy, audit),
        user_admin=UserAdmin(store.execute, accounts, sessions, policy, audit, links, identities),
        key_admin=KeyAdmin(service_keys, audit),
        password_change=PasswordChange(accounts, sessions, links, audit),
        registration=Registration(accounts, invites, policy, audit),
        logins=logins,
        exchange=Exchange(federation, identities, accounts, sessions, logins, audit, policy),
        audit=audit,
        report_audit=Audit(reports.execute),
        rooms=registry,
        creation=RoomCreation(registry, idempotency, policy, audit),
        control=RoomControl(registry, room_members, audit),
        members=room_members,
        membership=Membership(room_members, accounts, policy, audit),
        invites=room_invites,
        guests=guests,
        budgets=Budgets(store.execute, limiter, policy),
        hms=hms,
        hms_tokens=hms_tokens,
        policy=policy,
        cursors=Cursors(KeyRing(settings.gateway_secrets, "cursor")),
        report_accounts=report_accounts,
        subjects=subjects,
        reports=Reports(reports.execute, subjects, history, derived, zone=policy.zone),
        totals=totals,
        forecasts=Forecasts(report_budgets, derived, policy),
        presence=presence,
        live=Live(totals, presence, webhooks, tokens, Sessions(reports.execute, refresh_keys), policy),
        secret_check=secret,
        intake=intake,
        webhooks=webhooks,
        outgoing=to_others,
        feed=Feed(reports.execute),
        feed_source=settings.public_url or "hms-gateway",
        monitor=monitor,
        openapi_document=cache(lambda: msgspec.json.encode(describe(ROUTES))),
    )

    tops = TopLists(derived, zone=policy.zone)
    others = [Chore("expired guests", guests.remove_expired), Chore("deliveries", deliveries.work)]
    others.append(Chore("top lists", tops.work))
    if archive is not None:
        roll_up = RollUp(reports.execute, subjects, archive, zone=policy.zone)
        others.append(Chore("archive", roll_up.work))

    def apply_policy() -> None:
        templates.look(hms)
        federation.prepare()

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        apply_policy()
        await _warm((store, reports), durable, passwords)
        chores = [
            asyncio.create_task(reload.follow(policy, changed=apply_policy)),
            asyncio.create_task(leader_of(reports, stays, hms, policy, registry, *others).run()),
        ]
        heartbeat = Heartbeat(
            reports.execute, reports.now_ms, lambda: Vitals(store.state, hms.state, hms.answered_ms, hms.failed_ms)
        )
        chores.append(asyncio.create_task(heartbeat.run()))
        if secret.is_set:
            chores.append(asyncio.create_task(Consumer(reports.execute, stays, intake.wake).run()))
        if monitor is not None:
            chores.append(asyncio.create_task(monitor.run()))
        try:
            yield
        finally:
            for chore in chores:
                chore.cancel()
            await asyncio.gather(*chores, return_exceptions=True)
            for part in (services.live, federation, fetcher, deliveries, hms, *((recorder,) if recorder else ())):
                await part.close()
            await http.aclose()
            derived.flush()
            with suppress(StoreError, RedisError):
                await store.each("PING")  # everything posted before it has arrived
            await store.close()
            await reports.close()
            if archive is not None:
                await archive.close()
            passwords.close()

    dispatch = Dispatch(services)
    outcomes = Outcomes(limiter, derived, audit)
    admission = Admission(
        Callers(tokens, service_keys, accounts, throttle, audit),
        sessions,
        limiter,
        Acting(limiter, outcomes, policy),
        counters,
        registry,
        policy,
        throttle,
        outcomes,
        idempotency,
        secret,
        dispatch,
    )
    page = home(docs=settings.docs, console=settings.operator_bind is None)
    routes = [page, *ROUTES, *CONSOLE, *(DOCS if settings.docs else ()), *(MONITORING if monitor else ())]
    app = Litestar(
        # First, or Litestar adds OPTIONS handlers of its own, which have no `opt` and name only some of the methods.
        [description.options(routes), *routes],
        dependencies={SERVICES: Provide(lambda: services, sync_to_thread=False)},
        middleware=[admission],
        exception_handlers={Exception: problem_response},
        lifespan=[lifespan],
        openapi_config=None,
        logging_config=None,
        debug=False,
    )

    def is_exempt(scope: Scope) -> bool:
        """Spare 100ms, which sends from few addresses as many events as there are peers, and Prometheus."""
        if scope["path"] == WEBHOOKS:
            return secret.accepts(scope["headers"])
        return monitor is not None and monitor.spares(scope["path"], scope["headers"])

    return Edge(
        app,
        addresses=addresses,
        flood=lambda: policy.now.anonymous.flood,
        cors=cors,
        https=settings.public_url.startswith("https://"),
        is_exempt=is_exempt,
        hides=OperatorListener(settings.operator_bind[1]).hides if settings.operator_bind else None,
        on_request=recorder.begin if recorder else None,
        on_response=[one.responded for one in (tally, recorder) if one],
    )


async def _warm(stores: tuple[AnyStore, ...], durable: AnyWrites, passwords: Passwords) -> None:
    """Prepare what would make the first request slower than the others. A failure here does not stop the start."""
    await passwords.warm()
    try:
        for store in stores:
            await store.execute("PING")
            await store.each("PING")
        await durable.check()
    except (StoreError, RedisError):
        log.warning("Redis does not answer yet; every request is answered 503 until it does")
