"""Control calls for webhooks in tests: the workspace's webhook, disorder, custom events and the log of deliveries."""

from typing import Annotated, Any

import msgspec
from litestar import delete, get, post
from litestar.di import NamedDependency

from gateway.emulator.errors import ApiError, bad_body
from gateway.emulator.records import Webhook
from gateway.emulator.sender import check_address
from gateway.emulator.state import Workspace
from gateway.emulator.webhooks import Webhooks
from gateway.emulator.wire import Call, Reply, read_body

_Count = Annotated[int, msgspec.Meta(ge=0, le=100)]


class _Disorder(msgspec.Struct, forbid_unknown_fields=True):
    duplicate: _Count = 0
    reorder: _Count = 0


class _Event(msgspec.Struct, forbid_unknown_fields=True):
    event: dict[str, Any]
    room_id: str = ""


@post("/webhook", status_code=200)
async def set_webhook(request: Call, webhooks: NamedDependency[Webhooks]) -> Reply:
    """Set the workspace's webhook, as the dashboard of 100ms does."""
    webhook = await read_body(request, Webhook)
    try:
        await check_address(webhook)
    except ValueError as error:
        raise bad_body(f"url: {error}") from None
    webhooks.default = webhook
    return _shown(webhooks.default)


@get("/webhook")
async def get_webhook(webhooks: NamedDependency[Webhooks]) -> Reply:
    """Return the workspace's webhook with the names of its headers, not their values."""
    return _shown(webhooks.default)


@delete("/webhook")
async def unset_webhook(webhooks: NamedDependency[Webhooks]) -> None:
    """Stop sending events, except those of rooms with their own webhook."""
    webhooks.default = None


@post("/webhook/disorder", status_code=200)
async def disturb_webhooks(request: Call, webhooks: NamedDependency[Webhooks]) -> Reply:
    """Deliver the next events twice, or in the wrong order."""
    disorder = await read_body(request, _Disorder)
    sent = msgspec.structs.asdict(disorder)
    webhooks.disturb(**sent)
    return sent


@delete("/webhook/disorder")
async def restore_order(webhooks: NamedDependency[Webhooks]) -> None:
    """Send held deliveries, and deliver once and in order from now on."""
    webhooks.disturb(duplicate=0, reorder=0)


@post("/events", status_code=202)
async def send_event(
    request: Call, workspace: NamedDependency[Workspace], webhooks: NamedDependency[Webhooks]
) -> Reply:
    """Deliver any event unchanged, such as a replay, an unknown type, missing fields or unknown ids."""
    body = await read_body(request, _Event)
    own = workspace.find_room(body.room_id).webhook if body.room_id else None
    webhook = own or webhooks.default
    if webhook is None:
        raise ApiError(409, "no webhook is set")
    webhooks.send(webhook, body.event, chain=body.room_id)
    return {"url": webhook.url}


@get("/deliveries")
async def list_deliveries(webhooks: NamedDependency[Webhooks]) -> Reply:
    """Return the last deliveries with their attempts, oldest first."""
    return {"deliveries": webhooks.deliveries()}


ROUTES = (set_webhook, get_webhook, unset_webhook, disturb_webhooks, restore_order, send_event, list_deliveries)


def _shown(webhook: Webhook | None) -> Reply:
    if webhook is None:
        return {"url": None, "headers": []}
    return {"url": webhook.url, "headers": sorted(webhook.headers)}
