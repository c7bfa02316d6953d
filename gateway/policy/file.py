"""Reading policy.toml into a Policy."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from gateway.policy.model import (
    ACTIONS,
    COUNTERS,
    LIMITED_ACTIONS,
    PERMISSIONS,
    POWERS,
    RELATIONS,
    Anonymous,
    Guests,
    Policy,
    Registration,
    Role,
    RoomDefaults,
)
from gateway.policy.toml_tables import PolicyError, TomlTables
from limits.limiter import MOST_LIMITS
from limits.policy import MOST_UNITS, Limit, Quota, check_name, parse_rate

__all__ = ["PolicyError", "built_in_text", "load_policy", "parse_policy"]

_BUILT_IN = files(__package__).joinpath("policy.toml")
ROLE_NAME = re.compile(r"[ -=@-}]{1,64}")  # plain ASCII without ? > ~, which break the web client's atob
NAMES_ALLOWED = "plain ASCII without ? > ~, at most 64 characters"  # ROLE_NAME in words
BUILT_IN = "the built-in policy"  # the source of the one that no file of the operator's holds
SECTIONS = ("registration", "roles", "limits", "quotas", "templates", "rooms", "guests", "anonymous")
REGISTRATION_MODES = ("closed", "invite", "open")


@dataclass(frozen=True, slots=True)
class _Rule:
    """One [limits.*] table: what it is charged for, and what every role's number of it has in common."""

    actions: frozenset[str]
    cost: int
    flags: Mapping[str, Any]
    default: Mapping[str, Any]


def load_policy(path: Path | None = None) -> Policy:
    """Read and check a policy file; without a path, the built-in one.

    Raises:
        PolicyError
    """
    if path is None:
        return parse_policy(built_in_text(), BUILT_IN)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path.name}: cannot be read: {type(error).__name__}") from error
    return parse_policy(text, path.name)


def built_in_text() -> str:
    """Return the built-in policy as it is written, comments and all."""
    return _BUILT_IN.read_text(encoding="utf-8")


def parse_policy(text: str, name: str) -> Policy:
    """Check a policy that is written in a text; refusals call its file `name`. Raises: PolicyError"""
    try:
        return _Reader(name).policy(tomllib.loads(text))
    except RecursionError as error:
        raise PolicyError(f"{name}: is nested too deeply") from error
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"{name}: {error}") from error


class _Reader:
    """Turns a parsed policy file into values."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._toml = TomlTables(name)

    def policy(self, data: dict[str, Any]) -> Policy:
        toml = self._toml
        toml.keys("", data, set(SECTIONS))
        tables = {name: toml.table(name, data.get(name, {})) for name in SECTIONS}
        if len(tables["limits"]) + len(tables["quotas"]) > MOST_LIMITS:
            toml.refuse("limits", f"there may be {MOST_LIMITS} limits and quotas together")
        rules = {name: self._rule(name, table) for name, table in tables["limits"].items()}
        quotas = {name: self._quota_rule(name, table) for name, table in tables["quotas"].items()}
        for name in rules.keys() & quotas.keys():
            toml.refuse(f"quotas.{name}", "is the name of a limit as well")
        roles = {name: self._role(name, table, rules, quotas) for name, table in tables["roles"].items()}
        if not tables["roles"]:
            toml.refuse("roles", "at least one role is needed")
        if "default" not in tables["templates"]:
            toml.refuse("templates.default", "is missing")
        templates = {name: self._template(name, table) for name, table in tables["templates"].items()}
        return Policy(
            self._name,
            roles,
            {name: rule.actions for name, rule in rules.items()},
            templates,
            self._rooms(tables["rooms"]),
            self._anonymous(tables["anonymous"]),
            self._registration(tables["registration"], roles),
            self._guests(tables["guests"], roles),
            {name: rule.cost for name, rule in rules.items()},
            {name: table["id"] for name, table in tables["templates"].items() if "id" in table},
        )

    def _role(self, name: str, data: Any, rules: Mapping[str, _Rule], quotas: Mapping[str, Mapping[str, Any]]) -> Role:
        toml, key = self._toml, f"roles.{name}"
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", name):
            toml.refuse(key, "a role's name is 1 to 32 of a-z 0-9 _ -, starting with a letter")
        toml.keys(key, toml.table(key, data), {"permissions", "limits", "quotas", "open_rooms"})
        permissions = frozenset(toml.strings(f"{key}.permissions", data.get("permissions", [])))
        for permission in sorted(permissions - PERMISSIONS):
            toml.refuse(f"{key}.permissions", f"unknown permission {permission!r}")
        amounts = toml.table(f"{key}.quotas", data.get("quotas", {}))
        for quota in amounts.keys() - quotas.keys():
            toml.refuse(f"{key}.quotas.{quota}", f"there is no [quotas.{quota}]")
        limits = self._role_limits(f"{key}.limits", data.get("limits", {}), rules, permissions)
        granted = {
            quota: self._quota(f"{key}.quotas.{quota}", quota, rule, amounts.get(quota, rule.get("amount")))
            for quota, rule in quotas.items()
            if quota in amounts or "amount" in rule
        }
        return Role(permissions, limits, granted, toml.boolean(f"{key}.open_rooms", data.get("open_rooms", True)))

    def _role_limits(
        self, key: str, data: Any, rules: Mapping[str, _Rule], permissions: frozenset[str]
    ) -> dict[str, Limit]:
        toml = self._toml
        numbers = toml.table(key, data)
        for limit in numbers.keys() - rules.keys():
            toml.refuse(f"{key}.{limit}", f"there is no [limits.{limit}]")
        found = {}
        for limit, rule in rules.items():
            number = numbers.get(limit, rule.default)
            if number:
                found[limit] = self._limit(f"{key}.{limit}", limit, number, rule.flags, cost=rule.cost)
                continue
            # An unlimited action must be written as a large number, not happen by leaving a line out.
            reachable = {a for a in rule.actions if ACTIONS[a] is None or ACTIONS[a] in permissions}
            if reachable:
                toml.refuse(f"{key}.{limit}", f"is missing; the role may do {', '.join(sorted(reachable))}")
        return found

    def _limit(self, key: str, name: str, data: Any, flags: Mapping[str, Any], *, cost: int = 1) -> Limit:
        toml = self._toml
        toml.keys(key, toml.table(key, data), {"rate", "burst"}, required={"rate", "burst"})
        burst = toml.integer(f"{key}.burst", data["burst"], 1, MOST_UNITS)
        if not isinstance(data["rate"], str):
            toml.refuse(f"{key}.rate", 'must be a text such as "120/min"')
        if cost > burst:
            toml.refuse(f"{key}.burst", f"must be at least the cost of one request, {cost}")
        try:
            return Limit(name, *parse_rate(data["rate"]), burst, **flags)
        except ValueError as error:
            toml.refuse(key, str(error))

    def _rule(self, name: str, data: Any) -> _Rule:
        toml, key = self._toml, f"limits.{name}"
        known = {"applies_to", "rate", "burst", "cost", "strict", "shadow"}
        if "on_store_error" in toml.table(key, data):
            toml.refuse(
                f"{key}.on_store_error", "is no longer a setting: remove it; without Redis no request is allowed"
            )
        toml.keys(key, data, known, required={"applies_to"})
        self._named(key, name)
        actions = set(toml.strings(f"{key}.applies_to", data["applies_to"]))
        for action in sorted(actions - LIMITED_ACTIONS - {"*"}):
            toml.refuse(f"{key}.applies_to", f"unknown action {action!r}")
        if not actions:
            toml.refuse(f"{key}.applies_to", "names no action")
        cost = toml.integer(f"{key}.cost", data.get("cost", 1), 1, MOST_UNITS)
        flags = {
            "strict": toml.boolean(f"{key}.strict", data.get("strict", False)),
            "shadow": toml.boolean(f"{key}.shadow", data.get("shadow", False)),
        }
        default = {word: data[word] for word in ("rate", "burst") if word in data}
        if default:
            self._limit(key, name, default, flags, cost=cost)
        return _Rule(LIMITED_ACTIONS if "*" in actions else frozenset(actions), cost, flags, default)

    def _quota_rule(self, name: str, data: Any) -> dict[str, Any]:
        toml, key = self._toml, f"quotas.{name}"
        known = {"counter", "period", "amount", "time_zone", "shadow"}
        rule = toml.table(key, data)
        toml.keys(key, rule, known, required={"counter", "period"})
        self._named(key, name)
        toml.choice(f"{key}.counter", rule["counter"], tuple(sorted(COUNTERS)))
        self._quota(key, name, rule, rule.get("amount", 1))
        return rule

    def _quota(self, key: str, name: str, rule: Mapping[str, Any], amount: Any) -> Quota:
        toml = self._toml
        units = toml.integer(key if amount is not rule.get("amount") else f"{key}.amount", amount, 1, MOST_UNITS)
        shadow = toml.boolean(f"quotas.{name}.shadow", rule.get("shadow", False))
        zone = rule.get("time_zone", "UTC")
        if not isinstance(zone, str):
            toml.refuse(f"quotas.{name}.time_zone", 'must be a text such as "Europe/Berlin"')
        try:
            return Quota(name, rule["counter"], units, rule["period"], zone, shadow)
        except ValueError as error:
            toml.refuse(f"quotas.{name}", str(error))

    def _named(self, key: str, name: str) -> None:
        try:
            check_name(name)
        except ValueError as error:
            self._toml.refuse(key, str(error))

    def _anonymous(self, data: dict[str, Any]) -> Anonymous:
        """Read [anonymous]; what it leaves out is the built-in number (auth.md's, measured in attempts)."""
        built_in: dict[str, tuple[str, int]] = {
            "flood": ("200/s", 2000),
            "requests": ("600/min", 600),
            "failures": ("100/10min", 100),
            "account": ("5/15min", 5),
            "known_account": ("10/15min", 10),
            "refresh": ("10/min", 10),
            "register": ("60/h", 30),
        }
        self._toml.keys("anonymous", data, set(built_in))
        numbers = {
            name: self._limit(f"anonymous.{name}", name, data.get(name, {"rate": rate, "burst": burst}), {})
            for name, (rate, burst) in built_in.items()
        }
        return Anonymous(**numbers)

    def _registration(self, data: dict[str, Any], roles: Mapping[str, Role]) -> Registration:
        """Read [registration]; no mode means that GATEWAY_REGISTRATION alone says it."""
        toml = self._toml
        toml.keys("registration", data, {"mode", "roles"})
        mode = toml.choice("registration.mode", data["mode"], REGISTRATION_MODES) if "mode" in data else ""
        granted = toml.strings("registration.roles", data.get("roles", ["member"] if "member" in roles else []))
        for role in granted:
            if role not in roles:
                toml.refuse("registration.roles", f"there is no [roles.{role}]")
            if powers := ", ".join(sorted(roles[role].permissions & POWERS)):
                toml.refuse("registration.roles", f"{role} has {powers}: nobody gets that by registering himself")
        if mode == "open" and not granted:
            toml.refuse("registration.roles", "is missing; it names the roles of people who register themselves")
        return Registration(mode, tuple(granted))

    def _guests(self, data: dict[str, Any], roles: Mapping[str, Role]) -> Guests:
        toml = self._toml
        toml.keys("guests", data, {"role", "lasts"}, required={"role"} if data else ())
        if not data:
            return Guests()
        role = toml.choice("guests.role", data["role"], tuple(roles))
        if roles[role].open_rooms or roles[role].permissions - {"rooms:join", "usage:read-own"}:
            toml.refuse(
                "guests.role", f"[roles.{role}] must have open_rooms = false and at most rooms:join, usage:read-own"
            )
        return Guests(role, toml.duration("guests.lasts", data.get("lasts", "12h"), 300, 7 * 86_400))

    def _template(self, name: str, data: Any) -> dict[str, tuple[str, ...]]:
        key = f"templates.{name}"
        self._toml.keys(
            key, self._toml.table(key, data), {*RELATIONS, "id"}, required=set() if name == "default" else {"id"}
        )
        if not re.fullmatch(r"[0-9a-f]{24}", str(data.get("id", "0" * 24))):
            self._toml.refuse(f"{key}.id", "must be 24 hexadecimal digits, as the 100ms dashboard shows them")
        named = [relation for relation in RELATIONS if relation in data]
        roles = {relation: tuple(self._toml.strings(f"{key}.{relation}", data[relation])) for relation in named}
        for relation, names in roles.items():
            for role in names:
                if not ROLE_NAME.fullmatch(role):
                    self._toml.refuse(f"{key}.{relation}", f"{role!r} is not a role name of {NAMES_ALLOWED}")
        return roles

    def _rooms(self, data: dict[str, Any]) -> RoomDefaults:
        known = {"access", "region", "size", "max_duration", "token_ttl", "active_per_owner", "unique_names"}
        self._toml.keys("rooms", data, known)
        return RoomDefaults(
            access=self._toml.choice("rooms.access", data.get("access", "open"), ("open", "invited")),
            region=self._toml.choice("rooms.region", data.get("region", "auto"), ("auto", "us", "eu", "in")),
            size=self._toml.integer("rooms.size", data.get("size", 100), 1, 2500),
            max_duration_s=self._toml.duration("rooms.max_duration", data.get("max_duration", "12h"), 120, 43_200),
            token_ttl_s=self._toml.duration("rooms.token_ttl", data.get("token_ttl", "1h"), 60, 86_400),
            active_per_owner=self._toml.integer("rooms.active_per_owner", data.get("active_per_owner", 50), 1, 100_000),
            unique_names=self._toml.boolean("rooms.unique_names", data.get("unique_names", False)),
        )
