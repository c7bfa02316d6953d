"""Exchange: whom it lets in, what it audits, and who comes first when two things happen at once.

Tokens are judged in tests/attack/test_foreign_tokens.py; the rest is tested over HTTP in tests/e2e/test_exchange.py.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from auth.accounts import Accounts
from auth.errors import ForeignTokenRefused, InvalidCredentials, InvalidGrant
from auth.federation import Federation, Provider
from auth.identities import Identities
from auth.key_sets import read_key_set
from auth.keys import KeyRing
from auth.passwords import Passwords
from auth.sessions import Grant, Sessions
from auth.users import ExternalId, User
from gateway.accounts.exchange import Exchange
from gateway.accounts.logins import Blocked, Client, Logins
from gateway.audit import Audit, Origin
from gateway.policy.file import load_policy
from gateway.policy.live import PolicyInForce
from limits.derived import Derived
from limits.limiter import Limiter
from limits.overrides import Overrides
from tests.fake_redis import fake_redis
from tests.identity_provider import AUDIENCE, IdentityProvider

SITE = IdentityProvider("https://login.example.com")
PROVIDER = Provider(
    "people",
    SITE.issuer,
    frozenset({AUDIENCE}),
    algorithms=frozenset({"ES256"}),
    fixed=read_key_set(json.dumps(SITE.jwks).encode()),
    roles_claim="groups",
    roles={"teachers": "host", "staff": "admin"},
    default_role="member",
    create_accounts=True,
)
ORIGIN = Origin("192.0.2.7", "f" * 16)


class House:
    """An exchange, and what it needs, on an empty Redis. `provider` may be replaced."""

    def __init__(self, passwords: Passwords) -> None:
        execute = self.execute = fake_redis().execute_command
        self.noted: list[dict[str, Any]] = []
        self.provider = PROVIDER
        self.accounts, self.sessions = Accounts(execute, passwords), Sessions(execute, KeyRing(["x" * 32], "refresh"))
        self.limiter = Limiter(execute)
        audit = Audit(self._record, lambda *words: self._note(words))
        logins = Logins(self.limiter, Derived(execute, lambda *_: None), self.sessions, audit)
        self.identities = Identities(execute, self.accounts, self.sessions, write=execute)

        async def fetch(url: str) -> bytes:
            raise AssertionError(url)

        federation = Federation(lambda: [self.provider], fetch)
        policy = PolicyInForce(load_policy())
        self.exchange = Exchange(federation, self.identities, self.accounts, self.sessions, logins, audit, policy)

    async def _record(self, *words: Any) -> None:
        self._note(words)

    def _note(self, words: tuple[Any, ...]) -> None:
        if words[0] == "XADD":
            self.noted.append(json.loads(words[-1]))

    async def log_in(self, **claims: Any) -> tuple[User, Grant]:
        return await self.exchange.log_in(SITE.token(**claims), Client(ORIGIN, "a browser"))

    async def refused(self, **claims: Any) -> str:
        """Return the reason that is audited for a token that is refused."""
        with pytest.raises(ForeignTokenRefused):
            await self.log_in(**claims)
        entry = self.noted[-1]
        assert (entry["action"], entry["by"], entry["source"]) == ("exchange.refused", "", ORIGIN.source)
        return str(entry["reason"])

    def actions(self) -> list[str]:
        return [entry["action"] for entry in self.noted]


@pytest.fixture
def house() -> Iterator[House]:
    passwords = Passwords(memory_kib=8, passes=1)
    yield House(passwords)
    passwords.close()


async def test_a_first_login_makes_an_account_and_both_are_audited(house: House) -> None:
    user, grant = await house.log_in(name="Ada \u202eevil", groups=["teachers"])
    assert (user.display_name, user.roles) == (user.username, ("host",)), "a name that deceives is not shown"
    registered, login = house.noted
    assert (registered["action"], registered["subject"], registered["identity"]) == (
        "account.registered", user.id, "people"
    )  # fmt: skip
    assert (login["action"], login["session"], login["identity"]) == ("login", grant.principal.sid, "people")
    [session] = await house.sessions.current(user.id)
    assert (session.address, session.agent) == (ORIGIN.address, "a browser")


async def test_a_change_of_roles_is_audited_before_it_is_made_and_other_logins_audit_none(house: House) -> None:
    now = int(time.time())
    user, _ = await house.log_in(iat=now - 9)
    await house.log_in(iat=now - 8)
    assert house.actions() == ["account.registered", "login", "login"]
    changed, grant = await house.log_in(iat=now - 7, groups=["staff"])
    assert changed.roles == grant.principal.roles == ("admin",)
    entry = house.noted[-2]
    assert (entry["action"], entry["was"], entry["now"], entry["identity"]) == (
        "user.roles",
        "member",
        "admin",
        "people",
    )
    assert entry["subject"] == user.id


@pytest.mark.parametrize(
    ("change", "claims", "reason"),
    [
        ({"create_accounts": False}, {}, "no_account"),
        ({"default_role": ""}, {"groups": ["x"]}, "no_role"),
        ({}, {"aud": "other"}, "audience"),
    ],
)
async def test_somebody_without_an_account_or_role_is_refused_and_gets_none(
    house: House, change: dict[str, Any], claims: dict[str, Any], reason: str
) -> None:
    house.provider = replace(PROVIDER, **change)
    assert await house.refused(**claims) == reason
    assert await house.accounts.count() == 0


async def test_a_password_ends_when_claims_give_power_over_others(house: House) -> None:
    """Or who prepared an account for an administrator-to-be, with a password they know, would become one."""
    who = ExternalId("people", SITE.issuer, "person-1")
    password = "seventeen green umbrellas"
    user = await house.accounts.add("boss", password, roles=["member"], identity=who)
    assert await house.identities.claim_new(user, who)
    prepared = await house.sessions.open(user)
    await house.log_in(iat=int(time.time()) - 9, groups=["teachers"])
    assert await house.accounts.has_password(user.id), "no power over others"
    admin, grant = await house.log_in(groups=["staff"])
    assert (admin.id, admin.roles) == (user.id, ("member", "admin"))
    assert house.noted[-2]["password"] == "removed"
    assert not await house.accounts.has_password(user.id)
    with pytest.raises(InvalidCredentials):
        await house.accounts.verify(await house.accounts.credentials(user.id), password)
    with pytest.raises(InvalidGrant):
        await house.sessions.refresh(prepared.refresh_token)
    assert (await house.sessions.refresh(grant.refresh_token)).principal.roles == admin.roles


async def test_somebody_who_has_lost_all_roles_is_refused_unless_an_administrator_gave_one(house: House) -> None:
    now = int(time.time())
    user, _ = await house.log_in(iat=now - 9)
    house.provider = replace(PROVIDER, default_role="")
    assert await house.refused(iat=now - 8) == "no_role"
    await house.accounts.change(await house.accounts.get(user.id), roles=["operator"])
    assert (await house.log_in(iat=now - 7))[0].roles == ("operator",)


async def test_a_disabled_account_and_tokens_from_before_a_logout_everywhere_are_refused(house: House) -> None:
    now = int(time.time())
    user, _ = await house.log_in(iat=now - 9)
    await house.accounts.void_tokens(user.id)
    assert await house.refused(iat=now - 5) == "voided"
    await house.accounts.change(await house.accounts.get(user.id), status="disabled")
    assert await house.refused(iat=now + 20) == "disabled"
    assert house.noted[-1]["subject"] == user.id


async def test_a_logout_at_the_provider_that_comes_while_a_session_is_opened_ends_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = house.sessions.open

    async def open_after_the_logout(user: User, **more: Any) -> Grant:
        await house.exchange.log_out("people", SITE.logout_token(), ORIGIN)  # finds no session yet
        return await opened(user, **more)

    monkeypatch.setattr(house.sessions, "open", open_after_the_logout)
    assert await house.refused() == "logged_out"
    uid = (await house.accounts.page())[0][0].id
    assert await house.sessions.current(uid) == []


async def test_an_account_that_changes_while_a_session_is_opened_gets_none(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, _ = await house.log_in(iat=int(time.time()) - 9)
    opened = house.sessions.open

    async def open_after_the_change(one: User, **more: Any) -> Grant:
        await house.accounts.change(await house.accounts.get(one.id), status="disabled")
        return await opened(one, **more)

    monkeypatch.setattr(house.sessions, "open", open_after_the_change)
    assert await house.refused() == "account"
    assert await house.sessions.current(user.id) == []


async def test_an_account_that_is_deleted_meanwhile_is_refused_like_any_other(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = int(time.time())
    await house.log_in(iat=now - 9)
    mapped = house.identities.map_roles

    async def map_after_the_deletion(one: User, *words: Any, **more: Any) -> User:
        await house.accounts.erase(await house.accounts.get(one.id))
        return await mapped(one, *words, **more)

    monkeypatch.setattr(house.identities, "map_roles", map_after_the_deletion)
    assert await house.refused(groups=["teachers"]) == "account"


async def test_a_blocked_user_gets_no_session(house: House) -> None:
    user, grant = await house.log_in(iat=int(time.time()) - 9)
    await house.sessions.end(user.id, grant.principal.sid)
    await Overrides(house.execute, house.limiter).block(
        user.id, until_us=int(time.time() + 600) * 10**6, reason="", by="cli"
    )
    with pytest.raises(Blocked):
        await house.log_in()
    assert house.actions()[-1] == "login.blocked"
    assert await house.sessions.current(user.id) == []


async def test_racing_logins_leave_the_roles_of_the_youngest_token(house: House) -> None:
    now = int(time.time())
    await house.log_in(iat=now - 99)
    claims = [{"iat": now - n, "groups": ["staff"] if n % 2 else ["teachers"]} for n in range(20)]
    # One that finds another change under way three times is told to come again.
    await asyncio.gather(*(house.log_in(**one) for one in claims), return_exceptions=True)
    user, _ = await house.log_in(**claims[0])
    for older in claims[1:]:
        assert (await house.log_in(**older))[0].roles == ("host",)
    assert (await house.accounts.get(user.id)).mapped_s == now


async def test_logouts_are_audited_with_the_person_and_refusals_with_their_reason(house: House) -> None:
    user, _ = await house.log_in(sid="s")
    logout = SITE.logout_token(sid="s")
    await house.exchange.log_out("people", logout, ORIGIN)
    entry = house.noted[-1]
    assert (entry["action"], entry["subject"], entry["scope"], entry["sessions"]) == ("logout", user.id, "provider", 1)
    for name, token, reason in (
        ("people", logout, "replayed"),
        ("nobody", logout, "issuer"),
        ("people", "x", "malformed"),
    ):
        with pytest.raises(ForeignTokenRefused):
            await house.exchange.log_out(name, token, ORIGIN)
        assert (house.noted[-1]["action"], house.noted[-1]["reason"]) == ("logout.refused", reason)
