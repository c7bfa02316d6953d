"""Login throttling: attempts are charged before and refunded after verification; owners are never locked out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import fakeredis
import pytest

from auth.accounts import Accounts
from auth.errors import Busy, InvalidCredentials
from auth.keys import KeyRing
from auth.passwords import Passwords
from gateway.audit import Audit
from gateway.http.login_throttle import Throttle
from gateway.http.problems import Problem, RateLimited
from gateway.policy.file import load_policy
from gateway.policy.live import PolicyInForce
from limits.limiter import Limiter
from tests.fake_redis import fake_redis

SECRET = "a test's own secret, which is long enough"
HOME, STRANGER = "198.51.100.1", "203.0.113.9"


@pytest.fixture
def redis() -> fakeredis.FakeAsyncRedis:
    return fake_redis(max_connections=500)


@pytest.fixture
def accounts(redis: fakeredis.FakeAsyncRedis) -> Iterator[Accounts]:
    passwords = Passwords(memory_kib=8, passes=1)
    yield Accounts(redis.execute_command, passwords)
    passwords.close()


@pytest.fixture
def noted() -> list[str]:
    """The entries of the audit trail."""
    return []


@pytest.fixture
def throttle(redis: fakeredis.FakeAsyncRedis, accounts: Accounts, noted: list[str]) -> Throttle:
    execute = redis.execute_command
    audit = Audit(execute, lambda *words: noted.append(str(words[-1])) if words[0] == "XADD" else None)
    ring, policy = KeyRing([SECRET], "throttle"), PolicyInForce(load_policy())
    return Throttle(execute, Limiter(execute), accounts, ring, policy, audit)


class Rounds:
    """Forwards commands and counts the turns of the event loop in which they were issued."""

    def __init__(self, execute: Any) -> None:
        self._execute = execute
        self._open = False
        self.count = 0
        self.names: list[str] = []

    async def __call__(self, *words: Any) -> Any:
        self.names.append(words[0])
        if not self._open:
            self._open, self.count = True, self.count + 1
            asyncio.get_running_loop().call_soon(self._close)
        return await self._execute(*words)

    def _close(self) -> None:
        self._open = False


async def fail(throttle: Throttle, address: str, username: str) -> None:
    with pytest.raises(InvalidCredentials):
        async with throttle.login(address, username):
            raise InvalidCredentials


async def succeed(throttle: Throttle, address: str, username: str) -> None:
    async with throttle.login(address, username):
        pass


async def refused(throttle: Throttle, address: str, username: str) -> Problem:
    looked = False
    with pytest.raises(Problem) as caught:
        async with throttle.login(address, username):
            looked = True
    assert not looked, "the password was verified although the login is throttled"
    return caught.value


async def test_the_sixth_attempt_is_refused_without_verification(throttle: Throttle) -> None:
    for _ in range(5):
        await fail(throttle, STRANGER, "ada")
    problem = await refused(throttle, STRANGER, "ada")
    assert (problem.status, problem.code) == (429, "too_many_attempts")
    assert 1 <= int(problem.headers["Retry-After"]) <= 200


async def test_every_spelling_and_address_shares_the_bucket_of_an_account(throttle: Throttle) -> None:
    for number, name in enumerate(["ada", "Ada", "ADA", "ａｄａ", "aDa"]):
        await fail(throttle, f"203.0.113.{number}", name)
    assert (await refused(throttle, STRANGER, "ada")).code == "too_many_attempts"


async def test_unknown_accounts_and_invalid_names_are_throttled_in_the_same_way(throttle: Throttle) -> None:
    for name in ("nobody-of-that-name", "x", "white space", "y" * 200):
        for _ in range(5):
            await fail(throttle, STRANGER, name)
        assert (await refused(throttle, STRANGER, name)).code == "too_many_attempts"


async def test_success_refunds_the_attempt(throttle: Throttle) -> None:
    for _ in range(20):
        await succeed(throttle, HOME, "ada")
    for _ in range(4):
        await fail(throttle, STRANGER, "ada")
    await succeed(throttle, STRANGER, "ada")


async def test_repeated_failures_of_others_do_not_lock_the_owner_out(throttle: Throttle) -> None:
    await succeed(throttle, HOME, "ada")
    for _ in range(5):
        await fail(throttle, STRANGER, "ada")
    await refused(throttle, STRANGER, "ada")
    await succeed(throttle, HOME, "ada")


async def test_a_known_address_has_ten_attempts_of_its_own(throttle: Throttle) -> None:
    await succeed(throttle, HOME, "ada")
    for _ in range(10):
        await fail(throttle, HOME, "ada")
    await refused(throttle, HOME, "ada")
    await fail(throttle, STRANGER, "ada")


async def test_spraying_many_accounts_from_one_address_ends_at_a_hundred(throttle: Throttle) -> None:
    for number in range(100):
        await fail(throttle, STRANGER, f"user-{number}")
    assert (await refused(throttle, STRANGER, "user-100")).code == "too_many_attempts"


async def test_addresses_within_an_ipv6_64_count_as_one(throttle: Throttle) -> None:
    for number in range(100):
        await fail(throttle, f"2001:db8::{number:x}", f"user-{number}")
    assert (await refused(throttle, "2001:db8::ffff", "user-100")).code == "too_many_attempts"
    await fail(throttle, "2001:db8:0:1::1", "user-101")


async def test_a_refusal_by_the_account_does_not_charge_the_address(throttle: Throttle) -> None:
    for _ in range(5):
        await fail(throttle, STRANGER, "ada")
    for _ in range(200):
        await refused(throttle, STRANGER, "ada")
    await fail(throttle, STRANGER, "grace")


async def test_an_attempt_that_was_never_verified_is_refunded(throttle: Throttle) -> None:
    for _ in range(20):
        with pytest.raises(Busy):
            async with throttle.login(STRANGER, "ada"):
                raise Busy
    await fail(throttle, STRANGER, "ada")


@pytest.mark.parametrize("username", ["ada", "nobody"])
async def test_fifty_parallel_wrong_passwords_cost_five_hashes(
    throttle: Throttle, accounts: Accounts, monkeypatch: pytest.MonkeyPatch, username: str
) -> None:
    await accounts.add("ada", "correct horse battery staple", roles=["member"])
    verify, hashes, refused = Passwords.verify, 0, 0

    async def counted(self: Passwords, password: str, stored: str | None) -> bool:
        nonlocal hashes
        hashes += 1
        return await verify(self, password, stored)

    async def attempt(number: int) -> None:
        nonlocal refused
        try:
            async with throttle.login(STRANGER, username) as charged:
                await accounts.verify(charged.credentials, f"wrong-{number}")
        except Problem:
            refused += 1

    monkeypatch.setattr(Passwords, "verify", counted)
    outcomes = await asyncio.gather(*(attempt(number) for number in range(50)), return_exceptions=True)
    assert [type(one) for one in outcomes if one is not None] == [InvalidCredentials] * 5
    assert (hashes, refused) == (5, 45)


@pytest.mark.parametrize("username", ["ada", "nobody", "no body"])
async def test_an_attempt_takes_two_rounds_of_commands_and_its_success_one(
    redis: fakeredis.FakeAsyncRedis, accounts: Accounts, username: str
) -> None:
    """Commands issued in one turn of the event loop are sent in one write: see the store."""
    await accounts.add("ada", "correct horse battery staple", roles=["member"])
    rounds = Rounds(redis.execute_command)
    ring, policy = KeyRing([SECRET], "throttle"), PolicyInForce(load_policy())
    counted = Accounts(rounds, Passwords(memory_kib=8, passes=1))
    throttle = Throttle(rounds, Limiter(rounds), counted, ring, policy, Audit(rounds))
    async with throttle.login(HOME, username):
        assert rounds.count == 2
        commands = sorted(rounds.names)
    assert rounds.count == 3
    assert commands == sorted(["EVAL", "EXISTS", "EVAL", "HMGET", *(["GET"] if " " not in username else [])])


async def test_a_success_that_was_settled_early_is_settled_once(throttle: Throttle) -> None:
    for _ in range(20):
        async with throttle.login(STRANGER, "ada") as attempt:
            await attempt.succeeded()
    for _ in range(10):  # this address is known: it has its own ten attempts and no more
        await fail(throttle, STRANGER, "ada")
    await refused(throttle, STRANGER, "ada")


async def test_a_failure_after_a_success_charges_nothing(throttle: Throttle) -> None:
    async def overtaken() -> None:
        async with throttle.login(STRANGER, "ada") as attempt:
            await attempt.succeeded()
            raise InvalidCredentials  # the account was changed while its password was verified

    for _ in range(20):
        with pytest.raises(InvalidCredentials):
            await overtaken()
    await fail(throttle, STRANGER, "ada")


async def test_requests_of_one_address_are_limited(throttle: Throttle) -> None:
    admitted = 0

    async def ask_until_refused() -> None:
        nonlocal admitted
        for _ in range(2000):  # ten come back every second while this runs
            await throttle.request(STRANGER)
            admitted += 1

    with pytest.raises(RateLimited):
        await ask_until_refused()
    assert admitted >= 600
    await throttle.request(HOME)


async def test_one_address_may_register_thirty_accounts_and_refused_attempts_do_not_count(throttle: Throttle) -> None:
    for _ in range(50):
        with pytest.raises(Busy):
            async with throttle.registration(STRANGER):
                raise Busy
    for _ in range(30):
        async with throttle.registration(STRANGER):
            pass
    made = False
    with pytest.raises(Problem) as caught:
        async with throttle.registration(STRANGER):
            made = True
    assert not made
    assert (caught.value.status, caught.value.code) == (429, "too_many_attempts")
    async with throttle.registration(HOME):
        pass


async def test_a_throttled_caller_is_audited_once_without_name_or_address(throttle: Throttle, noted: list[str]) -> None:
    for _ in range(5):
        await fail(throttle, STRANGER, "ada.lovelace")
    for _ in range(20):
        await refused(throttle, STRANGER, "ada.lovelace")
    [entry] = [text for text in noted if "throttled" in text]
    assert '"limit":"account"' in entry
    for text in ("ada", STRANGER):
        assert text not in entry


def test_the_audit_identifies_an_address_by_the_mac_of_its_site(throttle: Throttle) -> None:
    assert throttle.origin("2001:db8::1").source == throttle.origin("2001:db8::ffff").source
    assert throttle.origin("2001:db8::1").source != throttle.origin("2001:db8:0:1::1").source
    assert throttle.origin(HOME).source != throttle.origin(STRANGER).source
    assert HOME not in throttle.origin(HOME).source


async def test_only_rotations_count_against_a_session(throttle: Throttle) -> None:
    for _ in range(50):
        await throttle.refresh_allowed("sid", HOME)
    for _ in range(10):
        await throttle.refresh_allowed("sid", HOME)
        await throttle.refreshed("sid")
    with pytest.raises(Problem) as caught:
        await throttle.refresh_allowed("sid", HOME)
    assert caught.value.code == "too_many_attempts"
    await throttle.refresh_allowed("another", HOME)


async def test_keys_contain_no_name_and_no_address(throttle: Throttle, redis: fakeredis.FakeAsyncRedis) -> None:
    await succeed(throttle, HOME, "ada.lovelace")
    await fail(throttle, STRANGER, "ada.lovelace")
    await throttle.request(STRANGER)
    keys = b" ".join(await redis.keys()).decode()
    assert keys
    for text in ("ada", HOME, STRANGER):
        assert text not in keys


async def test_throttled_refreshes_and_requests_are_audited(throttle: Throttle, noted: list[str]) -> None:
    for _ in range(10):
        await throttle.refreshed("a" * 20)
    for _ in range(2):  # the second within a minute is not audited
        with pytest.raises(Problem):
            await throttle.refresh_allowed("a" * 20, HOME)

    async def flood() -> None:
        for _ in range(2000):  # ten come back every second meanwhile
            await throttle.request(HOME)

    with pytest.raises(RateLimited):
        await flood()
    assert [kind for entry in noted for kind in ("refresh", "requests") if f'"limit":"{kind}"' in entry] == [
        "refresh",
        "requests",
    ]
    assert not any(HOME in entry for entry in noted)
