"""Twenty people, what they do, and 100ms, which reports who is in their rooms: a mix in a fixed order."""

from __future__ import annotations

import itertools
import random
import secrets
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.accounts import password_of
from tests.chaos.load import Ask, Result
from tests.chaos.people import PASSWORD, Person, arrive
from tests.month import stamp
from tests.servers import Installation

# How many of 200 requests, which is one second, are of each kind.
MIX = {
    "ready": 15,
    "live": 5,
    "me": 30,
    "mint": 58,
    "limited": 16,
    "usage": 12,
    "list": 12,
    "read": 8,
    "create": 8,
    "refresh": 8,
    "login": 3,
    "logout": 2,
    "invite": 3,
    "accept": 3,
    "webhook": 10,
    "admin": 6,
    "add": 1,
}
_READS = (
    "/api/admin/users",
    "/api/admin/usage",
    "/api/admin/audit",
    "/api/admin/rooms/live",
    "/api/admin/overview",
    "/api/admin/status",
)


class Crowd:
    """People of one installation, new in it. `asks` is what they do; everything they learn from answers stays here."""

    def __init__(self, installation: Installation, people: list[Person]) -> None:
        self._installation = installation
        self.people = people
        self.rooms: list[tuple[str, Person]] = []  # of the beginning, with their owners
        self.keyed: dict[str, str] = {}  # every Idempotency-Key and the room it made
        self.added: dict[str, bool] = {}  # every account that was asked for, and whether that was acknowledged
        self.stays: dict[str, tuple[str, int]] = {}  # each stay that was acknowledged, by peer: whose, and seconds
        self.stem = f"new-{secrets.token_hex(4)}"  # of the names of their rooms and accounts
        self._session = secrets.token_hex(12)
        self._again: deque[Ask] = deque()  # creates with a key that have no room yet
        self._unstored: deque[Ask] = deque()  # webhooks that were not answered 200
        self._renewals: deque[Ask] = deque()  # of people whose access token was refused
        self._codes: deque[tuple[str, str]] = deque()
        self._logins: deque[tuple[str, str]] = deque()
        self._numbers = itertools.count()

    def of_role(self, *roles: str) -> list[Person]:
        return [person for person in self.people if person.role in roles]

    def opening(self) -> Iterator[Ask]:
        """Yield the creates of the first rooms, in which the others take place."""
        for host in self.of_role("host")[:4]:
            yield self._creation(host, lambda result, host=host: self._opened(result, host))  # type: ignore[misc]

    def asks(self) -> Iterator[Ask]:
        """Yield what the people do, for ever; each second has the same mix in another order."""
        chance = random.Random(15)
        kinds = [kind for kind, count in MIX.items() for _ in range(count)]
        turns = {kind: itertools.count() for kind in MIX}
        while True:
            chance.shuffle(kinds)
            for kind in kinds:
                yield self._renewals.popleft() if self._renewals else getattr(self, f"_{kind}")(next(turns[kind]))

    def newcomers(self, count: int) -> list[Ask]:
        """Return the creation of so many accounts."""
        return [self._add(-turn) for turn in range(1, count + 1)]

    def notice(self, result: Result) -> None:
        """Look at any answer: whose access token is refused gets new ones, as the code of the problem says."""
        who = next((one for one in self.people if one.id == result.ask.who), None)
        if result.status != 401 or who is None or who.token != result.ask.token or who.refreshing:
            return
        who.refreshing = True
        self._renewals.append(self._refresh_of(who) if result.code == "token_expired" else self._login_of(who))

    # --- what they do ---

    def _ready(self, _: int) -> Ask:
        return Ask("ready", "GET", "/health/ready", "/health/ready")

    def _live(self, _: int) -> Ask:
        return Ask("live", "GET", "/health/live", "/health/live")

    def _me(self, turn: int) -> Ask:
        return self._by(self._one(turn), "me", "GET", "/api/auth/me")

    def _mint(self, turn: int) -> Ask:
        return self._minted(self._one(turn, "host", "member"), turn)

    def _limited(self, turn: int) -> Ask:
        return self._minted(self._one(turn, "scarce", "steady"), turn, action="limited")

    def _minted(self, who: Person, turn: int, *, action: str = "mint") -> Ask:
        room = self._room(turn)[0]
        path = f"/api/rooms/{room}/token"
        return Ask(action, "POST", "/api/rooms/{room_id}/token", path, who.id, who.token, {})

    def _usage(self, turn: int) -> Ask:
        return self._by(self._one(turn), "usage", "GET", "/api/usage")

    def _list(self, turn: int) -> Ask:
        return self._by(self._one(turn), "list", "GET", "/api/rooms")

    def _read(self, turn: int) -> Ask:
        who = self._one(turn, "host", "member")
        return Ask("read", "GET", "/api/rooms/{room_id}", f"/api/rooms/{self._room(turn)[0]}", who.id, who.token)

    def _create(self, turn: int) -> Ask:
        """Every second one has a key. What fails is repeated with the same key, as clients should."""
        if self._again:
            return self._anew(self._again.popleft())
        who = self._one(turn, "host")
        if turn % 2 == 0:
            return self._creation(who, self._created)
        key = secrets.token_hex(8)
        self.keyed[key] = ""
        return self._creation(who, self._created, ("Idempotency-Key", key))

    def _creation(self, who: Person, learn: Callable[[Result], None], *fields: tuple[str, str]) -> Ask:
        body = {"name": f"{self.stem}-{next(self._numbers)}"}
        return Ask("create", "POST", "/api/rooms", "/api/rooms", who.id, who.token, body, fields, learn)

    def _anew(self, ask: Ask) -> Ask:
        """Return the same request with the present token of its user."""
        return replace(ask, token=next(one.token for one in self.people if one.id == ask.who))

    def _refresh(self, turn: int) -> Ask:
        who = next((one for one in self._from(turn) if not one.refreshing), None)
        if who is None:
            return self._me(turn)
        who.refreshing = True
        return self._refresh_of(who)

    def _refresh_of(self, who: Person) -> Ask:
        path, body = "/api/auth/refresh", {"refresh_token": who.refresh_token}
        return Ask("refresh", "POST", path, path, who.id, body=body, learn=lambda result: self._refreshed(result, who))

    def _login(self, turn: int) -> Ask:
        who = self._one(turn)
        return replace(self.login_of(who.name), action="login", who=who.id, learn=self._logged_in)

    def _login_of(self, who: Person) -> Ask:
        return replace(
            self.login_of(who.name), action="login", who=who.id, learn=lambda result: self._refreshed(result, who)
        )

    @staticmethod
    def login_of(name: str) -> Ask:
        path, body = "/api/auth/login", {"username": name, "password": password_of(PASSWORD)}
        return Ask("check login", "POST", path, path, body=body)

    def _logout(self, turn: int) -> Ask:
        if not self._logins:
            return self._me(turn)
        uid, token = self._logins.popleft()
        return Ask("logout", "POST", "/api/auth/logout", "/api/auth/logout", uid, body={"refresh_token": token})

    def _invite(self, turn: int) -> Ask:
        room, owner = self._room(turn)
        path, route = f"/api/rooms/{room}/invites", "/api/rooms/{room_id}/invites"
        return Ask("invite", "POST", route, path, owner.id, owner.token, {}, learn=self._invited)

    def _accept(self, turn: int) -> Ask:
        if not self._codes:
            return self._me(turn)
        code, owner = self._codes.popleft()
        who = next(one for one in self._from(turn) if one.role in ("host", "member") and one.id != owner)
        path = f"/api/invites/{code}/accept"
        return Ask("accept", "POST", "/api/invites/{code}/accept", path, who.id, who.token, {})

    def _webhook(self, turn: int) -> Ask:
        """As 100ms: an event that was not answered 200 is sent again."""
        if self._unstored:
            return self._unstored.popleft()
        peer, who, seconds = str(uuid.uuid4()), self._one(turn, "member"), 1 + turn % 50
        left_ms = time.time_ns() // 1_000_000 - 2000
        data = {"room_id": self._room(turn)[0], "session_id": self._session, "peer_id": peer, "user_id": who.id}
        data |= {"role": "guest", "joined_at": stamp(left_ms - seconds * 1000), "left_at": stamp(left_ms)}
        body = {"version": "2.0", "id": str(uuid.uuid4()), "type": "peer.leave.success", "data": data}
        fields = (("X-Gateway-Webhook-Secret", self._installation.env["HMS_WEBHOOK_SECRET"]),)

        def learn(result: Result) -> None:
            if result.succeeded:
                self.stays[peer] = (who.id, seconds)
            else:
                self._unstored.append(result.ask)

        return Ask("webhook", "POST", "/hooks/100ms", "/hooks/100ms", body=body, fields=fields, learn=learn)

    def _admin(self, turn: int) -> Ask:
        return self._by(self._one(turn, "admin"), "admin", "GET", _READS[turn % len(_READS)])

    def _add(self, turn: int) -> Ask:
        [admin] = self.of_role("admin")
        name = f"{self.stem}-{turn}"
        body = {"username": name, "roles": ["member"], "password": password_of(PASSWORD)}
        self.added[name] = False

        def learn(result: Result) -> None:
            self.added[name] = result.status == 201

        return Ask("add", "POST", "/api/admin/users", "/api/admin/users", admin.id, admin.token, body, learn=learn)

    def _by(self, who: Person, action: str, method: str, path: str) -> Ask:
        return Ask(action, method, path, path, who.id, who.token)

    # --- what they learn ---

    def _opened(self, result: Result, host: Person) -> None:
        assert result.status == 201, result.body
        self.rooms.append((result.json()["room"]["id"], host))

    def _created(self, result: Result) -> None:
        key = dict(result.ask.fields).get("Idempotency-Key")
        if key and result.status == 201:
            self.keyed[key] = result.json()["room"]["id"]
        elif key:
            self._again.append(result.ask)

    def _refreshed(self, result: Result, who: Person) -> None:
        who.refreshing = False
        if result.succeeded:
            answer = result.json()
            who.token, who.refresh_token = answer["access_token"], answer["refresh_token"]

    def _logged_in(self, result: Result) -> None:
        if result.succeeded:
            self._logins.append((result.ask.who, result.json()["refresh_token"]))

    def _invited(self, result: Result) -> None:
        if result.succeeded:
            self._codes.append((result.json()["code"], result.ask.who))

    @property
    def unfinished(self) -> bool:
        """Whether a create with a key, or a webhook, has to be repeated."""
        return bool(self._again or self._unstored)

    def repetitions(self) -> Iterator[Ask]:
        """Yield what has to be repeated, once."""
        for _ in range(len(self._again)):
            yield self._anew(self._again.popleft())
        for _ in range(len(self._unstored)):
            yield self._unstored.popleft()

    # --- whose turn it is ---

    def _one(self, turn: int, *roles: str) -> Person:
        people = self.of_role(*roles) if roles else self.people
        return people[turn % len(people)]

    def _from(self, turn: int) -> list[Person]:
        at = turn % len(self.people)
        return self.people[at:] + self.people[:at]

    def _room(self, turn: int) -> tuple[str, Person]:
        return self.rooms[turn % len(self.rooms)]


async def gather(installation: Installation) -> Crowd:
    """Return a crowd of new people."""
    return Crowd(installation, await arrive(installation))
