"""Service keys of tests, made by the API or the command line."""

from __future__ import annotations

import itertools
import secrets
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.e2e.people import Person
from tests.servers import Installation

_NUMBERS = itertools.count()


@dataclass(frozen=True, slots=True)
class Key:
    """A service key; `text` is its secret."""

    installation: Installation
    id: str
    name: str
    text: str = field(repr=False)

    def ask(
        self, method: str, path: str, body: Any = None, *, acting: Person | str | None = None, **headers: str
    ) -> httpx.Response:
        """Send one request, for a user if one is given."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if acting is not None:
            given["X-Act-As"] = acting if isinstance(acting, str) else acting.id
        with self.installation.client(self.text) as client:
            return client.request(method, f"/api{path}", json=body, headers=given)


def new_key(installation: Installation, by: Person, *scopes: str, **rest: Any) -> Key:
    """Make a key through the API."""
    body = {"name": f"key-{next(_NUMBERS)}-{secrets.token_hex(3)}", "scopes": scopes} | rest
    with installation.client(by.token) as client:
        answer = client.post("/api/admin/keys", json=body)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    return Key(installation, made["service_key"]["id"], made["service_key"]["name"], made["key"])
