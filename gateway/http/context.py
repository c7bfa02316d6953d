"""The context of one request while it is served: one object in its ASGI scope."""

from dataclasses import dataclass

from litestar import Request
from litestar.datastructures import State
from litestar.types import Scope

from auth.tokens import Principal
from gateway.accounts.actor import NotAllowed
from gateway.policy.decide import Verdict
from gateway.rooms.room import Found
from limits.counters import Usage
from limits.policy import Decision

_KEY = "gateway.context"
_MOST_AGENT_CHARS = 120


@dataclass(slots=True)
class Admitted:
    """What admission determined about a request of a logged-in caller.

    `found` is the room of the path, None if the path has none or the registry does not have it. `usage` is read
    only for the route that shows it. `made` is the room that an earlier, equal request with the same Idempotency-Key
    made, and `shown` then has the state of all of the caller's limits, of which the decision has only a part.
    """

    principal: Principal
    decision: Decision
    verdict: Verdict
    found: Found | None = None
    usage: Usage | None = None
    outcome: str = ""
    refund: bool = False
    made: str = ""
    shown: Decision | None = None

    def room(self) -> tuple[Found, str | None]:
        """Return the room of the path and the caller's relation to it; only for routes whose action concerns a room."""
        if self.found is None:
            raise RuntimeError("the action of this route does not concern a room")
        return self.found, self.verdict.relation

    def count_as(self, outcome: str, *, refund: bool = False) -> None:
        """Count the request as an outcome such as `refused.replayed` instead of `ok` and give its quota units back.

        With `refund` this also applies to a refused request, and the units of its limits are refunded too.
        """
        self.outcome, self.refund = outcome, refund


@dataclass(slots=True)
class Context:
    """One request: its client's address, what admission determined, its problem's code, a use case's denial.

    `is_head`: only the head of the answer is wanted, although the scope says GET. `by_key` and `by_user` are the
    decisions about a service key that acts for a user, and about the user.
    """

    client: str = ""
    is_head: bool = False
    admitted: Admitted | None = None
    problem_code: str = ""
    not_allowed: NotAllowed | None = None
    by_key: Decision | None = None
    by_user: Decision | None = None


Call = Request[Principal, Admitted, State]


def context_of(scope: Scope) -> Context:
    """Return the context of a request; a new one without the edge, as in tests of one layer."""
    context: Context | None = scope.get(_KEY)  # type: ignore[assignment]  # an ASGI scope may carry more keys
    if context is None:
        context = scope[_KEY] = Context()  # type: ignore[literal-required]
    return context


def agent_of(scope: Scope) -> str:
    """Return the User-Agent of a request: printable ASCII, at most 120 characters."""
    value = next((value for name, value in scope["headers"] if name == b"user-agent"), b"").decode("latin-1")
    return "".join(char for char in value[:_MOST_AGENT_CHARS] if char.isascii() and char.isprintable())
