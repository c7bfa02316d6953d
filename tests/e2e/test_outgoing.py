"""Events for an operator's own systems, with real processes: from the change to the code of docs/webhooks.md."""

from __future__ import annotations

import base64
import json
import re
import secrets
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from gateway.outgoing.messages import TEST
from gateway.policy.endpoints import EVENTS
from tests.e2e.checks import assert_problem
from tests.e2e.node import run_node
from tests.e2e.policies import roomy
from tests.servers import HOST, NO_TLS, REPOSITORY, Installation, wait_until

PAGE = (REPOSITORY / "docs" / "webhooks.md").read_text()
OLD, NEW, DEAF = (f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}" for _ in range(3))


class Receiver(ThreadingHTTPServer):
    """Keeps every request and answers with `status`."""

    def __init__(self) -> None:
        super().__init__((HOST, 0), _Handler)
        self.status = 204
        self.requests: list[tuple[dict[str, str], bytes]] = []

    def wait_for(self, kind: str) -> tuple[dict[str, str], bytes]:
        def found() -> list[tuple[dict[str, str], bytes]]:
            return [one for one in self.requests if json.loads(one[1])["type"] == kind]

        wait_until(lambda: bool(found()), f"{kind} has arrived")
        return found()[-1]


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.requests.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(self.server.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def telling(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Installation]:
    events = json.dumps(sorted(EVENTS))
    endpoint = f'\n[webhooks.mine]\nurl = "http://{HOST}:{receiver.server_port}/SECRET-PATH"\nallow_private = true\n'
    endpoint += f'events = {events}\n[webhooks.deaf]\nurl = "https://localhost/"\nevents = {events}\n'
    own = Installation(tmp_path_factory.mktemp("telling"), workers=2, policy=roomy() + endpoint)
    own.env["GATEWAY_WEBHOOK_SECRETS"] = f"mine={NEW},mine={OLD},deaf={DEAF}"
    with own:
        own.add_users(hanna="host", mira="member", otto="operator")
        yield own


def documented(language: str) -> str:
    (code,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(code)


def verify(secret: str, headers: dict[str, str], body: bytes) -> bool:
    scope: dict[str, Any] = {}
    exec(documented("python"), scope)  # noqa: S102  the page's own code
    return bool(scope["verify"](secret, headers, body))


def test_a_blocked_user_and_an_ended_room_are_told_with_signatures_that_the_documented_code_accepts(
    telling: Installation, receiver: Receiver
) -> None:
    with telling.client_of("otto") as operator, telling.client_of("hanna") as host:
        uid = host.get("/api/auth/me").json()["user"]["id"]
        by = operator.get("/api/auth/me").json()["user"]["id"]
        room = host.post("/api/rooms", json={}).json()["room"]["id"]
        token = host.post(f"/api/rooms/{room}/token", json={}).json()["token"]
        joined = httpx.post(f"{telling.emulator_url}/emulator/peers", json={"token": token}, verify=NO_TLS)
        assert joined.status_code < 300, joined.text
        ended = host.post(f"/api/rooms/{room}/end", json={"lock": True, "reason": "PRIVATE"})
        assert ended.json() == {"ended": True, "locked": True}
        blocked = operator.put("/api/admin/limits/mira/override", json={"block": True, "lasts_s": 60, "reason": "x"})
        assert blocked.status_code < 300, blocked.text
        assert operator.delete("/api/admin/limits/mira/override", params={"name": "*"}).status_code == 204
    headers, body = receiver.wait_for("room.ended")
    told = json.loads(body)["data"]
    assert told == {"room": room, "by": uid, "why": "requested", "budget": None, "locked": True}
    assert verify(NEW, headers, body)
    assert verify(OLD, headers, body)
    assert not verify(DEAF, headers, body)
    assert not verify(NEW, headers, body + b" ")
    assert not verify(NEW, headers | {"webhook-id": "msg_x"}, body)
    assert not verify(NEW, headers | {"webhook-timestamp": str(int(time.time()) - 301)}, body)
    assert json.loads(receiver.wait_for("user.blocked")[1])["data"]["by"] == by
    assert json.loads(receiver.wait_for("user.unblocked")[1])["data"]["by"] == by
    script = documented("javascript") + (
        "const [secrets, headers, body] = JSON.parse(process.argv[1]);"
        "console.log(JSON.stringify(secrets.map((one) => verify(one, headers, Buffer.from(body)))));"
    )
    given = json.dumps([[NEW, OLD, DEAF], headers, body.decode()])
    done = run_node("-e", script, given)
    assert (done.stdout, done.stderr) == ("[true,true,false]\n", "")


def test_the_command_line_tells_too_and_shows_what_became_of_events(telling: Installation, receiver: Receiver) -> None:
    assert telling.command("users", "disable", "mira").returncode == 0
    receiver.wait_for("user.disabled")
    tried = telling.command("webhooks", "out", "test", "mine")
    assert tried.stdout.startswith("mine: answered 204 after"), tried.stderr
    assert verify(NEW, *receiver.wait_for(TEST))
    deaf = telling.command("webhooks", "out", "test", "deaf")
    assert deaf.returncode == 1
    assert re.search(r"deaf: not sent: \S+ is private; only allow_private = true permits it", deaf.stderr)
    assert "no endpoint 'nobody'" in telling.command("webhooks", "out", "test", "nobody").stderr
    receiver.status = 410
    assert telling.command("users", "enable", "mira").returncode == 0
    receiver.wait_for("user.enabled")
    with telling.client_of("otto") as operator, telling.client_of("hanna") as host:
        out = "/api/admin/webhooks/out"
        wait_until(lambda: operator.get(out).json()["dead_letters"] == 1, "the event is a dead letter")
        mine, deaf_state = operator.get(out).json()["items"]
        assert (mine["name"], mine["host"], mine["waiting"], mine["dead"]) == ("mine", HOST, 0, 1)
        assert mine["gone_at"]
        assert mine["delivered"] >= 2
        assert deaf_state["waiting"] >= 3
        assert "is private" in deaf_state["last_failure"]
        (letter,) = operator.get(f"{out}/dead").json()["items"]
        assert (letter["endpoint"], letter["type"], letter["why"]) == ("mine", "user.enabled", "answered 410")
        assert json.loads(letter["body"])["type"] == "user.enabled"
        for path in (out, f"{out}/dead"):
            assert_problem(host.get(path), 403, "forbidden")
        for path in (f"{out}/dead/{letter['id']}/replay", f"{out}/mine/test"):
            assert_problem(host.post(path), 403, "forbidden")
        assert operator.post(f"{out}/mine/test").json()["status"] == 410
        assert_problem(operator.post(f"{out}/nobody/test"), 404, "not_found")
        assert_problem(operator.post(f"{out}/dead/1-1/replay"), 404, "not_found")
        assert operator.post(f"{out}/dead/{letter['id']}/replay").status_code == 204
    status = telling.command("webhooks", "out", "status").stdout
    assert "disabled: answered 410" in status
    letters = json.loads(telling.command("webhooks", "out", "dead", "--json").stdout)
    assert {one["endpoint"] for one in letters} <= {"mine"}
    output = telling.gateway.output()
    assert "SECRET-PATH" not in output
    assert not any(secret.removeprefix("whsec_") in output for secret in (OLD, NEW, DEAF))


def test_the_gateway_does_not_start_with_an_endpoint_that_has_no_secret(telling: Installation) -> None:
    done = telling.command("serve", "--port", "1", GATEWAY_WEBHOOK_SECRETS=f"mine={NEW}")
    assert done.returncode == 1
    assert "webhooks.deaf: has no secret; add deaf=whsec_... to GATEWAY_WEBHOOK_SECRETS" in done.stderr


def test_the_page_has_a_sample_of_every_event_and_names_them_all() -> None:
    (samples,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert {json.loads(line)["type"] for line in samples.splitlines()} == {*EVENTS, TEST}
    for kind in EVENTS:
        assert f"\n| `{kind}` |" in PAGE
        assert f"`{kind}`" in (REPOSITORY / "docs" / "policy.md").read_text()
