"""One installation with two workers for all tests that only ask it; who kills something starts his own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.policies import roomy
from tests.servers import Installation


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running installation with a host, another host, two members and an operator; its limits are out of the way."""
    with Installation(tmp_path_factory.mktemp("installation"), workers=2, policy=roomy()) as running:
        running.add_users(hanna="host", hugo="host", mira="member", mark="member", otto="operator", ada="admin")
        yield running
