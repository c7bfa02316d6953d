"""Signatures of outgoing webhooks, against the vector that standardwebhooks.com publishes with its libraries."""

from __future__ import annotations

import base64
import re
import secrets

import pytest

from gateway.signing import PREFIX, read_secrets, sign

# github.com/standard-webhooks/standard-webhooks, libraries/python/tests/test_webhooks.py: test_sign_function
PUBLISHED = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID, AT_S, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def secret_of(key: bytes) -> str:
    return PREFIX + base64.b64encode(key).decode()


def test_published_vector_is_reproduced() -> None:
    assert sign(read_secrets(f"a={PUBLISHED}")["a"], ID, AT_S, BODY) == SIGNATURE


def test_a_message_is_signed_with_every_secret_of_its_endpoint_in_their_order() -> None:
    other = secrets.token_bytes(32)
    keys = read_secrets(f"a={secret_of(other)}, b={secret_of(secrets.token_bytes(64))},a={PUBLISHED},")
    assert list(keys) == ["a", "b"]
    first, second = sign(keys["a"], ID, AT_S, BODY).split(" ")
    assert (first, second) == (sign([other], ID, AT_S, BODY), SIGNATURE)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (PUBLISHED, "must be a comma-separated list such as billing=whsec_..., by the names of endpoints"),
        (f"A b={PUBLISHED}", "must be a comma-separated list"),
        ("a=" + PUBLISHED.removeprefix(PREFIX), "the secret of a must be whsec_ and 24 to 64 random bytes in base64"),
        ("a=whsec_", "the secret of a must be whsec_"),
        ("a=whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS!", "the secret of a must be whsec_"),
        ("a=" + secret_of(bytes(range(23))), "the secret of a must be whsec_"),
        ("a=" + secret_of(bytes(range(65))), "the secret of a must be whsec_"),
        ("a=" + secret_of(b"abcd" * 8), "the secret of a is not random"),
        (f"a={PUBLISHED},a={PUBLISHED}", "lists the secret of a twice; each endpoint needs its own"),
        (f"a={PUBLISHED},b={PUBLISHED}", "lists the secret of b twice; each endpoint needs its own"),
    ],
)
def test_a_refused_list_is_named_by_its_rule_and_not_shown(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)) as refused:
        read_secrets(text)
    secret = text.rpartition("=")[2].removeprefix(PREFIX)
    assert not secret or secret not in str(refused.value)
