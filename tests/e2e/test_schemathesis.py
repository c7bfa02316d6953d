"""The running API against its own document: calls that schemathesis generates, valid and invalid, for each caller.

New routes are picked up from /openapi.json. Every run makes the same calls.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.policies import roomy
from tests.servers import REPOSITORY, Installation

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "ignored_auth",
    "unsupported_method",
    "allow_header_conformance",
)
# hugo owns one of the two rooms and is a stranger in the other.
ROLES = {"mira": "member", "hugo": "host", "otto": "operator", "ada": "admin"}
CALLERS = ("nobody", *ROLES)
MOST_EXAMPLES = 8
WITHIN_S = 240  # ten times what an idle machine needs

pytestmark = pytest.mark.timeout(2 * WITHIN_S)

# Existing names get half of the calls past the first 404. Ids in responses are not collected: administrators would
# lock themselves out with their own.
CONFIG = """
warnings = false

[cache]
enabled = false

[generation]
deterministic = true
no-shrink = true
with-security-parameters = false

[phases.coverage]
generate-duplicate-query-parameters = true
extra-data-sources.responses = false

[phases.fuzzing]
extra-data-sources.responses = false
error-feedback.enabled = false

[dictionaries.rooms]
values = {rooms}

[dictionaries.users]
values = ["vera"]

[parameters]
"path.room_id" = {{ dictionary = "rooms", probability = 0.5 }}
"path.user" = {{ dictionary = "users", probability = 0.5 }}
"""
# Logs in again after one of the calls has ended the session.
LOGIN = """
[auth.dynamic.openapi.login]
path = "/api/auth/login"
payload = {{ username = "{name}", password = "{password}" }}
extract_selector = "/access_token"
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[str]]]:
    """Reports of schemathesis by caller, on an installation that an administrator may break."""
    folder = tmp_path_factory.mktemp("schemathesis")
    with Installation(folder, workers=2, policy=roomy()) as scratch, ThreadPoolExecutor(3) as pool:
        scratch.add_users(**ROLES, vera="member", heidi="host")
        rooms = []
        for owner in ("hugo", "heidi"):
            with scratch.client_of(owner) as client:
                rooms.append(client.post("/api/rooms", json={}).json()["room"]["id"])
        yield {name: pool.submit(run, scratch, folder / name, name, rooms) for name in CALLERS}


def run(scratch: Installation, folder: Path, name: str, rooms: list[str]) -> str:
    """Return the report of one run, and its exit code on a last line."""
    folder.mkdir()
    config = CONFIG.format(rooms=json.dumps(rooms))
    if name in ROLES:
        config += LOGIN.format(name=name, password=scratch.passwords[name])
    (folder / "schemathesis.toml").write_text(config)
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{scratch.url}/openapi.json", "--mode", "all"]
    command += ["--checks", ",".join(CHECKS), "--phases", "coverage,fuzzing", "--max-examples", str(MOST_EXAMPLES)]
    command += ["--exclude-path", "/api/admin/live"]  # its answer has no end
    # What Hypothesis knows of Unicode takes it a second to compute, and lies here already.
    known = {"HYPOTHESIS_STORAGE_DIRECTORY": str(REPOSITORY / ".hypothesis")}
    env = known | {"PATH": os.environ["PATH"], "HOME": str(folder), "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    return f"{done.stdout}{done.stderr}\nexit {done.returncode}"


@pytest.mark.parametrize("name", CALLERS)
def test_api_conforms_to_its_document(runs: dict[str, Future[str]], name: str) -> None:
    report = runs[name].result()
    assert report.endswith("\nexit 0"), report
    tested, generated = re.findall(r"Tested: (\d+)|(\d+) generated", report)
    assert int(tested[0]) >= 31
    assert int(generated[1]) >= 20 * int(tested[0])
