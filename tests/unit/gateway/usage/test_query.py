"""What a usage report may be asked for."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from gateway.http.problem_codes import STATUS
from gateway.policy.file import load_policy
from gateway.text import FieldError
from gateway.usage.query import Query, check_counter, check_reason, days_of_period, span_of_days, today_in

DAYS = date(2026, 11, 1), date(2026, 11, 30)
ROOM = "64f0c0ffee64f0c0ffee64f0"


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"action": "rooms.list"}, "action"),  # counted as api
        ({"room": "r1"}, "room"),
        ({"room": ROOM, "user": "u1"}, "room"),
        ({"room": ROOM, "group_by": "user"}, "group_by"),
        ({"user": "u1", "group_by": "room"}, "group_by"),
        ({"user": "u1", "group_by": "template"}, "group_by"),
    ],
    ids=str,
)
def test_a_report_that_no_counter_can_answer_is_refused_by_field(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(FieldError) as refusal:
        Query(DAYS, **wrong)
    assert refusal.value.field == field


@pytest.mark.parametrize("action", ["minutes", "owned", "login", "api", "tokens.mint", "rooms.create"])
def test_every_counted_action_can_be_asked_for(action: str) -> None:
    assert Query(DAYS, action=action).action == action


def check(counter: str) -> None:
    check_counter(counter)
    check_reason(counter, load_policy(None), STATUS)


@pytest.mark.parametrize(
    ("counter", "said"),
    [
        ("tokn.mint.ok", "did you mean tokens.mint\\?.* other requests count as api"),
        ("rooms.list.ok", "there is no action 'rooms.list'"),
        ("tokens.mint.denied.tokens.mnt", "there is no limit or quota 'tokens.mnt'; did you mean tokens.mint"),
        ("api.would_deny.apo", "there is no limit or quota 'apo'; did you mean api"),
        ("api.refused.forbid", "there is no code 'forbid'; did you mean forbidden"),
    ],
)
def test_a_mistyped_counter_is_refused_with_what_it_may_mean(counter: str, said: str) -> None:
    with pytest.raises(FieldError, match=said) as refusal:
        check(counter)
    assert refusal.value.field == "counter"


@pytest.mark.parametrize(
    "counter",
    [
        *("minutes", "owned", "money", "denials", "login.ok", "act-as.failed", "api.denied.api"),
        *("rooms.create.denied.rooms.active", "api.denied.block", "api.refused.not_found", "owned.ok"),
    ],
)
def test_every_counter_that_exists_can_be_asked_for(counter: str) -> None:
    check(counter)


def test_a_report_has_at_most_366_days() -> None:
    today = date(2026, 11, 29)
    assert span_of_days(date(2024, 1, 1), date(2024, 12, 31), today) == (date(2024, 1, 1), date(2024, 12, 31))
    with pytest.raises(FieldError, match="at most 366 days, and these are 367"):
        span_of_days(date(2023, 12, 31), date(2024, 12, 31), today)
    with pytest.raises(FieldError, match="from: must not be after `to`, which is 2026-11-01"):
        span_of_days(date(2026, 11, 2), date(2026, 11, 1), today)
    assert span_of_days(None, None, today) == (date(2026, 10, 31), today)


def test_the_period_of_a_top_list_has_the_days_of_a_day_or_month_that_exists() -> None:
    assert days_of_period("2026-11-22") == (date(2026, 11, 22), date(2026, 11, 22))
    assert days_of_period("2028-02") == (date(2028, 2, 1), date(2028, 2, 29))
    assert days_of_period("2026-12-01") == (date(2026, 12, 1), date(2026, 12, 1))
    for wrong in ("2026-02-29", "0000-01", "9999-12"):
        with pytest.raises(FieldError) as refusal:
            days_of_period(wrong)
        assert refusal.value.field == "period"


@pytest.mark.parametrize(
    ("zone", "offset"), [("Etc/GMT-14", timedelta(hours=14)), ("Etc/GMT+12", timedelta(hours=-12))]
)
def test_today_is_that_of_the_zone(zone: str, offset: timedelta) -> None:
    before = (datetime.now(UTC) + offset).date()
    today = today_in(zone)
    assert before <= today <= (datetime.now(UTC) + offset).date()
