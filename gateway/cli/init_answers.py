"""The questions of `gateway init`: each answer is checked when it is given, and asked for again if it is wrong."""

import asyncio
import re
import secrets
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import click

from gateway.cli.failures import CommandError
from gateway.cli.init_checks import Unchecked, Wrong, ask_credentials, ask_redis, ask_template
from gateway.cli.terminal import say
from gateway.hms.replies import HmsTemplate
from gateway.policy.effective import policy_of
from gateway.policy.file import load_policy
from gateway.policy.tables import PolicyError
from gateway.redis.server import connect as redis_connect
from gateway.redis.tls import distrust
from gateway.setting_values import SettingsError, http_url, secret
from gateway.settings import DEFAULT_HMS_API_URL, Settings, access_key, in_compose, redis_url, template_id

COMPOSE_REDIS = "redis://redis:6379/0"  # as docker-compose.yml has it
_PROMPTS = {
    "REDIS_URL": "REDIS_URL, such as redis://127.0.0.1:6379/0",
    "HMS_APP_ACCESS_KEY": "HMS_APP_ACCESS_KEY (100ms dashboard, Developer)",
    "HMS_APP_SECRET": "HMS_APP_SECRET (not shown)",
    "HMS_TEMPLATE_ID": "HMS_TEMPLATE_ID (100ms dashboard, Templates)",
}
_PUBLIC_URL = "GATEWAY_PUBLIC_URL, where 100ms reaches the gateway, such as https://video.example.com"
_CHECKS: dict[str, Callable[[Mapping[str, str]], object]] = {
    "REDIS_URL": redis_url,
    "HMS_APP_ACCESS_KEY": access_key,
    "HMS_APP_SECRET": lambda env: secret(env, "HMS_APP_SECRET"),
    "HMS_TEMPLATE_ID": template_id,
}
_CREDENTIALS = ("HMS_APP_ACCESS_KEY", "HMS_APP_SECRET")
_TRUST = ("REDIS_CA_FILE", "REDIS_FINGERPRINT")
_KEPT = (*_TRUST, "HMS_API_URL", "HMS_WEBHOOK_HEADER", "GATEWAY_POLICY", "GATEWAY_SIGNING_KEY")
_NEXT = "t: try again, e: enter another, g: go on without this check"
# Characters that compose, a shell and python-dotenv read without quotes.
_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./~-]*")


@dataclass(frozen=True, slots=True)
class Answers:
    """The settings of a new installation, the template unless 100ms was not asked, and what else was not checked."""

    env: dict[str, str]
    template: HmsTemplate | None
    unchecked: tuple[str, ...]


def complete(
    env: Mapping[str, str],
    *,
    offline: bool,
    needs_public_url: bool,
    fits: Callable[[Mapping[str, str], HmsTemplate], object],
) -> Answers:
    """Ask for what is missing and check it. At a terminal, what is wrong is asked for again, and nothing is lost.

    Elsewhere it fails. `fits` raises Wrong or PolicyError if the template does not fit the settings.
    Raises: CommandError, SettingsError, PolicyError
    """
    env = {name: value for name, value in env.items() if value.strip()}
    _check_given(env)
    api = http_url(env, "HMS_API_URL", DEFAULT_HMS_API_URL)
    questions = _Questions({"REDIS_URL": COMPOSE_REDIS, **env} if in_compose(env) else env)
    settings = questions.settings
    templates: list[HmsTemplate] = []

    def check_template() -> None:
        template = ask_template(settings, api)
        fits(questions.whole(), template)
        templates.append(template)

    asks = _at_terminal() and not offline
    knows_redis = questions.settle(("REDIS_URL",), questions.check_redis if asks else None)
    # Without a terminal no one can correct an answer, and the template proves the credentials too.
    knows_account = questions.settle(_CREDENTIALS, (lambda: ask_credentials(settings, api)) if asks else None)
    questions.settle(("HMS_TEMPLATE_ID",), check_template if knows_account and not offline else None)
    settings["GATEWAY_PUBLIC_URL"] = env.get("GATEWAY_PUBLIC_URL") or _ask_public_url(needed=needs_public_url)
    written = {name: value for name, value in questions.whole().items() if value}
    return Answers(written, templates[0] if templates else None, () if knows_redis else ("REDIS_URL",))


class _Questions:
    """The answers so far. `env` has what need not be asked for."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self.settings = {
            "GATEWAY_SECRET": secrets.token_urlsafe(48),
            "HMS_WEBHOOK_SECRET": env.get("HMS_WEBHOOK_SECRET") or secrets.token_urlsafe(48),
        }

    def whole(self) -> dict[str, str]:
        """Return the answers and what is kept of the environment."""
        return {name: self._env[name] for name in _KEPT if name in self._env} | self.settings

    def settle(self, names: tuple[str, ...], check: Callable[[], None] | None) -> bool:
        """Get these values; return False if they are to be written although the check could not be made."""
        for name in names:
            self.settings[name] = self._given(name) if self._env.get(name) else self._ask(name)
        while check is not None:
            again = names
            try:
                check()
            except (Wrong, PolicyError) as error:
                if not _at_terminal():
                    if isinstance(error, PolicyError):
                        raise
                    raise CommandError(f"{error}; nothing was written") from error
                say(f"{error}.", err=True)
            except Unchecked as error:
                if not _at_terminal():
                    raise CommandError(f"{error} Nothing was written; --offline writes without asking 100ms") from error
                say(str(error), err=True)
                match click.prompt(_NEXT, type=click.Choice(["t", "e", "g"]), show_choices=False, err=True):
                    case "g":
                        say(f"{' and '.join(names)} will be written unchecked.", err=True)
                        return False
                    case "t":
                        again = ()
            else:
                return True
            for name in again:
                self.settings[name] = self._ask(name)
        return True

    def check_redis(self) -> None:
        """Connect to Redis, unless compose will start it. Raises: Unchecked"""
        self.settings.pop("REDIS_FINGERPRINT", None)  # of another server
        if in_compose(self._env) and self.settings["REDIS_URL"] == COMPOSE_REDIS:
            return
        if self.settings["REDIS_URL"].startswith("rediss://") and not any(self._env.get(name) for name in _TRUST):
            self.settings |= _pin(redis_url(self.settings))
        asyncio.run(ask_redis(redis_url({**self._env, **self.settings})))

    def _given(self, name: str) -> str:
        """Return a value of the environment, or another one if it is wrong and can be asked for."""
        value = self._env[name].strip()
        try:
            self._check(name, value)
        except (SettingsError, CommandError) as error:
            if not _at_terminal():
                raise
            say(f"{error}.", err=True)
            return self._ask(name)
        return value

    def _ask(self, name: str) -> str:
        if not _at_terminal():
            raise CommandError(
                f"{name} is not set and cannot be asked for without a terminal; set it in the environment"
            )
        return _answer(_PROMPTS[name], lambda value: self._check(name, value), hidden=name == "HMS_APP_SECRET")

    def _check(self, name: str, value: str) -> None:
        _CHECKS[name]({**self._env, name: value})
        quoted(name, value)


def quoted(name: str, value: str) -> str:
    """Return a value as it stands in `.env`. Raises: CommandError"""
    if _PLAIN.fullmatch(value):
        return value
    if not value.isprintable() or "'" in value or "\\" in value:
        raise CommandError(f"{name} has a quote, a backslash or a control character, which cannot be written to .env")
    return f"'{value}'"


def _check_given(env: Mapping[str, str]) -> None:
    """Check what is not asked for, before the first question. Raises: SettingsError, PolicyError"""
    stand_ins = {
        "REDIS_URL": "rediss://localhost",
        "HMS_APP_ACCESS_KEY": "any",
        "HMS_APP_SECRET": secrets.token_urlsafe(48),
        "HMS_TEMPLATE_ID": "0" * 24,
        "GATEWAY_SECRET": secrets.token_urlsafe(48),
        "GATEWAY_PUBLIC_URL": "https://localhost",
    }
    names = (*_KEPT, "HMS_WEBHOOK_SECRET", "GATEWAY_PUBLIC_URL")
    settings = Settings.from_env(stand_ins | {name: env[name] for name in names if name in env})
    own_template = load_policy(settings.policy_path).template_ids.get("default", settings.hms_template_id)
    policy_of(replace(settings, hms_template_id=own_template))


def _at_terminal() -> bool:
    return sys.stdin.isatty()


def _pin(url: str) -> dict[str, str]:
    """Offer to pin the certificate of a Redis that is not trusted, since someone can compare it. Raises: Unchecked"""
    error = asyncio.run(distrust(redis_connect(url).open))
    if error is None:
        return {}
    say(f"REDIS_URL: {error}.", err=True)
    text = "Is this the fingerprint that the provider of Redis names, and should only this certificate be accepted"
    if error.seen and click.confirm(text, default=False, err=True):
        return {"REDIS_FINGERPRINT": error.seen}
    raise Unchecked("Set REDIS_CA_FILE or REDIS_FINGERPRINT in .env: without one this Redis is not trusted.")


def _ask_public_url(*, needed: bool) -> str:
    if not _at_terminal():
        return ""

    def check(value: str) -> None:
        if value or needed:
            http_url({"GATEWAY_PUBLIC_URL": value}, "GATEWAY_PUBLIC_URL", "")
        quoted("GATEWAY_PUBLIC_URL", value)

    return _answer(_PUBLIC_URL if needed else f"{_PUBLIC_URL} (empty: not yet)", check, default="")


def _answer(prompt: str, check: Callable[[str], None], *, hidden: bool = False, default: str | None = None) -> str:
    while True:
        text = click.prompt(prompt, hide_input=hidden, default=default, show_default=False, err=True)
        value = str(text).strip()
        try:
            check(value)
        except (SettingsError, CommandError) as error:
            say(f"{error}.", err=True)
        else:
            return value
