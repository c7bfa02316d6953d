"""`gateway archive` against a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.e2e.commands import assert_done, assert_failed
from tests.servers import Installation

YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Installation]:
    """Valkey alone, with a user who minted three tokens yesterday."""
    at = Installation(tmp_path)
    at.env["GATEWAY_ARCHIVE"] = f"sqlite:///{tmp_path}/archive/usage.db"
    at.valkey.start()
    try:
        at.add_users(hanna="host")
        with at.valkey.client() as client:
            [[uid, _]] = client.zrange("ui:1", 0, 0, withscores=True)
            client.hset(f"uc:1:{{{uid.decode()}}}:{YESTERDAY:%Y-%m}", f"{YESTERDAY:%d}:tokens.mint.ok", 3)
        yield at
    finally:
        at.stop()


def test_an_update_copies_finished_days_and_reports_read_them(at: Installation) -> None:
    done = at.command("archive", "status")
    assert_done(done, at.env)
    assert done.stdout == "The archive (sqlite) is empty.\n"
    done = at.command("archive", "update")
    assert assert_done(done, at.env) == f"Copied 400 days up to {YESTERDAY}.\n"
    assert at.command("archive", "update").stdout == "The archive was up to date.\n"
    assert json.loads(at.command("archive", "status", "--json").stdout) == {
        "kind": "sqlite",
        "through": str(YESTERDAY),
        "changed_days": 0,
    }
    shown = json.loads(at.command("usage", "show", "--user", "hanna", "--json").stdout)
    assert [(row["date"], row["action"], row["ok"]) for row in shown] == [(str(YESTERDAY), "tokens.mint", 3)]
    assert (at.folder / "archive" / "usage.db").stat().st_mode & 0o777 == 0o600


def test_errors_are_one_line_without_the_password(at: Installation) -> None:
    assert_failed(at.command("archive", "status", GATEWAY_ARCHIVE=""), at.env, "GATEWAY_ARCHIVE is not set")
    url = "postgresql://gateway:hunter2@127.0.0.1:1/usage"
    failed = at.command("archive", "update", GATEWAY_ARCHIVE=url)
    assert_failed(failed, at.env, "the archive cannot be used: ")
    assert "hunter2" not in failed.stderr


def test_the_doctor_says_up_to_which_day_the_archive_is_complete(at: Installation) -> None:
    def found(**env: str) -> tuple[str, str]:
        checks = json.loads(at.command("doctor", "--json", **env).stdout)["checks"]
        return next((one["status"], one["text"]) for one in checks if one["check"] == "archive")

    assert found(GATEWAY_ARCHIVE="") == ("ok", "none; reports reach back 400 days")
    status, text = found()
    assert (status, "does not exist yet" in text) == ("WARN", True)
    assert not (at.folder / "archive").exists()
    assert_done(at.command("archive", "update"), at.env)
    assert found() == ("ok", f"sqlite, holds every day up to {YESTERDAY}")
    status, text = found(GATEWAY_ARCHIVE="postgresql://gateway:hunter2@127.0.0.1:1/usage")
    assert (status, "hunter2" in text) == ("FAIL", False)
