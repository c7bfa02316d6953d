"""Redis over TLS: which servers are trusted, and that no other gets a byte, above all not the password."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.redis.durable import DurableWrites
from gateway.redis.store import Store, StoreError, connect
from gateway.settings import redis_url
from tests.servers import HOST, LockedValkey, wait_until
from tests.tls import Authority, Certificate, TlsProxy

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LockedValkey]:
    with LockedValkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def good(ca: Authority) -> Certificate:
    return ca.sign("good")


@pytest.fixture(scope="module")
def own(ca: Authority) -> Certificate:
    """A certificate as platforms make it themselves: signed by itself, and for another name."""
    return ca.sign("own", host="redis.internal", by_itself=True)


@pytest.fixture
def proxy(locked: LockedValkey, good: Certificate) -> Iterator[TlsProxy]:
    with TlsProxy(locked.port, good) as proxy:
        yield proxy


def url_of(proxy: TlsProxy, locked: LockedValkey, host: str = HOST, **settings: object) -> str:
    given = {name: str(value) for name, value in settings.items()}
    return redis_url({"REDIS_URL": proxy.url(host=host, password=locked.password), **given})


async def assert_trusted(url: str, proxy: TlsProxy, locked: LockedValkey) -> None:
    """Check that store and durable writes work, each after its own login."""
    redis = connect(url)
    store = Store(redis, deadline_s=5)
    assert await store.execute("PING") == b"PONG"
    assert await DurableWrites(redis).execute("SET", "tls", "on") == b"OK"
    await store.close()
    assert proxy.heard.count(locked.password.encode()) == 2
    await asyncio.to_thread(wait_until, lambda: proxy.connections == 0, "both sides have ended TLS")


async def refusal(url: str, proxy: TlsProxy, locked: LockedValkey) -> str:
    """Return why a server is refused, after checking that it was sent nothing and that no error has a secret."""
    redis = connect(url)
    store = Store(redis, deadline_s=5)
    with pytest.raises(StoreError) as refused:
        await store.execute("PING")
    with pytest.raises(StoreError) as unwritten:
        await DurableWrites(redis).execute("SET", "tls", "off")
    await store.close()
    assert proxy.heard == b""
    text = str(refused.value)
    assert str(unwritten.value) == text.replace("connecting to Redis failed", "a durable write failed")
    for hidden in (locked.password, str(proxy.port), HOST, "rediss"):
        assert hidden not in text
    return text


async def test_a_certificate_of_a_ca_that_the_system_knows_is_trusted(
    proxy: TlsProxy, locked: LockedValkey, ca: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(ca.path))
    await assert_trusted(url_of(proxy, locked), proxy, locked)


async def test_a_platforms_own_ca_is_trusted_by_its_file_or_its_text(
    proxy: TlsProxy, locked: LockedValkey, ca: Authority
) -> None:
    await assert_trusted(url_of(proxy, locked, REDIS_CA_FILE=ca.path), proxy, locked)
    proxy.heard = b""
    text = ca.path.read_text().replace("\n", "\\n")
    await assert_trusted(url_of(proxy, locked, REDIS_CA_FILE=text), proxy, locked)


async def test_a_pinned_certificate_is_trusted_whoever_signed_it(
    proxy: TlsProxy, locked: LockedValkey, own: Certificate, good: Certificate
) -> None:
    proxy.show(own)
    pinned = own.fingerprint.replace(":", "").lower()
    await assert_trusted(url_of(proxy, locked, REDIS_FINGERPRINT=pinned), proxy, locked)
    proxy.heard = b""
    both = f"{good.fingerprint}, {own.fingerprint}"  # while the platform replaces its certificate
    await assert_trusted(url_of(proxy, locked, REDIS_FINGERPRINT=both), proxy, locked)


async def test_the_command_of_the_page_shows_the_fingerprint_to_pin(proxy: TlsProxy, good: Certificate) -> None:
    page = (ROOT / "docs" / "deploy.md").read_text()
    command = page[page.index("openssl s_client") :].partition("\n")[0].replace("HOST:PORT", f"{HOST}:{proxy.port}")
    shown = await asyncio.to_thread(subprocess.run, ["bash", "-c", command], capture_output=True, text=True, timeout=10)
    assert shown.stdout.strip().partition("=")[2] == good.fingerprint


async def test_other_certificates_are_refused_with_the_reason_and_their_fingerprint(
    proxy: TlsProxy, locked: LockedValkey, ca: Authority, own: Certificate, good: Certificate
) -> None:
    past, elsewhere = ca.sign("past", ends=-timedelta(days=1)), ca.sign("elsewhere", host="redis.example")
    by_ca = {"REDIS_CA_FILE": ca.path}
    for shown, settings, reason in (
        (own, {}, "is signed by no CA that this system knows"),
        (good, {}, "is signed by no CA that this system knows"),
        (own, by_ca, "is signed by no CA in REDIS_CA_FILE"),
        (past, by_ca, "has expired"),
        (elsewhere, by_ca, "is for another address"),
        (own, {"REDIS_FINGERPRINT": good.fingerprint}, "is not in REDIS_FINGERPRINT"),
        (good, by_ca | {"REDIS_FINGERPRINT": own.fingerprint}, "is not in REDIS_FINGERPRINT"),
        (own, by_ca | {"REDIS_FINGERPRINT": own.fingerprint}, "is signed by no CA in REDIS_CA_FILE"),
    ):
        proxy.show(shown)
        text = await refusal(url_of(proxy, locked, **settings), proxy, locked)
        said = f"the certificate of the server {reason}; its fingerprint is {shown.fingerprint}"
        assert text == f"connecting to Redis failed: {said}"
    proxy.show(good)
    text = await refusal(url_of(proxy, locked, host="localhost", **by_ca), proxy, locked)
    assert "is for another host name;" in text


async def outcome(store: Store) -> StoreError | None:
    try:
        await store.execute("PING")
    except StoreError as error:
        return error
    return None


async def test_every_new_connection_is_checked(
    proxy: TlsProxy, locked: LockedValkey, good: Certificate, own: Certificate, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(connect(url_of(proxy, locked, REDIS_FINGERPRINT=good.fingerprint)), deadline_s=5)
    assert await store.execute("PING") == b"PONG"
    proxy.show(own)
    assert await store.execute("PING") == b"PONG", "an open connection goes on"
    proxy.heard = b""
    proxy.break_connections()
    broken, refused = [await outcome(store) for _ in range(2)]
    assert broken is not None
    assert f"not in REDIS_FINGERPRINT; its fingerprint is {own.fingerprint}" in str(refused)
    assert proxy.heard == b""
    await store.close()
    assert locked.password not in caplog.text
