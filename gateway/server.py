"""Running the apps on uvicorn."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

import click
import uvicorn

from gateway import logs
from gateway.settings import Settings, SettingsError, hms_given

GRACE_S = 8  # a request lives 5 s at most; without a bound one slow body would hold up a stop for ever


def run(settings: Settings) -> None:
    """Serve the gateway until SIGINT or SIGTERM.

    Raises:
        SettingsError: the address is taken or is not this machine's.
    """
    logs.configure(settings.log_format)
    _check_free(settings.host, settings.port)
    uvicorn.run(
        "gateway.app:from_env",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # uvicorn would believe X-Forwarded-For of every local peer
        timeout_graceful_shutdown=GRACE_S,
    )


def _check_free(host: str, port: int) -> None:
    """Say in one line what uvicorn, with several workers, says in a loop of tracebacks."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SettingsError(
                f"cannot listen on {host}:{port} ({error.strerror}); choose another with --port or GATEWAY_PORT"
            ) from error


def run_emulator(*, host: str, port: int, state: Path | None, env: Mapping[str, str]) -> None:
    """Serve the local 100ms until SIGINT or SIGTERM.

    Raises:
        SettingsError: a credential is missing, the address is taken, or the state file is corrupt.
    """
    from gateway.emulator.app import create_app
    from gateway.emulator.state import StateError

    _, missing = hms_given(env)
    if missing:
        raise SettingsError(f"{', '.join(missing)} not set; any values will do, as long as the gateway has the same")
    logs.configure(env.get("GATEWAY_LOG", "console"))
    _check_free(host, port)
    try:
        app = create_app(
            access_key=env["HMS_APP_ACCESS_KEY"],
            app_secret=env["HMS_APP_SECRET"],
            template_id=env["HMS_TEMPLATE_ID"],
            state=state,
        )
    except StateError as error:
        raise SettingsError(str(error)) from error
    click.echo(f"A local 100ms on http://{host}:{port}/v2", err=True)
    uvicorn.run(
        app, host=host, port=port, log_config=None, server_header=False, access_log=False, timeout_graceful_shutdown=1
    )
