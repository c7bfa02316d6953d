"""GET /api/admin/events: confirmed stays for billing systems, as CloudEvents."""

from typing import Annotated

import msgspec
from litestar import Response, get
from litestar.params import QueryParameter

from gateway.http.access import needs
from gateway.http.context import Call
from gateway.routes.schemas import iso
from gateway.routes.services import Injected
from gateway.usage.feed import PLACE, Entry

_MEDIA_TYPE = "application/x-ndjson"
_LINES = msgspec.json.Encoder()


class StayData(msgspec.Struct):
    room_id: str
    session_id: str
    user_id: str
    owner_id: str
    role: str
    started_at: str
    ended_at: str
    seconds: int


class StayEvent(msgspec.Struct):
    """An event of CloudEvents 1.0 in its JSON form. `sequence` (an extension) is its place in the feed."""

    id: str
    source: str
    subject: str
    time: str
    sequence: str
    data: StayData
    specversion: str = "1.0"
    type: str = "gateway.stay"
    datacontenttype: str = "application/json"

    @classmethod
    def of(cls, entry: Entry, source: str) -> "StayEvent":
        started_at, ended_at = iso(entry.started_ms / 1000), iso(entry.ended_ms / 1000)
        ids = (entry.room, entry.session, entry.user, entry.owner, entry.role)
        data = StayData(*ids, started_at, ended_at, entry.seconds)
        return cls(entry.id, source, entry.user, ended_at, entry.place, data)


@get("/api/admin/events", media_type=_MEDIA_TYPE, opt=needs("usage.read-any"))
async def read_events(
    request: Call,
    services: Injected,
    after: Annotated[
        str | None,
        QueryParameter(pattern=PLACE, description="`sequence` of the last event that was processed; by default none."),
    ] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=1000, description="How many events to return at most.")] = 100,
) -> Response[bytes]:
    """Return confirmed stays as CloudEvents 1.0, one JSON object per line, oldest first; empty at the end."""
    entries = await services.feed.page(after, limit)
    services.audit.note_reading("events", by=request.user.uid)
    lines = _LINES.encode_lines([StayEvent.of(entry, services.feed_source) for entry in entries])
    return Response(lines, media_type=_MEDIA_TYPE)
