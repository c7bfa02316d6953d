"""The doctor's findings about webhooks."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from gateway.cli.webhook_checks import (
    check_events,
    check_outgoing,
    judge_arrival,
    judge_dead_letters,
    judge_lag,
    judge_outgoing,
    judge_webhooks,
)
from gateway.outgoing.control import EndpointState
from gateway.policy.endpoints import Endpoint
from gateway.policy.file import load_policy
from gateway.redis.store import StoreError
from gateway.settings import Settings

REAL, LOCAL = "https://api.100ms.live/v2", "http://127.0.0.1:8100/v2"


def settings(**changes: Any) -> Settings:
    given = {"redis_url": "r", "hms_app_access_key": "k", "hms_app_secret": "s", "hms_template_id": "t"}
    return Settings(**given, gateway_secrets=("g",), **{"webhook_secrets": ("w3bh00k",)} | changes)


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"webhook_secrets": ()}, "WARN", ["HMS_WEBHOOK_SECRET is not set", "no minutes", "token_urlsafe"]),
        ({"hms_api_url": LOCAL}, "ok", ["local 100ms"]),
        ({"hms_api_url": REAL}, "WARN", ["GATEWAY_PUBLIC_URL", "https://", "/hooks/100ms", "X-Gateway-Webhook-Secret"]),
        ({"public_url": "http://gateway"}, "WARN", ["GATEWAY_PUBLIC_URL"]),
        ({"public_url": "https://v.example"}, "ok", ["https://v.example/hooks/100ms", "X-Gateway-Webhook-Secret"]),
        ({"public_url": "https://v.example", "webhook_header": "X-Mine"}, "ok", ["header X-Mine"]),
    ],
)
def test_what_to_enter_at_100ms_is_shown_without_the_secret(
    changes: dict[str, Any], status: str, words: list[str]
) -> None:
    found = judge_webhooks(settings(**changes))
    assert found.status == status
    for word in words:
        assert word in found.text
    assert "w3bh00k" not in found.text


def test_wrong_settings_are_not_judged() -> None:
    assert judge_webhooks(None).status == "WARN"


@pytest.mark.parametrize(
    ("ago_s", "said"), [(0, "0 s"), (119, "119 s"), (180, "3 min"), (7200, "2 h"), (86_400 * 9, "9 d")]
)
def test_the_age_of_the_last_event_is_shown(ago_s: int, said: str) -> None:
    found = judge_arrival(time.time_ns() // 10**6 - ago_s * 1000)
    assert (found.status, found.text) == ("ok", f"the last one arrived {said} ago")


def test_a_first_event_that_never_came_is_a_warning_with_what_to_check() -> None:
    found = judge_arrival(None)
    assert found.status == "WARN"
    assert "check the URL and the header at 100ms" in found.text


@pytest.mark.parametrize(("lag_ms", "waiting", "status"), [(5000, 1000, "ok"), (5001, 0, "WARN"), (0, 1001, "WARN")])
def test_a_gateway_that_does_not_keep_up_is_a_warning(lag_ms: int, waiting: int, status: str) -> None:
    assert judge_lag(lag_ms, waiting).status == status


def test_events_that_could_not_be_counted_are_a_warning() -> None:
    assert (judge_dead_letters(0).status, judge_dead_letters(3).status) == ("ok", "WARN")
    assert "3 events" in judge_dead_letters(3).text


async def test_a_store_that_fails_is_one_warning() -> None:
    class Away:
        async def execute(self, *words: Any) -> Any:
            raise StoreError("away")

    [found] = await check_events(Away())  # type: ignore[arg-type]
    assert (found.check, found.status) == ("events", "WARN")
    policy = load_policy()
    assert await check_outgoing(Away(), policy) == []  # type: ignore[arg-type]
    policy = replace(policy, endpoints=(Endpoint("a", "https://a.test/", frozenset()),))
    [found] = await check_outgoing(Away(), policy)  # type: ignore[arg-type]
    assert (found.check, found.status) == ("webhooks out", "WARN")


def state(**changes: Any) -> EndpointState:
    given: dict[str, Any] = {"waiting": 2, "delivered": 7, "failed": 1, "dead": 0, "last_delivered_ms": 1}
    given |= {"last_failed_ms": None, "last_failure": "", "gone_ms": None}
    return EndpointState(name="a", host="a.test", events=[], **given | changes)


def test_an_endpoint_that_fails_is_a_warning_with_what_to_do() -> None:
    found = judge_outgoing([state(), state(last_failure="answered 500"), state(gone_ms=1, last_failure="x")], 3)
    assert [(one.check, one.status) for one in found] == [
        ("endpoint a", "ok"),
        ("endpoint a", "WARN"),
        ("endpoint a", "WARN"),
        ("webhooks out", "WARN"),
    ]
    assert found[0].text == "7 events delivered to a.test, 2 wait"
    assert found[1].text == "answered 500; 2 waiting; try `gateway webhooks out test a`"
    assert "answered 410" in found[2].text
    assert "gateway webhooks out dead" in found[3].text
    assert judge_outgoing([state()], 0) == [found[0]]
