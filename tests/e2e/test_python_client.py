"""The Python client against a running gateway: the examples of docs/clients.md, and a user's way through the API."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import jwt
import pytest

from gateway.client import AsyncGateway, Gateway, GatewayProblem
from tests.e2e.people import newcomers
from tests.e2e.service_keys import new_key
from tests.servers import Installation

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"


def test_the_examples_of_the_page_run_as_they_are_written(installation: Installation, tmp_path: Path) -> None:
    admin, host, member = newcomers(installation, "admin", "host", "member")
    key = new_key(installation, admin, "act:user", "rooms:create", "rooms:join", "usage:read-any")
    python = PAGE.read_text().partition("## Python")[2].partition("\n## ")[0]
    examples = re.findall(r"```python\n(.*?)```", python, re.DOTALL)
    assert len(examples) == 3
    names = {"ADDRESS": installation.url, "SERVICE_KEY": key.text, "HOST_ID": host.id, "MEMBER_ID": member.id}
    names |= {"USERNAME": "hanna", "PASSWORD": installation.passwords["hanna"]}
    for number, example in enumerate(examples):
        file = tmp_path / f"example{number}.py"
        file.write_text(example)
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PAGE.parents[1]), **names}
        done = subprocess.run([sys.executable, file], env=env, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip(), example


def test_a_user_logs_in_makes_a_room_and_shares_it(installation: Installation) -> None:
    [mira] = newcomers(installation, "member")
    with Gateway(installation.url) as gateway:
        user = gateway.login("hanna", installation.passwords["hanna"])
        room = gateway.create_room("Planning", access="invited", description="Weekly")
        assert (room.name, room.access, room.owner_id) == ("Planning", "invited", user.id)
        again = gateway.create_room("Kept", idempotency_key="the-same")
        assert gateway.create_room("Kept", idempotency_key="the-same") == again
        assert room.id in {one.id for one in gateway.rooms()}
        assert gateway.room(room.id).relation == "owner"
        assert gateway.update_room(room.id, name="Review").name == "Review"

        token = gateway.mint_token(room.id, "host")
        claims = jwt.decode(token.token, options={"verify_signature": False})
        assert (claims["room_id"], claims["role"], claims["user_id"]) == (room.id, "host", user.id)
        assert gateway.rate_limits
        with pytest.raises(GatewayProblem) as caught:
            gateway.mint_token(room.id, "admin")
        assert (caught.value.status, caught.value.code) == (422, "unknown_role")

        assert gateway.set_member(room.id, mira.name, "viewer").relation == "viewer"
        assert [(one.user_id, one.relation) for one in gateway.members(room.id)] == [
            (user.id, "owner"),
            (mira.id, "viewer"),
        ]
        gateway.ban_member(room.id, mira.id)
        made = gateway.create_invite(room.id, relation="cohost", max_uses=2)
        assert [one.id for one in gateway.invites(room.id)] == [made.invite.id]
        with Gateway(installation.url) as other:
            other.login("hugo", installation.passwords["hugo"])
            assert other.accept_invite(made.code).id == room.id
        gateway.revoke_invite(room.id, made.invite.id)
        assert gateway.end_room(room.id, lock=True).locked
        assert gateway.usage().user_id == user.id

        kept = gateway.session
        assert gateway.refresh().username == "hanna"
        with Gateway(installation.url, session=gateway.session) as resumed:
            assert resumed.me() == user
            resumed.logout()
            assert resumed.session is None
    assert kept is not None
    with Gateway(installation.url, session=kept) as ended, pytest.raises(GatewayProblem) as caught:
        ended.me()
    assert caught.value.code == "invalid_grant"


def test_a_backend_acts_for_its_users_with_asyncio(installation: Installation) -> None:
    admin, host = newcomers(installation, "admin", "host")
    key = new_key(installation, admin, "act:user", "rooms:create", "rooms:join")

    async def act() -> None:
        async with AsyncGateway(installation.url, key=key.text) as backend:
            acting = backend.act_as(host.id)
            room = await acting.create_room("Lesson")
            assert room.owner_id == host.id
            assert (await acting.mint_token(room.id, "host")).user_id == host.id
            assert [one.id async for one in acting.rooms()] == [room.id]
            with pytest.raises(GatewayProblem) as caught:
                await backend.create_room("Of no user")
            assert caught.value.status == 403

    asyncio.run(act())
