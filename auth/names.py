"""User names: which are allowed, and when two are the same."""

import re
import unicodedata

from .errors import BadUsername
from .key_texts import KEY_ID

UID = re.compile(r"u[a-z2-7]{20}")
_MOST_SUGGESTED = 40  # leaves room for what makes it unique
# Shown as nothing, though of none of the categories that `is_invisible` names: Unicode's Default_Ignorable_Code_Point
# (DerivedCoreProperties.txt), including unassigned ones, and the Braille blank. NFKC keeps them.
_BLANKS = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8"
    "\U000e0000-\U000e0fff]"
)


def is_invisible(char: str) -> bool:
    """Return whether a character shows as nothing or has no agreed meaning.

    These are control and format characters, line separators, surrogates, private use, noncharacters and blanks. Spaces
    are not among them, nor are characters that this Python's Unicode does not know yet.
    """
    if unicodedata.category(char) in ("Cc", "Cf", "Co", "Cs", "Zl", "Zp"):
        return True
    is_noncharacter = ord(char) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(char) <= 0xFDEF
    return is_noncharacter or _BLANKS.match(char) is not None


def name_key(username: str) -> str:
    """Return the form of a name under which it is unique: NFKC and case-folded (UTS 39 would go further).

    Raises BadUsername if it is too short, too long or like an id, or has white space, a slash, or invisible characters.
    """
    key = folded(username)
    if not 3 <= len(key) <= 64 or len(username) > 64:
        raise BadUsername("a user name must have 3 to 64 characters")
    if any(unicodedata.category(char)[0] in "ZC" or is_invisible(char) for char in username + key):
        raise BadUsername("a user name must not contain spaces, invisible or control characters")
    if "/" in key:  # the account would have no address of its own under /api/admin/users
        raise BadUsername("a user name must not contain a slash")
    if UID.fullmatch(key):  # a request for that id must find its owner, not an account of that name
        raise BadUsername("a user name must not look like a user's id")
    if KEY_ID.fullmatch(key):
        raise BadUsername("a user name must not look like the id of a service key")
    return key


def folded(text: str) -> str:
    """Return a text, or the beginning of a name, in the form used to compare names."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def suggested_name(text: str) -> str:
    """Return a user name that resembles a text, such as a person's name: allowed, but perhaps taken.

    It is so short that it is still allowed with what makes it unique, in the form too in which names are compared.
    """
    words = "".join(char if _may_be_in_name(char) else " " for char in unicodedata.normalize("NFKC", text)).split()
    name = "-".join(words)[:_MOST_SUGGESTED].strip("-")
    try:
        return name if len(name_key(name)) <= _MOST_SUGGESTED else "user"
    except BadUsername:
        return "user"


def _may_be_in_name(char: str) -> bool:
    return char != "/" and unicodedata.category(char)[0] not in "ZC" and not is_invisible(char)
