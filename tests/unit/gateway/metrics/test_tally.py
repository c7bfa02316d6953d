"""What a request adds to the metrics."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.hms.calls import Call
from gateway.metrics.tally import BOUNDS_S, UNMATCHED, Outcomes, Tally
from limits.policy import BlockState, Charge, Decision, Lease, LeaseState, Limit, LimitState, Quota, QuotaState

LIMIT = Limit("api", 100, 60_000_000, 10)
SHADOW = Limit("trial", 100, 60_000_000, 10, shadow=True)
CALL = Call("POST", "/rooms")
MONTH = Quota("month", "tokens.mint", 10, "month")


def limit_state(remaining: int, *, limit: Limit = LIMIT, allowed: bool = True) -> LimitState:
    return LimitState(limit, allowed, remaining, 0 if allowed else 1, 0, limit.emission_us, limit.burst)


def decision(*limits: LimitState, **more: Any) -> Decision:
    allowed = all(state.allowed or not state.decides for state in limits)
    return Decision("1", "u", "api", 0, allowed, limits, charges=tuple(Charge(one.limit) for one in limits), **more)


def test_responses_are_counted_by_method_route_and_status() -> None:
    tally = Tally()
    mint = {"method": "POST", "path": "/api/rooms/1/token", "path_template": "/api/rooms/{room_id}/token"}
    for status in (200, 200, 429):
        tally.responded(mint, status, 0.001)
    counts = {route: times.count for route, times in tally.responses.items()}
    assert counts == {("POST", mint["path_template"], 200): 2, ("POST", mint["path_template"], 429): 1}


def test_requests_without_a_route_share_one_bucket_whatever_the_client_writes() -> None:
    tally = Tally()
    for method in ("GET", "BREW", "X" * 90):
        tally.responded({"method": method, "path": f"/{method}"}, 404, 0.001)
    assert {route: times.count for route, times in tally.responses.items()} == {(UNMATCHED, UNMATCHED, 404): 3}


def test_a_time_is_counted_in_the_first_bucket_that_reaches_it() -> None:
    tally = Tally()
    for seconds in (BOUNDS_S[0], BOUNDS_S[0] + 1e-9, 60.0):
        tally.called(CALL, "ok", seconds)
    times = tally.calls["ok"]
    assert (times.count, times.seconds) == (3, pytest.approx(60.002))
    assert times.buckets == [1, 1, *[0] * (len(BOUNDS_S) - 2), 1]


@pytest.mark.parametrize(
    ("state", "outcomes"),
    [
        (limit_state(3), Outcomes(allowed=1)),
        (limit_state(2), Outcomes(allowed=1, near_limit=1)),
        (limit_state(0, allowed=False), Outcomes(denied=1)),
    ],
    ids=["free", "80 percent used", "denied"],
)
def test_a_limit_is_allowed_near_or_denied(state: LimitState, outcomes: Outcomes) -> None:
    tally = Tally()
    tally.decided(decision(state))
    assert tally.limits == {"api": outcomes}


def test_a_shadow_limit_would_have_denied() -> None:
    tally = Tally()
    tally.decided(decision(limit_state(0, limit=SHADOW, allowed=False), limit_state(9)))
    assert tally.limits == {"trial": Outcomes(shadow_denied=1), "api": Outcomes(allowed=1)}


def test_quotas_leases_and_blocks_are_counted_like_limits() -> None:
    tally = Tally()
    spent = QuotaState(MONTH, False, 10, 10, 1, 1, 1)
    near = QuotaState(Quota("minutes", "minutes", 10, "month", unit=60, metered=True), True, 480, 10, 1, 0, 1)
    lease = LeaseState(Lease("rooms", 5, 1, "holder"), True, 4, 0)
    tally.decided(decision(quotas=(spent, near), leases=(lease,), block=BlockState(1)))
    assert tally.limits == {
        "month": Outcomes(denied=1),
        "minutes": Outcomes(allowed=1, near_limit=1),
        "rooms": Outcomes(allowed=1, near_limit=1),
        "block": Outcomes(denied=1),
    }


def test_a_failed_guard_asked_no_limit() -> None:
    tally = Tally()
    tally.decided(Decision("", "u", "api", 0, False, failed_guard=0))
    assert tally.limits == {}


def test_emptying_begins_anew() -> None:
    tally = Tally()
    tally.called(CALL, "ok", 0.1)
    assert tally.empty()[2]["ok"].count == 1
    assert tally.empty() == ({}, {}, {})
