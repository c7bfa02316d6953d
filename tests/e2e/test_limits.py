"""Limits under concurrency, on two workers: exact to the unit."""

from __future__ import annotations

import re
import time
from collections import Counter

import pytest

from tests.e2e.checks import assert_problem, check_document
from tests.e2e.volley import fire, post
from tests.servers import Installation

LIMIT, MINTS = 100, 1000


@pytest.fixture(scope="module")
def room_id(installation: Installation) -> str:
    with installation.client_of("hanna") as client:
        return str(client.post("/api/rooms", json={}).json()["room"]["id"])


async def test_exactly_the_limit_of_a_thousand_concurrent_mints_succeeds(
    installation: Installation, room_id: str
) -> None:
    installation.add_users(thea="hundred")
    token = installation.token_of("thea")
    begun = time.monotonic()
    answers = await fire(installation.port, [post(f"/api/rooms/{room_id}/token", token=token)] * MINTS)
    print(f"{MINTS} concurrent mints in {time.monotonic() - begun:.2f} s")
    # One unit comes back every 36 s, so the volley must not last that long.
    assert time.monotonic() - begun < 30
    assert Counter(answer and answer.status for answer in answers) == {200: LIMIT, 429: MINTS - LIMIT}
    minted = [answer.json()["token"] for answer in answers if answer and answer.status == 200]
    assert len(set(minted)) == LIMIT

    with installation.client(token) as client:
        total = client.get("/api/usage").json()["usage"]["total"]["tokens.mint"]
    assert total["ok"] == LIMIT
    assert total["denied"] == {"tokens.mint": MINTS - LIMIT}
    assert total["refused"] == {}
    assert total["failed"] == 0

    for answer in answers:
        if answer and answer.status == 429:
            document = check_document(429, answer.headers, answer.body, "rate_limited")
            assert document["violated-policies"] == ["tokens.mint"]
            assert 1 <= int(answer.headers["retry-after"]) <= 36 + 5
            assert '"tokens.mint";r=0;t=' in answer.headers["ratelimit"]


def test_denial_states_when_to_retry(installation: Installation, room_id: str) -> None:
    """Document per RFC 9457 and the registered quota-exceeded type, fields per draft-11."""
    installation.add_users(theo="hundred")
    path = f"/api/rooms/{room_id}/token"
    with installation.client_of("theo") as client:
        for left in reversed(range(LIMIT)):
            answer = client.post(path, json={})
            assert answer.status_code == 200, answer.text
            # a unit may have come back if the machine took half a minute
            assert f'"tokens.mint";r={left};t=' in answer.headers["ratelimit"]
        denied = client.post(path, json={})
        document = assert_problem(denied, 429, "rate_limited")
        assert document["violated-policies"] == ["tokens.mint"]
        assert "tokens.mint" in document["detail"]
        retry_s = int(denied.headers["retry-after"])
        assert 1 <= retry_s <= 36 + 3
        assert str(retry_s) in document["detail"]
        assert denied.headers["ratelimit-policy"].startswith('"tokens.mint";q=100;w=3600, "api";')
        reset = re.search(r'"tokens.mint";r=0;t=([0-9]+)', denied.headers["ratelimit"])
        assert reset is not None
        assert 1 <= int(reset[1]) <= 36
        assert int(reset[1]) <= retry_s
        # The denial by one limit charges no other: `api` is unchanged.
        assert client.get("/api/auth/me").status_code == 200


def test_reading_ones_usage_charges_nothing(installation: Installation) -> None:
    with installation.client_of("mark") as client:
        first = client.get("/api/usage")
        for _ in range(20):
            client.get("/api/usage")
        last = client.get("/api/usage")
    assert first.json()["usage"] == last.json()["usage"]
    for before, after in zip(first.json()["limits"], last.json()["limits"], strict=True):
        assert after["remaining"] >= before["remaining"]


def test_refused_requests_are_counted_as_refused_and_keep_their_charge(
    installation: Installation, room_id: str
) -> None:
    installation.add_users(tessa="hundred")
    with installation.client_of("tessa") as client:
        for _ in range(5):
            answer = client.post(f"/api/rooms/{room_id}/token", json={"role": "host"})
            assert_problem(answer, 403, "role_not_allowed")
            assert "ratelimit" in answer.headers
        usage = client.get("/api/usage").json()
    total = usage["usage"]["total"]["tokens.mint"]
    assert total["ok"] == 0
    assert total["refused"] == {"role_not_allowed": 5}
    assert next(limit["remaining"] for limit in usage["limits"] if limit["name"] == "tokens.mint") == LIMIT - 5
