"""When a call to 100ms is retried, when it is not, and what the retries may cost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest
from stamina.instrumentation import RetryDetails, get_on_retry_hooks, set_on_retry_hooks

from gateway.breaker import LEAST_CALLS, Breaker
from gateway.hms import calls, client
from gateway.hms.client import HmsClient, connect
from gateway.hms.errors import HmsBusy, HmsError, HmsRefused, HmsTimeout, HmsUnauthorized, HmsUnreachable
from gateway.hms.tokens import HmsTokens
from tests.unit.gateway.upstream import KEY, ROOM, SECRET, TEMPLATE, Answer, Upstream, create, created, settled

PEER = "2a1b6a2e-2c65-44c5-b9c3-8a7cf4ac7a5e"
EVERY_CALL: dict[str, Callable[[HmsClient], Awaitable[object]]] = {
    "create": create,
    "get": lambda hms: hms.get_room(ROOM),
    "update": lambda hms: hms.update_room(ROOM, description="new"),
    "enable": lambda hms: hms.switch_room(ROOM, enabled=True),
    "disable": lambda hms: hms.switch_room(ROOM, enabled=False),
    "end": lambda hms: hms.end_room(ROOM, reason="over", lock=True),
    "peers": lambda hms: hms.list_peers(ROOM, user_id="u"),
    "remove": lambda hms: hms.remove_peer(ROOM, PEER, reason="banned"),
    "template": lambda hms: hms.fetch_template(TEMPLATE),
}
TRANSIENT = [
    httpx.ConnectError("x"),
    httpx.ConnectTimeout("x"),
    httpx.ReadError("x"),
    httpx.WriteError("x"),
    httpx.RemoteProtocolError("x"),  # also raised for a kept connection that the other side has already closed
    *(httpx.Response(status) for status in (500, 501, 502, 503, 504, 599)),
]


def answer_to(request: httpx.Request) -> httpx.Response:
    """Answer any call of the client as a healthy 100ms does."""
    body = json.loads(request.content or b"{}")
    if request.url.path.startswith("/v2/rooms"):
        return httpx.Response(200, json=created(enabled=body.get("enabled", True)))
    return httpx.Response(200, json={"roles": {}, "peers": {}})


@pytest.fixture
async def virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip every wait of the event loop, and advance the monotonic clock by as much."""
    now_s = time.monotonic()
    selector = asyncio.get_running_loop()._selector
    select = selector.select

    def skip(timeout: float | None = None) -> Any:
        nonlocal now_s
        now_s += timeout or 0
        return select(0)

    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    monkeypatch.setattr(calls, "Breaker", lambda: Breaker(now=lambda: now_s))
    monkeypatch.setattr(selector, "select", skip)


@pytest.mark.parametrize("name", EVERY_CALL)
async def test_every_call_is_retried_until_it_succeeds(hms: HmsClient, upstream: Upstream, name: str) -> None:
    failures: list[Answer] = [httpx.Response(502), httpx.ReadError("x")]
    upstream.answer = lambda request: failures.pop() if failures else answer_to(request)
    await EVERY_CALL[name](hms)
    assert len(upstream.requests) == calls.ATTEMPTS == 3


@pytest.mark.parametrize("failure", TRANSIENT, ids=repr)
async def test_a_transient_failure_is_retried(hms: HmsClient, upstream: Upstream, failure: Answer) -> None:
    upstream.answer = lambda request: answer_to(request) if len(upstream.requests) == calls.ATTEMPTS else failure
    await create(hms)
    assert len(upstream.requests) == calls.ATTEMPTS


@pytest.mark.parametrize("failure", TRANSIENT, ids=repr)
async def test_a_lasting_failure_is_tried_three_times(hms: HmsClient, upstream: Upstream, failure: Answer) -> None:
    upstream.answer = lambda _: failure
    with pytest.raises(HmsTimeout if isinstance(failure, httpx.ConnectTimeout) else HmsUnreachable):
        await create(hms)
    assert len(upstream.requests) == calls.ATTEMPTS == 3


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        *((httpx.Response(status), HmsRefused) for status in (400, 404, 405, 409, 422, 499)),
        *((httpx.Response(status), HmsUnauthorized) for status in (401, 403)),
        (httpx.Response(429), HmsBusy),
        *((httpx.Response(status), HmsUnreachable) for status in (301, 302, 304, 307, 308)),
        (httpx.Response(200, content=b"garbage"), HmsUnreachable),
        (httpx.Response(200, content=b" " * (calls.MOST_REPLY_BYTES + 1)), HmsUnreachable),
        (httpx.ReadTimeout("x"), HmsTimeout),
    ],
    ids=repr,
)
async def test_a_lasting_answer_or_a_timeout_is_not_retried(
    hms: HmsClient, upstream: Upstream, answer: Answer, expected: type[HmsError]
) -> None:
    upstream.answer = lambda _: answer
    with pytest.raises(expected):
        await create(hms)
    assert len(upstream.requests) == 1


async def test_a_create_is_retried_with_the_same_name(hms: HmsClient, upstream: Upstream) -> None:
    """100ms updates a room that has the name already: the same name prevents a second room after a lost answer."""
    upstream.says_in_turn(httpx.Response(502), httpx.ReadError("x"), httpx.Response(200, json=created()))
    assert (await create(hms)).id == ROOM
    first, *others = [request.content for request in upstream.requests]
    assert others == [first, first]


async def test_a_429_to_a_retry_ends_the_retries(hms: HmsClient, upstream: Upstream) -> None:
    upstream.says_in_turn(httpx.Response(500), httpx.Response(429, headers={"retry-after": "7"}))
    with pytest.raises(HmsBusy) as caught:
        await create(hms)
    assert caught.value.retry_after_s == 7
    assert len(upstream.requests) == 2


# --- time ---


@pytest.fixture
async def patient(upstream: Upstream, virtual_time: None) -> AsyncIterator[HmsClient]:
    """A client that waits between attempts, as in production, but in virtual time."""
    async with httpx.AsyncClient(transport=httpx.MockTransport(upstream), base_url="https://api.100ms.test/v2") as http:
        yield HmsClient(http, HmsTokens(KEY, SECRET))


@pytest.fixture
def waits() -> Iterator[list[float]]:
    """The waits between attempts, in seconds."""
    seen: list[float] = []
    before = get_on_retry_hooks()

    def note(details: RetryDetails) -> None:
        seen.append(details.wait_for)

    set_on_retry_hooks([note])
    yield seen
    set_on_retry_hooks(before)


async def test_waits_grow_and_differ(patient: HmsClient, upstream: Upstream, waits: list[float]) -> None:
    random.seed(20260101)
    upstream.says(500)
    results = await asyncio.gather(*(create(patient) for _ in range(LEAST_CALLS - 1)), return_exceptions=True)
    assert {type(result) for result in results} == {HmsUnreachable}
    first, second = waits[: LEAST_CALLS - 1], waits[LEAST_CALLS - 1 :]
    assert len(second) == LEAST_CALLS - 1
    assert len(set(waits)) == len(waits)
    assert all(0.05 <= wait_s <= 0.3 for wait_s in waits)
    assert sum(second) > sum(first)
    assert max(waits) - min(waits) > 0.1


async def test_retries_stay_within_the_time_limit_of_the_call(patient: HmsClient, upstream: Upstream) -> None:
    async def slowly(_: httpx.Request) -> Answer:
        await asyncio.sleep(1.7)
        return httpx.Response(500)

    upstream.answer = slowly
    begun = time.monotonic()
    with pytest.raises(HmsUnreachable):  # the true reason, not a timeout while waiting for a retry
        await create(patient)
    assert time.monotonic() - begun < 5
    # Two attempts of 1.7 s leave no time for a third, which needs at least 1 s.
    assert len(upstream.requests) == 2


async def test_a_retry_that_hangs_ends_with_the_time_limit_of_the_call(patient: HmsClient, upstream: Upstream) -> None:
    async def hanging_later(request: httpx.Request) -> Answer:
        return httpx.Response(500) if len(upstream.requests) == 1 else await upstream.hang(request)

    upstream.answer = hanging_later
    begun = time.monotonic()
    with pytest.raises(HmsTimeout):
        await create(patient)
    assert time.monotonic() - begun == pytest.approx(5, abs=0.01)  # not twice the time
    assert len(upstream.requests) == 2


async def test_a_caller_cancelled_between_attempts_frees_its_slot(
    patient: HmsClient, upstream: Upstream, waits: list[float]
) -> None:
    upstream.says(500)
    leaving = [asyncio.create_task(create(patient)) for _ in range(10)]
    await settled(lambda: waits)
    for task in leaving:
        task.cancel()
    assert all(
        isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*leaving, return_exceptions=True)
    )
    assert patient._calls._in_flight == 0


# --- the breaker ---


async def test_a_call_and_its_retries_count_as_one_failure(hms: HmsClient, upstream: Upstream) -> None:
    upstream.says(500)
    for _ in range(LEAST_CALLS - 1):
        with pytest.raises(HmsUnreachable):
            await create(hms)
    assert len(upstream.requests) == 3 * (LEAST_CALLS - 1)
    upstream.says(200, created())
    await create(hms)  # not refused


async def test_a_call_that_succeeds_on_a_retry_is_not_a_failure(hms: HmsClient, upstream: Upstream) -> None:
    for _ in range(2 * LEAST_CALLS):
        upstream.says_in_turn(httpx.Response(500), httpx.Response(200, json=created()))
        await create(hms)


async def test_refusals_never_open_the_breaker(hms: HmsClient, upstream: Upstream) -> None:
    for status, expected in ((404, HmsRefused), (401, HmsRefused)):
        upstream.says(status, {})
        for _ in range(2 * LEAST_CALLS):
            with pytest.raises(expected):
                await create(hms)


async def open_breaker(hms: HmsClient, upstream: Upstream) -> None:
    upstream.says(500)
    for _ in range(LEAST_CALLS):
        with pytest.raises(HmsUnreachable):
            await create(hms)
    with pytest.raises(HmsBusy):
        await create(hms)
    upstream.requests.clear()


async def test_the_probe_of_an_open_breaker_is_not_retried(
    virtual_time: None, hms: HmsClient, upstream: Upstream
) -> None:
    await open_breaker(hms, upstream)
    await asyncio.sleep(0.55)
    with pytest.raises(HmsUnreachable):
        await create(hms)
    assert len(upstream.requests) == 1


async def test_any_answer_to_the_probe_closes_the_breaker(
    virtual_time: None, hms: HmsClient, upstream: Upstream
) -> None:
    await open_breaker(hms, upstream)
    await asyncio.sleep(0.55)
    upstream.says(404, {"code": 404, "message": "Room not found"})
    assert await hms.get_room(ROOM) is None
    upstream.says(200, created())
    assert await create(hms)


async def test_calls_that_hung_before_the_recovery_do_not_reopen_the_breaker(
    virtual_time: None, hms: HmsClient, upstream: Upstream
) -> None:
    upstream.answer = upstream.hang
    hung = [asyncio.create_task(create(hms)) for _ in range(LEAST_CALLS)]
    await settled(lambda: len(upstream.requests) == LEAST_CALLS)
    await open_breaker(hms, upstream)
    await asyncio.sleep(0.55)
    upstream.says(200, created())
    await create(hms)
    assert {type(end) for end in await asyncio.gather(*hung, return_exceptions=True)} == {HmsTimeout}
    await create(hms)  # not refused


# --- limits on calls in flight ---


async def test_template_refreshes_use_at_most_four_slots(hms: HmsClient, upstream: Upstream) -> None:
    upstream.answer = upstream.hang
    for number in range(60):
        assert hms.template_roles(f"{number:024x}") is None
        hms.template_roles(f"{number:024x}")
    await settled(lambda: len(upstream.requests) == 4)
    await asyncio.sleep(0.05)
    assert len(upstream.requests) == 4
    upstream.says(200, created())
    assert await create(hms)


async def test_calls_beyond_the_limit_are_refused_at_once_and_role_look_ups_still_work(
    hms: HmsClient, upstream: Upstream
) -> None:
    upstream.answer = upstream.hang
    hung = [asyncio.create_task(create(hms)) for _ in range(calls.MOST_IN_FLIGHT)]
    await settled(lambda: len(upstream.requests) == calls.MOST_IN_FLIGHT)
    begun = time.monotonic()
    for _ in range(100):
        with pytest.raises(HmsBusy):
            await hms.switch_room(ROOM, enabled=False)
        assert hms.template_roles(TEMPLATE) is None
    assert time.monotonic() - begun < 1
    for task in hung:
        task.cancel()
    await asyncio.gather(*hung, return_exceptions=True)
    upstream.says(200, created())
    assert await create(hms)


async def test_slots_and_connections_of_cancelled_callers_are_released(monkeypatch: pytest.MonkeyPatch) -> None:
    """On real sockets: encode/httpcore#1093 leaks the pool slot of a request cancelled just after it has connected."""
    monkeypatch.setattr(calls, "MOST_IN_FLIGHT", 10)
    monkeypatch.setattr(client, "MOST_IN_FLIGHT", 10)
    writers: list[asyncio.StreamWriter] = []
    hanging = True

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                reply = json.dumps(created(name=json.loads(await reader.readexactly(length))["name"])).encode()
                if not hanging:
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(reply), reply))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        async with connect(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as http:
            hms = HmsClient(http, HmsTokens(KEY, SECRET))
            for turn in range(1, 31):
                leaving = [asyncio.create_task(create(hms)) for _ in range(calls.MOST_IN_FLIGHT)]
                await settled(lambda: len(writers) >= turn * calls.MOST_IN_FLIGHT)  # noqa: B023  awaited at once
                for task in leaving:
                    task.cancel()
                await asyncio.gather(*leaving, return_exceptions=True)
            hanging = False
            rooms = await asyncio.gather(*(create(hms) for _ in range(calls.MOST_IN_FLIGHT)))
            assert len(rooms) == calls.MOST_IN_FLIGHT
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
