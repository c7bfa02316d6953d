"""What must not start does not: one line on standard error that names the key, and no traceback."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from gateway.cli import cli
from tests.e2e.policies import BUILT_IN
from tests.servers import HOST, Installation


@pytest.fixture
def unstarted(tmp_path: Path) -> Installation:
    """An installation of which nothing runs; its settings are good."""
    return Installation(tmp_path)


def assert_refused(done: subprocess.CompletedProcess[str], *words: str, code: int = 1) -> None:
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("gateway: ")
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REDIS_URL", ""),
        ("REDIS_URL", "localhost:6379"),
        ("REDIS_URL", "redis://127.0.0.1:99999/0"),
        ("REDIS_URL", "http://127.0.0.1/0"),
        ("HMS_APP_ACCESS_KEY", ""),
        ("HMS_APP_ACCESS_KEY", "your_app_access_key"),
        ("HMS_APP_SECRET", ""),
        ("HMS_APP_SECRET", "short"),
        ("HMS_APP_SECRET", "your_app_secret"),
        ("HMS_TEMPLATE_ID", "my template"),
        ("HMS_API_URL", "http://api.100ms.live/v2"),
        ("HMS_API_URL", "ftp://127.0.0.1"),
        ("HMS_API_URL", "https://key:word@127.0.0.1/v2"),
        ("GATEWAY_SECRET", ""),
        ("GATEWAY_SECRET", "x" * 31),
        ("GATEWAY_SECRET", "ab" * 32),
        ("GATEWAY_SECRET", "changeme-changeme-changeme-0123456789"),
        ("GATEWAY_PORT", "http"),
        ("GATEWAY_WORKERS", "0"),
        ("GATEWAY_LOG", "xml"),
        ("GATEWAY_CORS_ORIGINS", "app.example.com"),
    ],
)
def test_bad_setting_stops_the_start(unstarted: Installation, name: str, value: str) -> None:
    assert_refused(unstarted.command("serve", **{name: value}), name)


def test_one_secret_for_both_sides_stops_the_start(unstarted: Installation) -> None:
    secret = secrets.token_urlsafe(48)
    done = unstarted.command("serve", GATEWAY_SECRET=secret, HMS_APP_SECRET=secret)
    assert_refused(done, "GATEWAY_SECRET", "HMS_APP_SECRET")
    assert secret not in done.stderr


def test_refusal_does_not_repeat_a_secret(unstarted: Installation) -> None:
    for name in ("HMS_APP_SECRET", "GATEWAY_SECRET"):
        done = unstarted.command("serve", **{name: "tooshort-4711"})
        assert_refused(done, name)
        assert "tooshort-4711" not in done.stderr
    done = unstarted.command("serve", REDIS_URL="redis://:geheim-4711@/0")
    assert_refused(done, "REDIS_URL")
    assert "geheim-4711" not in done.stderr


def replaced(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return change


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda text: text + "\n[rols.x]\n", "rols"),
        (replaced('access = "open"', 'acess = "open"'), "rooms.acess"),
        (replaced('access = "open"', 'access = "closed"'), "rooms.access"),
        (replaced('"rooms:join", "usage:read-own"', '"rooms:jion", "usage:read-own"'), "roles.member.permissions"),
        (replaced('rate = "120/min"', 'rate = "120 per min"'), "roles.member.limits.api"),
        (replaced('rate = "120/min"', 'rate = "0/min"'), "roles.member.limits.api"),
        (replaced("burst = 60", "burst = 0"), "roles.member.limits.api.burst"),
        (replaced("burst = 60", "burst = 1.5"), "roles.member.limits.api.burst"),
        (replaced("burst = 60", "burst = true"), "roles.member.limits.api.burst"),
        (replaced("size = 100", "size = 100000"), "rooms.size"),
        (replaced('token_ttl = "1h"', 'token_ttl = "1 fortnight"'), "rooms.token_ttl"),
        (replaced('token_ttl = "1h"', 'token_ttl = "48h"'), "rooms.token_ttl"),
        (replaced('applies_to = ["tokens.mint"]', 'applies_to = ["tokens.mnit"]'), "limits.tokens.mint.applies_to"),
        (replaced('owner = ["guest", "host"]', 'ovner = ["guest", "host"]'), "templates.default.ovner"),
        (replaced('owner = ["guest", "host"]', 'owner = "guest"'), "templates.default.owner"),
        (lambda text: text + "\n[rooms]\n", "policy.toml"),
        (lambda text: text + "\nthis is no toml\n", "policy.toml"),
        (lambda text: "", "roles"),
    ],
)
def test_bad_policy_stops_the_start(tmp_path: Path, change: Callable[[str], str], key: str) -> None:
    installation = Installation(tmp_path, policy=change(BUILT_IN.read_text()))
    assert_refused(installation.command("serve"), "policy.toml", key)


def test_missing_policy_file_stops_the_start(unstarted: Installation) -> None:
    assert_refused(unstarted.command("serve", GATEWAY_POLICY="/nowhere/mine.toml"), "mine.toml")


@pytest.mark.parametrize("command", [["serve"], ["serve", "--workers", "2"], ["emulator"]], ids=" ".join)
def test_taken_port_is_said_in_one_line(unstarted: Installation, command: list[str]) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = unstarted.command(*command, "--port", port)
    assert_refused(done, port, "--port")


def test_host_that_is_not_this_machines_is_said_in_one_line(unstarted: Installation) -> None:
    assert_refused(unstarted.command("serve", "--host", "192.0.2.1"), "192.0.2.1")  # TEST-NET-1, RFC 5737


def paths(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    below = command.commands.items() if isinstance(command, click.Group) else ()
    return [path, *(found for name, child in below for found in paths(child, (*path, name)))]


@pytest.mark.parametrize("path", paths(cli), ids=" ".join)
def test_every_command_explains_itself(unstarted: Installation, path: tuple[str, ...]) -> None:
    """Without any setting: who asks for help has none yet."""
    unset = {name: "" for name in unstarted.env if name.startswith(("HMS_", "GATEWAY_", "REDIS_"))}
    done = unstarted.command(*path, "--help", **unset)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.startswith(f"Usage: {' '.join(('gateway', *path))}")


def test_unknown_command_fails(unstarted: Installation) -> None:
    done = unstarted.command("sevre")
    assert done.returncode != 0
    assert "sevre" in done.stderr
    assert "Traceback" not in done.stderr


def test_second_user_of_a_name_is_refused(installation: Installation) -> None:
    for name in ("hanna", "HANNA"):
        done = installation.command("users", "add", name, "--role", "member", stdin="a long enough password\n")
        assert_refused(done, name)


def test_role_that_the_policy_has_not_is_refused(installation: Installation) -> None:
    for arguments in (["users", "add", "newcomer", "--role", "boss"], ["users", "roles", "hanna", "boss"]):
        done = installation.command(*arguments, stdin="a long enough password\n")
        assert done.returncode != 0
        assert "boss" in done.stderr
        assert "Traceback" not in done.stderr
    assert_refused(installation.command("users", "show", "newcomer"), "newcomer")


@pytest.mark.parametrize("password", ["short", "", "x" * 20, "newcomer-newcomer-1", "y1" * 600])
def test_weak_password_is_refused_and_not_repeated(installation: Installation, password: str) -> None:
    done = installation.command("users", "add", "newcomer", "--role", "member", stdin=f"{password}\n")
    assert_refused(done)
    assert not password or password not in done.stderr
    assert_refused(installation.command("users", "show", "newcomer"), "newcomer")


@pytest.mark.parametrize("name", ["ab", "x" * 65, "two words", "tab\there", "zero\u200bwidth", ""])
def test_bad_user_name_is_refused(installation: Installation, name: str) -> None:
    done = installation.command("users", "add", name, "--role", "member", stdin="a long enough password\n")
    assert_refused(done, "user name")


def test_password_on_the_command_line_is_refused(installation: Installation) -> None:
    done = installation.command("users", "add", "newcomer", "a long enough password", "--role", "member")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


def test_users_are_listed_and_shown_without_their_passwords(installation: Installation) -> None:
    listed = installation.command("users", "list", "--json")
    shown = installation.command("users", "show", "Hanna", "--json")
    assert listed.returncode == shown.returncode == 0
    hanna = json.loads(shown.stdout)
    assert hanna in json.loads(listed.stdout)
    assert hanna.keys() == {"id", "username", "display_name", "roles", "status", "ver", "created_ms"}
    assert "hanna" in installation.command("users", "list").stdout
