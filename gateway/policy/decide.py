"""Decides on actions by pure functions. Whatever the policy does not grant is denied."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from msgspec import Struct

from gateway.policy.actions import ACTIONS, BANNED, IN_CHARGE, RELATIONS, ROOM_ACTIONS, RoomRule
from gateway.policy.model import Policy, RoomFacts

Rule = Literal["login", "permission", "relation", "banned", "room disabled", "room full", "default deny"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an action is allowed, and if not, why. `code` is the problem code, `relation` the one that counted,
    `missing` the missing permission. `rule` is for operators only, since it may reveal a room to a stranger."""

    allowed: bool
    code: str = ""
    reason: str = ""
    relation: str | None = None
    missing: str | None = None
    rule: Rule = field(default="default deny", compare=False)


def decide(policy: Policy, roles: tuple[str, ...], action: str, room: RoomFacts | None = None) -> Verdict:
    """Decide whether a user with these gateway roles may perform an action, on a room if the action is on one.

    A prohibition wins over a grant. A user who must not know that a room exists gets `not_found`.
    """
    if action not in ACTIONS:
        return Verdict(False, "forbidden", f"There is no action {action!r}.")
    if policy.roles.keys().isdisjoint(roles):  # without a role of the policy a user has no limits either
        return Verdict(False, "forbidden", "The policy has none of your roles.")
    held = policy.permissions(roles)
    needed = ACTIONS[action]
    if needed is not None and needed not in held:
        reason = f"This needs the permission {needed}, which your roles do not grant."
        return Verdict(False, "forbidden", reason, missing=needed, rule="permission")
    rule = ROOM_ACTIONS.get(action)
    if rule is None:
        if needed is None:
            return _granted("login is enough", "login")
        return _granted(f"permission {needed}", "permission")
    relation = effective_relation(policy, roles, room) if room else None
    if room is None or relation not in rule.relations:
        return _without_relation(rule, held, room, relation)
    if action == "tokens.mint" and not room.enabled:
        reason = "The room is disabled and cannot be joined."
        return Verdict(False, "room_disabled", reason, relation, rule="room disabled")
    if action == "tokens.mint" and 0 < room.size <= room.people:
        reason = f"The room is full: {room.people} of {room.size} people are in it."
        return Verdict(False, "room_full", reason, relation, rule="room full")
    return _granted(f"relation {relation}", "relation", relation)


@cache  # few, and making one takes a microsecond
def _granted(reason: str, rule: Rule, relation: str | None = None) -> Verdict:
    return Verdict(True, reason=reason, relation=relation, rule=rule)


def _without_relation(rule: RoomRule, held: frozenset[str], room: RoomFacts | None, relation: str | None) -> Verdict:
    """Decide an action that no relation allows. A permission may; a denial reveals only what the user may know."""
    nothing = "There is no such room, or you have no relation to it."
    if room is None or room.relation == BANNED:
        return Verdict(False, "not_found", nothing, rule="banned" if room else "default deny")
    if rule.anywhere in held:
        bounds = f", only to {rule.only_to}" if rule.only_to else ""
        return Verdict(True, reason=f"permission {rule.anywhere}{bounds}", rule="permission")
    needs = " or ".join(sorted(rule.relations))
    if relation is not None:
        reason = f"Your relation to this room is {relation}; only its {needs} may do this."
        return Verdict(False, "forbidden", reason, relation, rule="relation")
    if "rooms:read-any" in held:  # the user can see the room
        return Verdict(False, "forbidden", f"You have no relation to this room; only its {needs} may do this.")
    return Verdict(False, "not_found", nothing)


def effective_relation(policy: Policy, roles: Iterable[str], room: RoomFacts) -> str | None:
    """Return the relation that counts: the stored one, or participant in an open room; None for a banned user."""
    if room.relation == BANNED:
        return None
    if room.relation in RELATIONS:
        return room.relation
    return "participant" if room.access == "open" and policy.joins_open_rooms(roles) else None


def decide_member(actor: str, target: str | None, wanted: str) -> Verdict:
    """Decide whether a user of relation `actor` may change another user's relation from `target` to `wanted` or BANNED.

    A cohost may change participants and viewers. Only the owner may change cohosts and hand the room over.
    """
    if actor == "owner":
        return Verdict(True, reason="relation owner", rule="relation")
    if actor != "cohost" or target in IN_CHARGE or wanted in IN_CHARGE:
        return Verdict(
            False, "forbidden", "Only the owner may change cohosts or hand the room over.", actor, rule="relation"
        )
    return Verdict(True, reason="relation cohost", rule="relation")


def outranks(one: str | None, other: str) -> bool:
    """Tell whether a relation is at least as high as another, in the order owner, cohost, participant, viewer."""
    return one in RELATIONS and RELATIONS.index(one) <= RELATIONS.index(other)


def loses_roles(policy: Policy, template: str, before: str | None, after: str) -> bool:
    """Tell whether a change of relation takes away a 100ms role that the user may have joined with."""
    return not set(policy.mintable(template, before or "participant")) <= set(policy.mintable(template, after))


class RoleVerdict(Struct, frozen=True):
    """The 100ms role of a join token; if empty, `code` and `reason` say why. The user may ask for `allowed`."""

    role: str
    allowed: tuple[str, ...] = ()
    code: str = ""
    reason: str = ""


def decide_role(
    policy: Policy, template: str, relation: str, requested: str | None, existing: frozenset[str] | None
) -> RoleVerdict:
    """Choose the 100ms role of a join token: the requested one if it is allowed, by default the least privileged.

    `existing` are the template's roles at 100ms; if they are not known yet (None), the policy's own lists count.
    Names match exactly: 100ms's roles are case-sensitive.
    """
    listed = policy.mintable(template, relation)
    known = existing
    if known is None:
        known = frozenset(role for roles in policy.templates.get(template, {}).values() for role in roles)
    allowed = tuple(role for role in listed if role in known)
    if requested is None and allowed:
        return RoleVerdict(allowed[0], allowed)
    if requested in allowed:
        return RoleVerdict(str(requested), allowed)
    if requested is not None and requested not in known:
        return RoleVerdict("", allowed, "unknown_role", "The room's template has no such role.")
    if not allowed and listed:
        return RoleVerdict("", allowed, "unknown_role", "The room's template has none of the roles the policy lists.")
    names = ", ".join(allowed) or "none"
    return RoleVerdict("", allowed, "role_not_allowed", f"You may not join this room in that role. Allowed: {names}.")
