"""A Redis with TLS and a certificate that no public CA has signed: gateway, doctor and init."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from dotenv import dotenv_values

from tests.e2e.commands import assert_done, assert_failed
from tests.e2e.test_cli_init import at_terminal
from tests.servers import HOST, Installation, LockedValkey
from tests.tls import Authority, Certificate, TlsProxy


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Authority(tmp_path_factory.mktemp("certificates")).sign("own", host="redis.internal", by_itself=True)


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory, own: Certificate) -> Iterator[tuple[Installation, TlsProxy]]:
    folder = tmp_path_factory.mktemp("tls")
    at = Installation(folder, valkey=LockedValkey(folder))
    try:
        at.valkey.start()
        at.start_emulator()
        with TlsProxy(at.valkey.port, own) as proxy:
            at.env["REDIS_URL"] = proxy.url(password=at.valkey.password)  # type: ignore[attr-defined]
            yield at, proxy
    finally:
        at.stop()


def test_a_gateway_works_with_a_pinned_certificate_only(at: tuple[Installation, TlsProxy], own: Certificate) -> None:
    one, proxy = at
    password = one.valkey.password  # type: ignore[attr-defined]
    refused = one.command("doctor")
    unknown = "the certificate of the server is signed by no CA that this system knows"
    tried = f"connecting to Redis at {HOST}:{proxy.port} failed"
    assert f"REDIS_URL: {tried}: {unknown}; its fingerprint is {own.fingerprint}\n" in refused.stdout
    assert_failed(refused, one.env, "redis")
    assert_failed(one.command("users", "list"), one.env, "is signed by no CA that this system knows")
    one.gateway.start()
    one.gateway.wait_until(lambda: "its fingerprint is" in one.gateway.output(), "the log says why")
    one.gateway.stop()
    log = one.gateway.output()
    assert f"Redis is unavailable: connecting to Redis failed: {unknown}; its fingerprint is {own.fingerprint}" in log
    assert proxy.heard == b""
    assert password not in log + refused.stdout
    assert "rediss" not in log + refused.stdout

    one.env["REDIS_FINGERPRINT"] = own.fingerprint
    one.add_users(hanna="host")
    one.start_gateway()
    with one.client(one.log_in("hanna")["access_token"]) as client:
        assert client.post("/api/rooms", json={}).status_code == 201
    assert_done(one.command("doctor"), one.env)
    assert proxy.heard != b""
    one.gateway.stop()


@pytest.mark.parametrize("answer", ["y", ""])
def test_init_pins_the_certificate_that_was_seen_only_after_a_yes(
    at: tuple[Installation, TlsProxy], own: Certificate, tmp_path: Path, answer: str
) -> None:
    servers, _ = at
    fresh = Installation(tmp_path, valkey=servers.valkey)
    unset = ("GATEWAY_SECRET", "REDIS_FINGERPRINT")
    fresh.env = {name: value for name, value in servers.env.items() if name not in unset}
    shown = at_terminal(fresh, "init", answers=["y", ""] if answer == "y" else ["", "g", ""])
    assert f"its fingerprint is {own.fingerprint}" in shown
    settings = dotenv_values(tmp_path / ".env", interpolate=False)
    pinned = own.fingerprint.replace(":", "").lower() if answer == "y" else None
    assert settings.get("REDIS_FINGERPRINT") == pinned
    assert ("Set REDIS_CA_FILE or REDIS_FINGERPRINT in .env" in shown) == (pinned is None)
