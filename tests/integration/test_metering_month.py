"""A small month of the simulation in benchmarks/month.py; docs/usage.md has the figures of the full one."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks import month as simulation
from tests.month import Disturbed, simulate
from tests.servers import Valkey


@pytest.mark.timeout(300)
def test_minutes_equal_the_truth_after_reconciliation_whatever_happened_to_the_webhooks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulation, "KILLS", 3)
    source = random.Random(7)
    month = simulate(source, users=100, rooms=30, stays=600, until=datetime.now(UTC))
    bodies = month.events(source, Disturbed(lost_leaves=0.05))
    assert month.lost["peer.leave.success"] > 5
    with Valkey(tmp_path) as valkey:
        before, after = simulation.run(valkey, tmp_path, month, bodies)
    assert set(after.values()) == {0}
    assert set(before.values()) == {month.lost_s}, "nothing but the lost leaves is missing before"
