"""The errors of authentication."""


class AuthError(Exception):
    """Base of the package's errors. The text is safe to show to the caller."""


class InvalidToken(AuthError):
    """The bearer token is missing, malformed, forged, foreign, or its session has ended."""


class TokenExpired(InvalidToken):
    """The token was valid; a refresh returns one with the current roles."""


class RefusedKey(InvalidToken):
    """A service key was refused. `key_id` is empty if there is no such key; `why` is one word, for the audit only."""

    def __init__(self, text: str, *, key_id: str = "", why: str) -> None:
        super().__init__(text)
        self.key_id = key_id
        self.why = why


class UnknownKey(AuthError):
    """There is no service key of this id or name."""


class BadKey(AuthError):
    """A property of a new service key breaks a rule. `field` names it."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field}: {rule}")
        self.field = field
        self.rule = rule


class InvalidCredentials(AuthError):
    """The name or the password is wrong, or the account is disabled. `uid` is the account's, for the audit only."""

    def __init__(self, *, uid: str | None = None) -> None:
        super().__init__("The user name or the password is wrong.")
        self.uid = uid


class InvalidGrant(AuthError):
    """The token or code is not valid or has expired. `reused_by` is the user whose token was used a second time."""

    def __init__(
        self,
        text: str = "The refresh token is invalid, expired or revoked. Log in again.",
        *,
        reused_by: str | None = None,
    ) -> None:
        super().__init__(text)
        self.reused_by = reused_by


class ForeignTokenRefused(InvalidGrant):
    """A token of an identity provider is not accepted. `provider` (its name) and `reason` are for the audit only."""

    def __init__(self, reason: str, *, provider: str = "", uid: str = "") -> None:
        super().__init__("The token is not accepted. Log in again at your identity provider.")
        self.reason = reason
        self.provider = provider
        self.uid = uid


class KeysUnavailable(AuthError):
    """A token cannot be verified for now: the keys of its issuer cannot be fetched."""

    retry_after_s = 5

    def __init__(self) -> None:
        super().__init__("The identity provider cannot be reached. Try again in a moment.")


class InvalidVoucher(AuthError):
    """The code was never issued, has expired, was revoked, or is used up: deliberately one error."""

    def __init__(self) -> None:
        super().__init__("The code is invalid, expired or used up. Ask for a new one.")


class UserExists(AuthError):
    """Another account has this name."""


class UnknownUser(AuthError):
    """No account has this name or id."""


class ChangedMeanwhile(AuthError):
    """The account has changed since the change was decided; nothing was changed."""

    def __init__(self) -> None:
        super().__init__("Another change of this account is under way.")


class BadUsername(AuthError):
    """The name breaks a rule. The text states the rule."""


class WeakPassword(AuthError):
    """The password breaks rules. `reasons` lists them, each as the end of a sentence that begins with `must`."""

    def __init__(self, reasons: list[str]) -> None:
        rules = [reason.removeprefix("must ") for reason in reasons]
        listed = rules if len(rules) == 1 else [", ".join(rules[:-1]), rules[-1]]
        super().__init__(f"The password must {' and '.join(listed)}.")
        self.reasons = reasons


class Busy(AuthError):
    """The hashing pool is full; nothing was checked."""

    retry_after_s = 2
