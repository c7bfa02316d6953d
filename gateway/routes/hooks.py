"""POST /hooks/100ms receives webhooks; /api/admin/webhooks shows operators what became of them."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import get, post
from litestar.params import FromPath, QueryParameter, RawBody
from msgspec import Meta

from gateway.http.access import needs, webhook
from gateway.http.context import Call
from gateway.http.cursors import PageCursor
from gateway.http.problems import Problem
from gateway.metering.intake import PATH
from gateway.routes.schemas import Instant, NextCursor, Success, iso
from gateway.routes.services import Injected

_LetterId = Annotated[str, Meta(description="Id of the dead letter.", examples=["1795341600000-0"])]


class Stored(msgspec.Struct):
    success: Success = True


class WebhookReport(msgspec.Struct):
    enabled: Annotated[bool, Meta(description="Whether a secret is set, so that webhooks are accepted.")]
    last_at: Annotated[Instant | None, Meta(description="When the last event came; null if none has.")]
    lag_ms: Annotated[int, Meta(description="Longest time that one of the last events waited.")]
    waiting: Annotated[int, Meta(description="Events that are stored and not processed yet.")]
    dead_letters: Annotated[int, Meta(description="Events that could not be understood and are kept.")]
    counts: Annotated[
        dict[str, int],
        Meta(
            description="Events that were received; stays that they changed (`applied`), or that were known already "
            "(`unchanged`); events that say nothing about stays (`ignored`), are about a recording (`recorder`) or "
            "could not be understood (`dead`); stays that 100ms corrected afterwards (`corrected`)."
        ),
    ]
    types: Annotated[dict[str, int], Meta(description="Events by type; unknown types together as `other`.")]


class Letter(msgspec.Struct):
    """An event that could not be understood."""

    id: _LetterId
    received_at: Annotated[Instant, Meta(description="When it came.")]
    why: Annotated[str, Meta(description="Why it could not be understood.")]
    bytes: Annotated[int, Meta(description="Length of its body.")]
    body: Annotated[str, Meta(description="Its body, without addresses and tokens, cut after 4,000 characters.")]


class LetterPage(msgspec.Struct):
    items: Annotated[list[Letter], Meta(description="The newest first.")]
    next_cursor: NextCursor | None


@post(PATH, status_code=200, opt=webhook(refuses=("busy",)))
async def receive_webhook(body: RawBody, services: Injected) -> Stored:
    """Store an event of 100ms, to be processed later. 100ms sends an event again that is not answered 200."""
    await services.intake.store(body)
    return Stored()


@get("/api/admin/webhooks", opt=needs("usage.read-any"))
async def webhook_state(services: Injected) -> WebhookReport:
    """Return whether events arrive, and what became of them."""
    state = await services.webhooks.state()
    last_at = None if state.last_ms is None else iso(state.last_ms / 1000)
    numbers = (state.lag_ms, state.waiting, state.dead_letters, state.counts, state.types)
    return WebhookReport(services.secret_check.is_set, last_at, *numbers)


@get("/api/admin/webhooks/dead", opt=needs("usage.read-any"))
async def list_dead_letters(
    request: Call,
    services: Injected,
    limit: Annotated[int, QueryParameter(ge=1, le=100, description="How many items a page has at most.")] = 20,
    cursor: PageCursor = None,
) -> LetterPage:
    """Return events that could not be understood, newest first."""
    before = services.cursors.open("dead-letters", cursor)[0] if cursor else None
    found, following = await services.webhooks.dead(before=before, size=limit)
    services.audit.note_reading("webhooks", by=request.user.uid)
    items = [Letter(one.id, iso(one.at_ms / 1000), one.why, one.bytes, one.body) for one in found]
    return LetterPage(items, services.cursors.seal("dead-letters", following) if following else None)


@post(
    "/api/admin/webhooks/dead/{letter_id:str}/replay",
    status_code=204,
    opt=needs("limits.manage", refuses=("not_found",)),
)
async def replay_dead_letter(letter_id: FromPath[_LetterId], request: Call, services: Injected) -> None:
    """Process an event again. If it cannot be understood this time either, it becomes a new dead letter."""
    if not await services.webhooks.replay(letter_id, by=request.user.uid):
        raise Problem(404, "not_found", "There is no such dead letter.")
    services.intake.wake.set()
