"""Decisions as texts of HTTP fields, per draft-ietf-httpapi-ratelimit-headers-11 (structured fields, RFC 9651)."""

import random
from functools import lru_cache

from .policy import US_PER_S, Decision, LimitState, QuotaState

DRAFT = 11
# An open change of the draft renames these parameters: the next draft gets its own row.
_PARAMETERS = {11: {"quota": "q", "window": "w", "remaining": "r", "reset": "t"}}
_MOST_POLICIES = 4  # the draft asks for few; a client acts on the tightest


def _ceil_s(us: int) -> int:
    return -(-us // US_PER_S)


def _reset_s(state: LimitState | QuotaState, now_us: int) -> int:
    """Return the seconds that the remaining units last; with none left, until the next; for a quota, until its end."""
    if isinstance(state, QuotaState):
        return max(1, _ceil_s(state.ends_us - now_us))
    if state.remaining:
        return max(1, _ceil_s(state.remaining * state.emission_us))
    next_unit_us = state.full_again_us - (state.burst - 1) * state.emission_us
    return max(1, _ceil_s(next_unit_us), _ceil_s(state.retry_us))


def ratelimit_fields(decision: Decision) -> dict[str, str]:
    """Return RateLimit-Policy and RateLimit of the four tightest limits that decide; {} if there are none."""
    every: tuple[LimitState | QuotaState, ...] = (*decision.limits, *decision.quotas)
    states = [state for state in every if state.decides]
    if not states:
        return {}
    if len(states) > 1:
        states.sort(key=lambda state: (state.allowed, state.remaining, -state.retry_us))
    left, reset = _PARAMETERS[DRAFT]["remaining"], _PARAMETERS[DRAFT]["reset"]
    policies, lefts = [], []
    for state in states[:_MOST_POLICIES]:
        policies.append(
            _policy(state.name, state.burst if isinstance(state, LimitState) else state.amount, state.window_s)
        )
        lefts.append(f'"{state.name}";{left}={state.remaining};{reset}={_reset_s(state, decision.now_us)}')
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(lefts)}


@lru_cache(maxsize=256)  # states change with every request, limits do not
def _policy(name: str, units: int, window_s: int) -> str:
    parameters = _PARAMETERS[DRAFT]
    return f'"{name}";{parameters["quota"]}={units};{parameters["window"]}={window_s}'


def retry_after_s(decision: Decision) -> int | None:
    """Return the whole seconds for Retry-After of a denial; None if waiting does not help."""
    if decision.never:
        return None
    resets = [
        _reset_s(state, decision.now_us) for state in decision.violated if isinstance(state, LimitState | QuotaState)
    ]
    least = max(1, _ceil_s(decision.retry_us), *resets)
    # So that clients do not all return in the same second.
    return least + random.randint(0, min(5, least // 10))  # noqa: S311  spreading load, not secrecy
