"""A worker that is killed is replaced. What its clients see under load is in tests/chaos/test_processes."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from tests.servers import Installation, wait_until

STARTED = "Application startup complete"


@pytest.mark.timeout(60)
def test_a_worker_that_dies_during_its_health_check_is_replaced_at_once(tmp_path: Path) -> None:
    """The supervisor looks at each worker every half second, and waits 5 s for an answer."""
    with Installation(tmp_path, workers=2, real=True) as own:
        wait_until(lambda: own.gateway.output().count(STARTED) == 2, "both workers serve")
        victim = int(re.findall(r"Started server process \[(\d+)\]", own.gateway.output())[-1])
        os.kill(victim, signal.SIGSTOP)
        time.sleep(1)  # the supervisor has asked it by now, and waits
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: f"Child process [{victim}] died" in own.gateway.output(), "its death is noticed", within_s=2)
        wait_until(lambda: own.gateway.output().count(STARTED) == 3, "another worker serves")
