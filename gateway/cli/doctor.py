"""`gateway doctor`: finds what is wrong with an installation and says what to do."""

import asyncio
import logging
from collections.abc import Mapping

import click
from redis.exceptions import RedisError

from auth.accounts import Accounts
from gateway.cli import checks
from gateway.cli.archive import check_archive
from gateway.cli.checks import Finding
from gateway.cli.failures import CommandError
from gateway.cli.identity_checks import check_identities
from gateway.cli.signing_checks import check_signing
from gateway.cli.terminal import JSON, print_json, say
from gateway.cli.trace_checks import check_traces
from gateway.cli.webhook_checks import check_events, check_outgoing, judge_webhooks
from gateway.fetch import Fetcher
from gateway.hms.client import HmsClient
from gateway.hms.client import connect as connect_100ms
from gateway.hms.tokens import HmsTokens
from gateway.policy.effective import policy_of
from gateway.policy.file import load_policy
from gateway.policy.model import Policy
from gateway.policy.tables import PolicyError
from gateway.redis.store import REPORT_DEADLINE_S, StoreError
from gateway.redis.topology import connect, open_store, open_writes
from gateway.setting_values import SettingsError
from gateway.settings import Settings, load_env, policy_path, redis_url, signing_key_path
from gateway.text import printable

_COLORS = {"ok": "green", "WARN": "yellow", "FAIL": "red"}


@click.command(epilog="Example: gateway doctor")
@JSON
def doctor(as_json: bool) -> None:
    """Check settings, signing keys, policy, archive, traces, Redis, 100ms and webhooks.

    Prints one line each, with what to do. The exit code is 1 after a FAIL.

    Changes nothing except one key that lives a second, to check whether Redis confirms writes to disk.
    """
    findings = asyncio.run(_examine(load_env()))
    failed = [finding for finding in findings if finding.status == "FAIL"]
    if as_json:
        print_json({"ok": not failed, "checks": findings})
    else:
        _print(findings)
    if failed:
        raise CommandError(f"{len(failed)} of {len(findings)} checks failed: " + ", ".join(one.check for one in failed))


async def _examine(env: Mapping[str, str]) -> list[Finding]:
    """Make every possible check: one wrong setting must not hide other errors."""
    findings: list[Finding] = []
    settings = _settings(env, findings)
    policy = _policy(env, settings, findings)
    if settings is not None:
        findings += [checks.check_secrets(settings.gateway_secrets), *check_signing(settings, signing_key_path(env))]
        findings += [await check_archive(settings.archive_url), *await check_traces(settings)]
    events: list[Finding] = []
    findings += await _redis(env, policy, events)
    if settings is not None and policy is not None:
        async with connect_100ms(settings.hms_api_url) as http:
            hms = HmsClient(http, HmsTokens(settings.hms_app_access_key, settings.hms_app_secret))
            findings += await checks.check_100ms(hms, policy)
    else:
        findings.append(Finding("100ms", "WARN", "not checked: correct the settings and the policy first"))
    if policy is not None and policy.identities:
        fetcher = Fetcher()
        findings += await check_identities(policy, fetcher)
        await fetcher.close()
    counted = settings is not None and bool(settings.webhook_secrets)
    return [*findings, judge_webhooks(settings), *(events if counted else ())]


def _settings(env: Mapping[str, str], findings: list[Finding]) -> Settings | None:
    try:
        settings = Settings.from_env(env)
    except SettingsError as error:
        findings.append(Finding("settings", "FAIL", str(error)))
        return None
    where = f"{settings.host}:{settings.port}, {settings.workers} worker{'' if settings.workers == 1 else 's'}"
    findings.append(Finding("settings", "ok", f"complete: {where}, 100ms at {settings.hms_api_url}"))
    findings += [checks.judge_operators(settings), *checks.judge_proxies(settings)]
    return settings


def _policy(env: Mapping[str, str], settings: Settings | None, findings: list[Finding]) -> Policy | None:
    path = policy_path(env)
    try:
        policy = policy_of(settings) if settings else load_policy(path)
    except PolicyError as error:
        findings.append(Finding("policy", "FAIL", str(error)))
        return None
    which = str(path) if path else "the built-in policy"
    findings.append(Finding("policy", "ok", f"{which}, {len(policy.roles)} roles; registration {_mode(policy)}"))
    return policy


def _mode(policy: Policy) -> str:
    return policy.registration.mode or "from GATEWAY_REGISTRATION"


async def _redis(env: Mapping[str, str], policy: Policy | None, events: list[Finding]) -> list[Finding]:
    """Check Redis and what it has; append what concerns webhooks to `events`."""
    try:
        url = redis_url(env)
    except SettingsError as error:
        return [Finding("redis", "FAIL", str(error))]
    # The store and the durable writes would also log what is reported here.
    logging.getLogger("gateway.store").setLevel(logging.CRITICAL)
    redis = connect(url)
    store = open_store(redis, deadline_s=REPORT_DEADLINE_S)
    try:
        findings = await checks.check_redis(store, open_writes(redis))
        if policy is not None and len(findings) > 1:
            findings.append(await checks.check_admins(Accounts(store.execute), policy))
            findings += await check_outgoing(store, policy)
            events += await check_events(store)
        return findings
    except (StoreError, RedisError) as error:
        return [*findings, Finding("admins", "WARN", f"could not be read: {type(error).__name__}")]
    finally:
        await store.close()


def _print(findings: list[Finding]) -> None:
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        click.secho(f"{finding.status:4}", fg=_COLORS[finding.status], nl=False)
        say(f"  {finding.check:{width}}  {printable(finding.text)}")  # it may quote 100ms or Redis
