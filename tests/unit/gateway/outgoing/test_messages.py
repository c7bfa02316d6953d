"""Events made from entries of the audit trail: ids, and nothing that a person wrote."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from gateway.audit import Audit
from gateway.outgoing.messages import INBOX, Announcer
from gateway.policy.endpoints import EVENTS, Endpoint
from gateway.policy.file import load_policy
from gateway.policy.live import PolicyInForce
from gateway.redis.store import StoreError
from tests.unit.gateway.metering.budget_bench import ANN, OWNER
from tests.unit.gateway.metering.enforcement_bench import EnforcementBench

ALL = PolicyInForce(replace(load_policy(), endpoints=(Endpoint("a", "https://a.test/", EVENTS),)))
BUDGET: dict[str, str | int] = {"budget": "month", "scope": "owner", "percent": 80, "period": "2026-11", "minutes": 300}
ENDED: dict[str, str | int] = {"room": "R", "lock": 1, "reason": "Hanna said so"}
CASES: list[tuple[str, dict[str, str | int], str, dict[str, Any]]] = [
    ("budget.reached", {"by": "", "subject": "U", **BUDGET}, "budget.reached", {"user": "U", **BUDGET}),
    ("budget.reached", {"by": "", "subject": "", **BUDGET}, "budget.reached", {"user": None, **BUDGET}),
    (
        "room.ended",
        {"by": "B", "subject": "", **ENDED},
        "room.ended",
        {"room": "R", "by": "B", "why": "requested", "budget": None, "locked": True},
    ),
    (
        "room.ended",
        {"by": "", "subject": "O", **ENDED, "budget": "month", "lock": 0},
        "room.ended",
        {"room": "R", "by": None, "why": "budget", "budget": "month", "locked": False},
    ),
    (
        "limits.override",
        {"by": "B", "subject": "U", "name": "*", "until_us": 1_795_341_600_000_000, "reason": "rude", "amount": 0},
        "user.blocked",
        {"user": "U", "by": "B", "until": "2026-11-22T10:00:00Z"},
    ),
    ("limits.lift", {"by": "cli", "subject": "U", "name": "*"}, "user.unblocked", {"user": "U", "by": "cli"}),
    ("user.disabled", {"by": "B", "subject": "U"}, "user.disabled", {"user": "U", "by": "B"}),
    ("user.enabled", {"by": "B", "subject": "U"}, "user.enabled", {"user": "U", "by": "B"}),
]


@pytest.mark.parametrize(("action", "facts", "kind", "data"), CASES)
def test_an_entry_becomes_an_event(action: str, facts: dict[str, str | int], kind: str, data: dict[str, Any]) -> None:
    words = Announcer(ALL)(action, facts)
    assert words is not None
    message = json.loads(words[-1])
    body = json.loads(message["body"])
    assert (message["type"], body["type"], body["data"]) == (kind, kind, data)
    assert datetime.fromisoformat(body["timestamp"]).utcoffset() is not None
    assert "." not in message["id"], "it would make the signature ambiguous"


def test_every_event_of_the_policy_has_an_entry() -> None:
    assert {kind for _, _, kind, _ in CASES} == EVENTS


@pytest.mark.parametrize(
    ("action", "facts"),
    [
        ("limits.override", {"name": "api", "until_us": 0}),
        ("limits.lift", {"name": "api"}),
        ("login", {}),
        ("room.changed", {"room": "R"}),
    ],
)
def test_other_entries_are_told_to_nobody(action: str, facts: dict[str, str | int]) -> None:
    assert Announcer(ALL)(action, {"by": "B", "subject": "U", **facts}) is None


async def test_budgets_are_told_as_the_watch_over_them_audits_them() -> None:
    bench = EnforcementBench()
    bench.consequences._audit = Audit(bench.ledger, announce=Announcer(ALL))
    await bench.account(ANN, "member")
    room = await bench.room_of(OWNER)
    await bench.stay("guest", room.id, 400, goes_on=True)
    await bench.stay(ANN, room.id, 31, goes_on=True)
    await bench.look()
    bodies = [json.loads(json.loads(words[1])["body"]) for _, words in await bench.ledger("XRANGE", INBOX, "-", "+")]
    reached = [one["data"] for one in bodies if one["type"] == "budget.reached"]
    assert {(one["user"], one["scope"], one["budget"], one["percent"]) for one in reached} == {
        (ANN, "user", "mine", 80),
        (ANN, "user", "mine", 100),
        (OWNER, "owner", "rooms", 80),
        (OWNER, "owner", "rooms", 100),
        (None, "all", "everybody", 80),
    }
    ended = [one["data"] for one in bodies if one["type"] == "room.ended"]
    assert ended == [{"room": room.id, "by": None, "why": "budget", "budget": "rooms", "locked": True}]


async def test_a_budget_that_could_not_be_audited_is_told_with_the_next_look(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = EnforcementBench()
    await bench.account(ANN, "member")
    await bench.stay(ANN, (await bench.room_of(OWNER)).id, 24.5, goes_on=True)

    async def fail(*_: object, **__: object) -> None:
        raise StoreError("no connection")

    with monkeypatch.context() as broken:
        broken.setattr(bench.audit, "record", fail)
        with pytest.raises(StoreError):
            await bench.look()
    assert await bench.audited("budget.reached") == []
    await bench.look(10)
    assert [said["percent"] for said in await bench.audited("budget.reached")] == [80]
