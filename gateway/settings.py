"""Settings from the environment and `.env`: the only module that reads either."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from dotenv import dotenv_values

from auth.breaches import BadBreachFile, BreachFile
from auth.password_policy import LEAST_MIN_LENGTH, MIN_LENGTH, MOST_MIN_LENGTH, PasswordPolicy
from auth.passwords import MEMORY_KIB, MOST_MEMORY_KIB, MOST_PASSES, PASSES
from gateway.redis_urls import is_several, read_several
from gateway.setting_values import (
    Network,
    SettingsError,
    address,
    authorities,
    choice,
    fault_of,
    fingerprints,
    header,
    http_url,
    is_loopback,
    networks,
    number,
    open_telemetry,
    origins,
    required,
    secret,
    secrets,
)
from gateway.signing import read_secrets

if TYPE_CHECKING:
    from auth.signing_keys import SigningKeys

DEFAULT_HMS_API_URL = "https://api.100ms.live/v2"
DEFAULT_DATA = ".gateway"
DEFAULT_PORT = 8000
REDIS_TIMEOUT_MS = 250  # a busy machine may not run Redis for 100 ms; shorter than what a person notices
DEMO_ENV = "demo.env"
_ENV_FILE = "_GATEWAY_ENV_FILE"  # what `gateway --env-file` names, for worker processes too
WEBHOOK_HEADER = "X-Gateway-Webhook-Secret"

_REQUIRED = ("REDIS_URL", "HMS_APP_ACCESS_KEY", "HMS_APP_SECRET", "HMS_TEMPLATE_ID", "GATEWAY_SECRET")
_TEMPLATE_ID = re.compile(r"[0-9a-f]{24}")


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole configuration. Lists are tuples; a setting without a default is required."""

    redis_url: str = field(repr=False)
    hms_app_access_key: str = field(repr=False)
    hms_app_secret: str = field(repr=False)
    hms_template_id: str
    gateway_secrets: tuple[str, ...] = field(repr=False)
    hms_api_url: str = DEFAULT_HMS_API_URL
    policy_path: Path | None = None
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    workers: int = 1
    trusted_proxies: tuple[Network, ...] = ()
    address_header: str = ""
    cors_origins: tuple[str, ...] = ()
    cookies: bool = False
    log_format: str = "json"
    registration: str = ""
    public_url: str = ""
    docs: bool = True
    password_policy: PasswordPolicy = field(default_factory=PasswordPolicy)
    argon2_memory_kib: int = MEMORY_KIB
    argon2_passes: int = PASSES
    redis_timeout_ms: int = REDIS_TIMEOUT_MS
    operator_bind: tuple[str, int] | None = None
    archive_url: str = field(default="", repr=False)
    webhook_secrets: tuple[str, ...] = field(default=(), repr=False)
    webhook_header: str = WEBHOOK_HEADER
    metrics_token: str = field(default="", repr=False)
    signing_keys: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict, repr=False)
    token_keys: SigningKeys | None = field(default=None, repr=False)
    traces: str = "off"
    open_telemetry: Mapping[str, str] = field(default_factory=dict, repr=False)  # headers hold keys of collectors

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Read and check every setting. Raises: SettingsError"""
        env = load_env() if env is None else env
        _check_given(env)
        memory_kib, passes = argon2_cost(env)
        traces = choice(env, "GATEWAY_TRACES", ("off", "on", "proxied"))
        settings = cls(
            redis_url=redis_url(env),
            hms_app_access_key=access_key(env),
            hms_app_secret=secret(env, "HMS_APP_SECRET"),
            hms_template_id=template_id(env),
            gateway_secrets=secrets(env, "GATEWAY_SECRET"),
            hms_api_url=http_url(env, "HMS_API_URL", DEFAULT_HMS_API_URL),
            policy_path=policy_path(env),
            host=env.get("GATEWAY_HOST") or "127.0.0.1",
            port=port(env),
            workers=number(env, "GATEWAY_WORKERS", 1, 1, 64),
            trusted_proxies=networks(env, "GATEWAY_TRUSTED_PROXIES"),
            address_header=address_header(env),
            cors_origins=origins(env, "GATEWAY_CORS_ORIGINS"),
            cookies=choice(env, "GATEWAY_COOKIES", ("off", "on")) == "on",
            log_format=choice(env, "GATEWAY_LOG", ("json", "console")),
            registration=choice(env, "GATEWAY_REGISTRATION", ("", "closed", "invite", "open")),
            public_url=http_url(env, "GATEWAY_PUBLIC_URL", "") if env.get("GATEWAY_PUBLIC_URL") else "",
            docs=choice(env, "GATEWAY_DOCS", ("on", "off")) == "on",
            password_policy=password_policy(env),
            argon2_memory_kib=memory_kib,
            argon2_passes=passes,
            redis_timeout_ms=number(env, "GATEWAY_REDIS_TIMEOUT_MS", REDIS_TIMEOUT_MS, 10, 5000),
            archive_url=archive_url(env),
            webhook_secrets=secrets(env, "HMS_WEBHOOK_SECRET") if env.get("HMS_WEBHOOK_SECRET") else (),
            webhook_header=header(env, "HMS_WEBHOOK_HEADER", WEBHOOK_HEADER),
            operator_bind=address(env, "GATEWAY_OPERATOR_BIND"),
            metrics_token=secret(env, "GATEWAY_METRICS_TOKEN") if env.get("GATEWAY_METRICS_TOKEN") else "",
            signing_keys=signing_keys(env),
            token_keys=token_keys(env),
            traces=traces,
            open_telemetry={} if traces == "off" else open_telemetry(env),
        )
        if settings.hms_app_secret in settings.gateway_secrets:
            raise SettingsError(
                "GATEWAY_SECRET must differ from HMS_APP_SECRET: every join token would verify as a login token"
            )
        if {settings.hms_app_secret, *settings.gateway_secrets} & {*settings.webhook_secrets}:
            raise SettingsError(
                "HMS_WEBHOOK_SECRET must differ from GATEWAY_SECRET and HMS_APP_SECRET: 100ms sends it with every event"
            )
        if settings.cookies and settings.public_url.startswith("http:") and not is_loopback(settings.public_url):
            raise SettingsError(
                "GATEWAY_COOKIES needs an https:// GATEWAY_PUBLIC_URL: browsers keep its cookie over http:// only for "
                "loopback addresses"
            )
        if settings.operator_bind is not None and settings.operator_bind[1] == settings.port:
            raise SettingsError("GATEWAY_OPERATOR_BIND must have another port than the gateway (GATEWAY_PORT)")
        if settings.metrics_token in {settings.hms_app_secret, *settings.gateway_secrets, *settings.webhook_secrets}:
            raise SettingsError("GATEWAY_METRICS_TOKEN must differ from all other secrets: Prometheus stores it")
        if settings.address_header and not settings.trusted_proxies:
            raise SettingsError("GATEWAY_ADDRESS_HEADER needs GATEWAY_TRUSTED_PROXIES: only they may write it")
        if traces == "proxied" and not settings.trusted_proxies:
            raise SettingsError("GATEWAY_TRACES=proxied needs GATEWAY_TRUSTED_PROXIES: only their traces are continued")
        return settings


def load_env(folder: Path | None = None) -> dict[str, str]:
    """Return the process environment over `.env` of a folder (default: the current one).

    If neither has REDIS_URL, `demo.env` in the demo's data folder is read instead of `.env`: commands find a running
    `gateway demo` without configuration. An empty value counts as not set.
    """
    env = given_env(folder)
    demo = _demo_env(env)
    return {**_read_env_file(demo), **env} if demo else env


def given_env(folder: Path | None = None) -> dict[str, str]:
    """Return the process environment over `.env` of a folder (default: the current one), without those of a demo."""
    named = os.environ.get(_ENV_FILE)
    file = _read_named(named) if named else _read_env_file((folder or Path.cwd()) / ".env")
    return {**file, **process_env()}


def use_env_file(path: Path) -> None:
    """Read a file instead of `.env` and of what a demo has written, in worker processes too. Raises: SettingsError"""
    _read_named(str(path))
    os.environ[_ENV_FILE] = str(path.absolute())


def demo_in_use() -> Path | None:
    """Return the `demo.env` that `load_env` reads, if it reads one."""
    return _demo_env(given_env())


def process_env() -> dict[str, str]:
    """Return the process environment without empty values."""
    return {name: value for name, value in os.environ.items() if value}


def override(**settings: object) -> None:
    """Copy settings from the command line into the environment, for worker processes; None changes nothing."""
    for name, value in settings.items():
        if value is not None:
            os.environ[name] = str(value)


def share(variables: Mapping[str, str], prefix: str) -> None:
    """Let a library that reads its own variables, which begin with a prefix, find exactly these."""
    for name in [name for name in os.environ if name.startswith(prefix)]:
        del os.environ[name]
    os.environ.update(variables)


def port(env: Mapping[str, str]) -> int:
    """Return the port to listen on: GATEWAY_PORT, else PORT, which hosting platforms set. Raises: SettingsError"""
    return number(env, "GATEWAY_PORT" if env.get("GATEWAY_PORT") else "PORT", DEFAULT_PORT, 1, 65535)


def data_folder(env: Mapping[str, str]) -> Path:
    """Return the folder of the demo's data."""
    return Path(env.get("GATEWAY_DATA") or DEFAULT_DATA).absolute()


def policy_path(env: Mapping[str, str]) -> Path | None:
    """Return GATEWAY_POLICY; None means the built-in policy."""
    return Path(env["GATEWAY_POLICY"]) if env.get("GATEWAY_POLICY") else None


def password_policy(env: Mapping[str, str]) -> PasswordPolicy:
    """Return the rules for new passwords: GATEWAY_PASSWORD_MIN_LENGTH and GATEWAY_BREACHED_PASSWORDS."""
    least = number(env, "GATEWAY_PASSWORD_MIN_LENGTH", MIN_LENGTH, LEAST_MIN_LENGTH, MOST_MIN_LENGTH)
    path = env.get("GATEWAY_BREACHED_PASSWORDS")
    try:
        return PasswordPolicy(min_length=least, breached=BreachFile(Path(path)) if path else None)
    except BadBreachFile as error:
        raise SettingsError(f"GATEWAY_BREACHED_PASSWORDS: {error}") from error


def argon2_cost(env: Mapping[str, str]) -> tuple[int, int]:
    """Return the memory in KiB and the passes of a new password hash. Raises: SettingsError"""
    return (
        number(env, "GATEWAY_ARGON2_MEMORY_KIB", MEMORY_KIB, MEMORY_KIB, MOST_MEMORY_KIB),
        number(env, "GATEWAY_ARGON2_PASSES", PASSES, PASSES, MOST_PASSES),
    )


def address_header(env: Mapping[str, str]) -> str:
    """Return GATEWAY_ADDRESS_HEADER, empty if proxies write the client's address to X-Forwarded-For."""
    return header(env, "GATEWAY_ADDRESS_HEADER", "X-Real-IP") if env.get("GATEWAY_ADDRESS_HEADER") else ""


def access_key(env: Mapping[str, str]) -> str:
    """Return the checked HMS_APP_ACCESS_KEY. Raises: SettingsError"""
    value = required(env, "HMS_APP_ACCESS_KEY")
    if not re.fullmatch(r"[!-~]+", value):
        raise SettingsError("HMS_APP_ACCESS_KEY must be one word of ASCII, as the 100ms dashboard shows it")
    return value


def template_id(env: Mapping[str, str]) -> str:
    """Return the checked HMS_TEMPLATE_ID. Raises: SettingsError"""
    value = required(env, "HMS_TEMPLATE_ID")
    if not _TEMPLATE_ID.fullmatch(value):
        raise SettingsError("HMS_TEMPLATE_ID must be 24 hexadecimal digits, as the 100ms dashboard shows it")
    return value


def in_compose(env: Mapping[str, str]) -> bool:
    """Tell whether this process is the `setup` of docker-compose.yml, which brings Redis and mounts the policy."""
    return env.get("DEMO_COMPOSE") == "on"


def redis_url(env: Mapping[str, str]) -> str:
    """Return the checked REDIS_URL, for commands that need only Redis. Raises: SettingsError

    Its query holds what REDIS_CA_FILE and REDIS_FINGERPRINT say (see `gateway.redis.tls`).
    """
    url = env.get("REDIS_URL", "")
    if not url:
        raise SettingsError(
            "REDIS_URL is not set, and no demo has run here; `gateway demo` starts one, `gateway init` sets it"
        )
    if is_several(url):
        return _several(env, url)
    try:
        parts = urlsplit(url)
        host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, host = urlsplit(""), False
    if parts.scheme.startswith("redis") and parts.query:
        raise SettingsError(
            "REDIS_URL must look like rediss://host:6379/0, without ? and what follows: TLS is always verified, by the"
            " system's CAs, or else by REDIS_CA_FILE or REDIS_FINGERPRINT"
        )
    plain = host and re.fullmatch(r"/?[0-9]{0,4}", parts.path) and not parts.fragment
    if not (parts.scheme in ("redis", "rediss") and plain) and not (parts.scheme == "unix" and parts.path):
        raise SettingsError(
            "REDIS_URL must look like redis://host:6379/0, rediss://..., redis+cluster://..., redis+sentinel://..."
            " or unix:///path"
        )
    trusted = redis_trust(env, encrypted=parts.scheme.startswith("rediss"))
    return f"{url}?{trusted}" if trusted else url


def _several(env: Mapping[str, str], url: str) -> str:
    """Check the URL of a cluster or of Sentinels. Raises: SettingsError"""
    several = read_several(url)
    if several.trust:
        raise SettingsError("REDIS_URL: TLS is verified by the system's CAs, or by REDIS_CA_FILE or REDIS_FINGERPRINT")
    trusted = redis_trust(env, encrypted=several.scheme == "rediss")
    return f"{url}{'&' if '?' in url else '?'}{trusted}" if trusted else url


def redis_trust(env: Mapping[str, str], *, encrypted: bool) -> str:
    """Return which certificates of Redis are trusted, as the query of a URL; empty if the system's CAs say it."""
    ca = env.get("REDIS_CA_FILE", "")
    pinned = fingerprints(env, "REDIS_FINGERPRINT")
    for name in ("REDIS_CA_FILE", "REDIS_FINGERPRINT"):
        if env.get(name) and not encrypted:
            raise SettingsError(f"{name} needs a rediss:// REDIS_URL: with this one nothing is encrypted or verified")
    try:
        if ca:
            authorities(ca)
    except OSError as error:  # also of ssl
        raise SettingsError(f"REDIS_CA_FILE must be a PEM file of CA certificates: {fault_of(error)}") from None
    return urlencode([("ca", ca)] * bool(ca) + [("fingerprint", one) for one in pinned])


def archive_url(env: Mapping[str, str]) -> str:
    """Return the checked GATEWAY_ARCHIVE, empty if there is no archive. Raises: SettingsError"""
    url = env.get("GATEWAY_ARCHIVE", "")
    try:
        is_postgres = url.startswith("postgresql://") and bool(urlsplit(url).hostname)
    except ValueError:
        is_postgres = False
    if url and not is_postgres and not re.fullmatch(r"sqlite:///[^?#]+", url):
        raise SettingsError(
            "GATEWAY_ARCHIVE must look like sqlite:///folder/usage.db or postgresql://user@host/database"
        )
    return url


def signing_keys(env: Mapping[str, str]) -> Mapping[str, tuple[bytes, ...]]:
    """Return the keys that sign outgoing webhooks, by endpoint: GATEWAY_WEBHOOK_SECRETS. Raises: SettingsError"""
    try:
        return read_secrets(env.get("GATEWAY_WEBHOOK_SECRETS", ""))
    except ValueError as error:
        raise SettingsError(f"GATEWAY_WEBHOOK_SECRETS: {error}") from None


def token_keys(env: Mapping[str, str]) -> SigningKeys | None:
    """Return the keys that sign access tokens beside GATEWAY_SECRET: GATEWAY_SIGNING_KEY. Raises: SettingsError"""
    given = env.get("GATEWAY_SIGNING_KEY", "")
    if not given:
        return None
    if not env.get("GATEWAY_PUBLIC_URL"):
        raise SettingsError("GATEWAY_SIGNING_KEY needs GATEWAY_PUBLIC_URL, which names the issuer of the tokens")
    # Only here: cryptography takes as long to import as most commands take to run.
    from auth.signing_keys import BadSigningKeys, SigningKeys, read_file, read_keys

    try:
        path = signing_key_path(env)
        keys = read_file(path) if path else read_keys(given.replace("\\n", "\n"))
    except BadSigningKeys as error:
        raise SettingsError(f"GATEWAY_SIGNING_KEY: {error}") from None
    return SigningKeys(keys, http_url(env, "GATEWAY_PUBLIC_URL", ""))


def signing_key_path(env: Mapping[str, str]) -> Path | None:
    """Return the file that GATEWAY_SIGNING_KEY names, None if it holds the keys themselves or is not set."""
    given = env.get("GATEWAY_SIGNING_KEY", "")
    return Path(given) if given and "-----BEGIN" not in given else None


def hms_given(env: Mapping[str, str]) -> tuple[bool, list[str]]:
    """Return whether any 100ms credential is set, and the names of the missing ones."""
    names = ("HMS_APP_ACCESS_KEY", "HMS_APP_SECRET", "HMS_TEMPLATE_ID")
    missing = [name for name in names if not env.get(name)]
    return len(missing) < len(names), missing


def _demo_env(env: Mapping[str, str]) -> Path | None:
    # Never with a real account: its secret would sign tokens for any process that listens at the demo's 100ms address.
    if env.get("REDIS_URL") or hms_given(env)[0] or env.get(_ENV_FILE):
        return None
    demo = data_folder(env) / DEMO_ENV
    return demo if demo.is_file() else None


def _read_named(path: str) -> dict[str, str]:
    return _read(Path(path), f"--env-file: {path}")


def _read_env_file(path: Path) -> dict[str, str]:
    return _read(path, path.name) if path.is_file() else {}


def _read(path: Path, name: str) -> dict[str, str]:
    try:
        with path.open(encoding="utf-8") as stream:
            values = dotenv_values(stream=stream, interpolate=False)
    except OSError as error:
        raise SettingsError(f"{name} cannot be read: {fault_of(error)}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{name} cannot be read: it is not UTF-8 text") from error
    return {name: value for name, value in values.items() if value}


def _check_given(env: Mapping[str, str]) -> None:
    """Name all required settings that are missing, if there are several. Raises: SettingsError"""
    missing = [name for name in _REQUIRED if not env.get(name, "").strip()]
    if len(missing) > 1:
        names = f"{', '.join(missing[:-1])} and {missing[-1]}"
        raise SettingsError(f"{names} are not set; `gateway init` writes them, `gateway demo` needs none")
