"""Minutes are exact after reconciliation, although events were lost and the process that reconciles was killed."""

from __future__ import annotations

import json
import os
import secrets
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from gateway.hms.replies import epoch_ms
from limits.derived import MOST_KEPT
from tests.e2e.people import Person, join, mint, new_room, newcomers, upstream
from tests.e2e.policies import roomy
from tests.servers import NO_TLS, Installation, wait_until

LEADER = "lk:1:metering"


@pytest.fixture(scope="module")
def metered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation whose local 100ms sends its events to the gateway."""
    own = Installation(tmp_path_factory.mktemp("metered"), workers=2, policy=roomy())
    own.env["HMS_WEBHOOK_SECRET"] = secrets.token_urlsafe(32)
    own.env["EMULATOR_WEBHOOK_URL"] = f"{own.url}/hooks/100ms"
    own.env["EMULATOR_WEBHOOK_HEADER"] = f"X-Gateway-Webhook-Secret={own.env['HMS_WEBHOOK_SECRET']}"
    with own as running:
        yield running


class Meeting:
    """A room of a host with their guest in it."""

    def __init__(self, metered: Installation) -> None:
        self.metered = metered
        self.host, self.guest = newcomers(metered, "host", "member")
        self.room = new_room(metered, self.host)
        for who in (self.host, self.guest):
            token = mint(metered, who, self.room).json()["token"]
            assert join(metered, token, f"peer of {who.id}").status_code == 200
        wait_until(lambda: self._redis("HLEN", f"op:1:{{{self.room}}}") == 2, "both are in the room")

    def leave(self, who: Person) -> None:
        answer = httpx.delete(
            f"{self.metered.emulator_url}/emulator/peers/peer of {who.id}", timeout=5, verify=NO_TLS, trust_env=False
        )
        assert answer.status_code == 204

    @contextmanager
    def without_webhooks(self) -> Iterator[None]:
        """Let the events of 100ms be lost."""
        url = f"{self.metered.emulator_url}/emulator/webhook"
        env = self.metered.env
        httpx.delete(url, verify=NO_TLS, trust_env=False)
        yield
        name, _, value = env["EMULATOR_WEBHOOK_HEADER"].partition("=")
        body = {"url": env["EMULATOR_WEBHOOK_URL"], "headers": {name: value}}
        assert httpx.post(url, json=body, verify=NO_TLS, trust_env=False).status_code == 200

    def counted(self) -> dict[str, int]:
        """Return the seconds of both people, of the room, and of the rooms of the host."""
        keys = {
            self.host.id: (f"uc:1:{{{self.host.id}}}:all", "minutes.ok"),
            self.guest.id: (f"uc:1:{{{self.guest.id}}}:all", "minutes.ok"),
            "room": (f"rc:1:{{{self.room}}}:all", "minutes.ok"),
            "owned": (f"uc:1:{{{self.host.id}}}:all", "owned.ok"),
        }
        return {name: int(self._redis("HGET", *place) or 0) for name, place in keys.items()}

    def truth(self) -> dict[str, int]:
        """Return the same from the session, as 100ms has it."""
        [session] = upstream(self.metered, "/sessions", active="false", room_id=self.room)["data"]
        seconds: Counter[str] = Counter()
        for peer in session["peers"].values():
            joined_ms, left_ms = epoch_ms(peer["joined_at"]), epoch_ms(peer["left_at"])
            assert joined_ms is not None
            assert left_ms is not None
            for name in (peer["user_id"], "room", "owned"):
                seconds[name] += left_ms // 1000 - joined_ms // 1000
        return dict(seconds)

    def _redis(self, *words: str) -> int:
        with self.metered.valkey.client() as client:
            return client.execute_command(*words)  # type: ignore[no-any-return, no-untyped-call]


def test_a_replay_from_the_command_line_restores_what_was_lost(metered: Installation) -> None:
    meeting = Meeting(metered)
    wait_until(lambda: min(meeting.counted().values()) > 0, "open stays accrue")
    with meeting.without_webhooks():
        meeting.leave(meeting.guest)
        meeting.leave(meeting.host)
    wait_until(lambda: meeting.counted()["room"] > meeting.truth()["room"], "what is lost is counted on")

    today = f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}"
    done = metered.command("usage", "reconcile", "--from", today, "--json")
    assert done.returncode == 0, done.stderr
    [changed] = json.loads(done.stdout)["changed"]
    assert (changed["room_id"], changed["state"], changed["corrected"]) == (meeting.room, "ended", 2)
    assert changed["seconds"] < 0
    assert meeting.counted() == meeting.truth()

    again = metered.command("usage", "reconcile", "--from", today)
    assert again.returncode == 0, again.stderr
    assert "Nothing had to be corrected" in again.stdout
    assert meeting.counted() == meeting.truth()


def test_another_worker_takes_over_and_corrects_a_lost_leave_after_the_close(metered: Installation) -> None:
    def leader() -> str:
        with metered.valkey.client() as client:
            return str((client.get(LEADER) or b"").decode())

    wait_until(lambda: bool(leader()), "a worker leads")
    killed = leader()
    os.kill(int(killed.split(":")[1]), signal.SIGKILL)  # one worker of this installation
    wait_until(lambda: leader() not in ("", killed), "another worker leads", within_s=5)

    meeting = Meeting(metered)
    with meeting.without_webhooks():
        meeting.leave(meeting.guest)
    wait_until(lambda: meeting.counted()[meeting.guest.id] > 0, "the lost one is counted on")
    meeting.leave(meeting.host)
    wait_until(lambda: meeting.counted() == meeting.truth(), "the minutes are exact")
    with metered.valkey.client() as client:
        assert client.zscore("sq:1", meeting.room) is None
        assert client.exists(f"op:1:{{{meeting.room}}}") == 0


def test_the_leader_shortens_the_top_lists_of_days_that_have_ended(metered: Installation) -> None:
    day = f"{datetime.now(UTC) - timedelta(days=40):%Y-%m-%d}"
    with metered.valkey.client() as client:
        client.zadd(f"tp:1:{day}:api.ok", {f"u{n:020}": n for n in range(MOST_KEPT + 9)})
        client.hset(f"uc:1:{{all}}:{day[:7]}", f"{day[8:]}:api.ok", 1)
        metered.gateway.stop()
        metered.start_gateway()
        wait_until(lambda: client.zcard(f"tp:1:{day}:api.ok") == MOST_KEPT, "the list is short")
        assert client.zrange(f"tp:1:{day}:api.ok", 0, 0) == [f"u{9:020}".encode()]
