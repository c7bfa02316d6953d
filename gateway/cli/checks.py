"""Checks an installation: its secrets, its Redis, its 100ms account. A finding is one line and contains no secret."""

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from redis.exceptions import RedisError
from zxcvbn import zxcvbn

from auth.accounts import Accounts
from gateway.accounts.actor import MANAGE
from gateway.cli.failures import store_text
from gateway.hms.client import HmsClient
from gateway.hms.errors import HmsBusy, HmsError, HmsNotFound, HmsUnauthorized
from gateway.hms.replies import HmsTemplate
from gateway.policy.file import BUILT_IN
from gateway.policy.model import Policy
from gateway.policy.templates import missing_roles, privileged_mints
from gateway.redis.cluster import ClusterStore
from gateway.redis.durable import SYNC_S, NotDurable
from gateway.redis.info import info_of
from gateway.redis.store import StoreError
from gateway.redis.topology import AnyStore, AnyWrites
from gateway.settings import Settings

LEAST_REDIS, LEAST_VALKEY = (7, 0), (8, 0)
MOST_SKEW_S = 1.0
_FULL = 0.8  # of the memory Redis may use
_WEAK_GUESSES_LOG10 = 24.0  # 80 bits; a random secret of 32 hexadecimal digits is estimated at about 10^30
_MOST_ESTIMATED = 72  # characters; the estimate takes quadratic time

_OF_OWN_PROXIES = "x-real-ip"  # nginx, Traefik and ingress controllers write it, and the proxies of deploy/

GENERATE = 'python -c "import secrets; print(secrets.token_urlsafe(48))"'

Status = Literal["ok", "WARN", "FAIL"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found and, unless it is ok, what to do."""

    check: str
    status: Status
    text: str


def check_secrets(secrets: tuple[str, ...]) -> Finding:
    """Judge whether GATEWAY_SECRET can be guessed. The settings have checked its length and that 100ms's differs."""
    weak = [n for n, secret in enumerate(secrets, 1) if _guesses_log10(secret) < _WEAK_GUESSES_LOG10]
    if weak:
        which = f"secret {weak[0]} of {len(secrets)} " if len(secrets) > 1 else ""
        text = f"GATEWAY_SECRET: {which}could be guessed; generate a new one:  "
        return Finding("secret", "WARN", text + GENERATE)
    rotating = f"; the first of {len(secrets)} signs, all verify" if len(secrets) > 1 else ""
    return Finding("secret", "ok", f"GATEWAY_SECRET looks random{rotating}")


def judge_operators(settings: Settings) -> Finding:
    """Judge who can reach what is for operators."""
    if settings.operator_bind is not None:
        host, port = settings.operator_bind
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return Finding("operators", "ok", f"/operator and /api/admin answer only at {where}")
    text = "/operator and /api/admin answer at the public address; GATEWAY_OPERATOR_BIND=127.0.0.1:8001 moves them"
    return Finding("operators", "ok", text)


def judge_proxies(settings: Settings) -> list[Finding]:
    """Warn if clients can choose the address by which they are limited."""
    header, networks = settings.address_header, settings.trusted_proxies
    if not header and not all(network.prefixlen for network in networks):
        text = "GATEWAY_TRUSTED_PROXIES has every address, so that a client can state any address as its own: name the "
        text += "networks of your proxies, or set GATEWAY_ADDRESS_HEADER to a field that they replace"
    # The proxies of platforms and CDNs replace their own field. Another proxy passes it on as the client sent it.
    elif header and header.lower() != _OF_OWN_PROXIES and all(network.is_private for network in networks):
        text = f"GATEWAY_ADDRESS_HEADER: a client can state any address unless your proxy replaces {header}; remove "
        text += "the setting if the proxy is one of deploy/, or another that replaces or appends to X-Forwarded-For"
    else:
        return []
    return [Finding("proxies", "WARN", text)]


def _guesses_log10(secret: str) -> float:
    return float(zxcvbn(secret[:_MOST_ESTIMATED])["guesses_log10"])


async def check_redis(store: AnyStore, durable: AnyWrites) -> list[Finding]:
    """Check each master's version, persistence, eviction, clock and memory."""
    try:
        replies = await store.each("INFO")
        failed = next((reply for reply in replies.values() if isinstance(reply, BaseException)), None)
        if failed is not None:
            raise failed
        missing = await store.check() if len(replies) > 1 else []
    except StoreError as error:
        return [Finding("redis", "FAIL", f"REDIS_URL: {store_text(error)}")]
    except RedisError as error:
        return [Finding("redis", "FAIL", f"REDIS_URL: refused the connection or INFO: {_words(error)}")]
    infos = {name: info_of(reply) for name, reply in replies.items()}
    appendfsync, eviction = await _config(store, "appendfsync"), await _config(store, "maxmemory-policy")
    return [
        *await _cluster(store, infos, missing),
        *_joined({name: _version(info) for name, info in infos.items()}),
        *_joined({name: _append_only(info) for name, info in infos.items()}),
        *_joined({name: _appendfsync(value) for name, value in appendfsync.items()}),
        *_joined({name: _eviction(eviction[name] or info.get("maxmemory_policy", "")) for name, info in infos.items()}),
        await _confirmed(durable),
        *await _clocks(store),
        *_joined({name: _memory(info) for name, info in infos.items()}),
    ]


async def _cluster(store: AnyStore, infos: Mapping[str, Mapping[str, str]], missing: list[str]) -> list[Finding]:
    """Check whether REDIS_URL says what Redis is, and whether a cluster's masters work, each without the others."""
    if not isinstance(store, ClusterStore):
        if any(info.get("cluster_enabled") == "1" for info in infos.values()):
            return [Finding("cluster", "FAIL", "Redis is a node of a cluster: begin REDIS_URL with redis+cluster://")]
        return []
    if missing:
        return [Finding("cluster", "FAIL", f"no master works for {', '.join(missing)}")]
    if "yes" in (await _config(store, "cluster-require-full-coverage")).values():
        text = "one lost master stops all; set `cluster-require-full-coverage no`, and only its users are refused"
        return [Finding("cluster", "WARN", text)]
    return [Finding("cluster", "ok", f"all {len(infos)} masters work: {', '.join(infos)}")]


def _joined(found: Mapping[str, Finding]) -> list[Finding]:
    """Return one finding for all masters if it is the same, otherwise that of each with its address."""
    if len(set(found.values())) == 1:
        return [next(iter(found.values()))]
    return [Finding(one.check, one.status, f"{name}: {one.text}") for name, one in found.items()]


async def _config(store: AnyStore, name: str) -> dict[str, str]:
    """Return a configuration value of each master; empty if it does not report it (managed servers forbid CONFIG)."""
    replies = await store.each("CONFIG", "GET", name)
    return {server: "" if isinstance(reply, BaseException) else _value(reply) for server, reply in replies.items()}


def _value(reply: Mapping[bytes, bytes]) -> str:
    return "".join(value.decode() for value in reply.values())


def _version(info: Mapping[str, str]) -> Finding:
    name, least = ("Valkey", LEAST_VALKEY) if "valkey_version" in info else ("Redis", LEAST_REDIS)
    version = info.get(f"{name.lower()}_version", "")
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None:
        return Finding("redis", "WARN", "reports no version; the gateway needs Redis 7.0 or Valkey 8")
    if (int(found[1]), int(found[2])) < least:
        return Finding("redis", "FAIL", f"{name} {version} is too old; the gateway needs Redis 7.0 or Valkey 8")
    return Finding("redis", "ok", f"{name} {version}")


def _append_only(info: Mapping[str, str]) -> Finding:
    if info.get("aof_enabled") == "0":
        return Finding("append-only", "FAIL", "accounts and counters would be lost with Redis; set `appendonly yes`")
    if info.get("aof_last_write_status", "ok") != "ok":
        return Finding("append-only", "FAIL", "Redis cannot write its append-only file; check its disk and its log")
    if "aof_enabled" not in info:
        return Finding("append-only", "WARN", "the server does not report it; set `appendonly yes`")
    return Finding("append-only", "ok", "on")


def _appendfsync(value: str) -> Finding:
    if value in ("everysec", "always"):
        return Finding("appendfsync", "ok", value)
    text = f"is {value}" if value else "the server does not report it"
    return Finding("appendfsync", "WARN", f"{text}; with `appendfsync everysec` a crash loses at most one second")


def _eviction(value: str) -> Finding:
    if value == "noeviction":
        return Finding("eviction", "ok", value)
    if not value:
        return Finding("eviction", "WARN", "the server does not report it; set `maxmemory-policy noeviction`")
    return Finding("eviction", "FAIL", f"{value} lets Redis delete accounts; set `maxmemory-policy noeviction`")


async def _confirmed(durable: AnyWrites) -> Finding:
    """Check whether the server confirms that a write is on disk."""
    try:
        if not await durable.check():
            text = "Redis cannot confirm writes to disk (WAITAOF); accounts may not survive a crash"
            return Finding("disk", "WARN", f"{text}; this needs Redis 7.2 or Valkey with an append-only file")
        begun = time.monotonic()
        await durable.execute("SET", "doctor:1", "", "PX", 1000)
    except NotDurable:
        return Finding("disk", "FAIL", f"a write was not on disk within {SYNC_S:.0f} s; check the disk of Redis")
    except StoreError as error:
        return Finding("disk", "FAIL", str(error))
    except RedisError as error:
        return Finding("disk", "FAIL", f"Redis refuses to write: {_words(error)}")
    took_ms = (time.monotonic() - begun) * 1000
    return Finding("disk", "ok", f"a write was confirmed on disk after {took_ms:.0f} ms")


async def _clocks(store: AnyStore) -> list[Finding]:
    before = time.time()
    replies = await store.each("TIME")
    here = (before + time.time()) / 2
    return _joined({name: _clock(reply, here) for name, reply in replies.items()})


def _clock(reply: Any, here: float) -> Finding:
    if isinstance(reply, Exception):
        return Finding("clock", "WARN", f"Redis does not report its time: {_words(reply)}")
    seconds, micros = reply
    return judge_clock(int(seconds) + int(micros) / 1_000_000 - here)


def judge_clock(ahead_s: float) -> Finding:
    """Judge how far the clock of Redis is ahead of this machine's."""
    said = f"{abs(ahead_s):.3f} s {'ahead of' if ahead_s > 0 else 'behind'} this machine's"
    if abs(ahead_s) >= MOST_SKEW_S:
        return Finding("clock", "FAIL", f"that of Redis is {said}; limits and tokens use both: synchronize them")
    return Finding("clock", "ok", f"that of Redis is {said}")


def _memory(info: Mapping[str, str]) -> Finding:
    used, most = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    bound = most or int(info.get("total_system_memory", 0))
    text = f"{_mib(used)} used of {_mib(bound)}{'' if most else ' of the machine; no maxmemory'}"
    if bound and used > _FULL * bound:
        return Finding("memory", "WARN", f"{text}; a full Redis refuses writes: give it more memory")
    return Finding("memory", "ok", text if bound else f"{_mib(used)} used")


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB" if size < 2**30 else f"{size / 2**30:.1f} GiB"


async def check_admins(accounts: Accounts, policy: Policy) -> Finding:
    """Check whether an active user may manage users. Raises: StoreError"""
    able = sorted(name for name, role in policy.roles.items() if MANAGE in role.permissions)
    after: int | None = 0
    while after is not None:
        users, after = await accounts.page(after=after, size=500)
        for user in users:
            if user.is_active and set(able) & set(user.roles):
                return Finding("admins", "ok", f"{user.username} may manage users")
    if not able:
        return Finding("admins", "WARN", f"no role of the policy has {MANAGE}; only the command line manages users")
    text = f"no active user may manage users; add one: gateway users add NAME --role {able[0]}"
    return Finding("admins", "WARN", text)


async def check_100ms(hms: HmsClient, policy: Policy) -> list[Finding]:
    """Check whether 100ms accepts the credentials and its templates have the roles of the policy."""
    aliases = list(policy.template_ids)
    seen = await asyncio.gather(*(_template(hms, policy.template_ids[alias]) for alias in aliases))
    findings = [_reached(seen)]
    for alias, template in zip(aliases, seen, strict=True):
        findings += judge_template(policy, alias, template)
    return findings


async def _template(hms: HmsClient, template_id: str) -> HmsTemplate | HmsError:
    try:
        return await hms.fetch_template(template_id)
    except HmsError as error:
        return error
    except ValueError:
        return HmsNotFound("not the id of a template")


def _reached(seen: list[HmsTemplate | HmsError]) -> Finding:
    if any(isinstance(one, HmsTemplate | HmsNotFound) for one in seen):
        return Finding("100ms", "ok", "reachable; it accepts the credentials")
    error = seen[0]
    if isinstance(error, HmsUnauthorized):
        return Finding("100ms", "FAIL", "refuses HMS_APP_ACCESS_KEY and HMS_APP_SECRET; copy both from its dashboard")
    if isinstance(error, HmsBusy):
        return Finding("100ms", "WARN", f"{error} Run this again in {error.retry_after_s} s.")
    return Finding("100ms", "FAIL", f"{error} Check HMS_API_URL and the network.")


def judge_template(policy: Policy, alias: str, template: HmsTemplate | HmsError) -> list[Finding]:
    """Compare one template with its roles in the policy."""
    check, template_id = f"template {alias}", policy.template_ids[alias]
    if isinstance(template, HmsNotFound):
        where = "HMS_TEMPLATE_ID" if alias == "default" else f"[templates.{alias}] id"
        return [Finding(check, "FAIL", f"100ms has no template {template_id}; correct {where}")]
    if isinstance(template, HmsError):
        return [Finding(check, "WARN", "not checked: 100ms did not answer")]
    has = ", ".join(sorted(template.role_names)) or "none"
    missing = missing_roles(policy, alias, template.role_names)
    if missing:
        text = f"has no {' and no '.join(map(repr, missing))}, which {policy.source} lists; it has {has}"
        return [Finding(check, "FAIL", f"{text}. {_way_out(policy, alias)}")]
    findings = [Finding(check, "ok", f"{template.name or template_id} has the roles of the policy; it has {has}")]
    powers: dict[str, list[str]] = {}
    for relation, role in privileged_mints(policy, alias, template):
        powers.setdefault(f"{role.name!r} ({' '.join(role.privileged_by)})", []).append(relation)
    for role_text, relations in powers.items():
        text = f"a {' or a '.join(relations)}, and thus a guest, may join as {role_text}; remove it from their"
        findings.append(Finding(check, "WARN", f"{text} lists, or the powers from the role"))
    return findings


def _way_out(policy: Policy, alias: str) -> str:
    if policy.source == BUILT_IN:
        return "Run `gateway init`, which writes a policy.toml with them, or set GATEWAY_POLICY to a file of your own"
    return f"Correct its [templates.{alias}]"  # `gateway init` never changes the operator's own policy


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:100] or type(error).__name__
