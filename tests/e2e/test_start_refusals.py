"""Refused starts: one line on standard error that names the key, and no traceback."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from gateway.cli import cli, main
from tests.e2e.policies import BUILT_IN
from tests.e2e.templates import create_room
from tests.servers import HOST, REPOSITORY, Installation, free_port


@pytest.fixture
def unstarted(tmp_path: Path) -> Installation:
    """An installation with valid settings and without running processes."""
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
        ("GATEWAY_SIGNING_KEY", "none.pem"),
        ("GATEWAY_PORT", "http"),
        ("GATEWAY_WORKERS", "0"),
        ("GATEWAY_LOG", "xml"),
        ("GATEWAY_CORS_ORIGINS", "app.example.com"),
        ("GATEWAY_PASSWORD_MIN_LENGTH", "7"),
        ("GATEWAY_ARGON2_MEMORY_KIB", "19455"),
        ("GATEWAY_ARGON2_PASSES", "17"),
        ("GATEWAY_REDIS_TIMEOUT_MS", "0"),
        ("GATEWAY_BREACHED_PASSWORDS", "/nowhere/breached.txt"),
        ("GATEWAY_BREACHED_PASSWORDS", "/dev/null"),
    ],
)
def test_bad_setting_stops_the_start(unstarted: Installation, name: str, value: str) -> None:
    assert_refused(unstarted.command("serve", **{name: value}), name)


@pytest.mark.parametrize(
    ("arguments", "env"),
    [
        (["serve"], {"GATEWAY_PORT": "http"}),
        (["users", "list"], {}),
        (["policy", "check", "nowhere.toml"], {}),
        (["policy", "check"], {}),
        (["rooms", "end"], {}),
    ],
)
def test_real_and_forked_commands_agree(unstarted: Installation, arguments: list[str], env: dict[str, str]) -> None:
    command = [sys.executable, "-m", "gateway"]
    if arguments == ["policy", "check"]:
        command = [str(Path(sys.executable).with_name("gateway"))]
    real = subprocess.run(
        [*command, *arguments],
        cwd=unstarted.folder,
        env=unstarted.env | env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    forked = unstarted.command(*arguments, **env)
    assert (real.returncode, real.stdout, real.stderr) == (forked.returncode, forked.stdout, forked.stderr)


def test_using_one_secret_for_gateway_and_100ms_stops_the_start(unstarted: Installation) -> None:
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


@pytest.mark.parametrize("command", [("serve",), ("policy", "check")])
def test_a_pipe_in_place_of_the_policy_file_is_refused_without_waiting(
    unstarted: Installation, tmp_path: Path, command: tuple[str, ...]
) -> None:
    os.mkfifo(tmp_path / "mine.toml")
    done = unstarted.command(*command, GATEWAY_POLICY=str(tmp_path / "mine.toml"))
    assert_refused(done, "mine.toml: is not a regular file")


@pytest.mark.parametrize(
    ("command", "ways"),
    [
        (["serve"], "--port or GATEWAY_PORT"),
        (["serve", "--workers", "2"], "--port or GATEWAY_PORT"),
        (["emulator"], "--port"),  # it does not read GATEWAY_PORT, which is the gateway's
    ],
)
def test_taken_port_is_reported_in_one_line_with_how_to_choose_another(
    unstarted: Installation, command: list[str], ways: str
) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = unstarted.command(*command, "--port", port)
    assert_refused(done, port)
    assert done.stderr.endswith(f"choose another with {ways}\n")


def test_second_emulator_on_a_state_file_is_refused_unless_the_first_has_died(unstarted: Installation) -> None:
    """Each would overwrite the other's rooms."""
    try:
        unstarted.start_emulator()
        room = create_room(unstarted, "kept")
        refused = unstarted.command("emulator", "--port", str(free_port()), "--state", "emulator.json")
        assert_refused(refused, "another emulator uses the state file emulator.json", "--state")
        unstarted.emulator.kill()  # SIGKILL: nothing is cleaned up
        unstarted.start_emulator()
        assert room in (unstarted.folder / "emulator.json").read_text()
    finally:
        unstarted.emulator.stop()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--webhook-header", "nope"], ["--webhook-header", "--webhook-url"]),
        (["--webhook-header", "X-Secret=s3cret"], ["--webhook-header", "--webhook-url"]),
        (["--webhook-url", "http://127.0.0.1:9/", "--webhook-header", "nope"], ["NAME=VALUE"]),
        (["--webhook-url", "http://8.8.8.8/x"], ["--webhook-url", "only to loopback and private addresses"]),
    ],
)
def test_webhook_that_could_never_receive_an_event_stops_the_emulator(
    unstarted: Installation, options: list[str], words: list[str]
) -> None:
    done = unstarted.command("emulator", "--port", str(free_port()), *options)
    assert_refused(done, *words)
    assert "s3cret" not in done.stderr


def test_state_file_in_a_missing_folder_is_reported_in_one_line(unstarted: Installation) -> None:
    done = unstarted.command("emulator", "--port", str(free_port()), "--state", "no/folder/state.json")
    assert_refused(done, "no/folder/state.json", "No such file")


def test_foreign_host_address_is_refused_in_one_line(unstarted: Installation) -> None:
    assert_refused(unstarted.command("serve", "--host", "192.0.2.1"), "192.0.2.1")  # TEST-NET-1, RFC 5737


def commands(command: click.Command, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], click.Command]:
    """Return a command and all its subcommands, by the words that call them."""
    found = {path: command}
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            found |= commands(child, (*path, name))
    return found


@pytest.mark.parametrize(
    ("arguments", "said", "command"),
    [
        (["rooms", "adopt", "x"], "Missing option '--owner'.", "gateway rooms adopt"),
        (["users", "show"], "Missing argument 'USERNAME'.", "gateway users show"),
        (["users", "show", "a", "b"], "Got unexpected extra argument (b).", "gateway users show"),
        (["serve", "--port", "0"], "Invalid value for '--port': 0 ", "gateway serve"),
        (["serve", "--prot", "1"], "(Did you mean one of: '--host', '--port'?) Try", "gateway serve"),
        (["users", "show", "a", "b\nc"], "Got unexpected extra argument (b c).", "gateway users show"),
        (["nothing"], "No such command 'nothing'.", "gateway"),
        (["--nothing"], "No such option '--nothing'.", "gateway"),
        (["limits", "override", "ada"], "Give --name, or --block.", "gateway limits override"),
        (["limits", "override", "ada", "--block"], "Give --reason;", "gateway limits override"),
        (["users", "list", "--csv", "--json"], "Give --csv or --json, not both.", "gateway users list"),
    ],
)
def test_wrong_usage_is_reported_in_one_line_with_a_pointer_to_help(
    unstarted: Installation, arguments: list[str], said: str, command: str
) -> None:
    done = unstarted.command(*arguments)
    assert_refused(done, said, code=2)
    assert done.stderr.endswith(f"Try '{command} --help'.\n")


COMMANDS = commands(cli)
GROUPS = [  # but `gateway emulator`, which runs without a subcommand
    path
    for path, command in COMMANDS.items()
    if isinstance(command, click.Group) and not command.invoke_without_command
]


@pytest.mark.parametrize("path", GROUPS, ids=" ".join)
def test_group_without_a_command_shows_its_help_and_fails_in_one_line(
    unstarted: Installation, path: tuple[str, ...]
) -> None:
    done = unstarted.command(*path)
    name = " ".join(("gateway", *path))
    assert (done.returncode, done.stderr) == (2, f"gateway: Missing command. Try '{name} --help'.\n")
    assert done.stdout.startswith(f"Usage: {name} ")


@pytest.mark.parametrize(
    "arguments", [["users", "list", "--name"], ["users", "uninvite"], ["policy", "explain", "ada"], ["init", "--x"], []]
)
def test_argument_that_is_not_utf_8_is_refused_in_one_line(unstarted: Installation, arguments: list[str]) -> None:
    """PEP 383: such bytes arrive as lone surrogates, and printing or sending those fails with a traceback."""
    done = unstarted.command(*arguments, os.fsdecode(b"\xff"))
    assert_refused(done, f"argument {len(arguments) + 1} is not UTF-8", code=2)


def test_answering_no_ends_with_one_line(unstarted: Installation) -> None:
    done = unstarted.command("users", "delete", "ada", stdin="n\n")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("gateway: aborted")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_help(
    path: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without any setting, as at first use. In this process, because forty interpreters would take a minute."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith(("HMS_", "GATEWAY_", "REDIS_")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "argv", ["gateway", *path, "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert (ended.value.code, said.err) == (0, "")
    assert said.out.startswith(f"Usage: {' '.join(('gateway', *path))} ")
    assert len(said.out.splitlines()) > 4


def test_help_works_without_configuration(unstarted: Installation) -> None:
    unset = {name: "" for name in unstarted.env if name.startswith(("HMS_", "GATEWAY_", "REDIS_"))}
    done = unstarted.command("--help", **unset)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path[0] for path in COMMANDS if path} <= set(done.stdout.split())


def test_list_of_commands_repeats_how_the_help_of_each_begins() -> None:
    """The list imports none of the commands, so it has these words from elsewhere."""
    listed = cli.get_help(click.Context(cli, terminal_width=200)).partition("\nCommands:\n")[2].splitlines()
    said = {line.split()[0]: line.split(None, 1)[1].rstrip(".") for line in listed}
    helps = {path[0]: " ".join(str(command.help).split()) for path, command in COMMANDS.items() if len(path) == 1}
    assert said.keys() == helps.keys()
    assert [name for name, text in helps.items() if not text.startswith(said[name])] == []


def imported_by(program: str) -> set[str]:
    """Return the modules that a program has imported in an interpreter of its own."""
    program += "\nprint('\\n', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.stdout, done.stderr
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("paths", "needless"),
    [
        (["", "serve"], {"litestar", "uvicorn", "redis", "httpx", "rich", "jwt", "zxcvbn"}),
        (["limits", "rooms", "users", "policy check"], {"litestar", "uvicorn", "zxcvbn"}),
    ],
)
def test_help_does_not_import_libraries_that_only_the_server_needs(paths: list[str], needless: set[str]) -> None:
    """The imports take half a second, which would also delay the errors of `gateway serve`."""
    program = "import sys; from gateway.cli import main"
    for path in paths:
        program += f"\nsys.argv[1:] = {[*path.split(), '--help']}\ntry: main()\nexcept SystemExit: pass"
    imported = imported_by(program)
    assert "gateway.settings" in imported
    assert not imported & needless


def test_worker_waits_for_no_library_of_the_command_line_or_of_a_rare_request() -> None:
    """Together they take a fifth of the start of a worker, and 17 MiB."""
    imported = imported_by("import sys, gateway.app")
    assert {"httpx", "litestar"} <= imported
    assert not imported & {"rich", "pygments", "zxcvbn"}


def test_worker_collects_garbage_once_it_has_started(unstarted: Installation) -> None:
    """`serve` turns it off for the imports."""
    program = "import gc; gc.disable()\nfrom gateway.app import from_env; from_env()\nprint(gc.isenabled())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=unstarted.folder,
        env=unstarted.env,
        check=False,
    )
    assert done.stdout == "True\n", done.stderr


def test_unknown_command_fails(unstarted: Installation) -> None:
    done = unstarted.command("sevre")
    assert done.returncode != 0
    assert "sevre" in done.stderr
    assert "Traceback" not in done.stderr


def test_taken_user_name_is_refused(installation: Installation) -> None:
    for name in ("hanna", "HANNA"):
        done = installation.command("users", "add", name, "--role", "member", stdin="a long enough password\n")
        assert_refused(done, name)


def test_role_missing_from_the_policy_is_refused(installation: Installation) -> None:
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


def test_command_line_has_the_same_password_rules_as_the_gateway(installation: Installation, tmp_path: Path) -> None:
    arguments = ["users", "add", "newcomer", "--role", "member"]
    breached = tmp_path / "breached.txt"
    breached.write_text("a long enough password\n")
    for settings, words in (
        ({"GATEWAY_BREACHED_PASSWORDS": str(breached)}, "data breach"),
        ({"GATEWAY_PASSWORD_MIN_LENGTH": "40"}, "at least 40 characters"),
        ({"GATEWAY_ARGON2_PASSES": "1"}, "GATEWAY_ARGON2_PASSES"),
    ):
        assert_refused(installation.command(*arguments, stdin="a long enough password\n", **settings), words)
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
    beside = {"last_login", "sessions", "usage", "limits", "time_zone"}
    assert beside <= hanna.keys()
    hanna = {name: value for name, value in hanna.items() if name not in beside}
    assert hanna in json.loads(listed.stdout)
    own = {"id", "username", "display_name", "roles", "status", "ver", "created_ms", "identity", "mapped"}
    assert hanna.keys() == own
    assert "hanna" in installation.command("users", "list").stdout


@pytest.mark.parametrize(
    ("name", "value"), [("GATEWAY_REGISTRATION", "nope"), ("GATEWAY_BREACHED_PASSWORDS", "/nowhere/breached.txt")]
)
def test_bad_setting_stops_the_preparation_of_a_demo(unstarted: Installation, name: str, value: str) -> None:
    """Otherwise `docker compose up` would start a gateway that fails again and again."""
    demo = {given: "" for given in ("HMS_APP_ACCESS_KEY", "HMS_APP_SECRET", "HMS_TEMPLATE_ID", "HMS_API_URL")}
    demo |= {"DEMO_HMS_API_URL": unstarted.env["HMS_API_URL"], name: value}
    assert_refused(unstarted.command("demo", "--prepare", **demo), name)
