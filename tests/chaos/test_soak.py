"""`make soak` itself, for ten seconds instead of minutes; and that it fails if a bound is broken."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from benchmarks.soak import MOST_CLIENTS, MOST_FILES, MOST_GROWTH_KIB, WARM, Part, judge, unexpected
from tests.chaos.load import Ask, Result
from tests.servers import REPOSITORY

MINUTE = Part(4800, 5.0, 20.0, Counter(), {"supervisor": 44_000, "worker 1": 100_000}, 70, 3.0, 900, 5, 100)
ME = Ask("me", "GET", "/api/auth/me", "/api/auth/me")


@pytest.mark.timeout(120)
def test_a_short_soak_breaks_no_bound() -> None:
    command = [sys.executable, "-m", "benchmarks.soak", "--seconds", "10", "--parts", "3"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("/3  ") == 3, "a line for each part"
    assert done.stdout.endswith("All bounds hold.\n")


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (replace(MINUTE, kib={"supervisor": 44_000, "worker 1": 100_001 + MOST_GROWTH_KIB}), "memory of worker 1"),
        (replace(MINUTE, kib={"supervisor": 44_000}), "process has ended"),
        (replace(MINUTE, files=71 + MOST_FILES), "more open files"),
        (replace(MINUTE, clients=6 + MOST_CLIENTS), "more clients of Redis"),
        (replace(MINUTE, events=0), "no events"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_what_grows_or_ends_breaks_a_bound(last: Part, said: str) -> None:
    assert judge([MINUTE] * 5) == []
    # Growth of the warm parts is not compared.
    assert judge([replace(MINUTE, files=1)] * (WARM - 1) + [MINUTE] * 5) == []
    [broken] = judge([MINUTE] * 4 + [last])
    assert said in broken


def test_an_answer_that_is_not_documented_breaks_a_bound() -> None:
    def answer(status: int, media_type: str = "application/json") -> Result:
        return Result(ME, due=0, status=status, fields={"content-type": media_type})

    assert unexpected(answer(200)) == ""
    assert "no answer" in unexpected(Result(ME, due=0, lost="timeout"))
    assert "not documented" in unexpected(answer(418))
    assert "not documented" in unexpected(answer(200, "text/plain"))
