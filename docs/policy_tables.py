"""The tables of docs/rooms.md: the decisions of the policy's functions in every case."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from gateway.http.problems import STATUS_OF
from gateway.policy.actions import BANNED, RELATIONS, ROOM_ACTIONS
from gateway.policy.decide import decide, decide_member, decide_role
from gateway.policy.model import Policy, RoomFacts

_EVERY = (*RELATIONS, BANNED)
# The cases of a user and a room: in words, the stored relation, the room's access.
_CASES = [(relation, relation, "invited") for relation in RELATIONS]
_CASES += [("none (open room)", None, "open"), ("none (invited room)", None, "invited"), (BANNED, BANNED, "open")]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; the empty string without rows."""
    lines = [" | ".join(cell.replace("|", r"\|") for cell in row) for row in rows]
    return "\n".join(
        [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {line} |" for line in lines)] if lines else ()
    )


def role_rows(policy: Policy) -> str:
    """Return what each gateway role may do to a room, by relation; equal roles and relations share a row."""
    decided = {role: [(words, _row(policy, role, of, access)) for words, of, access in _CASES] for role in policy.roles}
    alike: dict[str, list[str]] = {}
    for role, rows in decided.items():
        alike.setdefault(repr(rows), []).append(role)
    rows = []
    for roles in alike.values():
        for cells, same in groupby(decided[roles[0]], key=lambda row: row[1]):
            rows.append((", ".join(roles), ", ".join(words for words, _ in same), *cells))
    return table(("gateway role", "relation to the room", *(f"`{action}`" for action in ROOM_ACTIONS)), rows)


def _row(policy: Policy, role: str, relation: str | None, access: str) -> tuple[str, ...]:
    facts = RoomFacts(relation, access, True, "default")
    verdicts = [decide(policy, (role,), action, facts) for action in ROOM_ACTIONS]
    return tuple("yes" if verdict.allowed else str(STATUS_OF[verdict.code]) for verdict in verdicts)


def relation_rows(policy: Policy) -> str:
    """Return who may give which relation; each cell lists the relations that the other user may have before."""
    actors = [actor for actor in RELATIONS if actor in ROOM_ACTIONS["members.change"].relations]
    rows = []
    for actor in actors:
        cells = []
        for wanted in _EVERY:
            before = [
                of or "none" for of in (None, *_EVERY) if decide_member(actor, of, wanted).allowed and of != "owner"
            ]
            cells.append("anybody" if len(before) == len(_EVERY) else ", ".join(before) or "no")
        rows.append((actor, *cells))
    return table(("may make", *_EVERY), rows)


def token_rows(policy: Policy) -> str:
    """Return the 100ms roles that each relation may join with, and the default."""
    rows = []
    for template in policy.templates:
        for relation in RELATIONS:
            verdict = decide_role(policy, template, relation, None, None)
            allowed = ", ".join(f"`{role}`" for role in verdict.allowed) or "none"
            rows.append((template, relation, allowed, f"`{verdict.role}`" if verdict.role else verdict.code))
    return table(("template", "relation", "100ms roles", "without asking"), rows)
