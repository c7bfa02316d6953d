"""No key comes out of a token, and nobody is asked for one. RFC 8725 section 3.10; OWASP ASVS 5, 9.1.3; CWE-918."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.attack.forge import Forge, assert_refused, encode
from tests.servers import HOST, Installation


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A server that would notice if anybody came for a key."""
    with socket.socket() as server:
        server.bind((HOST, 0))
        server.listen()
        server.settimeout(0.3)
        yield server


# RFC 8725 section 3.10 and RFC 7515 section 10: no key out of the token (CVE-2018-0114, node-jose), and no request
# forged by one (SSRF).
@pytest.mark.parametrize("name", ["jku", "x5u", "jwk", "x5c", "x5t"])
def test_header_brings_no_key_and_sends_nobody_for_one(
    target: Installation, forge: Forge, listener: socket.socket, name: str
) -> None:
    url = f"http://{HOST}:{listener.getsockname()[1]}/keys"
    mine = {"kty": "oct", "k": encode(b"attacker" * 4), "alg": "HS256", "kid": "mine"}
    value = {"jwk": mine, "x5c": [url], "x5t": "x"}.get(name, url)
    # With the right key, so that the header alone is what is wrong; then with the attacker's own.
    assert_refused(target, forge.sign(forge.header | {name: value}))
    assert_refused(target, forge.sign(forge.header | {name: value, "kid": "mine"}, key=b"attacker" * 4))
    with pytest.raises(TimeoutError):
        listener.accept()
