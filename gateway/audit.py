"""The audit trail: who did what to whom, in one bounded Redis stream. Never a secret, a password or a token."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.logs import request_id

log = logging.getLogger("gateway.audit")

STREAM = "audit:1"
_MOST_ENTRIES = 100_000


class Audit:
    """Writes entries, to the stream and as a log line."""

    def __init__(self, execute: Callable[..., Awaitable[Any]]) -> None:
        self._execute = execute

    async def record(self, action: str, *, by: str, subject: str, **details: str | int) -> None:
        """Write one entry: `by` is a user id or `cli`, `subject` the user it is about.

        Raises:
            StoreError: it could not be written; whoever changes something for others should not go on.
        """
        fields: dict[str, str | int] = {"action": action, "by": by, "subject": subject, **details}
        log.info(action, extra={"fields": {name: value for name, value in fields.items() if name != "action"}})
        text = json.dumps(fields | {"request_id": request_id.get()}, ensure_ascii=True)
        await self._execute("XADD", STREAM, "MAXLEN", "~", _MOST_ENTRIES, "*", "entry", text)
