"""What a guest may become in a room: the rules, in a module of their own so that one name finds them all."""

from auth.users import User
from gateway.policy.actions import BANNED
from gateway.policy.model import Policy
from gateway.rooms.room import Forbidden
from gateway.text import FieldError


def check_guest(wanted: str, *, is_member: bool) -> None:
    """Check that a guest may have a relation: never cohost, and only in the room of their invite. Raises: FieldError"""
    if wanted == "cohost":
        raise FieldError("relation", "a guest must be a participant or a viewer")
    if wanted != BANNED and not is_member:
        raise FieldError("relation", "a guest may be a member of one room only")


def check_joins_more(policy: Policy, user: User) -> None:
    """Check that a user may accept an invite to a further room. Raises: Forbidden"""
    if policy.guests.role in user.roles:
        raise Forbidden("A guest cannot join another room.")
