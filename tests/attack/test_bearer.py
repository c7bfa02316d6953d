"""Transport of the token: one header, one scheme. RFC 6750 sections 2 and 5.3, RFC 9110 section 11."""

from __future__ import annotations

import json
from http.client import HTTPConnection

import pytest

from tests.attack.forge import Forge
from tests.e2e.checks import assert_problem
from tests.servers import HOST, Installation


# RFC 6750 section 5.3: tokens in URLs end up in logs and histories. The forms of sections 2.2 and 2.3 are not
# supported.
def test_token_is_accepted_in_the_header_only(target: Installation, forge: Forge) -> None:
    with target.client() as client:
        for name in ("access_token", "token", "authorization", "bearer"):
            assert_problem(client.get("/api/auth/me", params={name: forge.genuine}), 401, "invalid_token")
            cookie = client.get("/api/auth/me", headers={"Cookie": f"{name}={forge.genuine}"})
            assert_problem(cookie, 401, "invalid_token")
        assert_problem(client.post("/api/rooms", json={"access_token": forge.genuine}), 401, "invalid_token")
        form = client.post("/api/rooms", data={"access_token": forge.genuine})
        assert_problem(form, 401, "invalid_token")


# RFC 9110 section 5.3: Authorization is not a list; a proxy and the gateway could read two of them differently.
def test_two_authorization_headers_are_refused(target: Installation, forge: Forge) -> None:
    good, bad = f"Bearer {forge.genuine}", "Bearer x"
    for first, second in ((good, bad), (bad, good), (good, good), (good, "")):
        connection = HTTPConnection(HOST, target.port, timeout=5)
        connection.putrequest("GET", "/api/auth/me")
        connection.putheader("Authorization", first)
        connection.putheader("Authorization", second)
        connection.endheaders()
        answer = connection.getresponse()
        assert answer.status == 401
        assert json.loads(answer.read())["code"] == "invalid_token"
        connection.close()


# Litestar's own JWTAuth accepts `Basic <jwt>` (verified on 2.25); RFC 6750 section 2.1: the scheme is Bearer.
@pytest.mark.parametrize(
    "value", ["Basic {}", "{}", "Token {}", "JWT {}", "Bearer", "Bearer  {}", "Bearer\t{}", "Bearer,{}", "Bearer={}"]
)
def test_other_schemes_are_refused(target: Installation, forge: Forge, value: str) -> None:
    with target.client() as client:
        answer = client.get("/api/auth/me", headers={"Authorization": value.format(forge.genuine)})
    assert_problem(answer, 401, "invalid_token")


def test_basic_credentials_do_not_log_in(target: Installation) -> None:
    with target.client() as client:
        answer = client.get("/api/auth/me", auth=("hanna", target.passwords["hanna"]))
    assert_problem(answer, 401, "invalid_token")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_scheme_is_not_case_sensitive(target: Installation, forge: Forge, scheme: str) -> None:
    """RFC 9110 section 11.1."""
    with target.client() as client:
        answer = client.get("/api/auth/me", headers={"Authorization": f"{scheme} {forge.genuine}"})
    assert answer.status_code == 200
