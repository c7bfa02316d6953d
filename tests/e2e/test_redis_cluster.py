"""The main job with its data on a Redis Cluster: real processes, from a registration to the bill."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.commands import assert_done
from tests.e2e.policies import roomy
from tests.servers import NO_TLS, Installation, wait_until
from tests.topologies import Cluster

PASSWORD = "a long enough password"


@pytest.fixture(scope="module")
def spread(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    cluster = Cluster(tmp_path_factory.mktemp("nodes"))
    own = Installation(tmp_path_factory.mktemp("spread"), workers=2, policy=roomy(), valkey=cluster)  # type: ignore[arg-type]
    own.env["GATEWAY_REGISTRATION"] = "open"
    own.env["HMS_WEBHOOK_SECRET"] = secrets.token_urlsafe(48)
    own.env["EMULATOR_WEBHOOK_URL"] = f"{own.url}/hooks/100ms"
    own.env["HMS_WEBHOOK_HEADER"] = "X-Their-Secret"
    own.env["EMULATOR_WEBHOOK_HEADER"] = f"X-Their-Secret={own.env['HMS_WEBHOOK_SECRET']}"
    with own:
        own.add_users(hanna="host", ada="admin", otto="operator")
        yield own


def test_the_main_job_works_wherever_the_keys_are(spread: Installation) -> None:
    hms = httpx.Client(base_url=f"{spread.emulator_url}/emulator/", timeout=15, verify=NO_TLS, trust_env=False)
    with hms, spread.client() as client, spread.client_of("hanna") as hanna, spread.client_of("otto") as otto:
        made = client.post("/api/auth/register", json={"username": "mira", "password": PASSWORD})
        assert made.status_code == 201, made.text
        login = client.post("/api/auth/login", json={"username": "mira", "password": PASSWORD}).json()
        renewed = client.post("/api/auth/refresh", json={"refresh_token": login["refresh_token"]})
        assert renewed.status_code == 200, renewed.text
        rooms = [hanna.post("/api/rooms", json={"name": f"Room {n}"}).json()["room"]["id"] for n in range(6)]
        with spread.client(renewed.json()["access_token"]) as mira:
            tokens = [mira.post(f"/api/rooms/{room}/token", json={}) for room in rooms]
            assert [answer.status_code for answer in tokens] == [200] * 6
            peers = [hms.post("peers", json={"token": answer.json()["token"]}).json()["id"] for answer in tokens]
            time.sleep(1.1)
            for peer in peers:
                assert hms.delete(f"peers/{peer}").status_code == 204

            def usage() -> dict[str, dict[str, float]]:
                return dict(mira.get("/api/usage").json()["usage"]["total"])

            wait_until(lambda: usage().get("minutes", {}).get("ok", 0) >= 6 / 60, "the minutes of six stays")
            assert usage()["tokens.mint"]["ok"] == 6
        assert {room["id"] for room in hanna.get("/api/rooms").json()["rooms"]} == set(rooms)
        report = otto.get("/api/admin/usage").text
        assert "mira" in report
        assert "hanna" in report
        status = otto.get("/api/admin/status").json()["redis"]
        assert (status["silent"], status["aof"]) == ([], True)
        assert client.get("/health/ready").json() == {"status": "ok", "missing": []}
    with spread.client_of("ada") as ada:
        uid = made.json()["user"]["id"]
        assert ada.patch(f"/api/admin/users/{uid}", json={"roles": ["host"]}).status_code == 200
        assert ada.delete(f"/api/admin/users/{uid}").status_code == 204
        assert "mira" not in {user["username"] for user in ada.get("/api/admin/users").json()["users"]}
    with spread.client() as client:
        again = client.post("/api/auth/register", json={"username": "mira", "password": PASSWORD})
        assert again.status_code == 201, "the name of a deleted user is free"


def test_commands_read_and_check_the_whole_cluster(spread: Installation) -> None:
    table = assert_done(spread.command("usage", "top", "--csv"), spread.env)
    assert ",6," in table, "mira's mints, under her id since she is gone"
    done = spread.command("doctor", "--json")
    checks = {one["check"]: one for one in json.loads(assert_done(done, spread.env))["checks"]}
    assert checks["cluster"]["status"] == "ok"
    assert checks["cluster"]["text"].startswith("all 3 masters work: 127.0.0.1:")
    assert {one["status"] for one in checks.values()} <= {"ok", "WARN"}


def test_the_doctor_names_a_node_of_a_cluster_that_is_taken_for_the_whole(spread: Installation) -> None:
    node = spread.valkey.nodes[0]  # type: ignore[attr-defined]
    done = spread.command("doctor", "--json", REDIS_URL=node.url)
    found = next(one for one in json.loads(done.stdout)["checks"] if one["check"] == "cluster")
    assert (found["status"], "redis+cluster://" in found["text"]) == ("FAIL", True)
    assert done.returncode == 1


def test_the_doctor_warns_of_a_cluster_that_stops_with_one_master(spread: Installation) -> None:
    node = spread.valkey.nodes[0]  # type: ignore[attr-defined]
    with node.client() as client:
        client.config_set("cluster-require-full-coverage", "yes")
        done = spread.command("doctor", "--json")
        client.config_set("cluster-require-full-coverage", "no")
    found = next(one for one in json.loads(done.stdout)["checks"] if one["check"] == "cluster")
    assert (found["status"], "only its users are refused" in found["text"]) == ("WARN", True)
