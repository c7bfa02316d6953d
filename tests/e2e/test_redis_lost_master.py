"""A master of a cluster is lost and no replica takes its place: who is refused, and that all others are served.

A request is refused exactly if a key that it waits for is on that master: docs/scaling.md names them.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import pytest
from redis.crc import key_slot

from auth.keys import KeyRing
from auth.sessions import Sessions
from gateway.metering.keys import LEADER
from tests.accounts import finish, office
from tests.e2e.checks import assert_problem
from tests.e2e.policies import roomy
from tests.servers import Installation, wait_until
from tests.topologies import MASTERS, SLOTS, Cluster, Node

MANY = 200


@dataclass
class Town:
    """An installation on three masters, and tokens of people and ids of rooms wherever their keys are."""

    own: Installation
    cluster: Cluster
    tokens: dict[str, str] = field(default_factory=dict)
    rooms: list[str] = field(default_factory=list)
    ids: dict[str, str] = field(default_factory=dict)

    def at(self, key: str) -> Node:
        """Return the master that has a key."""
        slot = key_slot(key.encode())
        return next(self.cluster.masters[n] for n in range(MASTERS) if slot < (n + 1) * SLOTS // MASTERS)

    def home(self, name: str) -> Node:
        return self.at(f"{{{self.ids[name]}}}")

    def admit(self, name: str, role: str) -> None:
        async def admit() -> None:
            async with office(self.own.valkey.url, self.own.env) as at:
                user = await at.accounts.find(name)
                self.ids[name], self.tokens[name] = user.id, await at.log_in(user)

        self.own.add_users(**{name: role})
        finish(admit())

    def until(self, done: Callable[[], bool], more: Callable[[int], None]) -> None:
        """Add people or rooms until some are wherever they are wanted; where each is, is chance."""
        for number in range(MANY):
            if done():
                return
            more(number)
        raise AssertionError("chance is against it")

    def people(self, kind: str, *, but: Node | None = None) -> list[str]:
        return [name for name in self.ids if name.startswith(kind) and self.home(name) is not but]

    def request(self, name: str, method: str, path: str, **body: object) -> httpx.Response:
        with self.own.client(self.tokens[name]) as client:
            return client.request(method, path, json=body or None)

    @contextmanager
    def without(self, master: Node) -> Iterator[None]:
        master.kill()
        try:
            yield
        finally:
            master.start()
            wait_until(self.cluster.is_whole, "the master takes commands")  # 2 s after its start
            with self.own.client() as client:
                wait_until(lambda: client.get("/health/ready").json()["status"] == "ok", "the master is back")


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    cluster = Cluster(tmp_path_factory.mktemp("nodes"), replicas=0)
    own = Installation(tmp_path_factory.mktemp("town"), policy=roomy(), valkey=cluster)  # type: ignore[arg-type]
    own.env |= {"GATEWAY_REGISTRATION": "open", "GATEWAY_TRUSTED_PROXIES": "127.0.0.1/32"}
    with own:
        town = Town(own, cluster)
        town.until(
            lambda: {town.home(name) for name in town.ids} == {*cluster.masters},
            lambda n: town.admit(f"mira{n}", "member"),
        )
        for kind, role in (("otto", "operator"), ("hanna", "host")):  # whichever master is lost, there is one elsewhere
            town.until(
                lambda k=kind: len({town.home(name) for name in town.people(k)}) == 2,  # type: ignore[misc]
                lambda n, k=kind, r=role: town.admit(f"{k}{n}", r),  # type: ignore[misc]
            )
        town.until(
            lambda: {town.at(f"{{{room}}}") for room in town.rooms} == {*cluster.masters},
            lambda n: town.rooms.append(town.request("hanna0", "POST", "/api/rooms").json()["room"]["id"]),
        )
        yield town


def test_join_tokens_need_only_the_masters_of_the_user_and_the_room(town: Town) -> None:
    victim = town.at("audit:1")
    with town.without(victim):
        seen = set()
        for name, room in itertools.product(town.people("mira"), town.rooms):
            answer = town.request(name, "POST", f"/api/rooms/{room}/token")
            served = victim not in (town.home(name), town.at(f"{{{room}}}"))
            seen.add(served)
            if served:
                assert answer.status_code == 200, answer.text
                assert answer.json()["token"]
            else:
                assert_problem(answer, 503, "unavailable")
        assert seen == {True, False}


def test_logins_and_refreshes_need_also_the_masters_that_count_attempts(town: Town) -> None:
    victim, secret = town.at("audit:1"), town.own.env["GATEWAY_SECRET"].split(",")
    ring = KeyRing(secret, "throttle")
    addresses = [f"198.51.100.{n}" for n in range(1, 250)]

    def bucket(kind: str, text: str) -> str:
        return f"{{{kind}:{ring.mac(f'{kind} {text}')}}}"

    def lost(name: str, address: str) -> frozenset[str]:
        keys = {
            "address": bucket("address", address),
            "failures": bucket("failures", address),
            "known": bucket("known", f"{address} {name}"),
            "account": bucket("account", name),
            "name": f"un:1:{name}",
        }
        return frozenset(kind for kind, key in keys.items() if town.at(key) is victim)

    wanted = [frozenset[str](), *(frozenset({kind}) for kind in ("address", "failures", "known", "account", "name"))]
    found: dict[frozenset[str], tuple[str, str]] = {}

    def look(number: int) -> None:
        town.admit(f"lena{number}", "member")
        for name, address in itertools.product(town.people("lena", but=victim), addresses):
            found.setdefault(lost(name, address), (name, address))

    town.until(lambda: {*wanted} <= {*found}, look)

    def log_in(name: str, address: str) -> httpx.Response:
        body = {"username": name, "password": town.own.passwords[name]}
        with town.own.client() as client:
            return client.post("/api/auth/login", json=body, headers={"X-Forwarded-For": address})

    name, address = found[frozenset()]
    sessions = [log_in(name, address).json()["refresh_token"] for _ in range(12)]
    owner_of = Sessions(None, KeyRing(secret, "refresh")).owner_of  # type: ignore[arg-type]
    with town.without(victim):
        for keys in wanted:
            answer = log_in(*found[keys])
            assert (answer.status_code, keys) == (503 if keys else 200, keys), answer.text
        for token in sessions:
            with town.own.client() as client:
                sent_by = {"X-Forwarded-For": address}
                answer = client.post("/api/auth/refresh", json={"refresh_token": token}, headers=sent_by)
            is_refused = town.at(bucket("refresh", owner_of(token)[1])) is victim
            assert answer.status_code == (503 if is_refused else 200), answer.text


@pytest.mark.parametrize("number", range(MASTERS))
def test_the_status_says_what_is_not_known_while_a_master_is_lost(town: Town, number: int) -> None:
    victim = town.cluster.masters[number]
    with town.without(victim):
        answer = town.request(town.people("otto", but=victim)[0], "GET", "/api/admin/status")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["redis"]["silent"] == [victim.address]
    assert (found["workers"] is None) == (found["upstream"] is None) == (town.at("wk:1") is victim)
    assert (found["webhooks"] is None) == (victim in (town.at("wm:1"), town.at("wh:1")))
    for worker in found["workers"] or []:
        assert (worker["leads"] is None) == (town.at(LEADER) is victim)


@pytest.mark.parametrize("number", range(MASTERS))
def test_new_rooms_need_the_master_of_their_index_and_their_own(town: Town, number: int) -> None:
    victim = town.cluster.masters[number]
    with town.without(victim):
        host = town.people("hanna", but=victim)[0]

        def make() -> int:
            answer = town.request(host, "POST", "/api/rooms")
            if answer.status_code == 201:
                assert town.at(f"{{{answer.json()['room']['id']}}}") is not victim
            else:
                assert_problem(answer, 503, "unavailable")
            return answer.status_code

        if town.at("ra:1") is victim:
            assert {make() for _ in range(10)} == {503}
        else:
            made: set[int] = set()
            town.until(lambda: 201 in made, lambda _: made.add(make()))


def test_the_audit_trail_and_new_accounts_need_the_masters_of_the_shared_keys(town: Town) -> None:
    victim = town.at("audit:1")
    with town.without(victim):
        operator = town.people("otto", but=victim)[0]
        assert_problem(town.request(operator, "GET", "/api/admin/audit"), 503, "unavailable")
    body = {"username": f"newcomer-{secrets.token_hex(3)}", "password": "a long enough password"}
    with town.without(town.at("ui:1")), town.own.client() as client:
        assert_problem(client.post("/api/auth/register", json=body), 503, "unavailable")
