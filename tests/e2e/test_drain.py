"""SIGTERM under load: every request on an open connection is answered before the connection closes."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.e2e.volley import Line, open_lines
from tests.e2e.workers import group_of
from tests.servers import HOST, Installation

LINES = 60
PATHS = ("/health/live", "/health/ready", "/api/rooms")


async def keep_asking(line: Line, number: int, answered: list[int], failed: list[str]) -> None:
    """Send requests on one connection until the gateway closes it with an answer; an unanswered request has failed."""
    path = PATHS[number % len(PATHS)]
    while True:
        try:
            answer = await line.ask("GET", path, token="none")
        except (OSError, asyncio.IncompleteReadError) as error:
            failed.append(f"{path}: {error!r}")
            return
        answered.append(answer.status)
        if answer.headers.get("connection") == "close":
            return
        await asyncio.sleep(random.random() * 0.05 if number % 2 else 0)


async def test_sigterm_under_load_fails_no_request_on_a_kept_connection(tmp_path: Path) -> None:
    with Installation(tmp_path, real=True) as own:
        process = own.gateway.process
        assert process is not None
        answered: list[int] = []
        failed: list[str] = []
        async with open_lines(own.port, LINES) as lines:
            asking = [
                asyncio.create_task(keep_asking(line, number, answered, failed)) for number, line in enumerate(lines)
            ]
            await asyncio.sleep(1)
            before = len(answered)
            process.send_signal(signal.SIGTERM)
            begun = time.monotonic()
            await asyncio.gather(*asking)
            code = await asyncio.to_thread(process.wait, 10)
        assert failed == []
        assert before > LINES
        assert len(answered) > before
        assert set(answered) <= {200, 401, 429}
        assert own.gateway.output().count('"status":401') == answered.count(401)  # a stop loses no log line
        assert code in (0, -signal.SIGTERM)
        assert time.monotonic() - begun < 10


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_stopping_gateway_refuses_new_connections_at_once(tmp_path: Path, workers: int) -> None:
    """A connection that is accepted but never served would wait until the process ends, and then be reset."""
    with Installation(tmp_path, workers=workers, real=True) as own:
        process = own.gateway.process
        assert process is not None
        async with open_lines(own.port, 8) as idle:  # so that the stop takes a while
            process.send_signal(signal.SIGTERM)
            refused = False
            while not refused:
                try:
                    _, writer = await asyncio.open_connection(HOST, own.port)
                    writer.close()
                except ConnectionRefusedError:
                    refused = True
                await asyncio.sleep(0.02)
            assert any(line.is_open for line in idle)


def test_a_stop_loses_no_count_of_top_lists_and_rooms(tmp_path: Path) -> None:
    """A stop sends what waits. In this gateway nothing else would: it waits for minutes instead of 100 ms."""
    own = Installation(tmp_path)
    own.set_constant("limits.derived.FLUSH_S", 600)
    with own:
        process = own.gateway.process
        assert process is not None
        own.add_users(hanna="host")
        with own.client_of("hanna") as host:
            room = host.post("/api/rooms", json={}).json()["room"]["id"]
            for _ in range(3):
                assert host.post(f"/api/rooms/{room}/token", json={}).status_code == 200
        with own.valkey.client() as redis:
            assert not [*redis.scan_iter("tp:1:*:tokens.mint.ok")]
            process.send_signal(signal.SIGTERM)
            process.wait(10)
            [top] = redis.scan_iter("tp:1:????-??:tokens.mint.ok")
            assert [score for _, score in redis.zrange(top, 0, -1, withscores=True)] == [3.0]
            [counters] = redis.scan_iter("rc:1:*")
            assert redis.hget(counters, "*:tokens.mint.ok") == b"3"


@pytest.mark.parametrize(("workers", "number"), [(1, signal.SIGHUP), (2, signal.SIGTERM)])
async def test_whoever_has_connected_when_the_stop_begins_is_served(tmp_path: Path, workers: int, number: int) -> None:
    """The kernel accepts connections before the gateway does, and resets those that it has not taken when it closes."""
    with Installation(tmp_path, workers=workers, real=True) as own:
        assert own.gateway.process is not None
        processes = [own.gateway.process.pid, *group_of(own)]
        serving = [pid for pid in processes if pid != own.gateway.process.pid or workers == 1]
        for pid in serving:
            os.kill(pid, signal.SIGSTOP)
        async with open_lines(own.port, 40) as lines:
            asking = [asyncio.create_task(line.ask("GET", "/api/auth/me", token="none")) for line in lines]
            await asyncio.sleep(0.05)
            own.gateway.process.send_signal(number)
            await asyncio.sleep(0.7 if workers > 1 else 0)  # the supervisor looks for signals every half second
            for pid in serving:
                os.kill(pid, signal.SIGCONT)
            assert {answer.status for answer in await asyncio.gather(*asking)} == {401}
        await asyncio.to_thread(own.gateway.process.wait, 10)
