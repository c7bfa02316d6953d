"""Turns the tables of a policy file into a Policy: what refers to what, and what may not go together."""

import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from string import ascii_lowercase
from typing import Any, NoReturn, TypeVar

import msgspec

from auth.federation import Provider
from gateway.policy.actions import ACTIONS, LIMITED_ACTIONS, MINUTES, PERMISSIONS, POWERS, RELATIONS, SCOPES
from gateway.policy.endpoints import EVENTS, MOST_ENDPOINTS, Endpoint, check_endpoint
from gateway.policy.identities import MOST_PROVIDERS, read_provider
from gateway.policy.model import KEY_API, Anonymous, Guests, Policy, Prices, Registration, Role, RoomDefaults
from gateway.policy.tables import (
    INTERNAL,
    NAMES_ALLOWED,
    ROLE_NAME,
    GuestsTable,
    IdentityTable,
    LimitTable,
    NumberTable,
    PolicyError,
    PolicyTable,
    PricesTable,
    QuotaTable,
    RegistrationTable,
    ReportsTable,
    RoleTable,
    RoomsTable,
    ServiceKeysTable,
    Table,
    TemplateTable,
    Units,
    WebhookTable,
    in_words,
)
from gateway.signing import ENDPOINT
from gateway.text import FieldError
from limits.limiter import MOST_LIMITS
from limits.periods import zone_of
from limits.policy import MOST_UNITS, Limit, Quota, check_name, parse_rate

_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400}
_T = TypeVar("_T", bound=Table)


class Reader:
    """Turns a parsed policy file into values. `defaults` are the numbers of [anonymous] that it may leave out.

    Files that it names are relative to `folder`.
    """

    def __init__(self, name: str, defaults: Mapping[str, Any], folder: Path) -> None:
        self._name = name
        self._folder = folder
        self._defaults = defaults
        self._zone = ""  # of reports, and of quotas that state none

    def policy(self, data: dict[str, Any]) -> Policy:
        file = self._table("", data, PolicyTable)
        if len(file.limits) + len(file.quotas) > MOST_LIMITS:
            self._refuse("limits", f"there may be {MOST_LIMITS} limits and quotas together")
        self._zone = self._time_zone(file.reports)
        limits = {name: self._limit_table(name, table) for name, table in file.limits.items()}
        quotas = {name: self._quota_table(name, table) for name, table in file.quotas.items()}
        for name in limits.keys() & quotas.keys():
            self._refuse(f"quotas.{name}", "is also the name of a limit")
        roles = {name: self._role(name, table, limits, quotas) for name, table in file.roles.items()}
        if not roles:
            self._refuse("roles", "at least one role is needed")
        if "default" not in file.templates:
            self._refuse("templates.default", "is missing")
        templates = {alias: self._template(alias, table) for alias, table in file.templates.items()}
        return Policy(
            source=self._name,
            roles=roles,
            applies_to={name: table.actions for name, table in limits.items()},
            templates={
                alias: {relation: names for relation in RELATIONS if (names := getattr(table, relation))}
                for alias, table in templates.items()
            },
            rooms=self._rooms(file.rooms),
            anonymous=self._anonymous(file.anonymous),
            registration=self._registration(file.registration, roles),
            guests=self._guests(file.guests, roles),
            costs={name: table.cost for name, table in limits.items()},
            template_ids={alias: table.id for alias, table in templates.items() if table.id},
            prices=self._prices(file.prices),
            installation=tuple(
                self._quota(f"quotas.{name}", name, table.amount, table)
                for name, table in quotas.items()
                if table.scope == "all"
            ),
            ending=frozenset(name for name, table in quotas.items() if table.on_exhausted == "end"),
            endpoints=self._endpoints(file.webhooks),
            identities=self._identities(file.identity, roles),
            time_zone=self._zone,
            key_limits=self._key_limits(file.service_keys, limits),
        )

    def _role(self, name: str, data: Any, limits: Mapping[str, LimitTable], quotas: Mapping[str, QuotaTable]) -> Role:
        key = f"roles.{name}"
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", name):
            self._refuse(key, "a role's name is 1 to 32 of a-z 0-9 _ -, starting with a letter")
        table = self._table(key, data, RoleTable)
        permissions = frozenset(table.permissions)
        for permission in sorted(permissions - PERMISSIONS):
            self._refuse(f"{key}.permissions", f"unknown permission {permission!r}")
        for number in ("concurrent_rooms", "max_participants"):
            if getattr(table, number) and "rooms:create" not in permissions:
                self._refuse(f"{key}.{number}", "is for roles with the permission rooms:create")
        return Role(
            permissions,
            self._role_limits(f"{key}.limits", table.limits, limits, permissions),
            self._role_quotas(f"{key}.quotas", table.quotas, quotas),
            table.open_rooms,
            table.concurrent_rooms,
            table.max_participants,
        )

    def _role_limits(
        self, key: str, numbers: dict[str, Any], limits: Mapping[str, LimitTable], permissions: frozenset[str]
    ) -> dict[str, Limit]:
        for name in numbers.keys() - limits.keys():
            self._refuse(f"{key}.{name}", f"there is no [limits.{name}]")
        found = {}
        for name, table in limits.items():
            if number := numbers.get(name, table.default):
                found[name] = self._limit(f"{key}.{name}", name, number, table)
                continue
            # An unlimited action must be written as a large number: an omitted line must not make an action unlimited.
            reachable = {action for action in table.actions if ACTIONS[action] in {None, *permissions}}
            if reachable:
                self._refuse(f"{key}.{name}", f"is missing; the role may do {', '.join(sorted(reachable))}")
        return found

    def _role_quotas(self, key: str, amounts: dict[str, Any], quotas: Mapping[str, QuotaTable]) -> dict[str, Quota]:
        for name in sorted(amounts):
            if name not in quotas:
                self._refuse(f"{key}.{name}", f"there is no [quotas.{name}]")
            if quotas[name].scope == "all":
                self._refuse(f"{key}.{name}", "is the budget of all users together; no role has an amount of its own")
        stated = {name: table.amount for name, table in quotas.items() if table.amount and table.scope != "all"}
        stated |= amounts
        return {name: self._quota(f"{key}.{name}", name, amount, quotas[name]) for name, amount in stated.items()}

    def _limit_table(self, name: str, data: Any) -> LimitTable:
        key = f"limits.{name}"
        table = self._table(key, data, LimitTable)
        self._check_name(key, name)
        for action in sorted({*table.applies_to} - LIMITED_ACTIONS - {"*"}):
            self._refuse(f"{key}.applies_to", f"unknown action {action!r}")
        if not table.applies_to:
            self._refuse(f"{key}.applies_to", "names no action")
        if table.default:
            self._limit(key, name, table.default, table)
        return table

    def _limit(self, key: str, name: str, data: Any, table: LimitTable) -> Limit:
        number = self._table(key, data, NumberTable)
        if table.cost > number.burst:
            self._refuse(f"{key}.burst", f"must be at least the cost of one request, {table.cost}")
        try:
            return Limit(name, *parse_rate(number.rate), number.burst, table.strict, table.shadow)
        except ValueError as error:
            self._refuse(key, str(error))

    def _quota_table(self, name: str, data: Any) -> QuotaTable:
        key = f"quotas.{name}"
        table = self._table(key, data, QuotaTable)
        self._check_name(key, name)
        for setting, default in (("scope", "user"), ("on_exhausted", "refuse")):
            if table.counter != MINUTES and getattr(table, setting) != default:
                self._refuse(f"{key}.{setting}", f"is for quotas with the counter {MINUTES}")
        table.time_zone = table.time_zone or self._zone
        if table.shadow and table.on_exhausted == "end":
            self._refuse(f"{key}.on_exhausted", "ends no room while shadow = true")
        if table.scope == "all" and not table.amount:
            self._refuse(f"{key}.amount", "is missing; roles cannot state the budget of all users together")
        self._quota(key, name, table.amount or 1, table)
        return table

    def _quota(self, key: str, name: str, amount: Any, table: QuotaTable) -> Quota:
        try:
            units = msgspec.convert(amount, Units)
        except msgspec.ValidationError:
            self._refuse(key, f"must be a whole number from 1 to {MOST_UNITS}")
        try:
            if table.counter != MINUTES:
                return Quota(name, table.counter, units, table.period, table.time_zone, table.shadow)
            counter = SCOPES[table.scope]  # of seconds
            return Quota(name, counter, units, table.period, table.time_zone, table.shadow, unit=60, metered=True)
        except ValueError as error:
            self._refuse(f"quotas.{name}", str(error))

    def _check_name(self, key: str, name: str) -> None:
        try:
            check_name(name)
        except ValueError as error:
            self._refuse(key, str(error))

    def _template(self, alias: str, data: Any) -> TemplateTable:
        key = f"templates.{alias}"
        table = self._table(key, data, TemplateTable)
        if alias != "default" and not table.id:
            self._refuse(f"{key}.id", "is missing")
        for relation in RELATIONS:
            for role in getattr(table, relation):
                if not ROLE_NAME.fullmatch(role):
                    self._refuse(f"{key}.{relation}", f"{role!r} is not a role name of {NAMES_ALLOWED}")
                if role.startswith(INTERNAL):  # its peers are not people, so their minutes would not be counted
                    self._refuse(f"{key}.{relation}", f"{role!r} is 100ms's own role; no user joins with it")
        return table

    def _rooms(self, data: dict[str, Any]) -> RoomDefaults:
        table = self._table("rooms", data, RoomsTable)
        return RoomDefaults(
            access=table.access,
            region=table.region,
            size=table.size,
            max_duration_s=self._seconds("rooms.max_duration", table.max_duration, 120, 43_200),
            token_ttl_s=self._seconds("rooms.token_ttl", table.token_ttl, 60, 86_400),
            active_per_owner=table.active_per_owner,
            unique_names=table.unique_names,
        )

    def _time_zone(self, data: dict[str, Any]) -> str:
        zone = self._table("reports", data, ReportsTable).time_zone
        try:
            zone_of(zone)
        except ValueError as error:
            self._refuse("reports.time_zone", str(error))
        return zone

    def _prices(self, data: dict[str, Any]) -> Prices | None:
        if not data:
            return None
        table = self._table("prices", data, PricesTable)
        price = Decimal(str(table.per_1000_minutes))
        if not price.is_finite() or int(price.as_tuple().exponent) < -6:
            self._refuse("prices.per_1000_minutes", "must have at most 6 decimals")
        return Prices(table.currency, price)

    def _anonymous(self, data: dict[str, Any]) -> Anonymous:
        for name in sorted(data.keys() - self._defaults.keys()):
            self._refuse(f"anonymous.{name}", "unknown key")
        plain = LimitTable(applies_to=())
        numbers = {**self._defaults, **data}
        return Anonymous(**{name: self._limit(f"anonymous.{name}", name, numbers[name], plain) for name in numbers})

    def _key_limits(self, data: dict[str, Any], limits: Mapping[str, LimitTable]) -> dict[str, Limit]:
        """Read [service_keys]. Its limit `api` counts every request, whatever [limits.api] says."""
        numbers = self._table("service_keys", data, ServiceKeysTable).limits
        for name in sorted(numbers.keys() - limits.keys() - {"api"}):
            self._refuse(f"service_keys.limits.{name}", f"there is no [limits.{name}]")
        tables = {**limits, "api": LimitTable(applies_to=())}
        found = {
            name: self._limit(f"service_keys.limits.{name}", name, number, tables[name])
            for name, number in numbers.items()
        }
        return {"api": KEY_API} | found

    def _registration(self, data: dict[str, Any], roles: Mapping[str, Role]) -> Registration:
        """Read [registration]; without a mode GATEWAY_REGISTRATION decides."""
        default = {"roles": ["member"] if "member" in roles else []}
        table = self._table("registration", default | data, RegistrationTable)
        for role in table.roles:
            if role not in roles:
                self._refuse("registration.roles", f"there is no [roles.{role}]")
            if powers := ", ".join(sorted(roles[role].permissions & POWERS)):
                self._refuse("registration.roles", f"{role} has {powers}, which registration must not grant")
        if table.mode == "open" and not table.roles:
            self._refuse("registration.roles", "is missing; it names the roles of people who register themselves")
        return Registration(table.mode, table.roles)

    def _guests(self, data: dict[str, Any], roles: Mapping[str, Role]) -> Guests:
        if not data:
            return Guests()
        table = self._table("guests", data, GuestsTable)
        role = roles.get(table.role)
        if role is None:
            self._refuse("guests.role", f"must be one of: {', '.join(roles)}")
        if role.open_rooms or role.permissions - {"rooms:join", "usage:read-own"}:
            self._refuse(
                "guests.role",
                f"[roles.{table.role}] must have open_rooms = false and at most rooms:join, usage:read-own",
            )
        return Guests(table.role, self._seconds("guests.lasts", table.lasts, 300, 7 * 86_400))

    def _endpoints(self, tables: dict[str, Any]) -> tuple[Endpoint, ...]:
        if len(tables) > MOST_ENDPOINTS:
            self._refuse("webhooks", f"there may be {MOST_ENDPOINTS} endpoints")
        return tuple(self._endpoint(name, data) for name, data in tables.items())

    def _endpoint(self, name: str, data: Any) -> Endpoint:
        key = f"webhooks.{name}"
        if not re.fullmatch(ENDPOINT, name):
            self._refuse(key, "an endpoint's name is 1 to 32 of a-z 0-9 _ -, starting with a letter")
        table = self._table(key, data, WebhookTable)
        for event in sorted({*table.events} - EVENTS):
            self._refuse(f"{key}.events", f"unknown event {event!r}")
        if not table.events:
            self._refuse(f"{key}.events", f"names no event; there are {', '.join(sorted(EVENTS))}")
        endpoint = Endpoint(name, table.url, frozenset(table.events), table.allow_private)
        try:
            check_endpoint(endpoint)
        except ValueError as error:
            self._refuse(f"{key}.url", str(error))
        return endpoint

    def _identities(self, tables: dict[str, Any], roles: Mapping[str, Role]) -> tuple[Provider, ...]:
        if len(tables) > MOST_PROVIDERS:
            self._refuse("identity", f"there may be {MOST_PROVIDERS} providers")
        found: dict[str, Provider] = {}
        for name, data in tables.items():
            key = f"identity.{name}"
            try:
                provider = read_provider(name, self._table(key, data, IdentityTable), roles, self._folder)
            except FieldError as error:
                self._refuse(".".join(filter(None, (key, error.field))), error.rule)
            if provider.issuer in found:
                other = found[provider.issuer].name
                self._refuse(f"{key}.issuer", f"is also that of {other}; list both audiences there")
            found[provider.issuer] = provider
        return tuple(found.values())

    def _seconds(self, key: str, duration: str, least: int, most: int) -> int:
        count = duration.rstrip(ascii_lowercase)
        seconds = int(count) * _SECONDS[duration.removeprefix(count)]
        if not least <= seconds <= most:
            self._refuse(key, f"must be from {least} to {most} seconds")
        return seconds

    def _table(self, key: str, data: Any, of: type[_T]) -> _T:
        try:
            return msgspec.convert(data, of)
        except msgspec.ValidationError as error:
            name, reason = in_words(str(error), of)
            self._refuse(".".join(filter(None, (key, name))), reason)

    def _refuse(self, key: str, reason: str) -> NoReturn:
        # A quoted TOML key may hold line breaks; the refusal stays one line.
        name = key if key.isprintable() else repr(key)
        raise PolicyError(f"{self._name}: {name}: {reason}")
