"""Guessing passwords. OWASP ASVS 5, 6.3.1; OWASP Credential Stuffing Prevention Cheat Sheet; CWE-307, CWE-348.

The installation is behind a proxy on 127.0.0.1; 127.0.0.2 is an untrusted peer.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import httpx
import pytest

from tests.e2e.checks import assert_problem
from tests.servers import HOST, NO_TLS, Installation, wait_until

WRONG = "not the password at all"
PER_ACCOUNT, PER_ADDRESS = 5, 8
_names = count()


@pytest.fixture(autouse=True)
def _afresh(strict: Installation) -> None:
    """Forget every throttle and every known address."""
    with strict.valkey.client() as client:
        for pattern in ("rl:1:*", "kn:1:*"):
            for key in client.scan_iter(pattern):
                client.delete(key)


def attempt(strict: Installation, name: str, password: str = WRONG, *, via: str = "", **headers: str) -> httpx.Response:
    """Try a login as the proxy would forward it, with `via` as X-Forwarded-For."""
    with strict.client() as client:
        given = ({"X-Forwarded-For": via} if via else {}) | headers
        return client.post("/api/auth/login", json={"username": name, "password": password}, headers=given)


def spray(strict: Installation, addresses: Iterable[str]) -> Counter[int]:
    """Try an unknown name from each address, several at once: each failure takes a quarter of a second."""
    with ThreadPoolExecutor(8) as pool:
        return Counter(pool.map(lambda via: attempt(strict, unknown_name(), via=via).status_code, addresses))


def unknown_name() -> str:
    return f"nobody-{next(_names)}"


@pytest.mark.parametrize("name", ["hanna", "nobody-of-this-name"])
def test_account_is_throttled_across_addresses(strict: Installation, name: str) -> None:
    """A botnet: each attempt comes from another network. An unknown name is throttled in the same way."""
    for number in range(PER_ACCOUNT):
        assert_problem(attempt(strict, name, via=f"198.51.{number}.7"), 401, "invalid_credentials")
    seen = set()
    for password in (WRONG, strict.passwords["hanna"]):
        document = assert_problem(attempt(strict, name, password, via="203.0.113.9"), 429, "too_many_attempts")
        seen.add(re.sub(r"in [0-9]+ s", "", json.dumps(document | {"request_id": ""})))
    assert len(seen) == 1  # the right password is not verified either


def test_other_spelling_of_a_name_is_the_same_account(strict: Installation) -> None:
    for number, name in enumerate(("hanna", "HANNA", "Hanna", "\uff48anna", "hann\uff21")):
        assert attempt(strict, name, via=f"198.51.{number}.7").status_code == 401
    assert attempt(strict, "hanna", via="203.0.113.9").status_code == 429


def test_failures_of_others_do_not_lock_the_owner_out(strict: Installation) -> None:
    """OWASP ASVS 5, 6.3.1: throttling must not be a way to lock people out (CWE-645)."""
    home, password = "192.0.2.44", strict.passwords["hanna"]
    assert attempt(strict, "hanna", password, via=home).status_code == 200
    for number in range(PER_ACCOUNT + 3):
        attempt(strict, "hanna", via=f"198.51.{number}.7")
    assert attempt(strict, "hanna", password, via="203.0.113.9").status_code == 429
    assert attempt(strict, "hanna", password, via=home).status_code == 200


def test_spraying_many_names_is_throttled_by_address(strict: Installation) -> None:
    """One common password for many names: no account gets more than one attempt."""
    codes = spray(strict, ["198.51.100.1"] * (PER_ADDRESS + 4))
    assert codes == {401: PER_ADDRESS, 429: 4}
    assert attempt(strict, unknown_name(), via="198.51.100.2").status_code == 401


def test_success_does_not_reset_the_count(strict: Installation) -> None:
    """A known trick: a login to the attacker's own account between guesses resets a naive counter."""
    codes: Counter[int] = Counter()
    for _ in range(4):
        codes += spray(strict, ["198.51.100.1"] * 3)
        attempt(strict, "ada", strict.passwords["ada"], via="198.51.100.1")
    assert codes == {401: PER_ADDRESS, 429: 12 - PER_ADDRESS}


def test_addresses_of_one_ipv6_site_count_as_one(strict: Installation) -> None:
    """RFC 6177: a subscriber has at least a /64, which is 2^64 addresses (RFC 8981 changes them automatically)."""
    codes = spray(strict, [f"2001:db8:1:2:{n:x}::{n:x}" for n in range(PER_ADDRESS + 4)])
    assert codes == {401: PER_ADDRESS, 429: 4}
    assert attempt(strict, unknown_name(), via="[2001:db8:1:2::1]:443").status_code == 429
    assert attempt(strict, unknown_name(), via="2001:0DB8:0001:0002::1%eth0").status_code == 429
    assert attempt(strict, unknown_name(), via="2001:db8:1:3::1").status_code == 401


def test_ipv4_mapped_ipv6_is_the_same_address(strict: Installation) -> None:
    """RFC 4291 section 2.5.5.2."""
    forms = ("198.51.100.9", "::ffff:198.51.100.9", "::ffff:c633:6409", "198.51.100.9:5123", "[::ffff:198.51.100.9]:1")
    codes = spray(strict, [forms[n % len(forms)] for n in range(PER_ADDRESS + 5)])
    assert codes == {401: PER_ADDRESS, 429: 5}


@pytest.mark.parametrize(
    "chain",
    [
        "10.9.9.{n}, 198.51.100.1",
        "192.0.2.{n}, 198.51.100.1, 10.0.0.7",
        "nonsense {n}, 198.51.100.1",
        "192.0.2.{n},198.51.100.1 ,  10.0.0.7,10.0.0.8",
        "127.0.0.1, 192.0.2.{n}, 198.51.100.1",
        ", , 192.0.2.{n},, 198.51.100.1",
    ],
)
def test_forwarded_addresses_written_by_the_client_are_ignored(strict: Installation, chain: str) -> None:
    """CWE-348: the chain is read from the right, past the trusted proxies and no further."""
    codes = spray(strict, [chain.format(n=n) for n in range(PER_ADDRESS + 2)])
    assert codes == {401: PER_ADDRESS, 429: 2}
    assert attempt(strict, unknown_name(), via="198.51.100.1").status_code == 429


def test_chain_over_several_headers_is_one_chain(strict: Installation) -> None:
    """RFC 9110 section 5.3: a proxy may append a line of its own."""
    for number in range(PER_ADDRESS + 1):
        body = json.dumps({"username": unknown_name(), "password": WRONG}).encode()
        lines = [("X-Forwarded-For", f"192.0.2.{number}"), ("X-Forwarded-For", "198.51.100.1")]
        with strict.client() as client:
            lines.append(("Content-Type", "application/json"))
            answer = client.post("/api/auth/login", content=body, headers=lines)
    assert answer.status_code == 429


@pytest.mark.parametrize(
    "header", ["Forwarded", "X-Real-IP", "X-Client-IP", "CF-Connecting-IP", "True-Client-IP", "X-Originating-IP", "Via"]
)
def test_other_address_headers_are_ignored(strict: Installation, header: str) -> None:
    with strict.valkey.client() as client:
        attempt(strict, unknown_name(), via="198.51.100.1")
        before = set(client.scan_iter("rl:1:{failures:*"))
        value = "for=192.0.2.55" if header == "Forwarded" else "192.0.2.55"
        attempt(strict, unknown_name(), via="198.51.100.1", **{header: value})
        assert set(client.scan_iter("rl:1:{failures:*")) == before


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8 without configuration")
def test_untrusted_peer_cannot_choose_its_address(strict: Installation) -> None:
    codes: Counter[int] = Counter()
    transport = httpx.HTTPTransport(local_address="127.0.0.2", verify=NO_TLS)
    with httpx.Client(base_url=strict.url, transport=transport, trust_env=False, timeout=15) as client:
        for number in range(PER_ADDRESS + 2):
            given = {"X-Forwarded-For": f"192.0.2.{number}, 10.0.0.{number}"}
            body = {"username": unknown_name(), "password": WRONG}
            codes[client.post("/api/auth/login", json=body, headers=given).status_code] += 1
    assert codes == {401: PER_ADDRESS, 429: 2}
    said = [line for line in strict.gateway.output().splitlines() if "GATEWAY_TRUSTED_PROXIES" in line]
    assert len(said) == 1  # once, not for each of them


def test_disconnecting_before_the_answer_costs_as_much(strict: Installation) -> None:
    """A right password is answered much faster than a wrong one: a client that disconnects in between must not get the
    attempt back."""
    body = json.dumps({"username": "hanna", "password": WRONG}).encode()
    head = f"POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    head += "X-Forwarded-For: 198.51.100.1\r\nContent-Type: application/json\r\n\r\n"
    failed = strict.gateway.output().count("login.failed")
    for _ in range(PER_ACCOUNT):
        with socket.create_connection((HOST, strict.port)) as link:
            link.sendall(head.encode() + body)
            time.sleep(0.1)
    wait_until(lambda: strict.gateway.output().count("login.failed") >= failed + PER_ACCOUNT, "all have been judged")
    answer = attempt(strict, "hanna", strict.passwords["hanna"], via="203.0.113.9")
    assert_problem(answer, 429, "too_many_attempts")


def test_password_change_does_not_bypass_the_throttle(strict: Installation) -> None:
    """OWASP ASVS 5, 6.2.3: a stolen access token does not allow more guesses of the current password."""
    token = attempt(strict, "hanna", strict.passwords["hanna"], via="192.0.2.44").json()["access_token"]
    body = {"current_password": WRONG, "new_password": "plenty of good words, none common"}
    codes = []
    with strict.client(token) as client:
        for number in range(PER_ACCOUNT + 2):
            given = {"X-Forwarded-For": f"198.51.{number}.7"}
            codes.append(client.post("/api/auth/password", json=body, headers=given).status_code)
    assert codes == [401] * PER_ACCOUNT + [429] * 2
    assert attempt(strict, "hanna", via="203.0.113.9").status_code == 429  # both use one bucket


def test_repeated_refusals_are_audited_once(strict: Installation) -> None:
    """OWASP Logging Cheat Sheet: an attacker must not flush the audit trail with their own entries (CWE-779)."""
    name = unknown_name()
    for _ in range(PER_ACCOUNT + 15):
        attempt(strict, name, via="198.51.100.1")
    with strict.valkey.client() as client:
        entries = [json.loads(words[b"entry"]) for _, words in client.xrevrange("audit:1", count=40)]
        keys = b" ".join(client.scan_iter("*"))
    source = next(entry["source"] for entry in entries if entry["action"] == "login.failed")
    throttled = [one for one in entries if one["action"] == "throttled" and one["source"] == source]
    buckets = {one["bucket"] for one in throttled if one["limit"] == "account"}
    assert len(throttled) < 15
    assert buckets
    assert name not in json.dumps(entries)
    assert name.encode() not in keys
    assert b"198.51.100.1" not in keys
