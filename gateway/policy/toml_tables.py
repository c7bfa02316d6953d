"""Reading tables of a TOML file strictly: every refusal names file, key and reason."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NoReturn

_DURATION = re.compile(r"([1-9][0-9]{0,5})(s|min|h|d)")


class PolicyError(Exception):
    """The policy file is wrong. The text is one line: file, key, reason."""


class TomlTables:
    """Checks the values of one file, which is called `file` in refusals. Each method raises PolicyError."""

    def __init__(self, file: str) -> None:
        self._file = file

    def duration(self, key: str, value: Any, least: int, most: int) -> int:
        match = _DURATION.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            self.refuse(key, 'must be a duration such as "90s", "15min" or "2h"')
        seconds = int(match[1]) * {"s": 1, "min": 60, "h": 3600, "d": 86_400}[match[2]]
        if not least <= seconds <= most:
            self.refuse(key, f"must be from {least} to {most} seconds")
        return seconds

    def choice(self, key: str, value: Any, choices: tuple[str, ...]) -> str:
        if value not in choices:
            self.refuse(key, f"must be one of: {', '.join(choices)}")
        return str(value)

    def integer(self, key: str, value: Any, least: int, most: int) -> int:
        if type(value) is not int or not least <= value <= most:
            self.refuse(key, f"must be a whole number from {least} to {most}")
        return value

    def boolean(self, key: str, value: Any) -> bool:
        if type(value) is not bool:
            self.refuse(key, "must be true or false")
        return value

    def strings(self, key: str, value: Any) -> list[str]:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.refuse(key, "must be a list of texts")
        return value

    def table(self, key: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.refuse(key, "must be a table")
        return value

    def keys(self, key: str, data: dict[str, Any], known: set[str], required: Iterable[str] = ()) -> None:
        for name in sorted(data.keys() - known):
            self.refuse(f"{key}.{name}".lstrip("."), "unknown key")
        for name in sorted(set(required) - data.keys()):
            self.refuse(f"{key}.{name}", "is missing")

    def refuse(self, key: str, reason: str) -> NoReturn:
        # One line whatever the key: a quoted TOML key may hold line breaks.
        name = key if key.isprintable() else repr(key)
        raise PolicyError(f"{self._file}: {name}: {reason}")
