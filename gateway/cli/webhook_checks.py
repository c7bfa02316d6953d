"""Checks whether events of 100ms arrive and are counted, and whether the gateway's own reach their endpoints."""

import time
from urllib.parse import urlsplit

from redis.exceptions import RedisError

from gateway.audit import Audit
from gateway.cli.checks import GENERATE, Finding
from gateway.metering.intake import PATH
from gateway.metering.webhooks import Webhooks
from gateway.outgoing.control import EndpointState, Outgoing
from gateway.outgoing.outbox import Outbox
from gateway.outgoing.sender import Sender
from gateway.policy.live import PolicyInForce
from gateway.policy.model import Policy
from gateway.redis.store import StoreError
from gateway.redis.topology import AnyStore
from gateway.settings import Settings

_MOST_LAG_MS = 5000  # an event is counted within half a second
_MOST_WAITING = 1000


def judge_webhooks(settings: Settings | None) -> Finding:
    """Judge whether 100ms can send events, and say what to enter in its dashboard."""
    if settings is None:
        return Finding("webhooks", "WARN", "not checked: correct the settings first")
    if not settings.webhook_secrets:
        text = "HMS_WEBHOOK_SECRET is not set, so no minutes are counted; generate one, and run this again:  "
        return Finding("webhooks", "WARN", text + GENERATE)
    if urlsplit(settings.hms_api_url).scheme == "http":  # only the local 100ms
        return Finding("webhooks", "ok", "the gateway accepts events; a local 100ms needs no public address")
    header = f"{settings.webhook_header} with the value of HMS_WEBHOOK_SECRET"
    if urlsplit(settings.public_url).scheme != "https":
        text = "100ms needs an https:// address of the gateway: set GATEWAY_PUBLIC_URL, and enter it at 100ms with"
        return Finding("webhooks", "WARN", f"{text} {PATH} and the header {header}")
    return Finding("webhooks", "ok", f"at 100ms must be set: {settings.public_url}{PATH}, header {header}")


async def check_events(store: AnyStore) -> list[Finding]:
    """Check when the last event arrived, how long the last one waited, and whether some could not be counted."""
    try:
        state = await Webhooks(store.execute, Audit(store.execute)).state()
    except (StoreError, RedisError) as error:
        return [Finding("events", "WARN", f"could not be read: {type(error).__name__}")]
    return [
        judge_arrival(state.last_ms),
        judge_lag(state.lag_ms, state.waiting),
        judge_dead_letters(state.dead_letters),
    ]


def judge_arrival(last_ms: int | None) -> Finding:
    """Judge when the last event arrived; None: none has."""
    if last_ms is None:
        text = "none has arrived; check the URL and the header at 100ms, then join a room"
        return Finding("events", "WARN", text)
    return Finding("events", "ok", f"the last one arrived {_ago(max(0, time.time() - last_ms / 1000))} ago")


def judge_lag(lag_ms: int, waiting: int) -> Finding:
    """Judge how long the last event waited until it was counted, and how many wait now."""
    text = f"{waiting} wait; the last one was counted {lag_ms} ms after it had arrived"
    if lag_ms > _MOST_LAG_MS or waiting > _MOST_WAITING:
        return Finding("event lag", "WARN", f"{text}: start the gateway, or raise GATEWAY_WORKERS")
    return Finding("event lag", "ok", text)


def judge_dead_letters(count: int) -> Finding:
    """Judge whether events could not be counted."""
    if count:
        return Finding("dead letters", "WARN", f"{count} events could not be counted; see `gateway webhooks dead`")
    return Finding("dead letters", "ok", "none")


async def check_outgoing(store: AnyStore, policy: Policy) -> list[Finding]:
    """Check whether events reach the endpoints of the policy. Sends nothing."""
    if not policy.endpoints:
        return []
    outgoing = Outgoing(Outbox(store.execute), Sender({}), PolicyInForce(policy), Audit(store.execute))
    try:
        return judge_outgoing(await outgoing.state(), await outgoing.count_dead())
    except (StoreError, RedisError) as error:
        return [Finding("webhooks out", "WARN", f"could not be read: {type(error).__name__}")]


def judge_outgoing(endpoints: list[EndpointState], letters: int) -> list[Finding]:
    """Judge whether events reach endpoints, and whether some were given up."""
    findings = []
    for one in endpoints:
        check = f"endpoint {one.name}"
        if one.gone_ms is not None:
            text = "answered 410, so nothing is sent to it until the gateway restarts; remove it from the policy"
            findings.append(Finding(check, "WARN", text))
        elif one.last_failure:
            text = f"{one.last_failure}; {one.waiting} waiting; try `gateway webhooks out test {one.name}`"
            findings.append(Finding(check, "WARN", text))
        else:
            text = f"{one.delivered} events delivered to {one.host}, {one.waiting} wait"
            findings.append(Finding(check, "ok", text))
    if letters:
        text = f"{letters} events could not be delivered; see `gateway webhooks out dead`"
        findings.append(Finding("webhooks out", "WARN", text))
    return findings


def _ago(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
