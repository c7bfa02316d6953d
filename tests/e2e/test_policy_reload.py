"""A changed policy file takes effect on every worker within seconds; a wrong one never does."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.usage.query import today_in
from tests.e2e.policies import roomy
from tests.e2e.templates import create_template, role
from tests.servers import NO_TLS, Installation, wait_until

WORKERS = 2
LOOK_S = 0.4  # how often the installation of these tests checks the file; others do every 2 s
LOOKS_S = LOOK_S + 0.7  # 0.2 s for a file that is being written, and a margin
WITHIN_S = 15  # beside other tests; the test that is `alone` asserts how soon it is
CHANGED = "the policy has changed"
WRONG = "the policy file is wrong; the old policy stays in force"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    running = Installation(tmp_path_factory.mktemp("reload"), workers=WORKERS, policy=roomy())
    running.set_constant("gateway.policy.live.LOOK_S", LOOK_S)
    with running:
        running.add_users(hanna="host", mira="member")
        yield running


@pytest.fixture
def policy(running: Installation) -> Iterator[Path]:
    """The policy file, restored after the test; both workers have read it again."""
    path = Path(running.env["GATEWAY_POLICY"])
    yield path
    seen = logged(running, CHANGED)
    path.write_text(roomy() + f"# undone {time.time_ns()}\n")
    while logged(running, CHANGED) < seen + WORKERS and not is_original(running):
        time.sleep(0.1)
    settle(running)


def is_original(running: Installation) -> bool:
    answers = everywhere(running, "hanna", lambda client: client.get("/api/usage").json()["limits"])
    return all(limit["burst"] == 10_000 for limits in answers for limit in limits)


def settle(running: Installation) -> None:
    """Wait until both workers have checked the file at least once more."""
    time.sleep(LOOKS_S)
    assert is_original(running)


def logged(running: Installation, words: str) -> int:
    return running.gateway.output().count(words)


def everywhere(running: Installation, name: str, ask: Callable[[httpx.Client], Any]) -> list[Any]:
    """Send requests on so many separate connections that every worker gets one."""
    token = running.token_of(name)
    answers = []
    for _ in range(12):
        with running.client(token) as client:
            answers.append(ask(client))
    return answers


def replace(path: Path, text: str) -> None:
    """Replace a file by renaming another, as editors and deployments do."""
    beside = path.with_name("policy.new")
    beside.write_text(text)
    beside.replace(path)


def wait_for_change(running: Installation, before: int, words: str = CHANGED) -> None:
    until = time.monotonic() + WITHIN_S
    while logged(running, words) < before + WORKERS:
        assert time.monotonic() < until, running.gateway.output()[-2000:]
        time.sleep(0.02)


@pytest.mark.parametrize("write", [Path.write_text, replace], ids=["in place", "by rename"])
def test_a_changed_limit_takes_effect_on_every_worker(
    running: Installation, policy: Path, write: Callable[[Path, str], object]
) -> None:
    before = logged(running, CHANGED)
    wide = 'limits."tokens.mint" = { rate = "100000/min", burst = 10000 }'
    write(policy, roomy().replace(wide, 'limits."tokens.mint" = { rate = "7/h", burst = 3 }'))
    wait_for_change(running, before)
    found = everywhere(running, "mira", lambda client: client.get("/api/usage").json()["limits"])
    for limits in found:
        assert {limit["name"]: limit["rate"] for limit in limits}["tokens.mint"] == "7/h"


def test_usage_is_counted_by_the_days_of_a_changed_time_zone_from_then_on_and_none_is_lost(
    running: Installation, policy: Path
) -> None:
    utc = datetime.now(UTC).date().isoformat()
    zone = "Pacific/Kiritimati" if datetime.now(UTC).hour >= 10 else "Pacific/Pago_Pago"  # where it is another day
    everywhere(running, "hanna", lambda client: client.get("/api/rooms"))
    before = logged(running, CHANGED)
    policy.write_text(roomy().replace('time_zone = "UTC"', f'time_zone = "{zone}"'))
    wait_for_change(running, before)
    everywhere(running, "hanna", lambda client: client.get("/api/rooms"))
    with running.client_of("hanna") as hanna:
        own = hanna.get("/api/usage").json()
    today = own["usage"]["today"]["api"]["ok"]
    assert (own["time_zone"], today) == (zone, 12)

    def shown() -> dict[str, tuple[str, int]]:
        last = max(utc, today_in(zone).isoformat())  # west of UTC the day before may be the later one
        rows = running.command("usage", "show", "--user", "hanna", "--action", "api", "--to", last, "--json").stdout
        return {row["date"]: (row["time_zone"], row["ok"]) for row in json.loads(rows)}

    total = own["usage"]["total"]["api"]["ok"]
    counted = {utc: ("UTC", total - today), today_in(zone).isoformat(): (zone, today)}
    wait_until(lambda: shown() == counted, "each day names the zone in which it was counted")


def test_a_new_role_and_a_removed_permission_take_effect_for_logged_in_users(
    running: Installation, policy: Path
) -> None:
    with running.client_of("hanna") as hanna:
        room_id = hanna.post("/api/rooms", json={"name": "before"}).json()["room"]["id"]
        before = logged(running, CHANGED)
        newcomer = '\n[roles.newcomer]\npermissions = ["rooms:join"]\nlimits.api = { rate = "1/min", burst = 2000 }\n'
        newcomer += 'limits."tokens.mint" = { rate = "1/min", burst = 2000 }\n'
        without = roomy().replace(
            '["rooms:join", "rooms:create", "usage:read-own"]', '["rooms:join", "usage:read-own"]'
        )
        policy.write_text(without + newcomer)
        wait_for_change(running, before)
        # with the earlier token, which still says `host`
        assert hanna.post("/api/rooms", json={"name": "after"}).json()["missing_permission"] == "rooms:create"
        assert hanna.post(f"/api/rooms/{room_id}/token", json={}).status_code == 200
    assert running.command("users", "roles", "mira", "newcomer").returncode == 0
    try:
        codes = everywhere(running, "mira", lambda client: client.post(f"/api/rooms/{room_id}/token", json={}))
        assert {answer.status_code for answer in codes} == {200}
        assert {answer.status_code for answer in everywhere(running, "mira", lambda c: c.get("/api/usage"))} == {403}
    finally:
        assert running.command("users", "roles", "mira", "member").returncode == 0


def test_a_wrong_file_keeps_the_old_policy_and_is_logged_once_by_each_worker(
    running: Installation, policy: Path
) -> None:
    before = logged(running, WRONG)
    policy.write_text(roomy().replace("size = 100", "size = 0"))
    wait_for_change(running, before, WRONG)
    time.sleep(LOOKS_S)  # it is checked again, but not logged again
    assert logged(running, WRONG) == before + WORKERS
    lines = [json.loads(line) for line in running.gateway.output().splitlines() if WRONG in line]
    assert all("policy.toml: rooms.size" in line["message"] for line in lines[-WORKERS:])
    assert is_original(running)
    # restored with the same text as before: this is logged, because the last line said that the file was wrong
    before = logged(running, CHANGED)
    policy.write_text(roomy())
    wait_for_change(running, before)


def test_a_deleted_file_keeps_the_old_policy_until_it_is_restored(running: Installation, policy: Path) -> None:
    before = logged(running, WRONG)
    policy.unlink()
    wait_for_change(running, before, WRONG)
    assert is_original(running)
    time.sleep(LOOKS_S)
    assert logged(running, WRONG) == before + WORKERS
    before = logged(running, CHANGED)
    policy.write_text(roomy().replace("active_per_owner = 100_000", "active_per_owner = 41"))
    wait_for_change(running, before)
    found = everywhere(running, "hanna", lambda client: client.get("/api/usage").json()["leases"])
    assert {lease["most"] for leases in found for lease in leases} == {41}


def test_a_pipe_in_place_of_the_file_stops_no_worker(running: Installation, policy: Path) -> None:
    before = logged(running, WRONG)
    pipe = policy.with_name("pipe")
    os.mkfifo(pipe)
    pipe.replace(policy)
    try:
        wait_for_change(running, before, WRONG)
        assert "policy.toml: is not a regular file" in running.gateway.output()
        assert is_original(running)
        health = httpx.get(f"{running.url}/health/ready", verify=NO_TLS, trust_env=False)
        assert health.status_code == 200
        time.sleep(LOOKS_S)
        assert logged(running, WRONG) == before + WORKERS
    finally:
        policy.unlink()


@pytest.mark.alone
def test_a_changed_file_is_in_force_on_every_worker_in_about_two_seconds(tmp_path: Path) -> None:
    with Installation(tmp_path, workers=WORKERS, policy=roomy()) as own:
        policy = Path(own.env["GATEWAY_POLICY"])
        for places in (44, 45):
            before = logged(own, CHANGED)
            begun = time.monotonic()
            policy.write_text(roomy().replace("active_per_owner = 100_000", f"active_per_owner = {places}"))
            wait_for_change(own, before)
            assert time.monotonic() - begun < 2.7  # a check every 2 s, 0.2 s for a file that is being written


def test_a_touched_file_changes_nothing_and_logs_nothing(running: Installation, policy: Path) -> None:
    before = logged(running, CHANGED), logged(running, WRONG)
    policy.touch()
    time.sleep(LOOKS_S)
    assert (logged(running, CHANGED), logged(running, WRONG)) == before


def test_a_new_template_can_be_used_and_its_roles_are_compared(running: Installation, policy: Path) -> None:
    before, lacking = logged(running, CHANGED), logged(running, "the policy names roles that template")
    template_id = create_template(running, stage=role(publishes=("audio",)), viewer=role())
    big = f'\n[templates.big]\nid = "{template_id}"\nowner = ["viewer", "stage", "boss"]\nparticipant = ["viewer"]\n'
    policy.write_text(roomy() + big)
    wait_for_change(running, before)
    with running.client_of("hanna") as hanna:
        room_id = hanna.post("/api/rooms", json={"name": "big", "template": "big"}).json()["room"]["id"]
        assert hanna.post(f"/api/rooms/{room_id}/token", json={"role": "stage"}).json()["role"] == "stage"
        assert hanna.post(f"/api/rooms/{room_id}/token", json={"role": "host"}).json()["code"] == "unknown_role"
    until = time.monotonic() + WITHIN_S
    while logged(running, "the policy names roles that template") < lacking + WORKERS:
        assert time.monotonic() < until
        time.sleep(0.05)
    warned = next(line for line in running.gateway.output().splitlines() if template_id in line and "names" in line)
    assert "boss" in warned
    assert "stage, viewer" in warned
    # removed again: the room stays but cannot be joined under a template that the policy does not have
    before = logged(running, CHANGED)
    policy.write_text(roomy())
    wait_for_change(running, before)
    with running.client_of("hanna") as hanna:
        assert hanna.get(f"/api/rooms/{room_id}").status_code == 200
        assert hanna.post(f"/api/rooms/{room_id}/token", json={}).json()["code"] == "role_not_allowed"
        refused = hanna.post("/api/rooms", json={"template": "big"})
        assert (refused.status_code, refused.json()["code"]) == (403, "template_not_allowed")


def test_the_file_cannot_change_an_id_set_by_the_environment(running: Installation, policy: Path) -> None:
    before = logged(running, WRONG)
    policy.write_text(roomy().replace("[templates.default]", f'[templates.default]\nid = "{"9" * 24}"'))
    wait_for_change(running, before, WRONG)
    assert "differs from HMS_TEMPLATE_ID" in running.gateway.output()
    assert is_original(running)


def test_serve_warns_once_per_worker_of_roles_that_the_template_does_not_have(tmp_path: Path) -> None:
    at = Installation(tmp_path, workers=WORKERS)
    words = "the policy names roles that template"
    try:
        at.valkey.start()
        at.start_emulator()
        at.env["HMS_TEMPLATE_ID"] = template_id = create_template(at, teacher=role("endRoom"), pupil=role())
        at.gateway.env = at.env
        at.start_gateway()
        until = time.monotonic() + WITHIN_S
        while logged(at, words) < WORKERS:
            assert time.monotonic() < until, at.gateway.output()[-2000:]
            time.sleep(0.05)
        for _ in range(6):
            assert httpx.get(f"{at.url}/health/ready", verify=NO_TLS, trust_env=False).status_code == 200
        time.sleep(1)
        warned = [json.loads(line)["message"] for line in at.gateway.output().splitlines() if words in line]
        assert len(warned) == WORKERS
        for part in (template_id, "guest, host", "pupil, teacher", "[templates.default]"):
            assert part in warned[0]
    finally:
        at.stop()
