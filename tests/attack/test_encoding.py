"""A token has exactly one encoding. RFC 7515 section 2, RFC 4648 sections 3.2 to 3.5."""

from __future__ import annotations

import base64
import contextlib
from pathlib import Path

import pytest

from auth.errors import InvalidToken
from auth.keys import KeyRing
from auth.signing_keys import SigningKeys, read_file
from auth.tokens import LoginTokens
from tests.attack.forge import Forge, assert_refused, encode
from tests.servers import Installation


@pytest.fixture(scope="module")
def tokens(target: Installation, forge: Forge) -> LoginTokens:
    """The target's verifier, in this process; it has cached the genuine token."""
    keys = SigningKeys(read_file(Path(target.env["GATEWAY_SIGNING_KEY"])), target.url)
    tokens = LoginTokens(KeyRing([target.env["GATEWAY_SECRET"]], "login-token"), keys)
    assert tokens.verify(forge.genuine).uid == forge.login["user"]["id"]
    return tokens


# RFC 7515 section 2 (no padding), RFC 4648 section 3.5 (one encoding per value): another encoding of a token must not
# evade a block list or a cache by token text.
def test_other_encoding_of_a_token_is_refused(target: Installation, forge: Forge) -> None:
    head, payload, signature = forge.genuine.split(".")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    same_bytes = alphabet[alphabet.index(signature[-1]) ^ 1]
    assert encode(base64.urlsafe_b64decode(signature[:-1] + same_bytes + "==")) == signature
    for token in (
        f"{head}.{payload}.{signature}=",
        f"{head}=.{payload}=.{signature}=",
        f"{head}==.{payload}.{signature}",
        f"{head}.{payload}.{signature[:-1]}{same_bytes}",
        f"{head}.{payload}.{signature}.",
        f".{head}.{payload}.{signature}",
        f"{head}..{payload}.{signature}",
        f"{head}.{payload}.{signature}\u00e4",
        f"{head}.{payload}\t.{signature}",
        f"{head[:-1]}+{payload}/.{signature}",
        f"{head}.{payload}.",
        f"{head}.{payload}.{signature[:-2]}",
        f"{head}.{payload}.{signature} x",
        f" {forge.genuine}",
    ):
        assert_refused(target, token)


# RFC 4648 section 3.3: characters outside the alphabet are refused, not skipped (Python's decoder skips them).
@pytest.mark.parametrize(
    "stray",
    ["\n", "\r\n", "\t", " ", "\x0b", "\x00", "%20", "%2E", "+", "/", "=", "==", "!", "\u00a0", "\u00ad", "~", ","],
    ids=repr,
)
def test_stray_character_at_any_place_is_refused(forge: Forge, tokens: LoginTokens, stray: str) -> None:
    """Asks the verifier itself, because no client can send some of these in a header."""
    for at in (0, 1, len(forge.genuine) // 2, forge.genuine.index(".") + 1, len(forge.genuine) - 1, len(forge.genuine)):
        with pytest.raises(InvalidToken):
            tokens.verify(forge.genuine[:at] + stray + forge.genuine[at:])


def test_look_alikes_of_the_alphabet_are_refused(forge: Forge, tokens: LoginTokens) -> None:
    """RFC 4648 section 12: full-width and other digits are digits to Python, but not to our decoders."""
    head, payload, signature = forge.genuine.split(".")
    for one, other in (("e", "\uff45"), ("y", "\u0443"), ("0", "\u0660"), ("1", "\uff11"), ("-", "\u2010")):
        for token in (f"{head}.{payload}.{signature}".replace(one, other, 1), forge.genuine.replace(one, other)):
            if token != forge.genuine:
                with pytest.raises(InvalidToken):
                    tokens.verify(token)
    with pytest.raises(InvalidToken):
        tokens.verify(f"{head}\u3002{payload}\u3002{signature}")


def test_every_other_encoding_of_the_last_character_is_refused(forge: Forge, tokens: LoginTokens) -> None:
    """RFC 4648 section 3.5: 4 or 16 of the 64 possible last characters decode to the same bytes; one is right."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    passed = []
    for last in alphabet:
        with contextlib.suppress(InvalidToken):
            tokens.verify(forge.genuine[:-1] + last)
            passed.append(last)
    assert passed == [forge.genuine[-1]]
