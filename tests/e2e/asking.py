"""Requests of many people from many addresses, each on its own connection; and a dump of all that Redis contains."""

from __future__ import annotations

import itertools
import secrets
import time
from dataclasses import dataclass
from typing import Any

import httpx
import redis

from tests.servers import Installation

_numbers = itertools.count(1)
_LOGIN_LASTS_S = 300  # half of what an access token lives


def ask(
    installation: Installation, method: str, path: str, *, token: str = "", address: str = "", **request: Any
) -> httpx.Response:
    """Send one request; `address` is the client's, as a trusted proxy on this machine would report it."""
    headers = {"X-Forwarded-For": address} if address else {}
    with installation.client(token or None) as client:
        return client.request(method, path, headers=headers, **request)


def new_address() -> str:
    """Return a client address that is unique in this run."""
    number = next(_numbers)
    return f"198.18.{number // 250}.{number % 250 + 1}"


@dataclass
class Person:
    """A person with an account, at their own address."""

    installation: Installation
    id: str
    name: str
    password: str
    address: str

    def log_in(self, password: str = "") -> dict[str, Any]:
        answer = self.try_to_log_in(password or self.password)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def try_to_log_in(self, password: str) -> httpx.Response:
        return self.ask("POST", "/api/auth/login", json={"username": self.name, "password": password})

    def ask(self, method: str, path: str, *, token: str = "", **request: Any) -> httpx.Response:
        return ask(self.installation, method, path, token=token, address=self.address, **request)

    def me(self, login: dict[str, Any]) -> httpx.Response:
        return self.ask("GET", "/api/auth/me", token=login["access_token"])

    def refresh(self, login: dict[str, Any]) -> httpx.Response:
        return self.ask("POST", "/api/auth/refresh", json={"refresh_token": login["refresh_token"]})


class Admin:
    """An administrator of an installation, logged in for the whole run, and again before their token expires."""

    def __init__(self, installation: Installation, name: str = "ada") -> None:
        self.installation = installation
        self._name = name
        self.log_in_again()
        self.id: str = self._login["user"]["id"]

    @property
    def login(self) -> dict[str, Any]:
        if time.monotonic() > self._until:
            self.log_in_again()
        return self._login

    def log_in_again(self) -> None:
        self._login, self._until = self.installation.log_in(self._name), time.monotonic() + _LOGIN_LASTS_S

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        return ask(self.installation, method, path, token=self.login["access_token"], **request)

    def add(self, *roles: str, name: str = "") -> Person:
        """Create an account with a password."""
        name = name or f"person-{secrets.token_hex(5)}"
        password = secrets.token_hex(16)  # which cannot contain a name
        body = {"username": name, "password": password, "roles": roles or ("member",)}
        answer = self.ask("POST", "/api/admin/users", json=body)
        assert answer.status_code == 201, answer.text
        return Person(self.installation, answer.json()["user"]["id"], name, password, new_address())

    def audit(self, **filters: Any) -> list[dict[str, Any]]:
        """Return entries of the trail, the newest first."""
        answer = self.ask("GET", "/api/admin/audit", params={"limit": 500} | filters)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["items"])


def everything_in(client: redis.Redis) -> str:
    """Return every key and value of a Redis as one text."""
    texts = []
    for key in client.scan_iter(count=1000):
        kind = client.type(key)
        match kind:
            case b"string":
                value = client.get(key)
            case b"hash":
                value = client.hgetall(key)
            case b"zset":
                value = client.zrange(key, 0, -1)
            case b"set":
                value = client.smembers(key)
            case b"list":
                value = client.lrange(key, 0, -1)
            case b"stream":
                value = client.xrange(key)
            case b"none":  # it expired after it was listed
                continue
            case other:
                raise AssertionError(f"what is a {other!r}?")
        texts.append(f"{key!r} {value!r}")
    return "\n".join(texts)
