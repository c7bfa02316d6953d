"""The `gateway` command: one file per noun."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import NoReturn

import click
from redis.exceptions import RedisError

from auth.errors import AuthError
from gateway import __version__
from gateway.cli.limits import limits
from gateway.cli.usage import usage
from gateway.cli.users import users
from gateway.policy_file import PolicyError, load_policy
from gateway.settings import Settings, SettingsError, load_env, override
from gateway.store import StoreError
from gateway.user_limits import BadOverride

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


def main() -> None:
    """Run the command; every foreseen failure is one line on standard error and exit code 1."""
    # A library's log line beside ours would say it twice; `serve` and `emulator` configure their own.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        cli(prog_name="gateway")
    except (SettingsError, PolicyError, AuthError) as error:
        _die(str(error))
    except BadOverride as error:
        _die(str(error))
    except StoreError as error:
        _die(f"Redis (REDIS_URL): {error}")
    except RedisError as error:
        _die(f"Redis (REDIS_URL) refused: {type(error).__name__}")


def _die(text: str) -> NoReturn:
    click.echo(f"gateway: {text}", err=True)
    sys.exit(1)


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, prog_name="gateway")
def cli() -> None:
    """An authenticated, rate-limited gateway in front of 100ms live video."""


@cli.command()
@click.option("--host", help="Address to listen on (GATEWAY_HOST).  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(1, 65535), help="Port to listen on (GATEWAY_PORT).  [default: 8000]")
@click.option("--workers", type=click.IntRange(1, 64), help="Processes (GATEWAY_WORKERS).  [default: 1]")
def serve(host: str | None, port: int | None, workers: int | None) -> None:
    """Run the gateway, configured by the environment or `.env`."""
    from gateway.server import run  # uvicorn and Litestar take half a second to import; other commands need neither

    override(GATEWAY_HOST=host, GATEWAY_PORT=port, GATEWAY_WORKERS=workers)
    settings = Settings.from_env()
    load_policy(settings.policy_path)
    run(settings)


@cli.command()
@click.option(
    "--data", type=click.Path(path_type=Path), help="Folder for data and secrets (GATEWAY_DATA).  [default: .gateway]"
)
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the gateway (GATEWAY_PORT).  [default: 8000]")
@click.option(
    "--prepare", is_flag=True, help="Only write the secrets and users of the demo, for `docker compose`; start nothing."
)
def demo(data: Path | None, port: int | None, prepare: bool) -> None:
    """Run everything on this machine: a real Valkey, a local 100ms, the gateway, and three users."""
    from gateway.demo import DemoError, installation, supervisor

    override(GATEWAY_DATA=data, GATEWAY_PORT=port)
    try:
        installation.prepare_only() if prepare else supervisor.run()
    except DemoError as error:
        _die(str(error))


@cli.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=8100, show_default=True, help="Port to listen on.")
@click.option(
    "--state",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File that keeps its rooms and templates.  [default: in memory]",
)
def emulator(host: str, port: int, state: Path | None) -> None:
    """Run the local 100ms: rooms, templates, token checks; for development, no account needed.

    It takes HMS_APP_ACCESS_KEY, HMS_APP_SECRET and HMS_TEMPLATE_ID from where the gateway takes them.
    """
    from gateway.server import run_emulator

    run_emulator(host=host, port=port, state=state, env=load_env())


cli.add_command(users)
cli.add_command(usage)
cli.add_command(limits)
