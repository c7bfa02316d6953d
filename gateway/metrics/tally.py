"""What has happened in this process since the last flush, in plain numbers: all that a request pays for metrics."""

from bisect import bisect_left
from typing import Any

from msgspec import Struct

from gateway.hms.calls import Call
from limits.policy import Decision, State

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper ends of the histograms' buckets; a last one has no end."""

CALL_OUTCOMES = ("ok", "refused", "not_found", "unauthorized", "busy", "timeout", "unreachable", "cancelled")
"""How calls to 100ms end."""

UNMATCHED = "(none)"
"""The route of requests that no route serves: unknown addresses and methods, floods, preflights."""

Route = tuple[str, str, int]
"""Method, route and status; 0 if there was no response, because the client had gone."""


class Times(Struct):
    """How often something took how long."""

    count: int
    seconds: float
    buckets: list[int]

    def add(self, seconds: float) -> None:
        self.count += 1
        self.seconds += seconds
        self.buckets[bisect_left(BOUNDS_S, seconds)] += 1


class Outcomes(Struct):
    """What became of the requests checked against one limit, quota or lease."""

    allowed: int = 0
    near_limit: int = 0  # of those allowed: at least 80 % was used
    denied: int = 0
    shadow_denied: int = 0


class Tally:
    """Counts responses, decisions and calls to 100ms until it is emptied."""

    def __init__(self) -> None:
        self.responses: dict[Route, Times] = {}
        self.limits: dict[str, Outcomes] = {}
        self.calls: dict[str, Times] = {}

    def responded(self, scope: Any, status: int, seconds: float) -> None:
        """Count a response. `scope` has been routed, or not."""
        template = scope.get("path_template")
        # A method that no route has is the client's text.
        key = (UNMATCHED, UNMATCHED, status) if template is None else (scope["method"], template, status)
        times = self.responses.get(key)
        if times is None:
            times = self.responses[key] = _times()
        times.add(seconds)

    def decided(self, decision: Decision) -> None:
        """Count a decision for each limit, quota and lease that it checked."""
        if decision.failed_guard is not None:
            return
        for state in decision.limits:  # inline: a mint asks four of them
            outcomes = self.limits.get(state.limit.id) or self._limit(state.limit.id)
            if state.allowed:
                outcomes.allowed += 1
                if state.remaining * 5 <= state.burst:
                    outcomes.near_limit += 1
            elif state.decides:
                outcomes.denied += 1
            else:
                outcomes.shadow_denied += 1
        for quota in decision.quotas:
            self._note(quota, is_near=quota.used * 5 >= quota.amount * 4)
        for lease in decision.leases:
            self._note(lease, is_near=lease.held * 5 >= lease.lease.most * 4)
        if decision.block:
            self._limit(decision.block.name).denied += 1

    def called(self, _: Call, outcome: str, seconds: float) -> None:
        """Count a call to 100ms."""
        if outcome not in self.calls:
            self.calls[outcome] = _times()
        self.calls[outcome].add(seconds)

    def empty(self) -> tuple[dict[Route, Times], dict[str, Outcomes], dict[str, Times]]:
        """Return responses, limits and calls, and begin anew."""
        found = (self.responses, self.limits, self.calls)
        self.responses, self.limits, self.calls = {}, {}, {}
        return found

    def _note(self, state: State, *, is_near: bool) -> None:
        outcomes = self._limit(state.name)
        if state.allowed:
            outcomes.allowed += 1
            outcomes.near_limit += is_near
        elif state.decides:
            outcomes.denied += 1
        else:
            outcomes.shadow_denied += 1

    def _limit(self, name: str) -> Outcomes:
        return self.limits.setdefault(name, Outcomes())


def _times() -> Times:
    return Times(0, 0.0, [0] * (len(BOUNDS_S) + 1))
