"""Timestamps as 100ms writes them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_TIMESTAMP = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]{1,9})?Z")
_UNSET = "0001-01-01T00:00:00"


def epoch_s(value: object) -> float | None:
    """Return a timestamp of 100ms in epoch seconds, None for every way in which it says that there is none.

    Documented are RFC 3339 in UTC with 0 to 9 digits of fraction, trailing zeros trimmed, and for "not set" the year 1,
    null, an empty string or a missing key. What is none of these counts as not set: a time is never worth an error.
    """
    match = _TIMESTAMP.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[1] == _UNSET:
        return None
    try:
        whole = datetime.fromisoformat(match[1]).replace(tzinfo=UTC)
    except ValueError:  # the 31st of February
        return None
    # Not by fromisoformat: it cuts the fraction to microseconds.
    return whole.timestamp() + float(match[2] or 0)
