"""The cost of a login in Redis, with the whole application on a real server."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import httpx
import pytest

from auth.accounts import Accounts
from auth.passwords import Passwords
from gateway.app import create_app
from gateway.redis.store import Store
from gateway.redis.topology import connect
from gateway.settings import Settings

PASSWORD = "correct horse battery staple"


class Rounds:
    """Counts round trips: what is sent before the first reply to a command is part of its round trip."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.commands: list[list[str]] = []
        self.writes = 0
        self._open = False
        flush = Store._flush

        def counted(store: Store) -> None:
            if awaited := [call for call in store._waiting if call.future is not None]:
                self.writes += 1
                if not self._open:
                    self.commands.append([])
                self._open = True
                self.commands[-1] += (call.words[0] for call in awaited)
                for call in awaited:
                    call.future.add_done_callback(self._close)
            flush(store)

        monkeypatch.setattr(Store, "_flush", counted)

    def clear(self) -> None:
        self.commands.clear()
        self.writes = 0

    def _close(self, _: object) -> None:
        self._open = False


@pytest.fixture
async def gateway(redis_url: str, store: Store) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application, whose Redis has one user, `ada`."""
    words = ("key", secrets.token_hex(16), "a" * 24, (secrets.token_hex(32),))
    # The time limit of Redis is not what these tests are about, and a busy machine exceeds the default.
    settings = Settings(redis_url, *words, redis_timeout_ms=5000)
    passwords = Passwords()
    await Accounts(store.execute, passwords).add("ada", PASSWORD, roles=["member"])
    passwords.close()
    app = create_app(settings, redis=connect(redis_url), http=httpx.AsyncClient())
    transport = httpx.ASGITransport(app, client=("198.51.100.1", 1234))  # type: ignore[arg-type]  # Litestar's ASGI
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway.test") as client:
        yield client


async def log_in(gateway: httpx.AsyncClient, password: str) -> int:
    answer = await gateway.post("/api/auth/login", json={"username": "ada", "password": password})
    return answer.status_code


async def test_a_login_takes_at_most_four_round_trips(
    gateway: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await log_in(gateway, PASSWORD) == 200  # Redis does not know the scripts yet
    rounds = Rounds(monkeypatch)
    for _ in range(2):
        rounds.clear()
        assert await log_in(gateway, PASSWORD) == 200
        assert 1 < len(rounds.commands) <= 4, rounds.commands


async def test_a_wrong_password_takes_at_most_three(
    gateway: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await log_in(gateway, PASSWORD + "!") == 401
    rounds = Rounds(monkeypatch)
    assert await log_in(gateway, PASSWORD + "!") == 401
    assert 1 < len(rounds.commands) <= 3, rounds.commands
