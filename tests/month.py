"""A simulated month at 100ms: who was in which room when, and the webhooks about it, disturbed as in real life."""

from __future__ import annotations

import json
import random
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Stay:
    """One peer in one session; times are epoch milliseconds."""

    room: str
    session: str
    peer: str
    user: str
    joined_ms: int
    left_ms: int

    @property
    def seconds(self) -> int:
        return self.left_ms // 1000 - self.joined_ms // 1000

    def by_day(self) -> Iterator[tuple[str, int]]:
        """Return the seconds on each UTC day; they add up to `seconds`."""
        at, end = self.joined_ms // 1000, self.left_ms // 1000
        while at < end:
            midnight = (at // DAY_S + 1) * DAY_S
            yield f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}", min(end, midnight) - at
            at = midnight


@dataclass(frozen=True, slots=True)
class Session:
    """A session and all its stays."""

    id: str
    room: str
    stays: tuple[Stay, ...]

    @property
    def opened_ms(self) -> int:
        return min(stay.joined_ms for stay in self.stays)

    @property
    def closed_ms(self) -> int:
        return max(stay.left_ms for stay in self.stays)

    def reply(self) -> dict[str, Any]:
        """Return it as 100ms's sessions API does."""
        peers = {
            stay.peer: {
                "id": stay.peer,
                "session_id": self.id,
                "name": "",
                "role": "guest",
                "user_id": stay.user,
                "joined_at": stamp(stay.joined_ms),
                "left_at": stamp(stay.left_ms),
            }
            for stay in self.stays
        }
        times = {"created_at": stamp(self.opened_ms), "updated_at": stamp(self.closed_ms)}
        return {"id": self.id, "room_id": self.room, "active": False, **times, "peers": peers}


@dataclass
class Disturbed:
    """Shares of the webhooks that come twice, come late, or are lost."""

    duplicates: float = 0.05
    reorders: float = 0.05
    lost_leaves: float = 0.02
    lost_closes: float = 0.01


@dataclass
class Month:
    """The truth. `owners` has the owner of each room."""

    users: list[str]
    owners: dict[str, str]
    sessions: list[Session]
    lost: Counter[str] = field(default_factory=Counter)
    lost_s: int = 0  # of stays whose leave was lost

    @property
    def stays(self) -> Iterator[Stay]:
        return (stay for session in self.sessions for stay in session.stays)

    def minutes(self) -> dict[str, Counter[tuple[str, str]]]:
        """Return the seconds by (subject, UTC day): of participants, of rooms, of owners, of all."""
        found: dict[str, Counter[tuple[str, str]]] = {kind: Counter() for kind in ("user", "room", "owner", "all")}
        for stay in self.stays:
            for day, seconds in stay.by_day():
                found["user"][stay.user, day] += seconds
                found["room"][stay.room, day] += seconds
                found["owner"][self.owners[stay.room], day] += seconds
                found["all"]["all", day] += seconds
        return found

    def events(self, random: random.Random, disturbed: Disturbed) -> list[bytes]:
        """Return the bodies of webhooks in the order of their arrival. What was lost is counted in `lost`."""
        arrivals: list[tuple[float, bytes]] = []

        def send(at_ms: int, kind: str, data: dict[str, Any]) -> None:
            if (kind == "peer.leave.success" and random.random() < disturbed.lost_leaves) or (
                kind == "session.close.success" and random.random() < disturbed.lost_closes
            ):
                self.lost[kind] += 1
                self.lost_s += data.get("duration", 0)
                return
            late_ms = random.choice((1_000, 4_000, 14_000)) if random.random() < disturbed.reorders else 0
            event = {"version": "2.0", "id": str(uuid.UUID(int=random.getrandbits(128))), "type": kind, "data": data}
            body = json.dumps(event | {"timestamp": stamp(at_ms // 1000 * 1000)}).encode()
            arrivals.append((at_ms + late_ms + random.random(), body))
            if random.random() < disturbed.duplicates:
                # Of a retry whose answer was lost, or of a replay days later.
                again_ms = random.choice((1_000, 4_000, 14_000, 3 * DAY_S * 1000))
                arrivals.append((at_ms + again_ms + random.random(), body))

        for session in self.sessions:
            ids = {"room_id": session.room, "session_id": session.id, "session_started_at": stamp(session.opened_ms)}
            send(session.opened_ms, "session.open.success", ids)
            for stay in session.stays:
                peer = ids | {"peer_id": stay.peer, "user_id": stay.user, "role": "guest", "type": "regular"}
                joined = peer | {"joined_at": stamp(stay.joined_ms)}
                send(stay.joined_ms, "peer.join.success", joined)
                left = {"left_at": stamp(stay.left_ms), "duration": stay.seconds, "reason": "client request"}
                send(stay.left_ms, "peer.leave.success", joined | left)
            send(session.closed_ms, "session.close.success", ids | {"session_stopped_at": stamp(session.closed_ms)})
        arrivals.sort()
        return [body for _, body in arrivals]


def simulate(random: random.Random, *, users: int, rooms: int, stays: int, until: datetime, days: int = 30) -> Month:
    """Return a month that ends at an instant: sessions of 1 to 40 stays, of which some cross a midnight."""
    names = ["u" + "".join(random.choices("abcdefghijklmnopqrstuvwxyz234567", k=20)) for _ in range(users)]
    owners = {random.randbytes(12).hex(): random.choice(names) for _ in range(rooms)}
    room_ids = list(owners)
    first_ms = int((until - timedelta(days=days)).timestamp() * 1000)
    last_ms = int(until.timestamp() * 1000) - 12 * 3_600_000
    sessions: list[Session] = []
    left = stays
    while left:
        size = min(left, random.choice((1, 2, 2, 3, 4, 6, 8, 12, 20, 40)))
        left -= size
        opened_ms, session, room = (
            random.randrange(first_ms, last_ms),
            random.randbytes(12).hex(),
            random.choice(room_ids),
        )
        length_ms = random.randrange(60_000, 4 * 3_600_000)
        found = []
        for _ in range(size):
            joined_ms = opened_ms + random.randrange(length_ms)
            left_ms = joined_ms + random.randrange(500, length_ms)
            peer = str(uuid.UUID(int=random.getrandbits(128)))
            found.append(Stay(room, session, peer, random.choice(names), joined_ms, left_ms))
        sessions.append(Session(session, room, tuple(found)))
    return Month(names, owners, sessions)


def stamp(at_ms: int) -> str:
    """Return an instant as 100ms writes it: RFC 3339 in UTC, with trailing zeros of the fraction trimmed."""
    text = f"{datetime.fromtimestamp(at_ms // 1000, UTC):%Y-%m-%dT%H:%M:%S}"
    fraction = f"{at_ms % 1000:03}".rstrip("0")
    return f"{text}.{fraction}Z" if fraction else f"{text}Z"
