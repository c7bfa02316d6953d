"""The access rules of a route and its charges: a frozen value in the route's `opt`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from litestar.handlers import BaseRouteHandler

from gateway.http.problem_codes import STATUS
from gateway.policy.actions import ACTIONS, LIMITED_ACTIONS, ROOM_ACTIONS

_KEY = "access"

Headers = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Access:
    """Made by `public` or `needs`. The policy decides on `action`; a public route has none.

    `guests`: without an Authorization header the route is public. `throttled`: a public request is charged to its
    client address. `check` judges the request's headers and raises FieldError. `refuses` are the problem codes that
    only this route answers with. `unready`: the route answers 503 itself. `webhook`: 100ms calls the route; its
    secret is checked before its body is read, which may be anything. `repeatable`: the handler's `key` is an
    Idempotency-Key, and a repetition of what was carried out costs nothing of the action's own limits. `form`: the
    body may also be an HTML form, as OAuth sends it; its fields are strings.
    """

    action: str = ""
    guests: bool = False
    throttled: bool = False
    check: Callable[[Headers], None] | None = None
    refuses: tuple[str, ...] = ()
    unready: bool = False
    webhook: bool = False
    repeatable: bool = False
    form: bool = False

    def __post_init__(self) -> None:
        if unknown := set(self.refuses) - set(STATUS):
            raise ValueError(f"there are no problem codes {sorted(unknown)}")

    @property
    def is_public(self) -> bool:
        return not self.action

    @property
    def is_charged(self) -> bool:
        """Whether a request takes from the caller's limits; otherwise they are only read."""
        return self.action in LIMITED_ACTIONS

    @property
    def concerns_room(self) -> bool:
        """Whether the path names a room that the decision depends on."""
        return self.action in ROOM_ACTIONS


def public(
    *, throttled: bool = False, refuses: tuple[str, ...] = (), unready: bool = False, form: bool = False
) -> dict[str, Any]:
    """Return the `opt` of a route that anyone may call without a login."""
    return {_KEY: Access(throttled=throttled, refuses=refuses, unready=unready, form=form)}


def webhook(*, refuses: tuple[str, ...]) -> dict[str, Any]:
    """Return the `opt` of a route for webhooks of 100ms, which takes their body as bytes."""
    return {_KEY: Access(webhook=True, refuses=("not_found", "invalid_credentials", "payload_too_large", *refuses))}


def needs(
    action: str,
    *,
    guests: bool = False,
    check: Callable[[Headers], None] | None = None,
    refuses: tuple[str, ...] = (),
    repeatable: bool = False,
    form: bool = False,
) -> dict[str, Any]:
    """Return the `opt` of a route that takes a login and the policy's permission for an action of the policy."""
    if action not in ACTIONS:
        raise ValueError(f"the policy has no action {action!r}")
    return {
        _KEY: Access(
            action, guests=guests, throttled=guests, check=check, refuses=refuses, repeatable=repeatable, form=form
        )
    }


def access_of(handler: BaseRouteHandler) -> Access:
    """Return the access of a route. Raises: KeyError, if the route has none, so that it cannot serve requests."""
    access: Access = handler.opt[_KEY]
    return access
