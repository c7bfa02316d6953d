"""clients/typescript, built and run by Node against a real gateway; and the seed's own client class."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import jwt
import pytest

from gateway.apidoc.openapi import describe
from gateway.http.problem_codes import STATUS
from gateway.routes.table import ROUTES
from tests.e2e.checks import assert_problem
from tests.e2e.node import CLIENT, build_client
from tests.e2e.people import PROVIDER, newcomers
from tests.e2e.service_keys import new_key
from tests.e2e.test_main_job import init_status
from tests.servers import Installation, wait_until

BUILT = CLIENT / "build" / "test" / "e2e"


@pytest.fixture(scope="session")
def node() -> str:
    """Node's path, with the client and its test programs compiled from the current sources."""
    build_client()
    return build_client("test")


def environment(installation: Installation, **more: str) -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", ""), "GATEWAY_URL": installation.url, **more}


class Refused(Exception):
    """An error that the client threw, with its fields."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.error = error


class Remote:
    """The compiled client in a Node process; each line is one command."""

    def __init__(self, node: str, installation: Installation, **env: str) -> None:
        self._process = subprocess.Popen(
            [node, str(BUILT / "remote.js")],
            env=environment(installation, **env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def command(self, *words: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise Refused(answer["error"])
        return answer["value"]

    def call(self, method: str, *args: Any) -> Any:
        return self.command("call", method, *args)

    def log_in(self, installation: Installation, name: str) -> Any:
        return self.call("login", name, installation.passwords[name])

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


@pytest.fixture
def client(node: str, installation: Installation) -> Iterator[Remote]:
    remote = Remote(node, installation)
    yield remote
    remote.close()


@pytest.fixture(scope="module", autouse=True)
def _users(installation: Installation) -> None:
    installation.add_users(tilda="host", tycho="host")


class Log:
    """The gateway's access lines from now on."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._from = len(installation.gateway.output())

    def requests(self) -> Counter[tuple[str, int]]:
        """Count the requests by path and status."""
        text = self._installation.gateway.output()[self._from :]
        lines = [json.loads(line) for line in text.splitlines() if line.startswith("{") and line.endswith("}")]
        return Counter((line["path"], line["status"]) for line in lines if line["message"] == "request")

    def wait_for(self, path: str, status: int, times: int) -> Counter[tuple[str, int]]:
        """Wait until these lines are logged, because a line is written after its answer is sent; then return all."""
        wait_until(lambda: self.requests()[path, status] >= times, f"{times} answers {status} of {path} are logged")
        return self.requests()


ME, REFRESH = "/api/auth/me", "/api/auth/refresh"
# An interface of the client -> the gateway's name for it.
TYPED = {
    "User": "User",
    "TokenAnswer": "LoggedIn",
    "Me": "Me",
    "LoginSession": "Session",
    "Room": "Room",
    "RoomPage": "RoomList",
    "MintedToken": "Minted",
    "Member": "Member",
    "MemberPage": "MemberList",
    "MemberSet": "MemberSet",
    "Ending": "Ending",
    "Invite": "RoomInvite",
    "InviteMade": "InviteMade",
    "Tally": "Counts",
    "LimitState": "LimitNow",
    "QuotaState": "QuotaNow",
    "LeaseState": "LeaseNow",
    "Usage": "OwnUsage",
}


def test_client_creates_a_room_and_joins_it(installation: Installation, client: Remote) -> None:
    user = client.log_in(installation, "tilda")
    assert user["username"] == "tilda"
    created = client.call("createRoom", {"name": "Stand-up", "description": "every day", "access": "open"})
    assert created["success"] is True
    room = created["room"]
    assert (room["name"], room["description"], room["owner_id"]) == ("Stand-up", "every day", user["id"])
    untitled = client.call("createRoom")["room"]
    assert untitled["name"] == "Untitled room"

    token = client.call("getAuthToken", room["id"], "host")
    claims = jwt.decode(token, options={"verify_signature": False})
    assert (claims["room_id"], claims["role"], claims["user_id"]) == (room["id"], "host", user["id"])
    assert init_status(installation, token) == 200
    minted = client.call("mintToken", room["id"])
    assert (minted["role"], minted["user_id"]) == ("guest", user["id"])

    assert client.call("getRoom", room["id"]) == room | {"relation": "owner"}
    assert client.command("rooms", 1) == [untitled["id"], room["id"]]
    assert client.call("me") == {"user": user, "permissions": ["rooms:create", "rooms:join", "usage:read-own"]}
    assert client.call("usage")["usage"]["today"]["tokens.mint"]["ok"] == 2
    standing = client.command("state")["rateLimits"]
    assert {limit["policy"] for limit in standing} >= {"api", "tokens.mint"}
    for limit in standing:
        assert 0 < limit["remaining"] <= limit["quota"]
        assert limit["resetS"] > 0
        assert limit["windowS"] > 0


def test_client_receives_the_reason_of_a_refusal(installation: Installation, client: Remote) -> None:
    with pytest.raises(Refused) as wrong:
        client.call("login", "tilda", "not the password at all")
    assert (wrong.value.error["status"], wrong.value.error["code"]) == (401, "invalid_credentials")
    client.log_in(installation, "mira")
    created = client.call("createRoom", {"name": "not hers to make"})
    assert created["success"] is False
    assert created["error"] == created["problem"]["detail"]
    assert created["problem"]["code"] == "forbidden"
    assert created["problem"]["missingPermission"] == "rooms:create"
    with pytest.raises(Refused) as unknown:
        client.call("getAuthToken", "0" * 24, "guest")
    assert unknown.value.error["code"] == "not_found"
    assert len(unknown.value.error["requestId"]) == 24

    client.log_in(installation, "tilda")
    room = client.call("createRoom")["room"]
    with pytest.raises(Refused) as ghost:
        client.call("getAuthToken", room["id"], "ghost")
    assert ghost.value.error["status"] in (403, 422)
    assert ghost.value.error["allowedRoles"] == ["guest", "host"]
    created = client.call("createRoom", {"name": "x" * 101})
    assert [error["field"] for error in created["problem"]["errors"]] == ["name"]


def test_client_changes_and_ends_a_room(installation: Installation, client: Remote) -> None:
    client.log_in(installation, "tilda")
    room = client.call("createRoom", {"name": "Stand-up"})["room"]
    changed = client.call("updateRoom", room["id"], {"name": "Retrospective", "enabled": False})
    assert changed == room | {"name": "Retrospective", "enabled": False, "relation": "owner"}
    with pytest.raises(Refused) as disabled:
        client.call("mintToken", room["id"])
    assert disabled.value.error["code"] == "room_disabled"
    assert client.call("updateRoom", room["id"], {"enabled": True})["enabled"] is True
    assert client.call("endRoom", room["id"]) == {"ended": False, "locked": False}
    assert client.call("endRoom", room["id"], {"lock": True, "reason": "over"}) == {"ended": False, "locked": True}
    assert client.call("getRoom", room["id"])["enabled"] is False


def test_client_repeats_a_create_with_its_key_without_a_second_room(installation: Installation, client: Remote) -> None:
    client.log_in(installation, "tilda")
    first = client.call("createRoom", {"name": "Once"})
    again = client.call("createRoom", {"name": "Once", "idempotencyKey": first["idempotencyKey"]})
    assert again["room"] == first["room"]
    assert client.call("createRoom", {"name": "Once"})["room"]["id"] != first["room"]["id"]
    other = client.call("createRoom", {"name": "Twice", "idempotencyKey": first["idempotencyKey"]})
    assert other["problem"]["code"] == "idempotency_mismatch"


def test_client_invites_changes_and_bans_members(installation: Installation, node: str, client: Remote) -> None:
    owner = client.log_in(installation, "tilda")
    room = client.call("createRoom", {"name": "Invited", "access": "invited"})["room"]
    made = client.call("createInvite", room["id"], {"relation": "viewer", "maxUses": 2, "expiresInS": 3600})
    invite = made["invite"]
    assert (invite["relation"], invite["uses_left"], invite["guests"]) == ("viewer", 2, False)
    assert invite["by"] == owner["id"]
    member = Remote(node, installation)
    try:
        with pytest.raises(Refused) as stranger:
            member.call("acceptInvite", made["code"])
        assert stranger.value.error["status"] in (401, 403)
        assert member.call("currentUser") is None, "an invite that is not for guests must not log in"
        mira = member.log_in(installation, "mira")
        accepted = member.call("acceptInvite", made["code"])
        assert accepted == {"room": room, "relation": "viewer"}
        assert member.call("mintToken", room["id"])["user_id"] == mira["id"]
        (listed,) = client.call("invites", room["id"])
        assert listed | {"expires_at": ""} == invite | {"uses_left": 1, "expires_at": ""}
        assert client.command("members", room["id"], 1) == [["tilda", "owner"], ["mira", "viewer"]]
        changed = client.call("setMember", room["id"], "mira", "cohost")
        assert changed["member"] == {
            "user_id": mira["id"],
            "username": "mira",
            "display_name": mira["display_name"],
            "relation": "cohost",
        }
        assert changed["removed"] == 0
        assert member.call("memberPage", room["id"], {"limit": 1})["next_cursor"]
        client.call("revokeInvite", room["id"], invite["id"])
        assert client.call("invites", room["id"]) == []
        client.call("banMember", room["id"], "mira")
        with pytest.raises(Refused) as banned:
            member.call("mintToken", room["id"])
        assert banned.value.error["code"] == "not_found"
    finally:
        member.close()


def test_guest_of_an_invite_is_logged_in(installation: Installation, node: str, client: Remote) -> None:
    client.log_in(installation, "tilda")
    room = client.call("createRoom", {"access": "invited"})["room"]
    made = client.call("createInvite", room["id"], {"guests": True})
    assert (made["invite"]["relation"], made["invite"]["guests"]) == ("participant", True)
    guest = Remote(node, installation)
    try:
        accepted = guest.call("acceptInvite", made["code"], {"displayName": "Gast"})
        assert accepted == {"room": room, "relation": "participant"}
        user = guest.call("currentUser")
        assert (user["display_name"], user["roles"]) == ("Gast", ["guest"])
        assert guest.call("mintToken", room["id"])["user_id"] == user["id"]
        assert guest.call("refresh") == user
        assert guest.call("createRoom")["problem"]["code"] == "forbidden"
        (session,) = guest.call("sessions")
        assert session["id"] == guest.command("session")["sessionId"]
    finally:
        guest.close()
    late = Remote(node, installation)
    try:
        with pytest.raises(Refused) as used_up:
            late.call("acceptInvite", made["code"])
        assert used_up.value.error["code"] == "invite_invalid"
    finally:
        late.close()


def test_client_exchanges_a_token_of_an_identity_provider(installation: Installation, client: Remote) -> None:
    subject = f"auth0|{secrets.token_hex(8)}"
    user = client.call("exchange", PROVIDER.token(sub=subject, name="Tilda", groups=["teachers"]))
    assert (user["display_name"], user["roles"]) == ("Tilda", ["host"])
    room = client.call("createRoom")["room"]
    assert client.call("mintToken", room["id"])["user_id"] == user["id"]
    assert client.call("refresh") == user
    client.call("logout")
    with pytest.raises(Refused) as refused:
        client.call("exchange", PROVIDER.token(sub=subject, aud="another-app"))
    assert refused.value.error["code"] == "invalid_grant"


def test_client_acts_for_users_with_a_service_key(installation: Installation, node: str) -> None:
    admin, host, member = newcomers(installation, "admin", "host", "member")
    key = new_key(installation, admin, "act:user", "rooms:create", "rooms:join", "rooms:read-any")
    backend = Remote(node, installation, SERVICE_KEY=key.text)
    try:
        room = backend.command("callAs", host.id, "createRoom", {"name": "Booked"})["room"]
        assert room["owner_id"] == host.id
        minted = backend.command("callAs", member.id, "mintToken", room["id"])
        assert (minted["user_id"], minted["role"]) == (member.id, "guest")
        assert backend.call("getRoom", room["id"])["relation"] is None
        denied = backend.command("callAs", member.id, "createRoom")["problem"]
        assert (denied["code"], denied["missingPermission"]) == ("forbidden", "rooms:create")
        with pytest.raises(Refused) as unknown:
            backend.command("callAs", "u" + "a" * 20, "usage")
        assert unknown.value.error["errors"][0]["field"] == "X-Act-As"
        assert installation.command("keys", "revoke", key.name, "--yes").returncode == 0
        with pytest.raises(Refused) as revoked:
            backend.command("callAs", member.id, "mintToken", room["id"])
        assert revoked.value.error["code"] == "invalid_token"
    finally:
        backend.close()


def test_client_lists_and_ends_its_sessions(installation: Installation, client: Remote) -> None:
    client.log_in(installation, "tycho")
    other = installation.log_in("tycho")
    sessions = {session["id"]: session for session in client.call("sessions")}
    own = client.command("session")["sessionId"]
    assert [one["id"] for one in sessions.values() if one["current"]] == [own]
    keys = {"id", "current", "created_at", "used_at", "expires_at", "address", "agent"}
    assert set(sessions[other["session_id"]]) == keys
    client.call("endSession", other["session_id"])
    with installation.client(other["access_token"]) as ended:
        assert_problem(ended.get(ME), 401, "invalid_token")
    client.call("endSession", own)
    assert client.command("session") is None


@pytest.mark.parametrize("spent", ["expired by its clock", "refused by the gateway"])
def test_parallel_calls_with_a_spent_token_make_one_refresh(
    installation: Installation, client: Remote, spent: str
) -> None:
    client.log_in(installation, "tilda")
    before = client.command("session")
    log = Log(installation)
    refused = spent == "refused by the gateway"
    if refused:
        head, _, mac = before["accessToken"].rpartition(".")
        client.command("change", {"accessToken": f"{head}.{mac[::-1]}"})
    else:
        client.command("change", {"renewAtMs": 0, "expiresAtMs": 0})
    answers = client.command("parallel", 40, "me")
    assert [answer["user"]["username"] for answer in answers] == ["tilda"] * 40
    requests = log.wait_for(ME, 200, 40)
    assert {key: count for key, count in requests.items() if key[0] == REFRESH} == {(REFRESH, 200): 1}
    assert requests[ME, 200] == 40
    assert requests[ME, 401] == (40 if refused else 0)
    after = client.command("session")
    assert after["sessionId"] == before["sessionId"]
    assert after["refreshToken"] != before["refreshToken"]


def test_client_uses_changed_roles_from_the_next_call_on(installation: Installation, client: Remote) -> None:
    assert client.log_in(installation, "tycho")["roles"] == ["host"]
    done = installation.command("users", "roles", "tycho", "member")
    assert done.returncode == 0, done.stderr
    log = Log(installation)
    for answer in client.command("parallel", 20, "me"):
        assert answer["user"]["roles"] == ["member"]
    assert log.wait_for(ME, 200, 20)[REFRESH, 200] == 1
    assert client.call("currentUser")["roles"] == ["member"]
    assert client.call("createRoom")["problem"]["code"] == "forbidden"


def test_denied_call_waits_and_succeeds(installation: Installation, client: Remote) -> None:
    client.log_in(installation, "tilda")
    with installation.client_of("ada") as admin:
        seldom = {"name": "api", "rate": "20/min", "burst": 1, "lasts_s": 60, "reason": "a test of clients"}
        answer = admin.put("/api/admin/limits/tilda/override", json=seldom)
        assert answer.status_code == 200, answer.text
        try:
            log = Log(installation)
            begun = time.monotonic()
            client.call("me")
            client.call("me")
            assert 2 < time.monotonic() - begun < 15
            requests = log.wait_for(ME, 200, 2)
            assert (requests[ME, 200], requests[ME, 429]) == (2, 1)
            assert client.command("state")["rateLimits"][0]["remaining"] == 0
        finally:
            lifted = admin.delete("/api/admin/limits/tilda/override", params={"name": "api"})
            assert lifted.status_code == 204, lifted.text


def test_logout_ends_the_session_at_the_gateway(installation: Installation, client: Remote) -> None:
    client.log_in(installation, "tilda")
    session = client.command("session")
    client.call("logout")
    with installation.client(session["accessToken"]) as stolen:
        assert_problem(stolen.get(ME), 401, "invalid_token")
        refresh: httpx.Response = stolen.post(REFRESH, json={"refresh_token": session["refreshToken"]})
        assert_problem(refresh, 400, "invalid_grant")
    with pytest.raises(Refused) as gone:
        client.call("me")
    assert gone.value.error["code"] == "no_session"
    assert client.command("state")["lost"] == []


def test_client_notices_that_its_session_was_ended_elsewhere(installation: Installation, client: Remote) -> None:
    client.log_in(installation, "tilda")
    with installation.client_of("tilda") as elsewhere:
        assert elsewhere.post("/api/auth/logout", json={"scope": "others"}).status_code == 204
    with pytest.raises(Refused) as gone:
        client.command("parallel", 10, "me")
    assert gone.value.error["code"] == "invalid_grant"
    assert client.command("state")["lost"] == ["invalid_grant"]
    assert client.command("session") is None


def test_seeds_client_works_with_its_base_url_and_one_header_changed(installation: Installation, node: str) -> None:
    login = installation.log_in("hanna")
    env = environment(installation, LOGIN_TOKEN=login["access_token"])
    done = subprocess.run(
        [node, str(BUILT / "seed.js")], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["untitled"]["success"] is True
    assert seen["untitled"]["room"]["name"] == "Untitled room"
    room = seen["named"]["room"]
    assert (room["name"], room["description"]) == ("Stand-up", "every day")
    claims = jwt.decode(seen["token"], options={"verify_signature": False})
    assert (claims["room_id"], claims["role"]) == (room["id"], "host")
    assert claims["user_id"] == login["user"]["id"], "never the one that the seed's client makes up"
    assert init_status(installation, seen["token"]) == 200
    assert seen["refused"] is None


def test_copied_seed_equals_the_seed_except_for_the_marked_lines() -> None:
    """Its requests are built only from these texts, and it does not use the package."""
    text = (CLIENT / "test" / "seed" / "hms-service.ts").read_text()
    assert len(re.findall(r"// changed$", text, re.MULTILINE)) == 3
    assert "import" not in text
    for part in ("`${this.baseUrl}/rooms`", "`${this.baseUrl}/rooms/${roomId}/token`", "JSON.stringify(options)"):
        assert text.count(part) == 1


def test_client_knows_every_code_of_the_gateway() -> None:
    known = re.findall(r'^  "([a-z_]+)",$', (CLIENT / "src" / "problem.ts").read_text(), re.MULTILINE)
    assert known == list(STATUS)


def test_client_reads_every_field_of_the_answers_it_types() -> None:
    """Its interfaces have the fields that the OpenAPI document has, and no others."""
    text = (CLIENT / "src" / "shapes.ts").read_text()
    schemas = describe(ROUTES)["components"]["schemas"]
    for interface, schema in TYPED.items():
        block = re.search(rf"^export interface {interface} {{\n(.*?)\n}}$", text, re.MULTILINE | re.DOTALL)
        assert block, interface
        fields = re.findall(r"^  readonly (\w+)(\??):", block[1], re.MULTILINE)
        assert {name for name, _ in fields} == set(schemas[schema]["properties"]) - {"success"}, interface
        assert {name for name, mark in fields if not mark} == set(schemas[schema]["required"]) - {"success"}, interface
