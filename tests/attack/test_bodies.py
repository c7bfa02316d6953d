"""Bodies sent to routes that take none: bounded, and checked as strictly as others. OWASP API4:2023, API8:2023."""

from __future__ import annotations

import httpx
import pytest

from gateway.http.access import access_of
from gateway.routes.table import ROUTES
from tests.e2e.checks import assert_problem
from tests.servers import Installation

BODYLESS = sorted(
    (method, path)
    for handler in ROUTES
    for method in handler.http_methods
    for path in handler.paths
    if method not in ("GET", "HEAD", "OPTIONS") and handler.parsed_data_field is None and not access_of(handler).webhook
)
PLAIN = {"Content-Type": "text/plain"}


@pytest.mark.parametrize(("method", "path"), BODYLESS)
def test_route_without_a_body_refuses_one(target: Installation, method: str, path: str) -> None:
    address = path.replace("{user:str}", "nobody-here").replace("{room_id:str}", "0" * 24)
    address = address.replace("{sid:str}", "0" * 20).replace("{invite_id:str}", "0" * 32)
    address += "?name=api" if path.endswith("/override") else ""
    with target.client_of("ada") as client:

        def send(**request: object) -> httpx.Response:
            return client.request(method, address, **request)  # type: ignore[arg-type]

        expected = send().status_code
        assert expected in (403, 404), "a caller who is refused anyway must not be refused for another reason"
        assert send(json={}).status_code == expected
        if expected == 404 and "{room_id" not in path:
            assert_problem(send(json={"roles": ["admin"]}), 400, "invalid_request")
            assert_problem(send(content="x", headers=PLAIN), 415, "unsupported_media_type")
            assert_problem(send(json={"x": "x" * 20_000}), 413, "payload_too_large")
