"""`gateway emulator`: runs the local 100ms, and plays peers in it."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from gateway.cli.terminal import DURATION, say
from gateway.files import hold
from gateway.setting_values import SettingsError
from gateway.settings import Settings, hms_given, load_env

if TYPE_CHECKING:
    from auth.users import User
    from gateway.cli.connection import Office
    from gateway.emulator.records import Webhook


REMOVED = 3  # the exit code of `join` if the server removed a peer or ended the room


@click.group(
    invoke_without_command=True,
    subcommand_metavar="[join ROOM ...]",
    epilog="Example: gateway emulator --port 8100 --state emulator.json",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=8100, show_default=True, help="Port to listen on.")
@click.option(
    "--state",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File for rooms, codes, templates and sessions.  [default: in memory]",
)
@click.option("--webhook-url", metavar="URL", help="URL that receives events (EMULATOR_WEBHOOK_URL).  [default: none]")
@click.option(
    "--webhook-header",
    "webhook_headers",
    metavar="NAME=VALUE",
    multiple=True,
    help="Header of every event. Can be repeated. EMULATOR_WEBHOOK_HEADER sets one that `ps` does not show.",
)
@click.pass_context
def emulator(
    context: click.Context,
    host: str,
    port: int,
    state: Path | None,
    webhook_url: str | None,
    webhook_headers: tuple[str, ...],
) -> None:
    """Run a local 100ms for development: REST, tokens, sessions and webhooks, without an account.

    Reads HMS_APP_ACCESS_KEY, HMS_APP_SECRET and HMS_TEMPLATE_ID as the gateway does.
    """
    if context.invoked_subcommand is None:
        _run(host, port, state, webhook_url, webhook_headers)
    elif any(context.get_parameter_source(name) is ParameterSource.COMMANDLINE for name in context.params):
        raise click.UsageError("an option of the emulator has no effect on `join`, which reads HMS_API_URL")


@emulator.command("join", epilog="Example: gateway emulator join ROOM --user ada --user ben --for 3min")
@click.argument("room")
@click.option("--user", "names", metavar="NAME", multiple=True, required=True, help="Name or id; can be repeated.")
@click.option("--role", default="", help="Role in the room.  [default: the first one of a participant]")
@click.option("--for", "seconds", type=DURATION, required=True, help="How long to stay, such as 90s, 3min or 1h.")
def join(room: str, names: tuple[str, ...], role: str, seconds: int) -> None:
    """Let users join a room of the local 100ms, and leave.

    They stay as long as --for says; Ctrl-C lets them leave earlier. ROOM is an id, or a name that only one room has.
    Neither the policy nor any limit applies, because the tokens are signed here. The exit code is 3 if the server
    removed a peer or ended the room meanwhile.
    """
    # Here, so that the emulator starts without Redis and passwords, which it does not need.
    from gateway.cli.connection import with_office
    from gateway.cli.peers import Stay, check_local, play

    settings = Settings.from_env()
    check_local(settings)

    async def find(office: Office) -> list[User]:
        return [await office.accounts.lookup(name) for name in names]

    users = with_office(find)
    if not asyncio.run(play(settings, Stay(room, users, role, seconds))):
        click.get_current_context().exit(REMOVED)


def _run(host: str, port: int, state: Path | None, webhook_url: str | None, webhook_headers: tuple[str, ...]) -> None:
    # Here, so that `gateway --help` does not import litestar and uvicorn.
    import uvicorn

    from gateway import logs
    from gateway.emulator.app import create_app
    from gateway.emulator.state import StateError
    from gateway.server import check_free

    env = load_env()
    _, missing = hms_given(env)
    if missing:
        raise SettingsError(f"{', '.join(missing)} not set; set any values, and the same ones for the gateway")
    header = env.get("EMULATOR_WEBHOOK_HEADER")
    webhook = _webhook(
        webhook_url or env.get("EMULATOR_WEBHOOK_URL", ""), [*webhook_headers, *([header] if header else [])]
    )
    logs.configure(env.get("GATEWAY_LOG", "console"))
    check_free(host, port, ways="--port")
    with _locked(state):
        try:
            app = create_app(
                access_key=env["HMS_APP_ACCESS_KEY"],
                app_secret=env["HMS_APP_SECRET"],
                template_id=env["HMS_TEMPLATE_ID"],
                state=state,
                webhook=webhook,
            )
        except StateError as error:
            raise SettingsError(str(error)) from error
        say(f"A local 100ms on http://{host}:{port}/v2", err=True)
        uvicorn.run(
            app,
            host=host,
            port=port,
            log_config=None,
            server_header=False,
            access_log=False,
            timeout_graceful_shutdown=1,
        )


def _webhook(url: str, headers: list[str]) -> Webhook | None:
    """Read the webhook, with headers as `NAME=VALUE`. Return None for an empty URL. Raises: SettingsError"""
    from gateway.emulator.records import parse_webhook
    from gateway.emulator.sender import check_address

    if headers and not url:
        raise SettingsError("--webhook-header or EMULATOR_WEBHOOK_HEADER needs a --webhook-url")
    try:
        webhook = parse_webhook(url, headers) if url else None
        if webhook:
            asyncio.run(check_address(webhook))
    except ValueError as error:
        raise SettingsError(f"the webhook (--webhook-url, --webhook-header): {error}") from error
    return webhook


def _locked(state: Path | None) -> AbstractContextManager[object]:
    """Lock a state file, because two emulators would overwrite each other's changes. Raises: SettingsError"""
    if state is None:
        return nullcontext()
    try:
        return hold(Path(f"{state}.lock"))  # not the file itself, because each save replaces it
    except BlockingIOError:
        raise SettingsError(
            f"another emulator uses the state file {state}; stop it, or choose another file with --state"
        ) from None
    except OSError as error:
        raise SettingsError(f"emulator state {state} cannot be locked ({error.strerror})") from error
