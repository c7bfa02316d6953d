"""When the keys of a provider are fetched, by how many requests, and what happens when that fails."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from auth.errors import KeysUnavailable
from auth.provider_keys import (
    AWAITED_S,
    COOL_DOWN_S,
    DISCOVERY,
    FRESH_S,
    RETRY_S,
    STALE_S,
    FetchFailed,
    RemoteKeys,
    is_safe_url,
)
from tests.identity_provider import Key

ISSUER, JWKS = "https://login.example.com", "https://login.example.com/keys"
OLD, NEW = Key.new("ES256", "old"), Key.new("ES256", "new")


class Site:
    """The documents of a provider, and the requests for them. `hangs` holds the answers back."""

    def __init__(self, **documents: Any) -> None:
        self.documents = {ISSUER + DISCOVERY: {"issuer": ISSUER, "jwks_uri": JWKS}} | documents
        self.asked: list[str] = []
        self.answering = asyncio.Event()
        self.answering.set()
        self.now = 1000.0

    def publish(self, *keys: Key) -> None:
        self.documents[JWKS] = {"keys": [key.jwk for key in keys]}

    def break_down(self, what: Any = None) -> None:
        self.documents[JWKS] = what or FetchFailed("no answer within 3 s")

    async def fetch(self, url: str) -> bytes:
        self.asked.append(url)
        await self.answering.wait()
        document = self.documents.get(url, FetchFailed("it was answered with 404"))
        if isinstance(document, Exception):
            raise document
        return document if isinstance(document, bytes) else json.dumps(document).encode()

    def keys(self, *, jwks: str = JWKS) -> RemoteKeys:
        return RemoteKeys(self.fetch, ISSUER, jwks, clock=lambda: self.now)


@pytest.fixture
def site() -> Site:
    site = Site()
    site.publish(OLD)
    return site


async def settle() -> None:
    """Let what runs in the background come to its end."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_keys_are_fetched_once_and_kept(site: Site) -> None:
    keys = site.keys()
    for _ in range(3):
        assert await keys.find("old")
    site.now += FRESH_S
    assert await keys.find("old")
    await settle()
    assert site.asked == [JWKS]


async def test_older_keys_serve_while_new_ones_are_fetched_in_the_background(site: Site) -> None:
    keys = site.keys()
    await keys.find("old")
    site.publish(NEW)
    site.answering.clear()
    site.now += FRESH_S + 1
    assert await keys.find("old"), "nobody waits for the provider"
    site.answering.set()
    await settle()
    assert len(site.asked) == 2
    assert await keys.find("old") is None
    assert await keys.find("new")


async def test_after_a_longer_time_a_withdrawn_key_is_not_used_even_once(site: Site) -> None:
    keys = site.keys()
    await keys.find("old")
    site.publish(NEW)
    site.now += AWAITED_S + 1
    assert await keys.find("old") is None
    assert len(site.asked) == 2


async def test_a_thousand_tokens_with_a_new_key_make_one_fetch(site: Site) -> None:
    """The burst after a rotation: https://login.example.com is asked once, and everybody gets the new key."""
    keys = site.keys()
    await keys.find("old")
    site.publish(OLD, NEW)
    site.answering.clear()
    waiting = [asyncio.ensure_future(keys.find("new")) for _ in range(1000)]
    await settle()
    assert len(site.asked) == 2
    assert await keys.find("old"), "tokens with a known key do not wait"
    site.answering.set()
    found = await asyncio.gather(*waiting)
    assert all(found)
    assert len(site.asked) == 2


async def test_whoever_stops_waiting_does_not_stop_the_fetch_of_the_others(site: Site) -> None:
    keys = site.keys()
    site.answering.clear()
    first, second = asyncio.ensure_future(keys.find("old")), asyncio.ensure_future(keys.find("old"))
    await settle()
    first.cancel()
    site.answering.set()
    assert await second
    assert site.asked == [JWKS]


async def test_unknown_keys_make_at_most_one_fetch_in_thirty_seconds(site: Site) -> None:
    keys = site.keys()
    await keys.find("old")
    for number in range(50):
        assert await keys.find(f"garbage-{number}") is None
    assert len(site.asked) == 2
    site.now += COOL_DOWN_S
    assert await keys.find("garbage") is None
    assert len(site.asked) == 3


async def test_the_first_token_of_all_makes_one_fetch_even_if_its_key_is_unknown(site: Site) -> None:
    assert await site.keys().find("garbage") is None
    assert site.asked == [JWKS]


async def test_a_provider_that_cannot_be_reached_is_asked_again_after_five_seconds(site: Site) -> None:
    keys = site.keys()
    site.break_down()
    for _ in range(10):
        with pytest.raises(KeysUnavailable):
            await keys.find("old")
    assert len(site.asked) == 1
    site.publish(OLD)
    site.now += RETRY_S
    assert await keys.find("old")


@pytest.mark.parametrize(
    "broken", [FetchFailed("no answer within 3 s"), b"<html>", {"keys": []}, {"keys": [OLD.jwk, OLD.jwk]}, {"keys": 5}]
)
async def test_old_keys_serve_for_a_day_while_the_provider_is_down_or_answers_garbage(site: Site, broken: Any) -> None:
    keys = site.keys()
    await keys.find("old")
    site.break_down(broken)
    site.now += AWAITED_S + 1
    assert await keys.find("old")
    site.answering.clear()
    site.now += RETRY_S
    assert await keys.find("old"), "nobody waits again for a provider that has just failed"
    site.answering.set()
    await settle()
    with pytest.raises(KeysUnavailable):  # it may be a new key
        await keys.find("new")
    site.now += STALE_S - AWAITED_S - RETRY_S - 2
    assert await keys.find("old")
    site.now += 2
    with pytest.raises(KeysUnavailable):
        await keys.find("old")


async def test_a_failure_and_its_end_are_logged_once(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "auth")
    keys = site.keys()
    await keys.find("old")
    site.break_down()
    for _ in range(3):
        site.now += FRESH_S + 1
        await keys.find("old")
        await settle()
    site.publish(OLD)
    site.now += FRESH_S + 1
    await keys.find("old")
    await settle()
    assert [record.getMessage() for record in caplog.records] == [
        "the keys of https://login.example.com cannot be used: no answer within 3 s",
        "the keys of https://login.example.com can be used again",
    ]


async def test_an_unexpected_error_is_logged_and_the_next_token_tries_again(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    keys = site.keys()
    site.break_down(RuntimeError("a bug"))
    with pytest.raises(KeysUnavailable):
        await keys.find("old")
    assert "RuntimeError: a bug" in caplog.text
    site.publish(OLD)
    site.now += RETRY_S
    assert await keys.find("old")


async def test_the_discovery_document_names_the_place_of_the_keys(site: Site) -> None:
    assert await site.keys(jwks="").find("old")
    assert site.asked == [ISSUER + DISCOVERY, JWKS]


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (b"<html>", "the discovery document is not JSON"),
        ({"issuer": ISSUER + "/", "jwks_uri": JWKS}, "of another issuer"),
        ({"issuer": "https://evil.test", "jwks_uri": JWKS}, "of another issuer"),
        ({"jwks_uri": JWKS}, "of another issuer"),
        ({"issuer": ISSUER}, "names no https:// address of keys"),
        ({"issuer": ISSUER, "jwks_uri": [JWKS]}, "names no https:// address of keys"),
        ({"issuer": ISSUER, "jwks_uri": "http://login.example.com/keys"}, "names no https:// address of keys"),
        ({"issuer": ISSUER, "jwks_uri": "http://127.0.0.1/keys"}, "names no https:// address of keys"),
        ({"issuer": ISSUER, "jwks_uri": "file:///etc/passwd"}, "names no https:// address of keys"),
    ],
)
async def test_a_discovery_document_of_somebody_else_is_not_followed(
    site: Site, caplog: pytest.LogCaptureFixture, document: Any, why: str
) -> None:
    """OpenID Connect Discovery 1.0 section 4.3; a document must not lead into the own network."""
    site.documents[ISSUER + DISCOVERY] = document
    with pytest.raises(KeysUnavailable):
        await site.keys(jwks="").find("old")
    assert why in caplog.text
    assert site.asked == [ISSUER + DISCOVERY]


async def test_closing_ends_a_fetch_that_hangs(site: Site) -> None:
    keys = site.keys()
    site.answering.clear()
    keys.refresh_soon()
    await settle()
    await keys.close()
    assert site.asked == [JWKS]


@pytest.mark.parametrize(
    ("url", "like", "is_safe"),
    [
        ("https://a.test/x", "https://a.test", True),
        ("https://a.test:8443/x?y=1", "https://b.test", True),
        ("http://127.0.0.1:5000/x", "http://127.0.0.1:5000", True),
        ("http://[::1]:5000/x", "http://localhost", True),
        ("http://localhost/x", "http://127.0.0.1", True),
        ("http://127.0.0.1/x", "https://a.test", False),
        ("http://a.test/x", "http://127.0.0.1", False),
        ("http://127.evil.test/x", "http://127.0.0.1", False),
        ("http://10.0.0.1/x", "http://127.0.0.1", False),
        ("https://user:word@a.test/x", "https://a.test", False),
        ("https://a.test/x#y", "https://a.test", False),
        ("https://a.test\\@evil.test/", "https://a.test", False),
        ("https://a.test/\r\nHost: evil", "https://a.test", False),
        ("https:///x", "https://a.test", False),
        ("https://a.test:99999/", "https://a.test", False),
        ("https://[::1/", "https://a.test", False),
        ("ftp://a.test/x", "https://a.test", False),
        ("//a.test/x", "https://a.test", False),
        ("https://a.test/" + "x" * 2000, "https://a.test", False),
    ],
)
def test_keys_come_by_https_or_from_this_machine(url: str, like: str, is_safe: bool) -> None:
    assert is_safe_url(url, like=like) is is_safe
