"""The client address. The attacks are those of MDN's "X-Forwarded-For, security and privacy concerns"."""

from __future__ import annotations

import ipaddress
import logging

import pytest

from gateway.http.client_address import ClientAddresses, site_of

PROXIES = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))


def find(peer: str | None, *forwarded: str) -> str:
    return ClientAddresses(PROXIES).find(peer, [(b"x-forwarded-for", value.encode()) for value in forwarded])


def test_without_a_proxy_the_peer_is_the_client() -> None:
    assert find("203.0.113.7") == "203.0.113.7"


def test_an_untrusted_peer_cannot_name_another_address() -> None:
    assert find("203.0.113.7", "198.51.100.1") == "203.0.113.7"


def test_behind_a_trusted_proxy_the_rightmost_untrusted_address_is_the_client() -> None:
    assert find("10.0.0.1", "198.51.100.1") == "198.51.100.1"
    assert find("10.0.0.1", "198.51.100.1, 10.9.9.9") == "198.51.100.1"


def test_entries_further_left_by_the_client_are_never_read() -> None:
    assert find("10.0.0.1", "1.1.1.1, 2.2.2.2, 198.51.100.1") == "198.51.100.1"
    assert find("10.0.0.1", "10.0.0.5, 198.51.100.1, 10.0.0.2") == "198.51.100.1"


def test_several_header_lines_form_one_list() -> None:
    assert find("10.0.0.1", "1.1.1.1", "198.51.100.1") == "198.51.100.1"


def test_long_list_is_read_like_a_short_one_and_not_remembered() -> None:
    addresses = ClientAddresses(PROXIES)
    written = [(b"x-forwarded-for", b"1.1.1.1, " * 1000 + b"198.51.100.1")]
    assert [addresses.find("10.0.0.1", written) for _ in range(2)] == ["198.51.100.1"] * 2
    assert addresses._known.cache_info().currsize == 0


def test_same_list_of_another_peer_is_read_anew() -> None:
    addresses = ClientAddresses(PROXIES)
    written = [(b"x-forwarded-for", b"198.51.100.1")]
    peers = ("10.0.0.1", "203.0.113.7", "10.0.0.1", "203.0.113.7")
    assert [addresses.find(peer, written) for peer in peers] == ["198.51.100.1", "203.0.113.7"] * 2


@pytest.mark.parametrize("nonsense", ["unknown", "", "_hidden", "198.51.100.999", "<script>"])
def test_an_unreadable_entry_ends_the_search_at_the_last_trusted_proxy(nonsense: str) -> None:
    assert find("10.0.0.1", f"198.51.100.1, {nonsense}") == "10.0.0.1"


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("198.51.100.1:4711", "198.51.100.1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("::ffff:198.51.100.1", "198.51.100.1"),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_addresses_are_read_in_every_form_proxies_write(written: str, means: str) -> None:
    assert find("fd00::1", written) == means


def test_another_header_is_read_instead_if_the_proxies_write_one() -> None:
    addresses = ClientAddresses((ipaddress.ip_network("0.0.0.0/0"),), "Fly-Client-IP")
    field, forwarded = (b"fly-client-ip", b"198.51.100.1"), (b"x-forwarded-for", b"1.1.1.1, 2.2.2.2")
    assert addresses.find("172.16.0.1", [forwarded, field]) == "198.51.100.1"
    assert addresses.find("172.16.0.1", [(b"fly-client-ip", b"1.1.1.1"), field]) == "198.51.100.1", "only the last"
    assert addresses.find("172.16.0.1", [(b"fly-client-ip", b"1.1.1.1, 198.51.100.1")]) == "198.51.100.1"
    assert addresses.find("172.16.0.1", [forwarded]) == "172.16.0.1"
    assert addresses.find("2001:db8::1", [field]) == "2001:db8::1", "from no trusted proxy"


def test_a_local_socket_has_no_address() -> None:
    assert find(None) == ""
    assert find("") == ""


def test_a_forwarded_header_of_an_untrusted_peer_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    addresses = ClientAddresses(())
    with caplog.at_level(logging.WARNING, "gateway"):
        for _ in range(3):
            addresses.find("203.0.113.7", [(b"x-forwarded-for", b"198.51.100.1")])
    assert [record.message for record in caplog.records] == [
        "X-Forwarded-For came from an untrusted peer; is GATEWAY_TRUSTED_PROXIES missing?"
    ]


def test_ipv6_is_limited_by_its_64_and_ipv4_by_address() -> None:
    assert site_of("2001:db8:1:2:3:4:5:6") == site_of("2001:db8:1:2::") == "2001:db8:1:2::/64"
    assert site_of("2001:db8:1:3::1") != site_of("2001:db8:1:2::1")
    assert site_of("198.51.100.1") == "198.51.100.1"
    assert site_of("::ffff:198.51.100.1") == "198.51.100.1"
    assert site_of("") == ""
