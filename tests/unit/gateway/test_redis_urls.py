"""REDIS_URL with several servers: what is read from it, and what is refused without showing it."""

from __future__ import annotations

import pytest

from gateway.redis_urls import is_several, read_several
from gateway.setting_values import SettingsError
from gateway.settings import redis_url
from tests.unit.gateway.test_settings import refusal

PASSWORD = "s3cr3t-word"


@pytest.mark.parametrize(
    ("url", "nodes", "server"),
    [
        ("redis+cluster://h", ("h:6379",), "redis://h:6379/0"),
        ("redis+cluster://h:7000,g.example:7001/", ("h:7000", "g.example:7001"), "redis://h:7000/0"),
        ("redis+cluster://u:p%40w@h:1,[::1]:2/0", ("h:1", "[::1]:2"), "redis://u:p%40w@h:1/0"),
        ("rediss+cluster://:pw@h", ("h:6379",), "rediss://:pw@h:6379/0"),
    ],
)
def test_a_cluster_has_nodes_and_one_user_for_all_of_them(url: str, nodes: tuple[str, ...], server: str) -> None:
    assert redis_url({"REDIS_URL": url}) == url
    several = read_several(url)
    assert (several.nodes, several.service) == (nodes, "")
    assert several.server(nodes[0]) == server


@pytest.mark.parametrize(
    ("url", "service", "server", "sentinel"),
    [
        ("redis+sentinel://h/main", "main", "redis://d:6379/0", "redis://h:26379/0"),
        ("redis+sentinel://u:pw@h:1,g:2/my%20own/3", "my own", "redis://u:pw@d:6379/3", "redis://h:1/0"),
        ("rediss+sentinel://:pw@h/main/", "main", "rediss://:pw@d:6379/0", "rediss://h:26379/0"),
        (
            "redis+sentinel://u:pw@h/main?sentinel_username=s&sentinel_password=a%26b+c",
            "main",
            "redis://u:pw@d:6379/0",
            "redis://s:a%26b%2Bc@h:26379/0",
        ),
        ("redis+sentinel://h/main?sentinel_password=x", "main", "redis://d:6379/0", "redis://:x@h:26379/0"),
    ],
)
def test_sentinels_have_a_service_and_their_own_user(url: str, service: str, server: str, sentinel: str) -> None:
    assert redis_url({"REDIS_URL": url}) == url
    several = read_several(url)
    assert (several.service, several.server("d:6379"), several.sentinel(several.nodes[0])) == (
        service,
        server,
        sentinel,
    )


def test_every_server_of_a_url_is_trusted_by_the_same_certificates() -> None:
    pin = "ab" * 32
    url = redis_url({"REDIS_URL": "rediss+sentinel://h/main?sentinel_password=x", "REDIS_FINGERPRINT": pin})
    several = read_several(url)
    assert several.server("d:1") == f"rediss://d:1/0?fingerprint={pin}"
    assert several.sentinel("h:2") == f"rediss://:x@h:2/0?fingerprint={pin}"


@pytest.mark.parametrize(
    ("rest", "rule"),
    [
        ("cluster://", "nodes must be host:port"),
        ("cluster://h:0", "ports from 1 to 65535"),
        ("cluster://h:65536", "ports from 1 to 65535"),
        ("cluster://h,,g", "separated by commas"),
        ("cluster://h /0", "nodes must be host:port"),
        ("cluster://h/1", "a cluster has only database 0"),
        ("cluster://h?sentinel_password=x", "nothing for a cluster"),
        ("cluster://h#x", "must look like"),
        ("ring://h", "must look like"),
        ("sentinel://q", "name, after the Sentinels, the service"),
        ("sentinel://q/", "name, after the Sentinels, the service"),
        ("sentinel://h/main/abc", "may name a database"),
        ("sentinel://h/main?db=1", "sentinel_username and sentinel_password"),
        ("sentinel://h/main?sentinel_password=x&sentinel_password=y", "each once"),
        ("sentinel://h/main?sentinel_username=x", "sentinel_username needs a sentinel_password"),
        ("sentinel://h/main?ca=/tmp/x", "by REDIS_CA_FILE or REDIS_FINGERPRINT"),
        ("cluster://user@h", "user:password@ or :password@"),
        ("cluster://user:@h", "user:password@ or :password@"),
    ],
)
@pytest.mark.parametrize("user", ["", f":{PASSWORD}@"])
def test_a_wrong_url_is_refused_with_the_rule_and_without_its_password(rest: str, rule: str, user: str) -> None:
    scheme, _, nodes = rest.partition("://")
    url = f"redis+{scheme}://{nodes if '@' in nodes else user + nodes}"
    text = refusal(REDIS_URL=url)
    assert text.startswith("REDIS_URL")
    assert rule in text
    assert PASSWORD not in text


@pytest.mark.parametrize("user", [f"u:{PASSWORD}:x", f"u:{PASSWORD}@x"])
def test_a_password_with_a_reserved_character_is_refused_until_it_is_encoded(user: str) -> None:
    text = refusal(REDIS_URL=f"redis+cluster://{user}@h")
    assert "%3A" in text
    assert PASSWORD not in text


def test_the_url_of_one_server_is_none_of_several() -> None:
    assert not is_several("redis://h:6379/0")
    with pytest.raises(SettingsError, match="must look like"):
        read_several("redis://h")
