"""Texts by users, such as names, descriptions and reasons, and the characters that they must not contain."""

import re
import unicodedata
from collections.abc import Iterable

from auth.names import is_invisible

# Characters that reorder the surrounding text: a name could appear in another line (CVE-2021-42574).
_TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")
_NON_JOINER, _JOINER, _KEY_CAP = "\u200c", "\u200d", "\u20e3"
_SELECTORS = "\ufe0e\ufe0f"
_SYMBOLS = ("So", "Sm")
_VIRAMA = 9  # its canonical combining class


class FieldError(ValueError):
    """A value breaks a rule. `field` is the caller's name for it; `rule` completes a sentence about it."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field}: {rule}" if field else rule)
        self.field = field
        self.rule = rule


def no_such(what: str, name: str, known: Iterable[str], where: str = "") -> str:
    """Return a rule about a name that does not exist, with those that do; see `near`."""
    return f"there is no {what}{' ' if what else ''}{name!r}; {near(name, known, where)}"


def near(name: str, known: Iterable[str], where: str = "") -> str:
    """Name what a mistyped name may have been meant to be, and all names that there are, or `where` to read them."""
    import difflib  # only after an error: it takes 5 ms to import

    names = list(known)
    found = difflib.get_close_matches(name, names)
    meant = f"did you mean {' or '.join(found)}? " if found else ""
    every = f"all are listed in {where}" if where else f"there are: {', '.join(names) or 'none'}"
    return f"{meant}{every[0].upper()}{every[1:]}" if meant else every


def printable(text: str) -> str:
    """Return a text on one line, in which nothing controls a terminal, reorders the text or is invisible."""
    return "".join(char if _is_printable(char) else "?" for char in text)


def plain_text(field: str, value: str | None) -> str:
    """Return a text without surrounding space, in NFC.

    Raises FieldError for control characters, line breaks, characters that change the text direction, or invisible
    characters outside an emoji or a word that needs them.
    """
    text = unicodedata.normalize("NFC", value or "").strip()
    if _TURNING.search(text):
        raise FieldError(field, "must not contain characters that change the text direction")
    if any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in text):
        raise FieldError(field, "must not contain control characters or line breaks")
    for before, char, after in zip(f" {text}", text, f"{text[1:]} ", strict=False):
        if is_invisible(char) and not _has_use(before, char, after):
            raise FieldError(field, "must not contain invisible characters")
    return text


def _is_printable(char: str) -> bool:
    return char.isprintable() or char in (_NON_JOINER, _JOINER) or unicodedata.category(char) == "Zs"


def _has_use(before: str, char: str, after: str) -> bool:
    """Return whether an invisible character changes the look of its neighbours and is therefore legitimate.

    A variation selector makes a symbol or a key cap an emoji; a joiner makes one emoji of two. Persian needs the
    non-joiner inside words, and the scripts of India need both after a virama (RFC 5892 appendices A.1 and A.2).
    """
    if char in _SELECTORS:
        return unicodedata.category(before) in _SYMBOLS or (before in "0123456789#*" and after == _KEY_CAP)
    if char == _JOINER and unicodedata.category(after) in _SYMBOLS:
        return before in _SELECTORS or unicodedata.category(before) in (*_SYMBOLS, "Sk")  # Sk: a skin colour
    if char in (_JOINER, _NON_JOINER):
        is_arabic = unicodedata.bidirectional(before) == unicodedata.bidirectional(after) == "AL"
        return is_arabic or unicodedata.combining(before) == _VIRAMA
    return False
