"""100ms and its web client accept a token that the gateway mints, and refuse a changed one."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import jwt
import pytest

from tests.e2e.node import run_node
from tests.e2e.people import mint, new_room, newcomers
from tests.e2e.test_main_job import init_status
from tests.servers import Installation, wait_until


@pytest.fixture(scope="module")
def minted(installation: Installation) -> dict[str, Any]:
    """The gateway's answer to a mint in a room of hanna's."""
    with installation.client_of("hanna") as client:
        room = client.post("/api/rooms", json={"name": "Web client"}).json()["room"]
        answer = client.post(f"/api/rooms/{room['id']}/token", json={"role": "host"})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_web_client_reads_a_minted_token_and_is_admitted(installation: Installation, minted: dict[str, Any]) -> None:
    done = run_node("decode.cjs", minted["token"])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {name: minted[name] for name in ("room_id", "user_id", "role")}
    assert init_status(installation, minted["token"]) == 200


@pytest.mark.parametrize(("where", "ttl_s"), [("installation", 3600), ("house", 600)])
def test_token_has_the_documented_claims_and_the_policys_lifetime_and_is_audited(
    request: pytest.FixtureRequest, where: str, ttl_s: int
) -> None:
    there: Installation = request.getfixturevalue(where)
    [host] = newcomers(there, "host")
    room = new_room(there, host)
    begun = int(time.time())
    answer = mint(there, host, room, role="host").json()
    claims = jwt.decode(answer["token"], there.env["HMS_APP_SECRET"], algorithms=["HS256"])
    jti, iat, nbf, exp = (claims.pop(name) for name in ("jti", "iat", "nbf", "exp"))
    assert claims == {
        "access_key": there.env["HMS_APP_ACCESS_KEY"], "room_id": room, "user_id": host.id, "role": "host",
        "type": "app", "version": 2,
    }  # fmt: skip
    assert begun + ttl_s <= exp <= time.time() + ttl_s
    assert (iat, nbf) == (exp - ttl_s - 10, exp - ttl_s - 10)
    wait_until(lambda: jti in audited(there), "the mint is audited")
    entry = json.loads(audited(there)[jti])
    said = {name: entry[name] for name in ("action", "by", "subject", "room", "role", "exp")}
    assert said == {
        "action": "token.minted", "by": host.id, "subject": host.id, "room": room, "role": "host", "exp": exp
    }  # fmt: skip


def audited(there: Installation) -> dict[str, str]:
    """Return the last audit entries that name a jti, by it."""
    with there.valkey.client() as redis:
        entries = [fields[b"entry"].decode() for _, fields in redis.xrevrange("audit:1", count=20)]  # type: ignore[union-attr]
    return {json.loads(entry).get("jti", ""): entry for entry in entries}


@pytest.mark.parametrize("text", ["?>~", "é", "名"])
def test_web_client_fails_on_a_payload_that_needs_base64url(text: str) -> None:
    """The reason for plain user ids: such text, at one of three places, breaks `atob` or is decoded wrongly. Without
    this the test above would prove nothing."""
    outcomes = set()
    for shift in range(3):
        claims = {"room_id": "r" * shift, "user_id": text, "role": "host"}
        payload = base64.urlsafe_b64encode(json.dumps(claims, ensure_ascii=False).encode()).decode().rstrip("=")
        done = run_node("decode.cjs", f"e30.{payload}.x")
        outcomes.add(done.returncode == 0 and json.loads(done.stdout)["user_id"] == text)
    assert False in outcomes


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("access_key", "f" * 24),
        ("room_id", "f" * 24),
        ("user_id", 7),
        ("role", "Host"),
        ("type", "management"),
        ("version", 1),
        ("iat", 99_999_999_999),
        ("nbf", 99_999_999_999),
        ("exp", 1),
    ],
)
def test_token_with_a_changed_claim_is_refused_even_with_the_right_signature(
    installation: Installation, minted: dict[str, Any], claim: str, value: object
) -> None:
    secret = installation.env["HMS_APP_SECRET"]
    claims = jwt.decode(minted["token"], secret, algorithms=["HS256"])
    assert init_status(installation, jwt.encode(claims | {claim: value}, secret)) in (400, 401)
    assert init_status(installation, jwt.encode(claims, secret)) == 200


def test_token_with_any_changed_claim_and_the_old_signature_is_refused(
    installation: Installation, minted: dict[str, Any]
) -> None:
    """Every claim, including `jti`, is changed slightly: another room, another user, one second more."""
    head, payload, signature = minted["token"].split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    assert len(claims) == 10
    for claim, value in claims.items():
        other = value + 1 if isinstance(value, int) else value[:-1] + ("0" if value[-1] != "0" else "1")
        changed = base64.urlsafe_b64encode(json.dumps(claims | {claim: other}).encode()).decode().rstrip("=")
        assert init_status(installation, f"{head}.{changed}.{signature}") == 401, claim
    assert init_status(installation, minted["token"]) == 200
