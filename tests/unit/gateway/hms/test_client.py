"""The 100ms client: each kind of answer becomes one kind of error, and no secret leaks."""

import asyncio
import gzip
import json
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import jwt
import pytest

from gateway.hms import calls, client
from gateway.hms.client import HmsClient
from gateway.hms.errors import HmsBusy, HmsError, HmsNotFound, HmsRefused, HmsTimeout, HmsUnauthorized, HmsUnreachable
from gateway.hms.replies import HmsRoom
from gateway.hms.tokens import HmsTokens
from tests.unit.gateway.upstream import (
    BODY_SECRET,
    KEY,
    NAME,
    ROOM,
    SECRET,
    TEMPLATE,
    Answer,
    Upstream,
    create,
    created,
    settled,
)

# --- requests ---


async def test_a_create_sends_exactly_the_six_fields(hms: HmsClient, upstream: Upstream) -> None:
    upstream.says(200, created())
    assert await create(hms) == HmsRoom(ROOM, NAME, True)
    [request] = upstream.requests
    assert (request.method, str(request.url)) == ("POST", "https://api.100ms.test/v2/rooms")
    assert json.loads(request.content) == {
        "name": NAME, "description": "about", "template_id": TEMPLATE, "region": "auto", "size": 100,
        "max_duration_seconds": 43_200,
    }  # fmt: skip


async def test_every_call_carries_a_management_token(hms: HmsClient, upstream: Upstream) -> None:
    upstream.says(200, {"roles": {"guest": {}, "host": {}}})
    assert (await hms.fetch_template(TEMPLATE)).role_names == {"guest", "host"}
    [request] = upstream.requests
    assert (request.method, request.url.path) == ("GET", f"/v2/templates/{TEMPLATE}")
    scheme, _, token = request.headers["authorization"].partition(" ")
    assert scheme == "Bearer"
    assert jwt.decode(token, SECRET, algorithms=["HS256"])["type"] == "management"


# --- answers ---


@pytest.mark.parametrize("status", [401, 403])
async def test_rejected_credentials_are_logged_as_critical_without_the_body(
    hms: HmsClient, upstream: Upstream, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    upstream.says(status, {"message": BODY_SECRET})
    with pytest.raises(HmsUnauthorized) as caught:
        await create(hms)
    assert BODY_SECRET not in str(caught.value)
    assert len(upstream.requests) == 1
    [record] = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert "HMS_APP_SECRET" in record.getMessage()
    assert BODY_SECRET not in caplog.text
    assert SECRET not in caplog.text
    assert upstream.requests[0].headers["authorization"].split(" ")[1] not in caplog.text


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("7", 7), ("0", 1), ("300", 300), ("301", 300), ("9999", 300), (None, 5), ("", 5), ("-1", 5), ("1.5", 5),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 1), ("Wed, 21 Oct 2099 07:28:00 GMT", 300), ("soon", 5),
        ("Wed, 21 Oct 99999 07:28:00 GMT", 5),
    ],
)  # fmt: skip
async def test_retry_after_of_a_429_is_read_and_bounded(
    hms: HmsClient, upstream: Upstream, given: str | None, expected: int
) -> None:
    upstream.says(429, {"message": BODY_SECRET}, **({"retry-after": given} if given is not None else {}))
    with pytest.raises(HmsBusy) as caught:
        await create(hms)
    assert caught.value.retry_after_s == expected
    assert BODY_SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Too many requests, retry after 45 seconds", 45), ("retry after 1 second", 1),
        ("retry after 99999 seconds", 300), ("retry after some seconds", 5), ("retry after 45 minutes", 5),
    ],
)  # fmt: skip
async def test_the_wait_is_read_from_the_documented_text_of_a_429(
    hms: HmsClient, upstream: Upstream, message: str, expected: int
) -> None:
    """api-reference/analytics/list-webhook-events."""
    upstream.says(429, {"code": 429, "message": message})
    with pytest.raises(HmsBusy) as caught:
        await create(hms)
    assert caught.value.retry_after_s == expected


async def test_a_503_with_retry_after_is_handled_like_a_429(hms: HmsClient, upstream: Upstream) -> None:
    """RFC 9110 section 15.6.4."""
    upstream.says(503, {}, **{"retry-after": "9"})
    for _ in range(2):
        with pytest.raises(HmsBusy) as caught:
            await create(hms)
        assert caught.value.retry_after_s == 9
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("status", [400, 404, 409, 422, 499])
async def test_the_reason_of_a_refusal_is_only_in_the_log(
    hms: HmsClient, upstream: Upstream, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    upstream.says(status, {"code": status, "message": "template not found"})
    with pytest.raises(HmsRefused) as caught:
        await create(hms)
    assert str(caught.value) == "100ms refused to create the room. It may not know the template."
    assert not isinstance(caught.value, HmsNotFound)
    assert "template not found" in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.CRITICAL]


@pytest.mark.parametrize("content", [b"", b"not json", b"[]", b'"text"', b"null", b'{"message": {"deep": 1}}', b"\xff"])
async def test_a_400_with_any_body_is_a_refusal(hms: HmsClient, upstream: Upstream, content: bytes) -> None:
    upstream.says(400, content)
    with pytest.raises(HmsRefused):
        await create(hms)


async def test_a_long_refusal_is_truncated_in_the_log(
    hms: HmsClient, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.says(400, {"message": "m" * 100_000})
    with pytest.raises(HmsRefused):
        await create(hms)
    assert len(caplog.text) < 1000


@pytest.mark.parametrize("status", [500, 502, 503, 504, 599, 304])
async def test_a_server_error_means_that_100ms_is_unreachable(hms: HmsClient, upstream: Upstream, status: int) -> None:
    upstream.says(status, {"message": BODY_SECRET})
    with pytest.raises(HmsUnreachable) as caught:
        await create(hms)
    assert BODY_SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>", b"{", b"[]", b'[{"id": 1}]', b'"text"', b"null", b"1", b"\xff\xfe", b"[" * 100_000, b"{}"],
)
async def test_an_answer_that_is_not_a_json_object_is_unusable(
    hms: HmsClient, upstream: Upstream, content: bytes
) -> None:
    upstream.says(200, content)
    with pytest.raises(HmsUnreachable, match="unusable"):
        await create(hms)
    with pytest.raises(HmsUnreachable, match="unusable"):
        await hms.fetch_template(TEMPLATE)


@pytest.mark.parametrize("roles", [None, [], ["guest"], "guest", 1])
async def test_template_roles_that_are_not_an_object_are_unusable(
    hms: HmsClient, upstream: Upstream, roles: Any
) -> None:
    upstream.says(200, {"roles": roles})
    with pytest.raises(HmsUnreachable, match="unusable"):
        await hms.fetch_template(TEMPLATE)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "another-room"},
        {"name": None},
        {"name": NAME + " "},
        {"id": None},
        {"id": ""},
        {"id": "../" + ROOM[3:]},
        {"id": ROOM.upper()},
        {"id": ROOM + "0"},
        {"id": ROOM + "\n"},
        {"id": 123456789012345678901234.0},
        {"id": [ROOM]},
    ],
)
async def test_an_answer_about_another_room_is_refused(
    hms: HmsClient, upstream: Upstream, changes: dict[str, Any]
) -> None:
    upstream.says(200, created(**changes))
    with pytest.raises(HmsUnreachable, match="unusable"):
        await create(hms)


async def test_100ms_may_change_the_case_of_a_name(hms: HmsClient, upstream: Upstream) -> None:
    upstream.says(200, created(name=NAME.upper()))
    assert (await create(hms)).name == NAME.upper()


@pytest.mark.parametrize(("given", "enabled"), [(True, True), (False, False), (None, True), ("no", True)])
async def test_only_false_means_disabled(hms: HmsClient, upstream: Upstream, given: object, enabled: bool) -> None:
    upstream.says(200, created(enabled=given))
    assert (await create(hms)).enabled is enabled


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed_and_never_receives_the_token(
    hms: HmsClient, upstream: Upstream, status: int
) -> None:
    upstream.says(status, {}, location="https://attacker.example/rooms")
    with pytest.raises(HmsUnreachable):
        await create(hms)
    assert [request.url.host for request in upstream.requests] == ["api.100ms.test"]


async def test_a_redirect_is_not_followed_even_by_a_client_that_follows_redirects(upstream: Upstream) -> None:
    upstream.says(302, {}, location="https://attacker.example/rooms")
    async with httpx.AsyncClient(
        transport=httpx.MockTransport(upstream), base_url="https://api.100ms.test", follow_redirects=True
    ) as http:
        with pytest.raises(HmsUnreachable):
            await create(HmsClient(http, HmsTokens(KEY, SECRET)))
    assert [request.url.host for request in upstream.requests] == ["api.100ms.test"]


# --- limits on size, time and concurrency ---


async def test_reading_stops_at_one_mebibyte(hms: HmsClient, upstream: Upstream) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 1
            yield b" " * 65_536

    upstream.answer = lambda _: httpx.Response(200, content=endless())
    with pytest.raises(HmsUnreachable, match="unusable"):
        await create(hms)
    assert sent < 25


async def test_a_compressed_reply_is_refused(hms: HmsClient, upstream: Upstream) -> None:
    """CWE-409: a compressed reply of one kibibyte could expand to a mebibyte and more before it is measured."""
    bomb = gzip.compress(b" " * (1 << 20) + json.dumps(created()).encode())
    upstream.says(200, bomb, **{"content-encoding": "gzip"})
    with pytest.raises(HmsUnreachable, match="unusable"):
        await create(hms)
    assert upstream.requests[0].headers["accept-encoding"] == "identity"


async def test_a_reply_of_exactly_one_mebibyte_is_read(hms: HmsClient, upstream: Upstream) -> None:
    body = json.dumps(created()).encode()
    upstream.says(200, body + b" " * ((1 << 20) - len(body)))
    assert (await create(hms)).id == ROOM
    upstream.says(200, body + b" " * ((1 << 20) - len(body) + 1))
    with pytest.raises(HmsUnreachable):
        await create(hms)


async def test_a_missing_answer_is_a_timeout(
    hms: HmsClient, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "TOTAL_TIMEOUT_S", 0.05)

    upstream.answer = upstream.hang
    with pytest.raises(HmsTimeout):
        await create(hms)


async def test_the_time_limit_covers_the_whole_call_even_if_bytes_keep_arriving(
    hms: HmsClient, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "TOTAL_TIMEOUT_S", 0.1)

    async def trickle() -> AsyncIterator[bytes]:
        for _ in range(10_000):
            await asyncio.sleep(0.005)
            yield b" "

    upstream.answer = lambda _: httpx.Response(200, content=trickle())
    with pytest.raises(HmsTimeout):
        await create(hms)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (httpx.ConnectTimeout("x"), HmsTimeout),
        (httpx.ReadTimeout("x"), HmsTimeout),
        (httpx.PoolTimeout("x"), HmsTimeout),
        (httpx.ConnectError("x"), HmsUnreachable),
        (httpx.ReadError("x"), HmsUnreachable),
        (httpx.RemoteProtocolError("x"), HmsUnreachable),
        (httpx.DecodingError("x"), HmsUnreachable),
        (httpx.InvalidURL("x"), HmsUnreachable),
    ],
)
async def test_each_transport_error_becomes_a_100ms_error(
    hms: HmsClient, upstream: Upstream, error: Exception, expected: type[HmsError]
) -> None:
    upstream.answer = lambda _: error
    with pytest.raises(HmsError) as caught:
        await create(hms)
    assert type(caught.value) is expected


async def test_the_fifty_first_call_in_flight_is_refused_and_slots_are_released(
    hms: HmsClient, upstream: Upstream
) -> None:
    assert calls.MOST_IN_FLIGHT == 50
    released = asyncio.Event()

    async def hold(_: httpx.Request) -> Answer:
        await released.wait()
        return httpx.Response(200, json=created())

    upstream.answer = hold
    waiting = [asyncio.create_task(create(hms)) for _ in range(50)]
    await settled(lambda: len(upstream.requests) == 50)
    with pytest.raises(HmsBusy) as caught:
        await create(hms)
    assert caught.value.retry_after_s == 1
    waiting[0].cancel()  # a cancelled caller releases its slot
    await asyncio.gather(waiting[0], return_exceptions=True)
    waiting.append(asyncio.create_task(create(hms)))
    await settled(lambda: len(upstream.requests) == 51)
    with pytest.raises(HmsBusy):
        await create(hms)
    released.set()
    assert len(await asyncio.gather(*waiting[1:])) == 50
    for _ in range(60):  # failures release theirs too; as many successes keep the breaker closed
        upstream.says(500)
        with pytest.raises(HmsUnreachable):
            await create(hms)
        upstream.says(200, created())
        await create(hms)


# --- template roles ---


async def test_template_roles_never_wait_for_100ms(hms: HmsClient, upstream: Upstream) -> None:
    released = asyncio.Event()

    async def hold(_: httpx.Request) -> Answer:
        await released.wait()
        return httpx.Response(200, json={"roles": {"guest": {}}})

    upstream.answer = hold
    assert [hms.template_roles(TEMPLATE) for _ in range(100)] == [None] * 100
    await settled(lambda: upstream.requests)
    assert hms.template_roles(TEMPLATE) is None
    released.set()
    await settled(lambda: hms.template_roles(TEMPLATE) == {"guest"})
    assert len(upstream.requests) == 1


async def test_old_template_roles_are_returned_while_new_ones_are_fetched(
    hms: HmsClient, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.says(200, {"roles": {"guest": {}}})
    hms.template_roles(TEMPLATE)
    await settled(lambda: hms.template_roles(TEMPLATE))
    monkeypatch.setattr(client, "ROLES_TTL_S", -1.0)
    monkeypatch.setattr(client, "_ROLES_RETRY_S", 0.0)
    upstream.says(200, {"roles": {"host": {}}})
    assert hms.template_roles(TEMPLATE) == {"guest"}
    await settled(lambda: hms.template_roles(TEMPLATE) == {"host"})


async def test_template_roles_are_fetched_again_after_five_minutes_and_not_before(
    hms: HmsClient, upstream: Upstream
) -> None:
    upstream.says(200, {"roles": {"guest": {}}})
    hms.template_roles(TEMPLATE)
    await settled(lambda: hms.template_roles(TEMPLATE))
    hms._roles_asked.clear()
    for age_s, fetched in ((0, 1), (290, 1), (301, 2)):
        hms._roles[TEMPLATE] = frozenset({"guest"}), time.monotonic() - age_s
        for _ in range(100):
            hms.template_roles(TEMPLATE)
        await asyncio.sleep(0.01)
        assert len(upstream.requests) == fetched


async def test_time_limits_are_2_s_to_connect_and_5_s_in_total() -> None:
    async with client.connect("https://api.100ms.test/v2") as http:
        assert http.timeout == httpx.Timeout(5.0, connect=2.0)


async def test_a_failed_refresh_of_the_roles_keeps_the_old_ones_and_is_not_repeated_at_once(
    hms: HmsClient, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.says(200, {"roles": {"guest": {}}})
    hms.template_roles(TEMPLATE)
    await settled(lambda: hms.template_roles(TEMPLATE))
    monkeypatch.setattr(client, "ROLES_TTL_S", -1.0)
    hms._roles_asked.clear()
    upstream.says(500, {"message": BODY_SECRET})
    for _ in range(100):
        assert hms.template_roles(TEMPLATE) == {"guest"}
        await asyncio.sleep(0)
    await settled(lambda: "could not be read" in caplog.text)
    assert len(upstream.requests) == 1 + calls.ATTEMPTS
    assert BODY_SECRET not in caplog.text


async def test_closing_ends_a_running_refresh(hms: HmsClient, upstream: Upstream) -> None:
    upstream.answer = upstream.hang
    hms.template_roles(TEMPLATE)
    await settled(lambda: upstream.requests)
    await asyncio.wait_for(hms.close(), 5)


@pytest.mark.parametrize("status", [200, 401, 403, 404, 429, 500])
async def test_no_log_line_or_error_contains_the_token_or_the_secret(
    hms: HmsClient, upstream: Upstream, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    caplog.set_level(logging.DEBUG)
    upstream.says(status, b"nonsense")
    with pytest.raises(HmsError) as caught:
        await create(hms)
    token = upstream.requests[0].headers["authorization"].split(" ")[1]
    for text in (caplog.text, repr(caught.value), str(caught.value), repr(hms)):
        assert token not in text
        assert token.split(".")[2] not in text
        assert SECRET not in text


async def test_after_a_429_no_call_is_made_until_its_time_has_passed(
    hms: HmsClient, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(calls.time, "monotonic", lambda: clock[0])
    upstream.says(429, {}, **{"Retry-After": "7"})
    with pytest.raises(HmsBusy):
        await create(hms)
    upstream.says(200, created())
    for later, wait_s in ((0.0, 7), (6.5, 1)):
        clock[0] = 1000.0 + later
        with pytest.raises(HmsBusy) as caught:
            await create(hms)
        assert caught.value.retry_after_s == wait_s
    assert len(upstream.requests) == 1
    clock[0] = 1007.0
    await create(hms)


async def test_calls_are_refused_for_a_moment_after_too_many_failures(hms: HmsClient, upstream: Upstream) -> None:
    upstream.says(500)
    for _ in range(20):
        with pytest.raises(HmsUnreachable):
            await create(hms)
    upstream.requests.clear()
    with pytest.raises(HmsBusy) as caught:
        await create(hms)
    assert caught.value.retry_after_s == 1
    assert upstream.requests == []


async def test_every_call_is_reported_with_how_it_ended(upstream: Upstream, impatient: None) -> None:
    seen: list[str] = []
    transport = httpx.MockTransport(upstream)
    async with httpx.AsyncClient(transport=transport, base_url="https://api.100ms.test/v2") as http:
        hms = HmsClient(http, HmsTokens(KEY, SECRET), on_call=[lambda call, outcome, seconds: seen.append(outcome)])
        upstream.says(200, created())
        await create(hms)
        for status in (400, 401, 500, 429):
            upstream.says(status)
            with pytest.raises(HmsError):
                await create(hms)
        with pytest.raises(HmsError):
            await create(hms)
        await hms.close()
    assert seen == ["ok", "refused", "unauthorized", "unreachable", "busy", "busy"]
