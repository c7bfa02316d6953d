"""Access tokens that others can verify: with the published keys, and across turning on, rotation and turning off."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from auth.keys import KeyRing
from auth.signing_keys import SigningKeys
from auth.tokens import LoginTokens, Principal
from tests.e2e.checks import assert_problem
from tests.e2e.commands import assert_done, assert_failed, parsed
from tests.e2e.node import run_node
from tests.servers import NO_TLS, REPOSITORY, Installation

KEYS, METADATA = "/.well-known/jwks.json", "/.well-known/oauth-authorization-server"
PAGE = (REPOSITORY / "docs" / "tokens.md").read_text()


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation without signing keys, in which they are turned on; its own, because it is started again."""
    with Installation(tmp_path_factory.mktemp("signing"), fsync="always") as running:
        running.add_users(hanna="host")
        yield running


def example(language: str, url: str) -> str:
    """Return an example of docs/tokens.md, for another gateway."""
    found = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert len(found) == 1
    return str(found[0]).replace("https://gateway.example.com", url)


def restarted(at: Installation, **env: str) -> None:
    at.gateway.stop()
    at.env |= env
    at.start_gateway()


def get(at: Installation, path: str) -> httpx.Response:
    return httpx.get(at.url + path, timeout=5, verify=NO_TLS, trust_env=False)


def header_of(token: str) -> dict[str, Any]:
    return jwt.get_unverified_header(token)


def assert_valid(at: Installation, *tokens: str) -> None:
    for token in tokens:
        with at.client(token) as client:
            assert client.get("/api/auth/me").status_code == 200, header_of(token)


def test_keys_are_turned_on_rotated_and_turned_off_without_a_logout(
    at: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")  # PyJWT fetches with urllib
    for path in (KEYS, METADATA):
        assert_problem(get(at, path), 404, "not_found")
    first = at.log_in("hanna")["access_token"]
    assert header_of(first)["alg"] == "HS256"

    file = at.folder / "signing.pem"
    said = assert_done(at.command("keys", "signing", "new", "signing.pem"), at.env)
    assert "Set GATEWAY_SIGNING_KEY=signing.pem" in said
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert_failed(at.command("keys", "signing", "new", "signing.pem"), at.env, "signing.pem exists already", "rotate")
    restarted(at, GATEWAY_SIGNING_KEY="signing.pem", GATEWAY_PUBLIC_URL=at.url)
    second = at.log_in("hanna")["access_token"]
    listed = parsed(at.command("keys", "signing", "list", "--json"), at.env)["keys"]
    assert [key["use"] for key in listed] == ["signs", "next"]
    assert header_of(second) == {"alg": "ES256", "kid": listed[0]["kid"], "typ": "at+jwt"}
    assert_valid(at, first, second)

    answer = get(at, KEYS)
    assert answer.headers["cache-control"] == "public, max-age=300"
    assert answer.headers["content-type"] == "application/json"
    assert [key["kid"] for key in answer.json()["keys"]] == [key["kid"] for key in listed]
    assert {*answer.json()["keys"][0]} == {"kid", "kty", "crv", "alg", "use", "x", "y"}
    metadata = get(at, METADATA).json()
    assert (metadata["issuer"], metadata["jwks_uri"]) == (at.url, at.url + KEYS)
    assert metadata["introspection_endpoint"] == f"{at.url}/api/auth/introspect"
    known = jwt.PyJWKClient(at.url + KEYS, cache_keys=True)
    known.get_signing_keys()

    assert "Warning: this key is new." in assert_done(at.command("keys", "signing", "rotate"), at.env)
    restarted(at)
    third = at.log_in("hanna")["access_token"]
    assert header_of(third)["kid"] == listed[1]["kid"], "the key that was next"
    assert_valid(at, first, second, third)
    with monkeypatch.context() as offline:  # a service that fetched the keys before the rotation needs no others
        offline.setattr(known, "fetch_data", lambda: pytest.fail("fetched again"))
        assert known.get_signing_key_from_jwt(third).key_id == listed[1]["kid"]
    kids = [key["kid"] for key in get(at, KEYS).json()["keys"]]
    assert kids[0] == listed[1]["kid"]
    assert kids[2] == listed[0]["kid"]

    assert "no key signs" in assert_done(at.command("keys", "signing", "stop"), at.env)
    assert "PRIVATE" not in file.read_text()
    restarted(at)
    fourth = at.log_in("hanna")["access_token"]
    assert header_of(fourth)["alg"] == "HS256"
    assert_valid(at, first, second, third, fourth)
    restarted(at, GATEWAY_SIGNING_KEY="")
    assert_valid(at, first, fourth)
    for token in (second, third):
        with at.client(token) as client:
            assert_problem(client.get("/api/auth/me"), 401, "invalid_token")


def test_examples_of_the_page_verify_genuine_tokens_only(at: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """With PyJWT and with jose, as docs/tokens.md shows."""
    monkeypatch.setenv("no_proxy", "*")
    at.gateway.stop()
    keys = at.sign_tokens("es256", "ed25519")
    at.start_gateway()
    token = at.log_in("hanna")["access_token"]
    claims = jwt.decode(token, options={"verify_signature": False})
    # The next key is published like the one that signs, so this process can sign in its place.
    following = LoginTokens(KeyRing([at.env["GATEWAY_SECRET"]], "login-token"), SigningKeys(keys[1:], at.url))
    other = following.issue(Principal(claims["sub"], claims["sid"], ("host",), claims["ver"]), auth_time=0)
    assert [header_of(one)["alg"] for one in (token, other)] == ["ES256", "EdDSA"]
    assert_valid(at, token, other)
    head, payload, signature = token.split(".")
    tokens = (token, other, f"{head}.{payload}.{signature[::-1]}")
    verify = python_example(at.url)
    assert verify(token) == claims
    assert verify(other)["sub"] == claims["sub"]
    with pytest.raises(jwt.PyJWTError):
        verify(tokens[2])
    done = run_node("--input-type=module", "--eval", example("js", at.url) + _REPORT, "--", *tokens, packages=True)
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert said == [claims, verify(other), {"error": "ERR_JWS_SIGNATURE_VERIFICATION_FAILED"}]


_REPORT = """
for (const token of process.argv.slice(1)) {
  const said = await verify(token).catch((error) => ({ error: error.code }));
  console.log(JSON.stringify(said));
}
"""


def python_example(url: str) -> Any:
    names: dict[str, Any] = {}
    exec(compile(example("python", url), "docs/tokens.md", "exec"), names)  # noqa: S102  an example of our own page
    return names["verify"]


def test_rotation_keeps_owner_and_mode_of_a_linked_file(at: Installation, tmp_path: Path) -> None:
    """Kubernetes mounts secrets as links; in Docker the file belongs to the gateway's user."""
    real, link = tmp_path / "real.pem", tmp_path / "signing.pem"
    assert_done(at.command("keys", "signing", "new", str(real), "--kind", "ed25519"), at.env)
    real.chmod(0o640)
    link.symlink_to(real)
    before = parsed(at.command("keys", "signing", "list", str(link), "--json"), at.env)["keys"]
    assert_done(at.command("keys", "signing", "rotate", str(link)), at.env)
    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    after = parsed(at.command("keys", "signing", "list", str(link), "--json"), at.env)["keys"]
    assert [key["use"] for key in after] == ["signs", "next", "verifies"]
    assert after[0]["kid"] == before[1]["kid"]
    assert {key["algorithm"] for key in after} == {"EdDSA"}
    for words in (("rotate", "--keep", "59min"), ("rotate", "--keep", "1s")):
        assert_failed(at.command("keys", "signing", *words, str(link)), at.env, "--keep", "at least 1h")


@pytest.mark.parametrize("command", ["list", "rotate", "stop"])
def test_commands_without_a_readable_file_say_which(at: Installation, command: str, tmp_path: Path) -> None:
    missing = str(tmp_path / "none.pem")
    words = ("keys", "signing", command)
    assert_failed(at.command(*words, missing), at.env, f"{missing}: the file cannot be read: No such file")
    assert_failed(at.command(*words, GATEWAY_SIGNING_KEY=""), at.env, "name the FILE")
    (tmp_path / "words.pem").write_text("words")
    assert_failed(at.command(*words, str(tmp_path / "words.pem")), at.env, "words.pem: it has no key in PEM")
