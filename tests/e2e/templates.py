"""Templates and rooms created directly at the local 100ms, as an operator does in its dashboard."""

from __future__ import annotations

import uuid
from typing import Any

import httpx

from gateway.hms.tokens import HmsTokens
from tests.servers import NO_TLS, Installation

NO_POWERS = dict.fromkeys(("browserRecording", "rtmpStreaming", "hlsStreaming"), False)


def role(*powers: str, publishes: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a role with exactly these powers."""
    permissions = NO_POWERS | dict.fromkeys(powers, True)
    return {"permissions": permissions, "publishParams": {"allowed": list(publishes)}}


def create_template(at: Installation, **roles: dict[str, Any]) -> str:
    """Create a template with these roles; return its id."""
    return str(_post(at, "/templates", {"name": f"t-{uuid.uuid4()}", "roles": roles})["id"])


def create_room(at: Installation, name: str, template_id: str | None = None, *, description: str = "") -> str:
    """Create a room that the gateway does not know; return its id."""
    body = {"name": name, "template_id": template_id or at.env["HMS_TEMPLATE_ID"], "description": description}
    return str(_post(at, "/rooms", body)["id"])


def _post(at: Installation, path: str, body: dict[str, Any]) -> dict[str, Any]:
    token = HmsTokens(at.env["HMS_APP_ACCESS_KEY"], at.env["HMS_APP_SECRET"]).management_token()
    url, headers = f"{at.emulator_url}/v2{path}", {"Authorization": f"Bearer {token}"}
    answer = httpx.post(url, json=body, headers=headers, timeout=5, verify=NO_TLS, trust_env=False)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())
