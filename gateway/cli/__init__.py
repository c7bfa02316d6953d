"""The `gateway` command, with one module per subcommand."""

import logging
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import click

from gateway import __version__
from gateway.cli.failures import foreseen, misuse, not_text
from gateway.settings import Settings, override, process_env, use_env_file
from gateway.text import printable

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


def main() -> None:
    """Run the command. A foreseen failure prints one line on standard error and exits with 1, or with 2 for misuse."""
    # A library's log line would repeat the failure. `serve` and `emulator` configure logging themselves.
    logging.getLogger().addHandler(logging.NullHandler())
    if wrong := not_text(sys.argv[1:]):
        _die(wrong, code=click.UsageError.exit_code)
    try:
        # click would print four lines per error, and does not know https://no-color.org.
        color = False if process_env().get("NO_COLOR") else None
        sys.exit(cli(prog_name="gateway", standalone_mode=False, color=color))
    except click.ClickException as error:
        _die(misuse(error), code=error.exit_code)
    except click.Abort:
        _die("aborted")
    except Exception as error:
        if not (text := foreseen(error)):
            raise
        if isinstance(error, OSError):  # what could not be written would fail again at exit, with a traceback
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _die(text)


def _die(text: str, *, code: int = 1) -> NoReturn:
    click.echo(f"gateway: {printable(text)}", err=True)  # it may quote what others have written
    sys.exit(code)


# Imported on demand: Redis, httpx and rich take longer to import than most commands take to run. The list of commands
# imports none of them (0.2 s of CPU instead of 0.6), so the first words of their help are repeated here.
# Each module has its command under its own name.
_ELSEWHERE = {
    "archive": "The usage of past days in SQL (GATEWAY_ARCHIVE).",
    "audit": "The audit trail: who did what to whom.",
    "doctor": "Check settings, signing keys, policy, archive, traces, Redis, 100ms and webhooks.",
    "emulator": "Run a local 100ms for development.",
    "init": "Write `.env` with new secrets into this folder.",
    "keys": "Service keys of backends; keys that sign access tokens.",
    "limits": "One user's limits: show, reset, override.",
    "policy": "Check a policy file, explain a decision.",
    "rooms": "List, show, adopt, hand over, end and unlock rooms.",
    "usage": "Usage counters.",
    "users": "Accounts: users, their roles and their sessions.",
    "webhooks": "Webhook events of 100ms: status, dead letters, replay.",
}


class Commands(click.Group):
    """The commands of this module and of `_ELSEWHERE`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*self.commands, *_ELSEWHERE])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _ELSEWHERE:
            command: click.Command = getattr(import_module(f"gateway.cli.{cmd_name}"), cmd_name)
            return command
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        summaries = {name: command.get_short_help_str(limit=80) for name, command in self.commands.items()}
        with formatter.section("Commands"):
            formatter.write_dl(sorted((summaries | _ELSEWHERE).items()))


@click.group(cls=Commands, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="gateway")
@click.option("--env-file", type=click.Path(path_type=Path), help="Read settings from this file instead of `.env`.")
def cli(env_file: Path | None) -> None:
    """An authenticated, rate-limited gateway in front of 100ms live video."""
    if env_file is not None:
        use_env_file(env_file)


@cli.command(epilog="Example: gateway serve --port 8000 --workers 4")
@click.option("--host", help="Address to listen on (GATEWAY_HOST).  [default: 127.0.0.1]")
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Port to listen on (GATEWAY_PORT, else PORT).  [default: 8000]"
)
@click.option("--workers", type=click.IntRange(1, 64), help="Processes (GATEWAY_WORKERS).  [default: 1]")
def serve(host: str | None, port: int | None, workers: int | None) -> None:
    """Run the gateway with the settings of the environment or `.env`."""
    from gateway.policy.effective import policy_of

    override(GATEWAY_HOST=host, GATEWAY_PORT=port, GATEWAY_WORKERS=workers)
    settings = Settings.from_env()
    policy_of(settings)  # fails here once, in one line: failing workers would be restarted forever

    from gateway.server import run  # imports uvicorn, so only after the checks

    run(settings)


@cli.command(epilog="Example: gateway demo --port 8001")
@click.option(
    "--data", type=click.Path(path_type=Path), help="Folder for data and secrets (GATEWAY_DATA).  [default: .gateway]"
)
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the gateway (GATEWAY_PORT).  [default: 8000]")
@click.option(
    "--prepare", is_flag=True, help="Only write the secrets and users of the demo, for `docker compose`. Start nothing."
)
def demo(data: Path | None, port: int | None, prepare: bool) -> None:
    """Run Valkey, a local 100ms and the gateway on this machine, with four users."""
    from gateway.demo import installation, supervisor

    override(GATEWAY_DATA=data, GATEWAY_PORT=port)
    try:
        installation.prepare_only() if prepare else supervisor.run()
    except installation.DemoError as error:
        _die(str(error))
