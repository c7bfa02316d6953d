"""Thirty days of counters, so that the console's charts and pictures show more than the traffic of a test."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from limits.counters import ZONE
from tests.servers import Installation

BERLIN = ZoneInfo("Europe/Berlin")
DAYS = 29


def write_history(installation: Installation, users: Sequence[str], room: str) -> None:
    """Add counters of past days in Berlin to some users (ids), their sum to the installation, a part to a room."""
    installation.valkey.load(_commands(users, room))


def _commands(users: Sequence[str], room: str) -> Iterator[tuple[str | int, ...]]:
    dice = random.Random(4)
    today = datetime.now(BERLIN).date()
    for ago in range(1, DAYS + 1):
        day = today - timedelta(days=ago)
        month, number = day.isoformat()[:7], day.isoformat()[8:]
        yield "HSET", f"uc:1:{{all}}:{month}", f"{number}:{ZONE}{BERLIN}", 1
        scale = (0.35 if day.weekday() > 4 else 1) * (1.3 - ago / 60)
        for index, user in enumerate(users):
            busy = scale / (1 + index * 0.6)
            counts = {
                "api.ok": round(dice.uniform(160, 260) * busy),
                "tokens.mint.ok": round(dice.uniform(60, 110) * busy),
                "rooms.create.ok": round(dice.uniform(2, 6) * busy),
                "minutes.ok": round(dice.uniform(9_000, 20_000) * busy),
                "api.refused.not_found": round(dice.uniform(2, 14) * busy),
                "tokens.mint.failed": int(dice.random() > 0.93) * 5,
            }
            denied = {
                "tokens.mint.denied.tokens.mint": round(dice.uniform(2, 24) * busy),
                "api.denied.api": int(dice.random() > 0.7) * 9,
            }
            for kind, found in (("uc", counts), ("dn", denied)):
                for metric, count in found.items():
                    if count:
                        for subject in (user, "all"):
                            key = f"{'uc' if subject == 'all' else kind}:1:{{{subject}}}"
                            yield "HINCRBY", f"{key}:{month}", f"{number}:{metric}", count
                            yield "HINCRBY", f"{key}:{month}", f"*:{metric}", count
                            yield "HINCRBY", f"{key}:all", metric, count
                        yield "ZINCRBY", f"tp:1:{month}:{metric}", count, user
                        if kind == "dn":
                            yield "ZINCRBY", f"tp:1:{month}:denials", count, user
            if index == 0:
                for metric in ("minutes.ok", "tokens.mint.ok"):
                    yield "HINCRBY", f"rc:1:{{{room}}}:{month}", f"{number}:{metric}", counts[metric] // 2
