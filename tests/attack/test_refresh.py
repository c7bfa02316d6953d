"""Replayed, forged and racing refresh tokens. RFC 9700 section 4.14.2, RFC 6749 section 10.4."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter

import httpx
import pytest

from auth.keys import KeyRing
from tests.e2e.checks import assert_problem
from tests.e2e.volley import fire, post
from tests.servers import Installation

FRESH_CONNECTIONS = 12  # with two workers, the chance that one of them gets none of these is 1 in 2000


def refresh(target: Installation, token: str) -> httpx.Response:
    with target.client() as client:
        return client.post("/api/auth/refresh", json={"refresh_token": token})


def assert_dead(target: Installation, login: dict[str, str]) -> None:
    """Check on many connections, and so on every worker, that a session's tokens are refused."""
    for _ in range(FRESH_CONNECTIONS):
        with target.client(login["access_token"]) as client:
            assert_problem(client.get("/api/auth/me"), 401, "invalid_token")
    assert_problem(refresh(target, login["refresh_token"]), 400, "invalid_grant")


def test_replay_ends_the_session_for_both_thief_and_owner(target: Installation) -> None:
    """The gateway cannot tell which is the owner, so the access tokens of both end with the session; it is audited."""
    first = target.log_in("mira")
    second = refresh(target, first["refresh_token"]).json()
    third = refresh(target, second["refresh_token"]).json()
    for _ in range(FRESH_CONNECTIONS):
        with target.client(third["access_token"]) as client:
            assert client.get("/api/auth/me").status_code == 200  # now every worker remembers it
    assert_problem(refresh(target, first["refresh_token"]), 400, "invalid_grant")
    for login in (first, second, third):
        assert_dead(target, login)
    with target.valkey.client() as client:
        entries = [json.loads(words[b"entry"]) for _, words in client.xrevrange("audit:1", count=20)]
    reuse = next(entry for entry in entries if entry["action"] == "refresh.reused")
    assert (reuse["subject"], reuse["session"]) == (first["user"]["id"], first["session_id"])  # type: ignore[index]


async def test_replay_racing_the_owner_never_leaves_two_valid_token_chains(target: Installation) -> None:
    """Thief and owner refresh at the same moment, round after round: at most one chain of tokens survives."""
    login = target.log_in("mira")
    token = login["refresh_token"]
    for _ in range(4):
        request = post("/api/auth/refresh", {"refresh_token": token})
        answers = [answer for answer in await fire(target.port, [request] * 12) if answer]
        assert Counter(answer.status for answer in answers) == {200: 12}
        children = {answer.json()["refresh_token"] for answer in answers}
        assert len(children) == 1
        token = children.pop()
    stale = post("/api/auth/refresh", {"refresh_token": login["refresh_token"]})
    living = post("/api/auth/refresh", {"refresh_token": token})
    answers = [answer for answer in await fire(target.port, [stale, living] * 6) if answer]
    for answer in answers:
        if answer.status == 200:
            assert_dead(target, answer.json())
    assert_problem(refresh(target, token), 400, "invalid_grant")


async def test_logout_wins_against_racing_refreshes(target: Installation) -> None:
    """CWE-613: no refresh in progress revives an ended session."""
    for _ in range(3):
        login = target.log_in("mira")
        again = post("/api/auth/refresh", {"refresh_token": login["refresh_token"]})
        out = post("/api/auth/logout", {"refresh_token": login["refresh_token"]})
        answers = await fire(target.port, [again, again, out, again, again])
        assert answers[2]
        assert answers[2].status == 204
        for answer in answers:
            if answer and answer.status == 200:
                assert_dead(target, answer.json())
        with target.valkey.client() as client:
            assert not client.exists(f"s:1:{{{login['user']['id']}}}:{login['session_id']}")


FORGERIES = {
    "mac": lambda t: t[:-1] + ("0" if t[-1] != "0" else "1"),
    "no mac": lambda t: t.rpartition(".")[0],
    "empty mac": lambda t: t.rpartition(".")[0] + ".",
    "upper mac": lambda t: t.rpartition(".")[0] + "." + t.rpartition(".")[2].upper(),
    "counter": lambda t: ".".join([*t.split(".")[:3], "999999999999999", t.split(".")[4]]),
    "counter of 2^53": lambda t: ".".join([*t.split(".")[:3], str(2**53 + 1), t.split(".")[4]]),
    "counter 0": lambda t: ".".join([*t.split(".")[:3], "0", t.split(".")[4]]),
    "counter -1": lambda t: ".".join([*t.split(".")[:3], "-1", t.split(".")[4]]),
    "counter 01": lambda t: ".".join([*t.split(".")[:3], "01", t.split(".")[4]]),
    "full-width counter": lambda t: ".".join([*t.split(".")[:3], "\uff11", t.split(".")[4]]),
    "user": lambda t: ".".join(["v1", "u" + "a" * 20, *t.split(".")[2:]]),
    "braces": lambda t: ".".join(["v1", "u}:{" + "a" * 17, *t.split(".")[2:]]),
    "line end": lambda t: t + "\n",
    "space": lambda t: " " + t,
    "twice": lambda t: t + "." + t,
    "huge": lambda t: t + "0" * 3900,
    "words of redis": lambda _: "v1.\r\n*1\r\n$8\r\nFLUSHALL\r\n",
}


def test_forged_token_is_refused_before_redis_reads_a_session(target: Installation) -> None:
    """RFC 9700 section 4.14: the MAC is checked first. Redis receives only the charge of the caller's address. No
    key of a user or a session is read, so guessing cannot end, probe or create one."""
    login = target.log_in("hanna")
    with target.valkey.client() as client, client.monitor() as monitor:
        heard: list[str] = []
        listener = threading.Thread(target=_listen, args=(monitor, heard))
        listener.start()
        try:
            for forge in FORGERIES.values():
                assert refresh(target, forge(login["refresh_token"])).json()["code"] == "invalid_grant"
        finally:
            with target.valkey.client() as other:
                other.get("end of the test")
            listener.join(40)
    # A worker asks for that lock every second and says every five that it lives; the login above counts in lists and
    # totals 0.1 s later.
    not_ours = ("address:", "lk:1:metering", "wk:1", "tp:1:", "uc:1:{all}")
    others = [line for line in heard if not any(key in line for key in not_ours)]
    ours = [line for line in others if line.split(" ")[0] not in ("TIME", "PING")]
    touched = [line for line in ours if login["user"]["id"] in line and "XADD" not in line and "password" not in line]
    assert any("address:" in line for line in heard), "no command was observed at all"
    assert not touched
    assert not [line for line in ours if line.startswith(("EVAL", "DEL", "HSET", "HMGET s:", "FLUSHALL"))], ours
    assert refresh(target, login["refresh_token"]).status_code == 200


def _listen(monitor: object, heard: list[str]) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        line = monitor.next_command()["command"]  # type: ignore[attr-defined]
        if "end of the test" in line:
            return
        heard.append(line)


@pytest.mark.parametrize("counter", [2**53 - 1, 10**15 - 1, 2**31, 2**32])
def test_counter_of_any_size_does_not_wrap_or_fork(target: Installation, counter: int) -> None:
    """CWE-190: as if Redis had lost writes; signed with the real key. Lua's numbers are doubles: exact to 2^53."""
    login = target.log_in("mira")
    ring = KeyRing([target.env["GATEWAY_SECRET"]], "refresh")
    body = f"v1.{login['user']['id']}.{login['session_id']}.{counter}"
    answer = refresh(target, f"{body}.{ring.mac(body)}")
    if counter > 10**15 - 1:
        assert_problem(answer, 400, "invalid_grant")
        return
    following = answer.json()["refresh_token"].split(".")[3]
    if counter == 10**15 - 1:
        assert following == str(10**15)
        assert_problem(refresh(target, answer.json()["refresh_token"]), 400, "invalid_grant")
    else:
        assert following == str(counter + 1)
        assert refresh(target, answer.json()["refresh_token"]).status_code == 200


def test_key_of_another_purpose_cannot_sign_a_refresh_token(target: Installation) -> None:
    """RFC 8725 section 3.5."""
    login = target.log_in("mira")
    body = login["refresh_token"].rpartition(".")[0]
    for purpose in ("cursor", "throttle", "login-token"):
        mac = KeyRing([target.env["GATEWAY_SECRET"]], purpose).mac(body)
        assert_problem(refresh(target, f"{body}.{mac}"), 400, "invalid_grant")


def test_refused_refreshes_do_not_reveal_the_reason(target: Installation) -> None:
    """RFC 6749 section 5.2: forged, ended, replayed and disabled get the same answer."""
    ended = target.log_in("mira")
    with target.client(ended["access_token"]) as client:
        assert client.post("/api/auth/logout", json={}).status_code == 204
    ring = KeyRing([target.env["GATEWAY_SECRET"]], "refresh")
    nobody = f"v1.u{'a' * 20}.{'0' * 20}.1"
    seen = set()
    forged = FORGERIES["mac"](ended["refresh_token"])
    for token in (ended["refresh_token"], f"{nobody}.{ring.mac(nobody)}", forged, "x"):
        document = assert_problem(refresh(target, token), 400, "invalid_grant")
        seen.add(json.dumps(document | {"request_id": ""}))
    assert len(seen) == 1
