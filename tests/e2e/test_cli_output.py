"""The output of real commands: in a terminal, in a pipe that closes, on a disk that is full."""

from __future__ import annotations

import fcntl
import json
import os
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from gateway.audit import STREAM
from gateway.metering.keys import DEAD_LETTERS
from tests.servers import Installation

COMMANDS = (["policy", "check"], ["users", "list"], ["audit", "tail", "--json"], ["usage", "export"], ["usage", "live"])
ENTRY = {"action": "limits.override", "by": "cli", "subject": "", "request_id": "", "reason": "a reason"}
HOSTILE = "\x1b[2J\x1b]0;root\x07\r\u202e"


def start(at: Installation, output: int, *arguments: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "gateway", *arguments]
    return subprocess.Popen(words, cwd=at.folder, env=at.env, stdout=output, stderr=subprocess.PIPE)


def said_by(processes: list[subprocess.Popen[bytes]]) -> list[tuple[int, str]]:
    """Wait for commands; return how each ended, and its standard error."""
    return [(one.returncode, said.decode()) for one in processes for said in [one.communicate(timeout=60)[1]]]


def test_a_closed_pipe_ends_a_command_without_a_word(installation: Installation) -> None:
    """As `| head -1` does to a command that has more to say."""
    with installation.valkey.client() as client:
        client.xadd(STREAM, {"entry": json.dumps(ENTRY)})  # an empty trail would be said on standard error
    ours, theirs = os.pipe()
    os.close(ours)
    processes = [start(installation, theirs, *arguments) for arguments in COMMANDS]
    os.close(theirs)
    assert {said for _, said in said_by(processes)} == {""}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_a_full_disk_is_one_line(installation: Installation) -> None:
    with Path("/dev/full").open("wb") as full:
        processes = [start(installation, full.fileno(), *arguments) for arguments in COMMANDS]
    assert set(said_by(processes)) == {(1, "gateway: cannot write: No space left on device\n")}


def in_terminal(at: Installation, columns: int, *arguments: str) -> str:
    """Run a command in a terminal, and return what the terminal gets."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    words = [sys.executable, "-m", "gateway", *arguments]
    env = at.env | {"TERM": "xterm-256color"}
    process = subprocess.Popen(words, cwd=at.folder, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    while True:
        try:
            some = os.read(ours, 65_536)
        except OSError:  # Linux says so when the last process has closed the terminal
            break
        if not some:
            break
        said += some
    os.close(ours)
    assert process.wait(10) == 0, said
    return said.decode()


def test_a_terminal_gets_a_frame_and_a_pipe_gets_lines(installation: Installation) -> None:
    lines = seen(installation, 80, "users", "list")
    assert max(map(len, lines)) <= 80
    assert any(set(line.strip()) == {"─"} for line in lines)
    plain = installation.command("users", "list", COLUMNS="60").stdout
    head, *rows = plain.splitlines()
    assert "\x1b" not in plain
    assert re.split("  +", head) == ["User", "Roles", "Status", "Created", "Id"]
    assert {len(re.split("  +", row)) for row in rows} == {5}


def seen(at: Installation, columns: int, *arguments: str) -> list[str]:
    """Return the lines in a terminal, without colours."""
    return re.sub(r"\x1b\[[0-9]*m", "", in_terminal(at, columns, *arguments)).split("\r\n")


def test_ids_and_times_are_whole_in_terminals_of_any_width(installation: Installation) -> None:
    with installation.client_of("hanna") as hanna:
        room = hanna.post("/api/rooms", json={"name": "Physics"}).json()["room"]["id"]
        assert hanna.post(f"/api/rooms/{room}/token", json={"role": "nope"}).status_code == 422
    installation.log_in("hanna")
    user = json.loads(installation.command("users", "show", "hanna", "--sessions", "--json").stdout)
    [session, *_] = user["logged_in"]
    created = installation.command("users", "list", "--name", "hanna", "--csv").stdout.splitlines()[1].split(",")[3]
    for columns in (50, 80, 100, 140):
        words = {
            ("users", "list"): [user["id"], "hanna", created],
            ("users", "show", "hanna", "--sessions"): [user["id"], session["id"], session["address"], created],
            ("usage", "show", "--by", "room"): [room, "Physics", "unknown_role", "tokens.mint"],
        }
        for arguments, whole in words.items():
            lines = seen(installation, columns, *arguments)
            assert "…" not in "".join(lines)
            assert set(whole) <= set(re.split("[ ,]+", " ".join(lines))), (columns, lines)


def test_the_trail_names_rooms_and_nobody(installation: Installation) -> None:
    with installation.client_of("hanna") as hanna:
        room = hanna.post("/api/rooms", json={"name": "Physics"}).json()["room"]["id"]
        me = hanna.get("/api/auth/me").json()["user"]["id"]
    entry = {"action": "peer.removed", "by": "", "subject": me, "request_id": "", "room": room, "budget": "b"}
    with installation.valkey.client() as client:
        client.xadd(STREAM, {"entry": json.dumps(entry)})
        client.xadd(STREAM, {"entry": json.dumps(entry | {"room": "f" * 24})})
    words = ("audit", "tail", "--action", "peer.removed", "--lines", "2")
    lines = installation.command(*words).stdout.splitlines()
    assert [re.sub(r"^\S+Z  ", "", line) for line in lines] == [
        f"peer.removed         (no account) -> hanna ({me}) room=Physics ({room}) budget=b",
        f"peer.removed         (no account) -> hanna ({me}) room={'f' * 24} budget=b",
    ]
    entries = [json.loads(line) for line in installation.command(*words, "--json").stdout.splitlines()]
    assert [one["room_name"] for one in entries] == ["Physics", ""]
    assert f"room=Physics ({room})" in installation.command(*words, "--csv").stdout


def test_a_redis_that_does_not_answer_is_named_with_the_cause(installation: Installation) -> None:
    done = installation.command("users", "list", REDIS_URL="redis://127.0.0.1:1/0")
    assert done.stderr == (
        "gateway: Redis (REDIS_URL): connecting to Redis at 127.0.0.1:1 failed: connection refused\n"
    )


def test_what_others_have_written_never_controls_the_terminal(installation: Installation) -> None:
    """CWE-150. The gateway refuses such names and reasons; 100ms, or who can write to Redis, may not."""
    entry = ENTRY | {"reason": f"{HOSTILE}done"}
    letter = {"body": f"{HOSTILE}body", "why": f"{HOSTILE}why", "at": "1795995024647"}
    with installation.valkey.client() as client:
        client.xadd(STREAM, {"entry": json.dumps(entry)})
        client.xadd(DEAD_LETTERS, letter)  # type: ignore[arg-type]
    shown = [in_terminal(installation, 80, *arguments) for arguments in (["audit", "tail"], ["webhooks", "dead"])]
    assert "done" in shown[0]
    assert "why" in shown[1]
    assert "body" in shown[1]
    assert not re.search("[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e]", "".join(shown))
