"""The emulator's composition root."""

from pathlib import Path
from typing import Any

from litestar import Litestar, Router
from litestar.di import Provide
from litestar.types import ASGIApp

from gateway.emulator import active_rooms, control, joining, room_codes, rooms, sessions, templates, webhook_control
from gateway.emulator.control import CallLog
from gateway.emulator.errors import answer
from gateway.emulator.faults import FaultRules
from gateway.emulator.intake import Intake
from gateway.emulator.live import LiveRooms
from gateway.emulator.records import Webhook
from gateway.emulator.state import Workspace
from gateway.emulator.templates import seed_template
from gateway.emulator.tokens import Verifier, management_guard
from gateway.emulator.webhooks import Webhooks

# Browsers call these paths, from any origin.
_BROWSER_PATHS = frozenset({"/init", "/v2/token"})
_REST = (*rooms.ROUTES, *room_codes.ROUTES, *active_rooms.ROUTES, *sessions.ROUTES, *templates.ROUTES)
_CONTROL = (*control.ROUTES, *joining.ROUTES, *webhook_control.ROUTES)


def create_app(
    *, access_key: str, app_secret: str, template_id: str, state: Path | None, webhook: Webhook | None = None
) -> ASGIApp:
    """Build the ASGI app of a local 100ms with one workspace and its REST API under `/v2`.

    `template_id` is the default template of new rooms. If the state lacks it, it is created with the name "default" and
    the roles `guest` and `host`. `state` is the file for everything except running peers (mode 0600, one process at a
    time); None keeps everything in memory. Raises: StateError, or ValueError if a credential is empty.
    """
    if not (access_key and app_secret and template_id):
        raise ValueError("the emulator needs an access key, an app secret and a template id")
    workspace = _open_workspace(access_key, template_id, state)
    webhooks = Webhooks(workspace, webhook)
    live = LiveRooms(workspace, webhooks.emit)
    verifier, faults, calls = Verifier(access_key, app_secret), FaultRules(), CallLog()
    services = {"workspace": workspace, "live": live, "webhooks": webhooks, "verifier": verifier, "faults": faults}
    services |= {"calls": calls, "default_template_id": template_id}

    async def stop() -> None:
        await webhooks.close()
        await live.close()

    app = Litestar(
        route_handlers=[
            Router("/v2", route_handlers=_REST, guards=[management_guard(verifier)]),
            Router("/emulator", route_handlers=_CONTROL, guards=[control.control_guard(verifier)]),
            *joining.CLIENT_ROUTES,
            *room_codes.CLIENT_ROUTES,
        ],
        dependencies={name: _given(service) for name, service in services.items()},
        exception_handlers={Exception: answer},
        on_shutdown=[stop],
        openapi_config=None,
        logging_config=None,
    )
    return Intake(app, faults=faults, calls=calls, browser_paths=_BROWSER_PATHS)


def _open_workspace(access_key: str, template_id: str, state: Path | None) -> Workspace:
    workspace = Workspace(access_key, state)
    workspace.load()
    if seed_template(workspace, template_id):
        # Saved at once, so that its timestamps survive a restart and an unwritable path is noticed now.
        workspace.save_now()
    return workspace


def _given(value: Any) -> Provide:
    return Provide(lambda: value, sync_to_thread=False)
