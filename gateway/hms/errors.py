"""What can go wrong with 100ms. No text here repeats what 100ms answered: it is shown to users.

HmsError
├── HmsRefused           100ms understood and said no
│   ├── HmsUnauthorized  it does not accept our credentials: the operator has to mend them
│   └── HmsNotFound      it has nothing of that id
├── HmsUnreachable       it could not be reached, or answered nonsense or a server error
├── HmsTimeout           it did not answer in time; whether it acted is not known
└── HmsBusy              it, or our share of it, is at its limit; `retry_after_s` says for how long
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class HmsError(Exception):
    """Base of what can go wrong with 100ms. `stands` says what holds all the same, and what to do about it."""

    stands = ""

    def __str__(self) -> str:
        return f"{super().__str__()} {self.stands}".rstrip()


class HmsRefused(HmsError):
    """100ms refused a request of ours."""


class HmsUnauthorized(HmsRefused):
    """100ms refused our credentials."""


class HmsNotFound(HmsRefused):
    """100ms has nothing of that id."""


class HmsUnreachable(HmsError):
    """100ms cannot be reached or does not work."""


class HmsTimeout(HmsError):
    """100ms did not answer in time."""


class HmsBusy(HmsError):
    """100ms is at its limit, or all our connections to it are in use."""

    def __init__(self, text: str, retry_after_s: int) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


@contextmanager
def standing(sentence: str) -> Iterator[None]:
    """Have an error of 100ms say what holds all the same: without it a change of ours reads as if it were undone."""
    try:
        yield
    except HmsError as error:
        error.stands = error.stands or sentence
        raise
