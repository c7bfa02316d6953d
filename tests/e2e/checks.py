"""Shared assertions about answers."""

from __future__ import annotations

import json
from typing import Any

import httpx

QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"


def assert_problem(answer: httpx.Response, status: int, code: str, *, field: str | None = None) -> dict[str, Any]:
    """Check an error answer, from its status to the fields that the seed's client reads; return its document."""
    assert answer.status_code == status, (answer.status_code, answer.text)
    return check_document(status, dict(answer.headers), answer.content, code, path=answer.request.url.path, field=field)


def check_document(
    status: int, headers: dict[str, str], body: bytes, code: str, *, path: str | None = None, field: str | None = None
) -> dict[str, Any]:
    assert headers["content-type"] == "application/problem+json"
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert "server" not in headers
    document: dict[str, Any] = json.loads(body)
    assert document["code"] == code, document
    assert document["type"] == (
        QUOTA_EXCEEDED if code in ("rate_limited", "quota_exceeded") else f"urn:hms-gateway:problem:{code}"
    )
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    assert path is None or document["instance"] == path
    assert len(headers["x-request-id"]) == 24
    assert document["request_id"] == headers["x-request-id"]
    assert document["success"] is False
    assert document["error"] == document["detail"]
    if status == 401:
        assert headers["www-authenticate"].startswith("Bearer")
    else:
        assert "www-authenticate" not in headers
    assert ("retry-after" in headers) == (status in (429, 503) or code == "idempotency_conflict")
    if field is not None:
        assert field in [error["field"] for error in document["errors"]]
        assert field in document["detail"]
    return document
