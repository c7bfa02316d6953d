"""Cursors: only the gateway makes them, each for one kind of list."""

import base64
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.keys import KeyRing
from gateway.http.cursors import Cursors

SECRET, OTHER = "s" * 20 + "cursor-secret-of-tests", "o" * 20 + "another-secret-of-tests"
CURSORS = Cursors(KeyRing([SECRET], "cursor"))
URL_SAFE = set(string.ascii_letters + string.digits + "-_")


def refused(cursors: Cursors, kind: str, cursor: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        cursors.open(kind, cursor)


@given(
    words=st.lists(st.integers(0, 2**63) | st.text(st.characters(codec="utf-8", exclude_characters="\n")), min_size=1)
)
def test_a_cursor_opens_as_the_sealed_words(words: list[str | int]) -> None:
    cursor = CURSORS.seal("rooms", *words)
    assert set(cursor) <= URL_SAFE
    assert CURSORS.open("rooms", cursor) == [str(word) for word in words]


def test_a_cursor_of_a_room_list_fits_the_query_parameter() -> None:
    assert len(CURSORS.seal("rooms", 1_800_000_000_000, "0" * 24)) <= 256


def test_a_cursor_opens_only_for_its_own_kind_of_list() -> None:
    cursor = CURSORS.seal("rooms", 5, "id")
    for kind in ("users", "room", "rooms\n5", "Rooms", ""):
        refused(CURSORS, kind, cursor)


def test_a_cursor_of_another_secret_or_purpose_is_refused() -> None:
    for ring in (KeyRing([OTHER], "cursor"), KeyRing([SECRET], "refresh")):
        refused(CURSORS, "rooms", Cursors(ring).seal("rooms", 5, "id"))


def test_a_cursor_of_an_older_secret_opens_while_that_secret_is_listed() -> None:
    rotated = Cursors(KeyRing([OTHER, SECRET], "cursor"))
    assert rotated.open("rooms", CURSORS.seal("rooms", 5, "id")) == ["5", "id"]
    refused(CURSORS, "rooms", rotated.seal("rooms", 5, "id"))


@given(flip=st.integers(0), to=st.sampled_from(sorted(URL_SAFE)))
def test_a_changed_character_is_refused_or_changes_nothing(flip: int, to: str) -> None:
    cursor = CURSORS.seal("rooms", 1_800_000_000_000, "0" * 24)
    at = flip % len(cursor)
    changed = cursor[:at] + to + cursor[at + 1 :]
    try:
        opened = CURSORS.open("rooms", changed)
    except ValueError:
        return
    assert opened == ["1800000000000", "0" * 24]  # the same letter, or bits that base64 does not use


def forged(text: str, mac: str | None = None) -> str:
    return base64.urlsafe_b64encode(((mac or "0" * 32) + text).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "A",
        "AA",
        "====",
        "!!!!",
        "\0",
        "é",
        "😀" * 8,
        "\ud800",
        " ",
        "x" * 256,
        forged("rooms\n5\nid"),
        forged("rooms\n5\nid", "é" * 16),
        forged(""),
        forged("rooms"),
        base64.urlsafe_b64encode(b"\xff" * 64).decode(),
    ],
)
def test_a_text_that_is_not_a_cursor_is_refused(cursor: str) -> None:
    refused(CURSORS, "rooms", cursor)


def test_a_truncated_or_extended_cursor_is_refused() -> None:
    cursor = CURSORS.seal("rooms", 1_800_000_000_000, "0" * 24)
    for length in range(len(cursor) - 1):
        refused(CURSORS, "rooms", cursor[:length])
    refused(CURSORS, "rooms", cursor + "MDAw")
