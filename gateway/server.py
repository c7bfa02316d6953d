"""Running the apps on uvicorn."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path

import click
import uvicorn

from gateway import logs
from gateway.files import hold
from gateway.settings import Settings, SettingsError, hms_given

# Named, not imported: who only watches over workers needs neither it nor Litestar behind it. Without httptools, that is
# on Windows, h11 bounds sizes, not times.
HTTP = "gateway.protocol:BoundedProtocol" if find_spec("httptools") else "h11"
MOST_H11_HEAD_BYTES = 32 * 1024
GRACE_S = 8  # a request lives 5 s at most; without a bound one slow body would hold up a stop for ever


def run(settings: Settings) -> None:
    """Serve the gateway until SIGINT or SIGTERM.

    Raises:
        SettingsError: the address is taken or is not this machine's.
    """
    logs.configure(settings.log_format)
    _check_free(settings.host, settings.port, ways="--port or GATEWAY_PORT")
    uvicorn.run(
        "gateway.app:from_env",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        http=HTTP,
        h11_max_incomplete_event_size=MOST_H11_HEAD_BYTES,
        ws="none",  # there is nothing to upgrade to
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # uvicorn would believe X-Forwarded-For of every local peer
        timeout_graceful_shutdown=GRACE_S,
    )


def _check_free(host: str, port: int, *, ways: str) -> None:
    """Say in one line what uvicorn, with several workers, says in a loop of tracebacks."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SettingsError(
                f"cannot listen on {host}:{port} ({error.strerror}); choose another with {ways}"
            ) from error


def run_emulator(
    *, host: str, port: int, state: Path | None, env: Mapping[str, str], webhook_url: str, webhook_headers: list[str]
) -> None:
    """Serve the local 100ms until SIGINT or SIGTERM. `webhook_headers` are `NAME=VALUE`, an empty URL is no webhook.

    Raises:
        SettingsError: a credential is missing, the address is taken, or the state file or the webhook is unusable or,
            of the file, in use.
    """
    from gateway.emulator.app import create_app
    from gateway.emulator.records import parse_webhook
    from gateway.emulator.sender import check_address
    from gateway.emulator.state import StateError

    _, missing = hms_given(env)
    if missing:
        raise SettingsError(f"{', '.join(missing)} not set; any values will do, as long as the gateway has the same")
    if webhook_headers and not webhook_url:
        raise SettingsError("--webhook-header or EMULATOR_WEBHOOK_HEADER is set, but no --webhook-url it could go to")
    try:
        webhook = parse_webhook(webhook_url, webhook_headers) if webhook_url else None
        if webhook:
            asyncio.run(check_address(webhook))
    except ValueError as error:
        raise SettingsError(f"the webhook (--webhook-url, --webhook-header): {error}") from error
    logs.configure(env.get("GATEWAY_LOG", "console"))
    _check_free(host, port, ways="--port")
    with _alone_with(state):
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
        click.echo(f"A local 100ms on http://{host}:{port}/v2", err=True)
        uvicorn.run(
            app,
            host=host,
            port=port,
            log_config=None,
            server_header=False,
            access_log=False,
            timeout_graceful_shutdown=1,
        )


def _alone_with(state: Path | None) -> AbstractContextManager[object]:
    """Keep other emulators from a state file: each would write over what the other has written."""
    if state is None:
        return nullcontext()
    try:
        return hold(Path(f"{state}.lock"))  # not the file itself, which each save replaces by another
    except BlockingIOError:
        raise SettingsError(
            f"another emulator uses the state file {state}; stop it, or choose another file with --state"
        ) from None
    except OSError as error:
        raise SettingsError(f"emulator state {state} cannot be locked ({error.strerror})") from error
