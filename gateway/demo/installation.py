"""The installation of a demo, on disk and in Redis: its secrets, its addresses, its policy and its four users."""

import asyncio
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path

import click
import httpx
from dotenv import dotenv_values  # noqa: TID251  the demo's own file, not the process's settings

from auth.accounts import Accounts
from auth.errors import UnknownUser
from auth.passwords import Passwords
from gateway.demo.guide import Guide
from gateway.files import write_whole
from gateway.policy.effective import policy_of
from gateway.policy.file import built_in_text
from gateway.redis.store import REPORT_DEADLINE_S
from gateway.redis.topology import connect, open_store, open_writes
from gateway.setting_values import SettingsError, is_loopback
from gateway.settings import (
    DEMO_ENV,
    Settings,
    data_folder,
    given_env,
    hms_given,
    in_compose,
    load_env,
    policy_path,
    redis_url,
)
from gateway.traces.recorder import check_extra

HOST = "127.0.0.1"
USERS = ("host", "member", "operator", "admin")
_EMULATOR_PORT = 8100
_POLICY_FOLDER = Path("/etc/gateway/deploy/policy")  # as docker-compose.yml mounts it
_CREDENTIALS = ("HMS_APP_ACCESS_KEY", "HMS_APP_SECRET", "HMS_TEMPLATE_ID")
_WEBHOOK_HEADER = "X-Gateway-Webhook-Secret"  # the gateway's default
_ROOMS_LIMIT = ('{ rate = "10/h", burst = 5 }', '{ rate = "60/min", burst = 30 }')  # the built-in one, the demo's
_CORS = "http://localhost:*,http://127.0.0.1:*"


class DemoError(Exception):
    """The demo cannot start or continue. The text is one line that says what to do."""


def prepare_only() -> None:
    """Write the demo's secrets and users, for servers that `docker compose` runs. Raises: SettingsError, PolicyError

    Does nothing when all of HMS_* are set. Reads REDIS_URL; DEMO_HMS_API_URL and DEMO_GATEWAY_URL, where the servers
    reach each other; DEMO_PUBLIC_URL, where people reach the gateway; and DEMO_EMULATOR_DATA, a folder that only the
    local 100ms reads: its `demo.env` has no passwords.
    """
    env = load_env()
    _check_compose(env)
    given, missing = hms_given(env)
    if missing and any(name.startswith("HMS_") for name in env):
        raise SettingsError(f"{', '.join(missing)} not set; set all of HMS_*, or none of them for a demo")
    if given:
        _check(env)
        click.echo("HMS_* are set, so this is not a demo. There is nothing to prepare.")
        return
    redis_url(env)  # checked before anything is written
    folder = data_folder(env)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    addresses = {"REDIS_URL": env["REDIS_URL"], "HMS_API_URL": env.get("DEMO_HMS_API_URL", "")}
    addresses["GATEWAY_POLICY"] = str(_write_policy(folder))
    demo_env = _write_env(folder, addresses)
    _check({**demo_env, **env})
    if "DEMO_EMULATOR_DATA" in env:
        only = emulator_settings(demo_env, env.get("DEMO_GATEWAY_URL", ""))
        _write(Path(env["DEMO_EMULATOR_DATA"]) / DEMO_ENV, only)
    guide = guide_of(demo_env, env.get("DEMO_PUBLIC_URL", ""), "docker compose exec gateway gateway")
    if asyncio.run(add_users({**demo_env, **env})):
        click.echo(f"DEMO: no HMS_* is set, so a local 100ms replaces 100ms. The gateway will run on {guide.base}")
        click.echo("\n".join([*guide.places(), "", "Users, with passwords that are shown only once:", *guide.logins()]))
        click.echo("\n".join(["", *guide.trial()]))
    else:
        click.echo(f"DEMO on {guide.base}: the users and secrets of the previous start are kept.")
        click.echo("\n".join([*guide.places(), "", "To see the passwords again:"]))
        click.echo("  docker compose exec gateway grep PASSWORD /data/demo.env")


def _check(env: Mapping[str, str]) -> None:
    """Stop `docker compose up` on settings that would stop the gateway. Raises: SettingsError, PolicyError"""
    settings = Settings.from_env(env)
    check_extra(settings)
    policy_of(settings)


def _check_compose(env: Mapping[str, str]) -> None:
    """Refuse settings that are right for this machine and wrong for a container on it. Raises: SettingsError"""
    if not in_compose(env):
        return
    if is_loopback(env.get("REDIS_URL", "")):
        raise SettingsError(
            "REDIS_URL names this machine, but to a container that is the container itself; leave it unset, and compose"
            " runs Redis"
        )
    policy = policy_path(env)
    if policy is not None and not policy.is_relative_to(_POLICY_FOLDER):
        raise SettingsError(
            "GATEWAY_POLICY must be a file in deploy/policy, such as ./deploy/policy/policy.toml: compose mounts that"
            " folder, so that changes of the file are seen"
        )


def guide_of(env: Mapping[str, str], base: str, command: str) -> Guide:
    """Return how to use a demo whose gateway people reach at this address."""
    return Guide(base, command, {name: password(env, name) for name in USERS})


def environment(folder: Path, port: int) -> dict[str, str]:
    """Return the caller's environment, overridden by all that the demo sets, including its passwords."""
    before, given = saved(folder), given_env()
    redis_port = free_port(port_of(before.get("REDIS_URL")))
    emulator_port = free_port(port_of(before.get("HMS_API_URL")) or _EMULATOR_PORT)
    password = before.get("DEMO_REDIS_PASSWORD") or secrets.token_urlsafe(24)
    policy = policy_path(given)
    env = _write_env(
        folder,
        {
            "REDIS_URL": f"redis://:{password}@{HOST}:{redis_port}/0",
            "HMS_API_URL": f"http://{HOST}:{emulator_port}/v2",
            "DEMO_REDIS_PASSWORD": password,
            "GATEWAY_PORT": str(port),
            # As given now, so that commands in another shell use them too.
            "GATEWAY_ARCHIVE": given.get("GATEWAY_ARCHIVE") or f"sqlite:///{folder}/usage.db",
            "GATEWAY_POLICY": str(policy.absolute() if policy else _write_policy(folder)),
        },
    )
    write_whole(folder / "valkey.conf", _valkey_config(folder, redis_port, password))
    caller = {name: value for name, value in given.items() if not name.startswith(("HMS_", "REDIS_"))}
    return {**caller, **env, "GATEWAY_LOG": caller.get("GATEWAY_LOG", "console"), "GATEWAY_DATA": str(folder)}


def _write_policy(folder: Path) -> Path:
    """Write the built-in policy with a roomier limit for new rooms, which cost nothing here; return its path."""
    path = folder / "policy.toml"
    text = built_in_text().replace(*_ROOMS_LIMIT)
    write_whole(path, f"# Written at each start of the demo. Edit a copy, and set GATEWAY_POLICY to it.\n{text}")
    return path


def _write_env(folder: Path, addresses: Mapping[str, str]) -> dict[str, str]:
    """Write `demo.env` with these addresses. Other values are kept, or generated if they are missing."""
    fresh = {
        "GATEWAY_SECRET": secrets.token_urlsafe(48),
        "GATEWAY_CORS_ORIGINS": _CORS,
        "GATEWAY_COOKIES": "on",
        "GATEWAY_REGISTRATION": "open",
        "HMS_APP_ACCESS_KEY": secrets.token_hex(12),
        "HMS_APP_SECRET": secrets.token_urlsafe(48),
        "HMS_TEMPLATE_ID": secrets.token_hex(12),
        "HMS_WEBHOOK_SECRET": secrets.token_urlsafe(48),
        **{f"DEMO_PASSWORD_{name.upper()}": secrets.token_hex(12) for name in USERS},  # hex holds no user name
    }
    env = {**fresh, **saved(folder), **addresses}
    _write(folder / DEMO_ENV, env)
    return env


def emulator_settings(env: Mapping[str, str], gateway: str) -> dict[str, str]:
    """Return what the local 100ms needs, for a gateway at this address: its credentials and where it sends events."""
    return {name: env[name] for name in _CREDENTIALS} | {
        "EMULATOR_WEBHOOK_URL": f"{gateway}/hooks/100ms",
        "EMULATOR_WEBHOOK_HEADER": f"{_WEBHOOK_HEADER}={env['HMS_WEBHOOK_SECRET']}",
    }


def _write(path: Path, settings: Mapping[str, str]) -> None:
    lines = "".join(f"{name}={value}\n" for name, value in sorted(settings.items()))
    write_whole(path, f"# Written by `gateway demo`; for this machine only.\n{lines}")


def saved(folder: Path) -> dict[str, str]:
    return {name: value for name, value in dotenv_values(folder / DEMO_ENV, interpolate=False).items() if value}


def _valkey_config(folder: Path, port: int, password: str) -> str:
    return (
        f'bind {HOST}\nport {port}\ndir "{folder}"\nrequirepass {password}\n'
        'appendonly yes\nappendfsync everysec\nsave ""\nmaxmemory-policy noeviction\n'
    )


async def add_users(env: Mapping[str, str]) -> bool:
    """Create the demo's users that are missing. Return whether there were any."""
    redis = connect(redis_url(env))
    store = open_store(redis, deadline_s=REPORT_DEADLINE_S)
    passwords = Passwords()
    accounts = Accounts(store.execute, passwords, write=open_writes(redis).execute)
    fresh = False
    try:
        for name in USERS:
            try:
                await accounts.find(name)
            except UnknownUser:
                await accounts.add(name, password(env, name), roles=[name])
                fresh = True
    finally:
        await store.close()
        passwords.close()
    return fresh


def password(env: Mapping[str, str], name: str) -> str:
    return env[f"DEMO_PASSWORD_{name.upper()}"]


def port_of(url: str | None) -> int | None:
    return httpx.URL(url).port if url else None


def free_port(wanted: int | None) -> int:
    """Return the wanted port if it is free, or else any free port. Raises: DemoError"""
    for port in (wanted, 0):
        if port is None:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise DemoError("this machine has no free port")
