"""The installation that is attacked: two workers, limits out of the way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.policies import roomy
from tests.servers import Installation


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running installation with a host, a member, an operator, and a user who is disabled."""
    with Installation(tmp_path_factory.mktemp("target"), workers=2, policy=roomy()) as running:
        running.add_users(hanna="host", mira="member", otto="operator", dora="member")
        assert running.command("users", "disable", "dora").returncode == 0
        yield running
