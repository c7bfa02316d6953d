"""The errors of 100ms. Their texts are shown to users, so they never repeat an answer of 100ms."""

from collections.abc import Iterator
from contextlib import contextmanager


class HmsError(Exception):
    """Base of the errors of 100ms. `done` says what the gateway has changed already, and what to do about it.

    `outcome` names the kind in metrics.
    """

    done = ""
    outcome = "unreachable"

    def __str__(self) -> str:
        return f"{super().__str__()} {self.done}".rstrip()


class HmsRefused(HmsError):
    """100ms refused the request."""

    outcome = "refused"


class HmsUnauthorized(HmsRefused):
    """100ms rejected our credentials; the operator must fix them."""

    outcome = "unauthorized"


class HmsNotFound(HmsRefused):
    """100ms does not know the id."""

    outcome = "not_found"


class HmsUnreachable(HmsError):
    """100ms cannot be reached, or answered with a server error or an unusable reply."""


class HmsTimeout(HmsError):
    """100ms did not answer in time; the outcome is unknown."""

    outcome = "timeout"


class HmsBusy(HmsError):
    """100ms rate-limits us or has failed too often, or too many calls are running."""

    outcome = "busy"

    def __init__(self, text: str, retry_after_s: int) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


@contextmanager
def already_done(sentence: str) -> Iterator[None]:
    """Add to an error of 100ms what the gateway has changed already, because users would assume that nothing has."""
    try:
        yield
    except HmsError as error:
        error.done = error.done or sentence
        raise
