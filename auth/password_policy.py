"""The rules for a new password: a minimum length and a block list. There are no composition rules.

Sources: NIST SP 800-63B-4 section 3.1.1.2 (length, blocklist, the names of user and service), OWASP ASVS 5 chapter 6.2.
"""

import asyncio
import re
import unicodedata
from dataclasses import dataclass

from .breaches import BreachFile
from .errors import WeakPassword
from .passwords import MAX_BYTES

MIN_LENGTH = 15
LEAST_MIN_LENGTH = 8
MOST_MIN_LENGTH = 128
_LEAST_DIFFERENT = 5
_LEAST_OUTSIDE_RUNS = 8
_NAME_LENGTH = 3  # a name no longer than this occurs in innocent words

_KEYBOARDS = (
    "1234567890 qwertyuiop asdfghjkl zxcvbnm qwertzuiopü asdfghjklöä yxcvbnm azertyuiop qsdfghjklm wxcvbn "
    "йцукенгшщзхъ фывапролджэ ячсмитьбю 1qaz 2wsx 3edc 4rfv 5tgb 6yhn 7ujm 8ik 9ol"
)
_KEY_RUNS = frozenset(
    keys[at : at + 3]
    for keys in (_KEYBOARDS, _KEYBOARDS[::-1])
    for at in range(len(keys) - 2)
    if " " not in keys[at : at + 3]
)
_AROUND_WORD = re.compile(r"^[\W\d_]+|[\W\d_]+\Z")
_LETTERS_FOR_SIGNS = str.maketrans("@40317$5!+", "aaoeitssit")


@dataclass(frozen=True, slots=True)
class PasswordPolicy:
    """Decides which new passwords are accepted. Stored passwords are never checked against it."""

    min_length: int = MIN_LENGTH
    service_names: tuple[str, ...] = ("100ms", "hms-gateway")
    breached: BreachFile | None = None

    def __post_init__(self) -> None:
        if not LEAST_MIN_LENGTH <= self.min_length <= MOST_MIN_LENGTH:
            raise ValueError(f"min_length must lie between {LEAST_MIN_LENGTH} and {MOST_MIN_LENGTH}")

    async def check(self, password: str, *, username: str = "") -> None:
        """Refuse a weak password. The check runs in a thread: it may read the disk, and loads the word list once.

        Raises WeakPassword with every reason at once, or BadBreachFile: no password is accepted unchecked.
        """
        reasons = await asyncio.to_thread(self.reasons, password, username)
        if reasons:
            raise WeakPassword(reasons)

    def reasons(self, password: str, username: str = "") -> list[str]:
        """Return why a password is refused, each reason as the end of a sentence about it. Blocks: see `check`."""
        normal = unicodedata.normalize("NFC", password)
        if len(normal.encode("utf-8", "surrogatepass")) > MAX_BYTES:
            return [f"must have at most {MAX_BYTES} bytes"]  # its other faults would cost too much to find
        folded = _folded(normal)
        core = _AROUND_WORD.sub("", folded)
        wholes = (normal, folded, core if 2 * len(core) > len(folded) else "")
        rules = {
            f"must have at least {self.min_length} characters": len(normal) < self.min_length,
            f"must have at least {_LEAST_DIFFERENT} different characters": len(set(normal)) < _LEAST_DIFFERENT,
            "must not be a common password or a single word, with or without digits and signs around it": (
                _is_common(folded) or _is_common(core)
            ),
            "must not be something shorter repeated": any(_repeats(whole, self.min_length) for whole in wholes),
            "must not be mostly sequences such as abcdef, 12345, qwerty or aaaaa": _is_mostly_runs(folded),
            "must not contain the user name": any(
                _names(name, folded) for name in {username, username.partition("@")[0]}
            ),
            "must not contain the name of this service": any(_names(name, folded) for name in self.service_names),
            "must not be known from a data breach": (self.breached is not None and self.breached.holds(normal)),
        }
        return [reason for reason, broken in rules.items() if broken]


def _folded(text: str) -> str:
    """Return the form used to compare texts: case and full width do not make a different password."""
    return unicodedata.normalize("NFKC", text).casefold()[:MAX_BYTES]  # one character can become eighteen


def _is_common(folded: str) -> bool:
    if len(folded) <= _NAME_LENGTH:  # such words occur by chance between the digits of random passwords
        return False
    from zxcvbn.matching import RANKED_DICTIONARIES  # 35 ms and 14 MB, only in processes that check a new password

    words = (folded, folded.translate(_LETTERS_FOR_SIGNS))
    return any(word in ranked for ranked in RANKED_DICTIONARIES.values() for word in words)


def _repeats(text: str, min_length: int) -> bool:
    """Tell whether a text only repeats a piece that is shorter than the minimum: it is no better than the piece."""
    most = min(min_length - 1, len(text) // 2)
    return any(text.startswith(text[size:]) for size in range(1, most + 1))


def _is_mostly_runs(folded: str) -> bool:
    """Tell whether runs (abc, 321, qwe, aaa) make up half of a text or more, with fewer than 8 characters outside."""
    inside: set[int] = set()
    for at in range(len(folded) - 2):
        one, two, three = folded[at], folded[at + 1], folded[at + 2]
        step = ord(two) - ord(one)
        if (ord(three) - ord(two) == step and -1 <= step <= 1) or one + two + three in _KEY_RUNS:
            inside |= {at, at + 1, at + 2}
    outside = len(folded) - len(inside)
    return outside < _LEAST_OUTSIDE_RUNS and len(inside) >= max(1, outside)


def _names(name: str, folded: str) -> bool:
    """Tell whether a text contains a name, ignoring signs; for a short name, whether it makes up half of the text."""
    name = _folded(name)
    if len(name) > _NAME_LENGTH and name in folded:
        return True
    bare, text = _bare(name), _bare(folded)
    covered = text.count(bare) * len(bare) if bare else 0
    return covered > 0 and (len(bare) > _NAME_LENGTH or 2 * covered >= len(text))


def _bare(folded: str) -> str:
    return "".join(char for char in folded if char.isalnum())
