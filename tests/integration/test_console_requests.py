"""What each screen of the console asks for first, in an installation with 100,000 users."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from auth.accounts import Accounts
from auth.passwords import Passwords
from gateway.app import create_app
from gateway.redis.store import Store
from gateway.redis.topology import connect
from gateway.settings import Settings
from tests.e2e.policies import BUILT_IN
from tests.integration.test_reports import MONTH, seed
from tests.servers import Valkey

USERS, ROOMS = 100_000, 10_000
WITHIN_S = 0.3
PASSWORD = secrets.token_hex(16)
BUDGET = """
[quotas.own]
counter = "minutes"
period = "month"
amount = 100
"""
# Rooms with an owner each and their counters, and as many entries of the trail. ARGV: how many, month.
WITH_ROOMS = """
for number = 0, ARGV[1] - 1 do
  local rid, owner = string.format('%024x', number), string.format('u%020d', number)
  redis.call('HSET', 'rm:1:{' .. rid .. '}', 'name', 'Room ' .. number, 'description', '', 'access', 'open',
    'template', 'default', 'owner', owner, 'enabled', '1', 'created_ms', number + 1)
  redis.call('ZADD', 'ra:1', number + 1, rid)
  redis.call('ZADD', 'ur:1:{' .. owner .. '}', number + 1, rid)
  redis.call('HSET', 'rc:1:{' .. rid .. '}:' .. ARGV[2], '15:tokens.mint.ok', 7, '*:tokens.mint.ok', 7)
  redis.call('XADD', 'audit:1', '*', 'entry', cjson.encode({action = 'token.minted', by = owner, subject = owner}))
end
"""
SPAN = f"from={MONTH}-01&to={MONTH}-31"
ROOM = f"{7:024x}"
SCREENS = {
    "overview": [f"admin/overview?range={one}" for one in ("1h", "24h", "30d", "12mo")]
    + [f"admin/usage/top?counter={one}&period={MONTH}&limit=5" for one in ("minutes", "denials")],
    "rooms": ["admin/rooms/live?limit=100", "rooms?limit=50", "rooms?limit=100&owner=user-7"],
    "room": [f"rooms/{ROOM}", f"rooms/{ROOM}/members", f"rooms/{ROOM}/invites", f"admin/usage/rooms/{ROOM}?{SPAN}"],
    "users": ["admin/users?limit=100", "admin/users?name=user-9&limit=100"],
    "user": [
        "admin/users/user-7", "admin/limits/user-7", "admin/users/user-7/sessions", f"admin/usage/users/user-7?{SPAN}",
        "admin/rooms/live?limit=500", "rooms?owner=user-7&limit=100", "admin/audit?user=user-7&limit=10",
    ],
    "usage": [f"admin/usage?{SPAN}&group_by=day", f"admin/usage?{SPAN}&group_by=action&limit=100"],
    "usage by user": [f"admin/usage?{SPAN}&group_by=user&limit=100"],
    "usage by room": [f"admin/usage?{SPAN}&group_by=room&limit=100"],
    "top users": [f"admin/usage/top?counter=minutes&period={MONTH}&limit=20"],
    "denials": [f"admin/denials?{SPAN}", f"admin/usage/top?counter=denials&period={MONTH}&limit=20"],
    "budgets": ["admin/budgets?limit=50"],
    "webhooks": ["admin/webhooks", "admin/webhooks/dead?limit=20", "admin/webhooks/out", "admin/webhooks/out/dead"],
    "health": ["admin/status"],
    "audit": ["admin/audit?limit=50", "admin/audit?limit=50&action=login"],
}  # fmt: skip


@pytest.fixture
async def operator(valkey: Valkey, store: Store, redis_url: str, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application as its admin, who may do everything."""
    seed(valkey, USERS)
    with valkey.client() as redis:
        redis.eval(WITH_ROOMS, 0, ROOMS, MONTH)
        for month, metric in itertools.product((MONTH, f"{datetime.now(UTC):%Y-%m}"), ("minutes.ok", "denials")):
            redis.zunionstore(f"tp:1:{month}:{metric}", ["ui:1"])  # all users, each with a count of their own
    policy = tmp_path / "policy.toml"
    policy.write_text(BUILT_IN.read_text() + BUDGET)
    passwords = Passwords()
    await Accounts(store.execute, passwords).add("ada", PASSWORD, roles=["admin"])
    passwords.close()
    words = ("key", secrets.token_hex(16), "a" * 24, (secrets.token_hex(32),))
    settings = Settings(redis_url, *words, redis_timeout_ms=5000, policy_path=policy)
    app = create_app(settings, redis=connect(redis_url), http=httpx.AsyncClient())
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]  # Litestar's ASGI
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway.test/api/") as client:
        answer = await client.post("auth/login", json={"username": "ada", "password": PASSWORD})
        client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        yield client


@pytest.mark.alone
async def test_first_page_of_every_screen_is_fast_with_100_000_users(operator: httpx.AsyncClient) -> None:
    for path, name, size in (
        ("admin/users?limit=100", "users", 100),
        ("rooms?limit=50", "rooms", 50),
        (f"admin/usage/top?counter=denials&period={MONTH}&limit=20", "items", 20),
        ("admin/budgets?limit=50", "items", 50),
        ("admin/audit?limit=50", "items", 50),
    ):
        assert len((await operator.get(path)).json()[name]) == size, path
    slow = {}
    for screen, paths in SCREENS.items():
        times_s = []
        for _ in range(3):
            begun = time.perf_counter()
            answers = await asyncio.gather(*(operator.get(path) for path in paths))
            times_s.append(time.perf_counter() - begun)
            assert {(answer.url.path, answer.status_code) for answer in answers if answer.status_code != 200} == set()
        # The best of three: other work on the machine can only add to it.
        print(f"{screen}: {min(times_s) * 1000:.0f} ms")
        if min(times_s) >= WITHIN_S:
            slow[screen] = times_s
    assert slow == {}
