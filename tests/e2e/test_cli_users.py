"""The commands for registration and administration: failures in one line, no secrets, JSON output."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import secrets
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.e2e.asking import Admin, ask
from tests.e2e.checks import assert_problem
from tests.servers import Installation, wait_until


def run(installation: Installation, *commands: list[str]) -> list[subprocess.CompletedProcess[str]]:
    return [installation.command(*arguments) for arguments in commands]


def test_commands_about_an_unknown_user_fail_in_one_line(guarded_installation: Installation) -> None:
    nobody = "nobody-of-that-name"
    for done in run(
        guarded_installation,
        ["users", "show", nobody],
        ["users", "roles", nobody, "member"],
        ["users", "disable", nobody],
        ["users", "rename", nobody, "Somebody"],
        ["users", "delete", nobody, "--yes"],
        ["users", "sessions", nobody],
        ["users", "logout", nobody],
        ["users", "password-link", nobody],
    ):
        assert done.returncode == 1, done.args
        assert done.stderr.startswith("gateway: ")
        assert done.stderr.count("\n") == 1
        assert nobody in done.stderr
        assert done.stdout == ""


def test_wrong_arguments_fail_and_are_named(guarded_installation: Installation) -> None:
    for done, words in zip(
        run(
            guarded_installation,
            ["users", "invite", "--role", "boss"],
            ["users", "invite", "--role", "member", "--expires", "91d"],
            ["users", "invite", "--role", "member", "--uses", "0"],
            ["users", "rename", "ada", "two\nlines"],
            ["users", "password-link", "ada", "--page", "https://app.example.com/#/password"],
            ["users", "password-link", "ada", "--page", "app.example.com/password"],
            ["audit", "tail", "--lines", "0"],
        ),
        ["boss", "at most 90d", "--uses", "line breaks", "contain no #", "http:// or https://", "--lines"],
        strict=True,
    ):
        assert done.returncode in (1, 2)
        assert words in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout == ""


def test_a_password_that_is_not_text_is_refused_with_a_message(guarded_installation: Installation) -> None:
    command = [sys.executable, "-m", "gateway", "users", "add", "newcomer", "--role", "member"]
    own = guarded_installation
    env = own.env | {"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(command, cwd=own.folder, env=env, input=b"\xff\xfe" * 12, capture_output=True, check=False)
    assert done.returncode != 0
    assert b"UTF-8" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(("mode", "warned"), [("closed", True), ("invite", False), ("open", False)])
def test_inviting_while_registration_is_closed_prints_a_warning(
    guarded_installation: Installation, mode: str, warned: bool
) -> None:
    done = guarded_installation.command("users", "invite", "--role", "host", "--json", GATEWAY_REGISTRATION=mode)
    assert json.loads(done.stdout)["uses"] == 1
    assert ("Registration is closed" in done.stderr) == warned


def test_an_account_can_be_managed_by_the_command_line_alone(guarded_installation: Installation, admin: Admin) -> None:
    """Add without a password, link, log out, rename, disable, delete: each takes effect at once in the gateway."""
    own, name = guarded_installation, f"Clara.{secrets.token_hex(4)}"
    done = own.command("users", "add", name, "--role", "host", "--no-password", "--display-name", "Clara", "--json")
    user = json.loads(done.stdout)
    assert (user["username"], user["display_name"], user["roles"]) == (name, "Clara", ["host"])

    done = own.command("users", "password-link", name, "--page", "https://app.example.com/password")
    page, _, code = done.stdout.strip().partition("#token=")
    assert page == "https://app.example.com/password"
    password = "seventeen green umbrellas"
    body = {"token": code, "new_password": password}
    assert ask(own, "POST", "/api/auth/password/setup", json=body).status_code == 204
    credentials = {"username": name, "password": password}
    login = ask(own, "POST", "/api/auth/login", json=credentials).json()

    [listed] = json.loads(own.command("users", "sessions", name, "--json").stdout)
    assert listed["id"] == login["session_id"]
    head, line = own.command("users", "sessions", name).stdout.splitlines()
    assert head.startswith("Session ")
    assert line.startswith(f"{login['session_id']}  ")
    account = own.command("users", "show", name).stdout
    assert f"Last login: {datetime.now(UTC):%Y-%m-%d}" in account
    assert "sessions: 1." in account
    assert re.search(r"^login +1 +1 +1$", account, re.MULTILINE)
    details = json.loads(own.command("users", "show", name, "--json").stdout)
    assert (details["sessions"], details["usage"]["today"]["login"]["ok"]) == (1, 1)
    assert details["last_login"].startswith(f"{datetime.now(UTC):%Y-%m-%d}T")
    other = ask(own, "POST", "/api/auth/login", json=credentials).json()
    done = own.command("users", "logout", name, "--session", other["session_id"])
    assert done.stdout == f"1 session of {name} ended.\n"
    assert_problem(ask(own, "GET", "/api/auth/me", token=other["access_token"]), 401, "invalid_token")
    done = own.command("users", "logout", name, "--session", other["session_id"])
    assert (done.returncode, done.stderr) == (1, f"gateway: {name} has no such session.\n")
    assert own.command("users", "logout", name.lower()).stdout == f"1 session of {name.lower()} ended.\n"
    assert_problem(ask(own, "GET", "/api/auth/me", token=login["access_token"]), 401, "invalid_token")
    assert "has no sessions" in own.command("users", "sessions", name).stdout

    assert own.command("users", "rename", name, "Clara Zetkin").stdout == f"{name} is shown as Clara Zetkin.\n"
    assert own.command("users", "disable", name).stdout == f"{name} is disabled.\n"
    assert_problem(ask(own, "POST", "/api/auth/login", json=credentials), 401, "invalid_credentials")
    kept, gone = own.command("users", "delete", name), own.command("users", "delete", name, "--yes")
    assert (kept.returncode, kept.stdout) == (1, "")  # without a terminal there is no prompt
    assert gone.stdout == f"{name} is deleted.\n"
    listed_after = json.loads(own.command("users", "list", "--name", "clara", "--json").stdout)
    assert name not in [one["username"] for one in listed_after]
    trail = [entry for entry in admin.audit(user=user["id"]) if entry["by"] == "cli"]
    assert {entry["action"] for entry in trail} == {
        "user.created", "user.password_link", "user.session_ended", "user.sessions_ended", "user.renamed",
        "user.disabled", "user.deleted", "usage.read",
    }  # fmt: skip


def test_an_account_is_shown_with_limits_sessions_and_what_was_denied(
    guarded_installation: Installation, admin: Admin
) -> None:
    own, person = guarded_installation, admin.add()
    token = [person.log_in(), person.log_in()][0]["access_token"]
    assert own.command("limits", "override", person.name, "--block", "--reason", "spam", "--for", "2h").returncode == 0
    assert ask(own, "GET", "/api/auth/me", token=token).status_code == 429
    shown = own.command("users", "show", person.name, "--sessions").stdout
    assert len(re.findall(r"^[0-9a-f]{20}  \d{4}-\d\d-\d\dT\d\d:\d\dZ  ", shown, re.MULTILINE)) == 2
    assert re.search(r"^api +\d+/min, burst \d+ +\d+  ", shown, re.MULTILINE)
    assert re.search(r"^Blocked until \S+Z\.$", shown, re.MULTILINE)
    assert re.search(r"^Set by cli until \S+Z: \* blocked \(spam\)$", shown, re.MULTILINE)
    assert re.search(r"^  denied: block +1 +1 +1$", shown, re.MULTILINE), shown
    plain = json.loads(own.command("users", "show", person.name, "--sessions", "--json").stdout)
    assert (plain["sessions"], len(plain["logged_in"])) == (2, 2)
    assert plain["limits"]["blocked_until"]
    assert [one["name"] for one in plain["limits"]["overrides"]] == ["*"]


def test_a_disabled_or_deleted_account_is_shown_as_such(guarded_installation: Installation, admin: Admin) -> None:
    own, person = guarded_installation, admin.add()
    assert own.command("users", "disable", person.name).returncode == 0
    shown = own.command("users", "show", person.name).stdout
    assert f"no one can log in to it. `gateway users enable {person.name}`" in shown
    assert own.command("users", "delete", person.name, "--yes").returncode == 0
    assert own.command("users", "show", person.name).returncode == 1
    gone = own.command("users", "show", person.id)
    assert (gone.returncode, person.name in gone.stdout) == (0, False)
    assert "The account was deleted. What it has used stays counted" in gone.stdout
    assert json.loads(own.command("users", "show", person.id, "--json").stdout)["status"] == "deleted"
    assert own.command("users", "show", "u" + "a" * 20).returncode == 1


def test_the_trail_is_printed_oldest_first_and_as_json(guarded_installation: Installation, admin: Admin) -> None:
    person = admin.add()
    admin.ask("PATCH", f"/api/admin/users/{person.id}", json={"status": "disabled"})
    text, plain, nothing = run(
        guarded_installation,
        ["audit", "tail", "--user", person.name],
        ["audit", "tail", "--user", person.id, "--action", "user", "--json"],
        ["audit", "tail", "--user", "u" + "a" * 20],
    )
    lines = text.stdout.splitlines()
    assert [line.split()[1] for line in lines] == ["user.created", "user.disabled"]
    assert re.match(r"[0-9-]{10}T[0-9:.]+Z ", lines[0])
    assert f"ada ({admin.id}) -> {person.name} ({person.id})" in lines[0]
    entries = [json.loads(line) for line in plain.stdout.splitlines()]
    assert [entry["action"] for entry in entries] == ["user.created", "user.disabled"]
    assert all((entry["by"], entry["by_name"]) == (admin.id, "ada") for entry in entries)
    assert all((entry["subject"], entry["subject_name"]) == (person.id, person.name) for entry in entries)
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "No entry matches" in nothing.stderr


def test_following_shows_new_entries_and_ends_with_ctrl_c(
    guarded_installation: Installation, admin: Admin, tmp_path: Path
) -> None:
    person, own, output = admin.add(), guarded_installation, tmp_path / "follow"
    command = [sys.executable, "-u", "-m", "gateway", "audit", "tail", "--follow", "--user", person.id]
    with output.open("wb") as stream:
        process = subprocess.Popen(command, cwd=own.folder, env=own.env, stdout=stream, stderr=stream)
    try:
        wait_until(lambda: "user.created" in output.read_text(), "the earlier entries are shown")
        person.log_in()
        wait_until(lambda: "login" in output.read_text(), "a login is shown")
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(10) in (0, 130)
    finally:
        process.kill()
        process.wait()
    said = output.read_text()
    assert "Traceback" not in said
    assert len(said.splitlines()) == 2


def test_tail_finds_old_entries(guarded_installation: Installation, admin: Admin) -> None:
    person = admin.add()
    other = json.dumps({"action": "token.minted", "by": "", "subject": "", "request_id": ""})
    with guarded_installation.valkey.client() as client, client.pipeline(transaction=False) as many:
        for _ in range(10_500):
            many.xadd("audit:1", {"entry": other})
        many.execute()
    done = guarded_installation.command("audit", "tail", "--user", person.name)
    assert done.stdout.count("user.created") == done.stdout.count("\n") == 1


def test_tail_prints_all_entries_since_a_time_also_as_csv(guarded_installation: Installation, admin: Admin) -> None:
    person = admin.add()
    for _ in range(25):
        admin.ask("PATCH", f"/api/admin/users/{person.id}", json={"display_name": secrets.token_hex(4)})
    with guarded_installation.valkey.client() as client:
        old = json.dumps({"action": "login", "by": person.id, "subject": person.id, "request_id": ""})
        first_ms = int(client.xrange("audit:1", count=1)[0][0].partition(b"-")[0])  # type: ignore[index]
        client.xadd("audit:later", {"entry": old}, id=f"{first_ms - 3 * 3_600_000}-0")
        for place, words in client.xrange("audit:1"):  # type: ignore[union-attr]
            client.xadd("audit:later", words, id=place)
        client.rename("audit:later", "audit:1")
    mine = ["audit", "tail", "--user", person.name]
    recent, everything, table = run(
        guarded_installation, [*mine, "--since", "2h"], [*mine, "--lines", "100"], [*mine, "--since", "2h", "--csv"]
    )
    assert (recent.stdout.count("\n"), everything.stdout.count("\n")) == (26, 27)
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    before, within, wrong = run(
        guarded_installation,
        [*mine, "--until", "2h"],
        [*mine, "--since", f"{day}T00:00+00:00", "--until", day],
        [*mine, "--since", "1h", "--until", "2h"],
    )
    assert (before.stdout.count("\n"), within.stdout.count("user.renamed")) == (1, 25)
    assert (wrong.returncode, "--since: must not be after --until" in wrong.stderr) == (2, True)
    rows = list(csv.DictReader(io.StringIO(table.stdout)))
    assert {row["action"] for row in rows} == {"user.created", "user.renamed"}
    assert {row["subject_name"] for row in rows} == {person.name}
    assert len(rows) == 26


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--user", "nobody-of-that-name"], "gateway: There is no user named"),
        (["--action", "LOGIN"], "gateway: Invalid value for --action: must look like login"),
        (
            ["--action", "room.create"],
            "gateway: Invalid value for --action: there is no action 'room.create'; did you mean room.created",
        ),
        (["--since", "2 hours"], "gateway: Invalid value for '--since': must look like 90s"),
    ],
)
def test_tail_with_invalid_filters_is_refused(
    guarded_installation: Installation, arguments: list[str], said: str
) -> None:
    done = guarded_installation.command("audit", "tail", *arguments)
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["users", "list"], ["audit", "tail"], ["audit", "tail", "--follow"]])
def test_an_unreachable_redis_is_reported_in_one_line(guarded_installation: Installation, arguments: list[str]) -> None:
    done = guarded_installation.command(*arguments, REDIS_URL="redis://:hidden-password@127.0.0.1:1/0")
    assert done.returncode == 1
    assert done.stderr.startswith("gateway: Redis (REDIS_URL): ")
    assert done.stderr.count("\n") == 1
    assert "hidden-password" not in done.stderr
