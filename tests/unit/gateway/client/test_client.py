"""The Python client against a scripted gateway; both classes pass every test."""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from gateway.client import AsyncGateway, Gateway, GatewayProblem, GatewayUnreachable, asynchronous, blocking

ROOM = {"id": "1" * 24, "name": "Stand-up", "owner_id": "u1", "enabled": True, "created_at": "2026-11-29T12:00:00Z"}
SECRETS = ("hunter2", "the-access-", "the-refresh-", "gwk_secret")
Answer = Callable[[httpx.Request], httpx.Response]


def tokens(number: int, expires_in: int = 600) -> dict[str, Any]:
    user = {"id": "u1", "username": "ada", "display_name": "Ada", "roles": ["host"]}
    shared = {"expires_in": expires_in, "session_id": "s1", "user": user, "new_field": 1}
    return {"access_token": f"the-access-{number}", "refresh_token": f"the-refresh-{number}", **shared}


def problem(status: int, code: str, **more: Any) -> httpx.Response:
    wait = {"Retry-After": str(more.pop("retry_after"))} if "retry_after" in more else {}
    body = {"code": code, "detail": f"It is {code}.", "request_id": "r1", **more}
    return httpx.Response(status, json=body, headers=wait)


@dataclass
class Scripted:
    """Answers each path from a list, its last answer again and again; records all requests."""

    answers: dict[str, list[httpx.Response | Answer | Exception]]
    requests: list[httpx.Request] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        with self.lock:
            self.requests.append(request)
            left = self.answers[request.url.path]
            answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, httpx.Response):
            return httpx.Response(answer.status_code, content=answer.content, headers=answer.headers)
        return answer(request)

    def asked(self) -> list[tuple[str, str | None]]:
        return [(one.url.path.removeprefix("/api"), one.headers.get("Authorization")) for one in self.requests]


@dataclass
class Client:
    """One of the two classes, called in the same way."""

    kind: str
    waited: list[float]

    def make(self, script: Scripted, **options: Any) -> Any:
        transport = httpx.MockTransport(script)
        if self.kind == "blocking":
            return Gateway("https://gw.example/api/", http=httpx.Client(transport=transport), **options)
        return _Awaited(AsyncGateway("https://gw.example", http=httpx.AsyncClient(transport=transport), **options))


class _Awaited:
    """An AsyncGateway whose methods are run to their end."""

    def __init__(self, inner: AsyncGateway) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if not inspect.ismethod(found):
            return found
        if name == "act_as":
            return lambda user: _Awaited(found(user))

        def run(*args: Any, **more: Any) -> Any:
            result = found(*args, **more)
            return asyncio.run(_collected(result) if inspect.isasyncgen(result) else result)

        return run


async def _collected(items: Any) -> list[Any]:
    return [one async for one in items]


@pytest.fixture(params=["blocking", "asynchronous"])
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Client:
    waited: list[float] = []

    async def wait(s: float) -> None:
        waited.append(s)

    monkeypatch.setattr(blocking.time, "sleep", waited.append)
    monkeypatch.setattr(asynchronous.asyncio, "sleep", wait)
    return Client(request.param, waited)


def test_both_classes_have_the_same_methods() -> None:
    def methods(kind: type) -> dict[str, str]:
        public = {name: one for name, one in vars(kind).items() if not name.startswith("_")}
        texts = {name: str(inspect.signature(one)) for name, one in public.items() if callable(one)}
        return {name: text.replace("AsyncIterator", "Iterator").replace("Async", "") for name, text in texts.items()}

    assert methods(Gateway) == methods(AsyncGateway)
    assert len(methods(Gateway)) > 20
    for name in methods(Gateway):
        assert getattr(Gateway, name).__doc__ == getattr(AsyncGateway, name).__doc__ != None  # noqa: E711


def test_a_login_is_used_until_it_is_renewed_before_it_expires(client: Client) -> None:
    script = Scripted(
        {
            "/api/auth/login": [httpx.Response(200, json=tokens(1, expires_in=0))],
            "/api/auth/refresh": [httpx.Response(200, json=tokens(2))],
            "/api/rooms": [httpx.Response(201, json={"success": True, "room": ROOM})],
        }
    )
    gateway = client.make(script)
    assert gateway.login("ada", "hunter2").username == "ada"
    assert gateway.create_room("Stand-up").id == ROOM["id"]
    gateway.create_room()
    used = [("/auth/login", None), ("/auth/refresh", None), *[("/rooms", "Bearer the-access-2")] * 2]
    assert script.asked() == used
    assert json.loads(script.requests[1].content) == {"refresh_token": "the-refresh-1"}
    assert [json.loads(one.content) for one in script.requests[2:]] == [{"name": "Stand-up"}, {}]
    keys = {one.headers["Idempotency-Key"] for one in script.requests[2:]}
    assert len(keys) == 2


def test_a_refused_token_is_renewed_once_and_the_call_repeated(client: Client) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        old = request.headers["Authorization"] == "Bearer the-access-1"
        return problem(401, "token_expired") if old else httpx.Response(200, json={"user": tokens(1)["user"]})

    script = Scripted(
        {
            "/api/auth/login": [httpx.Response(200, json=tokens(1))],
            "/api/auth/refresh": [httpx.Response(200, json=tokens(2))],
            "/api/auth/me": [answer],
        }
    )
    gateway = client.make(script)
    gateway.login("ada", "hunter2")
    assert gateway.me().roles == ("host",)
    assert [path for path, _ in script.asked()] == ["/auth/login", "/auth/me", "/auth/refresh", "/auth/me"]


def test_a_login_that_has_ended_is_forgotten(client: Client) -> None:
    script = Scripted(
        {
            "/api/auth/login": [httpx.Response(200, json=tokens(1))],
            "/api/auth/refresh": [problem(400, "invalid_grant")],
            "/api/auth/me": [problem(401, "invalid_token")],
        }
    )
    gateway = client.make(script)
    gateway.login("ada", "hunter2")
    with pytest.raises(GatewayProblem) as caught:
        gateway.me()
    assert caught.value.code == "invalid_grant"
    assert gateway.session is None
    with pytest.raises(GatewayProblem, match="Log in first") as caught:
        gateway.me()
    assert caught.value.code == "no_session"


def test_concurrent_calls_share_one_refresh() -> None:
    script = Scripted(
        {
            "/api/auth/login": [httpx.Response(200, json=tokens(1, expires_in=0))],
            "/api/auth/refresh": [httpx.Response(200, json=tokens(2))],
            "/api/auth/me": [httpx.Response(200, json={"user": tokens(1)["user"]})],
        }
    )
    gateway = Gateway("https://gw.example", http=httpx.Client(transport=httpx.MockTransport(script)))
    gateway.login("ada", "hunter2")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: gateway.me(), range(40)))
    assert [path for path, _ in script.asked()].count("/auth/refresh") == 1

    async def together() -> None:
        script.requests.clear()
        http = httpx.AsyncClient(transport=httpx.MockTransport(script))
        other = AsyncGateway("https://gw.example", http=http)
        await other.login("ada", "hunter2")
        await asyncio.gather(*(other.me() for _ in range(40)))

    asyncio.run(together())
    assert [path for path, _ in script.asked()].count("/auth/refresh") == 1


def test_a_denied_call_is_repeated_after_its_wait_and_a_create_with_the_same_key(client: Client) -> None:
    made = httpx.Response(201, json={"room": ROOM}, headers={"RateLimit": '"rooms.create";r=3;t=9, "api";r=50;t=1'})
    denials = [problem(429, "rate_limited", retry_after=2), problem(503, "upstream_busy", retry_after=1)]
    conflicts = [problem(409, "idempotency_conflict", retry_after=1)] * 3
    script = Scripted({"/api/rooms": [*denials, *conflicts, made]})
    gateway = client.make(script, key="gwk_secret").act_as("u1")
    gateway.create_room()
    assert client.waited == [2, 1, 1, 1, 1]
    assert len({one.headers["Idempotency-Key"] for one in script.requests}) == 1
    assert {(one.headers["Authorization"], one.headers["X-Act-As"]) for one in script.requests} == {
        ("Bearer gwk_secret", "u1")
    }
    assert [(limit.policy, limit.remaining, limit.reset_s) for limit in gateway.rate_limits] == [
        ("rooms.create", 3, 9),
        ("api", 50, 1),
    ]


@pytest.mark.parametrize(
    ("answer", "calls"),
    [
        (problem(429, "rate_limited", retry_after=1), 3),  # two repetitions
        (problem(429, "rate_limited", retry_after=11), 1),  # longer than a call may wait
        (problem(503, "busy", retry_after=1), 1),  # a change may have happened
        (problem(503, "unavailable"), 1),
        (problem(403, "forbidden", missing_permission="rooms:create"), 1),
    ],
)
def test_other_refusals_are_raised_as_they_are(client: Client, answer: httpx.Response, calls: int) -> None:
    script = Scripted({"/api/rooms/1/end": [answer]})
    with pytest.raises(GatewayProblem) as caught:
        client.make(script, key="gwk_secret").end_room("1")
    assert len(script.requests) == calls
    assert caught.value.status == answer.status_code
    assert caught.value.request_id == "r1"
    assert caught.value.missing_permission == ("rooms:create" if answer.status_code == 403 else "")


def test_pages_are_fetched_on_demand(client: Client) -> None:
    def page(request: httpx.Request) -> httpx.Response:
        cursor = request.url.params.get("cursor")
        following = None if cursor else "next"
        return httpx.Response(200, json={"rooms": [ROOM, ROOM], "next_cursor": following})

    script = Scripted({"/api/rooms": [page]})
    assert len(list(client.make(script, key="gwk_secret").rooms())) == 4
    assert len(script.requests) == 2


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.ConnectTimeout("the-access-1"), "POST /api/invites/{code}/accept: no answer in time"),
        (httpx.ConnectError("the-access-1"), "POST /api/invites/{code}/accept: the gateway cannot be reached"),
    ],
)
def test_no_error_holds_a_secret(client: Client, answer: Exception, said: str) -> None:
    script = Scripted({"/api/invites/hunter2/accept": [answer]})
    gateway = client.make(script, key="gwk_secret")
    with pytest.raises(GatewayUnreachable) as caught:
        gateway.accept_invite("hunter2")
    assert str(caught.value).startswith(said)
    assert caught.value.timed_out == isinstance(answer, httpx.TimeoutException)
    assert caught.value.__suppress_context__
    assert not any(secret in repr(vars(caught.value)) for secret in SECRETS)


def test_answers_of_other_servers_are_not_taken_for_the_gateways(client: Client) -> None:
    script = Scripted(
        {"/api/auth/me": [httpx.Response(200, text="<html>hunter2"), httpx.Response(502, text="hunter2")]}
    )
    gateway = client.make(script, key="gwk_secret")
    for _ in range(2):
        with pytest.raises(GatewayProblem) as caught:
            gateway.me()
        assert caught.value.code == "unexpected_answer"
        assert "hunter2" not in str(caught.value)


def test_a_redirect_is_not_followed(client: Client) -> None:
    script = Scripted({"/api/auth/me": [httpx.Response(307, headers={"Location": "https://evil.example/"})]})
    with pytest.raises(GatewayProblem, match="307"):
        client.make(script, key="gwk_secret").me()
    assert {one.url.host for one in script.requests} == {"gw.example"}


def test_values_that_would_lead_elsewhere_are_refused(client: Client) -> None:
    script = Scripted({})
    for url in ("gw.example", "ftp://gw.example", "https://ada:hunter2@gw.example", "https://gw.example/?x=1", ""):
        with pytest.raises(ValueError, match="base_url must be") as caught:
            Gateway(url)
        assert "hunter2" not in str(caught.value)
    gateway = client.make(script, key="gwk_secret")
    for room in ("", ".", ".."):
        with pytest.raises(ValueError, match="must not be empty"):
            gateway.room(room)
    with pytest.raises(ValueError, match="/api/"):
        gateway.request("GET", "/hooks/100ms")
    with pytest.raises(ValueError, match="does not log in"):
        gateway.login("ada", "hunter2")
    with pytest.raises(ValueError, match="service key"):
        client.make(script).act_as("u1")


def test_no_repr_holds_a_token(client: Client) -> None:
    minted = {"token": "hunter2", "room_id": "1", "role": "host", "user_id": "u1", "expires_at": "2026-11-29T12:00:00Z"}
    script = Scripted(
        {
            "/api/auth/login": [httpx.Response(200, json=tokens(1))],
            "/api/rooms/1/token": [httpx.Response(200, json=minted)],
        }
    )
    gateway = client.make(script)
    gateway.login("ada", "hunter2")
    token = gateway.mint_token("1", "host")
    assert token.token == "hunter2"
    for one in (gateway.session, token, getattr(gateway, "inner", gateway)):
        assert not any(secret in repr(one) for secret in SECRETS)
