"""What a usage report is asked for, checked."""

from calendar import monthrange
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal, TypeAlias

from gateway.hms.replies import ROOM_ID
from gateway.policy.actions import COUNTED
from gateway.policy.model import Policy, Prices
from gateway.text import FieldError, no_such
from limits.counters import ACTING, METERED, split_metric
from limits.periods import zone_of
from limits.policy import BlockState

MOST_DAYS = 366
EARLIEST, LATEST = date(2000, 1, 1), date(2999, 12, 31)  # so that arithmetic on days cannot overflow
COUNTED_ACTIONS = ("login", *sorted(COUNTED), "api", ACTING, *METERED)
"""The actions that have counters. The metered ones count time, the others requests."""

_SETTLED = timedelta(minutes=10)  # a request is amended up to a minute after it

_OTHERS = "other requests count as api"

Days = tuple[date, date]
"""The first and the last day of a report."""

GroupBy: TypeAlias = Literal["day", "month", "user", "action", "room", "template"]


@dataclass(frozen=True, slots=True)
class Query:
    """A report: its days, what its rows are about, and which of them it has.

    Without `group_by` there is a row per user (or per room, if only one is asked for), day and action; otherwise a row
    per day, user, ... and action. `user` and `room` are ids. With `prices` rows of minutes show money.
    """

    days: Days
    group_by: GroupBy | None = None
    user: str | None = None
    action: str | None = None
    room: str | None = None
    prices: Prices | None = None

    def __post_init__(self) -> None:
        """Raise FieldError if no counter can answer this."""
        if self.action not in (None, *COUNTED_ACTIONS):
            raise FieldError("action", f"{no_such('action', self.action or '', COUNTED_ACTIONS)}; {_OTHERS}")
        if self.room is not None and not ROOM_ID.fullmatch(self.room):
            raise FieldError("room", "must be a room id of 100ms, which has 24 hexadecimal digits")
        if self.user is not None and self.room is not None:
            raise FieldError("room", "must not be given with `user`: there are no counters of one user in one room")
        if self.user is not None and self.group_by in ("room", "template"):
            raise FieldError("group_by", "must not be room or template with `user`: users are not counted per room")
        if self.room is not None and self.group_by == "user":
            raise FieldError("group_by", "must not be user with `room`: users are not counted per room")

    @property
    def is_daily(self) -> bool:
        """Whether each row is about one day, not about all days together."""
        return self.group_by in (None, "day")

    @property
    def pages_of(self) -> Literal["users", "rooms", "nothing"]:
        """What the pages of the report go through; a report of nothing has one page."""
        if self.user is not None or self.room is not None or self.group_by in _OF_ALL:
            return "nothing"
        return "rooms" if self.group_by == "room" else "users"

    @property
    def keys(self) -> tuple[str, ...]:
        """The fields that say what a row is about, besides its action."""
        if self.group_by is None:
            return ("date", "room_id", "room_name", "owner_id") if self.room else ("date", "user_id", "username")
        return _KEYS[self.group_by]


_OF_ALL = ("day", "month", "action", "template")  # grouped like this, a report of everyone has one page
_KEYS: dict[GroupBy, tuple[str, ...]] = {
    "day": ("date",),
    "month": ("month",),
    "user": ("user_id", "username"),
    "action": (),
    "room": ("room_id", "room_name", "owner_id"),
    "template": ("template",),
}


def today_in(zone: str) -> date:
    """Return the day that it is now in a time zone."""
    return datetime.now(zone_of(zone)).date()


def last_settled_day(zone: str) -> date:
    """Return the last day of a time zone that has ended long enough ago that all its requests have been counted."""
    return (datetime.now(zone_of(zone)) - _SETTLED).date() - timedelta(days=1)


def days_of_period(period: str) -> Days:
    """Return the first and the last day of a day (`2026-11-22`) or of a month (`2026-11`). Raises FieldError."""
    try:
        first = date.fromisoformat(period if len(period) > len("2026-11") else f"{period}-01")
    except ValueError:
        raise FieldError("period", "must be a day that exists") from None
    if not EARLIEST <= first <= LATEST:
        raise FieldError("period", f"must lie between {EARLIEST} and {LATEST}")
    return first, first if period == first.isoformat() else first.replace(day=monthrange(first.year, first.month)[1])


def span_of_days(first: date | None, last: date | None, today: date) -> Days:
    """Return the days of a report; by default thirty, up to `last` or today. Raises FieldError."""
    last = last or today
    for field, day in (("to", last), ("from", first or last)):
        if not EARLIEST <= day <= LATEST:
            raise FieldError(field, f"must lie between {EARLIEST} and {LATEST}")
    first = first or last - timedelta(days=29)
    if first > last:
        raise FieldError("from", f"must not be after `to`, which is {last}")
    if (days := (last - first).days + 1) > MOST_DAYS:
        raise FieldError("from", f"must be later: a report has at most {MOST_DAYS} days, and these are {days}")
    return first, last


def check_counter(counter: str) -> None:
    """Check that the action of a counter such as `tokens.mint.ok` has counters. Raises FieldError."""
    parts = split_metric(counter)
    if parts and parts[0] not in COUNTED_ACTIONS:
        raise FieldError("counter", f"{no_such('action', parts[0], COUNTED_ACTIONS)}; {_OTHERS}")


def check_reason(counter: str, policy: Policy, codes: Iterable[str]) -> None:
    """Check that a counter of denials or refusals names a limit of the policy or a code that exists. Raises FieldError.

    For counters without any counts: those of limits that the policy had before may have counts.
    """
    limits = [*policy.limit_names, policy.rooms.lease().id, BlockState(0).name]
    match split_metric(counter):
        case (_, "denied" | "would_deny", name) if name not in limits:
            raise FieldError("counter", no_such("limit or quota", name, limits))
        case (_, "refused", name) if name not in (known := [*codes]):
            raise FieldError("counter", no_such("code", name, known, "docs/api.md"))
