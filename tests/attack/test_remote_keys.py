"""Keys are neither taken from a token nor fetched for it. RFC 8725 section 3.10; OWASP ASVS 5, 9.1.3; CWE-918."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.attack.forge import Forge, assert_refused, encode
from tests.servers import HOST, Installation


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A server that records any request for a key."""
    with socket.socket() as server:
        server.bind((HOST, 0))
        server.listen()
        server.settimeout(0.3)
        yield server


# RFC 8725 section 3.10 and RFC 7515 section 10: no key from the token (CVE-2018-0114, node-jose), and no request
# on its behalf (SSRF).
@pytest.mark.parametrize("name", ["jku", "x5u", "jwk", "x5c", "x5t"])
def test_key_in_a_header_is_neither_used_nor_fetched(
    target: Installation, forge: Forge, listener: socket.socket, name: str
) -> None:
    url = f"http://{HOST}:{listener.getsockname()[1]}/keys"
    mine = {"kty": "oct", "k": encode(b"attacker" * 4), "alg": "HS256", "kid": "mine"}
    value = {"jwk": mine, "x5c": [url], "x5t": "x"}.get(name, url)
    # With the right key, so that only the header is wrong; then with the attacker's own key.
    assert_refused(target, forge.sign(forge.header | {name: value}))
    assert_refused(target, forge.sign(forge.header | {name: value, "kid": "mine"}, key=b"attacker" * 4))
    with pytest.raises(TimeoutError):
        listener.accept()
