"""Signing keys: what is read, what is refused, how a rotation goes."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from joserfc.jwk import ECKey
from jwt.utils import base64url_decode

from auth.signing_keys import (
    KINDS,
    MOST_CHARS,
    MOST_KEYS,
    BadSigningKeys,
    SigningKey,
    SigningKeys,
    kind_of,
    make_key,
    read_file,
    read_keys,
    rotated,
    stopped,
    write_keys,
)

NOW = datetime(2026, 7, 1, 12, 30, 15, tzinfo=UTC)
DAY = timedelta(days=1)


def pem_of(private: Any, form: PrivateFormat = PrivateFormat.PKCS8, password: bytes = b"") -> str:
    lock = BestAvailableEncryption(password) if password else NoEncryption()
    return str(private.private_bytes(Encoding.PEM, form, lock).decode())


def pem_of_public(raw: bytes) -> str:
    key = ed25519.Ed25519PublicKey.from_public_bytes(raw)
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.mark.parametrize("kind", KINDS)
def test_written_keys_are_read_again_with_their_times(kind: str) -> None:
    keys = (make_key(kind, NOW), make_key(kind, NOW + DAY), *stopped([make_key(kind, NOW - DAY)], NOW))
    again = read_keys(write_keys(keys))
    assert [key.kid for key in again] == [key.kid for key in keys]
    assert [(key.made, key.retired) for key in again] == [(key.made, key.retired) for key in keys]
    assert [key.private is None for key in again] == [False, False, True]
    assert {kind_of(key) for key in again} == {kind}


def test_first_private_key_signs_wherever_it_is() -> None:
    only_public, first, second = stopped([make_key("es256", NOW)], NOW)[0], *(make_key("ed25519", NOW) for _ in "ab")
    keys = SigningKeys((only_public, first, second), "https://gateway.example.com")
    assert keys.first == first
    assert SigningKeys((only_public,), "https://gateway.example.com").first is None
    assert [keys.find(key.kid) for key in keys.keys] == list(keys.keys)


@pytest.mark.parametrize("kid", [None, 1, True, [], {}, "", "a" * 43])
def test_unknown_kid_finds_no_key(kid: object) -> None:
    assert SigningKeys((make_key("es256", NOW),), "https://gateway.example.com").find(kid) is None


def test_kid_is_the_thumbprint_of_rfc_8037() -> None:
    """Appendix A.3, whose key is that of appendix A.1."""
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    (key,) = read_keys(pem_of(ed25519.Ed25519PrivateKey.from_private_bytes(seed)))
    assert key.kid == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    assert key.jwk == {
        "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        "kid": key.kid, "use": "sig", "alg": "EdDSA",
    }  # fmt: skip


def test_thumbprint_of_an_ec_key_is_that_of_joserfc_and_its_coordinates_keep_their_zeros() -> None:
    """RFC 7518 section 6.2.1.2: a coordinate has its full length. One in 128 keys begins with a zero in one of them."""
    short = None
    while short is None:
        key = make_key("es256", NOW)
        assert {len(key.jwk["x"]), len(key.jwk["y"])} == {43}
        short = key if key.jwk["x"].startswith("A") and base64url_decode(key.jwk["x"])[0] == 0 else None
    assert ECKey.import_key(key.jwk).thumbprint() == key.kid


@pytest.mark.parametrize("kind", KINDS)
def test_published_form_and_repr_hold_nothing_private(kind: str) -> None:
    key = make_key(kind, NOW)
    assert "d" not in key.jwk
    shown = repr(SigningKeys((key,), "https://gateway.example.com"))
    assert shown.count("SigningKey(") == 1
    assert "private" not in shown
    assert "object at" not in shown


def test_sec_1_and_openssl_curve_names_are_read() -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    curve = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    (key,) = read_keys(curve + pem_of(private, PrivateFormat.TraditionalOpenSSL))
    assert key.algorithm == "ES256"
    assert key.made is None


WRONG: dict[str, tuple[Callable[[], str], str]] = {
    "nothing": (lambda: "", "it has no key in PEM, such as `gateway keys signing new` writes"),
    "words": (lambda: "secret words", "it has no key in PEM"),
    "RSA": (lambda: pem_of(rsa.generate_private_key(65537, 2048)), "the kind RSA; it must be EC on P-256, or Ed25519"),
    "RSA in PKCS #1": (
        lambda: pem_of(rsa.generate_private_key(65537, 2048), PrivateFormat.TraditionalOpenSSL),
        "the kind RSA",
    ),
    "P-384": (lambda: pem_of(ec.generate_private_key(ec.SECP384R1())), "the kind EC on secp384r1"),
    "P-521": (lambda: pem_of(ec.generate_private_key(ec.SECP521R1())), "the kind EC on secp521r1"),
    "secp256k1": (lambda: pem_of(ec.generate_private_key(ec.SECP256K1())), "the kind EC on secp256k1"),
    "Ed448": (lambda: pem_of(ed448.Ed448PrivateKey.generate()), "the kind Ed448"),
    "X25519": (lambda: pem_of(x25519.X25519PrivateKey.generate()), "the kind X25519"),
    "encrypted": (
        lambda: pem_of(ed25519.Ed25519PrivateKey.generate(), password=b"x"),
        "it has an encrypted private key; the gateway has no password for it",
    ),
    "encrypted SEC 1": (
        lambda: pem_of(ec.generate_private_key(ec.SECP256R1()), PrivateFormat.TraditionalOpenSSL, b"x"),
        "encrypted",
    ),
    "OpenSSH": (
        lambda: pem_of(ed25519.Ed25519PrivateKey.generate(), PrivateFormat.OpenSSH),
        "it has a OPENSSH PRIVATE KEY; keys are in PKCS #8",
    ),
    "certificate": (
        lambda: "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        "it has a CERTIFICATE; keys are in PKCS #8",
    ),
    "garbage": (
        lambda: "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n",
        "it has a PRIVATE KEY that cannot be read",
    ),
    "public garbage": (
        lambda: "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        "it has a PUBLIC KEY that cannot be read",
    ),
    "cut off": (lambda: write_keys([make_key("es256", NOW)])[:-30], "it has a PEM block that is not complete"),
    "cut off after a whole one": (
        lambda: write_keys([make_key("es256", NOW), make_key("es256", NOW)])[:-30],
        "it has a PEM block that is not complete",
    ),
    "another end": (
        lambda: pem_of(ed25519.Ed25519PrivateKey.generate()).replace("END PRIVATE", "END PUBLIC"),
        "it has a PEM block that is not complete",
    ),
    "too many": (
        lambda: write_keys([make_key("ed25519", NOW) for _ in range(MOST_KEYS + 1)]),
        f"it has more than {MOST_KEYS} keys",
    ),
    "too long": (lambda: "#" * (MOST_CHARS + 1), "it is longer than 64 KiB"),
    "impossible time": (
        lambda: "# made 2026-13-01T00:00:00Z\n" + pem_of(ed25519.Ed25519PrivateKey.generate()),
        "a key was made or retired at a time that does not exist",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_text_is_refused_in_one_line_that_repeats_nothing_of_it(name: str) -> None:
    make, why = WRONG[name]
    text = make()
    with pytest.raises(BadSigningKeys) as caught:
        read_keys(text)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not any(line in str(caught.value) for line in text.splitlines() if len(line) > 12)


def test_same_key_twice_is_refused_also_with_its_public_half() -> None:
    key = make_key("ed25519", NOW)
    for both in ([key, key], [key, replace(key, private=None)]):
        with pytest.raises(BadSigningKeys, match="the same key twice"):
            read_keys(write_keys(both))


@pytest.mark.parametrize("sign", [0x00, 0x80])
@pytest.mark.parametrize(
    "point",
    [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    ],
    ids=lambda point: str(point)[:8],
)
def test_public_key_of_small_order_is_refused(point: str, sign: int) -> None:
    """For such a key the signature (R, S) = (identity, 0) or (A, 0) is valid for messages that the attacker chooses."""
    raw = bytearray.fromhex(point)
    raw[31] |= sign
    with pytest.raises(BadSigningKeys, match="small order, for which anyone can sign"):
        read_keys(pem_of_public(bytes(raw)))


# --- files ---


def test_file_that_cannot_be_read_is_refused_with_its_reason(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none.pem", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(BadSigningKeys, match=f"the file cannot be read: {why}"):
            read_file(path)
    for content, why in ((b"\xff\xfe", "the file is not PEM"), (b"#" * (MOST_CHARS + 5), "longer than 64 KiB")):
        (tmp_path / "wrong.pem").write_bytes(content)
        with pytest.raises(BadSigningKeys, match=why):
            read_file(tmp_path / "wrong.pem")
    assert stat.S_ISREG((tmp_path / "wrong.pem").stat().st_mode)


# --- rotation ---


def uses(keys: tuple[SigningKey, ...]) -> list[bool]:
    return [key.private is not None for key in keys]


def test_rotation_lets_the_published_key_sign_and_keeps_no_private_half_of_the_old_one() -> None:
    before = (make_key("es256", NOW), make_key("es256", NOW))
    after = rotated(before, "ed25519", NOW + 90 * DAY, DAY)
    assert [key.kid for key in after] == [before[1].kid, after[1].kid, before[0].kid]
    assert uses(after) == [True, True, False]
    assert [key.algorithm for key in after] == ["ES256", "EdDSA", "ES256"]
    assert after[1].made == after[2].retired == NOW + 90 * DAY
    assert after[0].made == NOW


def test_every_signing_key_of_a_chain_of_rotations_was_published_before() -> None:
    keys = (make_key("es256", NOW), make_key("es256", NOW))
    for number in range(1, 30):
        known = {key.kid for key in keys}
        keys = rotated(keys, "es256", NOW + number * DAY, DAY)
        assert keys[0].kid in known
        assert len(keys) <= 5, "retired keys are dropped"
        assert all(key.retired > NOW + (number - 2) * DAY for key in keys if key.retired)


def test_single_key_of_openssl_is_replaced_by_a_new_one_and_verifies_on() -> None:
    own = replace(make_key("es256", NOW), made=None)
    after = rotated((own,), "es256", NOW, DAY)
    assert uses(after) == [True, True, False]
    assert after[2].kid == own.kid


def test_stopped_keys_verify_and_a_rotation_starts_again() -> None:
    off = stopped((make_key("es256", NOW), make_key("es256", NOW)), NOW)
    assert uses(off) == [False, False]
    assert {key.retired for key in off} == {NOW}
    later = stopped(off, NOW + DAY)
    assert {key.retired for key in later} == {NOW}, "they keep the time at which they were retired"
    assert uses(rotated(off, "es256", NOW + timedelta(hours=1), DAY)) == [True, True, False, False]


def test_more_than_one_private_key_beside_the_next_is_kept() -> None:
    first, second, third = (make_key("es256", NOW) for _ in range(3))
    after = rotated((first, second, third), "es256", NOW, DAY)
    assert [key.kid for key in after] == [second.kid, third.kid, after[2].kid, first.kid]
