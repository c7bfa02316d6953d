"""For tests whose numbers are exact as long as Redis answers in time.

A machine that freezes Redis for longer than it may be silent makes the gateway answer 503, as it should, and then
nobody knows what was counted. Only an attempt during which that was logged is repeated; any other failure stands.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tests.servers import Installation

_ATTEMPTS = 3


async def undisturbed(installation: Installation, attempt: Callable[[int], Awaitable[None]]) -> None:
    for number in range(_ATTEMPTS):
        position = len(installation.gateway.output())
        try:
            await attempt(number)
        except (AssertionError, LookupError, TimeoutError):  # a refusal has not the fields that a test looks up
            stalled = "Redis is unavailable" in installation.gateway.output()[position:]
            if not stalled or number == _ATTEMPTS - 1:
                raise
        else:
            return
