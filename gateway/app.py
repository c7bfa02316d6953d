"""The composition root: the only place where the parts are made and joined."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
from litestar import Litestar
from litestar.config.cors import CORSConfig
from litestar.datastructures import State
from litestar.di import Provide
from litestar.types import ASGIApp
from redis.asyncio import Redis
from redis.exceptions import RedisError

from auth.accounts import Accounts
from auth.keys import KeyRing
from auth.passwords import Passwords
from auth.sessions import Sessions
from auth.tokens import LoginTokens
from gateway import logs
from gateway.addresses import ClientAddresses
from gateway.admission import EXPOSED_HEADERS, Admission, authorize
from gateway.audit import Audit
from gateway.cursors import Cursors
from gateway.edge import Edge
from gateway.hms.client import CONNECT_TIMEOUT_S, MOST_IN_FLIGHT, TOTAL_TIMEOUT_S, HmsClient
from gateway.hms.tokens import HmsTokens
from gateway.policy import Policy
from gateway.policy_file import PolicyError, load_policy
from gateway.problems import problem_response
from gateway.rooms import Rooms
from gateway.routes import health, login, rooms, usage
from gateway.routes import limits as limits_routes
from gateway.settings import Settings
from gateway.store import REPORT_DEADLINE_S, Store, StoreError, connect
from gateway.throttle import Throttle
from gateway.user_limits import UserLimits
from limits.counters import Counters
from limits.derived import Derived
from limits.limiter import Limiter
from limits.overrides import Overrides

log = logging.getLogger("gateway")

ROUTES: list[Any] = [
    health.live,
    health.ready,
    login.login,
    login.refresh,
    login.logout,
    login.me,
    rooms.create_room,
    rooms.list_rooms,
    rooms.read_room,
    rooms.mint_token,
    usage.own_usage,
    usage.admin_usage,
    usage.top_usage,
    usage.room_usage,
    limits_routes.show_limits,
    limits_routes.reset_limits,
    limits_routes.set_override,
    limits_routes.lift_override,
]


def from_env() -> ASGIApp:
    """Make the app from the environment; what uvicorn calls in each worker."""
    settings = Settings.from_env()
    logs.configure(settings.log_format)
    http = httpx.AsyncClient(
        base_url=settings.hms_api_url,
        timeout=httpx.Timeout(TOTAL_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
        limits=httpx.Limits(max_connections=MOST_IN_FLIGHT, max_keepalive_connections=MOST_IN_FLIGHT),
        follow_redirects=False,
        trust_env=False,  # a proxy variable of the machine must not get to see management tokens
    )
    return create_app(settings, redis=connect(settings.redis_url), http=http)


def create_app(settings: Settings, *, redis: Redis, http: httpx.AsyncClient) -> ASGIApp:
    """Join the parts into one ASGI app. It owns `redis` and `http` from here on and closes them.

    Raises:
        PolicyError: the policy file is wrong.
    """
    policy = load_policy(settings.policy_path)
    template_ids = _template_ids(policy, settings)
    # Reports read much at once; on a connection of their own they never delay a decision.
    store, reports = Store(redis), Store(redis, deadline_s=REPORT_DEADLINE_S)
    passwords = Passwords(workers=settings.workers)
    accounts = Accounts(store.execute, passwords)
    sessions = Sessions(store.execute, KeyRing(settings.gateway_secrets, "refresh"))
    tokens = LoginTokens(KeyRing(settings.gateway_secrets, "login-token"))
    limiter = Limiter(store.execute, unavailable=(StoreError,))
    counters = Counters(store.execute)
    hms_tokens = HmsTokens(settings.hms_app_access_key, settings.hms_app_secret)
    hms = HmsClient(http, hms_tokens)
    derived = Derived(reports.execute, store.post)
    overrides = Overrides(store.execute, limiter)
    throttle = Throttle(store.execute, limiter, KeyRing(settings.gateway_secrets, "throttle"), policy.anonymous)
    registry = Rooms(store.execute, hms, policy, template_ids)
    parts: Mapping[str, object] = {
        "store": store,
        "accounts": accounts,
        "sessions": sessions,
        "tokens": tokens,
        "limiter": limiter,
        "throttle": throttle,
        "derived": derived,
        "user_limits": UserLimits(accounts, limiter, overrides, policy, Audit(store.execute)),
        "rooms": registry,
        "hms": hms,
        "hms_tokens": hms_tokens,
        "policy": policy,
        "template_ids": template_ids,
        "cursors": Cursors(KeyRing(settings.gateway_secrets, "cursor")),
        "report_accounts": Accounts(reports.execute, passwords),
        "report_counters": Counters(reports.execute),
    }

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        await _warm((store, reports), passwords, hms, template_ids)
        try:
            yield
        finally:
            await hms.close()
            await http.aclose()
            await store.close()
            await reports.close()
            passwords.close()

    app = Litestar(
        ROUTES,
        dependencies={name: _provide(part) for name, part in parts.items()},
        middleware=[Admission(tokens, sessions, limiter, counters, registry, policy, throttle, derived)],
        guards=[authorize],
        exception_handlers={Exception: problem_response},
        cors_config=_cors(settings.cors_origins),
        lifespan=[lifespan],
        state=State({"policy": policy}),
        openapi_config=None,
        logging_config=None,
        debug=False,
    )
    return Edge(app, addresses=ClientAddresses(settings.trusted_proxies), flood=policy.anonymous.flood)


async def _warm(
    stores: tuple[Store, ...], passwords: Passwords, hms: HmsClient, template_ids: Mapping[str, str]
) -> None:
    """Do ahead what would make the first request slow, or tell its timing apart. Nothing here stops the start."""
    await passwords.warm()
    for template_id in template_ids.values():
        hms.template_roles(template_id)
    try:
        for store in stores:
            await store.execute("PING")
    except (StoreError, RedisError):
        log.warning("Redis does not answer yet; every request is answered 503 until it does")


def _template_ids(policy: Policy, settings: Settings) -> dict[str, str]:
    if policy.template_ids.get("default", settings.hms_template_id) != settings.hms_template_id:
        raise PolicyError(f"{policy.source}: templates.default.id: differs from HMS_TEMPLATE_ID")
    return {**policy.template_ids, "default": settings.hms_template_id}


def _provide(part: object) -> Provide:
    return Provide(lambda: part, sync_to_thread=False)


def _cors(origins: tuple[str, ...]) -> CORSConfig | None:
    """Return CORS for the listed origins; a port written `*` stands for digits, not for the rest of a host name."""
    if not origins:
        return None
    patterns = [re.escape(origin).replace(r"\*", "[0-9]{1,5}") for origin in origins if origin != "*"]
    return CORSConfig(
        allow_origins=["*"] if "*" in origins else [],
        allow_origin_regex="|".join(patterns) or None,
        allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=["authorization", "content-type", "idempotency-key"],
        expose_headers=EXPOSED_HEADERS,
    )
