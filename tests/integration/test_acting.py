"""Service keys that act for users: charges, counts and refusals, with the whole application on a real server."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from auth.accounts import Accounts
from auth.keys import KeyRing
from auth.service_keys import NewKey, ServiceKeys
from auth.sessions import Sessions
from auth.tokens import LoginTokens
from auth.users import User
from gateway.app import create_app
from gateway.policy.actions import POWERS
from gateway.policy.scopes import SCOPES
from gateway.redis.store import Store
from gateway.redis.topology import connect
from gateway.rooms.room import Room, words_of
from gateway.settings import Settings
from limits.limiter import Limiter
from limits.overrides import Overrides
from limits.policy import US_PER_S, Limit, Quota
from tests.integration.test_login import Rounds

ROOM = "64f0c0ffee64f0c0ffee64f0"
SECRET = secrets.token_hex(32)
POLICY = """
[roles.host]
permissions = ["rooms:join", "rooms:create", "usage:read-own"]
limits.api = { rate = "60/min", burst = 30 }
limits."tokens.mint" = { rate = "1/h", burst = 3 }
quotas.mints = 4
[roles.member]
permissions = ["rooms:join", "usage:read-own"]
limits.api = { rate = "60/min", burst = 30 }
limits."tokens.mint" = { rate = "1/h", burst = 3 }
[roles.admin]
permissions = ["usage:read-any", "users:manage", "limits:manage", "audit:read", "rooms:read-any", "rooms:end-any"]
limits.api = { rate = "60/min", burst = 30 }
[service_keys]
limits.api = { rate = "1/h", burst = 5 }
[limits.api]
applies_to = ["*"]
[limits."tokens.mint"]
applies_to = ["tokens.mint"]
[quotas.mints]
counter = "tokens.mint"
period = "month"
[templates.default]
owner = ["guest", "host"]
participant = ["guest"]
"""


@dataclass
class Town:
    """Two workers on one Redis, a host, a member and an admin, a room of the host, and keys."""

    store: Store
    workers: list[httpx.AsyncClient]
    accounts: Accounts
    keys: ServiceKeys
    users: dict[str, User] = field(default_factory=dict)

    async def add(self, name: str, role: str) -> User:
        self.users[name] = user = await self.accounts.add(name, None, roles=[role])
        return user

    async def key(self, *scopes: str, **rest: Any) -> tuple[str, str]:
        """Return the id and the text of a new key."""
        key, text = await self.keys.add(NewKey(f"key-{secrets.token_hex(4)}", scopes, **rest), by="cli")
        return key.id, text

    async def log_in(self, name: str) -> str:
        grant = await Sessions(self.store.execute, KeyRing([SECRET], "refresh")).open(self.users[name])
        return LoginTokens(KeyRing([SECRET], "login-token")).issue(grant.principal, auth_time=0)

    async def ask(
        self, text: str, method: str, path: str, *, acting: str = "", worker: int = 0, body: Any = None, **headers: str
    ) -> httpx.Response:
        given = {"Authorization": f"Bearer {text}"} | {name.replace("_", "-"): one for name, one in headers.items()}
        if acting:
            given["X-Act-As"] = self.users[acting].id if acting in self.users else acting
        return await self.workers[worker].request(method, f"/api{path}", json=body, headers=given)

    async def mint(self, text: str, acting: str = "hanna", **rest: Any) -> httpx.Response:
        return await self.ask(text, "POST", f"/rooms/{ROOM}/token", acting=acting, body={}, **rest)

    async def counted(self, subject: str) -> dict[str, int]:
        """Return a subject's counters of all time: usage and denials."""
        found = {}
        for kind in ("uc", "dn"):
            pairs = await self.store.execute("HGETALL", f"{kind}:1:{{{subject}}}:all")
            found |= {name.decode(): int(value) for name, value in pairs.items() if int(value)}
        return found

    async def allow(self, subject: str, *names: str) -> None:
        """Let a subject do as much as it likes of some limits and quotas."""
        overrides = Overrides(self.store.execute, Limiter(self.store.execute))
        terms: dict[str, Any] = {"until_us": (int(time.time()) + 3600) * US_PER_S, "reason": "test", "by": "cli"}
        for name in names:
            if name == "mints":
                await overrides.set_quota(subject, Quota(name, "tokens.mint", 100_000, "month"), **terms)
            else:
                await overrides.set_limit(subject, Limit(name, 100_000, US_PER_S, 100_000), **terms)

    async def left(self, subject: str) -> dict[bytes, bytes]:
        """Return what the limits of a subject have stored."""
        return dict(await self.store.execute("HGETALL", f"rl:1:{{{subject}}}"))


@pytest.fixture
async def town(redis_url: str, store: Store, tmp_path: Any) -> AsyncIterator[Town]:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    words = ("key", secrets.token_hex(16), "a" * 24, (SECRET,))
    settings = Settings(redis_url, *words, redis_timeout_ms=5000, policy_path=path)
    workers = []
    for _ in range(2):
        app = create_app(settings, redis=connect(redis_url), http=httpx.AsyncClient())
        transport = httpx.ASGITransport(app, client=("198.51.100.1", 1234))  # type: ignore[arg-type]  # Litestar's ASGI
        workers.append(httpx.AsyncClient(transport=transport, base_url="http://gateway.test"))
    town = Town(store, workers, Accounts(store.execute), ServiceKeys(store.execute))
    for name, role in (("hanna", "host"), ("mira", "member"), ("ada", "admin")):
        await town.add(name, role)
    owner = town.users["hanna"].id
    room = Room(ROOM, "Daily", "", "open", "default", owner, True, 1, owner, "")
    await store.execute("HSET", f"rm:1:{{{ROOM}}}", *words_of(room))
    await store.execute("ZADD", "ra:1", 1, ROOM)
    yield town
    for worker in workers:
        await worker.aclose()


# --- cost ---


async def test_requests_of_keys_of_users_and_for_users_take_one_round_trip(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, text = await town.key("usage:read-own", "act:user", "rooms:join")
    assert (await town.mint(text)).status_code == 200  # the first one reads the key, the user and the list of rooms
    rounds = Rounds(monkeypatch)
    assert (await town.mint(text)).status_code == 200
    assert (len(rounds.commands), rounds.writes) == (1, 1), rounds.commands
    rounds.clear()
    assert (await town.ask(text, "GET", "/usage")).status_code == 200
    assert (len(rounds.commands), rounds.writes) == (1, 1), rounds.commands
    token = await town.log_in("mira")
    assert (await town.mint(token, acting="")).status_code == 200
    rounds.clear()
    assert (await town.mint(token, acting="")).status_code == 200
    assert (len(rounds.commands), rounds.writes) == (1, 1), rounds.commands


# --- what is charged and counted ---


async def test_user_and_key_are_both_charged_and_counted(town: Town) -> None:
    key_id, text = await town.key("act:user", "rooms:join")
    assert (await town.mint(text)).json()["user_id"] == town.users["hanna"].id
    assert await town.counted(town.users["hanna"].id) == {"tokens.mint.ok": 1}
    assert await town.counted(key_id) == {"act-as.ok": 1}
    assert {*await town.left(town.users["hanna"].id)} == {b"api", b"tokens.mint"}
    assert {*await town.left(key_id)} == {b"api"}
    # A refusal by the policy is counted for both; rate units stay spent, as in any refusal.
    assert (await town.ask(text, "POST", "/rooms", acting="mira", body={})).status_code == 403
    assert await town.counted(town.users["mira"].id) == {"rooms.create.refused.forbidden": 1}
    assert await town.counted(key_id) == {"act-as.ok": 1, "act-as.refused.forbidden": 1}


async def test_denial_by_the_user_gives_the_key_back_what_it_took(town: Town) -> None:
    key_id, text = await town.key("act:user", "rooms:join")
    for _ in range(3):
        assert (await town.mint(text)).status_code == 200
    before = await town.left(key_id)
    for _ in range(4):  # more than the key has left
        denied = await town.mint(text)
        assert (denied.status_code, denied.json()["violated-policies"]) == (429, ["tokens.mint"])
    assert await town.left(key_id) == before
    assert await town.counted(key_id) == {"act-as.ok": 3, "act-as.refused.rate_limited": 4}
    assert await town.counted(town.users["hanna"].id) == {"tokens.mint.ok": 3, "tokens.mint.denied.tokens.mint": 4}


async def test_denial_by_the_key_gives_the_user_back_what_they_gave(town: Town) -> None:
    key_id, text = await town.key("act:user", "rooms:join")
    for _ in range(5):
        assert (await town.ask(text, "GET", f"/rooms/{ROOM}", acting="mira")).status_code == 200
    assert (await town.left(town.users["hanna"].id)) == {}
    denied = await town.mint(text)
    assert denied.status_code == 429
    assert "service key" in denied.json()["detail"]
    hanna = town.users["hanna"].id
    assert await town.counted(hanna) == {"tokens.mint.refused.rate_limited": 1}
    assert await town.counted(key_id) == {"act-as.ok": 5, "act-as.denied.api": 1}
    usage = (await town.ask(await town.log_in("hanna"), "GET", "/usage")).json()
    assert {one["name"]: one["remaining"] for one in usage["limits"]} == {"api": 30, "tokens.mint": 3}
    assert [one["used"] for one in usage["quotas"]] == [0]


async def test_quota_of_the_user_counts_for_every_key(town: Town) -> None:
    _, first = await town.key("act:user", "rooms:join")
    await town.allow(town.users["hanna"].id, "tokens.mint")
    for _ in range(4):
        assert (await town.mint(first)).status_code == 200
    key_id, second = await town.key("act:user", "rooms:join")
    denied = await town.mint(second)
    assert (denied.status_code, denied.json()["code"]) == (429, "quota_exceeded")
    assert await town.counted(key_id) == {"act-as.refused.quota_exceeded": 1}


async def test_concurrent_requests_never_exceed_either_limit(town: Town) -> None:
    ids, texts = zip(*[await town.key("act:user", "rooms:join") for _ in range(3)], strict=True)
    answers = await asyncio.gather(*(town.mint(text, worker=number % 2) for number in range(8) for text in texts))
    ok = [answer for answer in answers if answer.status_code == 200]
    assert len(ok) <= 3
    counted = await town.counted(town.users["hanna"].id)
    assert counted["tokens.mint.ok"] == len(ok)
    assert sum(counted.values()) == len(answers)
    of_keys = [await town.counted(key_id) for key_id in ids]
    assert sum(one.get("act-as.ok", 0) for one in of_keys) == len(ok)
    assert sum(sum(one.values()) for one in of_keys) == len(answers)


async def test_reading_the_users_own_usage_costs_nothing(town: Town) -> None:
    key_id, text = await town.key("act:user", "usage:read-own")
    answer = await town.ask(text, "GET", "/usage", acting="hanna")
    assert answer.json()["user_id"] == town.users["hanna"].id
    assert {one["name"] for one in answer.json()["limits"]} == {"api", "tokens.mint"}
    assert await town.left(key_id) == {}
    assert await town.counted(key_id) == {}


async def test_request_that_is_not_served_for_lack_of_redis_costs_nothing(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway.redis.store import StoreError
    from gateway.rooms.registry import Rooms

    key_id, text = await town.key("act:user", "rooms:join")
    assert (await town.mint(text)).status_code == 200
    before = await town.left(key_id)

    async def fails(*_: Any, **__: Any) -> None:
        raise StoreError("no reply")

    monkeypatch.setattr(Rooms, "find", fails)
    assert (await town.mint(text)).status_code == 503
    assert await town.left(key_id) == before
    assert await town.counted(key_id) == {"act-as.ok": 1, "act-as.failed": 1}
    assert await town.counted(town.users["hanna"].id) == {"tokens.mint.ok": 1, "tokens.mint.failed": 1}


# --- changes that another worker makes ---


async def test_revoked_key_charges_no_user_on_any_worker(town: Town) -> None:
    key_id, text = await town.key("act:user", "rooms:join")
    for worker in (0, 1):
        assert (await town.mint(text, worker=worker)).status_code == 200
    await town.keys.revoke(key_id)
    before = await town.left(town.users["hanna"].id)
    for worker in (0, 1, 0, 1):
        refused = await town.mint(text, worker=worker)
        assert (refused.status_code, refused.json()["code"]) == (401, "invalid_token")
        assert "revoked" in refused.json()["detail"]
    assert await town.left(town.users["hanna"].id) == before
    # Each worker learns it from the first refusal, which the user's counters show; later ones do not reach them.
    assert await town.counted(town.users["hanna"].id) == {"tokens.mint.ok": 2, "tokens.mint.refused.invalid_token": 2}
    assert await town.counted(key_id) == {"act-as.ok": 2}


async def test_rotated_key_goes_on_while_the_old_secret_is_valid(town: Town) -> None:
    key_id, old = await town.key("act:user", "rooms:join", "usage:read-own")
    assert (await town.mint(old)).status_code == 200
    new = await town.keys.rotate(key_id, overlap_s=60)
    assert (await town.mint(old)).status_code == 200
    assert (await town.ask(old, "GET", "/usage")).status_code == 200
    assert (await town.mint(new)).status_code == 200
    assert await town.counted(town.users["hanna"].id) == {"tokens.mint.ok": 3}
    assert await town.counted(key_id) == {"act-as.ok": 3}
    await town.keys.rotate(key_id)
    for text in (old, new):
        assert (await town.mint(text)).status_code == 401


async def test_change_of_the_users_roles_takes_effect_with_the_next_request(town: Town) -> None:
    key_id, text = await town.key("act:user", "rooms:join", "rooms:create")
    assert (await town.ask(text, "PATCH", f"/rooms/{ROOM}", acting="hanna", body={"name": "New"})).status_code == 200
    hanna = await town.accounts.get(town.users["hanna"].id)
    await town.accounts.change(hanna, roles=["admin"])
    denied = await town.mint(text)
    assert (denied.status_code, denied.json()["missing_permission"]) == (403, "rooms:join")
    assert await town.counted(key_id) == {"act-as.ok": 1, "act-as.refused.forbidden": 1}
    assert await town.counted(hanna.id) == {"api.ok": 1, "tokens.mint.refused.forbidden": 1}


@pytest.mark.parametrize(
    ("change", "status", "code"), [("disable", 403, "forbidden"), ("delete", 400, "invalid_request")]
)
async def test_user_who_is_gone_is_refused_from_the_next_request_on(
    town: Town, change: str, status: int, code: str
) -> None:
    key_id, text = await town.key("act:user", "rooms:join")
    assert (await town.mint(text)).status_code == 200
    hanna = await town.accounts.get(town.users["hanna"].id)
    await (town.accounts.change(hanna, status="disabled") if change == "disable" else town.accounts.erase(hanna))
    before = await town.left(hanna.id)
    for _ in range(2):
        refused = await town.mint(text)
        assert (refused.status_code, refused.json()["code"]) == (status, code)
        assert "X-Act-As" in refused.json()["detail"]
    assert await town.left(hanna.id) == before
    assert await town.counted(hanna.id) == {"tokens.mint.ok": 1}
    own = await town.counted(key_id)
    assert own.pop("act-as.ok") == 1
    assert sum(own.values()) == 2, own
    assert all(name.endswith(f".refused.{code}") for name in own)


# --- two sides ---


async def test_no_request_succeeds_that_the_user_or_the_key_may_not_make(town: Town) -> None:
    """Routes that change nothing, and mints: what succeeds for a user by a key succeeds with their own token."""
    reads = ["/rooms", f"/rooms/{ROOM}", f"/rooms/{ROOM}/members", f"/rooms/{ROOM}/invites", "/usage", "/admin/usage"]
    reads += ["/admin/audit", "/admin/users", "/admin/keys", "/admin/status", f"/admin/limits/{town.users['mira'].id}"]
    reads += ["/auth/me", "/auth/sessions"]
    requests = [*(("GET", path) for path in reads), ("POST", f"/rooms/{ROOM}/token")]
    sets = [frozenset(), SCOPES, SCOPES - POWERS, *(frozenset({scope}) for scope in sorted(SCOPES))]
    outcomes = {}
    for name, user in town.users.items():
        await town.allow(user.id, "api", "tokens.mint", "mints")
        token = await town.log_in(name)
        for method, path in requests:
            answer = await town.ask(token, method, path, body={} if method == "POST" else None)
            outcomes[name, method, path] = answer.status_code
    for scopes in sets:
        key_id, text = await town.key("act:user", *scopes)
        await town.allow(key_id, "api")
        for name in town.users:
            for method, path in requests:
                answer = await town.ask(text, method, path, acting=name, body={} if method == "POST" else None)
                if answer.status_code < 300:
                    assert outcomes[name, method, path] < 300, (scopes, name, path)
                    assert scopes, (name, path)
                else:
                    assert answer.status_code in (403, 404), (scopes, name, path, answer.text)
                if answer.status_code < 300 and path.startswith("/admin"):
                    assert scopes & POWERS, (scopes, name, path)
                assert not (answer.status_code < 300 and path in ("/auth/me", "/auth/sessions", "/admin/keys"))
                alone = await town.ask(text, method, path, body={} if method == "POST" else None)
                if alone.status_code < 300:
                    assert scopes - {"act:user"}, path
                    assert path != f"/rooms/{ROOM}/token"
