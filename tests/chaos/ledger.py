"""Whether what the gateway has stored is what it answered: counters, rooms, accounts, minutes, audit."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.crowd import Crowd
from tests.chaos.load import Ask, Load, Result
from tests.chaos.people import BURST, STEADY_BURST, STEADY_PER_S
from tests.e2e.people import upstream
from tests.servers import Installation

_COUNTERS = {"mint": "tokens.mint", "limited": "tokens.mint", "create": "rooms.create", "login": "login"}
_COUNTERS |= dict.fromkeys(("me", "list", "read", "invite", "accept", "admin", "add"), "api")
_CREDITED_S = 3.0
_CREDITED_BY_OTHERS_S = 15.0  # a worker that died holds its events for ten seconds
_GIVEN_UP_S = 0.6  # from a failure of Redis until a request that waited for it is given up: deadline and patience


@dataclass(slots=True)
class Doubt:
    """What a fault leaves open. `moments`: a request that was then under way and failed may have taken effect.

    `lost_s`: what was answered in so many seconds before the first moment may be lost.
    """

    moments: list[float] = field(default_factory=list)
    lost_s: float = 0.0

    def covers(self, result: Result) -> bool:
        """Tell whether a request was under way, so that it may have taken effect even if it failed."""
        if not result.was_sent:
            return False
        return any(result.sent <= at + _GIVEN_UP_S and at - 0.05 <= result.done for at in self.moments)

    def may_be_lost(self, result: Result) -> bool:
        return bool(self.lost_s) and self.moments[0] - self.lost_s <= result.done <= self.moments[0] + 0.1


@dataclass(slots=True)
class Ledger:
    """Compares a crowd's answers with what its gateway says afterwards.

    `lost` counts what was answered and is not stored; the check fails if that is more than the fault may lose.
    """

    installation: Installation
    crowd: Crowd
    load: Load
    doubt: Doubt
    more_admitted: int = 0  # by each limit
    worker_died: bool = False
    lost: int = 0

    async def check(self) -> None:
        results = tuple(self.load.results)
        await self._check_counters(results)
        await self._check_minutes()
        await self._check_admissions(results)
        await self._check_rooms(results)
        await self._check_accounts()
        await self._check_audit(results)

    async def _check_counters(self, results: Sequence[Result]) -> None:
        """A user's counters equal the answers; what was in flight at the fault is counted or not, but once."""
        known: dict[tuple[str, str], Counter[str]] = {}
        open_, losable = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
        for result in results:
            if (counter := _COUNTERS.get(result.ask.action)) and result.status != 401:
                place = (result.ask.who, counter)
                outcome = _outcome(result)
                if outcome:
                    known.setdefault(place, Counter())[outcome] += 1
                    losable[place] += self.doubt.may_be_lost(result)
                open_[place] += (
                    self.doubt.covers(result) if not outcome else result.fields.get("idempotency-replayed") == "true"
                )
        for person in self.crowd.people:
            total = (await self._get("usage", "/api/usage", person.token))["usage"]["total"]
            for counter in sorted(set(_COUNTERS.values())):
                place = (person.id, counter)
                self._compare(
                    place, _flat(total.get(counter, {})), known.get(place, Counter()), open_[place], losable[place]
                )

    def _compare(
        self, place: tuple[str, str], counted: Counter[str], known: Counter[str], open_: int, losable: int
    ) -> None:
        more, fewer = counted - known, known - counted
        said = f"{place}: counted {dict(counted)}, answered {dict(known)}, in flight {open_}, may be lost {losable}"
        # An answer that was lost may have been counted under another outcome than its repetition.
        assert more.total() <= open_, said
        assert fewer.total() <= max(losable, 0) + min(open_, more.total()), said
        self.lost += max(0, known.total() - counted.total())

    async def _check_minutes(self) -> None:
        """Every stay that was acknowledged is counted once, a little later."""
        expected: Counter[str] = Counter()
        for who, seconds in self.crowd.stays.values():
            expected[who] += seconds
        until = time.monotonic() + (_CREDITED_BY_OTHERS_S if self.worker_died else _CREDITED_S)
        while True:
            credited: Counter[str] = Counter()
            for person in self.crowd.of_role("member"):
                total = (await self._get("usage", "/api/usage", person.token))["usage"]["total"]
                credited[person.id] = total.get("minutes", {}).get("seconds", 0)
            if credited == expected or time.monotonic() > until:
                break
            await asyncio.sleep(0.1)
        assert credited == expected, (credited - expected, expected - credited)

    async def _check_admissions(self, results: Sequence[Result]) -> None:
        """A limit admitted a burst and what came back, and after a crash at most what the last second had spent."""
        [scarce], [steady] = self.crowd.of_role("scarce"), self.crowd.of_role("steady")
        for person, burst, per_s in ((scarce, BURST, BURST / 3600), (steady, STEADY_BURST, STEADY_PER_S)):
            mine = [result for result in results if result.ask.who == person.id and result.ask.action == "limited"]
            admitted = [result for result in mine if result.succeeded]
            took_s = max(one.done for one in admitted) - min(one.sent for one in admitted)
            again = min(sum(map(self.doubt.may_be_lost, admitted)), burst) + self.more_admitted
            assert len(admitted) <= int(burst + took_s * per_s) + again, f"{person.role}: {len(admitted)} in {took_s} s"

    async def _check_rooms(self, results: Sequence[Result]) -> None:
        """Rooms that were answered are registered and at 100ms; no others but those in flight; one for each key."""
        [operator] = self.crowd.of_role("operator")
        mine = {one.id for one in self.crowd.people}
        registered = {
            room["id"]
            async for room in self._pages("/api/rooms", "rooms", operator.token, limit=100)
            if room["owner_id"] in mine
        }
        answered = {
            result.json()["room"]["id"]: result
            for result in results
            if result.ask.action == "create" and result.succeeded
        }
        at_100ms = _rooms_at_100ms(self.installation, self.crowd.stem)
        losable = {room for room, result in answered.items() if self.doubt.may_be_lost(result)}
        failed = [result for result in results if result.ask.action == "create" and not result.succeeded]
        # One with a key was repeated until it was answered.
        failed = [result for result in failed if result.was_sent and not result.ask.fields]
        assert set(answered) <= at_100ms
        assert set(answered) - registered <= losable, f"lost rooms: {set(answered) - registered - losable}"
        assert registered <= at_100ms
        assert len(registered - set(answered)) <= sum(map(self.doubt.covers, failed))
        assert len(at_100ms - set(answered)) <= len(failed), (len(at_100ms), len(answered), len(failed))
        assert all(self.crowd.keyed.values()), "a create with a key never succeeded"
        assert len(set(self.crowd.keyed.values())) == len(self.crowd.keyed), "two keys, one room"
        self.lost += len(set(answered) - registered)

    async def _check_accounts(self) -> None:
        """Every account that was acknowledged exists, and its password is right."""
        [admin] = self.crowd.of_role("admin")
        listed = await self._get("admin", f"/api/admin/users?name={self.crowd.stem}&limit=500", admin.token)
        names = {user["username"] for user in listed["users"]}
        acknowledged = {name for name, done in self.crowd.added.items() if done}
        assert acknowledged <= names, f"lost accounts: {acknowledged - names}"
        assert names <= set(self.crowd.added)
        for name in acknowledged:
            answer = await self.load.ask(self.crowd.login_of(name))
            assert answer.status == 200, answer

    async def _check_audit(self, results: Sequence[Result]) -> None:
        """Every room, account and login that was answered has one entry in the trail."""
        [operator] = self.crowd.of_role("operator")
        entries: Counter[tuple[str, str]] = Counter()
        for action in ("room.created", "user.created", "login"):
            path = f"/api/admin/audit?action={action}"
            async for entry in self._pages(path, "items", operator.token, limit=500):
                entries[entry["action"], entry["request_id"]] += 1
        assert max(entries.values(), default=1) == 1
        expected = {"create": "room.created", "add": "user.created", "login": "login"}
        for result in results:
            if result.succeeded and (action := expected.get(result.ask.action)):
                if result.fields.get("idempotency-replayed") == "true":
                    continue  # its entry has the id of the request that made the room
                written = entries[action, result.fields["x-request-id"]] == 1
                open_ = self.doubt.may_be_lost(result) or self.doubt.covers(result)
                assert written or open_, f"no entry {action} of {result}"
                self.lost += not written

    async def _pages(self, path: str, items: str, token: str, *, limit: int) -> Any:
        cursor = ""
        while True:
            query = f"{'&' if '?' in path else '?'}limit={limit}" + (f"&cursor={cursor}" if cursor else "")
            page = await self._get("admin", path + query, token)
            for item in page[items]:
                yield item
            cursor = page["next_cursor"]
            if not cursor:
                return

    async def _get(self, action: str, path: str, token: str) -> Any:
        answer = await self.load.ask(Ask(f"check {action}", "GET", path.partition("?")[0], path, token=token))
        assert answer.status == 200, (answer, answer.body)
        return answer.json()


def _outcome(result: Result) -> str:
    """Return under which outcome a request is counted; empty if it is not, or if that is not known."""
    if result.succeeded:
        return "ok"
    if result.status == 0 or result.code == "unavailable":
        return ""
    if result.ask.action == "login":
        return ""
    if result.status == 429:
        return "denied"
    return "failed" if result.status >= 500 else f"refused.{result.code}"


def _flat(tally: dict[str, Any]) -> Counter[str]:
    """Return a tally of `GET /api/usage` as outcomes."""
    found: Counter[str] = Counter()
    for outcome, count in tally.items():
        if outcome == "denied":
            found["denied"] = sum(count.values())
        elif outcome == "refused":
            found.update({f"refused.{code}": number for code, number in count.items()})
        elif outcome in ("ok", "failed"):
            found[outcome] = int(count)
    return +found


def _rooms_at_100ms(installation: Installation, stem: str) -> set[str]:
    found, start = set(), ""
    while True:
        page = upstream(installation, "/rooms", limit="100", **({"start": start} if start else {}))
        found |= {room["id"] for room in page["data"] if stem in room["name"]}
        start = page.get("last", "")
        if not start or not page["data"]:
            return found
