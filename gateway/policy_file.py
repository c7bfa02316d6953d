"""Reading policy.toml: every refusal names file, key and reason."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, NoReturn

from gateway.policy import ACTIONS, LIMITED_ACTIONS, PERMISSIONS, RELATIONS, Policy, Role, RoomDefaults
from limits.policy import US_PER_S, Limit, parse_rate

_BUILT_IN = files(__package__).joinpath("policy.toml")
_DURATION = re.compile(r"([1-9][0-9]{0,5})(s|min|h|d)")
_100MS_ROLE = re.compile(r"[ -=@-}]{1,64}")  # plain ASCII without ? > ~, which break the web client's atob


class PolicyError(Exception):
    """The policy file is wrong. The text is one line: file, key, reason."""


def load_policy(path: Path | None = None) -> Policy:
    """Read and check a policy file; without a path, the built-in one.

    Raises:
        PolicyError
    """
    name = path.name if path else "policy.toml"
    try:
        text = path.read_text() if path else _BUILT_IN.read_text()
        return _Reader(name).policy(tomllib.loads(text))
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"{name}: cannot be read: {type(error).__name__}") from error
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"{name}: {error}") from error


class _Reader:
    """Turns a parsed policy file into values; every refusal names file, key and reason."""

    def __init__(self, name: str) -> None:
        self._name = name

    def policy(self, data: dict[str, Any]) -> Policy:
        self._keys("", data, {"roles", "limits", "templates", "rooms"})
        tables = {name: self._table(name, data.get(name, {})) for name in ("roles", "limits", "templates", "rooms")}
        applies_to = {name: self._limit(name, table) for name, table in tables["limits"].items()}
        roles = {name: self._role(name, table, applies_to) for name, table in tables["roles"].items()}
        templates = {name: self._template(name, table) for name, table in tables["templates"].items()}
        if not roles:
            self._refuse("roles", "at least one role is needed")
        if "default" not in templates:
            self._refuse("templates.default", "is missing")
        return Policy(self._name, roles, applies_to, templates, self._rooms(tables["rooms"]))

    def _role(self, name: str, data: Any, limits: Mapping[str, frozenset[str]]) -> Role:
        key = f"roles.{name}"
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", name):
            self._refuse(key, "a role's name is 1 to 32 of a-z 0-9 _ -, starting with a letter")
        self._keys(key, self._table(key, data), {"permissions", "limits"})
        permissions = frozenset(self._strings(f"{key}.permissions", data.get("permissions", [])))
        for permission in sorted(permissions - PERMISSIONS):
            self._refuse(f"{key}.permissions", f"unknown permission {permission!r}")
        numbers = self._table(f"{key}.limits", data.get("limits", {}))
        for limit in numbers.keys() - limits.keys():
            self._refuse(f"{key}.limits.{limit}", f"there is no [limits.{limit}]")
        for limit, actions in limits.items():
            # An unlimited action must be written as a large number, not happen by leaving a line out.
            reachable = {a for a in actions if ACTIONS[a] is None or ACTIONS[a] in permissions}
            if reachable and limit not in numbers:
                self._refuse(f"{key}.limits.{limit}", f"is missing; the role may do {', '.join(sorted(reachable))}")
        numbers_of = {limit: self._number(f"{key}.limits.{limit}", limit, numbers[limit]) for limit in numbers}
        return Role(permissions, numbers_of)

    def _number(self, key: str, name: str, data: Any) -> Limit:
        self._keys(key, self._table(key, data), {"rate", "burst"}, required={"rate", "burst"})
        burst = self._integer(f"{key}.burst", data["burst"], 1, 10**9)
        if not isinstance(data["rate"], str):
            self._refuse(f"{key}.rate", 'must be a text such as "120/min"')
        try:
            return Limit(name, *parse_rate(data["rate"]), burst)
        except ValueError as error:
            self._refuse(key, str(error))

    def _limit(self, name: str, data: Any) -> frozenset[str]:
        key = f"limits.{name}"
        self._keys(key, self._table(key, data), {"applies_to"}, required={"applies_to"})
        actions = set(self._strings(f"{key}.applies_to", data["applies_to"]))
        for action in sorted(actions - LIMITED_ACTIONS - {"*"}):
            self._refuse(f"{key}.applies_to", f"unknown action {action!r}")
        if not actions:
            self._refuse(f"{key}.applies_to", "names no action")
        try:
            Limit(name, 1, US_PER_S, 1)
        except ValueError as error:
            self._refuse(key, str(error))
        return LIMITED_ACTIONS if "*" in actions else frozenset(actions)

    def _template(self, name: str, data: Any) -> dict[str, tuple[str, ...]]:
        key = f"templates.{name}"
        self._keys(key, self._table(key, data), set(RELATIONS))
        roles = {relation: tuple(self._strings(f"{key}.{relation}", data[relation])) for relation in data}
        for relation, names in roles.items():
            for role in names:
                if not _100MS_ROLE.fullmatch(role):
                    self._refuse(f"{key}.{relation}", f"{role!r} is not a role name of plain ASCII without ? > ~")
        return roles

    def _rooms(self, data: dict[str, Any]) -> RoomDefaults:
        self._keys("rooms", data, {"access", "region", "size", "max_duration", "token_ttl"})
        return RoomDefaults(
            access=self._choice("rooms.access", data.get("access", "open"), ("open", "invited")),
            region=self._choice("rooms.region", data.get("region", "auto"), ("auto", "us", "eu", "in")),
            size=self._integer("rooms.size", data.get("size", 100), 1, 2500),
            max_duration_s=self._duration("rooms.max_duration", data.get("max_duration", "12h"), 120, 43_200),
            token_ttl_s=self._duration("rooms.token_ttl", data.get("token_ttl", "1h"), 60, 86_400),
        )

    def _duration(self, key: str, value: Any, least: int, most: int) -> int:
        match = _DURATION.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            self._refuse(key, 'must be a duration such as "90s", "15min" or "2h"')
        seconds = int(match[1]) * {"s": 1, "min": 60, "h": 3600, "d": 86_400}[match[2]]
        if not least <= seconds <= most:
            self._refuse(key, f"must be from {least} to {most} seconds")
        return seconds

    def _choice(self, key: str, value: Any, choices: tuple[str, ...]) -> str:
        if value not in choices:
            self._refuse(key, f"must be one of: {', '.join(choices)}")
        return str(value)

    def _integer(self, key: str, value: Any, least: int, most: int) -> int:
        if type(value) is not int or not least <= value <= most:
            self._refuse(key, f"must be a whole number from {least} to {most}")
        return value

    def _strings(self, key: str, value: Any) -> list[str]:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self._refuse(key, "must be a list of texts")
        return value

    def _table(self, key: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            self._refuse(key, "must be a table")
        return value

    def _keys(self, key: str, data: dict[str, Any], known: set[str], required: Iterable[str] = ()) -> None:
        for name in sorted(data.keys() - known):
            self._refuse(f"{key}.{name}".lstrip("."), "unknown key")
        for name in sorted(set(required) - data.keys()):
            self._refuse(f"{key}.{name}", "is missing")

    def _refuse(self, key: str, reason: str) -> NoReturn:
        raise PolicyError(f"{self._name}: {key}: {reason}")
