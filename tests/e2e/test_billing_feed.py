"""The consumer of the feed in docs/usage.md, run as it is printed there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.servers import REPOSITORY, Installation, wait_until

ENTRY = {"room": "r", "session": "s", "user": "U", "owner": "O", "role": "guest"}


def test_documented_consumer_hands_every_event_on_once_and_keeps_its_place(
    installation: Installation, tmp_path: Path
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "usage.md").read_text(), re.DOTALL)
    script = tmp_path / "consumer.py"
    script.write_text(code)
    env = {"PATH": os.environ["PATH"], "URL": installation.url, "OPERATOR": "otto"}
    env["OPERATOR_PASSWORD"] = installation.passwords["otto"]
    out = tmp_path / "out"

    place = tmp_path / "place.txt"

    def consume(last: bytes) -> list[str]:
        with out.open("wb") as output:
            process = subprocess.Popen([sys.executable, "-u", str(script)], cwd=tmp_path, env=env, stdout=output)
        try:
            at_the_end = lambda: place.exists() and place.read_text() == last.decode()  # noqa: E731
            wait_until(at_the_end, "the consumer has handed all events on")
        finally:
            process.kill()
            process.wait()
        return out.read_text().splitlines()

    with installation.valkey.client() as client:
        client.delete("ev:1")
        last = b""
        for n in range(3):
            last = client.xadd("ev:1", ENTRY | {"id": f"e{n}", "started_ms": 1, "ended_ms": 2000, "seconds": n})
        assert consume(last) == ["e0 U 0", "e1 U 1", "e2 U 2"]
        last = client.xadd("ev:1", ENTRY | {"id": "e3", "started_ms": 1, "ended_ms": 2000, "seconds": -7})
        assert consume(last) == ["e3 U -7"]
        client.delete("ev:1")
