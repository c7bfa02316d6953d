"""The installations that are attacked: one with generous limits, and one with tight limits."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator

import pytest

from tests.attack.forge import Forge
from tests.e2e.policies import BUILT_IN, roomy
from tests.servers import Installation

# Where pages of other origins come from, and where clients reach the installation that allows them.
LISTED = "https://app.example.com"
ORIGINS = f"{LISTED},http://localhost:*,https://[2001:db8::1]:8443"
PUBLIC = "https://gateway.example.com"

# Administrators with a single power; `omni` has every permission, so that no route refuses them early.
DELEGATES = """
[roles.manager]
permissions = ["users:manage"]
limits.api = { rate = "100000/min", burst = 10000 }

[roles.warden]
permissions = ["limits:manage"]
limits.api = { rate = "100000/min", burst = 10000 }

[roles.omni]
permissions = ["rooms:create", "rooms:join", "rooms:read-any", "rooms:end-any", "usage:read-own", "usage:read-any",
    "limits:manage", "users:manage", "audit:read"]
limits.api = { rate = "100000/min", burst = 10000 }
limits."rooms.create" = { rate = "100000/min", burst = 10000 }
limits."tokens.mint" = { rate = "100000/min", burst = 10000 }
"""


@pytest.fixture(scope="package")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running installation with one user of each role and a disabled member, and with a key for ES256."""
    running = Installation(tmp_path_factory.mktemp("target"), workers=2, policy=roomy() + DELEGATES, fsync="always")
    running.env["GATEWAY_REGISTRATION"] = "invite"
    running.env["HMS_WEBHOOK_SECRET"] = f"{secrets.token_urlsafe(48)},{secrets.token_urlsafe(48)}"
    running.sign_tokens("es256", "ed25519")
    with running:
        running.add_users(hanna="host", mira="member", otto="operator", dora="member", olga="omni", ada="admin")
        assert running.command("users", "disable", "dora").returncode == 0
        yield running


@pytest.fixture(scope="package")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation that allows pages of some origins and cookies, reached by https through a proxy on 127.0.0.1."""
    own = Installation(tmp_path_factory.mktemp("shared"), workers=1, policy=roomy())
    own.env |= {"GATEWAY_CORS_ORIGINS": ORIGINS, "GATEWAY_PUBLIC_URL": PUBLIC, "GATEWAY_COOKIES": "on"}
    own.env["GATEWAY_TRUSTED_PROXIES"] = "127.0.0.1/32"
    with own as running:
        running.add_users(mira="member", hanna="host")
        yield running


@pytest.fixture(scope="module", params=["HS256", "ES256"])
def forge(target: Installation, request: pytest.FixtureRequest) -> Forge:
    """A forger for each module, because twenty more logins of its user end its session; for tokens of both kinds."""
    return Forge(target, request.param)


@pytest.fixture(scope="package")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation behind a proxy on 127.0.0.1, with the built-in account limits and 8 failures per address."""
    fewer = 'failures = { rate = "8/10min", burst = 8 } '
    policy, changed = re.subn(r"(?m)^failures = [^#]*", fewer, BUILT_IN.read_text())
    assert changed == 1
    own = Installation(tmp_path_factory.mktemp("strict"), policy=policy, fsync="always")
    own.env |= {"GATEWAY_TRUSTED_PROXIES": "127.0.0.1/32,10.0.0.0/8", "GATEWAY_REGISTRATION": "open"}
    with own:
        own.add_users(hanna="host", ada="admin")
        yield own
