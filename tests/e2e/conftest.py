"""Installations with two workers that tests share; a test that kills something starts its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.asking import Admin
from tests.e2e.people import PROVIDER
from tests.e2e.policies import guarded, narrow, roomy
from tests.servers import Installation


@pytest.fixture(scope="package")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running installation with two hosts, two members, an operator, an identity provider and generous limits."""
    folder, options = tmp_path_factory.mktemp("installation"), {"create_accounts": True, "default_role": "member"}
    mapping = {"teachers": "host", "staff": "operator"}
    people = PROVIDER.table(folder, roles_claim="groups", roles=mapping, **options)
    own = Installation(folder, workers=2, policy=roomy() + people, fsync="always")
    own.env["GATEWAY_COOKIES"] = "on"
    with own as running:
        running.add_users(hanna="host", hugo="host", mira="member", mark="member", otto="operator", ada="admin")
        yield running


@pytest.fixture(scope="package")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running installation with unique room names and at most three rooms per user; its admin creates the users."""
    with Installation(tmp_path_factory.mktemp("house"), workers=2, policy=narrow(), fsync="always") as running:
        running.add_users(ada="admin", otto="operator")
        yield running


@pytest.fixture(scope="package")
def guarded_installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running installation with open registration and the built-in limits of logins and registrations.

    Each request sets its own client address, so that tests do not throttle each other.
    """
    own = Installation(tmp_path_factory.mktemp("guarded"), workers=2, policy=guarded(), fsync="always")
    own.env |= {"GATEWAY_REGISTRATION": "open", "GATEWAY_TRUSTED_PROXIES": "127.0.0.1/32"}
    with own as running:
        running.add_users(ada="admin", otto="operator")
        yield running


@pytest.fixture(scope="package")
def admin(guarded_installation: Installation) -> Admin:
    return Admin(guarded_installation)
