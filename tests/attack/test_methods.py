"""HEAD, OPTIONS and unsupported methods on every route of the running app's own document. RFC 9110 section 9."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.attack.wire import exchange, head
from tests.e2e.checks import assert_problem, check_document
from tests.servers import Installation

METHODS = {"get", "post", "put", "patch", "delete"}
VARIES = {"x-request-id", "date", "ratelimit", "ratelimit-policy"}


@pytest.fixture(scope="module")
def document(target: Installation) -> dict[str, dict[str, Any]]:
    """The paths of the document, each with an address to call instead of the template."""
    with target.client() as client:
        paths = client.get("/openapi.json").json()["paths"]
    return {re.sub(r"\{\w+\}", "0" * 24, template): item for template, item in paths.items()}


@pytest.fixture(scope="module")
def operator(target: Installation) -> Iterator[httpx.Client]:
    with target.client_of("otto") as client:
        yield client


def allowed(item: dict[str, Any]) -> set[str]:
    methods = {method.upper() for method in METHODS & {*item}}
    return methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())


def allow_of(answer: httpx.Response) -> set[str]:
    return {*answer.headers["allow"].split(", ")}


def test_options_lists_exactly_the_methods_of_the_document(
    target: Installation, document: dict[str, dict[str, Any]]
) -> None:
    """Litestar's own handler lists only the methods of the handler that was registered first."""
    assert len(document) >= 20
    with target.client() as client:
        for path, item in document.items():
            answer = client.options(path)
            assert answer.status_code == 204, path
            assert answer.content == b""
            assert allow_of(answer) == allowed(item), path
            assert "access-control-allow-origin" not in answer.headers
        assert_problem(client.options("/api/nowhere"), 404, "not_found")


def test_head_is_get_without_its_content(
    target: Installation, document: dict[str, dict[str, Any]], operator: httpx.Client
) -> None:
    with target.client() as stranger:
        # What has no end is compared in tests/e2e/test_overview.
        for path in [path for path, item in document.items() if "get" in item and path != "/api/admin/live"]:
            for client in (stranger, operator):
                got, headed = client.get(path), client.head(path)
                assert headed.status_code == got.status_code, path
                assert headed.content == b""
                same = {name: value for name, value in got.headers.items() if name not in VARIES}
                sent = {name: value for name, value in headed.headers.items() if name not in VARIES}
                length, get_length = same.pop("content-length"), sent.pop("content-length")
                assert sent == same, path
                if got.status_code == 200:
                    assert abs(int(length) - int(get_length)) < 64  # instants and counts differ by digits
                assert ("ratelimit" in got.headers) == ("ratelimit" in headed.headers)


def test_head_costs_what_get_costs(target: Installation) -> None:
    """Otherwise HEAD would bypass a limit (OWASP API4:2023)."""
    with target.client_of("mira") as client:

        def counted() -> int:
            return int(client.get("/api/usage").json()["usage"]["total"].get("api", {}).get("ok", 0))

        before = counted()
        for _ in range(3):
            assert client.head("/api/auth/me").status_code == 200
        assert counted() - before == 3


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "QUERY", "LOCK"]
)
def test_other_methods_are_refused_and_the_allowed_ones_listed(
    target: Installation, document: dict[str, dict[str, Any]], operator: httpx.Client, method: str
) -> None:
    with target.client() as stranger:
        for path, item in document.items():
            if method in allowed(item):
                continue
            for client in (stranger, operator):
                answer = client.request(method, path)
                assert allow_of(answer) == allowed(item), (path, method)
                if method == "HEAD":
                    assert answer.status_code == 405
                    assert answer.content == b""
                else:
                    assert_problem(answer, 405, "method_not_allowed")


@pytest.mark.parametrize("method", ["GETX", "get", "G\x00ET", "BREW", "-", "GET\t", "HEAD\x0b"])
def test_unknown_methods_are_refused(target: Installation, method: str) -> None:
    answer = exchange(target, head(f"{method} /api/usage HTTP/1.1"))
    check_document(400, answer.headers, answer.body, "invalid_request")


@pytest.mark.parametrize(
    "line", ["CONNECT evil.example:443 HTTP/1.1", "CONNECT /api/usage HTTP/1.1", "OPTIONS * HTTP/1.1"]
)
def test_request_forms_for_proxies_reach_no_route(target: Installation, line: str) -> None:
    answer = exchange(target, head(line))
    assert answer.status in (400, 404, 405)
    assert json.loads(answer.body)["success"] is False


def test_trace_does_not_echo_the_request(target: Installation) -> None:
    """Cross-site tracing: RFC 9110 section 9.3.8."""
    answer = exchange(target, head("TRACE /api/usage HTTP/1.1", "Authorization: Bearer secret-of-mine"))
    assert answer.status == 405
    assert b"secret-of-mine" not in answer.raw
