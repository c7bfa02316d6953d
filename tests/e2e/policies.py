"""Policies for installations of tests: the built-in one with other numbers."""

from __future__ import annotations

import re
from pathlib import Path

BUILT_IN = Path(__file__).parents[2] / "gateway" / "policy" / "policy.toml"

_NUMBERS = re.compile(r'\{ rate = "[^"]*", burst = [0-9]+ \}')

# Mints have a small limit; `api` is so generous that it never denies.
HUNDRED = """
[roles.hundred]
permissions = ["rooms:join", "rooms:create", "usage:read-own"]
limits.api = { rate = "100000/min", burst = 10000 }
limits."rooms.create" = { rate = "100000/min", burst = 10000 }
limits."tokens.mint" = { rate = "100/h", burst = 100 }
"""


def roomy() -> str:
    """Return the built-in policy with limits so generous that tests do not reach them, and the role `hundred`."""
    text, changed = _NUMBERS.subn('{ rate = "100000/min", burst = 10000 }', BUILT_IN.read_text())
    assert changed
    return _replaced(text, "active_per_owner = 50 ", "active_per_owner = 100_000 ") + HUNDRED


def narrow() -> str:
    """Return `roomy` with unique names, three rooms at once, join tokens of ten minutes and guests of five."""
    text = _replaced(roomy(), "active_per_owner = 100_000 ", "active_per_owner = 3 ")
    text = _replaced(text, "unique_names = false", "unique_names = true")
    text = _replaced(text, 'token_ttl = "1h"', 'token_ttl = "10min"')
    return _replaced(text, 'lasts = "12h"', 'lasts = "5min"')


def guarded() -> str:
    """Return `roomy`, but with the built-in limits of failed logins and of registrations."""
    text = roomy()
    for line in BUILT_IN.read_text().splitlines():
        name = line.partition(" ")[0]
        if name in ("failures", "account", "known_account", "register"):
            text, changed = re.subn(rf"(?m)^{name} = .*$", line, text)
            assert changed == 1
    return text


def _replaced(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, new)
