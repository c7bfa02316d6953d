"""Dead letters are kept in bounded number, shown without secrets, and processed again on request."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.metering import keys
from gateway.metering.dead_letters import DeadLetters, without_secrets
from limits import Execute
from tests.fake_redis import fake_redis

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoiaG9zdCJ9.c2lnbmF0dXJl"


@pytest.fixture
def execute() -> Execute:
    return fake_redis().execute_command


@pytest.fixture
def letters(execute: Execute) -> DeadLetters:
    return DeadLetters(execute)


SECRETS = [
    {"meeting_url": f"https://x.app.100ms.live/preview/r/__internal_recorder?auth_token={JWT}"},
    {"recording_presigned_url": "https://s3/x?X-Amz-Signature=SIGNATURE"},
    {"chat": {"deep": [{"recording_presigned_url": ["SIGNATURE"]}]}},
    {"rtmp": [{"url": "rtmp://a.rtmp.youtube.com/live2/STREAMKEY"}]},
    {"RTMP_URLS": ["STREAMKEY"]},
    {"url": "rtmps://a.example/live/STREAMKEY"},
    {"user_data": f"my token is {JWT}"},
    {"user_data": json.dumps({"link": "https://x/?X-Amz-Signature=SIGNATURE"}).replace("/", "\\/")},
    {f"{JWT}": 1},
    {"auth_token": "SIGNATURE"},
]


@pytest.mark.parametrize("cut", [0, 1, 3])
@pytest.mark.parametrize("secret", SECRETS, ids=lambda one: next(iter(one))[:20])
def test_no_secret_is_shown_even_if_the_body_is_not_json(secret: dict[str, object], cut: int) -> None:
    raw = json.dumps({"type": "peer.join.success", "data": secret}).encode()
    shown = without_secrets(raw[: len(raw) - cut])
    assert "peer.join.success" in shown
    for part in ("SIGNATURE", "STREAMKEY", "eyJyb2xl", "c2lnbmF0dXJl"):
        assert part not in shown


def test_an_escape_hides_no_token() -> None:
    escaped = JWT.replace("e", "\\u0065").encode()
    for raw in (b'{"a": "' + escaped + b'"}', b'{"a": "' + escaped):
        assert "c2ln" not in without_secrets(raw)
        assert "hidden" in without_secrets(raw)


@pytest.mark.parametrize("raw", [b"\xff\xfe", b'"\\ud800', b"[" * 50_000, b"x" * 262_144, b'"' * 262_144, b"\x1b[31m"])
def test_any_body_is_shown_as_a_short_printable_text(raw: bytes) -> None:
    shown = without_secrets(raw)
    assert len(shown) <= 4001
    assert shown.isprintable()
    shown.encode()


@given(raw=st.binary(max_size=200))
def test_showing_a_body_never_fails(raw: bytes) -> None:
    without_secrets(raw).encode()


async def test_the_last_thousand_are_kept_and_listed_newest_first(letters: DeadLetters, execute: Execute) -> None:
    for n in range(1005):
        await letters.add(b"%d" % n, "why", n)
    assert await letters.count() == 1000
    first, following = await letters.page(size=3)
    assert [one.body for one in first] == ["1004", "1003", "1002"]
    assert (first[0].at_ms, first[0].why, first[0].bytes) == (1004, "why", 4)
    second, _ = await letters.page(before=following, size=2)
    assert [one.body for one in second] == ["1001", "1000"]


async def test_a_replayed_letter_is_an_event_again_and_no_letter(letters: DeadLetters, execute: Execute) -> None:
    for body in (b"1", b"2", b"3"):
        await letters.add(body, "why", 5)
    middle = (await letters.page(size=10))[0][1]
    assert await letters.replay(middle.id, 77)
    assert not await letters.replay(middle.id, 77)
    ((_, words),) = await execute("XRANGE", keys.EVENTS, "-", "+")
    assert words == [b"body", b"2", b"at", b"77"]
    assert await letters.replay_all(78) == 2
    assert (await letters.count(), await execute("XLEN", keys.EVENTS)) == (0, 3)
