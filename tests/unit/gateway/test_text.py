"""Texts by users: the refused characters, and those that must stay allowed."""

import unicodedata

import pytest

from gateway.text import FieldError, plain_text

INVISIBLE = {
    "byte order mark": "\ufeff",
    "Hangul filler": "\u115f",
    "half-width Hangul filler": "\uffa0",
    "zero-width space": "\u200b",
    "zero-width non-joiner": "\u200c",
    "zero-width joiner": "\u200d",
    "left-to-right mark": "\u200e",
    "word joiner": "\u2060",
    "soft hyphen": "\u00ad",
    "combining grapheme joiner": "\u034f",
    "tag letter": "\U000e0061",
    "unassigned default ignorable": "\U000e0200",
    "variation selector": "\ufe0f",
    "supplementary variation selector": "\U000e0100",
    "noncharacter": "\uffff",
    "noncharacter of another plane": "\U0001fffe",
    "noncharacter of the Arabic block": "\ufdd0",
    "private use": "\ue000",
    "supplementary private use": "\U00100000",
    "blank of Braille": "\u2800",
}


@pytest.mark.parametrize("around", ["{}", "Tea{}", "{}Tea", "T{}ea", "Tea {} time", "\u2615{}{}"])
@pytest.mark.parametrize("char", INVISIBLE.values(), ids=INVISIBLE.keys())
def test_an_invisible_character_is_refused_at_any_place(char: str, around: str) -> None:
    """Unicode Technical Report 36, section 3.5: names that look the same or show as nothing."""
    with pytest.raises(FieldError, match=r"^name: must not contain invisible characters$"):
        plain_text("name", around.format(char, char))


@pytest.mark.parametrize(
    "text", ["Tea\x00", "Tea\x1b[31m", "one\ntwo", "one\u2028two", "one\u2029two", "\ud800", "a\tb"]
)
def test_control_characters_and_line_breaks_are_refused(text: str) -> None:
    with pytest.raises(FieldError, match=r"^name: must not contain control characters or line breaks$"):
        plain_text("name", text)


@pytest.mark.parametrize("char", "\u202a\u202d\u202e\u2066\u2069")
def test_characters_that_change_the_text_direction_are_refused(char: str) -> None:
    """CVE-2021-42574"""
    with pytest.raises(FieldError, match=r"^reason: must not contain characters that change the text direction$"):
        plain_text("reason", f"Tea{char}")


@pytest.mark.parametrize(
    "text",
    [
        "Tea time",
        "\u2764\ufe0f",  # heart
        "\u2764\ufe0f\u200d\U0001f525",  # heart on fire
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",  # family
        "\U0001f469\U0001f3fd\u200d\U0001f680",  # astronaut of a skin colour
        "\U0001f642\u200d\u2194\ufe0f",  # head that shakes
        "\U0001f3f3\ufe0f\u200d\U0001f308 week",  # rainbow flag
        "1\ufe0f\u20e3 first",  # key cap
        "\U0001f1e9\U0001f1ea",  # flag of two letters
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian: I want
        "\u0915\u094d\u200d\u0937",  # Devanagari: half a letter
        "\u05e9\u05dc\u05d5\u05dd",
        "\U0001fae9",  # newer than the Unicode of some Pythons
    ],
)
def test_legitimate_texts_are_unchanged(text: str) -> None:
    assert plain_text("name", text) == text


@pytest.mark.parametrize(
    ("text", "plain"), [(None, ""), ("", ""), ("  Tea\u00a0\u3000", "Tea"), ("Cafe\u0301", "Caf\u00e9")]
)
def test_surrounding_space_is_removed_and_the_rest_is_composed(text: str | None, plain: str) -> None:
    assert plain_text("name", text) == plain
    assert unicodedata.is_normalized("NFC", plain)
