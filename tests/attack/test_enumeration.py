"""Who has an account is nobody's business: unknown, wrong and disabled look alike and take alike.

OWASP ASVS 5, 6.3.8; OWASP Authentication Cheat Sheet, "Authentication Responses"; CVE-2016-6210 is the timing variant.
"""

from __future__ import annotations

import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import pytest

from tests.e2e.checks import assert_problem
from tests.servers import Installation

ROUNDS = 36
MOST_APART_S = 0.025


def arms(target: Installation) -> dict[str, dict[str, str]]:
    """Logins that fail, each for another reason."""
    return {
        "unknown": {"username": "nobody-at-all", "password": "not the password at all"},
        "wrong": {"username": "hanna", "password": "not the password at all"},
        "disabled": {"username": "dora", "password": target.passwords["dora"]},
        "no possible name": {"username": "a b", "password": "not the password at all"},
        "long password": {"username": "hanna", "password": "x" * 4000},
    }


def test_failed_logins_are_byte_identical(target: Installation) -> None:
    seen = set()
    for body in arms(target).values():
        with target.client() as client:
            answer = client.post("/api/auth/login", json=body)
        document = assert_problem(answer, 401, "invalid_credentials")
        raw = answer.content.replace(document["request_id"].encode(), b"")
        headers = {name: value for name, value in answer.headers.items() if name not in ("date", "x-request-id")}
        seen.add((raw, json.dumps(headers)))
    assert len(seen) == 1, seen


def test_failed_logins_take_the_same_time(target: Installation) -> None:
    """Interleaved, so that whatever else this machine does hits every arm alike; noise gets a second round to even out,
    which a real difference would not."""
    bodies = {name: body for name, body in arms(target).items() if name in ("unknown", "wrong", "disabled")}
    times: dict[str, list[float]] = {name: [] for name in bodies}

    def apart_s() -> float:
        medians = [median(values) for values in times.values()]
        return max(medians) - min(medians)

    with target.client() as client:

        def attempt(name: str) -> None:
            begun = time.monotonic()
            answer = client.post("/api/auth/login", json=bodies[name])
            times[name].append(time.monotonic() - begun)
            assert answer.status_code == 401

        with ThreadPoolExecutor(4) as pool:
            for _ in range(2):
                plan = [name for _ in range(ROUNDS) for name in random.sample(sorted(bodies), len(bodies))]
                list(pool.map(attempt, plan))
                if apart_s() < MOST_APART_S:
                    break
    print({name: f"{median(values) * 1000:.0f} ms" for name, values in times.items()})
    assert apart_s() < MOST_APART_S, times
    assert min(min(values) for values in times.values()) >= 0.25


@pytest.mark.parametrize("name", ["unknown", "wrong", "disabled"])
def test_failed_login_leaves_no_session(target: Installation, name: str) -> None:
    with target.valkey.client() as client:
        before = client.dbsize()
    with target.client() as http:
        assert_problem(http.post("/api/auth/login", json=arms(target)[name]), 401, "invalid_credentials")
    with target.valkey.client() as client:
        assert client.dbsize() == before


def test_rooms_that_one_may_not_see_are_as_those_that_never_were(target: Installation) -> None:
    with target.client_of("hanna") as client:
        invited = client.post("/api/rooms", json={"access": "invited"}).json()["room"]["id"]
    seen = set()
    with target.client_of("mira") as stranger:
        for room in (invited, "0" * 24):
            for answer in (stranger.get(f"/api/rooms/{room}"), stranger.post(f"/api/rooms/{room}/token", json={})):
                document = assert_problem(answer, 404, "not_found")
                seen.add(json.dumps({**document, "instance": "", "request_id": ""}))
    assert len(seen) == 1
