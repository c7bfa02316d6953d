"""The questions of `gateway init`: each answer is checked when it is given, and asked for again if it is wrong."""

import asyncio
import secrets
import sys
from collections.abc import Callable, Mapping

import click

from gateway.cli.failures import CommandError
from gateway.cli.terminal import say
from gateway.hms.client import HmsClient, connect
from gateway.hms.errors import HmsError, HmsNotFound, HmsUnauthorized
from gateway.hms.replies import HmsTemplate
from gateway.hms.tokens import HmsTokens
from gateway.redis.server import connect as redis_connect
from gateway.redis.tls import distrust
from gateway.setting_values import SettingsError, http_url, required, secret
from gateway.settings import DEFAULT_HMS_API_URL, in_compose, redis_url, template_id

COMPOSE_REDIS = "redis://redis:6379/0"  # as docker-compose.yml has it
_QUESTIONS: dict[str, tuple[str, Callable[[Mapping[str, str]], object]]] = {
    "REDIS_URL": ("REDIS_URL, such as redis://127.0.0.1:6379/0", redis_url),
    "HMS_APP_ACCESS_KEY": (
        "HMS_APP_ACCESS_KEY (100ms dashboard, Developer)",
        lambda env: required(env, "HMS_APP_ACCESS_KEY"),
    ),
    "HMS_APP_SECRET": ("HMS_APP_SECRET (not shown)", lambda env: secret(env, "HMS_APP_SECRET")),
    "HMS_TEMPLATE_ID": ("HMS_TEMPLATE_ID (100ms dashboard, Templates)", template_id),
}
_PUBLIC_URL = "GATEWAY_PUBLIC_URL, where 100ms reaches the gateway, such as https://video.example.com (empty: not yet)"
_AT_100MS: tuple[str, ...] = ("HMS_APP_ACCESS_KEY", "HMS_APP_SECRET", "HMS_TEMPLATE_ID")
_TRUST = ("REDIS_CA_FILE", "REDIS_FINGERPRINT")
_KEPT = (*_TRUST, "HMS_API_URL", "HMS_WEBHOOK_HEADER", "GATEWAY_POLICY", "GATEWAY_SIGNING_KEY")


def complete(env: Mapping[str, str], *, offline: bool) -> tuple[dict[str, str], HmsTemplate | None]:
    """Return the settings of the new installation, and the template as 100ms has it unless `offline`.

    Asks for what is missing; what 100ms refuses is asked for again if it was typed. Raises: CommandError, SettingsError
    """
    settings = {"GATEWAY_SECRET": secrets.token_urlsafe(48)}
    if in_compose(env) and not env.get("REDIS_URL"):
        settings["REDIS_URL"] = COMPOSE_REDIS
    typed = [name for name in _QUESTIONS if not env.get(name) and name not in settings]
    for name in _QUESTIONS:
        if name not in settings:
            settings[name] = _ask(name) if name in typed else env[name].strip()
    pinned = _pin({**env, **settings})
    api = http_url(env, "HMS_API_URL", DEFAULT_HMS_API_URL)
    template = None if offline else _fetch(settings, api, typed)
    settings["HMS_WEBHOOK_SECRET"] = env.get("HMS_WEBHOOK_SECRET") or secrets.token_urlsafe(48)
    settings["GATEWAY_PUBLIC_URL"] = env.get("GATEWAY_PUBLIC_URL") or _ask_public_url()
    settings |= {name: env[name] for name in _KEPT if name in env} | pinned
    return {name: value for name, value in settings.items() if value}, template


def _pin(env: Mapping[str, str]) -> dict[str, str]:
    """Offer to pin the certificate of a Redis that is not trusted, at a terminal, where someone can compare it."""
    if not env["REDIS_URL"].startswith("rediss://") or any(env.get(name) for name in _TRUST) or not sys.stdin.isatty():
        return {}
    error = asyncio.run(distrust(redis_connect(redis_url(env)).open))
    if error is None:
        return {}
    say(f"REDIS_URL: {error}.", err=True)
    text = "Is this the fingerprint that the provider of Redis names, and should only this certificate be accepted"
    if error.seen and click.confirm(text, default=False, err=True):
        return {"REDIS_FINGERPRINT": error.seen}
    say("Set REDIS_CA_FILE or REDIS_FINGERPRINT in .env: without one this Redis is not trusted.", err=True)
    return {}


def _ask(name: str) -> str:
    prompt, check = _QUESTIONS[name]
    if not sys.stdin.isatty():
        raise CommandError(f"{name} is not set and cannot be asked for without a terminal; set it in the environment")
    return _answer(name, prompt, check, hidden=name == "HMS_APP_SECRET")


def _ask_public_url() -> str:
    if not sys.stdin.isatty():
        return ""

    def check(env: Mapping[str, str]) -> None:
        if env["GATEWAY_PUBLIC_URL"]:
            http_url(env, "GATEWAY_PUBLIC_URL", "")

    return _answer("GATEWAY_PUBLIC_URL", _PUBLIC_URL, check, default="")


def _answer(
    name: str,
    prompt: str,
    check: Callable[[Mapping[str, str]], object],
    *,
    hidden: bool = False,
    default: str | None = None,
) -> str:
    while True:
        text = click.prompt(prompt, hide_input=hidden, default=default, show_default=False, err=True)
        value = str(text).strip()
        try:
            check({name: value})
        except SettingsError as error:
            say(f"{error}.", err=True)
        else:
            return value


def _fetch(settings: dict[str, str], api: str, typed: list[str]) -> HmsTemplate:
    """Fetch the template; what 100ms refuses is asked for again if it was typed. Raises: CommandError, SettingsError"""
    while True:
        for name in _AT_100MS:  # those given in the environment have not been checked yet
            _QUESTIONS[name][1](settings)
        try:
            return asyncio.run(_template(settings, api))
        except HmsUnauthorized as error:
            wrong, said = _AT_100MS[:2], "100ms refuses HMS_APP_ACCESS_KEY and HMS_APP_SECRET"
            reason: HmsError = error
        except HmsNotFound as error:
            wrong, said = _AT_100MS[2:], f"100ms has no template {settings['HMS_TEMPLATE_ID']} (HMS_TEMPLATE_ID)"
            reason = error
        except HmsError as error:
            raise CommandError(f"{error} ({api}) Nothing was written; --offline writes without asking 100ms") from error
        again = [name for name in wrong if name in typed]
        if not again:
            raise CommandError(f"{said}; nothing was written") from reason
        say(f"{said}.", err=True)
        for name in again:
            settings[name] = _ask(name)


async def _template(settings: Mapping[str, str], api: str) -> HmsTemplate:
    async with connect(api) as http:
        hms = HmsClient(http, HmsTokens(settings["HMS_APP_ACCESS_KEY"], settings["HMS_APP_SECRET"]))
        return await hms.fetch_template(settings["HMS_TEMPLATE_ID"])
