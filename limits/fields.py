"""Decisions as HTTP field values, per draft-ietf-httpapi-ratelimit-headers-11 (structured fields, RFC 9651).

Only text goes in and out: the package knows no HTTP library.
"""

from __future__ import annotations

import random

from .policy import US_PER_S, Decision, LimitState

DRAFT = 11
# An open change of the draft renames these parameters; the next draft gets a row, not a search and replace.
_PARAMETERS = {11: {"quota": "q", "window": "w", "remaining": "r", "reset": "t"}}
_MOST_POLICIES = 4  # the draft asks for few; a client acts on the tightest


def _ceil_s(us: int) -> int:
    return -(-us // US_PER_S)


def _reset_s(state: LimitState) -> int:
    """Seconds until the units left are worth waiting for: time of `remaining` units, or until one unit at none left."""
    emission_us = state.limit.emission_us
    if state.remaining:
        return max(1, _ceil_s(state.remaining * emission_us))
    spent_us = state.full_again_us - (state.limit.burst - 1) * emission_us
    return max(1, _ceil_s(spent_us), _ceil_s(state.retry_us))


def ratelimit_fields(decision: Decision) -> dict[str, str]:
    """Return the values of RateLimit-Policy and RateLimit, tightest limit first, at most four; {} without limits."""
    if not decision.states:
        return {}
    name = _PARAMETERS[DRAFT]
    tightest = sorted(decision.states, key=lambda state: (state.allowed, state.remaining, -state.retry_us))
    policies, states = [], []
    for state in tightest[:_MOST_POLICIES]:
        limit = state.limit
        policies.append(f'"{limit.id}";{name["quota"]}={limit.burst};{name["window"]}={limit.window_s}')
        states.append(f'"{limit.id}";{name["remaining"]}={state.remaining};{name["reset"]}={_reset_s(state)}')
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(states)}


def retry_after_s(decision: Decision) -> int | None:
    """Return whole seconds for Retry-After of a denial, None if no waiting helps.

    Jittered upwards by at most a tenth (5 s at most), so that the clients of one outage or one loop do not all come
    back in the same second.
    """
    if decision.never:
        return None
    least = max(1, _ceil_s(decision.retry_us), *(_reset_s(state) for state in decision.violated))
    return least + random.randint(0, min(5, least // 10))  # noqa: S311  spreading load, not secrecy
