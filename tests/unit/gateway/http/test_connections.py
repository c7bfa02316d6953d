"""How many connections a process keeps, and which one it closes for another."""

from __future__ import annotations

import logging
import resource

import pytest
from uvicorn.server import ServerState

from gateway.http import connections
from gateway.http.connections import (
    MOST_CONNECTIONS,
    OTHER_FILES,
    Places,
    most_connections,
    places_of,
    raise_file_limit,
)


class Connection:
    def __init__(self) -> None:
        self.given_up = False

    def give_up(self) -> None:
        self.given_up = True


class Server:
    """The places of a server, and its connections."""

    def __init__(self, most: int) -> None:
        self._state = ServerState()
        self.places = Places(self._state, most)

    def accept(self) -> Connection:
        one = Connection()
        self._state.connections.add(one)  # type: ignore[arg-type]
        self.places.enter(one)
        return one


@pytest.fixture(autouse=True)
def _restored() -> object:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_one_that_has_waited_longest_for_its_client_is_closed_for_a_new_one() -> None:
    server = Server(3)
    first, second, third = (server.accept() for _ in range(3))
    server.places.wait(first)  # its request has been answered
    server.places.leave(second)  # its request is being served
    server.accept()
    assert [one.given_up for one in (first, second, third)] == [False, False, True]
    server.accept()
    assert [one.given_up for one in (first, second)] == [True, False]


def test_no_connection_whose_request_is_being_served_is_closed_for_a_new_one() -> None:
    server = Server(2)
    served = [server.accept() for _ in range(2)]
    for one in served:
        server.places.leave(one)
    refused = [server.accept() for _ in range(3)]
    assert not any(one.given_up for one in served)
    assert all(one.given_up for one in refused)


def test_a_full_process_warns_once_a_minute(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(connections.time, "monotonic", lambda: now)
    server = Server(1)
    with caplog.at_level(logging.WARNING, "gateway"):
        for _ in range(5):
            server.accept()
        assert len(caplog.messages) == 1
        assert caplog.messages[0].startswith("this process has 1 connections")
        now += 61
        server.accept()
        assert len(caplog.messages) == 2


def test_all_connections_of_a_server_share_its_places() -> None:
    one, other = ServerState(), ServerState()
    assert places_of(one) is places_of(one)
    assert places_of(one) is not places_of(other)


@pytest.mark.parametrize(("files", "most"), [(1024, 1024 - OTHER_FILES), (100, 16), (12_000, MOST_CONNECTIONS)])
def test_some_files_are_kept_for_everything_else(files: int, most: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < files:
        pytest.skip("the machine allows fewer open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    assert most_connections() == most


def test_the_limit_on_open_files_is_raised_as_far_as_it_may_and_never_lowered(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: set_to.append(limits))
    unlimited = resource.RLIM_INFINITY
    for limits in ((1024, 4096), (1024, unlimited), (1024, 500_000), (65_536, 500_000), (unlimited, unlimited)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limits=limits: limits)
        raise_file_limit()
    wanted = MOST_CONNECTIONS + OTHER_FILES
    assert set_to == [(4096, 4096), (wanted, unlimited), (wanted, 500_000)]
    monkeypatch.undo()


def test_a_system_that_forbids_to_raise_it_does_not_stop_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*_: object) -> None:
        raise ValueError("not allowed")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    monkeypatch.setattr(resource, "setrlimit", forbid)
    raise_file_limit()
    monkeypatch.undo()
