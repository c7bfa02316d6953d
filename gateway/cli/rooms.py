"""The commands `gateway rooms ...`."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import click
import msgspec
from rich.table import Column

from auth.accounts import Accounts
from auth.users import User
from gateway.audit import CLI, Audit
from gateway.cli.connection import every, names_of, with_store
from gateway.cli.failures import CommandError
from gateway.cli.terminal import CSV, JSON, print_list, print_result, table_of
from gateway.hms.client import HmsClient, connect
from gateway.hms.tokens import HmsTokens
from gateway.outgoing.messages import Announcer
from gateway.policy.effective import policy_of
from gateway.policy.live import PolicyInForce
from gateway.redis.topology import AnyStore
from gateway.rooms.change import RoomControl
from gateway.rooms.locks import LockedMeanwhile, TooManyRooms
from gateway.rooms.membership import Membership, may_own
from gateway.rooms.registry import Rooms
from gateway.rooms.relations import Members, NotInCharge
from gateway.rooms.room import Caller, ChangeRoom, Room
from gateway.routes.schemas import Room as RoomShape
from gateway.settings import Settings, load_env
from gateway.text import plain_text, printable
from limits.limiter import Limiter

T = TypeVar("T")

_PAGE = 500
_OPERATOR = Caller(CLI, "", is_operator=True)


@dataclass(frozen=True, slots=True)
class _Services:
    """What the commands call."""

    rooms: Rooms
    members: Members
    membership: Membership
    control: RoomControl
    accounts: Accounts
    audit: Audit
    policy: PolicyInForce


@click.group()
def rooms() -> None:
    """List, show, adopt, hand over, end and unlock rooms."""


@rooms.command("adopt", epilog="Example: gateway rooms adopt ROOM_ID --owner ada")
@click.argument("room_id")
@click.option("--owner", required=True, help="The new owner, by name or id.")
@click.option("--name", default="", help="Its name in the gateway.  [default: its name at 100ms]")
@click.option("--access", type=click.Choice(["open", "invited"]), help="Who may join it.  [default: the policy's]")
@JSON
def adopt(room_id: str, owner: str, name: str, access: str | None, as_json: bool) -> None:
    """Register a room that already exists at 100ms.

    Users can then join it through the gateway.
    """
    given_name = _text("--name", name, 100)

    async def work(services: _Services) -> tuple[Room, User]:
        user = await _heir(services, owner)
        room = await services.rooms.adopt(room_id, user.id, name=given_name, access=access)
        await services.audit.record("room.adopted", by=CLI, subject=user.id, room=room.id)
        return room, user

    room, user = _with_services(work)
    text = f"{room.id} ({room.name}) is registered; {user.username} owns it."
    print_result(_plain(room, {user.id: user.username}), text, as_json=as_json)


@rooms.command("give", epilog="Example: gateway rooms give ROOM ben")
@click.argument("room_id", metavar="ROOM")
@click.argument("user")
@JSON
def give(room_id: str, user: str, as_json: bool) -> None:
    """Make USER (name or id) the owner of a room. The former owner becomes a cohost, unless they were deleted."""

    async def work(services: _Services) -> tuple[Room, User]:
        room, heir = await _room(services, room_id), await _heir(services, user)
        if heir.id == room.owner_id:
            raise CommandError(f"{heir.username} already owns room {room_id}")
        try:
            await services.membership.hand_over(room, heir, by=CLI)
        except NotInCharge as error:
            raise CommandError(f"room {room_id} has just changed owner; check and try again") from error
        return msgspec.structs.replace(room, owner_id=heir.id), heir

    room, heir = _with_services(work)
    text = f"{heir.username} now owns {room.id} ({room.name})."
    print_result(_plain(room, {heir.id: heir.username}), text, as_json=as_json)


@rooms.command("list", epilog="Example: gateway rooms list --user ada")
@click.option("--user", help="Only the rooms in the list of this user (name or id).")
@CSV
@JSON
def list_rooms(user: str | None, as_csv: bool, as_json: bool) -> None:
    """List all rooms, or those of one user, newest first."""

    async def work(services: _Services) -> tuple[list[Room], dict[str, str]]:
        uid = (await services.accounts.lookup(user)).id if user is not None else None
        found = await every(lambda before: services.rooms.page(uid, before=before, size=_PAGE), None)
        return found, await names_of(services.accounts, (room.owner_id for room in found))

    found, names = _with_services(work)
    # These fit in 80 columns; `show` and JSON have the rest.
    texts = (Column(title, overflow="fold") for title in ("Name", "Owner", "State"))
    columns = (Column("Room", no_wrap=True), *texts, Column("Created", no_wrap=True))
    rows = ((one.id, one.name, names[one.owner_id], _state(one), RoomShape.of(one).created_at[:10]) for one in found)
    none = f"{user} has no rooms." if user else "No rooms yet."
    print_list(
        [_plain(room, names) for room in found], table_of(columns, rows), none=none, as_json=as_json, as_csv=as_csv
    )


@rooms.command("show", epilog="Example: gateway rooms show ROOM")
@click.argument("room_id", metavar="ROOM")
@JSON
def show(room_id: str, as_json: bool) -> None:
    """Show a room and the relations of its members."""

    async def work(services: _Services) -> tuple[Room, list[tuple[str, str]], dict[str, str]]:
        room = await _room(services, room_id)
        members = await services.members.all(room)
        return room, members, await names_of(services.accounts, (uid for uid, _ in members))

    room, members, names = _with_services(work)
    listed = [{"user_id": uid, "username": names[uid], "relation": relation} for uid, relation in members]
    rows = [("Room", room.id), ("Name", room.name), ("Description", room.description or "-"), ("State", _state(room))]
    rows += [("Access", room.access), ("Template", room.template), ("Created", RoomShape.of(room).created_at)]
    rows += [("" if n else "Members", f"{names[uid]} ({uid}): {relation}") for n, (uid, relation) in enumerate(members)]
    text = "\n".join(f"{title:12} {printable(value)}" for title, value in rows)
    print_result(_plain(room, names) | {"members": listed}, text, as_json=as_json)


@rooms.command("end", epilog="Example: gateway rooms end ROOM --lock")
@click.argument("room_id", metavar="ROOM")
@click.option("--lock", is_flag=True, help="Refuse all joins until an operator unlocks the room (`rooms unlock`).")
@click.option("--reason", default="", help="Shown to everyone who is removed, and kept in the audit trail.")
@JSON
def end(room_id: str, lock: bool, reason: str, as_json: bool) -> None:
    """Remove everyone from a room. Unless it is locked, they can join again with a token that is still valid."""
    why = _text("--reason", reason, 200)

    async def work(services: _Services) -> tuple[Room, bool]:
        room = await _room(services, room_id)
        return room, await services.control.end(room, lock=lock, reason=why, by=_OPERATOR)

    room, ended = _with_services(work)
    locked = lock or not room.enabled
    said = "is being ended" if ended else "was empty"
    text = f"{room.id} ({room.name}) {said}{'; no one can join it any more' if locked else ''}."
    print_result({"id": room.id, "ended": ended, "locked": locked}, text, as_json=as_json)


@rooms.command("unlock", epilog="Example: gateway rooms unlock ROOM")
@click.argument("room_id", metavar="ROOM")
@JSON
def unlock(room_id: str, as_json: bool) -> None:
    """Unlock a room, no matter who locked it. It counts again towards the maximum of rooms of its creator."""

    async def work(services: _Services) -> Room:
        room = await _room(services, room_id)
        try:
            await services.control.change(room, ChangeRoom(enabled=True), by=_OPERATOR)
        except TooManyRooms as error:
            most = error.decision.leases[0].lease.most
            text = f"its creator already has {most} rooms that can be joined, which is the maximum"
            raise CommandError(text) from error
        except LockedMeanwhile as error:
            raise CommandError(f"room {room_id} has just been locked again") from error
        return room

    room = _with_services(work)
    text = f"{room.id} ({room.name}) can be joined{'; it was not locked' if room.enabled else ''}."
    print_result({"id": room.id, "locked": False}, text, as_json=as_json)


async def _room(services: _Services, room_id: str) -> Room:
    room = await services.rooms.get(room_id)
    if room is None:
        raise CommandError(f"there is no room {room_id!r}; `gateway rooms list` has the ids")
    return room


async def _heir(services: _Services, name: str) -> User:
    user = await services.accounts.lookup(name)
    if not may_own(services.policy.now, user):
        raise CommandError(f"{name} cannot own a room: an owner must be an active user who may create rooms")
    return user


def _with_services(work: Callable[[_Services], Coroutine[Any, Any, T]]) -> T:
    settings = Settings.from_env(load_env())
    policy = PolicyInForce(policy_of(settings))

    async def inner(store: AnyStore) -> T:
        async with connect(settings.hms_api_url) as http:
            hms = HmsClient(http, HmsTokens(settings.hms_app_access_key, settings.hms_app_secret))
            rooms = Rooms(store.execute, hms, Limiter(store.execute, zone=policy.zone), policy)
            members = Members(store.execute, hms, policy)
            accounts, audit = Accounts(store.execute), Audit(store.execute, announce=Announcer(policy))
            membership = Membership(members, accounts, policy, audit)
            control = RoomControl(rooms, members, audit)
            return await work(_Services(rooms, members, membership, control, accounts, audit, policy))

    return with_store(inner)


def _text(option: str, value: str, most: int) -> str:
    text = plain_text(option, value)
    if len(text) > most:
        raise CommandError(f"{option}: must have at most {most} characters")
    return text


def _state(room: Room) -> str:
    if room.enabled:
        return "enabled"
    return "locked by an operator" if room.held else "disabled"


def _plain(room: Room, names: dict[str, str]) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(RoomShape.of(room))
    return plain | {"owner": names[room.owner_id], "held": room.held}
