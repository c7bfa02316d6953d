"""Peers that `gateway emulator join` plays in the local 100ms."""

import asyncio
import re
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

from auth.users import User
from gateway.cli.failures import CommandError
from gateway.cli.terminal import progress, say
from gateway.hms.tokens import HmsTokens
from gateway.policy.effective import policy_of
from gateway.rooms.registry import slug
from gateway.settings import Settings

_ROOM_ID = re.compile(r"[0-9a-f]{24}")
_TOKEN_S = 60  # the token is used at once
_LOOK_S = 0.5
_REPLY_S = 5.0
_GONE = httpx.codes.NOT_FOUND


@dataclass(frozen=True, slots=True)
class Stay:
    """What was asked for: who joins which room, in which role (empty: a participant's first) and for how long."""

    room: str
    users: Sequence[User]
    role: str
    seconds: int


@dataclass(frozen=True, slots=True)
class _Peer:
    id: str
    name: str
    room_id: str


def check_local(settings: Settings) -> None:
    """Refuse an address that could be the real 100ms: only the local one speaks plain HTTP. Raises: CommandError"""
    if urlsplit(settings.hms_api_url).scheme != "http":
        raise CommandError(
            f"HMS_API_URL is {settings.hms_api_url}: only a local 100ms (`gateway emulator`) has peers to play"
        )


async def play(settings: Settings, stay: Stay) -> bool:
    """Join all users, wait, and let them leave. Return whether all of them stayed until the end.

    SIGINT and SIGTERM end the wait early. Raises: CommandError
    """
    check_local(settings)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with httpx.AsyncClient(timeout=_REPLY_S, trust_env=False) as http:
        local = _Local(settings, http)
        try:
            return await _play(local, stay, stop)
        except httpx.HTTPError as error:
            raise CommandError(
                f"the local 100ms at {settings.hms_api_url} does not answer ({type(error).__name__}); is it running?"
            ) from error


async def _play(local: "_Local", stay: Stay, stop: asyncio.Event) -> bool:
    room = await local.find_room(stay.room)
    role = stay.role or local.least_role(room["template_id"])
    present: list[_Peer] = []
    try:
        for user in stay.users:
            present.append(await local.join(room["id"], user, role))
            say(f"{user.username} has joined {room['name']} ({room['id']}) as {role}.")
        return await _wait(local, present, stay.seconds, stop)
    finally:
        for peer in present:
            await local.leave(peer)


async def _wait(local: "_Local", present: list[_Peer], seconds: int, stop: asyncio.Event) -> bool:
    """Wait until the time is over or no one is left. Remove peers that are gone; return whether there were none."""
    all_of_them = len(present)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(compact=True), TextColumn("left"))
    begun = time.monotonic()
    with progress(*columns) as shown:
        task = shown.add_task(", ".join(peer.name for peer in present), total=seconds)
        while present and not stop.is_set() and (spent := time.monotonic() - begun) < seconds:
            shown.update(task, completed=spent)
            await _pause(stop, min(_LOOK_S, seconds - spent))
            for peer in list(present):
                if why := await local.why_gone(peer):
                    present.remove(peer)
                    shown.console.print(f"{peer.name}: {why}", markup=False, highlight=False, soft_wrap=True)
    return len(present) == all_of_them


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass


class _Local:
    """The calls to the local 100ms. Every method raises httpx.HTTPError, and CommandError for a refusal."""

    def __init__(self, settings: Settings, http: httpx.AsyncClient) -> None:
        self._rest = settings.hms_api_url
        self._control = self._rest.removesuffix("/v2") + "/emulator"
        self._tokens = HmsTokens(settings.hms_app_access_key, settings.hms_app_secret)
        self._policy = policy_of(settings)
        self._http = http

    async def find_room(self, room: str) -> dict[str, Any]:
        """Return a room by its id, or by its name at the gateway or at the local 100ms if only one has it."""
        if _ROOM_ID.fullmatch(room):
            return await self._ask("GET", f"{self._rest}/rooms/{room}")
        found = [one for one in await self._rooms() if one["name"] == room or _has_name(one["name"], room)]
        if len(found) == 1:
            return found[0]
        if not found:
            raise CommandError(f"the local 100ms has no room named {room!r}; give the id of a room")
        raise CommandError(
            f"{len(found)} rooms are named {room!r}; give an id: " + ", ".join(r["id"] for r in found[:5])
        )

    async def _rooms(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        last = ""
        while True:
            page = await self._ask("GET", f"{self._rest}/rooms", query={"limit": "100", "start": last})
            found += page["data"]
            if len(page["data"]) < page["limit"]:
                return found
            last = page["last"]

    def least_role(self, template_id: str) -> str:
        """Return the role that a participant gets who asks for none."""
        named = [alias for alias, its_id in self._policy.template_ids.items() if its_id == template_id]
        roles = self._policy.mintable(named[0] if named else "default", "participant")
        if not roles:
            raise CommandError("the policy lets participants join in no role; choose one with --role")
        return roles[0]

    async def join(self, room_id: str, user: User, role: str) -> _Peer:
        """Let a user join with a token of the same form as the gateway's."""
        try:
            signed = self._tokens.join_token(room_id=room_id, user_id=user.id, role=role, ttl_s=_TOKEN_S)
        except ValueError as error:
            raise CommandError(f"--role: {error}") from error
        body = {"token": signed.token, "name": user.display_name}
        try:
            peer = await self._ask("POST", f"{self._control}/peers", body=body)
        except CommandError as error:
            raise CommandError(f"{user.username} cannot join: {error}") from error
        return _Peer(peer["id"], user.username, room_id)

    async def leave(self, peer: _Peer) -> None:
        """Let a peer leave, unless it is gone already."""
        if await self._exists("DELETE", f"{self._control}/peers/{peer.id}"):
            say(f"{peer.name} has left.")

    async def why_gone(self, peer: _Peer) -> str:
        """Return why a peer is no longer in the room; empty while it is."""
        if await self._exists("GET", f"{self._control}/peers/{peer.id}"):
            return ""
        message = await self._message(peer)
        said = f' with the message "{message}"' if message else ""
        if await self._exists("GET", f"{self._rest}/active-rooms/{quote(peer.room_id)}"):
            return f"removed by the server{said}; the room goes on"
        return f"removed by the server{said}; the room's session has ended"

    async def _message(self, peer: _Peer) -> str:
        """Return the message that a removed peer got, as its event has it; empty if no event was sent."""
        sent = (await self._ask("GET", f"{self._control}/deliveries"))["deliveries"]
        events = (one["event"] for one in sent if one["event"].get("type") == "peer.leave.success")
        return next((str(one["data"]["message"]) for one in events if one["data"].get("peer_id") == peer.id), "")

    async def _exists(self, method: str, url: str) -> bool:
        return (await self._send(method, url)).status_code != _GONE

    async def _ask(
        self, method: str, url: str, *, query: dict[str, str] | None = None, body: dict[str, str] | None = None
    ) -> dict[str, Any]:
        reply = await self._send(method, url, query=query, body=body)
        try:
            answer = reply.json()
        except ValueError:
            answer = {}
        if reply.is_success:
            return dict(answer)
        raise CommandError(f"the local 100ms answered {reply.status_code}: {answer.get('message', 'no message')}")

    async def _send(
        self, method: str, url: str, *, query: dict[str, str] | None = None, body: dict[str, str] | None = None
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._tokens.management_token()}"}
        return await self._http.request(method, url, params=query, json=body, headers=headers)


def _has_name(upstream: str, name: str) -> bool:
    """Return whether the gateway may have made a name at 100ms from this name, see `upstream_name`."""
    return upstream.rpartition(".")[0] == slug(name)
