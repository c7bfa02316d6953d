"""Key derivation and key rings."""

import pytest

from auth.keys import Key, KeyRing, hkdf

OLD, NEW = "old-secret-" + "o" * 32, "new-secret-" + "n" * 32

# RFC 5869 appendix A.1 to A.3: ikm, salt, info, length, okm
RFC_5869 = [
    (
        "0b" * 22,
        "000102030405060708090a0b0c",
        "f0f1f2f3f4f5f6f7f8f9",
        42,
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    ),
    (
        bytes(range(0x50)).hex(),
        bytes(range(0x60, 0xB0)).hex(),
        bytes(range(0xB0, 0x100)).hex(),
        82,
        "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
        "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
    ),
    ("0b" * 22, "", "", 42, "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"),
]


@pytest.mark.parametrize(("ikm", "salt", "info", "length", "okm"), RFC_5869)
def test_hkdf_matches_the_vectors_of_rfc_5869(ikm: str, salt: str, info: str, length: int, okm: str) -> None:
    derived = hkdf(bytes.fromhex(ikm), salt=bytes.fromhex(salt), info=bytes.fromhex(info), length=length)
    assert derived.hex() == okm


def test_a_ring_needs_a_secret() -> None:
    with pytest.raises(ValueError, match="at least one secret"):
        KeyRing([], "refresh")


def test_the_first_secret_signs() -> None:
    alone, rotated = KeyRing([NEW], "refresh"), KeyRing([NEW, OLD], "refresh")
    assert rotated.signing == alone.signing
    assert rotated.mac("m") == alone.mac("m")


def test_every_secret_of_the_ring_verifies() -> None:
    rotated = KeyRing([NEW, OLD], "refresh")
    for secret in (OLD, NEW):
        before = KeyRing([secret], "refresh")
        assert rotated.check("m", before.mac("m"))
        assert rotated.find(before.signing.kid) == before.signing


def test_a_secret_removed_from_the_ring_no_longer_verifies() -> None:
    old, new = KeyRing([OLD], "refresh"), KeyRing([NEW], "refresh")
    assert not new.check("m", old.mac("m"))
    assert new.find(old.signing.kid) is None


def test_purposes_share_a_kid_but_no_key() -> None:
    refresh, login = KeyRing([NEW], "refresh"), KeyRing([NEW], "login-token")
    assert refresh.signing.kid == login.signing.kid
    assert refresh.signing.secret != login.signing.secret
    assert not login.check("m", refresh.mac("m"))


def test_a_kid_reveals_neither_secret_nor_key() -> None:
    key = KeyRing([NEW], "refresh").signing
    assert len(key.kid) == 12
    assert key.kid not in key.secret.hex()
    assert key.kid not in NEW.encode().hex()


@pytest.mark.parametrize("kid", [None, 1, True, 1.5, [], {}, b"kid", "", "\ud800"])
def test_a_kid_that_is_unknown_or_not_text_finds_nothing(kid: object) -> None:
    assert KeyRing([NEW], "refresh").find(kid) is None


def test_a_mac_is_128_bits_of_hex() -> None:
    mac = KeyRing([NEW], "refresh").mac("m")
    assert len(bytes.fromhex(mac)) == 16


@pytest.mark.parametrize("spoil", [str.upper, lambda mac: mac[:-1], lambda mac: mac + "0", lambda _: "", lambda _: "é"])
def test_a_mac_that_differs_in_anything_is_refused(spoil: object) -> None:
    ring = KeyRing([NEW], "refresh")
    mac = ring.mac("message 7")
    assert any(char.isalpha() for char in mac)
    assert not ring.check("message 7", spoil(mac))  # type: ignore[operator]


def test_a_mac_with_a_lone_surrogate_is_wrong_but_not_an_error() -> None:
    assert not KeyRing([NEW], "refresh").check("m", "\ud800" * 32)


def test_a_mac_is_valid_for_one_message_only() -> None:
    ring = KeyRing([NEW], "refresh")
    assert not ring.check("n", ring.mac("m"))


def test_repr_shows_no_secret() -> None:
    ring = KeyRing([NEW, OLD], "refresh")
    key = ring.signing
    for shown in (repr(key), str(key), f"{key}", repr([key]), repr(ring), repr(Key("kid", b"hidden"))):
        assert NEW not in shown
        assert repr(key.secret)[2:-1] not in shown
        assert key.secret.hex() not in shown
        assert "hidden" not in shown
