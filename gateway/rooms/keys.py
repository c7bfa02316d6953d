"""Every Redis key of rooms. A Redis cluster places a key by the part in braces."""

ALL_ROOMS = "ra:1"
"""Ids of all rooms, by when they were created (ms)."""

GUESTS = "gu:1"
"""Ids of guests, by when they expire (s)."""


def room(room_id: str) -> str:
    """Return the key of a room: a hash."""
    return f"rm:1:{{{room_id}}}"


def relations(room_id: str) -> str:
    """Return the key of the relations to a room, other than its owner's: a hash by user id."""
    return f"rr:1:{{{room_id}}}"


def rooms_of(uid: str) -> str:
    """Return the key of a user's list of rooms: ids by when they entered it (ms)."""
    return f"ur:1:{{{uid}}}"


def people(room_id: str) -> str:
    """Return the key of the stays that are open in a room, which metering writes: a hash with a field for each."""
    return f"op:1:{{{room_id}}}"


def name(folded: str) -> str:
    """Return the key of the holder of a name: a hash."""
    return f"nm:1:{folded}"


def attempt(uid: str, digest: str) -> str:
    """Return the key of a request that a user repeats under an Idempotency-Key: a hash."""
    return f"ik:1:{{{uid}}}:{digest}"


def invites(room_id: str) -> str:
    """Return the key of a room's invites: their references by when they expire (ms)."""
    return f"vi:1:{{{room_id}}}"


def invited(room_id: str, ref: str) -> str:
    """Return the key of the users who accepted an invite: a set."""
    return f"va:1:{{{room_id}}}:{ref}"
