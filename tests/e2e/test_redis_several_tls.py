"""Several servers with TLS and users of exactly the documented rights: the main job works, also after a failover.

The Valkey of the tests speaks no TLS, so a proxy in front of each server does, and each server announces that one.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from redis.crc import key_slot

from tests.e2e.policies import roomy
from tests.integration.test_topology_access import OF_SENTINELS as RIGHTS_AT_SENTINELS
from tests.integration.test_topology_access import rights
from tests.servers import HOST, NO_TLS, Installation, Valkey, wait_until
from tests.tls import Authority, TlsProxy, TwoWayProxy
from tests.topologies import MASTERS, SLOTS, Cluster, Watched, is_master

TIMEOUT_MS = 2000
PASSWORD, OF_SENTINELS, OF_SERVERS = (secrets.token_urlsafe(24) for _ in range(3))


@dataclass
class Guarded:
    """Servers of which clients reach only the proxies, an installation on them, and all proxies."""

    own: Installation
    redis: Cluster | Watched
    proxies: list[TlsProxy]

    @property
    def servers(self) -> Sequence[Valkey]:
        return self.redis.nodes if isinstance(self.redis, Cluster) else self.redis.servers

    @property
    def sentinels(self) -> Sequence[Valkey]:
        return () if isinstance(self.redis, Cluster) else self.redis.sentinels

    def master_of(self, uid: str) -> Valkey:
        """Return the master with the keys of a user, before any failover."""
        if isinstance(self.redis, Watched):
            return self.redis.master
        slot = key_slot(f"{{{uid}}}".encode())
        return next(self.redis.masters[n] for n in range(MASTERS) if slot < (n + 1) * SLOTS // MASTERS)


def start(kind: str, folder: Path, stack: ExitStack) -> Guarded:
    ca = Authority(folder)
    shown, proxies = ca.sign("server"), []

    def front(server: Valkey, proxy: type[TlsProxy] = TwoWayProxy) -> int:
        proxies.append(stack.enter_context(proxy(server.port, shown)))
        return proxies[-1].port

    make = {"cluster": Cluster, "sentinels": Watched}[kind]
    redis = make(folder, timeout_ms=TIMEOUT_MS, front=front, password=OF_SERVERS)
    reached = [f"{HOST}:{proxy.port}" for proxy in proxies[:3]]
    rest = ""
    if isinstance(redis, Watched):
        reached = [f"{HOST}:{front(one, TlsProxy)}" for one in redis.sentinels]
        rest = f"/main/0?sentinel_username=watcher&sentinel_password={OF_SENTINELS}"
    home = folder / "home"
    home.mkdir()
    own = Installation(home, policy=roomy(), valkey=redis)  # type: ignore[arg-type]
    own.env["REDIS_URL"] = f"rediss+{kind.removesuffix('s')}://gateway:{PASSWORD}@{','.join(reached)}{rest}"
    own.env |= {"REDIS_CA_FILE": str(ca.path), "HMS_WEBHOOK_SECRET": secrets.token_urlsafe(48)}
    own.env |= {"EMULATOR_WEBHOOK_URL": f"{own.url}/hooks/100ms", "GATEWAY_REGISTRATION": "open"}
    own.env["EMULATOR_WEBHOOK_HEADER"] = f"X-Gateway-Webhook-Secret={own.env['HMS_WEBHOOK_SECRET']}"
    stack.callback(own.stop)
    redis.start()
    guarded = Guarded(own, redis, proxies)
    for server in guarded.servers:
        admit(server, "gateway", [word.replace("PASSWORD", PASSWORD) for word in rights(kind)])
    for sentinel in guarded.sentinels:
        admit(sentinel, "watcher", ["on", f">{OF_SENTINELS}", "resetchannels", "-@all", *RIGHTS_AT_SENTINELS])
    own.start_emulator()
    own.start_gateway()
    return guarded


def admit(server: Valkey, name: str, words: Sequence[str]) -> None:
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", name, *words)
        client.execute_command("ACL", "LOG", "RESET")


@pytest.fixture(scope="module", params=["cluster", "sentinels"])
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with ExitStack() as stack:
        yield start(request.param, tmp_path_factory.mktemp("guarded"), stack)


def meet(own: Installation, name: str) -> str:
    """Register, log in, make a room, join it and leave it; return the id of the user once 100ms has reported it."""
    body = {"username": name, "password": "a long enough password"}
    with own.client() as client:
        made = client.post("/api/auth/register", json=body)
        assert made.status_code == 201, made.text
        login = client.post("/api/auth/login", json=body)
        assert login.status_code == 200, login.text
        renewed = client.post("/api/auth/refresh", json={"refresh_token": login.json()["refresh_token"]})
        assert renewed.status_code == 200, renewed.text
    hms = httpx.Client(base_url=f"{own.emulator_url}/emulator/", timeout=15, verify=NO_TLS, trust_env=False)
    with hms, own.client_of("hanna") as host, own.client(renewed.json()["access_token"]) as client:
        room = host.post("/api/rooms", json={"name": "Standup"})
        assert room.status_code == 201, room.text
        token = client.post(f"/api/rooms/{room.json()['room']['id']}/token")
        assert token.status_code == 200, token.text
        peer = hms.post("peers", json={"token": token.json()["token"]}).json()["id"]
        time.sleep(1.1)  # minutes are counted in whole seconds
        assert hms.delete(f"peers/{peer}").status_code == 204
        wait_until(
            lambda: "minutes" in client.get("/api/usage").json()["usage"]["total"], "the webhook's minutes are counted"
        )
    return str(made.json()["user"]["id"])


def test_the_job_is_done_with_the_rights_of_the_page_also_after_a_failover(guarded: Guarded) -> None:
    own = guarded.own
    own.add_users(hanna="host", ada="admin")
    victim = guarded.master_of(meet(own, "mira"))
    others = [one for one in guarded.servers if one is not victim and not is_master(one)]
    victim.kill()
    wait_until(lambda: any(is_master(one) for one in others), "a replica is promoted")
    with own.client() as client:
        wait_until(lambda: client.get("/health/ready").json()["status"] == "ok", "the new master is found")
    meet(own, "lena")
    with own.client_of("ada") as client:
        status = client.get("/api/admin/status").json()
        assert (status["redis"]["silent"], status["redis"]["aof"]) == ([], True)
        assert client.get("/api/admin/audit").status_code == 200

    for server in (*guarded.servers, *guarded.sentinels):
        if server.process is not None:
            with server.client() as client_of_server:
                assert client_of_server.execute_command("ACL", "LOG") == []
    for proxy in guarded.proxies:
        assert PASSWORD.encode() not in proxy.heard_plain
        assert OF_SENTINELS.encode() not in proxy.heard_plain
    assert sum(PASSWORD.encode() in proxy.heard for proxy in guarded.proxies) >= 2
    assert sum(OF_SENTINELS.encode() in proxy.heard for proxy in guarded.proxies) == len(guarded.sentinels)
