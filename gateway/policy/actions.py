"""Permissions, relations and actions: what each action needs, and under which counter it is counted."""

from dataclasses import dataclass

# Permissions with power over others. A user who manages users may grant ordinary permissions that they do not have (an
# admin gets no join tokens, but creates hosts), but of these only their own. Registration grants none of these.
POWERS = frozenset({"rooms:read-any", "rooms:end-any", "usage:read-any", "limits:manage", "users:manage", "audit:read"})
PERMISSIONS = POWERS | {"rooms:create", "rooms:join", "usage:read-own"}
RELATIONS = ("owner", "cohost", "participant", "viewer")
BANNED = "banned"
# Every action of a route, and the permission it needs. None: a login is enough, or the relation to the room decides.
ACTIONS: dict[str, str | None] = {
    "account.read": None,
    "account.manage": None,
    "rooms.create": "rooms:create",
    "rooms.list": None,
    "rooms.read": None,
    "rooms.update": None,
    "rooms.end": None,
    "members.read": None,
    "members.change": None,
    "invites.manage": None,
    "invites.accept": "rooms:join",
    "tokens.mint": "rooms:join",
    "usage.read": "usage:read-own",
    "usage.read-any": "usage:read-any",
    "limits.manage": "limits:manage",
    "users.manage": "users:manage",
    "keys.manage": "users:manage",
    "audit.read": "audit:read",
    "tokens.introspect": "tokens:introspect",  # a scope of service keys, which no role grants
}


@dataclass(frozen=True, slots=True)
class RoomRule:
    """Which relations to a room allow an action on it. Permission `anywhere` allows it, or `only_to`, without one."""

    relations: frozenset[str]
    anywhere: str | None = None
    only_to: str = ""


_ANYBODY = frozenset(RELATIONS)
IN_CHARGE = frozenset({"owner", "cohost"})
ROOM_ACTIONS = {
    "rooms.read": RoomRule(_ANYBODY, "rooms:read-any"),
    "tokens.mint": RoomRule(_ANYBODY),
    "rooms.update": RoomRule(IN_CHARGE, "rooms:end-any", only_to="lock and unlock it"),
    "rooms.end": RoomRule(IN_CHARGE, "rooms:end-any"),
    "members.read": RoomRule(IN_CHARGE, "rooms:read-any"),
    "members.change": RoomRule(IN_CHARGE),
    "invites.manage": RoomRule(IN_CHARGE),
}
LIMITED_ACTIONS = frozenset(ACTIONS) - {"usage.read"}  # reading one's own usage charges nothing
# Actions with a counter of their own; every other request counts as `api`, so that a user has few counters.
COUNTED = frozenset({"rooms.create", "tokens.mint"})
MINUTES, OWNED = "minutes", "owned"
COUNTERS = COUNTED | {"api", MINUTES}  # of quotas
# Whose minutes a budget bounds, and the counter of them, in seconds: the user's own, those of all people in the rooms
# they own, those of the installation.
SCOPES = {"user": MINUTES, "owner": OWNED, "all": MINUTES}


def counter_of(action: str) -> str:
    """Return the counter of an action."""
    return action if action in COUNTED else "api"
