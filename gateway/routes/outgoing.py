"""/api/admin/webhooks/out shows operators which events reach their own systems, and sends again what did not."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import get, post
from litestar.params import FromPath, QueryParameter
from msgspec import Meta

from gateway.http.access import needs
from gateway.http.context import Call
from gateway.http.cursors import PageCursor
from gateway.http.problems import Problem
from gateway.outgoing.control import UnknownEndpoint
from gateway.routes.schemas import Instant, NextCursor, iso
from gateway.routes.services import Injected

_LetterId = Annotated[str, Meta(description="Id of the dead letter.", examples=["1795341600000-0"])]
_Name = Annotated[str, Meta(description="Name of the endpoint in the policy.", examples=["billing"])]


class EndpointReport(msgspec.Struct):
    """An endpoint of the policy, and what became of its events since the installation began."""

    name: _Name
    host: Annotated[str, Meta(description="Host of its URL.")]
    events: Annotated[list[str], Meta(description="Types of the events that it wants.")]
    waiting: Annotated[int, Meta(description="Events that wait to be sent, or to be sent again.")]
    delivered: Annotated[int, Meta(description="Events that it answered with a status from 200 to 299.")]
    failed: Annotated[int, Meta(description="Attempts that failed and were repeated.")]
    dead: Annotated[int, Meta(description="Events that were given up.")]
    last_delivered_at: Annotated[Instant | None, Meta(description="When the last event was delivered; null: never.")]
    last_failed_at: Annotated[Instant | None, Meta(description="When the last attempt failed; null: never.")]
    last_failure: Annotated[str, Meta(description="Why, if none was delivered since; otherwise empty.")]
    gone_at: Annotated[
        Instant | None,
        Meta(description="When it answered 410; it then gets nothing until the gateway restarts. Otherwise null."),
    ]


class EndpointReports(msgspec.Struct):
    items: Annotated[list[EndpointReport], Meta(description="All endpoints of the policy.")]
    dead_letters: Annotated[int, Meta(description="Events that could not be delivered and are kept.")]


class Undelivered(msgspec.Struct):
    """An event that could not be delivered."""

    id: _LetterId
    endpoint: _Name
    message_id: Annotated[str, Meta(description="Id of the event, which receivers get as `webhook-id`.")]
    type: Annotated[str, Meta(description="Type of the event.")]
    failed_at: Annotated[Instant, Meta(description="When it was given up.")]
    why: Annotated[str, Meta(description="Why the last attempt failed.")]
    body: Annotated[str, Meta(description="Its body, as it is sent.")]


class UndeliveredPage(msgspec.Struct):
    items: Annotated[list[Undelivered], Meta(description="The newest first.")]
    next_cursor: NextCursor | None


class TrialReport(msgspec.Struct):
    """What an endpoint answered to a test."""

    delivered: Annotated[bool, Meta(description="Whether the status is from 200 to 299.")]
    status: Annotated[int | None, Meta(description="Status of the answer; null if there was none.")]
    failure: Annotated[str, Meta(description="Why there was no answer; otherwise empty.")]
    took_ms: Annotated[int, Meta(description="Milliseconds until the answer or the failure.")]


@get("/api/admin/webhooks/out", opt=needs("usage.read-any"))
async def outgoing_state(services: Injected) -> EndpointReports:
    """Return the endpoints that receive events, and whether events reach them."""
    found = [
        EndpointReport(
            name=one.name,
            host=one.host,
            events=one.events,
            waiting=one.waiting,
            delivered=one.delivered,
            failed=one.failed,
            dead=one.dead,
            last_delivered_at=_at(one.last_delivered_ms),
            last_failed_at=_at(one.last_failed_ms),
            last_failure=one.last_failure,
            gone_at=_at(one.gone_ms),
        )
        for one in await services.outgoing.state()
    ]
    return EndpointReports(found, await services.outgoing.count_dead())


@get("/api/admin/webhooks/out/dead", opt=needs("usage.read-any"))
async def list_undelivered(
    request: Call,
    services: Injected,
    limit: Annotated[int, QueryParameter(ge=1, le=100, description="How many items a page has at most.")] = 20,
    cursor: PageCursor = None,
) -> UndeliveredPage:
    """Return events that could not be delivered, newest first."""
    before = services.cursors.open("undelivered", cursor)[0] if cursor else None
    found, following = await services.outgoing.dead(before=before, size=limit)
    services.audit.note_reading("webhooks.out", by=request.user.uid)
    items = [
        Undelivered(one.id, one.endpoint, one.message.id, one.message.type, iso(one.at_ms / 1000), one.why, body)
        for one in found
        for body in (one.message.body,)
    ]
    return UndeliveredPage(items, services.cursors.seal("undelivered", following) if following else None)


@post(
    "/api/admin/webhooks/out/dead/{letter_id:str}/replay",
    status_code=204,
    opt=needs("limits.manage", refuses=("not_found",)),
)
async def replay_undelivered(letter_id: FromPath[_LetterId], request: Call, services: Injected) -> None:
    """Deliver an event after all, with all its attempts."""
    try:
        found = await services.outgoing.replay(letter_id, by=request.user.uid)
    except UnknownEndpoint as error:
        raise Problem(404, "not_found", str(error)) from None
    if not found:
        raise Problem(404, "not_found", "There is no such dead letter.")


@post("/api/admin/webhooks/out/{name:str}/test", status_code=200, opt=needs("limits.manage", refuses=("not_found",)))
async def test_endpoint(name: FromPath[_Name], request: Call, services: Injected) -> TrialReport:
    """Send an endpoint an event of the type `webhook.test`, once, and return what it answered within 10 s."""
    try:
        trial = await services.outgoing.test(name, by=request.user.uid)
    except UnknownEndpoint as error:
        raise Problem(404, "not_found", str(error)) from None
    return TrialReport(trial.delivered, trial.status, trial.failure, trial.took_ms)


def _at(at_ms: int | None) -> str | None:
    return None if at_ms is None else iso(at_ms / 1000)
