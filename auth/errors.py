"""Everything that can go wrong when somebody says who he is.

AuthError
├── InvalidToken          no login token of ours, or its session has ended
│   └── TokenExpired      it was one; a refresh mends it
├── InvalidCredentials    unknown, disabled or wrong: deliberately one error
├── InvalidGrant          a refresh token that is not, or no longer, good
├── UserExists, UnknownUser
├── BadUsername, WeakPassword   with reasons a person can act on
└── Busy                  too many passwords are being hashed at this moment
"""

from __future__ import annotations


class AuthError(Exception):
    """Base of the package's errors. The text is safe to show to the caller."""


class InvalidToken(AuthError):
    """The bearer token is missing, malformed, forged, foreign, or its session has ended."""


class TokenExpired(InvalidToken):
    """The token was good; a refresh brings one with the current roles."""


class InvalidCredentials(AuthError):
    """The name or the password is wrong, or the account is disabled."""

    def __init__(self) -> None:
        super().__init__("The user name or the password is wrong.")


class InvalidGrant(AuthError):
    """The refresh token is not, or no longer, good. `reused_by` names the user whose old token came back."""

    def __init__(self, *, reused_by: str | None = None) -> None:
        super().__init__("The refresh token is invalid, expired or revoked. Log in again.")
        self.reused_by = reused_by


class UserExists(AuthError):
    """Another account has this name."""


class UnknownUser(AuthError):
    """No account has this name or id."""


class BadUsername(AuthError):
    """The name breaks a rule, which the text states."""


class WeakPassword(AuthError):
    """The password breaks rules, which `reasons` states one by one."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__(f"The password {'; '.join(reasons)}.")
        self.reasons = reasons


class Busy(AuthError):
    """The hashing pool is full; nothing was checked."""

    retry_after_s = 2
