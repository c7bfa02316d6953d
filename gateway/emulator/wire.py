"""Requests and replies of all resources: bodies, queries, pages, ids and timestamps."""

import itertools
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, TypeVar

import msgspec
from litestar import Request

from gateway.emulator.errors import ApiError, bad_body, bad_query

T = TypeVar("T")
Call = Request[Any, Any, Any]
Reply = dict[str, Any]

ZERO_TIME = "0001-01-01T00:00:00Z"  # several replies of 100ms use it for "never"
_NS_PER_S = 1_000_000_000
_INSTANT = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?Z")
# The filters have exactly three fractional digits (api-reference/Rooms/list-rooms).
_FILTER = re.compile(r"[0-9-]{10}T[0-9:]{8}\.[0-9]{3}Z")
_PAGE_LEAST, _PAGE_MOST = 10, 100  # how-to-guides/make-api-calls; the least is the default


def new_id() -> str:
    """Return a new 24-hex id that begins with the time in seconds, as the ids of 100ms do."""
    return f"{int(time.time()):08x}{secrets.token_hex(8)}"


def timestamp(at_ns: int, digits: int) -> str:
    """Return an instant as RFC 3339 with up to `digits` (0 to 9) fractional digits, trailing zeros trimmed."""
    seconds, fraction_ns = divmod(at_ns, _NS_PER_S)
    fraction = f"{fraction_ns:09d}"[:digits].rstrip("0")
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{fraction}Z" if fraction else f"{whole}Z"


def instant_ns(text: str) -> int:
    """Return a timestamp as nanoseconds since 1970. Raises ValueError unless it is RFC 3339 in UTC with a `Z`."""
    match = _INSTANT.fullmatch(text)
    if match is None:
        raise ValueError("not an RFC 3339 timestamp in UTC")
    whole = datetime.fromisoformat(f"{match[1]}+00:00")
    return int(whole.timestamp()) * _NS_PER_S + int((match[2] or "0").ljust(9, "0"))


def sent(body: msgspec.Struct) -> dict[str, Any]:
    """Return the fields of a body that were sent."""
    return {field: value for field, value in msgspec.structs.asdict(body).items() if value is not msgspec.UNSET}


def pick(record: msgspec.Struct, *fields: str) -> Reply:
    """Return these fields of a record for a reply."""
    return {field: getattr(record, field) for field in fields}


async def read_body(request: Call, shape: type[T]) -> T:
    """Read a JSON body of this shape, or answer 400 as 100ms does."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise ApiError(400, "Invalid content type", "content type must be application/json")
    raw = await request.body()
    try:
        return msgspec.json.decode(raw, type=shape)
    except msgspec.ValidationError as error:
        raise bad_body(str(error)) from None
    except (ValueError, RecursionError):
        raise ApiError(400, "Invalid body", "body is not valid JSON") from None


def choice(query: Mapping[str, str], name: str) -> bool | None:
    """Return a boolean of the query, which must be `true` or `false`, or None if it is missing."""
    text = query.get(name, "")
    if text not in ("", "true", "false"):
        raise bad_query(f"{name} must be true or false")
    return text == "true" if text else None


def created_within(query: Mapping[str, str]) -> Callable[[str], bool]:
    """Return the filter of `after` and `before`, for the timestamp of a creation."""
    after_ns, before_ns = _moment_ns(query, "after"), _moment_ns(query, "before")

    def within(created_at: str) -> bool:
        created_ns = instant_ns(created_at)
        return (after_ns is None or created_ns >= after_ns) and (before_ns is None or created_ns <= before_ns)

    return within


def _moment_ns(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name, "")
    if not text:
        return None
    try:
        if _FILTER.fullmatch(text) is None:
            raise ValueError
        return instant_ns(text)
    except ValueError:
        raise bad_query(f"{name} must be YYYY-MM-DDTHH:mm:ss.sssZ") from None


def page(
    items: Iterable[T],
    query: Mapping[str, str],
    wanted: Callable[[T], bool] = lambda _: True,
    *,
    identify: Callable[[T], str] = attrgetter("id"),
    render: Callable[[T], Reply],
) -> Reply:
    """Return one page of a list that is newest first, as `{limit, data, last}`.

    `start` is the `last` of the previous page, even if it no longer matches the filter. `last` is set on the final page
    too, so a client must stop at a short page (how-to-guides/make-api-calls).
    """
    limit = _limit(query)
    rest = list(items)
    start = query.get("start", "")
    if start:
        places = [place for place, item in enumerate(rest) if identify(item) == start]
        if not places:
            raise bad_query("start is not the last of any page")
        rest = rest[places[0] + 1 :]
    shown = list(itertools.islice(filter(wanted, rest), limit))
    last = identify(shown[-1]) if shown else ""
    return {"limit": limit, "data": [render(item) for item in shown], "last": last}


def _limit(query: Mapping[str, str]) -> int:
    text = query.get("limit", "")
    if not text:
        return _PAGE_LEAST
    # 100ms does not document values outside the range. Refusing them reveals the mistakes of a client.
    if not re.fullmatch(r"[0-9]{1,3}", text) or not _PAGE_LEAST <= int(text) <= _PAGE_MOST:
        raise bad_query(f"limit must be between {_PAGE_LEAST} and {_PAGE_MOST}")
    return int(text)
